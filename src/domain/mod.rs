//! Domain types, pure: no I/O, no Arrow, no use of the modules below.
//!
//! In: values. Out: values. Invariant: a value of each type is valid by construction.

pub mod alert;
pub mod budget;
pub mod category;
pub mod money;
pub mod month;
pub mod recommend;
pub mod seller;
pub mod spend;
pub mod timestamp;
pub mod transaction;
pub mod zone;
