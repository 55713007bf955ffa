//! Delta tables of the lake: created, read at a version, checkpointed.
//!
//! In: a store rooted at the lake, the name of a table. Out: the parts, the schema and the history
//! of a version.
//! Invariant: a `Table` is one version and never changes; nothing in the lake is ever deleted here. A
//! table that demands of its readers what this program does not do is refused before it is read.

use super::features::{Demands, Noted, OUTSIDE, Versions};
use super::log::{FILE_BYTES_MAX, Log, LogView, RESTORE, Segment, TOO_LARGE, check_json};
use super::names::vector_file;
use crate::error::{Error, Kind, Result, is_refusal, without_answer};
use crate::input::published::PartFile;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::kernel::{LogicalFileView, StructField, StructType};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, commit_uri_from_version, default_logstore};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::checkpoints::create_checkpoint;
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The only partition column there is: a DATE, the first day of the month.
pub const MONTH: &str = "month";

/// The key of commitInfo that says whose commit it is.
pub const RUN_ID: &str = "run_id";

/// How often something is tried whose outcome stays unclear.
pub(super) const ATTEMPTS: u32 = 5;

/// A reader loads the last checkpoint and the commits after it: about this many at most.
const CHECKPOINT_EVERY: u64 = 20;

/// One version of a table; open the table again to see a newer one.
#[derive(Clone)]
pub struct Table {
    pub(super) name: String,
    /// Rooted at the table.
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) delta: DeltaTable,
    pub(super) state: DeltaTableState,
    /// What the library sees of the log.
    pub(super) view: Arc<LogView>,
    /// The version of the checkpoint that it was read from.
    checkpoint: Option<u64>,
    /// What it demands of writers and this program does not do.
    unmet: Vec<String>,
}

impl Table {
    /// The newest version of the table that lies at `name` in the lake, or none where no table
    /// is. The store is rooted at the lake, whatever kind of store it is.
    pub async fn open(lake: &Arc<dyn ObjectStore>, name: &str) -> Result<Option<Table>> {
        let store = rooted_at(lake, name);
        for attempt in 0..ATTEMPTS {
            pause_before(attempt).await;
            let table = Table::load(lake, name, None).await?;
            // A listing can lack what is newest, and what was said last would be said again.
            let next = commit_uri_from_version(Some(table.as_ref().map_or(0, |table| table.version() + 1)));
            // Not by its head: a refusal of that has no words that say what is wrong.
            match store.get_range(&next, 0..1).await {
                Ok(_) => {}
                Err(StoreError::NotFound { .. }) => return Ok(table),
                Err(error) => return Err(Error::from(error).at(name)),
            }
        }
        let error = Error::new(Kind::Temporary, "the store lists fewer commits than it holds").at(name);
        Err(error.advise("run again"))
    }

