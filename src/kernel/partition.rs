//! Movements, and the partition of the shuffle that each belongs to.
//!
//! In: a categorized transaction. Out: 8 bytes in the buffer of its user's partition, or 16 where
//! it lies outside what a sample of the logs led to expect.
//! Invariant: partitions are rising, disjoint ranges of user_id; what goes in comes out, packed
//! and unpacked without loss.

use super::prefetch::prefetch;
use crate::domain::category::CategoryId;
use crate::limits::{CHUNK_ROWS, MONTHS_MAX};
use std::ops::{Range, RangeInclusive};

/// One transaction's share of monthly spending.
///
/// ```text
/// packed: | month 12 | category 8 | cents + 2^43, 44 bits |
/// ```
/// So the plain order of the two numbers is the order by user, month and category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Movement {
    user_id: u64,
    packed: u64,
}

const CENTS_BITS: u32 = 44;
const CENTS_BIAS: i64 = 1 << (CENTS_BITS - 1);

impl Movement {
    /// `month_index` counts from the job's first month; `cents` lies within `AMOUNT_CENTS_MAX`.
    #[inline]
    pub fn new(user_id: u64, month_index: u32, category: CategoryId, cents: i64) -> Movement {
        assert!(month_index < MONTHS_MAX && (-CENTS_BIAS..CENTS_BIAS).contains(&cents));
        let slot = u64::from(month_index) << 8 | u64::from(category.0);
        Movement { user_id, packed: slot << CENTS_BITS | (cents + CENTS_BIAS) as u64 }
    }

    pub fn user_id(self) -> u64 {
        self.user_id
    }

    pub fn month_index(self) -> u32 {
        (self.packed >> (CENTS_BITS + 8)) as u32
    }

    pub fn category(self) -> CategoryId {
        CategoryId((self.packed >> CENTS_BITS) as u8)
    }

    pub fn cents(self) -> i64 {
        (self.packed & ((1 << CENTS_BITS) - 1)) as i64 - CENTS_BIAS
    }

    /// The same for all movements of one group of monthly spending.
    pub fn group(self) -> (u64, u64) {
        (self.user_id, self.packed >> CENTS_BITS)
    }

    /// For partitions that wait on disk.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.user_id.to_le_bytes());
        bytes[8..].copy_from_slice(&self.packed.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; 16]) -> Movement {
        let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
        Movement { user_id: number(&bytes[..8]), packed: number(&bytes[8..]) }
    }
}

/// How the movements of a job are packed into 64 bits, from the highest to the lowest: month, user,
/// category, cents. The first three are the key of a group, in the order in which it is published.
///
/// ```text
/// | month - first month | user - first user of the partition | category | cents + half their range |
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    first_month: u32,
    month_bits: u32,
    user_bits: u32,
    category_bits: u32,
    cents_bits: u32,
}

/// With fewer bits for cents too many movements would not fit.
const PACKED_CENTS_BITS_MIN: u32 = 20;

fn bits(most: u64) -> u32 {
    u64::BITS - most.leading_zeros()
}

impl Packing {
    /// For these months, users in a range of that size, and so many categories. None if that
    /// leaves too little room for cents.
    fn new(months: RangeInclusive<u32>, user_bits: u32, categories: usize) -> Option<Packing> {
        let first_month = *months.start();
        let month_bits = bits(u64::from(*months.end() - first_month));
        let category_bits = bits(categories.saturating_sub(1) as u64);
        let key_bits = month_bits + user_bits + category_bits;
        let cents_bits = u64::BITS.checked_sub(key_bits)?.min(CENTS_BITS);
        let packing = Packing { first_month, month_bits, user_bits, category_bits, cents_bits };
        (cents_bits >= PACKED_CENTS_BITS_MIN).then_some(packing)
    }

