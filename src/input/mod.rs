//! Bytes in: what there is to read, what of it is new, and how it is read.
//!
//! In: a job and a lake's head. Out: reference tables, a plan, readers.
//! Invariant: nothing here writes.

pub mod alerts;
pub mod builtin;
pub mod contacts;
pub mod fetch;
pub mod gaps;
pub mod layers;
pub mod ledger;
pub mod parquet_bounds;
pub mod plan;
pub mod published;
pub mod reference;
pub mod secrets;
pub mod table_rows;
mod thrift;
