//! The hot loop: synchronous, no I/O, no Arrow, no allocation per row.
//!
//! In: blocks of whole lines. Out: movements by partition, sums, rejects.
//! Invariant: the fast path gives the same result as the oracle [`plain`] for every log.

pub mod categorize;
pub mod choices;
pub mod content;
pub mod descriptor;
pub mod eight_bytes;
pub mod fold;
pub mod fused;
pub mod groups;
pub mod keyed;
pub mod keywords;
pub mod line_sample;
pub mod memo;
pub mod movement;
pub mod names;
pub mod parse;
pub mod partition;
pub mod plain;
pub mod prefetch;
pub mod quick;
pub mod rules;
pub mod scan;
pub mod separators;
pub mod short_text;
pub mod slots;
pub mod table;
pub mod votes;
