//! A lake: its head, its lock, its one commit, and what follows a commit.
//!
//! In: the place of a lake. Out: the head to start from; the next version.
//! Invariant: `monthly_spending` is the only truth; `budget_alerts` and `transactions` are brought
//! up to it from the manifests of its commits, by whichever run comes next.

mod expected;
mod following;
mod origins;
mod refill;
mod versions;

pub use following::Losses;
pub use origins::Origins;

use super::commit::{CommitInfo, Outcome};
use super::deliveries::{DEAD_LETTERS, DELIVERIES};
use super::manifest::{FileRecord, Manifest, PartRecord};
use super::part::sha256;
use super::table::Table;
use crate::domain::month::Month;
use crate::engine::raw::RAW_TRANSACTIONS;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::input::alerts::AlertHistory;
use crate::input::ledger::Ledger;
use crate::input::published::{PartFile, PublishedPart};
use crate::job::spec::Spec;
use crate::limits::COMMIT_ATTEMPTS_MAX;
use crate::planted::Bug;
use crate::schema;
use crate::store::{Place, probe, wait};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use expected::lost;
use following::checkpoint;

pub const MONTHLY_SPENDING: &str = "monthly_spending";
pub const BUDGET_ALERTS: &str = "budget_alerts";
pub const TRANSACTIONS: &str = "transactions";
/// The tables that are brought up to `monthly_spending`.
pub const FOLLOWERS: [&str; 2] = [BUDGET_ALERTS, TRANSACTIONS];
/// No Delta table: the rejects of all runs.
pub const REJECTS: &str = "rejects";

/// Who commits, in the tables' `txn` actions; its version is that of `monthly_spending`.
pub const APPLICATION: &str = "pennymill";

/// Who commits before cleaning up deletes.
pub const CLEANER: &str = "pennymill-gc";

/// Who commits parts that were skipped, under the table's own versions: that of [`APPLICATION`] is past.
const REFILL: &str = "pennymill-refill";

/// The key of commitInfo that names the manifest, and the one with its checksum.
const MANIFEST: &str = "manifest";
const MANIFEST_SHA256: &str = "manifest_sha256";

pub struct Lake {
    pub place: Place,
    /// Rooted at the lake.
    store: Arc<dyn ObjectStore>,
    /// What the tables that follow held when they were last caught up.
    followed: Mutex<Followed>,
}

/// By table, the parts that its record has to name.
type Followed = BTreeMap<String, Vec<PartFile>>;

/// What the log of `monthly_spending` has at a version.
enum Told {
    /// No commit: the log was cleaned up.
    Gone,
    /// A commit that no run has made.
    NoRun,
    Run(Box<Manifest>),
}

/// The published state that a run starts from.
pub struct Head {
    pub table: Table,
    pub parts: Vec<PartFile>,
    pub ledger: Ledger,
    /// What its newest run counted in: (currency, time zone).
    pub counted_in: Option<(String, String)>,
}

impl Head {
    /// A month as it is published, in the order of users. `lake` is the one that this is the head of.
    pub fn month(&self, month: Month, lake: &Lake) -> Vec<PublishedPart> {
        let table = lake.place.child(MONTHLY_SPENDING);
        self.parts_of(month).iter().map(|file| PublishedPart::new(month, file, &table)).collect()
    }

    /// The parts of a month in the order of their users.
    pub fn parts_of(&self, month: Month) -> Vec<PartFile> {
        self.parts.iter().filter(|part| part.month == Some(month)).cloned().collect()
    }

    /// Errors when the job counts in another currency, or cuts months in another zone, than the lake.
    pub fn fits(&self, spec: &Spec) -> Result<()> {
        let Some((currency, time_zone)) = &self.counted_in else { return Ok(()) };
        let wanted = [
            ("currency", currency, spec.input.currency.0.to_string()),
            ("time_zone", time_zone, spec.input.time_zone.0.to_string()),
        ];
        match wanted.iter().find(|(_, held, wanted)| *held != wanted) {
            None => Ok(()),
            Some((key, held, wanted)) => {
                let error =
                    Error::unfit(format!("the lake is counted in {held}, and input.{key} is {wanted}"));
                Err(error.advise("use another lake, or the job's former value"))
            }
        }
    }

