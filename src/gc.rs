//! Cleaning up: what no version of the last weeks names and no living run can still publish.
//!
//! In: a lake. Out: what was deleted, or would be.
//! Invariant: a version is committed before anything is deleted, so the commit of a run that was
//! stalled since before comes too late and is refused; commits, and what committed runs have left
//! under `_runs/`, are never deleted.

use crate::error::{Error, Kind, Result};
use crate::job::cli::GcArgs;
use crate::limits::{COMMIT_ATTEMPTS_MAX, GC_AGE_DAYS, GC_KEEP_DAYS};
use crate::output::commit::{CommitInfo, Outcome};
use crate::output::lake::{Lake, MONTHLY_SPENDING};
use crate::output::manifest::Manifest;
use crate::output::table::Table;
use crate::planted::Bug;
use crate::report::{grouped, size};
use crate::store::{Place, wait};
use chrono::{DateTime, TimeDelta, Utc};
use object_store::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};

/// Who commits before it deletes, in the tables' `txn` actions.
const APPLICATION: &str = "pennymill-gc";

/// What can go.
#[derive(Default)]
struct Garbage {
    /// By table: parts that none of its versions of the last weeks names.
    parts: BTreeMap<String, Vec<ObjectMeta>>,
    /// Left by runs that have committed nothing.
    of_dead_runs: Vec<ObjectMeta>,
}

/// Cleans up a lake. Out: a line for each place, and what it came to.
pub fn run(args: &GcArgs) -> Result<String> {
    let lake = Lake::open(&args.lake)?;
    lake.published(MONTHLY_SPENDING)?;
    if args.dry_run {
        return Ok(find(&lake)?.0.text("to be deleted; nothing was"));
    }
    lake.probe()?;
    let _lock = lake.lock("_lock")?;
    lake.catch_up()?;
    for _ in 0..COMMIT_ATTEMPTS_MAX {
        let (garbage, tables) = find(&lake)?;
        if garbage.is_empty() {
            return Ok(garbage.text("deleted") + &clear_staging(&lake)?);
        }
        if commit_first(&garbage, &tables)? {
            garbage.delete(&lake)?;
            return Ok(garbage.text("deleted") + &clear_staging(&lake)?);
        }
    }
    let what = format!("other runs took the version {COMMIT_ATTEMPTS_MAX} times");
    Err(Error::new(Kind::Temporary, what).at(&lake.place.shown).advise("run again"))
}

/// What can go as of the newest versions of all tables.
fn find(lake: &Lake) -> Result<(Garbage, Vec<Table>)> {
    let now = Utc::now();
    let dead_before = now - TimeDelta::days(GC_AGE_DAYS);
    let keep_since = (now - TimeDelta::days(GC_KEEP_DAYS)).timestamp_millis();
    let (mut garbage, mut tables, mut runs) = (Garbage::default(), Vec::new(), BTreeSet::new());
    let manifests = manifests(lake, keep_since)?;
    for name in wait(lake.table_names())? {
        let Some(table) = lake.table(&name)? else { continue };
        let mut named = named(lake, &table, keep_since, &mut runs)?;
        // What a manifest names may wait for its table to be caught up.
        let waiting = manifests.iter().flat_map(|manifest| manifest.parts_of(&name));
        named.extend(waiting.map(|part| part.path.clone()));
        let place = lake.place.child(&name);
        let mut old = objects(&place, dead_before)?;
        old.retain(|meta| {
            let path = below(&place, meta);
            let is_named = named.contains(path) && !Bug::GcTakesNamed.is_planted();
            !path.starts_with("_delta_log/") && !is_named
        });
        if !old.is_empty() {
            garbage.parts.insert(name, old);
        }
        tables.push(table);
    }
    let place = lake.place.child("_runs");
    garbage.of_dead_runs = objects(&place, dead_before)?;
    garbage.of_dead_runs.retain(|meta| {
        let run_id = below(&place, meta).split('/').next().unwrap_or_default();
        uuid::Uuid::parse_str(run_id).is_ok() && !runs.contains(run_id)
    });
    Ok((garbage, tables))
}

