//! Holes in a table that follows `monthly_spending`.
//!
//! In: a table, the runs that it was brought up to. Out: the parts that it lacks, committed; an error where
//! they are lost.
//! Invariant: nothing comes back that somebody may have removed or replaced. Where the log no longer says
//! who removed a part, the part is in doubt, and is neither added nor forgotten in silence.

use super::expected::{Expected, Runs, Step};
use super::following::{Follower, Losses, ONE_TIME, Present};
use super::origins::Origins;
use super::{MONTHLY_SPENDING, REFILL, TRANSACTIONS};
use crate::error::{Error, Result, talk};
use crate::input::published::PartFile;
use crate::limits::COMMIT_ATTEMPTS_MAX;
use crate::output::commit::{CommitInfo, Outcome};
use crate::output::manifest::{FollowerRecord, PartRecord};
use crate::planted::Bug;
use crate::store::wait;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use std::collections::{BTreeMap, BTreeSet};

/// Parts that are looked for at once.
const AT_ONCE: usize = 32;

impl Follower<'_> {
    /// Commits what runs that the table was brought up to have left out, and removes what they have
    /// replaced.
    pub fn refill(
        &self,
        present: &mut Present,
        runs: &Runs,
        so_far: &Expected,
        all: &Expected,
    ) -> Result<()> {
        let steps = runs.steps(self.name);
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let Some(table) = present.table.clone() else { return Ok(()) };
            let held: BTreeSet<&str> = present.files.iter().map(|file| file.path.as_str()).collect();
            let is_missing =
                |part: &PartRecord| so_far.parts.contains_key(&part.path) && !held.contains(&*part.path);
            let missing: Vec<PartRecord> =
                steps.iter().flat_map(|step| &step.parts).filter(|part| is_missing(part)).cloned().collect();
            let stale = present.files.iter().filter(|file| so_far.replaced.contains_key(&file.path));
            let stale: Vec<PartFile> = stale.cloned().collect();
            let origins = wait(Origins::of(&table))?;
            if runs.gone.is_none() {
                self.expect_known(present, steps, &origins)?;
            }
            let mut missing = self.without_removed(missing, &origins);
            if !origins.is_whole {
                missing = self.without_doubtful(missing, present, runs)?;
            }
            let replaced: BTreeSet<&str> = all.replaced.keys().map(String::as_str).collect();
            let add = self.there(&missing, &replaced, &mut present.lost)?;
            if add.is_empty() && stale.is_empty() {
                return Ok(());
            }
            let info = CommitInfo {
                application: REFILL.to_string(),
                ..CommitInfo::of_job(&uuid::Uuid::now_v7().to_string(), &table)
            };
            let outcome = wait(table.commit(&add, &stale, &info))?;
            self.refresh(present)?;
            if let Outcome::Committed { .. } = outcome {
                self.report_refill(add.len(), stale.len());
                return Ok(());
            }
        }
        Err(self.lake.busy())
    }

    fn report_refill(&self, back: usize, gone: usize) {
        let is = |count: usize| if count == 1 { "is" } else { "are" };
        let back = (back > 0).then(|| format!("{} {} back", parts(back), is(back)));
        let gone = (gone > 0).then(|| {
            let noun = if gone == 1 { "part" } else { "parts" };
            format!("{gone} replaced {noun} {} gone", is(gone))
        });
        let what: Vec<String> = back.into_iter().chain(gone).collect();
        talk(format_args!("pennymill: {}: {}", self.name, what.join(", ")));
    }

    /// Errors when runs of ours have added parts that no manifest names: they belong to another history.
    fn expect_known(&self, present: &Present, steps: &[Step], origins: &Origins) -> Result<()> {
        let named = named(steps);
        let is_stray =
            |file: &&PartFile| !named.contains(&*file.path) && origins.added_by_us.contains(&file.path);
        let Some(stray) = present.files.iter().find(is_stray) else { return Ok(()) };
        let what = format!("it holds {}, of a run that {MONTHLY_SPENDING} does not know", stray.path);
        Err(self.lake.unfit(self.name, what).advise(ONE_TIME))
    }

    /// Leaves out the parts that another program has removed, which is reported and not undone.
    fn without_removed(&self, mut missing: Vec<PartRecord>, origins: &Origins) -> Vec<PartRecord> {
        let before = missing.len();
        missing.retain(|part| !origins.removed_by_others.contains(&part.path));
        match before - missing.len() {
            0 => {}
            1 => talk(format_args!(
                "pennymill: {}: another program has removed 1 part; it stays removed",
                self.name
            )),
            removed => talk(format_args!(
                "pennymill: {}: another program has removed {removed} parts; they stay removed",
                self.name
            )),
        }
        missing
    }

    /// Of parts that are missing from a table whose log was cleaned up: those that may be added. None may:
    /// where parts of another program stand for the same month, it may have compacted them, and elsewhere
    /// they were lost or deleted.
    fn without_doubtful(
        &self,
        missing: Vec<PartRecord>,
        present: &mut Present,
        runs: &Runs,
    ) -> Result<Vec<PartRecord>> {
        let named = named(runs.steps(self.name));
        // Parts of runs whose commits are gone cannot be told from those of others.
        let foreign = present.files.iter().filter(|file| runs.gone.is_none() && !named.contains(&*file.path));
        let foreign: BTreeSet<_> = foreign.filter_map(|file| file.month).collect();
        let is_replaced =
            |part: &PartRecord| part.month.parse().ok().is_some_and(|month| foreign.contains(&month));
        let (replaced, lost): (Vec<PartRecord>, Vec<PartRecord>) = missing.into_iter().partition(is_replaced);
        if !replaced.is_empty() {
            talk(format_args!(
                "pennymill: {}: it lacks {}, and its log no longer names who removed them; parts of another \
                 program stand for {}, and nothing is added",
                self.name,
                parts(replaced.len()),
                months(&replaced)
            ));
        }
        if !lost.is_empty() && self.losses == Losses::Refused {
            let what = format!(
                "it lacks {} of {}, and the commits that name who removed them are gone from its log",
                parts(lost.len()),
                months(&lost)
            );
            return Err(self.lake.unfit(self.name, what).advise(self.ways_out(&lost)));
        }
        present.lost.extend(lost.iter().map(|part| (part.path.clone(), part.file())));
        Ok(Vec::new())
    }

    /// The parts that are there. Errors when one is gone that has to be there.
    pub fn there(
        &self,
        parts: &[PartRecord],
        replaced: &BTreeSet<&str>,
        lost: &mut BTreeMap<String, PartFile>,
    ) -> Result<Vec<PartFile>> {
        if Bug::GonePartCommitted.is_planted() {
            return Ok(parts.iter().map(PartRecord::file).collect());
        }
        let place = self.lake.place.child(self.name);
        let look = |part: PartRecord| {
            let place = place.child(&part.path);
            async move {
                match place.store.head(&place.path).await {
                    Ok(meta) => Ok((part, Some(meta.size))),
                    Err(object_store::Error::NotFound { .. }) => Ok((part, None)),
                    Err(error) => Err(Error::from(error).at(&place.shown)),
                }
            }
        };
        let looked =
            futures::stream::iter(parts.to_vec()).map(look).buffered(AT_ONCE).try_collect::<Vec<_>>();
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        let mut first = "is gone";
        for (part, size) in wait(looked)? {
            match size {
                Some(size) if size == part.size_bytes => there.push(part.file()),
                _ if replaced.contains(&*part.path) => {}
                _ => {
                    if gone.is_empty() && size.is_some() {
                        first = "has not the size that it was written with";
                    }
                    gone.push(part);
                }
            }
        }
        if !gone.is_empty() && self.losses == Losses::Refused {
            return Err(self.lost(&gone, first));
        }
        lost.extend(gone.iter().map(|part| (part.path.clone(), part.file())));
        Ok(there)
    }

    fn lost(&self, gone: &[PartRecord], what: &str) -> Error {
        let mut what = format!("its part {} {what}", gone[0].path);
        if gone.len() > 1 {
            what += &format!(", and {} of {} are lost in all", parts(gone.len()), months(gone));
        }
        self.lake.unfit(self.name, what).advise(self.ways_out(gone))
    }

    fn ways_out(&self, lost: &[PartRecord]) -> String {
        let each: Vec<String> = month_set(lost).iter().map(|month| format!("--rebuild {month}")).collect();
        let then = match self.name {
            TRANSACTIONS => "which counts the transactions of that month again",
            _ => "which goes on without what is lost",
        };
        format!(
            "restore the folder {} from a copy; without one, run {}, {then}",
            self.name,
            each.join(", then ")
        )
    }

    /// Writes what a run goes on without.
    pub fn report_lost(&self, present: &Present) {
        if present.lost.is_empty() {
            return;
        }
        let months: BTreeSet<String> =
            present.lost.values().filter_map(|part| part.month).map(|month| month.to_string()).collect();
        let months = months.into_iter().collect::<Vec<_>>().join(", ");
        let then = if self.name == TRANSACTIONS { ": --rebuild each of these months" } else { "" };
        let (count, is) = (parts(present.lost.len()), if present.lost.len() == 1 { "is" } else { "are" });
        talk(format_args!("pennymill: {count} {is} lost; {} lacks {months}{then}", self.name));
    }

    /// Holds a table to its record alone, where the log of `monthly_spending` lacks the commits of runs.
    /// Errors when it holds less than was recorded, and nobody else has removed anything.
    pub fn hold_to_record(
        &self,
        present: &Present,
        gone: u64,
        wanted: Option<&FollowerRecord>,
    ) -> Result<()> {
        let (Some(wanted), count) = (wanted, present.files.len() as u64) else { return Ok(()) };
        let is_less = count < wanted.parts && present.lost.is_empty();
        let origins = present.table.as_ref().map(|table| wait(Origins::of(table))).transpose()?;
        let is_explained = origins.is_some_and(|o| !o.is_whole || !o.removed_by_others.is_empty());
        let what = format!(
            "it holds {count} of the {} that the newest run recorded, and commit {gone} of \
             {MONTHLY_SPENDING} is gone, so that nobody knows which are missing",
            parts(wanted.parts as usize)
        );
        if is_less && !is_explained && self.losses == Losses::Refused {
            let advice = "restore its folder from a copy; without one, --rebuild each month";
            return Err(self.lake.unfit(self.name, what).advise(advice));
        }
        if is_less {
            talk(format_args!("pennymill: {}: {what}", self.name));
        }
        Ok(())
    }
}

/// The paths that runs name.
fn named(steps: &[Step]) -> BTreeSet<&str> {
    steps.iter().flat_map(|step| &step.parts).map(|part| part.path.as_str()).collect()
}

fn parts(count: usize) -> String {
    format!("{count} {}", if count == 1 { "part" } else { "parts" })
}

fn month_set(parts: &[PartRecord]) -> BTreeSet<&str> {
    parts.iter().map(|part| part.month.as_str()).collect()
}

fn months(parts: &[PartRecord]) -> String {
    month_set(parts).into_iter().collect::<Vec<_>>().join(", ")
}
