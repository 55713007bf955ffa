//! What lies in a lake, and what its logs and manifests name.
//!
//! In: a lake. Out: what is named, what may be garbage, and what is to be left alone.
//! Invariant: everything is listed without following a link; a neighbour that cannot be read is left
//! alone, and hinders nobody; a table of our own that cannot be read is an error.

use super::clock::{self, shown};
use super::written::{is_part, is_shared, run_of};
use super::{Garbage, Left};
use crate::error::{Error, Result};
use crate::limits::{GC_AGE_DAYS, GC_KEEP_DAYS};
use crate::output::deliveries::{DEAD_LETTERS, DELIVERIES};
use crate::output::lake::{APPLICATION, BUDGET_ALERTS, Lake, MONTHLY_SPENDING, TRANSACTIONS};
use crate::output::names::Names;
use crate::output::table::{Commit, RUN_ID, Table};
use crate::planted::Bug;
use crate::store::{Contents, Place, wait};
use chrono::{DateTime, TimeDelta, Utc};
use object_store::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};

/// Tables of ours whatever their log says.
const OURS: [&str; 5] = [MONTHLY_SPENDING, BUDGET_ALERTS, TRANSACTIONS, DELIVERIES, DEAD_LETTERS];

/// Where runs leave what lies beside the tables, and where a table has its log.
const RUNS: &str = "_runs";
const LOG: &str = "_delta_log/";

/// A longer commit of a table that cannot be opened is not searched.
const COMMIT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A folder of the lake that may be a table.
struct Folder {
    name: String,
    place: Place,
    contents: Contents,
    /// None of one that is not ours, or no table.
    table: Option<Table>,
}

impl Folder {
    fn is_ours(&self) -> bool {
        OURS.contains(&self.name.as_str())
    }

    fn has_log(&self) -> bool {
        self.contents.objects.iter().any(|meta| below(&self.place, meta).starts_with(LOG))
    }

    /// The commits of its log, with the time at which the store took them.
    fn log(&self) -> BTreeMap<u64, DateTime<Utc>> {
        let of_log = |meta: &ObjectMeta| {
            let name = below(&self.place, meta).strip_prefix(LOG)?.strip_suffix(".json")?;
            let version = (name.len() == 20).then(|| name.parse().ok())??;
            Some((version, meta.last_modified))
        };
        self.contents.objects.iter().filter_map(of_log).collect()
    }
}

/// A lake as it was found.
struct Search<'l> {
    lake: &'l Lake,
    folders: Vec<Folder>,
    /// What runs have left beside the tables.
    runs: Contents,
    names: Names,
    /// The runs that ever committed.
    committed: BTreeSet<String>,
    /// Runs before that may have made a commit that is gone.
    runs_known_since: Option<DateTime<Utc>>,
    left: Left,
    keep_since: DateTime<Utc>,
    dead_before: DateTime<Utc>,
}

/// What can go, what is left, and all tables of ours, as of their newest versions.
pub fn search(lake: &Lake, now: DateTime<Utc>) -> Result<(Garbage, Left, Vec<Table>)> {
    let mut search = Search::list(lake)?;
    search.set_clock(now)?;
    search.read_logs()?;
    let garbage = search.judge();
    let tables = search.folders.into_iter().filter_map(|folder| folder.table).collect();
    Ok((garbage, search.left, tables))
}

