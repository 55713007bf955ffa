//! The words of the trade, pure: no I/O, no Arrow, nothing of the rooms below.
//!
//! In: values. Out: values. Invariant: each type can only be built right.

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
