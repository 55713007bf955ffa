//! The tables that follow `monthly_spending`.
//!
//! In: the manifests of its commits. Out: the parts that they name, committed to their tables.
//! Invariant: each table holds what the manifests of all runs come to. The newest manifest says so in a
//! checksum, so that the others are read only where it does not fit; what is missing is committed only if
//! it is there.

use super::expected::{Expected, Step, record};
use super::{APPLICATION, BUDGET_ALERTS, Lake, MONTHLY_SPENDING, TRANSACTIONS};
use crate::error::{Error, Result, talk};
use crate::input::published::PartFile;
use crate::limits::COMMIT_ATTEMPTS_MAX;
use crate::output::commit::{CommitInfo, Outcome};
use crate::output::manifest::{FollowerRecord, Manifest, PartRecord};
use crate::output::table::{RUN_ID, Table};
use crate::planted::Bug;
use crate::schema;
use crate::store::wait;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use std::collections::{BTreeMap, BTreeSet};

/// Who commits parts that were skipped, under the table's own versions: that of [`APPLICATION`] is past.
const REFILL: &str = "pennymill-refill";

/// What to do about tables of different age.
const ONE_TIME: &str =
    "restore monthly_spending, transactions, budget_alerts and _runs from copies of one time";

/// Parts that are looked for at once, and commits that are read at once.
const AT_ONCE: usize = 32;

/// A table that follows, as a run sees it.
struct Follower<'l> {
    lake: &'l Lake,
    name: &'static str,
    schema: SchemaRef,
    /// Whether parts that are gone may stay away: their months are about to be counted anew.
    losses: Losses,
}

/// What to do about parts that manifests name and that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Losses {
    Refused,
    /// For a run that counts months anew, which is the way out.
    Accepted,
}

/// The files of a table and what it says of itself.
struct Present {
    table: Option<Table>,
    files: Vec<PartFile>,
    /// The version of `monthly_spending` that it was brought up to.
    done: u64,
}

impl Present {
    fn record(&self) -> FollowerRecord {
        record(self.files.iter().map(|file| file.path.as_str()))
    }
}

impl Lake {
    /// Brings the other tables up to the head. Every run does so first and last, so a run that
    /// dies in between is caught up by the next one.
    pub fn catch_up(&self) -> Result<()> {
        self.catch_up_with(Losses::Refused)
    }

    /// [`Lake::catch_up`], and what to do about parts that are gone.
    pub fn catch_up_with(&self, losses: Losses) -> Result<()> {
        let Some(spending) = self.table(MONTHLY_SPENDING)? else { return Ok(()) };
        let newest = self.newest_run(&spending)?;
        let followers = [(BUDGET_ALERTS, schema::budget_alerts()), (TRANSACTIONS, schema::transactions())];
        for (name, schema) in followers {
            let follower = Follower { lake: self, name, schema, losses };
            let present = follower.catch_up(&spending, newest.as_ref())?;
            present.table.iter().for_each(checkpoint);
            self.followed().insert(name.to_string(), present.files);
        }
        checkpoint(&spending);
        Ok(())
    }

    /// Errors when `monthly_spending` is not there, and a table that follows it has been brought up to it;
    /// or when its log names a version of ours that it never had.
    pub(super) fn expect_leader(&self) -> Result<()> {
        let Some(spending) = self.table(MONTHLY_SPENDING)? else {
            for name in [BUDGET_ALERTS, TRANSACTIONS] {
                let table = self.table(name)?;
                let done = table.map_or(Ok(None), |table| wait(table.application_version(APPLICATION)))?;
                if done.is_some_and(|done| done > 0) && !Bug::FollowersNotHeld.is_planted() {
                    let error = self.unfit(name, format!("it follows {MONTHLY_SPENDING}, which is gone"));
                    return Err(error.advise(ONE_TIME));
                }
            }
            return Ok(());
        };
        match wait(spending.application_version(APPLICATION))? {
            Some(done) if done.unsigned_abs() > spending.version() => {
                Err(spending.impossible(APPLICATION, done).below(&self.place.shown))
            }
            _ => Ok(()),
        }
    }

    /// What the tables that follow have to hold once they have caught up with a run that starts from
    /// what this program has caught up.
    pub(super) fn records(&self, manifest: &Manifest) -> BTreeMap<String, FollowerRecord> {
        let record = |(name, files): (&String, &Vec<PartFile>)| {
            let step = Step::new(manifest.opening_version + 1, name, manifest);
            let kept = files.iter().filter(|file| !step.replaces(file.month)).map(|file| file.path.as_str());
            (name.clone(), record(kept.chain(step.parts.iter().map(|part| part.path.as_str()))))
        };
        self.followed().iter().map(record).collect()
    }
}

