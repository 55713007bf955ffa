//! pennymill: nightly spending pipelines.

pub mod domain;
pub mod error;
pub mod kernel;
pub mod limits;
