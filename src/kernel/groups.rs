//! Shared slices of a list of groups, which is too large to copy.
//!
//! In: a list. Out: ranges of it.
//! Invariant: a list stays in memory exactly as long as one of its slices exists.

use crate::domain::spend::Spend;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Consecutive groups of a list.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    list: Arc<Vec<Spend>>,
    range: Range<usize>,
}

impl Groups {
    /// All groups of a list.
    pub fn of(list: Vec<Spend>) -> Groups {
        let range = 0..list.len();
        Groups { list: Arc::new(list), range }
    }

    /// A range of these groups, counted from the first of them. Panics if it exceeds them.
    pub fn slice(&self, range: Range<usize>) -> Groups {
        assert!(range.start <= range.end && range.end <= self.range.len(), "within these groups");
        let range = self.range.start + range.start..self.range.start + range.end;
        Groups { list: self.list.clone(), range }
    }

    /// The number of groups kept in memory by these: all of the list.
    pub fn held(&self) -> usize {
        self.list.len()
    }
}

impl Deref for Groups {
    type Target = [Spend];

    fn deref(&self) -> &[Spend] {
        &self.list[self.range.clone()]
    }
}
