//! Row groups on their way to parts: encoded and written on a pool while the reduce goes on.
//!
//! In: row groups in any order. Out: parts that stand in the store and were read back.
//! Invariant: a bounded number of row groups is under way; a part is written once, when all its row
//! groups are encoded.

use super::cutter::RowGroup;
use super::{EncodedRowGroup, MonthPart, PartWriter};
use crate::domain::month::Month;
use crate::domain::spend::Spend;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};

/// Hands row groups to a pool.
pub struct RowGroupQueue<'scope, 'a> {
    scope: &'scope rayon::Scope<'a>,
    writer: &'a PartWriter<'a>,
    state: &'a QueueState,
    in_flight_max: usize,
}

/// What the writers of one queue have done.
#[derive(Default)]
pub struct QueueState {
    /// Parts whose row groups were not all encoded, by month and sequence.
    begun: Mutex<BTreeMap<(Month, usize), Begun>>,
    written: Mutex<Vec<MonthPart>>,
    /// The first, until somebody asks.
    failure: Mutex<Option<Error>>,
    buffers: Mutex<Vec<Vec<Spend>>>,
    in_flight: Mutex<usize>,
    one_done: Condvar,
}

#[derive(Default)]
struct Begun {
    row_groups: Vec<EncodedRowGroup>,
    /// All groups of the part, once its last row group was seen.
    groups: Option<usize>,
}

impl<'scope, 'a> RowGroupQueue<'scope, 'a> {
    pub fn new(
        scope: &'scope rayon::Scope<'a>,
        writer: &'a PartWriter<'a>,
        state: &'a QueueState,
        threads: usize,
    ) -> Self {
        RowGroupQueue { scope, writer, state, in_flight_max: 2 * threads }
    }

    /// Waits for a free place, then hands the row group to the pool. Out: the buffer of one that is
    /// done, empty: memory that was used is cheaper than memory that is new.
    pub fn push(&self, row_group: RowGroup) -> Vec<Spend> {
        let mut in_flight = self.state.in_flight.lock().expect("no thread panics in here");
        while *in_flight >= self.in_flight_max {
            in_flight = self.state.one_done.wait(in_flight).expect("no thread panics in here");
        }
        *in_flight += 1;
        drop(in_flight);
        let (writer, state) = (self.writer, self.state);
        self.scope.spawn(move |_| {
            let _place = InFlight(state);
            match state.take(writer, row_group) {
                Ok(part) => state.written.lock().expect("no thread panics in here").extend(part),
                Err(error) => {
                    state.failure.lock().expect("no thread panics in here").get_or_insert(error);
                }
            }
        });
        self.state.buffers.lock().expect("no thread panics in here").pop().unwrap_or_default()
    }
}

/// A taken place, given back however its writer ends.
struct InFlight<'a>(&'a QueueState);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        *self.0.in_flight.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) -= 1;
        self.0.one_done.notify_one();
    }
}

impl QueueState {
    /// Encodes a row group, and writes the part that it completes.
    fn take(&self, writer: &PartWriter, mut row_group: RowGroup) -> Result<Option<MonthPart>> {
        let encoded = writer.encode(&row_group)?;
        let RowGroup { month, part, start, ends_part, .. } = row_group;
        let ends_at = ends_part.then_some(start + row_group.groups.len());
        row_group.groups.clear();
        self.buffers.lock().expect("no thread panics in here").push(row_group.groups);
        match self.complete((month, part), encoded, ends_at) {
            Some(row_groups) => writer.write(month, part, row_groups).map(Some),
            None => Ok(None),
        }
    }

    /// Adds a row group to its part; all of them in their order, when none is missing.
    fn complete(
        &self,
        part: (Month, usize),
        encoded: EncodedRowGroup,
        ends_at: Option<usize>,
    ) -> Option<Vec<EncodedRowGroup>> {
        let mut all = self.begun.lock().expect("no thread panics in here");
        let begun = all.entry(part).or_default();
        begun.row_groups.push(encoded);
        begun.groups = begun.groups.or(ends_at);
        let groups: usize = begun.row_groups.iter().map(|row_group| row_group.groups).sum();
        if begun.groups != Some(groups) {
            return None;
        }
        let mut row_groups = all.remove(&part)?.row_groups;
        row_groups.sort_unstable_by_key(|row_group| row_group.start);
        Some(row_groups)
    }

    /// Errors: the first row group or part that failed.
    pub fn check(&self) -> Result<()> {
        self.failure.lock().expect("no thread panics in here").take().map_or(Ok(()), Err)
    }

