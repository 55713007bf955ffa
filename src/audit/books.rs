//! The books of a lake: every commit after the other, and what the newest says.
//!
//! In: commits, manifests, ledgers, parts. Out: findings, the closing of each month, the ledger.
//! Invariant: opening + movements = closing at every commit; the parts that are there add up to the
//! closing of the newest.

use super::Audit;
use super::followers::Followed;
use crate::domain::category::Categories;
use crate::domain::month::Month;
use crate::error::Result;
use crate::input::ledger::{Ledger, Status};
use crate::input::published::{PartFile, read_groups};
use crate::input::reference;
use crate::job::spec::Spec;
use crate::output::lake::{BUDGET_ALERTS, Lake, MONTHLY_SPENDING, TRANSACTIONS};
use crate::output::manifest::{Manifest, PartRecord};
use crate::output::part::sha256;
use crate::output::table::{Commit, Table};
use crate::planted::Bug;
use crate::store::wait;
use std::collections::{BTreeMap, BTreeSet};

/// Rows and net cents by month.
pub(super) type Months = BTreeMap<Month, (u64, i128)>;

#[derive(Default)]
pub(super) struct Books {
    pub ledger: Ledger,
    pub months: Months,
    pub time_zone: String,
    /// What manifests say of parts, by table and path.
    pub(super) parts: BTreeMap<(&'static str, String), PartRecord>,
    /// The paths that make up the version.
    present: BTreeSet<String>,
    categories: Option<Categories>,
    /// What runs have written for the tables that follow.
    pub(super) followed: Followed,
    /// Versions of `monthly_spending`.
    pub(super) versions: u64,
}

impl Books {
    /// Walks all commits, from the first to that of `table`.
    pub fn walk(lake: &Lake, table: &Table, audit: &mut Audit) -> Result<Books> {
        let mut books = Books { versions: table.version(), ..Books::default() };
        for version in 1..=table.version() {
            let place = format!("{MONTHLY_SPENDING} version {version}");
            let Some(commit) = wait(table.logged(version))? else {
                audit.broken(&place, "its commit is gone");
                continue;
            };
            books.move_parts(&place, &commit, audit);
            let manifest = wait(lake.manifest(table, version));
            let Some(manifest) = audit.take(&place, manifest)? else { continue };
            match manifest {
                Some(manifest) => {
                    books.followed.take_run(version, &manifest);
                    books.take_run(lake, &place, &commit, manifest, audit)?;
                }
                None if commit.added.is_empty() && commit.removed.is_empty() => {}
                None => audit.changed(&place, "another program has replaced parts"),
            }
        }
        audit.objects = books.ledger.counted().count() as u64;
        Ok(books)
    }

    fn move_parts(&mut self, place: &str, commit: &Commit, audit: &mut Audit) {
        for path in &commit.removed {
            if !self.present.remove(path) {
                audit.broken(place, format!("it removes {path}, which is not there"));
            }
        }
        for path in &commit.added {
            if !self.present.insert(path.clone()) {
                audit.broken(place, format!("it adds {path} twice"));
            }
        }
    }

    fn take_run(
        &mut self,
        lake: &Lake,
        place: &str,
        commit: &Commit,
        manifest: Manifest,
        audit: &mut Audit,
    ) -> Result<()> {
        if commit.info.get("run_id") != Some(&manifest.run_id) {
            audit.broken(place, "its manifest is that of another run");
        }
        let named: BTreeSet<&String> = manifest.monthly_spending.iter().map(|part| &part.path).collect();
        if named != commit.added.iter().collect() {
            audit.broken(place, "its parts are not those of its manifest");
        }
        if let Ok(spec) = serde_json::from_str::<Spec>(&manifest.job_spec) {
            self.categories = reference::categories(&spec.input).ok();
        }
        self.time_zone = manifest.time_zone.clone();
        if let Some(bytes) = audit.take(place, lake.read_file(&manifest.ledger))? {
            let ledger = audit.take(place, Ledger::from_parquet(bytes))?;
            let movements = ledger.map(|ledger| self.post(place, &manifest, ledger, audit));
            self.close(place, &manifest, movements.as_ref(), audit);
        }
        let tables = [
            (MONTHLY_SPENDING, &manifest.monthly_spending),
            (BUDGET_ALERTS, &manifest.budget_alerts),
            (TRANSACTIONS, &manifest.transactions),
        ];
        for (table, parts) in tables {
            self.parts.extend(parts.iter().map(|part| ((table, part.path.clone()), part.clone())));
        }
        Ok(())
    }