    /// The table as it was at `version`, or none where there is no such version.
    pub async fn open_at(lake: &Arc<dyn ObjectStore>, name: &str, version: u64) -> Result<Option<Table>> {
        let store = rooted_at(lake, name);
        match store.head(&commit_uri_from_version(Some(version))).await {
            Ok(_) => Table::load(lake, name, Some(version)).await,
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::from(error).at(name)),
        }
    }

    /// The newest version, after creating the table if it is missing. Whoever creates it first,
    /// everybody gets the same table; one with other columns is refused.
    pub async fn open_or_create(
        lake: &Arc<dyn ObjectStore>,
        name: &str,
        schema: &Schema,
        partition_columns: &[&str],
    ) -> Result<Table> {
        let wanted: StructType = schema
            .try_into_kernel()
            .map_err(|e| Error::invariant(format!("no Delta schema for {name}: {e}")))?;
        let mut refusal = None;
        for attempt in 0..=ATTEMPTS {
            if let Some(table) = Table::open(lake, name).await? {
                table.expect_columns(&wanted, partition_columns)?;
                table.expect_writable()?;
                return Ok(table);
            }
            pause_before(attempt).await;
            // Whatever the answer, the next look at the log says what came of it.
            refusal = create(lake, name, &wanted, partition_columns).await.err();
        }
        Err(refusal.unwrap_or_else(|| Error::new(Kind::Temporary, "no table after creating it")))
            .map_err(|e| e.at(name))
    }

    /// Reads the log from its newest checkpoint, or from an older one or the first commit where that is
    /// damaged.
    async fn load(lake: &Arc<dyn ObjectStore>, name: &str, version: Option<u64>) -> Result<Option<Table>> {
        let Some((table, demands)) = Table::load_any(lake, name, version).await? else { return Ok(None) };
        refuse_unmet(&demands, name)?;
        let columns = table.state.metadata().partition_columns();
        if !columns.is_empty() && columns != [MONTH] {
            return Err(Error::unfit("the table is not partitioned by month").at(name));
        }
        Ok(Some(table))
    }

    /// The newest version of a table for nothing but the files that it names: whatever it demands, and
    /// however it is partitioned.
    pub async fn open_for_names(lake: &Arc<dyn ObjectStore>, name: &str) -> Result<Option<Table>> {
        Ok(Table::load_any(lake, name, None).await?.map(|(table, _)| table))
    }

    /// A version, and what it demands.
    async fn load_any(
        lake: &Arc<dyn ObjectStore>,
        name: &str,
        version: Option<u64>,
    ) -> Result<Option<(Table, Demands)>> {
        let mut log = Log::list(lake, name, version).await?;
        let Some(mut segment) = log.segment(lake, version, u64::MAX).await? else { return Ok(None) };
        let mut first_error = None;
        loop {
            let error = match Table::replay(lake, name, &segment).await {
                Ok(found) => return Ok(Some(found)),
                Err(error) => error,
            };
            let Some(damaged) = segment.checkpoint.filter(|_| error.kind == Kind::Unfit) else {
                return Err(first_error.unwrap_or(error));
            };
            if first_error.is_none() {
                log = Log::list_from(lake, name, 0).await?;
            }
            let error = first_error.take().unwrap_or(error);
            match log.segment(lake, Some(segment.version), damaged).await {
                Ok(Some(next)) => segment = next,
                _ => return Err(error),
            }
            first_error = Some(error);
        }
    }

    /// The version that the files of a segment come to, and what it demands.
    async fn replay(lake: &Arc<dyn ObjectStore>, name: &str, segment: &Segment) -> Result<(Table, Demands)> {
        let view = Arc::new(LogView::new(lake, name, segment));
        let seen: Arc<dyn ObjectStore> = view.clone();
        let mut delta = DeltaTable::new(log_store(&seen, name)?);
        if let Err(error) = delta.load_version(segment.version).await {
            if let Some(what) = view.refused() {
                return Err(Error::unfit(what).at(name).advise(RESTORE));
            }
            refuse_unmet(&view.demands(), name)?;
            return Err(from_delta(error).at(name).advise(RESTORE));
        }
        let state = delta.snapshot().map_err(|e| from_delta(e).at(name))?.clone();
        let protocol = serde_json::to_value(state.protocol()).and_then(serde_json::from_value::<Versions>);
        let protocol = protocol.map_err(|_| Error::unfit("its protocol cannot be read").at(name))?;
        let mut demands = Demands::of_protocol(protocol);
        demands.add_metadata(&Noted::of(state.metadata()));
        let files = state.snapshot().try_log_data().map_err(|e| from_delta(e).at(name))?;
        files.iter().for_each(|file| demands.add_file(&file));
        let table = Table {
            name: name.to_string(),
            store: rooted_at(lake, name),
            delta,
            state,
            view,
            checkpoint: segment.checkpoint,
            unmet: demands.of_writers.iter().cloned().collect(),
        };
        Ok((table, demands))
    }

    /// Errors when the table demands of its writers what this program does not do.
    pub fn expect_writable(&self) -> Result<()> {
        if self.unmet.is_empty() {
            return Ok(());
        }
        let error = Error::unfit(unsupported(&self.unmet)).at(&self.name);
        Err(error.advise("drop that from the table with the program that set it, or publish to another lake"))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn version(&self) -> u64 {
        self.state.version()
    }

    /// [`MONTH`], where the table is partitioned.
    pub fn partition_column(&self) -> Option<String> {
        self.state.metadata().partition_columns().first().cloned()
    }

    pub fn schema(&self) -> SchemaRef {
        self.state.snapshot().arrow_schema()
    }

    /// Rooted at the table: where the paths of [`Table::files`] begin.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The files that make up this version, sorted by path.
    pub fn files(&self) -> Result<Vec<PartFile>> {
        let log = self.state.snapshot().try_log_data().map_err(from_delta)?;
        let mut files = log
            .iter()
            .map(|view| part_file(&view))
            .collect::<Result<Vec<_>>>()
            .map_err(|e| e.at(&self.name))?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// The version that `application` committed last, as of this version of the table.
    pub async fn application_version(&self, application: &str) -> Result<Option<i64>> {
        let log = self.delta.log_store();
        let found = self.state.transaction_version(log.as_ref(), application).await;
        let found = found.map_err(|e| from_delta(e).at(&self.name))?;
        match found.filter(|version| *version < 0) {
            None => Ok(found),
            Some(version) => Err(self.impossible(application, version)),
        }
    }

    /// A `txn` of an application of ours that none of its commits can have written.
    pub(super) fn impossible(&self, application: &str, version: i64) -> Error {
        let what = format!(
            "its log says that {application} has committed for version {version}, which is not possible"
        );
        Error::unfit(what).at(&self.name).advise(RESTORE)
    }

    /// A commit that is not in the log any more.
    pub fn gone(&self, version: u64) -> Error {
        let error = Error::unfit(format!("commit {version} is missing from its log"));
        error.at(&self.name).advise(RESTORE)
    }

    /// What the commit of `version` says of its run, [`RUN_ID`] included; none where there is no
    /// such commit. The version may be newer than this one.
    pub async fn commit_metadata(&self, version: u64) -> Result<Option<BTreeMap<String, String>>> {
        Ok(self.logged(version).await?.map(|commit| commit.info))
    }

    /// A commit of the log, which may be newer than this version; none where there is no such commit.
    pub async fn logged(&self, version: u64) -> Result<Option<Commit>> {
        let Some(log) = self.read(&commit_uri_from_version(Some(version))).await? else {
            return Ok(None);
        };
        let broken = |what: &str| {
            let error = Error::unfit(format!("commit {version} of its log cannot be used: {what}"));
            error.at(&self.name).advise(RESTORE)
        };
        check_json(&log).map_err(broken)?;
        let mut commit = Commit::default();
        for line in log.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Line = serde_json::from_slice(line).map_err(|_| broken("it is no commit"))?;
            commit.named.extend(line.names());
            commit.added.extend(line.add.map(|part| part.path));
            commit.removed.extend(line.remove.map(|part| part.path));
            commit.applications.extend(line.txn.map(|transaction| transaction.app_id));
            let Some(info) = line.commit_info else { continue };
            commit.millis = info.get("timestamp").and_then(Value::as_i64);
            let text = |(key, value)| match value {
                Value::String(value) => Some((key, value)),
                _ => None,
            };
            commit.info = info.into_iter().filter_map(text).collect();
        }
        Ok(Some(commit))
    }

    /// A commit; none where there is none.
    async fn read(&self, path: &Path) -> Result<Option<Bytes>> {
        let read = async {
            let found = self.store.get(path).await?;
            match found.meta.size <= FILE_BYTES_MAX {
                true => found.bytes().await.map(Some),
                false => Ok(None),
            }
        };
        match read.await {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                let name = path.filename().unwrap_or_default();
                let what = format!("{name} of its log cannot be used: {TOO_LARGE}");
                Err(Error::unfit(what).at(&self.name).advise(RESTORE))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::from(error).at(&self.name)),
        }
    }

    fn expect_columns(&self, wanted: &StructType, partition_columns: &[&str]) -> Result<()> {
        let found = self.state.schema();
        let columns = |schema: &StructType| {
            let column = |f: &StructField| (f.name().clone(), f.data_type().clone());
            schema.fields().map(column).collect::<Vec<_>>()
        };
        let partitions = self.state.metadata().partition_columns();
        if columns(&found) == columns(wanted) && partitions == partition_columns {
            return Ok(());
        }
        Err(Error::unfit("the table there has other columns or partitions").at(&self.name))
    }

    /// Writes a checkpoint if many commits lie behind the last one: readers need fewer requests.
    /// It repeats what the log says, so it may fail, or run twice at once, without harm.
    pub async fn checkpoint_when_due(&self) -> Result<bool> {
        // One that is damaged was not read, so a whole one takes its place at once.
        // To write one is to write the table.
        if !self.unmet.is_empty() || self.version() < self.checkpoint.unwrap_or(0) + CHECKPOINT_EVERY {
            return Ok(false);
        }
        create_checkpoint(&self.delta, None).await.map_err(|e| from_delta(e).at(&self.name))?;
        Ok(true)
    }
}

