//! The hot loop: synchronous, no I/O, no Arrow, no allocation per row.
//!
//! In: blocks of whole lines. Out: movements by partition, sums, rejects.
//! Invariant: whatever [`plain`] says a log means, the fast path says too.

pub mod categorize;
pub mod content;
pub mod fused;
pub mod keyed;
pub mod normalize;
pub mod parse;
pub mod partition;
pub mod plain;
pub mod scan;
pub mod table;