    /// All months that hold something, in their order.
    pub fn months(&self) -> BTreeSet<Month> {
        self.parts.iter().filter_map(|part| part.month).collect()
    }

    pub fn last_month(&self) -> Option<Month> {
        self.parts.iter().filter_map(|part| part.month).max()
    }
}

/// Held while a run is at work. The kernel releases it with the process, however that ends.
pub struct Lock(#[allow(dead_code, reason = "held, not read")] Option<File>);

impl Lake {
    pub fn open(lake: &str) -> Result<Lake> {
        let place = Place::open(lake)?;
        let store = Arc::new(PrefixStore::new(place.store.clone(), place.path.clone()));
        Ok(Lake { place, store, followed: Mutex::default() })
    }

    /// Makes sure that the store can be published to.
    pub fn probe(&self) -> Result<()> {
        probe(&self.place)
    }

    /// Locks a local lake, out of politeness: the commit is safe without it.
    /// `name` is that of what is locked: publishing and delivering do not wait for each other.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        if Bug::LockIgnored.is_planted() {
            return Ok(Lock(None));
        }
        let Ok(root) = self.place.url.to_file_path() else { return Ok(Lock(None)) };
        let at = |e: std::io::Error| Error::from(e).at(&self.place.shown);
        let file = files::open_lock(&root, "_runs", name)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(Some(file))),
            Err(std::fs::TryLockError::WouldBlock) => {
                let error = Error::new(Kind::Temporary, "another run is at work on this lake");
                Err(error.at(&self.place.shown).advise("wait for it to end"))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(at(error)),
        }
    }

    /// Errors when the job asks for a table that stands there in another form.
    pub fn fits(&self, spec: &Spec) -> Result<()> {
        let fits = |name, schema: SchemaRef, advice: &str| match self.table(name)? {
            None => Ok(()),
            Some(_) => {
                let opened = self.open_or_create(name, &schema, &["month"]);
                let advice = format!("it is of an earlier program: move it out of the lake; {advice}");
                opened.map(|_| ()).map_err(|error| match error.kind {
                    Kind::Unfit => error.advise(advice),
                    _ => error,
                })
            }
        };
        fits(BUDGET_ALERTS, schema::budget_alerts(), "what it said of the open month will be said anew")?;
        if !spec.output.transactions {
            return Ok(());
        }
        fits(TRANSACTIONS, schema::transactions(), "--rebuild fills it again, month by month")
    }

    /// Rooted at the lake.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// A table of the lake, if it is there.
    pub fn table(&self, name: &str) -> Result<Option<Table>> {
        wait(self.table_now(name))
    }

    /// [`Lake::table`] for async code.
    pub async fn table_now(&self, name: &str) -> Result<Option<Table>> {
        Table::open(&self.store, name).await.map_err(|e| e.below(&self.place.shown))
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error for a table of this lake that cannot be used.
    fn unfit(&self, table: &str, what: String) -> Error {
        Error::unfit(what).at(table).below(&self.place.shown)
    }

    /// The error for a version that rivals keep taking.
    fn busy(&self) -> Error {
        let what = format!("another run took the version {COMMIT_ATTEMPTS_MAX} times");
        Error::new(Kind::Temporary, what).at(&self.place.shown).advise("run again")
    }

    pub fn open_or_create(&self, name: &str, schema: &SchemaRef, partitions: &[&str]) -> Result<Table> {
        wait(Table::open_or_create(&self.store, name, schema, partitions))
            .map_err(|e| e.below(&self.place.shown))
    }

    /// The table of a job that replaces it, or a month of it.
    pub fn open_or_create_for_job(
        &self,
        name: &str,
        schema: &SchemaRef,
        partitions: &[&str],
    ) -> Result<Table> {
        self.free_for_jobs(name)?;
        self.open_or_create(name, schema, partitions)
    }

    /// Adds parts to the table that `open` opens, in place of those that `replaces` names, as often as
    /// rivals take the version. Out: the version that it became.
    pub fn put_parts(
        &self,
        open: &dyn Fn() -> Result<Table>,
        add: &[PartFile],
        replaces: &dyn Fn(&PartFile) -> bool,
        info: &dyn Fn(&Table) -> CommitInfo,
    ) -> Result<u64> {
        for attempt in 0..COMMIT_ATTEMPTS_MAX {
            let table = open()?;
            let mut remove = table.files()?;
            remove.retain(replaces);
            if attempt > 0 {
                self.expect_written(&table, add)?;
            }
            if let Outcome::Committed { version } = wait(table.commit(add, &remove, &info(&table)))? {
                checkpoint(&table);
                return Ok(version);
            }
        }
        Err(self.busy())
    }

    /// Errors when a part is gone: whoever stalls for days may be taken for dead, and cleaned up.
    fn expect_written(&self, table: &Table, parts: &[PartFile]) -> Result<()> {
        for part in parts {
            let place = self.place.child(table.name()).child(&part.path);
            if place.head()?.is_none() {
                let error =
                    Error::new(Kind::Temporary, "it was cleaned up before its commit").at(&place.shown);
                return Err(error.advise("run again"));
            }
        }
        Ok(())
    }

    /// Errors when a job that replaces a table asks for one that is not its own.
    pub fn free_for_jobs(&self, name: &str) -> Result<()> {
        match [
            MONTHLY_SPENDING,
            BUDGET_ALERTS,
            TRANSACTIONS,
            REJECTS,
            RAW_TRANSACTIONS,
            DELIVERIES,
            DEAD_LETTERS,
        ]
        .contains(&name)
        {
            false => Ok(()),
            true => {
                let error = Error::unfit(format!("`{name}` is a table of the program's own"));
                Err(error.advise("give the job another name, or another output.table"))
            }
        }
    }

    /// The names of all tables.
    pub async fn table_names(&self) -> Result<Vec<String>> {
        let listed = self.store.list_with_delimiter(None).await;
        let prefixes = listed.map_err(|e| Error::from(e).at(&self.place.shown))?.common_prefixes;
        let names = prefixes.iter().map(|prefix| prefix.as_ref().to_string());
        Ok(names.filter(|name| !name.starts_with('_')).collect())
    }

    /// The names of the tables that jobs of kind `sql` have published.
    pub async fn published_by_jobs(&self) -> Result<Vec<String>> {
        let ours = [MONTHLY_SPENDING, BUDGET_ALERTS, TRANSACTIONS];
        let mut names = self.table_names().await?;
        names.retain(|name| !ours.contains(&name.as_str()));
        Ok(names)
    }

    /// A table that has to be there.
    pub fn published(&self, name: &str) -> Result<Table> {
        self.table(name)?.ok_or_else(|| {
            let error = Error::new(Kind::NotFound, "there is no lake, or nothing was published to it");
            error.at(&self.place.shown)
        })
    }

    /// Whether a later version than this head's is published.
    pub fn has_moved(&self, head: &Head) -> Result<bool> {
        Ok(self.published(MONTHLY_SPENDING)?.version() > head.table.version())
    }

    /// The head; none in a lake that nothing was published to.
    pub fn head(&self) -> Result<Option<Head>> {
        self.table(MONTHLY_SPENDING)?.map(|table| self.head_of(table)).transpose()
    }

    /// The head, after creating the table that it is the head of.
    pub fn head_or_create(&self) -> Result<Head> {
        self.expect_leader()?;
        let table = self.open_or_create(MONTHLY_SPENDING, &schema::monthly_spending(), &["month"])?;
        self.head_of(table)
    }

    fn head_of(&self, table: Table) -> Result<Head> {
        let parts = table.files()?;
        let Some(manifest) = self.newest_manifest(&table)? else {
            return Ok(Head { table, parts, ledger: Ledger::default(), counted_in: None });
        };
        let bytes = self.read_file(&manifest.ledger)?;
        let counted_in = Some((manifest.currency, manifest.time_zone));
        Ok(Head { table, parts, ledger: Ledger::from_parquet(bytes)?, counted_in })
    }

    /// The manifest of the newest commit that has one: other programs may compact in between.
    pub fn newest_manifest(&self, table: &Table) -> Result<Option<Manifest>> {
        Ok(self.newest_run(table)?.map(|(_, manifest)| manifest))
    }

    /// The newest run's version and manifest. Errors when its commit may be among those that are gone:
    /// an older one would count again what it has counted.
    fn newest_run(&self, table: &Table) -> Result<Option<(u64, Manifest)>> {
        for version in (1..=table.version()).rev() {
            match wait(self.told(table, version)).map_err(lost)? {
                Told::Run(manifest) => return Ok(Some((version, *manifest))),
                Told::NoRun => {}
                Told::Gone => {
                    let what = format!("commit {version} is gone from its log, which names no newer run");
                    let advice = "restore the commits of its log from a copy; nothing can be counted without \
                                  those of the newest run";
                    return Err(self.unfit(table.name(), what).advise(advice));
                }
            }
        }
        Ok(None)
    }

    /// The manifest of a commit, held to its checksum.
    pub async fn manifest(&self, table: &Table, version: u64) -> Result<Option<Manifest>> {
        match self.told(table, version).await? {
            Told::Run(manifest) => Ok(Some(*manifest)),
            Told::Gone | Told::NoRun => Ok(None),
        }
    }

    async fn told(&self, table: &Table, version: u64) -> Result<Told> {
        let Some(metadata) = table.commit_metadata(version).await? else { return Ok(Told::Gone) };
        let (Some(path), Some(checksum)) = (metadata.get(MANIFEST), metadata.get(MANIFEST_SHA256)) else {
            return Ok(Told::NoRun);
        };
        let bytes = self.place.child(path).read_now().await?;
        if sha256(&bytes) != *checksum {
            return Err(damaged(path));
        }
        serde_json::from_slice(&bytes).map(Told::Run).map_err(|_| damaged(path))
    }

    /// An object of a run, held to its checksum.
    pub fn read_file(&self, record: &FileRecord) -> Result<Bytes> {
        let bytes = self.place.child(&record.path).read()?;
        match sha256(&bytes) == record.sha256 {
            true => Ok(bytes),
            false => Err(damaged(&record.path)),
        }
    }

    /// What a run has left, whether or not it was committed; none where it left nothing.
    pub fn manifest_of_run(&self, run_id: &str) -> Result<Option<Manifest>> {
        let path = format!("_runs/{run_id}/manifest.json");
        match self.place.child(&path).read() {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged(&path)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the manifest, reads it back, and makes the commit that names it.
    pub fn commit(&self, head: &Head, remove: &[PartFile], manifest: &Manifest) -> Result<Outcome> {
        let manifest = Manifest { followers: self.records(manifest), ..manifest.clone() };
        let bytes = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::invariant(e.to_string()))?;
        let path = format!("_runs/{}/manifest.json", manifest.run_id);
        let checksum = sha256(&self.place.child(&path).create_and_read(bytes.into())?);
        let add: Vec<PartFile> = manifest.monthly_spending.iter().map(PartRecord::file).collect();
        let metadata =
            BTreeMap::from([(MANIFEST.to_string(), path), (MANIFEST_SHA256.to_string(), checksum)]);
        let info = self.info(&manifest.run_id, head.table.version() + 1, metadata);
        wait(head.table.commit(&add, remove, &info))
    }

    fn info(&self, run_id: &str, version: u64, metadata: BTreeMap<String, String>) -> CommitInfo {
        CommitInfo {
            run_id: run_id.to_string(),
            application: APPLICATION.to_string(),
            application_version: version as i64,
            metadata,
        }
    }

    /// What was said of a month so far.
    pub fn alert_history(&self, month: Month) -> Result<AlertHistory> {
        let Some(table) = self.table(BUDGET_ALERTS)? else { return Ok(AlertHistory::default()) };
        let files = table.files()?.into_iter().filter(|part| part.month == Some(month));
        AlertHistory::read(&files.collect::<Vec<_>>(), &self.place.child(BUDGET_ALERTS))
    }
}

/// The error for an object of the lake that is not what was written.
pub fn damaged(path: &str) -> Error {
    let error = Error::new(Kind::Unfit, "it is not what was written: the lake is damaged").at(path);
    error.advise("restore it from a copy; until then nothing can be published")
}
