//! Pages on their way to parts: encoded and joined on a pool, stored beside it, and verified on the pool
//! again, while the reduce goes on.
//!
//! In: pages in any order. Out: parts that stand in the store and were read back.
//! Invariant: a bounded number of pages and of parts is under way; a part is written once, when all its
//! pages are encoded; no thread of the pool waits until a part is written.

use super::cutter::Page;
use super::{EncodedPage, MonthPart, PartWriter, Storing};
use crate::domain::month::Month;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::TryRecvError;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Hands pages to a pool.
pub struct PageQueue<'scope, 'a> {
    scope: &'scope rayon::Scope<'a>,
    writer: &'a PartWriter<'a>,
    state: &'a QueueState,
    threads: usize,
}

/// What the writers of one queue have done.
#[derive(Default)]
pub struct QueueState {
    /// Parts whose pages were not all encoded, by month and sequence.
    begun: Mutex<BTreeMap<(Month, usize), Begun>>,
    storing: Mutex<VecDeque<Storing>>,
    written: Mutex<Vec<MonthPart>>,
    /// The first, until somebody asks.
    failure: Mutex<Option<Error>>,
    /// Tasks of the pool that did not end.
    in_flight: Mutex<usize>,
    one_done: Condvar,
}

#[derive(Default)]
struct Begun {
    pages: Vec<EncodedPage>,
    /// All groups of the part, once its last page was seen.
    groups: Option<usize>,
}

/// Tasks of the pool in flight, for each of its threads.
const IN_FLIGHT_PER_THREAD: usize = 4;
/// Parts that wait for the store before no page is taken any more: more of them would take the store's
/// bandwidth from each other, and memory.
const STORING_MAX: usize = 8;

impl<'scope, 'a> PageQueue<'scope, 'a> {
    pub fn new(
        scope: &'scope rayon::Scope<'a>,
        writer: &'a PartWriter<'a>,
        state: &'a QueueState,
        threads: usize,
    ) -> Self {
        PageQueue { scope, writer, state, threads }
    }

    /// Waits for a free place, then hands the page to the pool.
    pub fn push(&self, page: Page) {
        self.verify_stored(STORING_MAX);
        self.state.wait_for_less_than(IN_FLIGHT_PER_THREAD * self.threads);
        let writer = self.writer;
        self.spawn(move |state| state.encode(writer, &page));
    }

    /// Waits until all that was pushed is stored. The end of the scope waits for the rest.
    pub fn settle(&self) {
        self.state.wait_for_less_than(1);
        self.verify_stored(0);
    }

    /// Hands the parts that stand in the store to the pool; waits while more than so many do not.
    fn verify_stored(&self, storing_max: usize) {
        loop {
            let mut storing = lock(&self.state.storing);
            let has_too_many = storing.len() > storing_max;
            // Only this thread takes some away: what was first stays first.
            let Some(Storing { shown, answer }) = storing.pop_front() else { return };
            let stored = if has_too_many {
                drop(storing);
                answer.recv().ok()
            } else {
                match answer.try_recv() {
                    Err(TryRecvError::Empty) => return storing.push_front(Storing { shown, answer }),
                    stored => stored.ok(),
                }
            };
            let not_stored = || Err(Error::invariant("a part was not stored").at(&shown));
            let stored = stored.unwrap_or_else(not_stored);
            let writer = self.writer;
            self.spawn(move |state| {
                let part = stored.and_then(|part| writer.verify(part))?;
                lock(&state.written).push(part);
                Ok(())
            });
        }
    }

    fn spawn(&self, task: impl FnOnce(&QueueState) -> Result<()> + Send + 'a) {
        let state = self.state;
        *lock(&state.in_flight) += 1;
        self.scope.spawn(move |_| {
            let _place = InFlight(state);
            if let Err(error) = task(state) {
                lock(&state.failure).get_or_insert(error);
            }
        });
    }
}

/// A taken place, given back however its task ends.
struct InFlight<'a>(&'a QueueState);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        *self.0.in_flight.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.one_done.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this")
}

