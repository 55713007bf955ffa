//! The tables that follow `monthly_spending`.
//!
//! In: the manifests of its commits. Out: the parts that they name, committed to their tables.
//! Invariant: each table holds what the manifests of all runs come to. The newest manifest says so in a
//! checksum, so that the others are read only where it does not fit; what is missing is committed only if
//! it is there.

use super::expected::{Expected, Runs, Step, record};
use super::{APPLICATION, FOLLOWERS, Lake, MONTHLY_SPENDING, TRANSACTIONS};
use crate::error::{Result, talk};
use crate::input::published::PartFile;
use crate::limits::COMMIT_ATTEMPTS_MAX;
use crate::output::manifest::{FollowerRecord, Manifest};
use crate::output::table::Table;
use crate::planted::Bug;
use crate::schema;
use crate::store::wait;
use arrow::datatypes::SchemaRef;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// What to do about tables of different age.
pub(super) const ONE_TIME: &str =
    "restore monthly_spending, transactions, budget_alerts and _runs from copies of one time";

/// A table that follows, as a run sees it.
pub(super) struct Follower<'l> {
    pub lake: &'l Lake,
    pub name: &'static str,
    schema: SchemaRef,
    /// Whether parts that are gone may stay away: their months are about to be counted anew.
    pub losses: Losses,
    /// Read when the first table needs them.
    runs: &'l OnceCell<Runs>,
}

/// What to do about parts that manifests name and that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Losses {
    Refused,
    /// For a run that counts months anew, which is the way out.
    Accepted,
}

/// The files of a table and what it says of itself.
pub(super) struct Present {
    pub table: Option<Table>,
    pub files: Vec<PartFile>,
    /// The version of `monthly_spending` that it was brought up to.
    pub done: u64,
    /// Parts that it has to hold and that are gone, by path.
    pub lost: BTreeMap<String, PartFile>,
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
        let runs = OnceCell::new();
        let schemas = [schema::budget_alerts(), schema::transactions()];
        for (name, schema) in FOLLOWERS.into_iter().zip(schemas) {
            let follower = Follower { lake: self, name, schema, losses, runs: &runs };
            let present = follower.catch_up(&spending, newest.as_ref())?;
            present.table.iter().for_each(checkpoint);
            follower.report_lost(&present);
            self.followed().insert(name.to_string(), follower.owed(present));
        }
        checkpoint(&spending);
        Ok(())
    }

    /// Errors when `monthly_spending` is not there, and a table that follows it has been brought up to it;
    /// or when its log names a version of ours that it never had.
    pub(super) fn expect_leader(&self) -> Result<()> {
        let Some(spending) = self.table(MONTHLY_SPENDING)? else {
            for name in FOLLOWERS {
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
        let Some((version, newest)) = newest else { return self.walk(present, spending, None) };
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
        self.walk(present, spending, wanted)
    }

    /// Reads all manifests, commits what was skipped and then run after run.
    fn walk(
        &self,
        mut present: Present,
        spending: &Table,
        wanted: Option<&FollowerRecord>,
    ) -> Result<Present> {
        if self.runs.get().is_none() {
            // Nobody else can have set it: a run looks at one table after the other.
            let _ = self.runs.set(wait(self.lake.runs(spending))?);
        }
        let runs = self.runs.get().expect("it was just set");
        let steps = runs.steps(self.name);
        let expected = Expected::after(steps.iter());
        let so_far = Expected::after(steps.iter().filter(|step| step.version <= present.done));
        self.refill(&mut present, runs, &so_far, &expected)?;
        for step in steps.iter().filter(|step| !step.parts.is_empty()) {
            let replaced: BTreeSet<&str> = expected.replaced.keys().map(String::as_str).collect();
            self.commit_step(&mut present, step, &replaced)?;
        }
        if let Some(gone) = runs.gone {
            self.hold_to_record(&present, gone, wanted)?;
        }
        Ok(present)
    }

    /// The parts that the next record has to name: what is lost is missed until its month is counted anew.
    /// Lost alerts stay lost, for no run writes them again.
    fn owed(&self, present: Present) -> Vec<PartFile> {
        let is_kept = self.name == TRANSACTIONS && !Bug::LossForgotten.is_planted();
        let lost = present.lost.into_values().filter(|_| is_kept);
        present.files.into_iter().chain(lost).collect()
    }

    fn present(&self) -> Result<Present> {
        let table = self.lake.table(self.name)?;
        let files = table.as_ref().map_or(Ok(Vec::new()), Table::files)?;
        let done = table.as_ref().map_or(Ok(None), |table| wait(table.application_version(APPLICATION)))?;
        Ok(Present { table, files, done: done.unwrap_or(0).unsigned_abs(), lost: BTreeMap::new() })
    }

    /// Looks at the table again.
    pub fn refresh(&self, present: &mut Present) -> Result<()> {
        let lost = std::mem::take(&mut present.lost);
        *present = Present { lost, ..self.present()? };
        Ok(())
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
            let add = self.there(&step.parts, replaced, &mut present.lost)?;
            let mut remove = table.files()?;
            remove.retain(|file| step.replaces(file.month));
            let info = self.lake.info(&step.run_id, step.version, BTreeMap::new());
            let done = wait(table.application_version(APPLICATION))?;
            if done.is_none_or(|done| done.unsigned_abs() < step.version) {
                // A rival catches up as we do, with the same parts; the next look finds them.
                wait(table.commit(&add, &remove, &info))?;
            }
            self.refresh(present)?;
        }
        Err(self.lake.busy())
    }
}

/// A checkpoint only spares readers some requests: a run does not fail for the lack of one.
pub(super) fn checkpoint(table: &Table) {
    if let Err(error) = wait(table.checkpoint_when_due()) {
        talk(format_args!("pennymill: no checkpoint was written: {error}"));
    }
}
