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
use crate::output::lake::{APPLICATION, FOLLOWERS, Lake, MONTHLY_SPENDING, Origins, TRANSACTIONS};
use crate::output::manifest::Manifest;
use crate::output::table::Table;
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
struct Held {
    files: BTreeMap<String, Option<Month>>,
    done: u64,
    origins: Origins,
}

impl Followed {
    /// Takes the parts of a run: a month counted anew replaces its transactions.
    pub fn take_run(&mut self, version: u64, manifest: &Manifest) {
        let recounted = manifest.recounted();
        for table in FOLLOWERS {
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
        for name in FOLLOWERS {
            let Some(table) = audit.take(name, lake.table(name))? else { continue };
            let Some(held) = audit.take(name, Held::of(table.as_ref()))? else { continue };
            for file in
                audit.take(name, table.map_or(Ok(Vec::new()), |table| table.files()))?.unwrap_or_default()
            {
                audit.parts += 1;
                self.bytes(lake, name, &file, audit)?;
            }
            if !Bug::FollowersNotHeld.is_planted() {
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
        self.hold_missing(name, held, audit);
        for path in held.files.keys() {
            let key = (name, path.clone());
            let place = format!("{name}/{path}");
            match () {
                () if self.followed.expected.contains_key(&key) => {}
                () if self.followed.replaced.contains(&key) => {
                    audit.broken(place, "a later run has replaced it, and it is still in the table");
                }
                () if held.origins.added_by_us.contains(path) => {
                    audit.broken(place, "no run of this lake has written it, and it is in the table");
                }
                () => audit.changed(place, "another program has added it"),
            }
        }
    }

    fn hold_missing(&self, name: &'static str, held: &Held, audit: &mut Audit) {
        let is_foreign = |path: &&String| !self.parts.contains_key(&(name, path.to_string()));
        let foreign: BTreeSet<Month> =
            held.files.keys().filter(is_foreign).filter_map(|path| held.files[path]).collect();
        let expected = self.followed.expected.iter().filter(|((table, _), _)| *table == name);
        for ((_, path), (version, month)) in expected.filter(|((_, path), _)| !held.files.contains_key(path))
        {
            let place = format!("{name}/{path}");
            match () {
                () if held.origins.removed_by_others.contains(path) => {
                    audit.changed(place, "another program has removed it");
                }
                () if held.done < *version => {
                    audit.changed(
                        place,
                        format!("version {version} is not in the table yet: the next run sees to it"),
                    );
                }
                () if !held.origins.is_whole && month.is_some_and(|month| foreign.contains(&month)) => {
                    let what = "the table lacks it and holds parts of another program for its month; \
                                the log no longer names who removed it";
                    audit.changed(place, what);
                }
                () => audit
                    .broken(place, format!("the table lacks it, and the run of version {version} wrote it")),
            }
        }
    }
}

impl Held {
    fn of(table: Option<&Table>) -> Result<Held> {
        let Some(table) = table else {
            let origins = Origins { is_whole: true, ..Origins::default() };
            return Ok(Held { files: BTreeMap::new(), done: 0, origins });
        };
        let done = wait(table.application_version(APPLICATION))?.unwrap_or(0).unsigned_abs();
        let files = table.files()?.into_iter().map(|file| (file.path, file.month)).collect();
        Ok(Held { files, done, origins: wait(Origins::of(table))? })
    }
}
