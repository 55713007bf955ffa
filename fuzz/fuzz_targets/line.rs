//! Logs: the fast path against the oracle.
//!
//! In: the bytes of a log. Out: nothing; a panic is a finding.
//! Invariant: the check is the one that the tests replay.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pennymill_fuzz::line(bytes);
});