impl QueueState {
    fn wait_for_less_than(&self, in_flight: usize) {
        let held = lock(&self.in_flight);
        let held = self.one_done.wait_while(held, |held| *held >= in_flight);
        drop(held.expect("no thread panics while it holds this"));
    }

    /// Encodes a page, and sends the part that it completes to the store.
    fn encode(&self, writer: &PartWriter, page: &Page) -> Result<()> {
        let encoded = writer.encode(page)?;
        let (month, part) = (page.month, page.part);
        let ends_at = page.ends_part.then_some(page.start + page.count());
        if let Some(pages) = self.complete((month, part), encoded, ends_at) {
            let storing = writer.join(month, part, pages)?.store();
            lock(&self.storing).push_back(storing);
        }
        Ok(())
    }

    /// Adds a page to its part; all of them in their order, when none is missing.
    fn complete(
        &self,
        part: (Month, usize),
        encoded: EncodedPage,
        ends_at: Option<usize>,
    ) -> Option<Vec<EncodedPage>> {
        let mut all = lock(&self.begun);
        let begun = all.entry(part).or_default();
        begun.pages.push(encoded);
        begun.groups = begun.groups.or(ends_at);
        let groups: usize = begun.pages.iter().map(|page| page.meant.groups).sum();
        if begun.groups != Some(groups) {
            return None;
        }
        let mut pages = all.remove(&part)?.pages;
        pages.sort_unstable_by_key(|page| page.meant.start);
        Some(pages)
    }

    /// Errors: the first page or part that failed.
    pub fn check(&self) -> Result<()> {
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    /// All parts by month and sequence. Errors: the first page or part that failed.
    pub fn finish(self) -> Result<Vec<MonthPart>> {
        self.check()?;
        let mut parts = self.written.into_inner().expect("no thread panics while it holds this");
        if !lock(&self.begun).is_empty() || !lock(&self.storing).is_empty() {
            return Err(Error::invariant("a part was begun and not written"));
        }
        parts.sort_by_key(|part| (part.month, part.sequence));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::verify::Meant;
    use super::super::{Cutter, encode};
    use super::*;
    use crate::domain::category::{Categories, CategoryId};
    use crate::domain::spend::Spend;
    use crate::kernel::groups::Groups;
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
            let queue = PageQueue::new(scope, &writer, &state, 3);
            for some in groups.chunks(50_000) {
                cutter.add(month, Groups::of(some.to_vec()), |page| queue.push(page));
            }
            cutter.finish().into_iter().for_each(|page| queue.push(page));
            queue.settle();
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
            let (part, start, ends_part, groups) = (0, 0, true, vec![Groups::of(groups.to_vec())]);
            writer.encode(&Page { month, part, start, groups, ends_part }).unwrap()
        };
        let write = |sequence, pages| {
            let stored = writer.join(month, sequence, pages).unwrap().store().answer.recv().unwrap();
            stored.and_then(|part| writer.verify(part))
        };
        assert!(write(0, vec![encode(&groups)]).is_ok());
        let columns = encode(&others).columns;
        let error = write(1, vec![EncodedPage { columns, ..encode(&groups) }]).err().unwrap();
        assert!(error.to_string().contains("reads back otherwise"), "{error}");
        assert!(write(2, vec![encode(&groups), encode(&groups)]).is_err(), "keys do not rise");
        let meant = Meant { groups: 41, ..encode(&groups).meant };
        assert!(write(3, vec![EncodedPage { meant, ..encode(&groups) }]).is_err(), "a group is missing");
    }

    #[test]
    fn pages_are_put_in_order_and_a_part_without_its_end_is_an_error() {
        let state = QueueState::default();
        let part = ("2025-01".parse().unwrap(), 4);
        let page = |start: usize| EncodedPage {
            meant: Meant { start, groups: 10, ..Meant::default() },
            ..EncodedPage::default()
        };
        assert!(state.complete(part, page(20), Some(30)).is_none());
        assert!(state.complete(part, page(0), None).is_none());
        let whole = state.complete(part, page(10), None).unwrap();
        assert_eq!(whole.iter().map(|page| page.meant.start).collect::<Vec<_>>(), [0, 10, 20]);
        assert!(state.complete(part, page(0), None).is_none());
        assert!(state.finish().is_err());
    }
}
