//! Aggregation: the movements of one partition to groups, and groups into published groups.
//!
//! In: movements in any order; groups sorted by key. Out: groups sorted by key, each key once.
//! Sorting a cache-sized partition brings equal keys together and gives the published order at
//! once; unlike a hash table it cannot be flooded by chosen ids. Packed movements are sorted digit
//! by digit (radix sort, Knuth, volume 3, 5.2.5).
//! Invariant: counts and cents in = counts and cents out, in whatever order they come; a sum that a
//! group cannot hold stays in shares until all of it is there.

use super::groups::Groups;
use super::movement::{Chunk, Movement, PackedRows, Packing};
use crate::domain::category::CategoryId;
use crate::domain::money::DECIMAL_CENTS_LIMIT;
use crate::domain::spend::Spend;
use crate::planted::Bug;
use std::collections::BTreeSet;
use std::ops::Range;

/// The groups of one partition.
#[derive(Debug, Default)]
pub struct Sums {
    /// Month after month, each month sorted by user and category.
    groups: Vec<Spend>,
    /// The index of each month that occurs, ascending, and the end of its groups.
    months: Vec<(u32, usize)>,
    /// Some group stands in several shares: all of it so far is more than a group can hold.
    pub in_shares: bool,
    pub rows: u64,
    pub positive_cents: i128,
    pub negative_cents: i128,
}

/// Where the packed movements of a partition are sorted: memory that was used is cheaper than memory that
/// is new.
#[derive(Default)]
pub struct SortBuffers {
    rows: Vec<u64>,
    spare: Vec<u64>,
}

impl SortBuffers {
    /// The capacity in rows.
    pub fn rows(&self) -> usize {
        self.rows.capacity()
    }
}

/// Adds up the movements of a partition; `packing` is how they are packed.
pub fn sum_up(chunks: Vec<Chunk>, packing: Option<(Packing, u64)>, buffers: &mut SortBuffers) -> Sums {
    let (mut packed, mut wide) = (Vec::new(), Vec::new());
    for chunk in chunks {
        match chunk {
            Chunk::Packed(rows) => packed.push(rows),
            Chunk::Wide(rows) => wide.extend(rows),
        }
    }
    wide.sort_unstable_by_key(|movement: &Movement| movement.group());
    let mut wide_sums = Sums::with_room(&wide, Movement::group);
    for of_month in wide.chunk_by(|one, other| one.month_index() == other.month_index()) {
        wide_sums.add_up(of_month, Movement::group, |movement| *movement, Movement::cents);
    }
    let Some((packing, base)) = packing else {
        assert!(packed.is_empty(), "what is packed has a packing");
        return wide_sums;
    };
    let mut rows = sorted(packed, packing.key_bits(), buffers);
    let month = |row: &u64| packing.month_index(*row);
    let mut sums = Sums::with_room(rows, |row| packing.key(*row));
    while let Some(first) = rows.first() {
        let (of_month, rest) = rows.split_at(rows.partition_point(|row| month(row) == month(first)));
        match packing.cents_max().checked_mul(of_month.len() as i64) {
            Some(most) if most < DECIMAL_CENTS_LIMIT => sums.add_up_packed(of_month, packing, base),
            _ => {
                let (key, unpack) = (|row: &u64| packing.key(*row), |row: &u64| packing.unpack(base, *row));
                sums.add_up(of_month, key, unpack, |row| packing.cents(*row));
            }
        }
        rows = rest;
    }
    sums.plus(wide_sums)
}

impl Sums {
    /// Empty, with the exact capacity for the groups of sorted rows: a growing list would be copied
    /// and take memory twice.
    fn with_room<R, K: PartialEq>(rows: &[R], key: impl Fn(&R) -> K) -> Sums {
        let ends = rows.windows(2).filter(|pair| key(&pair[0]) != key(&pair[1])).count();
        let groups = ends + usize::from(!rows.is_empty());
        Sums { groups: Vec::with_capacity(groups), ..Sums::default() }
    }

