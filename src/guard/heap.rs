//! The heap of the program, and a bound on what a question adds to it.
//!
//! In: a bound in bytes. Out: memory; or the end of the process, with one line.
//! Invariant: while a bound is set, what was allocated since then and not freed stays below it, but
//! for what threads have not reported yet: less than [`BATCH_BYTES`] each. While none is set, an
//! allocation costs one load more.
//!
//! Counted are the bytes that were asked for, rounded up to 16. What the allocator keeps beside them
//! (size classes, pages that are not full), stacks, and what libraries in C allocate themselves (a
//! decompressor's window) come on top.

use super::{end, is_program};
use crate::error::Kind;
use crate::planted::Bug;
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

/// The allocator of the program.
pub struct Heap;

/// Zero while no bound is set.
static BOUND: AtomicIsize = AtomicIsize::new(0);

/// What was allocated and not freed since the bound was set.
static TAKEN: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// What this thread has taken and not reported to [`TAKEN`]. It needs neither initialisation nor
    /// destruction, so that it can be used whenever a thread allocates.
    static UNREPORTED: Cell<isize> = const { Cell::new(0) };
}

/// A thread reports when it has taken, or given back, this much.
const BATCH_BYTES: isize = 16 * 1024;

const TOO_MUCH: &str = "pennymill: query: the question needs more memory than limits.memory allows; \
                        allow more of it, or ask for fewer or smaller rows, columns or groups\n";

/// The bound on the heap, until this is dropped.
pub struct BoundHeap(());

/// Ends the program when what is allocated from now on takes more than `bytes`.
pub fn bound_heap(bytes: usize) -> BoundHeap {
    TAKEN.store(0, Ordering::Relaxed);
    if is_program() && !Bug::HeapUnbounded.is_planted() {
        BOUND.store(isize::try_from(bytes).unwrap_or(isize::MAX), Ordering::Relaxed);
    }
    BoundHeap(())
}

impl Drop for BoundHeap {
    fn drop(&mut self) {
        BOUND.store(0, Ordering::Relaxed);
    }
}

/// Counts `bytes` more, or fewer, where a bound is set.
#[inline(always)]
fn count(bytes: isize) {
    let bound = BOUND.load(Ordering::Relaxed);
    if bound != 0 {
        count_against(bound, bytes);
    }
}

#[inline(never)]
fn count_against(bound: isize, bytes: isize) {
    let unreported = UNREPORTED.get().saturating_add(bytes);
    if unreported.abs() < BATCH_BYTES {
        return UNREPORTED.set(unreported);
    }
    UNREPORTED.set(0);
    // Layouts are smaller than `isize::MAX`, and the sum of what is really there is too.
    let taken = TAKEN.fetch_add(unreported, Ordering::Relaxed).saturating_add(unreported);
    if taken > bound {
        end(TOO_MUCH, Kind::Unfit.exit_code());
    }
}

/// As counted: small allocations take more than they ask for.
#[inline(always)]
fn size(bytes: usize) -> isize {
    (bytes.saturating_add(15) & !15) as isize
}

/// A bound that the system cannot grant ends the question as one that is used up does.
#[inline(always)]
fn granted(memory: *mut u8) -> *mut u8 {
    if memory.is_null() && BOUND.load(Ordering::Relaxed) != 0 {
        end(TOO_MUCH, Kind::Unfit.exit_code());
    }
    memory
}

// SAFETY: every call is passed on as it came, and every answer as it is; counting does not allocate.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller's promise.
        granted(unsafe { MiMalloc.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller's promise.
        granted(unsafe { MiMalloc.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // For a moment both may be there.
        count(size(new_size));
        // SAFETY: the caller's promise.
        let memory = granted(unsafe { MiMalloc.realloc(memory, layout, new_size) });
        count(-size(layout.size()));
        memory
    }
}