impl Search<'_> {
    fn list(lake: &Lake) -> Result<Search<'_>> {
        let children = lake.place.children()?;
        let mut left = Left::default();
        for (path, why) in children.odd {
            if std::path::Path::new(&path).file_name().is_some_and(|name| name == RUNS) {
                return Err(Error::unfit(why).at(path));
            }
            left.odd(path, why);
        }
        left.unknown("(no table)", &children.objects);
        let (mut folders, mut runs) = (Vec::new(), Contents::default());
        for (name, place) in children.folders {
            // No table of ours has a name that begins so.
            if name.starts_with('_') && name != RUNS {
                continue;
            }
            match place.contents() {
                Ok(contents) if name == RUNS => runs = contents,
                Ok(contents) => folders.push(Folder { name, place, contents, table: None }),
                Err(error) if name == RUNS || OURS.contains(&name.as_str()) => return Err(error),
                Err(error) => left.odd(place.shown, error),
            }
        }
        let (names, committed, epoch) = (Names::default(), BTreeSet::new(), DateTime::UNIX_EPOCH);
        Ok(Search {
            lake,
            folders,
            runs,
            names,
            committed,
            runs_known_since: None,
            left,
            keep_since: epoch,
            dead_before: epoch,
        })
    }

    /// Counts ages back from now, or from the newest write. What cleaning up commits is none: a clock that
    /// was wrong then would be believed the next time.
    fn set_clock(&mut self, now: DateTime<Utc>) -> Result<()> {
        let place = self.lake.place.child(RUNS);
        let of_runs = self.runs.objects.iter().filter(|meta| !is_shared(below(&place, meta)));
        let of_tables = self.folders.iter().flat_map(|folder| {
            let is_part = |meta: &&ObjectMeta| !below(&folder.place, meta).starts_with(LOG);
            folder.contents.objects.iter().filter(is_part)
        });
        let mut writes: Vec<_> = of_runs.chain(of_tables).map(|meta| meta.last_modified).collect();
        let spending = self.lake.published(MONTHLY_SPENDING)?;
        for version in (0..=spending.version()).rev() {
            let commit = wait(spending.logged(version)).map_err(|e| e.below(&self.lake.place.shown))?;
            if let Some(commit) = commit.filter(|commit| !commit.added.is_empty()) {
                writes.extend(time_of(&commit));
                break;
            }
        }
        clock::expect_confirmed(now, &writes).map_err(|e| e.at(&self.lake.place.shown))?;
        let newest = writes.into_iter().max().unwrap_or(now);
        let reference = clock::reference(now, newest);
        if now - reference > TimeDelta::days(1) {
            self.left.note = format!("ages are counted back from the newest write, {}\n", shown(reference));
        }
        self.keep_since = reference - TimeDelta::days(GC_KEEP_DAYS);
        self.dead_before = reference - TimeDelta::days(GC_AGE_DAYS);
        Ok(())
    }

    fn read_logs(&mut self) -> Result<()> {
        for index in 0..self.folders.len() {
            let folder = &self.folders[index];
            if !folder.has_log() {
                continue;
            }
            match self.read_log(folder) {
                Ok(log) => self.take(index, log)?,
                Err(error) if folder.is_ours() || Bug::GcMindsNeighbours.is_planted() => return Err(error),
                Err(error) => {
                    self.left.odd_table(&folder.place, error);
                    let names = self.names_of_unread(folder);
                    self.names.extend(names);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, index: usize, log: ReadLog) -> Result<()> {
        let folder = &mut self.folders[index];
        self.names.extend(log.names);
        if !log.is_ours {
            self.left.others.push(folder.name.clone());
            return Ok(());
        }
        self.committed.extend(log.runs);
        self.runs_known_since = self.runs_known_since.max(log.known_since);
        // Whoever deletes has to commit, in this table as well.
        let (fit, is_needed) = match log.is_cut {
            true => (Err(log.table.gone(log.oldest_kept.saturating_sub(1))), folder.name == MONTHLY_SPENDING),
            false => (log.table.expect_writable(), folder.is_ours()),
        };
        match fit {
            Ok(()) => folder.table = Some(log.table),
            Err(error) if is_needed => return Err(error.below(&self.lake.place.shown)),
            Err(error) => self.left.odd_table(&folder.place, error),
        }
        Ok(())
    }

    /// What a table names that this program cannot read as its own: it may still hold files of another.
    fn names_of_unread(&self, folder: &Folder) -> Names {
        // Its commits may have been cleaned up behind a checkpoint, or no one can replay them.
        let mut names = mentioned(folder);
        if let Ok(Some(table)) = wait(Table::open_for_names(self.lake.store(), &folder.name)) {
            table.paths().into_iter().flatten().for_each(|path| names.add(&folder.name, &path));
        }
        names
    }

    /// Reads what the log of a table names, and in that of `monthly_spending` what the manifests do.
    fn read_log(&self, folder: &Folder) -> Result<ReadLog> {
        let no_log = || Error::unfit("its log cannot be read").at(&folder.place.shown);
        let table = self.lake.table(&folder.name)?.ok_or_else(no_log)?;
        let within = |error: Error| error.below(&self.lake.place.shown);
        let application = wait(table.application_version(APPLICATION)).map_err(within)?;
        let is_ours = folder.is_ours() || application.is_some();
        let log = folder.log();
        let oldest = log.iter().next().map_or((0, None), |(version, taken)| (*version, Some(*taken)));
        // Of a table of ours all runs are wanted; another's may have any number of commits.
        let (first, known_since) = match is_ours {
            // A listing can lack what the store holds.
            true if oldest.0 > 0 && wait(table.logged(oldest.0 - 1)).map_err(within)?.is_none() => oldest,
            true => (0, None),
            false => {
                let kept = log.iter().find(|(_, taken)| **taken >= self.keep_since);
                (kept.map_or(table.version(), |v| *v.0), None)
            }
        };
        let is_cut = known_since.is_some_and(|since| since >= self.keep_since);
        let (names, runs) = (Names::default(), BTreeSet::new());
        let mut read = ReadLog { table, is_ours, names, runs, oldest_kept: first, known_since, is_cut };
        read.walk(first, &log, self.keep_since).map_err(within)?;
        if !is_cut {
            let kept = wait(self.lake.table_at(&read.table, read.oldest_kept))?;
            kept.paths()?.iter().for_each(|path| read.names.add(&folder.name, path));
        }
        read.table.paths()?.iter().for_each(|path| read.names.add(&folder.name, path));
        if folder.name == MONTHLY_SPENDING {
            self.read_manifests(&mut read)?;
        }
        Ok(read)
    }

    /// What a manifest names may wait for its table to be caught up.
    fn read_manifests(&self, read: &mut ReadLog) -> Result<()> {
        for version in read.oldest_kept.max(1)..=read.table.version() {
            let Some(manifest) = wait(self.lake.manifest(&read.table, version))? else { continue };
            for table in [MONTHLY_SPENDING, BUDGET_ALERTS, TRANSACTIONS] {
                manifest.parts_of(table).iter().for_each(|part| read.names.add(table, &part.path));
            }
        }
        Ok(())
    }

    fn judge(&mut self) -> Garbage {
        let mut garbage = Garbage::default();
        let is_old = |time: DateTime<Utc>| time < self.dead_before || Bug::GcIgnoresAge.is_planted();
        for folder in &mut self.folders {
            if folder.table.is_some() || folder.is_ours() {
                self.left.all_odd(&mut folder.contents);
            }
            let Some(table) = &folder.table else {
                if !folder.has_log() {
                    self.left.unknown(&folder.name, &folder.contents.objects);
                }
                continue;
            };
            let has_months = table.partition_column().is_some();
            let mut unnamed = std::mem::take(&mut folder.contents.objects);
            unnamed.retain(|meta| {
                let path = below(&folder.place, meta);
                let is_named = self.names.hold(&format!("{}/{path}", folder.name));
                !path.starts_with(LOG)
                    && is_old(meta.last_modified)
                    && (!is_named || Bug::GcTakesNamed.is_planted())
            });
            let is_part = |meta: &ObjectMeta| is_part(below(&folder.place, meta), has_months);
            let (parts, unknown): (Vec<_>, Vec<_>) = unnamed.into_iter().partition(is_part);
            self.left.unknown(&folder.name, &unknown);
            garbage.add_parts(&folder.name, parts);
            garbage.staged.extend(folder.contents.staged.drain(..).filter(|file| is_old(file.last_modified)));
        }
        let place = self.lake.place.child(RUNS);
        self.left.all_odd(&mut self.runs);
        let mut old = std::mem::take(&mut self.runs.objects);
        old.retain(|meta| {
            let path = below(&place, meta);
            let run = path.split('/').next().unwrap_or_default();
            let is_known = self.runs_known_since.is_none_or(|since| meta.last_modified > since);
            is_known && is_old(meta.last_modified) && !is_shared(path) && !self.committed.contains(run)
        });
        let (dead, unknown) = old.into_iter().partition(|meta| run_of(below(&place, meta)).is_some());
        garbage.of_dead_runs = dead;
        self.left.unknown(RUNS, &unknown);
        garbage.staged.extend(self.runs.staged.drain(..).filter(|file| is_old(file.last_modified)));
        garbage
    }
}

/// What a log says.
struct ReadLog {
    table: Table,
    is_ours: bool,
    names: Names,
    /// All that have committed.
    runs: BTreeSet<String>,
    /// The version that was the newest one when the last weeks began.
    oldest_kept: u64,
    /// When the store took the oldest commit that is left, where others before it are gone.
    known_since: Option<DateTime<Utc>>,
    /// Commits of the last weeks may be among those that are gone.
    is_cut: bool,
}

impl ReadLog {
    /// Walks the commits upwards. A version is no older than one before it, and no older than the store
    /// says of its commit: a writer's clock may run behind.
    fn walk(&mut self, first: u64, log: &BTreeMap<u64, DateTime<Utc>>, since: DateTime<Utc>) -> Result<()> {
        let mut committed = DateTime::<Utc>::MIN_UTC;
        for version in first..=self.table.version() {
            let commit = wait(self.table.logged(version))?.ok_or_else(|| self.table.gone(version))?;
            // A commit of which no time is known is young.
            let taken = log.get(&version).copied().filter(|_| !Bug::GcBelievesWriter.is_planted());
            let time = time_of(&commit).max(taken).unwrap_or(DateTime::<Utc>::MAX_UTC);
            committed = committed.max(time);
            self.runs.extend(commit.info.get(RUN_ID).cloned());
            if committed < since {
                // What it removed was not wanted any more; what it kept is read from the version itself.
                self.oldest_kept = version;
                self.names.clear();
                continue;
            }
            commit.named.iter().for_each(|path| self.names.add(self.table.name(), path));
        }
        Ok(())
    }
}

/// What the commits of a table mention that cannot be opened: it may still hold files of another table.
fn mentioned(folder: &Folder) -> Names {
    let mut names = Names::default();
    let is_commit = |meta: &&ObjectMeta| {
        let path = below(&folder.place, meta);
        path.starts_with(LOG) && path.ends_with(".json") && meta.size <= COMMIT_BYTES_MAX
    };
    for commit in folder.contents.objects.iter().filter(is_commit) {
        // One that cannot be read mentions nothing that anybody could find.
        if let Ok(bytes) = folder.place.at(commit).read() {
            names.add_mentioned(&folder.name, &bytes);
        }
    }
    names
}

/// By its writer's clock.
fn time_of(commit: &Commit) -> Option<DateTime<Utc>> {
    commit.millis.and_then(DateTime::from_timestamp_millis)
}

/// The object's path below a place that it was listed under.
fn below<'m>(place: &Place, meta: &'m ObjectMeta) -> &'m str {
    let path = meta.location.as_ref();
    path.strip_prefix(place.path.as_ref()).unwrap_or(path).trim_start_matches('/')
}
