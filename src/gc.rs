//! Cleaning up: what no version of the last weeks names and no living run can still publish.
//!
//! In: a lake. Out: what was deleted, or would be, and what was left alone.
//! Invariant: a version is committed before anything is deleted, so the commit of a run that was
//! stalled since before comes too late and is refused; commits, what committed runs have left under
//! `_runs/`, and whatever no run of ours can have written are never deleted.

mod clock;
mod search;
mod written;

use crate::error::{EXIT_NEEDS_A_LOOK, Error, Kind, Result, talk};
use crate::job::cli::GcArgs;
use crate::limits::COMMIT_ATTEMPTS_MAX;
use crate::output::commit::{CommitInfo, Outcome};
use crate::output::lake::{CLEANER, Lake, MONTHLY_SPENDING};
use crate::output::table::Table;
use crate::planted::Bug;
use crate::report::{grouped, size};
use crate::store::{Contents, Place, Staged, wait};
use object_store::ObjectMeta;
use search::search;
use std::collections::BTreeMap;

/// Lines about what is odd, before they are only counted.
const ODD_LINES_MAX: usize = 20;

/// What can go.
#[derive(Default)]
struct Garbage {
    /// By table: parts that none of its versions of the last weeks names.
    parts: BTreeMap<String, Vec<ObjectMeta>>,
    /// Left by runs that have committed nothing.
    of_dead_runs: Vec<ObjectMeta>,
    /// Local files that a killed run left on the way to their name.
    staged: Vec<Staged>,
}

/// What stays, and why somebody may want to know.
#[derive(Default)]
struct Left {
    /// How ages are counted, where that is not from now.
    note: String,
    /// By folder: how many old files, and of how many bytes, that nothing names and no run of ours wrote.
    unknown: BTreeMap<String, (u64, u64)>,
    /// Tables of other programs.
    others: Vec<String>,
    /// Links, and what cannot be read: to be looked at.
    odd: Vec<String>,
}

/// Cleans up a lake. Out: a line for each place, and what it came to; the exit code.
pub fn run(args: &GcArgs) -> Result<(String, u8)> {
    let lake = Lake::open(&args.lake)?;
    lake.published(MONTHLY_SPENDING)?;
    if args.dry_run {
        // Nothing is written, so the store is not asked for its time.
        let (garbage, left, _) = search(&lake, chrono::Utc::now())?;
        return Ok(left.ended(garbage.text("to be deleted; nothing was", "would be deleted")));
    }
    lake.probe()?;
    let _lock = lake.lock("_lock")?;
    let now = clock::now_of_store(&lake.place)?;
    lake.catch_up()?;
    for _ in 0..COMMIT_ATTEMPTS_MAX {
        let (garbage, left, tables) = search(&lake, now)?;
        if garbage.is_unpublished() || commit_first(&garbage, &tables)? {
            garbage.delete(&lake)?;
            return Ok(left.ended(garbage.text("deleted", "deleted")));
        }
    }
    let what = format!("other runs took the version {COMMIT_ATTEMPTS_MAX} times");
    Err(Error::new(Kind::Temporary, what).at(&lake.place.shown).advise("run again"))
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
            application: CLEANER.to_string(),
            application_version: table.version() as i64 + 1,
            metadata: BTreeMap::new(),
        };
        if let Outcome::Lost { .. } = wait(table.commit(&[], &[], &info))? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Garbage {
    /// Whether it holds nothing that a stalled run may be about to publish.
    fn is_unpublished(&self) -> bool {
        self.parts.is_empty() && self.of_dead_runs.is_empty()
    }

    fn add_parts(&mut self, table: &str, parts: Vec<ObjectMeta>) {
        if !parts.is_empty() {
            self.parts.insert(table.to_string(), parts);
        }
    }

    fn delete(&self, lake: &Lake) -> Result<()> {
        let mut all = self.parts.values().flatten().chain(&self.of_dead_runs);
        all.try_for_each(|meta| lake.place.at(meta).delete())?;
        self.staged.iter().try_for_each(|file| lake.place.remove_staged(file))
    }

    fn text(&self, what: &str, staged: &str) -> String {
        let line = |name: &str, objects: &[ObjectMeta]| {
            of_objects(name, objects.len() as u64, objects.iter().map(|meta| meta.size).sum())
        };
        let tables = self.parts.iter().map(|(name, parts)| line(name, parts));
        let runs = (!self.of_dead_runs.is_empty()).then(|| line("_runs", &self.of_dead_runs));
        let lines: String = tables.chain(runs).collect();
        let staged = match self.staged.len() {
            0 => String::new(),
            count => format!("  {:<18} {count} files {staged}\n", "staging"),
        };
        match lines.is_empty() {
            true => format!("nothing to clean up\n{staged}"),
            false => format!("{what}:\n{lines}{staged}"),
        }
    }
}

fn of_objects(name: &str, count: u64, bytes: u64) -> String {
    format!("  {name:<18} {} objects, {}\n", grouped(count), size(bytes))
}

impl Left {
    fn odd(&mut self, path: String, why: impl ToString) {
        self.odd.push(Error::unfit(why.to_string()).at(path).to_string());
    }

    /// A table that was left alone.
    fn odd_table(&mut self, table: &Place, error: Error) {
        self.odd(table.shown.clone(), format!("left alone: {}", error.without_place()));
    }

    fn all_odd(&mut self, contents: &mut Contents) {
        contents.odd.drain(..).for_each(|(path, why)| self.odd(path, why));
    }

    fn unknown(&mut self, folder: &str, objects: &[ObjectMeta]) {
        if !objects.is_empty() {
            let bytes = objects.iter().map(|meta| meta.size).sum();
            self.unknown.insert(folder.to_string(), (objects.len() as u64, bytes));
        }
    }

    /// Reports what is odd on stderr. Out: the whole report, and the exit code.
    fn ended(&self, done: String) -> (String, u8) {
        let mut text = format!("{}{done}", self.note);
        if !self.unknown.is_empty() {
            text += "left, since no run of this program gives such names and no log names them:\n";
            self.unknown.iter().for_each(|(name, (count, bytes))| text += &of_objects(name, *count, *bytes));
        }
        if !self.others.is_empty() {
            text += &format!("tables of other programs, left alone: {}\n", self.others.join(", "));
        }
        for odd in self.odd.iter().take(ODD_LINES_MAX) {
            talk(format_args!("pennymill: {odd}"));
        }
        if let Some(more @ 1..) = self.odd.len().checked_sub(ODD_LINES_MAX) {
            talk(format_args!("pennymill: {more} more of these"));
        }
        (text, if self.odd.is_empty() { 0 } else { EXIT_NEEDS_A_LOOK })
    }
}