/// The part of a line of the log that we read ourselves.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "commitInfo")]
    commit_info: Option<Map<String, Value>>,
    add: Option<NamedPart>,
    remove: Option<NamedPart>,
    /// A file with the changes of a commit, for those who follow a table.
    cdc: Option<NamedPart>,
    txn: Option<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    #[serde(rename = "appId")]
    app_id: String,
}

#[derive(Deserialize)]
struct NamedPart {
    path: String,
    #[serde(rename = "deletionVector")]
    vector: Option<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    #[serde(rename = "storageType")]
    storage: String,
    #[serde(rename = "pathOrInlineDv")]
    text: String,
}

impl Line {
    /// All files that it names.
    fn names(&self) -> Vec<String> {
        let parts = [&self.add, &self.remove, &self.cdc].into_iter().flatten();
        let vector = |part: &NamedPart| {
            part.vector.as_ref().and_then(|vector| vector_file(&vector.storage, &vector.text))
        };
        parts.flat_map(|part| [Some(part.path.clone()), vector(part)]).flatten().collect()
    }
}

/// What a commit of the log says.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Text that it says of its run, [`RUN_ID`] included.
    pub info: BTreeMap<String, String>,
    /// When it was made by its writer's clock, since 1970.
    pub millis: Option<i64>,
    /// The applications that it was made for. A key of [`Commit::info`] proves nothing: others use the
    /// same names.
    pub applications: BTreeSet<String>,
    /// Paths below the table.
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// All files that it names, as it writes them.
    pub named: Vec<String>,
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(rename = "numRecords")]
    rows: u64,
}