    /// `base` is the first user of the partition. None if the movement does not fit.
    #[inline]
    pub fn pack(&self, base: u64, movement: Movement) -> Option<u64> {
        let month = u64::from(movement.month_index().wrapping_sub(self.first_month));
        let user = movement.user_id().wrapping_sub(base);
        let cents = (movement.cents() + (1 << (self.cents_bits - 1))).cast_unsigned();
        let category = u64::from(movement.category().0);
        let beyond = month >> self.month_bits
            | user >> self.user_bits
            | category >> self.category_bits
            | cents >> self.cents_bits;
        let key = (month << self.user_bits | user) << self.category_bits | category;
        (beyond == 0).then_some(key << self.cents_bits | cents)
    }

    #[inline]
    pub fn unpack(&self, base: u64, packed: u64) -> Movement {
        let low = |number: u64, bits: u32| number & ((1 << bits) - 1);
        let (cents, key) = (low(packed, self.cents_bits), packed >> self.cents_bits);
        let (category, key) = (low(key, self.category_bits), key >> self.category_bits);
        let (user, month) = (low(key, self.user_bits), key >> self.user_bits);
        let month = self.first_month + month as u32;
        let cents = cents.cast_signed() - (1 << (self.cents_bits - 1));
        Movement::new(base + user, month, CategoryId(category as u8), cents)
    }

    /// Where the key of a group stands: above the cents.
    pub fn key_bits(&self) -> Range<u32> {
        self.cents_bits..self.cents_bits + self.category_bits + self.user_bits + self.month_bits
    }
}

/// What a sample of the logs tells of the movements to come.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub users: Vec<u64>,
    /// The first and the last month index, if any was seen.
    pub months: Option<(u32, u32)>,
}

impl Sample {
    pub fn add(&mut self, user_id: u64, month_index: u32) {
        let (first, last) = self.months.unwrap_or((month_index, month_index));
        self.months = Some((first.min(month_index), last.max(month_index)));
        self.users.push(user_id);
    }

    pub fn append(&mut self, other: Sample) {
        let edges = [self.months, other.months].into_iter().flatten();
        self.months = edges.reduce(|one, two| (one.0.min(two.0), one.1.max(two.1)));
        self.users.extend(other.users);
    }
}

/// Splits users into ranges.
#[derive(Clone, Debug)]
pub struct Partitioner {
    /// The first user of each partition but the first, rising.
    starts: Vec<u64>,
    /// How many starts lie before each of [`BUCKETS`] equal stretches of ids from the first start
    /// on, and at last all: a search among few of them is enough.
    starts_before: Vec<u16>,
    bucket_shift: u32,
    /// By partition: the first user that is packed.
    bases: Vec<u64>,
    packing: Option<Packing>,
}

const BUCKETS: u64 = 4096;

impl Partitioner {
    /// At most `count` partitions of about equal weight.
    pub fn from_sample(mut sample: Sample, count: usize, categories: usize) -> Partitioner {
        let users = &mut sample.users;
        users.sort_unstable();
        let quantile = |k: usize| users.get(k * users.len() / count).copied();
        let mut starts: Vec<u64> = (1..count).filter_map(quantile).collect();
        starts.dedup();
        let (first, last) = (starts.first().copied().unwrap_or(0), starts.last().copied().unwrap_or(0));
        let bucket_shift = (last - first + 1).div_ceil(BUCKETS).next_power_of_two().trailing_zeros();
        let before = |bucket: u64| {
            let low = first.saturating_add(bucket << bucket_shift);
            starts.partition_point(|start| *start < low) as u16
        };
        let starts_before = (0..BUCKETS).map(before).chain([starts.len() as u16]).collect();
        // The widest partition, and as much again for users beyond both ends of the sample.
        let edges = users.first().into_iter().chain(&starts).chain(users.last());
        let edges: Vec<u64> = edges.copied().collect();
        let widest = edges.windows(2).map(|edge| edge[1] - edge[0]).max().unwrap_or(0);
        let user_bits = bits(widest) + 1;
        let room = 1u64.checked_shl(user_bits).unwrap_or(u64::MAX);
        let base = match (starts.first(), users.first()) {
            (Some(start), _) => start.saturating_sub(room - 1),
            (None, first) => first.copied().unwrap_or(0).saturating_sub(room / 4),
        };
        let bases = [base].into_iter().chain(starts.iter().copied()).collect();
        let packing =
            sample.months.and_then(|(first, last)| Packing::new(first..=last, user_bits, categories));
        Partitioner { starts, starts_before, bucket_shift, bases, packing }
    }

