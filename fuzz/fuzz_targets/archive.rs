//! Archives: damaged ones end within bounds, whole ones come out whole.
//!
//! In: a byte for the kind, and bytes. Out: nothing; a panic is a finding.
//! Invariant: the check is the one that the tests replay.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pennymill_fuzz::archive(bytes);
});