    /// Adds the rows of the next month, sorted by key.
    fn add_up<R, K: PartialEq>(
        &mut self,
        rows: &[R],
        key: impl Fn(&R) -> K,
        unpack: impl Fn(&R) -> Movement,
        cents: impl Fn(&R) -> i64,
    ) {
        let Some(first) = rows.first() else { return };
        let month = unpack(first).month_index();
        for of_group in rows.chunk_by(|one, other| key(one) == key(other)) {
            let (mut positive, mut net) = (0, 0);
            for cents in of_group.iter().map(&cents) {
                positive += i128::from(cents.max(0));
                net += i128::from(cents);
            }
            self.positive_cents += positive;
            self.negative_cents += net - positive;
            let net = if Bug::SumOf32Bits.is_planted() { i128::from(net as i32) } else { net };
            let first = unpack(&of_group[0]);
            let (user_id, category) = (first.user_id(), first.category());
            let zero = Spend { user_id, category, amount_cents: 0, transaction_count: 0 };
            self.push(zero, net, of_group.len() as u64);
        }
        self.rows += rows.len() as u64;
        self.months.push((month, self.groups.len()));
    }

    /// Adds a group, in as many shares as its sum needs.
    fn push(&mut self, zero: Spend, net_cents: i128, transaction_count: u64) {
        let most = i128::from(DECIMAL_CENTS_LIMIT - 1);
        let (mut rest, mut count) = (net_cents, transaction_count);
        loop {
            let share = rest.clamp(-most, most);
            let amount_cents = i64::try_from(share).expect("it was cut to fit");
            self.groups.push(Spend { amount_cents, transaction_count: count, ..zero });
            (rest, count) = (rest - share, 0);
            if rest == 0 {
                return;
            }
            self.in_shares = true;
        }
    }

    /// As [`Sums::add_up`] for packed rows whose sums cannot overflow: without a branch on whether
    /// a row starts a group, which is unpredictable.
    fn add_up_packed(&mut self, rows: &[u64], packing: Packing, base: u64) {
        let Some(first) = rows.first() else { return };
        let groups = &mut self.groups;
        let mut last = !packing.key(*first);
        let (mut net_cents, mut transaction_count, mut positive_cents, mut all_cents) = (0, 0, 0, 0);
        for row in rows {
            let begins = packing.key(*row) != last;
            last = packing.key(*row);
            // All bits set, or none where a group starts.
            let keep = i64::from(begins) - 1;
            let cents = packing.cents(*row);
            net_cents = (net_cents & keep) + cents;
            transaction_count = (transaction_count & keep) + 1;
            positive_cents += cents.max(0);
            all_cents += cents;
            let kept = if Bug::SumOf32Bits.is_planted() { i64::from(net_cents as i32) } else { net_cents };
            let (user_id, category) = packing.user_and_category(base, *row);
            let transaction_count = transaction_count.cast_unsigned();
            // The running sum of a group is replaced by the next one.
            groups.truncate(groups.len() - usize::from(!begins));
            groups.push(Spend { user_id, category, amount_cents: kept, transaction_count });
        }
        self.positive_cents += i128::from(positive_cents);
        self.negative_cents += i128::from(all_cents - positive_cents);
        self.rows += rows.len() as u64;
        self.months.push((packing.month_index(*first), self.groups.len()));
    }

    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The index of each month and the range of its groups.
    fn ranges(&self) -> impl Iterator<Item = (u32, Range<usize>)> {
        let starts = [0].into_iter().chain(self.months.iter().map(|(_, end)| *end));
        self.months.iter().zip(starts).map(|((month, end), start)| (*month, start..*end))
    }

    /// The index of each month that occurs, ascending, and its groups.
    pub fn into_months(mut self) -> Vec<(u32, Groups)> {
        let groups = Groups::of(std::mem::take(&mut self.groups));
        self.ranges().map(|(month, range)| (month, groups.slice(range))).collect()
    }

    fn of_month(&self, month: u32) -> &[Spend] {
        let range = self.ranges().find(|(index, _)| *index == month);
        range.map_or(&[], |(_, range)| &self.groups[range])
    }

