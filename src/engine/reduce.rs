//! The reduce: movements and what is published add up to the closing groups of each month.
//!
//! In: a full shuffle, the opening months. Out: closing groups, month by month, in the order of
//! users. Invariant: closing = opening + movements; each month's groups are handed over with
//! strictly rising keys, and no user is cut in two by a hand-over.

use super::local::Mapped;
use crate::domain::category::Categories;
use crate::domain::month::{Month, MonthRange};
use crate::domain::spend::Spend;
use crate::error::{Error, Result};
use crate::input::published::OpeningMonth;
use crate::kernel::keyed::{GroupTotals, Key};
use crate::kernel::table::{Overflow, Sums, merge, sum_up};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// What passed through the reduce.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reduced {
    pub rows: u64,
    pub positive_cents: i128,
    pub negative_cents: i128,
    /// Of all touched months as they were published before.
    pub opening: GroupTotals,
}

/// One stretch of users of one month.
struct Stretch {
    month: Month,
    opening: GroupTotals,
    closing: Vec<Spend>,
}

/// Adds up window after window of partitions. `on_groups` takes the closing groups.
pub fn reduce(
    mapped: &Mapped,
    openings: &mut [OpeningMonth],
    months: MonthRange,
    categories: &Categories,
    key: Key,
    pool: &rayon::ThreadPool,
    on_groups: &mut dyn FnMut(Month, Vec<Spend>) -> Result<()>,
) -> Result<Reduced> {
    let window = pool.current_num_threads() * 4;
    let mut reduced = Reduced::default();
    let partitions: Vec<usize> = (0..mapped.partitioner.count()).collect();
    for partitions in partitions.chunks(window) {
        let end = partitions.last().and_then(|last| mapped.partitioner.end(*last));
        let sum = |partition: &usize| {
            let mut movements = mapped.shuffle.take_partition(*partition)?;
            sum_up(&mut movements).map_err(overflow)
        };
        let sums: Vec<Sums> = pool.install(|| partitions.par_iter().map(sum).collect::<Result<_>>())?;
        for sum in &sums {
            reduced.rows += sum.rows;
            reduced.positive_cents += sum.positive_cents;
            reduced.negative_cents += sum.negative_cents;
        }
        // A window may hold few new users and a whole published month: it is taken part by part.
        let before_end = |start: &u64| end.is_none_or(|end| *start < end);
        let starts = openings.iter().flat_map(|opening| opening.part_starts()).filter(before_end);
        let ends: BTreeSet<u64> = starts.filter(|start| *start > 0).collect();
        let mut movements: Vec<Movements> =
            openings.iter().map(|opening| Movements::of(opening.month, &sums, months)).collect();
        for end in ends.into_iter().map(Some).chain([end]) {
            let close = |(opening, movements): (&mut OpeningMonth, &mut Movements)| {
                close(opening, movements, end, categories, key)
            };
            let pairs = openings.par_iter_mut().zip(movements.par_iter_mut());
            let stretches: Vec<Stretch> = pool.install(|| pairs.map(close).collect::<Result<_>>())?;
            for stretch in stretches {
                reduced.opening = reduced.opening.plus(stretch.opening);
                on_groups(stretch.month, stretch.closing)?;
            }
        }
    }
    Ok(reduced)
}

fn overflow(_: Overflow) -> Error {
    Error::invariant("a monthly sum leaves DECIMAL(18,2)")
}

/// The movements of one month in a window of partitions, taken from the first user to the last.
struct Movements {
    groups: Vec<Spend>,
    taken: usize,
}

impl Movements {
    /// Partitions are rising ranges of users, so their groups follow each other in order.
    fn of(month: Month, sums: &[Sums], months: MonthRange) -> Movements {
        let index = month.since(months.first);
        let of_month = sums.iter().flat_map(|sums| sums.months.iter().filter(|(m, _)| Some(*m) == index));
        Movements { groups: of_month.flat_map(|(_, groups)| groups.iter().copied()).collect(), taken: 0 }
    }

    /// The groups of users before `end` that were not taken yet.
    fn take_until(&mut self, end: Option<u64>) -> &[Spend] {
        let rest = &self.groups[self.taken..];
        let count = rest.partition_point(|group| end.is_none_or(|end| group.user_id < end));
        self.taken += count;
        &rest[..count]
    }
}

/// Merges the movements of one month up to a user with what was published of the same users.
fn close(
    opening: &mut OpeningMonth,
    movements: &mut Movements,
    end: Option<u64>,
    categories: &Categories,
    key: Key,
) -> Result<Stretch> {
    let month = opening.month;
    let published = opening.take_until(end, categories)?;
    let closing = merge(&published, movements.take_until(end)).map_err(overflow)?;
    Ok(Stretch { month, opening: GroupTotals::of(key, month, &published), closing })
}