/// Errors when a table demands of its readers what this program does not do.
fn refuse_unmet(demands: &Demands, name: &str) -> Result<()> {
    if demands.of_readers.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = demands.of_readers.iter().cloned().collect();
    let advice = "drop that from the table with the program that set it, so that its files are rewritten \
                  without, or restore the table from a copy";
    Err(Error::unfit(unsupported(&names)).at(name).advise(advice))
}

/// What a table has that this program does not do: features and versions of the protocol, or files
/// elsewhere, which are no feature.
fn unsupported(demands: &[String]) -> String {
    let (versions, mut rest): (Vec<_>, Vec<_>) =
        demands.iter().map(String::as_str).partition(|name| name.contains(" version "));
    let outside = rest.iter().position(|name| *name == OUTSIDE).map(|index| rest.remove(index).to_string());
    let features: Vec<String> = rest.iter().map(|name| format!("`{name}`")).collect();
    let versions = (!versions.is_empty()).then(|| format!("it needs {}", versions.join(", ")));
    let word = if features.len() == 1 { "feature" } else { "features" };
    let features = (!features.is_empty()).then(|| format!("it has the {word} {}", features.join(", ")));
    let of_protocol: Vec<String> = [versions, features].into_iter().flatten().collect();
    let of_protocol = (!of_protocol.is_empty())
        .then(|| format!("{}, which this program does not support", of_protocol.join(" and ")));
    outside.into_iter().chain(of_protocol).collect::<Vec<_>>().join("; ")
}

