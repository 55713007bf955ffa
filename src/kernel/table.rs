//! Adding up: the movements of one partition to groups, and groups to the published ones.
//!
//! In: movements in any order; groups sorted by key. Out: groups sorted by key, each key once.
//! Sorting a cache-sized partition brings equal keys together and gives the published order at
//! once; unlike a hash table it cannot be flooded by chosen ids.
//! Invariant: counts and cents in = counts and cents out; sums are checked.

use super::partition::Movement;
use crate::domain::spend::Spend;

/// What one partition's movements add up to.
#[derive(Debug, Default)]
pub struct Sums {
    /// By month index, sorted by user and category; only months that occur.
    pub months: Vec<(u32, Vec<Spend>)>,
    pub rows: u64,
    pub positive_cents: i128,
    pub negative_cents: i128,
}

/// A sum left the range of DECIMAL(18,2) or BIGINT.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflow;

/// Sorts the movements and adds up each group.
pub fn sum_up(movements: &mut [Movement]) -> Result<Sums, Overflow> {
    movements.sort_unstable();
    let mut sums = Sums { rows: movements.len() as u64, ..Sums::default() };
    for group in movements.chunk_by(|a, b| a.same_group(*b)) {
        let (mut positive, mut negative) = (0i128, 0i128);
        for movement in group {
            let cents = i128::from(movement.cents());
            *if cents > 0 { &mut positive } else { &mut negative } += cents;
        }
        sums.positive_cents += positive;
        sums.negative_cents += negative;
        let spend = Spend {
            user_id: group[0].user_id(),
            category: group[0].category(),
            amount_cents: i64::try_from(positive + negative).map_err(|_| Overflow)?,
            transaction_count: group.len() as u64,
        };
        let zero = Spend { amount_cents: 0, transaction_count: 0, ..spend };
        push(&mut sums.months, group[0].month_index(), zero.plus(spend).ok_or(Overflow)?);
    }
    sums.months.sort_unstable_by_key(|(month, _)| *month);
    Ok(sums)
}

/// Users come in order, so each month's list stays sorted; few months occur in one partition.
fn push(months: &mut Vec<(u32, Vec<Spend>)>, month: u32, spend: Spend) {
    match months.iter_mut().rev().find(|(m, _)| *m == month) {
        Some((_, groups)) => groups.push(spend),
        None => months.push((month, vec![spend])),
    }
}

/// Merges two sorted lists of groups, adding up the shares of equal keys.
pub fn merge(opening: &[Spend], movements: &[Spend]) -> Result<Vec<Spend>, Overflow> {
    let mut merged = Vec::with_capacity(opening.len() + movements.len());
    let (mut left, mut right) = (opening.iter().peekable(), movements.iter().peekable());
    loop {
        let next = match (left.peek(), right.peek()) {
            (None, None) => return Ok(merged),
            (Some(_), None) => left.next().copied(),
            (None, Some(_)) => right.next().copied(),
            (Some(a), Some(b)) => match a.key().cmp(&b.key()) {
                std::cmp::Ordering::Less => left.next().copied(),
                std::cmp::Ordering::Greater => right.next().copied(),
                std::cmp::Ordering::Equal => {
                    let sum = a.plus(**b).ok_or(Overflow)?;
                    left.next();
                    right.next();
                    Some(sum)
                }
            },
        };
        merged.extend(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::category::CategoryId;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Row = (u64, u32, u8, i64);
    type Group = ((u32, u64, u8), (i64, u64));

    fn told_slowly(rows: &[Row]) -> BTreeMap<(u32, u64, u8), (i64, u64)> {
        let mut groups = BTreeMap::new();
        for &(user, month, category, cents) in rows {
            let group = groups.entry((month, user, category)).or_insert((0, 0));
            *group = (group.0 + cents, group.1 + 1);
        }
        groups
    }

    fn summed(rows: &[Row]) -> Sums {
        let movement =
            |&(user, month, category, cents): &Row| Movement::new(user, month, CategoryId(category), cents);
        sum_up(&mut rows.iter().map(movement).collect::<Vec<_>>()).unwrap()
    }

    fn flat(months: &[(u32, Vec<Spend>)]) -> Vec<Group> {
        let spends = months.iter().flat_map(|(m, groups)| groups.iter().map(move |s| (*m, *s)));
        spends.map(|(m, s)| ((m, s.user_id, s.category.0), (s.amount_cents, s.transaction_count))).collect()
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        proptest::collection::vec((0u64..5, 0u32..3, 0u8..4, -1000i64..1000), 0..60)
    }

    proptest! {
        #[test]
        fn sums_are_those_told_slowly_and_merging_is_adding(first in rows(), second in rows()) {
            let one = summed(&first);
            prop_assert_eq!(flat(&one.months), told_slowly(&first).into_iter().collect::<Vec<_>>());
            prop_assert_eq!(one.positive_cents + one.negative_cents, first.iter().map(|r| i128::from(r.3)).sum::<i128>());
            let of_month = |sums: &Sums| sums.months.iter().find(|(m, _)| *m == 1).map(|(_, g)| g.clone()).unwrap_or_default();
            let merged = merge(&of_month(&one), &of_month(&summed(&second))).unwrap();
            let both: Vec<Row> = first.iter().chain(&second).copied().filter(|r| r.1 == 1).collect();
            prop_assert_eq!(flat(&[(1, merged)]), told_slowly(&both).into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_sum_that_no_decimal_holds_is_an_error() {
        let near = Spend {
            user_id: 1,
            category: CategoryId(0),
            amount_cents: 999_999_999_999_999_999,
            transaction_count: 1,
        };
        let one = Spend { amount_cents: 1, ..near };
        assert_eq!(merge(&[near], &[one]), Err(Overflow));
        assert_eq!(merge(&[near], &[Spend { amount_cents: -1, ..one }]).unwrap()[0].transaction_count, 2);
    }
}
