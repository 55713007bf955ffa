//! Bytes out: parts, alerts, rejects, the ledger, the manifest, and the one commit.
//!
//! In: closing groups and outcomes. Out: the next version of the lake.
//! Invariant: nothing is overwritten and nothing is deleted; a reader sees the tables before the
//! commit or after it.

pub mod alerts;
pub mod commit;
pub mod crowd;
pub mod deliveries;
mod features;
pub mod lake;
pub mod line_samples;
mod log;
pub mod manifest;
pub mod monthly;
pub mod names;
pub mod part;
pub mod recommendations;
pub mod rejects;
pub mod table;
pub mod transactions;