/// The lake's store, rooted at a table.
fn rooted_at(lake: &Arc<dyn ObjectStore>, name: &str) -> Arc<dyn ObjectStore> {
    Arc::new(PrefixStore::new(Arc::clone(lake), name))
}

/// The library's access to a table. It takes a URL for the path inside the store, and for whether
/// listings come sorted: of a store that it cannot know, it may believe neither. The host is one
/// whose listings it sorts itself, and the scheme none that it looks for on the local disk.
pub(super) fn log_store(lake: &Arc<dyn ObjectStore>, name: &str) -> Result<LogStoreRef> {
    let inside = Url::parse(&format!("lake://unsorted--x-s3/{name}/"))
        .map_err(|_| Error::unfit("a table cannot have this name").at(name))?;
    let table: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(lake), name));
    Ok(default_logstore(table, Arc::clone(lake), &inside, &StorageConfig::default()))
}

async fn create(
    lake: &Arc<dyn ObjectStore>,
    name: &str,
    schema: &StructType,
    partition_columns: &[&str],
) -> Result<()> {
    CreateBuilder::new()
        .with_log_store(log_store(lake, name)?)
        .with_table_name(name)
        .with_columns(schema.fields().cloned())
        .with_partition_columns(partition_columns.iter().copied())
        // A writer that stalls for weeks must find every commit still in its place.
        .with_configuration([
            ("delta.enableExpiredLogCleanup", Some("false")),
            ("delta.deletedFileRetentionDuration", Some("interval 35 days")),
        ])
        // With retries the loser of a race would commit its own metadata as version 1.
        .with_commit_properties(CommitProperties::default().with_max_retries(0))
        .await
        .map(|_| ())
        .map_err(from_delta)
}

fn part_file(view: &LogicalFileView) -> Result<PartFile> {
    let broken = |what| Error::unfit(format!("its part {} has {what}", view.path()));
    let stats = view.stats();
    let month = match view.partition_values_map().remove(MONTH) {
        None => None,
        Some(value) => Some(
            value.and_then(|day| day.strip_suffix("-01")?.parse().ok()).ok_or_else(|| broken("no month"))?,
        ),
    };
    Ok(PartFile {
        path: view.path().into_owned(),
        size_bytes: u64::try_from(view.size()).map_err(|_| broken("no size"))?,
        rows: stats.as_deref().and_then(rows_of).ok_or_else(|| broken("no row count"))?,
        month,
        stats,
    })
}

pub(super) fn rows_of(stats: &str) -> Option<u64> {
    serde_json::from_str(stats).ok().map(|stats: Statistics| stats.rows)
}

/// Longer with every attempt, and never for two writers the same.
pub(super) async fn pause_before(attempt: u32) {
    if attempt > 0 {
        let half = 50 << attempt;
        let jitter = getrandom::u64().unwrap_or(0) % half;
        tokio::time::sleep(Duration::from_millis(half + jitter)).await;
    }
}

/// The library's kernel passes on the errors of the store as text. It is cut where it quotes,
/// which may be user data, where a URL's query begins, a secret, and where a backtrace begins.
pub(super) fn from_delta(error: DeltaTableError) -> Error {
    match error {
        DeltaTableError::ObjectStore { source } => source.into(),
        DeltaTableError::Io { source } => source.into(),
        other => {
            let text = other.to_string();
            let kind = match text.contains("interacting with object store") {
                true if is_refusal(&text) || text.contains("lacked") => Kind::Credentials,
                // A pipe, a device, or a file where a folder has to be.
                true if text.contains("Operation not supported") => Kind::Unfit,
                true => Kind::Temporary,
                false => Kind::Unfit,
            };
            let text = without_answer(&text);
            let plain = text.split(['"', '`', '\'', '?', '\n']).next().unwrap_or_default();
            Error::new(kind, format!("the table's log cannot be used: {plain}"))
        }
    }
}
