//! Who maps what next: splits front to back, and the pieces of archives as they are decompressed.
//!
//! In: the number of splits; blocks of lines from whoever reads an archive. Out: tasks.
//! Invariant: every split and every piece is handed out once; the pieces that wait are few; when
//! one worker fails, all stop.

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

pub enum Task {
    /// The split of this index.
    Split(usize),
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
    /// Workers that read an archive.
    readers: usize,
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
    pub fn next(&self) -> Option<Task> {
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
                return Some(Task::Split(state.next_split - 1));
            }
            if state.readers == 0 {
                return None;
            }
            state = self.changed.wait(state).expect("no thread panics while it holds this");
        }
    }

    /// To be held as long as a worker reads an archive: others wait for its pieces.
    pub fn start_reading(&self) -> Reading<'_> {
        self.state().readers += 1;
        Reading(self)
    }

    /// Offers a block of an archive to the others.
    pub fn give<'b>(&self, id: PieceId, block: Block<'b>) -> Given<'b> {
        let mut state = self.state();
        let others = self.workers.saturating_sub(state.readers);
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

/// An archive that is being read; its reader may end in any way.
pub struct Reading<'a>(&'a Feed);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).readers -= 1;
        self.0.changed.notify_all();
    }
}