    /// Takes the ledger of a run: old + added = new. Out: what the added objects move.
    fn post(&mut self, place: &str, manifest: &Manifest, ledger: Ledger, audit: &mut Audit) -> Months {
        let is_recount = !manifest.recounted().is_empty();
        for (name, before) in self.ledger.counted() {
            match ledger.entries.get(name) {
                Some(now) if now.status == Status::Counted => {
                    let same = now.months == before.months && now.content_hash == before.content_hash;
                    if !same && !is_recount {
                        audit.broken(place, format!("{name} is counted otherwise than before"));
                    }
                }
                _ => audit.broken(place, format!("{name} was counted and is no more")),
            }
        }
        let mut added = Ledger::default();
        for (name, entry) in ledger.counted().filter(|(name, _)| !self.ledger.is_counted(name)) {
            added.entries.insert(name.clone(), entry.clone());
        }
        let counted = manifest.inputs.iter().filter(|input| input.status == "counted");
        let counted: BTreeSet<&String> = counted.map(|input| &input.source_object).collect();
        if !is_recount && counted != added.entries.keys().collect() {
            audit.broken(place, "the ledger counts other objects than the manifest");
        }
        let mut contents = BTreeSet::new();
        for (name, entry) in ledger.counted() {
            let may_repeat = entry.duplicate_allowed || entry.rows_read == entry.rows_blank;
            if !may_repeat && !contents.insert(entry.content_hash.clone()) {
                audit.broken(place, format!("what {name} says is counted twice"));
            }
        }
        self.ledger = ledger;
        added.months()
    }

    /// Holds the closing of a run's months to their opening and the movements.
    fn close(&mut self, place: &str, manifest: &Manifest, movements: Option<&Months>, audit: &mut Audit) {
        let recounted = manifest.recounted();
        self.months.retain(|month, _| !recounted.contains(month));
        let counted = self.ledger.months();
        for record in &manifest.months {
            let Ok(month) = record.month.parse::<Month>() else {
                audit.broken(place, "a month of its manifest is none");
                continue;
            };
            let closing = (record.rows, i128::from(record.net_cents));
            let opening = self.months.get(&month).copied().unwrap_or_default();
            let moved = movements.and_then(|movements| movements.get(&month)).copied().unwrap_or_default();
            let adds_up = recounted.contains(&month) || (opening.0 + moved.0, opening.1 + moved.1) == closing;
            if !adds_up {
                audit.broken(place, format!("opening + movements is not closing for {month}"));
            }
            if counted.get(&month) != Some(&closing) {
                audit.broken(place, format!("{month} is not what the ledger counts"));
            }
            self.months.insert(month, closing);
        }
        let closed: BTreeSet<&Month> = self.months.keys().collect();
        if closed != counted.keys().collect() {
            audit.broken(place, "the ledger counts other months than are published");
        }
    }

    /// Reads the parts of the newest version back and adds them up.
    pub fn hold_parts(&self, lake: &Lake, table: &Table, audit: &mut Audit) -> Result<()> {
        let categories = self.categories.clone().unwrap_or_else(Categories::builtin);
        let files = table.files()?;
        if files.iter().map(|file| &file.path).collect::<BTreeSet<_>>() != self.present.iter().collect() {
            audit.broken(MONTHLY_SPENDING, "its commits do not come to the parts that readers see");
        }
        let mut months = Months::new();
        let mut last: Option<(Month, u64)> = None;
        for file in &files {
            audit.parts += 1;
            let place = format!("{MONTHLY_SPENDING}/{}", file.path);
            let Some(bytes) = self.bytes(lake, MONTHLY_SPENDING, file, audit)? else { continue };
            let groups = read_groups(bytes, &categories, &place);
            let (Some(groups), Some(month)) = (audit.take(&place, groups)?, file.month) else { continue };
            let rises = groups
                .windows(2)
                .all(|pair| (pair[0].user_id, pair[0].category.0) < (pair[1].user_id, pair[1].category.0));
            let follows =
                groups.first().is_none_or(|first| last.is_none_or(|last| last < (month, first.user_id)));
            if !rises || !follows {
                audit.broken(&place, "its keys do not rise");
            }
            last = groups.last().map(|group| (month, group.user_id)).or(last);
            let sum = months.entry(month).or_default();
            for group in &groups {
                *sum = (sum.0 + group.transaction_count, sum.1 + i128::from(group.amount_cents));
            }
        }
        for month in months.keys().chain(self.months.keys()).collect::<BTreeSet<_>>() {
            if months.get(month) != self.months.get(month) {
                audit.broken(MONTHLY_SPENDING, format!("the parts of {month} do not add up to its closing"));
            }
        }
        Ok(())
    }

    /// A part, held to the checksum in the manifest that named it.
    pub(super) fn bytes(
        &self,
        lake: &Lake,
        table: &'static str,
        file: &PartFile,
        audit: &mut Audit,
    ) -> Result<Option<bytes::Bytes>> {
        let place = lake.place.child(table).child(&file.path);
        let Some(bytes) = audit.take(&place.shown, place.read())? else { return Ok(None) };
        let record = self.parts.get(&(table, file.path.clone()));
        if !Bug::AuditBlind.is_planted() && record.is_some_and(|record| record.sha256 != sha256(&bytes)) {
            audit.broken(&place.shown, "it is not what was written");
        }
        Ok(Some(bytes))
    }
}
