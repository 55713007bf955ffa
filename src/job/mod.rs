//! The wish: what was typed, and what the job file says.
//!
//! In: the command line and `jobs/*.toml`. Out: typed, complete, not yet held against the world.
//! Invariant: nothing in here touches a store.

pub mod asked;
pub mod cli;
pub mod networks;
pub mod sections;
pub mod spec;
pub mod text;
pub mod values;
