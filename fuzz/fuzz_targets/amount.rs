//! Amounts: the parser against an independent implementation.
//!
//! In: the bytes of an amount. Out: nothing; a panic is a finding.
//! Invariant: the check is the one that the tests replay.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    pennymill_fuzz::amount(bytes);
});
