//! The time that a question may take, held by a thread of its own.
//!
//! In: a time, and the line and exit code for when it is over. Out: a guard that stops the clock.
//! Invariant: the process ends when the time is over, whatever its other threads are busy with.

use super::{end, is_program};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// A clock that runs until this is dropped.
pub struct Clock(#[allow(dead_code, reason = "dropping it stops the clock")] Option<Sender<()>>);

/// Ends the program after `time`, unless the clock is stopped before. Errors: no thread can be started.
pub fn end_after(time: Duration, line: String, code: u8) -> std::io::Result<Clock> {
    if !is_program() {
        return Ok(Clock(None));
    }
    let (clock, stopped) = channel();
    std::thread::Builder::new().name("clock".into()).spawn(move || {
        if stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            end(&line, code);
        }
    })?;
    Ok(Clock(Some(clock)))
}
