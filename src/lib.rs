//! pennymill: raw transaction logs in, monthly spending per user and category out.
//!
//! In: the modules. Out: their order, in which data flows. Invariant: a module uses only modules
//! declared above it.

// Does nothing without the feature `planted`; any module may ask for a planted bug.
pub mod planted;

pub mod error;
pub mod files;
// `limits` may depend on `domain`; `domain` depends on nothing.
pub mod domain;
pub mod limits;

pub mod guard;

pub mod job;

pub mod schema;
pub mod store;

pub mod input;

pub mod kernel;

pub mod engine;

pub mod generate;

pub mod output;

pub mod progress;
pub mod report;

pub mod query;

pub mod attempt;
pub mod table_job;

pub mod deliver;
pub mod recommend;

pub mod bench;

pub mod check;

pub mod run;

pub mod audit;
pub mod explain;
pub mod gc;
pub mod history;
pub mod score;