impl Follower<'_> {
    fn catch_up(&self, spending: &Table, newest: Option<&(u64, Manifest)>) -> Result<Present> {
        let mut present = self.present()?;
        let is_blind = Bug::FollowersNotHeld.is_planted();
        if present.done > spending.version() && !is_blind {
            // A rival has published and caught up since, if not a copy of another time was restored.
            self.expect_rival(&present, spending)?;
            return Ok(present);
        }
        let Some((version, newest)) = newest else { return self.walk(present, spending) };
        let wanted = newest.followers.get(self.name);
        let step = Step::new(*version, self.name, newest);
        if Some(&present.record()) == wanted || is_blind && present.done >= *version {
            return Ok(present);
        }
        // The usual case: the newest run is all that is missing.
        let kept = present.files.iter().filter(|file| !step.replaces(file.month));
        let named = step.parts.iter().map(|part| part.path.as_str());
        let next = record(kept.map(|file| file.path.as_str()).chain(named));
        if present.done < *version && (Some(&next) == wanted || is_blind) {
            self.commit_step(&mut present, &step, &BTreeSet::new())?;
            return Ok(present);
        }
        self.walk(present, spending)
    }

    /// Reads all manifests, commits what was skipped and then run after run.
    fn walk(&self, mut present: Present, spending: &Table) -> Result<Present> {
        let steps = wait(self.lake.steps(spending, self.name))?;
        let expected = Expected::after(steps.iter());
        let so_far = Expected::after(steps.iter().filter(|step| step.version <= present.done));
        self.refill(&mut present, &steps, &so_far, &expected)?;
        for step in steps.iter().filter(|step| !step.parts.is_empty()) {
            let replaced: BTreeSet<&str> = expected.replaced.keys().map(String::as_str).collect();
            self.commit_step(&mut present, step, &replaced)?;
        }
        Ok(present)
    }

    fn present(&self) -> Result<Present> {
        let table = self.lake.table(self.name)?;
        let files = table.as_ref().map_or(Ok(Vec::new()), Table::files)?;
        let done = table.as_ref().map_or(Ok(None), |table| wait(table.application_version(APPLICATION)))?;
        Ok(Present { table, files, done: done.unwrap_or(0).unsigned_abs() })
    }

    /// Errors when the table was brought up to a version that `monthly_spending` has not reached.
    fn expect_rival(&self, present: &Present, spending: &Table) -> Result<()> {
        if self.lake.published(MONTHLY_SPENDING)?.version() >= present.done {
            return Ok(());
        }
        let what = format!(
            "it was brought up to version {} of {MONTHLY_SPENDING}, which is at version {}: one of them was \
             restored from a copy of another time",
            present.done,
            spending.version()
        );
        Err(self.lake.unfit(self.name, what).advise(ONE_TIME))
    }

    /// Commits the parts of a run that the table was not brought up to, if they are there. A part that a
    /// later run has replaced may be gone.
    fn commit_step(&self, present: &mut Present, step: &Step, replaced: &BTreeSet<&str>) -> Result<()> {
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            if step.parts.is_empty() || present.done >= step.version {
                return Ok(());
            }
            let table = self.lake.open_or_create(self.name, &self.schema, &["month"])?;
            let add = self.there(&step.parts, replaced)?;
            let mut remove = table.files()?;
            remove.retain(|file| step.replaces(file.month));
            let info = self.lake.info(&step.run_id, step.version, BTreeMap::new());
            let done = wait(table.application_version(APPLICATION))?;
            if done.is_none_or(|done| done.unsigned_abs() < step.version) {
                // A rival catches up as we do, with the same parts; the next look finds them.
                wait(table.commit(&add, &remove, &info))?;
            }
            *present = self.present()?;
        }
        Err(self.lake.busy())
    }

    /// Commits what runs that the table was brought up to have left out, and removes what they have
    /// replaced.
    fn refill(&self, present: &mut Present, steps: &[Step], so_far: &Expected, all: &Expected) -> Result<()> {
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let Some(table) = &present.table else { return Ok(()) };
            let held: BTreeSet<&str> = present.files.iter().map(|file| file.path.as_str()).collect();
            let is_missing =
                |part: &PartRecord| so_far.parts.contains_key(&part.path) && !held.contains(&*part.path);
            let missing: Vec<PartRecord> =
                steps.iter().flat_map(|step| &step.parts).filter(|part| is_missing(part)).cloned().collect();
            let stale = present.files.iter().filter(|file| so_far.replaced.contains_key(&file.path));
            let stale: Vec<PartFile> = stale.cloned().collect();
            let history = wait(history(table))?;
            self.expect_known(present, steps, &history)?;
            let missing = self.without_removed(missing, &history);
            let replaced: BTreeSet<&str> = all.replaced.keys().map(String::as_str).collect();
            let add = self.there(&missing, &replaced)?;
            if add.is_empty() && stale.is_empty() {
                return Ok(());
            }
            let info = CommitInfo {
                application: REFILL.to_string(),
                ..CommitInfo::of_job(&uuid::Uuid::now_v7().to_string(), table)
            };
            let outcome = wait(table.commit(&add, &stale, &info))?;
            *present = self.present()?;
            if let Outcome::Committed { .. } = outcome {
                talk(format_args!(
                    "pennymill: {}: {} parts that were missing are back",
                    self.name,
                    add.len()
                ));
                return Ok(());
            }
        }
        Err(self.lake.busy())
    }

    /// Errors when runs of ours have added parts that no manifest names: they belong to another history.
    fn expect_known(&self, present: &Present, steps: &[Step], history: &History) -> Result<()> {
        let named: BTreeSet<&str> =
            steps.iter().flat_map(|s| &s.parts).map(|part| part.path.as_str()).collect();
        let is_stray =
            |file: &&PartFile| !named.contains(&*file.path) && history.added_by_us.contains(&file.path);
        let Some(stray) = present.files.iter().find(is_stray) else { return Ok(()) };
        let what = format!("it holds {}, of a run that {MONTHLY_SPENDING} does not know", stray.path);
        Err(self.lake.unfit(self.name, what).advise(ONE_TIME))
    }

    /// Leaves out the parts that another program has removed, which is reported and not undone.
    fn without_removed(&self, mut parts: Vec<PartRecord>, history: &History) -> Vec<PartRecord> {
        let before = parts.len();
        parts.retain(|part| !history.removed_by_others.contains(&part.path));
        match before - parts.len() {
            0 => {}
            removed => talk(format_args!(
                "pennymill: {}: another program has removed {removed} parts; they stay removed",
                self.name
            )),
        }
        parts
    }

    /// The parts that are there. Errors when one is gone that has to be there.
    fn there(&self, parts: &[PartRecord], replaced: &BTreeSet<&str>) -> Result<Vec<PartFile>> {
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
        let mut there = Vec::new();
        let mut gone = 0;
        for (part, size) in wait(looked)? {
            match size {
                Some(size) if size == part.size_bytes => there.push(part.file()),
                _ if replaced.contains(&*part.path) => {}
                _ if self.losses == Losses::Accepted => gone += 1,
                Some(_) => return Err(self.lost(&part, "has not the size that it was written with")),
                None => return Err(self.lost(&part, "is gone")),
            }
        }
        if gone > 0 {
            talk(format_args!("pennymill: {}: {gone} parts are gone, and stay away", self.name));
        }
        Ok(there)
    }

    fn lost(&self, part: &PartRecord, what: &str) -> Error {
        let error = self.lake.unfit(self.name, format!("its part {} {what}", part.path));
        error.advise(format!(
            "restore the folder {} from a copy; without one, --rebuild {} goes on without what is lost, and \
             counts the transactions of that month again",
            self.name, part.month
        ))
    }
}

/// Who added and removed the parts of a table.
#[derive(Default)]
struct History {
    added_by_us: BTreeSet<String>,
    removed_by_others: BTreeSet<String>,
}

async fn history(table: &Table) -> Result<History> {
    let commits = futures::stream::iter(0..=table.version()).map(|version| table.logged(version));
    let commits: Vec<_> = commits.buffered(AT_ONCE).try_collect().await?;
    let mut history = History::default();
    for commit in commits.into_iter().flatten() {
        // A part that came back is not removed.
        for path in &commit.added {
            history.removed_by_others.remove(path);
        }
        match commit.info.contains_key(RUN_ID) {
            true => history.added_by_us.extend(commit.added),
            false => history.removed_by_others.extend(commit.removed),
        }
    }
    Ok(history)
}

/// A checkpoint only spares readers some requests: a run does not fail for the lack of one.
pub(super) fn checkpoint(table: &Table) {
    if let Err(error) = wait(table.checkpoint_when_due()) {
        talk(format_args!("pennymill: no checkpoint was written: {error}"));
    }
}
