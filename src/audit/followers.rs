//! The tables that follow `monthly_spending`, held to the manifests of all runs.
//!
//! In: what the books found in the manifests, the tables as they are. Out: a finding for each part that
//! is missing, and for each that does not belong there.
//! Invariant: no run is missing in a table without a finding. What another program did is a change; what
//! nobody can have meant is broken.

use super::Audit;
use super::books::Books;
use crate::domain::month::Month;
use crate::error::Result;
use crate::output::lake::{APPLICATION, BUDGET_ALERTS, Lake, MONTHLY_SPENDING, TRANSACTIONS};
use crate::output::manifest::Manifest;
use crate::output::table::{RUN_ID, Table};
use crate::planted::Bug;
use crate::store::wait;
use std::collections::{BTreeMap, BTreeSet};

/// The parts that runs have written for the tables that follow, by table and path.
#[derive(Default)]
pub(super) struct Followed {
    /// The version that brought the part, and its month.
    expected: BTreeMap<(&'static str, String), (u64, Option<Month>)>,
    /// Parts that a later run has replaced.
    replaced: BTreeSet<(&'static str, String)>,
}

/// What a table that follows says of itself.
#[derive(Default)]
struct Held {
    files: BTreeSet<String>,
    done: u64,
    added_by_us: BTreeSet<String>,
    removed_by_others: BTreeSet<String>,
}

impl Followed {
    /// Takes the parts of a run: a month counted anew replaces its transactions.
    pub fn take_run(&mut self, version: u64, manifest: &Manifest) {
        let recounted = manifest.recounted();
        for table in [BUDGET_ALERTS, TRANSACTIONS] {
            let parts = manifest.parts_of(table);
            if table == TRANSACTIONS && !parts.is_empty() {
                let is_replaced = |key: &(&str, String), (_, month): &mut (u64, Option<Month>)| {
                    key.0 == table && month.is_some_and(|month| recounted.contains(&month))
                };
                let replaced = self.expected.extract_if(.., is_replaced).map(|(key, _)| key);
                self.replaced.extend(replaced);
            }
            let parts = parts.iter().map(|p| ((table, p.path.clone()), (version, p.month.parse().ok())));
            self.expected.extend(parts);
        }
    }
}

impl Books {
    /// Reads the parts of the tables that follow, and holds the tables to all runs.
    pub fn hold_followers(&self, lake: &Lake, audit: &mut Audit) -> Result<()> {
        for name in [BUDGET_ALERTS, TRANSACTIONS] {
            let table = lake.table(name)?;
            if let Some(table) = &table {
                for file in table.files()? {
                    audit.parts += 1;
                    self.bytes(lake, name, &file, audit)?;
                }
            }
            if !Bug::FollowersNotHeld.is_planted() {
                let held = table.as_ref().map_or(Ok(Held::default()), Held::of)?;
                match held.done > self.versions && lake.published(MONTHLY_SPENDING)?.version() >= held.done {
                    true => audit.changed(name, "a run has published meanwhile; audit again"),
                    false => self.hold_parts_of(name, &held, audit),
                }
            }
        }
        Ok(())
    }

    fn hold_parts_of(&self, name: &'static str, held: &Held, audit: &mut Audit) {
        if held.done > self.versions {
            let what = format!("it was brought up to version {}, which is not there", held.done);
            audit.broken(name, what);
        }
        let expected = self.followed.expected.iter().filter(|((table, _), _)| *table == name);
        for ((_, path), (version, _)) in expected.filter(|((_, path), _)| !held.files.contains(path)) {
            let place = format!("{name}/{path}");
            match () {
                () if held.removed_by_others.contains(path) => {
                    audit.changed(place, "another program has removed it");
                }
                () if held.done < *version => {
                    audit.changed(
                        place,
                        format!("version {version} is not in the table yet: the next run sees to it"),
                    );
                }
                () => audit
                    .broken(place, format!("the table lacks it, and the run of version {version} wrote it")),
            }
        }
        for path in &held.files {
            let key = (name, path.clone());
            let place = format!("{name}/{path}");
            match () {
                () if self.followed.expected.contains_key(&key) => {}
                () if self.followed.replaced.contains(&key) => {
                    audit.broken(place, "a later run has replaced it, and it is still in the table");
                }
                () if held.added_by_us.contains(path) => {
                    audit.broken(place, "no run of this lake has written it, and it is in the table");
                }
                () => audit.changed(place, "another program has added it"),
            }
        }
    }
}

impl Held {
    fn of(table: &Table) -> Result<Held> {
        let mut held = Held::default();
        held.files.extend(table.files()?.into_iter().map(|file| file.path));
        held.done = wait(table.application_version(APPLICATION))?.unwrap_or(0).unsigned_abs();
        for version in 0..=table.version() {
            let Some(commit) = wait(table.logged(version))? else { continue };
            for path in &commit.added {
                held.removed_by_others.remove(path);
            }
            match commit.info.contains_key(RUN_ID) {
                true => held.added_by_us.extend(commit.added),
                false => held.removed_by_others.extend(commit.removed),
            }
        }
        Ok(held)
    }
}
