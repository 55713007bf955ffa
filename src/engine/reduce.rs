//! The reduce: movements and what is published add up to the closing groups of each month.
//!
//! In: a full shuffle, the published parts of the touched months. Out: closing groups, month by
//! month, in the order of users. Partitions are added up and parts decoded ahead, on the pool; what
//! is left for the caller's thread is to merge.
//! Invariant: closing = opening + movements, whatever the order they are added in; each month's groups
//! are handed over with strictly rising keys, and no user is cut in two by a hand-over. Groups whose
//! sum cannot be published are told, all of them.

use super::ahead::Ahead;
use super::local::Mapped;
use crate::domain::category::{Categories, CategoryId};
use crate::domain::month::{Month, MonthRange};
use crate::domain::spend::Spend;
use crate::error::{Error, Result};
use crate::input::published::PublishedPart;
use crate::kernel::groups::Groups;
use crate::kernel::keyed::{GroupTotals, Key};
use crate::kernel::table::{SortBuffers, Sums, merge, sum_up};
use crate::limits::PARTITION_ROWS_TARGET;
use crate::planted::Bug;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// What passed through the reduce.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reduced {
    pub rows: u64,
    pub positive_cents: i128,
    pub negative_cents: i128,
    /// Of all touched months as they were published before.
    pub opening: GroupTotals,
}

/// What to reduce.
pub struct Reduction<'a> {
    pub mapped: &'a Mapped,
    /// Of the touched months, in the order of their first users.
    pub openings: &'a [PublishedPart],
    pub months: MonthRange,
    pub categories: &'a Categories,
    pub key: Key,
}

/// Groups of one published part that were not merged yet.
type Decoded = (Vec<Spend>, GroupTotals);

impl Reduction<'_> {
    fn sum(&self, partition: usize, buffers: &mut SortBuffers) -> Result<Sums> {
        let packing = self.mapped.partitioner.packing(partition);
        let shuffle = &self.mapped.shuffle;
        let mut slot = shuffle.take_partition(partition)?;
        // Each of them is larger than all behind it, so that groups are merged a few times and not each time.
        let mut several: Vec<Sums> = Vec::new();
        loop {
            let some = shuffle.take_some(&mut slot, shuffle.rows_at_once())?;
            if some.is_empty() {
                break;
            }
            let mut sums = sum_up(some, packing, buffers);
            while let Some(last) = several.pop_if(|last| last.groups() <= sums.groups()) {
                sums = last.plus(sums);
            }
            several.push(sums);
        }
        Ok(several.into_iter().rev().fold(Sums::default(), Sums::plus))
    }

    /// Into a buffer that was used, if there is one: it is large, and new memory is dear.
    fn decode(&self, part: &PublishedPart, used: &Mutex<Vec<Vec<Spend>>>) -> Result<Decoded> {
        let mut groups = used.lock().expect("no thread panics in here").pop().unwrap_or_default();
        part.read(self.categories, &mut groups)?;
        let totals = GroupTotals::of(self.key, part.month, &groups);
        Ok((groups, totals))
    }
}

/// Buffers that sorted more rows at once, of a partition that outgrew what was expected, are given back.
const SORT_ROWS_KEPT: usize = 4 * PARTITION_ROWS_TARGET as usize;

/// A group of a month.
pub type Group = (Month, u64, CategoryId);

/// Why there are no closing groups.
pub enum Stopped {
    Failed(Error),
    /// The sums of these groups leave DECIMAL(18,2).
    Beyond(BTreeSet<Group>),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Stopped {
        Stopped::Failed(error)
    }
}