    /// All parts by month and sequence. Errors: the first row group or part that failed.
    pub fn finish(self) -> Result<Vec<MonthPart>> {
        self.check()?;
        let mut parts = self.written.into_inner().expect("no thread panics while it holds this");
        let begun = self.begun.into_inner().expect("no thread panics while it holds this");
        if !begun.is_empty() {
            return Err(Error::invariant("a part was begun and not written"));
        }
        parts.sort_by_key(|part| (part.month, part.sequence));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cutter, encode};
    use super::*;
    use crate::domain::category::{Categories, CategoryId};
    use crate::kernel::keyed::{GroupTotals, Key};
    use crate::limits::{PART_GROUPS, ROW_GROUP_ROWS};
    use crate::output::part::sha256;
    use crate::store::Place;

    fn groups(count: usize) -> Vec<Spend> {
        let group = |n: usize| Spend {
            user_id: (n / 3) as u64,
            category: CategoryId((n % 3) as u8),
            amount_cents: (n as i64 * 7919) % 100_000 - 5_000,
            transaction_count: 1 + n as u64 % 4,
        };
        (0..count).map(group).collect()
    }

    #[test]
    fn parts_are_the_same_bytes_as_if_they_were_encoded_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let table = Place::open(folder.path().to_str().unwrap()).unwrap();
        let (categories, key, month) = (Categories::builtin(), Key::random(), "2025-01".parse().unwrap());
        let writer = PartWriter::new(table, "run", &categories, key).unwrap();
        let groups = groups(PART_GROUPS + 2 * ROW_GROUP_ROWS + 1234);
        let (state, mut cutter) = (QueueState::default(), Cutter::default());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.in_place_scope(|scope| {
            let queue = RowGroupQueue::new(scope, &writer, &state, 3);
            for some in groups.chunks(50_000) {
                cutter.add(month, some, |row_group| queue.push(row_group));
            }
            cutter.finish().into_iter().for_each(|row_group| drop(queue.push(row_group)));
        });
        let parts = state.finish().unwrap();
        // The first ends with a user, two groups behind a million.
        let expected = groups.split_at(PART_GROUPS + 2);
        assert_eq!(parts.len(), 2);
        for (part, groups) in parts.iter().zip([expected.0, expected.1]) {
            assert_eq!(part.written.sha256, sha256(&encode(groups, &categories).unwrap()));
            assert_eq!(part.totals, GroupTotals::of(key, month, groups));
            assert_eq!(part.users, (groups[0].user_id, groups[groups.len() - 1].user_id));
        }
    }

    #[test]
    fn a_part_that_reads_back_otherwise_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let table = Place::open(folder.path().to_str().unwrap()).unwrap();
        let (categories, month) = (Categories::builtin(), "2025-01".parse().unwrap());
        let writer = PartWriter::new(table, "run", &categories, Key::random()).unwrap();
        // Two counts are exchanged: no total tells.
        let groups = groups(40);
        let mut others = groups.clone();
        (others[7].transaction_count, others[8].transaction_count) =
            (groups[8].transaction_count, groups[7].transaction_count);
        let encode = |groups: &[Spend]| {
            let (part, start, ends_part, groups) = (0, 0, true, groups.to_vec());
            writer.encode(&RowGroup { month, part, start, groups, ends_part }).unwrap()
        };
        assert!(writer.write(month, 0, vec![encode(&groups)]).is_ok());
        let columns = encode(&others).columns;
        let error =
            writer.write(month, 1, vec![EncodedRowGroup { columns, ..encode(&groups) }]).err().unwrap();
        assert!(error.to_string().contains("reads back otherwise"), "{error}");
        let part = |start: usize| EncodedRowGroup { start, ..encode(&groups) };
        assert!(writer.write(month, 2, vec![part(0), part(40)]).is_err(), "keys do not rise");
    }

    #[test]
    fn row_groups_are_put_in_order_and_a_part_without_its_end_is_an_error() {
        let state = QueueState::default();
        let part = ("2025-01".parse().unwrap(), 4);
        let row_group = |start: usize| EncodedRowGroup { start, groups: 10, ..EncodedRowGroup::default() };
        assert!(state.complete(part, row_group(20), Some(30)).is_none());
        assert!(state.complete(part, row_group(0), None).is_none());
        let whole = state.complete(part, row_group(10), None).unwrap();
        assert_eq!(whole.iter().map(|row_group| row_group.start).collect::<Vec<_>>(), [0, 10, 20]);
        assert!(state.complete(part, row_group(0), None).is_none());
        assert!(state.finish().is_err());
    }
}
