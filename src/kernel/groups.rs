//! Lists of groups that are passed on where they stand: there are too many to copy them.
//!
//! In: a list. Out: stretches of it, for whoever needs them.
//! Invariant: a list stays in memory for as long as one of its stretches is held, and no longer.

use crate::domain::spend::Spend;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Groups that follow each other in a list.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    list: Arc<Vec<Spend>>,
    range: Range<usize>,
}

impl Groups {
    /// All of a list.
    pub fn of(list: Vec<Spend>) -> Groups {
        let range = 0..list.len();
        Groups { list: Arc::new(list), range }
    }

    /// Some of them; the range counts from the first of these.
    pub fn slice(&self, range: Range<usize>) -> Groups {
        assert!(range.start <= range.end && range.end <= self.range.len(), "within these groups");
        let range = self.range.start + range.start..self.range.start + range.end;
        Groups { list: self.list.clone(), range }
    }

    /// How many groups stay in memory for these.
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
