//! Who runs the kernel: rayon on one machine, DataFusion for questions in SQL.
//!
//! In: a plan and the rules. Out: sums by month, outcomes by object.
//! Invariant: any number of threads, any splits and any order give the same sums.

pub mod local;
pub mod reduce;
pub mod settle;
pub mod shuffle;