/// Adds up partition after partition. `on_groups` takes the closing groups.
pub fn reduce(
    reduction: &Reduction,
    pool: &rayon::ThreadPool,
    on_groups: &mut dyn FnMut(Month, Groups) -> Result<()>,
) -> Result<Reduced, Stopped> {
    let most = pool.current_num_threads() + 1;
    let partitioner = &reduction.mapped.partitioner;
    let sort_buffers: Mutex<Vec<SortBuffers>> = Mutex::default();
    let sum = |partition| {
        let buffers = sort_buffers.lock().expect("no thread panics in here").pop();
        let mut buffers = buffers.unwrap_or_default();
        let sums = reduction.sum(partition, &mut buffers);
        if buffers.rows() <= SORT_ROWS_KEPT {
            sort_buffers.lock().expect("no thread panics in here").push(buffers);
        }
        sums
    };
    let used = Mutex::default();
    let decode = |part| reduction.decode(part, &used);
    pool.in_place_scope(|scope| {
        let mut sums = Ahead::new(scope, 0..partitioner.count(), &sum, 2 * most);
        let mut decoded = Ahead::new(scope, reduction.openings.iter(), &decode, most);
        let mut parts = reduction.openings.iter().peekable();
        let mut reduced = Reduced::default();
        let (mut merging, mut beyond): (BTreeMap<Month, Merging>, BTreeSet<Group>) = Default::default();
        for partition in 0..partitioner.count() {
            let end = partitioner.end(partition);
            let sums = sums.take_next().expect("each partition is summed")?;
            reduced.add(&sums);
            let in_shares = sums.in_shares;
            for (index, groups) in sums.into_months() {
                let month = reduction.months.first.plus(index).expect("parsing checked the month");
                merging.entry(month).or_default().move_on(groups, in_shares);
            }
            // Many parts may begin in one partition: each is taken when those before it are done.
            while let Some(part) = parts.next_if(|part| end.is_none_or(|end| *part.users.start() < end)) {
                let (groups, totals) = decoded.take_next().expect("each part is decoded")?;
                reduced.opening = reduced.opening.plus(totals);
                let of_month = merging.entry(part.month).or_default();
                let mut told = |user, category| beyond.extend([(part.month, user, category)]);
                let mut closed = |groups| on_groups(part.month, groups);
                of_month.close_until(Some(*part.users.start()), &mut closed, &mut told)?;
                let groups = if Bug::PublishedForgotten.is_planted() { Vec::new() } else { groups };
                let done = of_month.open(groups, part)?;
                used.lock().expect("no thread panics in here").push(done);
            }
            for (month, merging) in &mut merging {
                let mut told = |user, category| beyond.extend([(*month, user, category)]);
                merging.close_until(end, &mut |groups| on_groups(*month, groups), &mut told)?;
            }
        }
        assert!(parts.next().is_none(), "behind the last partition there is no user");
        if beyond.is_empty() { Ok(reduced) } else { Err(Stopped::Beyond(beyond)) }
    })
}

impl Reduced {
    fn add(&mut self, sums: &Sums) {
        self.rows += sums.rows;
        self.positive_cents += sums.positive_cents;
        self.negative_cents += sums.negative_cents;
    }
}

/// One month on its way from the first user to the last: the rest of one published part and of
/// the movements of one partition.
#[derive(Default)]
struct Merging {
    published: Vec<Spend>,
    published_taken: usize,
    movements: Groups,
    movements_taken: usize,
    /// Some group of the movements stands in several shares.
    in_shares: bool,
}

impl Merging {
    /// The movements of the next partition.
    fn move_on(&mut self, movements: Groups, in_shares: bool) {
        assert_eq!(self.movements_taken, self.movements.len(), "a partition is closed before the next");
        (self.movements, self.movements_taken, self.in_shares) = (movements, 0, in_shares);
    }

    /// The next published part. Out: the buffer of the one before it. Errors when both share users.
    fn open(&mut self, published: Vec<Spend>, part: &PublishedPart) -> Result<Vec<Spend>> {
        let rises = published.first().is_none_or(|first| first.user_id >= *part.users.start());
        if self.published_taken < self.published.len() || !rises {
            return Err(Error::invariant("the parts of a month share users").at(&part.place.shown));
        }
        self.published_taken = 0;
        Ok(std::mem::replace(&mut self.published, published))
    }

    /// Hands over the groups of all users before `end` that were not yet; `beyond` gets those that
    /// cannot be.
    fn close_until(
        &mut self,
        end: Option<u64>,
        on_groups: &mut dyn FnMut(Groups) -> Result<()>,
        beyond: &mut dyn FnMut(u64, CategoryId),
    ) -> Result<()> {
        let published = take_until(&self.published, &mut self.published_taken, end);
        let is_alone = published.is_empty() && self.movements_taken == 0 && !self.in_shares;
        if is_alone && is_before(&self.movements, end) {
            // Nothing to merge with: the usual case of a month that is new.
            let movements = std::mem::take(&mut self.movements);
            return if movements.is_empty() { Ok(()) } else { on_groups(movements) };
        }
        let movements = take_until(&self.movements, &mut self.movements_taken, end);
        match merge(published, movements, self.in_shares, beyond) {
            merged if merged.is_empty() => Ok(()),
            merged => on_groups(Groups::of(merged)),
        }
    }
}

fn is_before(groups: &[Spend], end: Option<u64>) -> bool {
    groups.last().is_none_or(|last| end.is_none_or(|end| last.user_id < end))
}

/// The groups of users before `end` that were not taken yet.
fn take_until<'g>(groups: &'g [Spend], taken: &mut usize, end: Option<u64>) -> &'g [Spend] {
    let rest = &groups[*taken..];
    let count = match is_before(rest, end) {
        true => rest.len(),
        false => rest.partition_point(|group| end.is_none_or(|end| group.user_id < end)),
    };
    *taken += count;
    &rest[..count]
}
