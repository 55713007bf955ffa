//! Who runs the kernel: rayon on one machine, DataFusion for questions in SQL.
//!
//! In: a plan and the rules. Out: sums by month, outcomes by object, answers to questions.
//! Invariant: any number of threads, any splits and any order give the same sums.

pub mod active;
pub mod ahead;
pub mod alerting;
pub mod backtest;
pub mod budgeted;
pub mod contributions;
pub mod feed;
pub mod format;
pub mod local;
pub mod of_user;
pub mod raw;
pub mod read;
pub mod recommending;
pub mod reduce;
pub mod rejects;
pub mod rows;
pub mod sample;
pub mod settle;
pub mod shuffle;
pub mod sql;