    /// The sums of both.
    pub fn plus(self, other: Sums) -> Sums {
        if self.rows == 0 || other.rows == 0 {
            return if self.rows == 0 { other } else { self };
        }
        let mut sums = Sums {
            groups: Vec::with_capacity(self.groups() + other.groups()),
            months: Vec::new(),
            in_shares: self.in_shares || other.in_shares,
            rows: self.rows + other.rows,
            positive_cents: self.positive_cents + other.positive_cents,
            negative_cents: self.negative_cents + other.negative_cents,
        };
        let months: BTreeSet<u32> =
            self.months.iter().chain(&other.months).map(|(month, _)| *month).collect();
        for month in months {
            let (one, other) = (self.of_month(month), other.of_month(month));
            sums.in_shares |= merge_into(&mut sums.groups, one, other);
            sums.months.push((month, sums.groups.len()));
        }
        sums
    }
}

/// Fewer rows are sorted by comparison.
const RADIX_ROWS_MIN: usize = 1024;
const DIGIT_BITS_MAX: u32 = 11;

/// All rows sorted by their `key_bits`, least significant digit first.
fn sorted(chunks: Vec<PackedRows>, key_bits: Range<u32>, buffers: &mut SortBuffers) -> &[u64] {
    let SortBuffers { rows, spare } = buffers;
    rows.clear();
    rows.reserve(chunks.iter().map(PackedRows::rows).sum());
    chunks.into_iter().for_each(|chunk| rows.extend(chunk.iter()));
    if rows.len() < RADIX_ROWS_MIN {
        rows.sort_unstable_by_key(|row| row >> key_bits.start);
        return rows;
    }
    // Bits that are the same in all rows need no sorting.
    let differing = rows.iter().fold(0, |bits, row| bits | (row ^ rows[0])) >> key_bits.start;
    let bits = u64::BITS - differing.leading_zeros();
    let digits = bits.div_ceil(DIGIT_BITS_MAX);
    spare.resize(rows.len(), 0);
    for digit in 0..digits {
        let digit_bits = bits.div_ceil(digits);
        sort_by_digit(rows, spare, key_bits.start + digit * digit_bits, digit_bits);
        std::mem::swap(rows, spare);
    }
    rows
}

/// One pass of the radix sort. Stable.
fn sort_by_digit(rows: &[u64], sorted: &mut [u64], shift: u32, bits: u32) {
    // The last digit may extend past the differing bits, where all rows are equal.
    let digit = |row: u64| (row >> shift) as usize & ((1 << bits) - 1);
    let mut next = [0; 1 << DIGIT_BITS_MAX];
    rows.iter().for_each(|row| next[digit(*row)] += 1);
    let mut start = 0;
    for place in &mut next[..1 << bits] {
        (*place, start) = (start, start + *place);
    }
    for row in rows {
        let place = &mut next[digit(*row)];
        sorted[*place] = *row;
        *place += 1;
    }
}

/// Merges published groups with what `movements` adds to them, of which some may stand in shares.
/// `beyond` gets the groups whose sum leaves DECIMAL(18,2) or whose count leaves BIGINT.
pub fn merge(
    opening: &[Spend],
    movements: &[Spend],
    in_shares: bool,
    mut beyond: impl FnMut(u64, CategoryId),
) -> Vec<Spend> {
    let mut merged = Vec::with_capacity(opening.len() + movements.len());
    if !merge_into(&mut merged, opening, movements) && !in_shares {
        return merged;
    }
    let mut whole = Vec::with_capacity(merged.len());
    for shares in merged.chunk_by(|one, other| one.key() == other.key()) {
        let cents = shares.iter().map(|share| i128::from(share.amount_cents)).sum::<i128>();
        let count = shares.iter().map(|share| i128::from(share.transaction_count)).sum::<i128>();
        let fits = cents.unsigned_abs() < u128::from(DECIMAL_CENTS_LIMIT.unsigned_abs());
        match (fits, i64::try_from(cents), i64::try_from(count)) {
            (true, Ok(amount_cents), Ok(count)) => {
                let transaction_count = count.cast_unsigned();
                whole.push(Spend { amount_cents, transaction_count, ..shares[0] });
            }
            _ => beyond(shares[0].user_id, shares[0].category),
        }
    }
    whole
}

