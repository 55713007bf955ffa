//! Archives: reading damaged ones ends within bounds, whole ones are read unchanged.
//!
//! In: a byte for the kind, and bytes. Out: nothing; a panic is a finding.
//! Invariant: the check is the one that the tests replay.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pennymill_fuzz::archive(bytes);
});
