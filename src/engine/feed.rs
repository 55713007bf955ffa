//! Who maps what next: splits front to back, and the pieces of archives as they are decompressed.
//!
//! In: the number of splits; blocks of lines from whoever reads an archive. Out: tasks.
//! Invariant: every split and every piece is handed out once; the pieces that wait are few; nobody
//! leaves while a split is under way, since it may yet have pieces; when one worker fails, all stop.

use crate::error::{Error, Result};
use crate::kernel::scan::Block;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};

/// A piece of a split; its pieces are counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceId {
    pub split: usize,
    pub sequence: usize,
}

/// A block of an archive that another worker than its reader maps.
pub struct Piece {
    pub id: PieceId,
    offset: u64,
    /// Of an over-long line, whose head is all that is held.
    line_bytes: Option<u64>,
    bytes: Vec<u8>,
}

impl Piece {
    pub fn block(&self) -> Block<'_> {
        let (offset, bytes) = (self.offset, self.bytes.as_slice());
        match self.line_bytes {
            Some(line_bytes) => Block::Overlong { offset, line_bytes, head: bytes },
            None => Block::Lines { offset, bytes },
        }
    }
}

pub enum Task<'a> {
    /// The split of this index, and what is to be held until it is read.
    Split(usize, UnderWay<'a>),
    Piece(Piece),
}

/// What became of a piece that was offered.
pub enum Given<'b> {
    /// It waits for another worker.
    Taken,
    /// The others are busy; the reader is to map it itself.
    Back(Block<'b>),
}

pub struct Feed {
    state: Mutex<State>,
    changed: Condvar,
    splits: usize,
    workers: usize,
}

#[derive(Default)]
struct State {
    next_split: usize,
    waiting: VecDeque<Piece>,
    /// Splits that somebody reads.
    under_way: usize,
    /// Buffers to be used again.
    buffers: Vec<Vec<u8>>,
    failure: Option<Error>,
}

/// Pieces that wait per worker who could map them.
const WAITING_PER_WORKER: usize = 2;

impl Feed {
    pub fn new(splits: usize, workers: usize) -> Feed {
        Feed { state: Mutex::default(), changed: Condvar::new(), splits, workers }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this")
    }

    /// The next task, once there is one; none when all is done or something failed.
    pub fn next(&self) -> Option<Task<'_>> {
        let mut state = self.state();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(piece) = state.waiting.pop_front() {
                return Some(Task::Piece(piece));
            }
            if state.next_split < self.splits {
                state.next_split += 1;
                state.under_way += 1;
                return Some(Task::Split(state.next_split - 1, UnderWay(self)));
            }
            if state.under_way == 0 {
                return None;
            }
            state = self.changed.wait(state).expect("no thread panics while it holds this");
        }
    }

    /// Offers a block of an archive to the others.
    pub fn give<'b>(&self, id: PieceId, block: Block<'b>) -> Given<'b> {
        let mut state = self.state();
        let others = self.workers.saturating_sub(state.under_way);
        if state.waiting.len() >= others * WAITING_PER_WORKER {
            return Given::Back(block);
        }
        let mut buffer = state.buffers.pop().unwrap_or_default();
        drop(state);
        let (offset, line_bytes, bytes) = match block {
            Block::Lines { offset, bytes } => (offset, None, bytes),
            Block::Overlong { offset, line_bytes, head } => (offset, Some(line_bytes), head),
        };
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.state().waiting.push_back(Piece { id, offset, line_bytes, bytes: buffer });
        self.changed.notify_one();
        Given::Taken
    }

    /// A piece that was mapped: its buffer is used again.
    pub fn take_back(&self, piece: Piece) {
        self.state().buffers.push(piece.bytes);
    }

    /// Stops all workers. The first error is the one that is told.
    pub fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
        self.changed.notify_all();
    }

    pub fn has_failed(&self) -> bool {
        self.state().failure.is_some()
    }

    /// The failure, if there was one.
    pub fn finish(self) -> Result<()> {
        let state = self.state.into_inner().expect("no thread panics while it holds this");
        state.failure.map_or(Ok(()), Err)
    }
}

/// A split that is being read; its reader may end in any way.
pub struct UnderWay<'a>(&'a Feed);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).under_way -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_nothing_to_do_waits_for_the_pieces_of_a_split_under_way() {
        let feed = Feed::new(1, 2);
        let Some(Task::Split(0, under_way)) = feed.next() else { panic!("there is a split") };
        let offer = |sequence, bytes| {
            let id = PieceId { split: 0, sequence };
            matches!(feed.give(id, Block::Lines { offset: 7, bytes }), Given::Taken)
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut mapped = Vec::new();
                while let Some(task) = feed.next() {
                    let Task::Piece(piece) = task else { panic!("there is one split") };
                    mapped.push((
                        piece.id.sequence,
                        piece.block() == Block::Lines { offset: 7, bytes: b"a\n" },
                    ));
                    feed.take_back(piece);
                }
                mapped
            });
            // The other one is there for it, whether it has asked already or not.
            assert!(offer(0, b"a\n") && offer(1, b"a\n"));
            drop(under_way);
            assert_eq!(other.join().unwrap(), [(0, true), (1, true)]);
        });
        assert!(feed.finish().is_ok());
    }

    #[test]
    fn few_pieces_wait_and_a_failure_stops_all() {
        let feed = Feed::new(2, 3);
        let Some(Task::Split(0, under_way)) = feed.next() else { panic!("there is a split") };
        let given = (0..10).map(|sequence| {
            let id = PieceId { split: 0, sequence };
            matches!(feed.give(id, Block::Overlong { offset: 0, line_bytes: 9, head: b"x" }), Given::Taken)
        });
        assert_eq!(given.filter(|taken| *taken).count(), 2 * WAITING_PER_WORKER);
        feed.fail(Error::invariant("first"));
        feed.fail(Error::invariant("second"));
        assert!(feed.next().is_none() && feed.has_failed());
        drop(under_way);
        assert!(feed.finish().unwrap_err().to_string().starts_with("first"));
    }
}
