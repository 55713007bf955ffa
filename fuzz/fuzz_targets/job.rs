//! Job files: an invalid one gives an error of one line, a valid one survives serialisation.
//!
//! In: the bytes of TOML. Out: nothing; a panic is a finding.
//! Invariant: the check is the one that the tests replay.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pennymill_fuzz::job(bytes);
});
