//! Who added and removed the parts of a table.
//!
//! In: the log of a table. Out: the parts that runs of ours have added, those that others have removed.
//! Invariant: a commit is ours by the application of its `txn`, not by what it writes of itself. A log
//! whose commits are partly gone says so: what it does not name may have been removed by anybody.

use super::{APPLICATION, CLEANER, REFILL};
use crate::error::Result;
use crate::output::table::{Commit, Table, from_delta};
use crate::planted::Bug;
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeSet;

/// Commits that are read at once.
const AT_ONCE: usize = 32;

#[derive(Default)]
pub struct Origins {
    pub added_by_us: BTreeSet<String>,
    pub removed_by_others: BTreeSet<String>,
    /// Whether all commits are there.
    pub is_whole: bool,
}

impl Origins {
    pub async fn of(table: &Table) -> Result<Origins> {
        let commits = futures::stream::iter(0..=table.version()).map(|version| table.logged(version));
        let commits: Vec<_> = commits.buffered(AT_ONCE).try_collect().await?;
        let is_whole = commits.iter().all(Option::is_some) || Bug::CleanedLogBelieved.is_planted();
        let mut origins = Origins { is_whole, ..Origins::default() };
        for commit in commits.into_iter().flatten() {
            // A part that came back is not removed.
            for path in &commit.added {
                origins.removed_by_others.remove(path);
            }
            match commit.is_ours() {
                true => origins.added_by_us.extend(commit.added),
                false => origins.removed_by_others.extend(commit.removed),
            }
        }
        if !is_whole {
            let removed = table.removed().await?;
            let removed = removed.into_iter().filter(|path| !origins.removed_by_others.contains(path));
            origins.removed_by_others.extend(removed.collect::<Vec<_>>());
        }
        Ok(origins)
    }
}

impl Commit {
    /// Whether a run of this program has made it.
    pub fn is_ours(&self) -> bool {
        match Bug::RunIdIsOurs.is_planted() {
            true => self.info.contains_key(crate::output::table::RUN_ID),
            false => [APPLICATION, CLEANER, REFILL].iter().any(|ours| self.applications.contains(*ours)),
        }
    }
}

impl Table {
    /// The parts that this version remembers to have been removed, by whomever. A checkpoint keeps them
    /// for some weeks. Ours are among them: those that no run wants any more.
    async fn removed(&self) -> Result<Vec<String>> {
        let log = self.delta.log_store();
        let removed = self.state.all_tombstones(log.as_ref()).map_ok(|part| part.path().into_owned());
        removed.try_collect().await.map_err(|e| from_delta(e).at(&self.name))
    }
}
