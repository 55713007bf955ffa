//! What a question may take, and where it is answered.
//!
//! In: bounds, and what is to be done within them. Out: what came of it, or the error of the bound
//! that it met.
//! Invariant: planning, answering and taking down run on stacks that hold whatever [`super::question`]
//! lets through; a question ends when its time is over, even one that never yields.

use crate::error::{Error, Kind, Result};
use crate::guard::{bound_heap, end_after};
use crate::job::sections::Limits;
use crate::limits::{ANSWERING_STACK_BYTES, GRACE_SECONDS, PLANNING_STACK_BYTES, THREAD_MEMORY_BYTES};
use crate::planted::Bug;
use std::panic::resume_unwind;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// What a question may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The heap, all that the question allocates.
    pub memory_bytes: usize,
    /// What it may put aside in the temporary folder.
    pub spill_bytes: u64,
    pub time: Duration,
    pub threads: usize,
}

impl Bounds {
    /// Those of a job.
    pub fn of(limits: &Limits) -> Bounds {
        Bounds {
            memory_bytes: limits.memory.0.0 as usize,
            spill_bytes: limits.spill.0.0,
            time: Duration::from_secs(limits.timeout.0.0),
            threads: limits.threads,
        }
    }

    /// How many threads answer: those that were asked for, or one per core, as far as memory goes
    /// round.
    pub fn threads(&self) -> usize {
        let wanted = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        wanted.min(self.memory_bytes / THREAD_MEMORY_BYTES).max(1)
    }

    /// What operators share of the memory. They count most of what they hold; the rest is left to
    /// what nobody counts: plans, pages on their way, rows that are being written; and more of it to
    /// tables that make their rows themselves, with what they remember for it.
    pub fn operators_bytes(&self, rows_are_made: bool) -> usize {
        self.memory_bytes / 8 * if rows_are_made { 3 } else { 5 }
    }
}

/// Does what is asked, within the bounds. Never call it from async code.
pub fn within<T: Send>(bounds: &Bounds, ask: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    let time = if Bug::TimeUnbounded.is_planted() { Duration::MAX } else { bounds.time };
    let line = format!("pennymill: {}\n", too_slow(bounds));
    let grace = Duration::from_secs(GRACE_SECONDS);
    let _clock =
        end_after(time.saturating_add(grace), line, Kind::Temporary.exit_code()).map_err(no_thread)?;
    let heap = bound_heap(bounds.memory_bytes);
    let answered = on_large_stack(|| {
        let runtime = runtime(bounds.threads()).map_err(no_thread)?;
        let asked = runtime.block_on(async { tokio::time::timeout(time, ask()).await });
        // An operator that does not yield must not keep the others waiting.
        runtime.shutdown_background();
        Ok(asked)
    })?;
    answered.unwrap_or_else(|_| {
        // Such an operator is at work until the process ends, and stays bounded so long.
        std::mem::forget(heap);
        Err(too_slow(bounds))
    })
}

/// Does something whose depth is bounded by [`crate::limits`] and no stack of an ordinary thread.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("question".into()).stack_size(PLANNING_STACK_BYTES);
        let thread = thread.spawn_scoped(scope, work).map_err(no_thread)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn runtime(threads: usize) -> std::io::Result<Runtime> {
    // The runtime panics where its threads cannot be started: whether there is room for their stacks
    // is found out before.
    let room = std::thread::Builder::new().stack_size(ANSWERING_STACK_BYTES * threads);
    let _ = room.spawn(|| ())?.join();
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("answer")
        .thread_stack_size(ANSWERING_STACK_BYTES)
        .enable_all()
        .build()
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(Kind::Temporary, format!("no thread can be started: {error}"))
        .at("query")
        .advise("allow the process more threads or more address space")
}

fn too_slow(bounds: &Bounds) -> Error {
    Error::new(Kind::Temporary, format!("the question took longer than {} s", bounds.time.as_secs()))
        .at("query")
        .advise("ask for less, or allow more with --timeout or limits.timeout")
}
