//! Timestamps: the parser and its zone against chrono.
//!
//! In: a byte for the zone, and the bytes of a timestamp. Out: nothing; a panic is a finding.
//! Invariant: the check is the one that the tests replay.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pennymill_fuzz::timestamp(bytes);
});