    pub fn count(&self) -> usize {
        self.starts.len() + 1
    }

    #[inline]
    pub fn partition(&self, user_id: u64) -> usize {
        let Some(first) = self.starts.first() else { return 0 };
        let Some(offset) = user_id.checked_sub(*first) else { return 0 };
        let bucket = (offset >> self.bucket_shift).min(BUCKETS - 1) as usize;
        let before = |bucket: usize| usize::from(self.starts_before[bucket]);
        let (low, high) = (before(bucket), before(bucket + 1));
        low + self.starts[low..high].partition_point(|&start| start <= user_id)
    }

    /// The first user behind the partition; none for the last one.
    pub fn end(&self, partition: usize) -> Option<u64> {
        self.starts.get(partition).copied()
    }

    /// How movements of a partition are packed, with the partition's base; none if they are not.
    pub fn packing(&self, partition: usize) -> Option<(Packing, u64)> {
        self.packing.map(|packing| (packing, self.bases[partition]))
    }
}

/// Movements of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    Packed(Vec<u64>),
    Wide(Vec<Movement>),
}

/// Takes full chunks of a partition.
pub trait ChunkSink {
    fn take(&mut self, partition: usize, chunk: Chunk);
}

/// One worker's buffers, a chunk of either kind per partition.
pub struct Scatter<'a, S> {
    partitioner: &'a Partitioner,
    packed: Vec<Vec<u64>>,
    wide: Vec<Vec<Movement>>,
    sink: S,
}

impl<'a, S: ChunkSink> Scatter<'a, S> {
    pub fn new(partitioner: &'a Partitioner, sink: S) -> Scatter<'a, S> {
        let count = partitioner.count();
        Scatter { partitioner, packed: vec![Vec::new(); count], wide: vec![Vec::new(); count], sink }
    }

    #[inline]
    pub fn push(&mut self, movement: Movement) {
        let partition = self.partitioner.partition(movement.user_id());
        let packing = self.partitioner.packing(partition);
        match packing.and_then(|(packing, base)| packing.pack(base, movement)) {
            Some(packed) => {
                let full = push(&mut self.packed[partition], packed);
                full.into_iter().for_each(|chunk| self.sink.take(partition, Chunk::Packed(chunk)));
            }
            None => {
                let full = push(&mut self.wide[partition], movement);
                full.into_iter().for_each(|chunk| self.sink.take(partition, Chunk::Wide(chunk)));
            }
        }
    }

    /// Hands over what is left in the buffers. Out: who took it all.
    pub fn finish(mut self) -> S {
        let packed = self.packed.into_iter().map(Chunk::Packed).enumerate();
        let wide = self.wide.into_iter().map(Chunk::Wide).enumerate();
        for (partition, chunk) in packed.chain(wide).filter(|(_, chunk)| chunk.rows() > 0) {
            self.sink.take(partition, chunk);
        }
        self.sink
    }
}

/// Adds to a buffer; the chunk that was full before, if it was.
#[inline]
fn push<T>(buffer: &mut Vec<T>, row: T) -> Option<Vec<T>> {
    let mut full = None;
    if buffer.len() == buffer.capacity() {
        if !buffer.is_empty() {
            full = Some(std::mem::take(buffer));
        }
        buffer.reserve_exact(CHUNK_ROWS);
    }
    // A line ahead, each time a line of the cache is begun: by then it will be needed.
    let line_rows = 64 / size_of::<T>();
    if buffer.len().is_multiple_of(line_rows) {
        prefetch(buffer.spare_capacity_mut().get(line_rows));
    }
    buffer.push(row);
    full
}

impl Chunk {
    pub fn rows(&self) -> usize {
        match self {
            Chunk::Packed(rows) => rows.len(),
            Chunk::Wide(rows) => rows.len(),
        }
    }