/// The parts that versions since then name; fills in the ids of all runs that ever committed.
fn named(
    lake: &Lake,
    table: &Table,
    since_millis: i64,
    runs: &mut BTreeSet<String>,
) -> Result<BTreeSet<String>> {
    let mut named = BTreeSet::new();
    let mut oldest_kept = None;
    for version in (0..=table.version()).rev() {
        let gone = || Error::unfit(format!("commit {version} is gone")).at(&lake.place.shown);
        let commit = wait(table.logged(version))?.ok_or_else(gone)?;
        runs.extend(commit.info.get("run_id").cloned());
        if oldest_kept.is_none() {
            named.extend(commit.added);
            // The state that the first of the last weeks' versions found is still to be read.
            if commit.millis.is_none_or(|millis| millis < since_millis) {
                oldest_kept = Some(version);
            }
        }
    }
    let oldest = wait(lake.table_at(table, oldest_kept.unwrap_or(0)))?;
    named.extend(oldest.files()?.into_iter().map(|part| part.path));
    Ok(named)
}

/// The manifests since then, and the one that the first of them built on.
fn manifests(lake: &Lake, since_millis: i64) -> Result<Vec<Manifest>> {
    let spending = lake.published(MONTHLY_SPENDING)?;
    let mut manifests = Vec::new();
    for version in (1..=spending.version()).rev() {
        manifests.extend(wait(lake.manifest(&spending, version))?);
        let committed = wait(spending.logged(version))?.and_then(|commit| commit.millis);
        if committed.is_none_or(|millis| millis < since_millis) {
            break;
        }
    }
    Ok(manifests)
}

fn objects(place: &Place, before: DateTime<Utc>) -> Result<Vec<ObjectMeta>> {
    let mut objects = place.list()?;
    objects.retain(|meta| meta.last_modified < before || Bug::GcIgnoresAge.is_planted());
    Ok(objects)
}

/// The object's path below a place that it was listed under.
fn below<'m>(place: &Place, meta: &'m ObjectMeta) -> &'m str {
    let path = meta.location.as_ref();
    path.strip_prefix(place.path.as_ref()).unwrap_or(path).trim_start_matches('/')
}

/// Takes the next version of every table that something is deleted from, and of `monthly_spending`
/// in any case: no run that is older can commit to them any more. False when a rival was faster.
fn commit_first(garbage: &Garbage, tables: &[Table]) -> Result<bool> {
    if Bug::GcTakesNoVersion.is_planted() {
        return Ok(true);
    }
    let run_id = uuid::Uuid::now_v7().to_string();
    for table in tables {
        if table.name() != MONTHLY_SPENDING && !garbage.parts.contains_key(table.name()) {
            continue;
        }
        let info = CommitInfo {
            run_id: run_id.clone(),
            application: APPLICATION.to_string(),
            application_version: table.version() as i64 + 1,
            metadata: BTreeMap::new(),
        };
        if let Outcome::Lost { .. } = wait(table.commit(&[], &[], &info))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Local files that a killed run left under way to their name.
fn clear_staging(lake: &Lake) -> Result<String> {
    let cleared = lake.place.clear_staged(std::time::Duration::from_secs(GC_AGE_DAYS as u64 * 24 * 3600))?;
    Ok(if cleared == 0 { String::new() } else { format!("  staging    {cleared} files deleted\n") })
}

impl Garbage {
    fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.of_dead_runs.is_empty()
    }

    fn delete(&self, lake: &Lake) -> Result<()> {
        let mut all = self.parts.values().flatten().chain(&self.of_dead_runs);
        all.try_for_each(|meta| lake.place.at(meta).delete())
    }

    fn text(&self, what: &str) -> String {
        let line = |name: &str, objects: &[ObjectMeta]| {
            let bytes = objects.iter().map(|meta| meta.size).sum();
            format!("  {name:<18} {} objects, {}\n", grouped(objects.len() as u64), size(bytes))
        };
        let tables = self.parts.iter().map(|(name, parts)| line(name, parts));
        let runs = (!self.of_dead_runs.is_empty()).then(|| line("_runs", &self.of_dead_runs));
        let lines: String = tables.chain(runs).collect();
        match lines.is_empty() {
            true => "nothing to clean up\n".to_string(),
            false => format!("{what}:\n{lines}"),
        }
    }
}