/// Merges two lists, adding up the shares of equal keys where a group can hold their sum. Out: whether
/// there are some that stay apart.
fn merge_into(merged: &mut Vec<Spend>, opening: &[Spend], movements: &[Spend]) -> bool {
    let (mut left, mut right) = (opening.iter().peekable(), movements.iter().peekable());
    let mut in_shares = false;
    loop {
        let next = match (left.peek(), right.peek()) {
            (None, None) => return in_shares,
            (Some(_), None) => left.next().copied(),
            (None, Some(_)) => right.next().copied(),
            (Some(a), Some(b)) => match a.key().cmp(&b.key()) {
                std::cmp::Ordering::Less => left.next().copied(),
                std::cmp::Ordering::Greater => right.next().copied(),
                std::cmp::Ordering::Equal => {
                    let sum = a.plus(**b);
                    if sum.is_none() {
                        in_shares = true;
                        merged.push(**a);
                    }
                    let next = sum.unwrap_or(**b);
                    left.next();
                    right.next();
                    Some(next)
                }
            },
        };
        merged.extend(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::AMOUNT_CENTS_MAX;
    use crate::kernel::partition::{ChunkSink, Partitioner, Sample, Scatter};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Told = (u64, u32, u8, i64);
    type Sum = ((u32, u64, u8), (i64, u64));

    fn told_slowly(rows: &[Told]) -> BTreeMap<(u32, u64, u8), (i64, u64)> {
        let mut groups = BTreeMap::new();
        for &(user, month, category, cents) in rows {
            let group = groups.entry((month, user, category)).or_insert((0, 0));
            *group = (group.0 + cents, group.1 + 1);
        }
        groups
    }

    /// Aggregates rows through a scatter, packed by a sample of the first `sampled` rows.
    fn summed(rows: &[Told], sampled: usize) -> Sums {
        let mut sample = Sample::default();
        rows.iter().take(sampled).for_each(|row| sample.add(row.0, row.1, row.3));
        let partitioner = Partitioner::from_sample(sample, 1, 200);
        let mut scatter = Scatter::new(&partitioner, Chunks::default());
        for &(user, month, category, cents) in rows {
            scatter.push(Movement::new(user, month, CategoryId(category), cents));
        }
        sum_up(scatter.finish().0, partitioner.packing(0), &mut SortBuffers::default())
    }

    #[derive(Default)]
    struct Chunks(Vec<Chunk>);

    impl ChunkSink for Chunks {
        fn take(&mut self, _: usize, chunk: Chunk) {
            self.0.push(chunk);
        }
    }

    fn flat(months: &[(u32, Groups)]) -> Vec<Sum> {
        let spends = months.iter().flat_map(|(m, groups)| groups.iter().map(move |s| (*m, *s)));
        spends.map(|(m, s)| ((m, s.user_id, s.category.0), (s.amount_cents, s.transaction_count))).collect()
    }

    fn rows() -> impl Strategy<Value = Vec<Told>> {
        proptest::collection::vec((0u64..5, 0u32..3, 0u8..4, -1000i64..1000), 0..60)
    }

    proptest! {
        #[test]
        fn sums_match_a_map_and_merging_adds(first in rows(), second in rows(), sampled in 0usize..10) {
            let one = summed(&first, sampled);
            prop_assert_eq!(one.rows, first.len() as u64);
            prop_assert_eq!(one.positive_cents + one.negative_cents, first.iter().map(|r| i128::from(r.3)).sum::<i128>());
            let other = summed(&second, sampled);
            let merged = merge(one.of_month(1), other.of_month(1), false, |_, _| panic!("it fits"));
            let both: Vec<Told> = first.iter().chain(&second).copied().collect();
            let of_month: Vec<Told> = both.iter().copied().filter(|r| r.1 == 1).collect();
            prop_assert_eq!(flat(&[(1, Groups::of(merged))]), told_slowly(&of_month).into_iter().collect::<Vec<_>>());
            let (one_alone, sum) = (summed(&first, sampled), one.plus(other));
            prop_assert_eq!(sum.rows, both.len() as u64);
            prop_assert_eq!(flat(&sum.into_months()), told_slowly(&both).into_iter().collect::<Vec<_>>());
            prop_assert_eq!(flat(&one_alone.into_months()), told_slowly(&first).into_iter().collect::<Vec<_>>());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn large_partitions_match_a_map(
            seed in any::<u64>(),
            user_bits in prop::sample::select(vec![0u32, 1, 12, 24, 40, 62]),
            months in prop::sample::select(vec![1u32, 2, 1200]),
            categories in prop::sample::select(vec![1u8, 21, 255]),
            sampled in prop::sample::select(vec![0usize, 10, 3000]),
        ) {
            let mut state = seed | 1;
            let mut random = || {
                state = state.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
                state >> 11
            };
            let row = |_| {
                let user = 7 + (random() & ((1u64 << user_bits) - 1));
                let (month, category) = (random() % u64::from(months), random() % u64::from(categories));
                (user, month as u32, category as u8, (random() % 2001) as i64 - 1000)
            };
            let rows: Vec<Told> = (0..3 * RADIX_ROWS_MIN).map(row).collect();
            let sums = summed(&rows, sampled);
            prop_assert_eq!(sums.rows, rows.len() as u64);
            let positive: i128 = rows.iter().map(|r| i128::from(r.3.max(0))).sum();
            prop_assert_eq!(sums.positive_cents, positive);
            prop_assert_eq!(flat(&sums.into_months()), told_slowly(&rows).into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn checked_sums_match_a_map() {
        // Enough rows in one month that the bound on their sum exceeds the range.
        let count = DECIMAL_CENTS_LIMIT / AMOUNT_CENTS_MAX + 1000;
        let row = |n: i64| {
            let cents = if n % 2 == 0 { AMOUNT_CENTS_MAX } else { 7 - AMOUNT_CENTS_MAX };
            (n as u64 % 5, 1, (n % 3) as u8, cents)
        };
        let rows: Vec<Told> = (0..count).map(row).collect();
        let sums = summed(&rows, 3000);
        assert_eq!(sums.rows, count as u64);
        assert_eq!(flat(&sums.into_months()), told_slowly(&rows).into_iter().collect::<Vec<_>>());
    }

    /// Sums of as many rows as are added up at once, one after the other.
    fn in_turn(rows: &[Told], at_once: usize) -> Sums {
        rows.chunks(at_once).map(|some| summed(some, 0)).fold(Sums::default(), Sums::plus)
    }

    #[test]
    fn what_is_too_much_on_the_way_may_fit_at_the_end_whatever_the_order() {
        let most = AMOUNT_CENTS_MAX;
        let half = (DECIMAL_CENTS_LIMIT / most + 10) as usize;
        let (up, down) = (vec![(1, 1, 0, most); half], vec![(1, 1, 0, 3 - most); half]);
        let others = [(0, 1, 0, 5), (1, 1, 1, 6), (2, 1, 0, 7)];
        let expected = [
            ((1, 0, 0), (5, 1)),
            ((1, 1, 0), (3 * half as i64, 2 * half as u64)),
            ((1, 1, 1), (6, 1)),
            ((1, 2, 0), (7, 1)),
        ];
        for rows in [[&up[..], &others, &down].concat(), [&down[..], &others, &up].concat()] {
            let sums = in_turn(&rows, half / 2);
            assert_eq!(sums.rows, rows.len() as u64);
            let in_shares = sums.in_shares;
            let merged = merge(&[], sums.of_month(1), in_shares, |_, _| panic!("it fits"));
            assert_eq!(flat(&[(1, Groups::of(merged))]), expected);
        }
        // And what does not fit is told by its key, and by it alone.
        for rows in [[&up[..], &others].concat(), [&others[..], &down].concat()] {
            let (sums, mut beyond) = (in_turn(&rows, rows.len()), Vec::new());
            assert!(sums.in_shares);
            let merged = merge(&[], sums.of_month(1), true, |user, category| beyond.push((user, category.0)));
            assert_eq!((merged.len(), beyond), (3, vec![(1, 0)]));
        }
    }

    #[test]
    fn a_sum_that_no_decimal_holds_is_told() {
        let near = Spend {
            user_id: 1,
            category: CategoryId(0),
            amount_cents: 999_999_999_999_999_999,
            transaction_count: 1,
        };
        let one = Spend { amount_cents: 1, ..near };
        let mut beyond = Vec::new();
        assert_eq!(merge(&[near], &[one], false, |user, category| beyond.push((user, category))), []);
        assert_eq!(beyond, [(1, CategoryId(0))]);
        let less = merge(&[near], &[Spend { amount_cents: -1, ..one }], false, |_, _| panic!("it fits"));
        assert_eq!(less[0].transaction_count, 2);
    }
}
