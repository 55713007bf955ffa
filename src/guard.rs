//! What ends the process when nothing else can: a bound on its heap, and a bound on its time.
//!
//! In: a bound, for as long as a question is at work. Out: nothing, or the end of the process with
//! one line and an exit code.
//! Invariant: only the program is ended, never a process that uses it as a library; the end takes no
//! memory, no lock and no signal.

mod clock;
mod heap;

pub use clock::{Clock, end_after};
pub use heap::{BoundHeap, Heap, bound_heap};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether this process is the program.
static IS_PROGRAM: AtomicBool = AtomicBool::new(false);

/// Whether a thread is ending the process.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Lets bounds end this process. The program calls it first of all; a library never does.
pub fn allow_to_end() {
    IS_PROGRAM.store(true, Ordering::Relaxed);
}

fn is_program() -> bool {
    IS_PROGRAM.load(Ordering::Relaxed)
}

/// Ends the process at once: the line on stderr, then the exit code. Neither allocates nor locks, so
/// it may be called from within an allocation. Of several threads the first one ends the process.
fn end(line: &str, code: u8) -> ! {
    while ENDING.swap(true, Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1));
    }
    end_now(line.as_bytes(), code)
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "the standard library's ways to write and to exit allocate or lock")]
fn end_now(line: &[u8], code: u8) -> ! {
    // SAFETY: the pointer and the length are those of `line`; neither call touches other memory.
    unsafe {
        libc::write(2, line.as_ptr().cast(), line.len());
        libc::_exit(code.into())
    }
}

/// Elsewhere the line is lost: what the standard library writes with takes a lock.
#[cfg(not(unix))]
fn end_now(_: &[u8], code: u8) -> ! {
    std::process::exit(code.into())
}