    /// What it takes in memory.
    pub fn held_bytes(&self) -> u64 {
        let bytes = match self {
            Chunk::Packed(rows) => rows.capacity() * size_of::<u64>(),
            Chunk::Wide(rows) => rows.capacity() * size_of::<Movement>(),
        };
        bytes as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::AMOUNT_CENTS_MAX;

    fn of_users(users: impl Iterator<Item = u64>) -> Sample {
        Sample { users: users.collect(), months: Some((0, 0)) }
    }

    #[test]
    fn a_movement_keeps_its_parts() {
        for cents in [0, 1, -1, AMOUNT_CENTS_MAX, -AMOUNT_CENTS_MAX] {
            for (user, month, category) in [(0, 0, 0), (u64::MAX >> 1, MONTHS_MAX - 1, 255)] {
                let movement = Movement::new(user, month, CategoryId(category), cents);
                let movement = Movement::from_bytes(&movement.to_bytes());
                assert_eq!(
                    (movement.user_id(), movement.month_index(), movement.category().0, movement.cents()),
                    (user, month, category, cents)
                );
            }
        }
    }

    #[test]
    fn what_is_packed_comes_out_and_what_does_not_fit_is_not_packed() {
        let mut sample = Sample::default();
        (0..1000).for_each(|n| sample.add(5_000_000 + 7 * n, 300 + n as u32 % 3));
        let partitioner = Partitioner::from_sample(sample, 10, 21);
        let mut packed = 0;
        for user in [0, 4_999_000, 5_000_000, 5_000_700, 5_003_333, 5_006_999, 5_007_500, u64::MAX >> 1] {
            for month in [0, 299, 300, 302, 304, MONTHS_MAX - 1] {
                for cents in [0, -1, 250_000, AMOUNT_CENTS_MAX, -AMOUNT_CENTS_MAX] {
                    for category in [0, 20, 255] {
                        let movement = Movement::new(user, month, CategoryId(category), cents);
                        let partition = partitioner.partition(user);
                        let (packing, base) = partitioner.packing(partition).expect("there is room");
                        let Some(word) = packing.pack(base, movement) else { continue };
                        assert_eq!(packing.unpack(base, word), movement);
                        packed += 1;
                    }
                }
            }
        }
        // Users within the sample and a little around it, its months and one more for the bit.
        assert_eq!(packed, 6 * 2 * 5 * 2, "months 300 and 302, categories 0 and 20");
        let mut sparse = Sample::default();
        (0..1000).for_each(|n| sample_far(&mut sparse, n));
        assert!(
            Partitioner::from_sample(sparse, 10, 21).packing(3).is_none(),
            "ids of 63 bits leave no room"
        );
    }

    fn sample_far(sample: &mut Sample, n: u64) {
        sample.add(n << 53, 1);
    }

    #[test]
    fn partitions_are_ranges_of_about_equal_weight() {
        let partitioner = Partitioner::from_sample(of_users((0..1000).map(|n| n * n)), 10, 21);
        assert_eq!(partitioner.count(), 10);
        let mut sizes = vec![0; 10];
        for n in 0..1000u64 {
            let partition = partitioner.partition(n * n);
            assert!(partitioner.end(partition).is_none_or(|end| n * n < end));
            sizes[partition] += 1;
        }
        assert_eq!(sizes, [100; 10]);
        assert_eq!(Partitioner::from_sample(Sample::default(), 8, 21).count(), 1);
        assert_eq!(Partitioner::from_sample(of_users([5; 100].into_iter()), 8, 21).count(), 2);
    }
}
