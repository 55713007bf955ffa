//! The next version of a table, made by one put.
//!
//! In: a table at a version, the parts that a run wrote, those that they replace, who it is.
//! Out: the next version, or the news that another run took it.
//! Invariant: a commit is one create-only put of one body that never changes. Whose commit it
//! became is read back from the log, never guessed from an error, and nothing is deleted.

use super::deliveries::SETTLED;
use super::lake::APPLICATION;
use super::table::{ATTEMPTS, MONTH, RUN_ID, Table, from_delta, log_store, pause_before, rows_of};
use crate::error::{Error, Kind, Result, talk};
use crate::input::published::PartFile;
use crate::planted::Bug;
use bytes::Bytes;
use chrono::Utc;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Add, Remove, Transaction};
use deltalake_core::logstore::{CommitOrBytes, commit_uri_from_version};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::path::Path;
use object_store::{ObjectStore, PutMode};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a commit says about the run that made it.
#[derive(Clone, Debug)]
pub struct CommitInfo {
    /// New for every attempt of every run: the only proof of whose commit one is.
    pub run_id: String,
    /// Application and its version become the commit's `txn` action; the version must rise.
    pub application: String,
    pub application_version: i64,
    /// Manifest path, checksum and the like. Delta's own keys (`operation`, …) are dropped.
    pub metadata: BTreeMap<String, String>,
}

impl CommitInfo {
    /// Of a run that replaces what a job has published before.
    pub fn of_job(run_id: &str, table: &Table) -> CommitInfo {
        CommitInfo {
            run_id: run_id.to_string(),
            application: APPLICATION.to_string(),
            application_version: table.version() as i64 + 1,
            metadata: BTreeMap::new(),
        }
    }

    /// Whether the application counts the versions of the table that it commits to. Deliveries count those
    /// of `monthly_spending`, or the parts of a run.
    fn counts_own_versions(&self) -> bool {
        !self.application.starts_with(SETTLED)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed {
        version: u64,
    },
    /// Another run took the version of the table, or had taken that of the application before:
    /// nothing of this one was published.
    Lost {
        winner: Option<String>,
    },
}

impl Table {
    /// Makes the next version: this one without `remove` and with `add`. An error of the kind
    /// [`Kind::OutcomeUnknown`] means that it may still come to be; any other, that it did not.
    pub async fn commit(&self, add: &[PartFile], remove: &[PartFile], info: &CommitInfo) -> Result<Outcome> {
        // Delta records the version of an application and leaves the check to its writers.
        let done = self.application_version(&info.application).await?;
        match done.filter(|done| *done >= info.application_version) {
            None => {}
            // None can be ahead of the table.
            Some(done)
                if info.counts_own_versions() && info.application_version - 1 == self.version() as i64 =>
            {
                return Err(self.impossible(&info.application, done));
            }
            Some(_) => return Ok(Outcome::Lost { winner: None }),
        }
        self.expect_writable()?;
        self.check_parts(add, remove).map_err(|e| e.at(&self.name))?;
        let body = self.commit_body(add, remove, info).await?;
        let intended = self.intended(add, remove)?;
        let bytes = body.len() as u64;
        self.hold(bytes, Some(body.clone()), &intended).await?;
        let outcome = self.publish(body, &info.run_id).await?;
        if let Outcome::Committed { version } = outcome {
            self.hold_published(version, bytes, &intended).await?;
        }
        Ok(outcome)
    }

    /// The paths of the next version, sorted.
    fn intended(&self, add: &[PartFile], remove: &[PartFile]) -> Result<Vec<String>> {
        let removed: BTreeSet<&str> = remove.iter().map(|part| part.path.as_str()).collect();
        let kept = self.files()?.into_iter().map(|part| part.path);
        let kept = kept.filter(|path| !removed.contains(path.as_str()));
        let mut intended: Vec<String> = kept.chain(add.iter().map(|part| part.path.clone())).collect();
        intended.sort();
        Ok(intended)
    }

    /// Holds the files of the next version to what is intended, as a reader will see them: a `remove`
    /// counts for a part only if it names it as its `add` did. Errors before anything was sent.
    async fn hold(&self, bytes: u64, body: Option<Bytes>, intended: &[String]) -> Result<()> {
        if Bug::CommitNotHeld.is_planted() {
            return Ok(());
        }
        match self.with_commit(bytes, body).await? == intended {
            true => Ok(()),
            false => {
                let what = "a part of it is listed in a form that cannot be replaced; nothing was published";
                let error = Error::unfit(what).at(&self.name);
                Err(error.advise("have the program that wrote the part write it again, or restore the table"))
            }
        }
    }

    /// Reads the commit back and holds what it comes to. It stands, whatever this finds: a store that
    /// does not answer now has acknowledged a body that was held before.
    async fn hold_published(&self, version: u64, bytes: u64, intended: &[String]) -> Result<()> {
        if Bug::CommitNotHeld.is_planted() {
            return Ok(());
        }
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            pause_before(attempt).await;
            match self.with_commit(bytes, None).await {
                Ok(found) if found == intended => return Ok(()),
                Ok(_) => {
                    let what = format!("version {version} is published and lists other parts than it should");
                    let error = Error::new(Kind::Invariant, what).at(&self.name);
                    return Err(error.advise("publish nothing more; see `pennymill audit`"));
                }
                Err(error) => last = error.to_string(),
            }
        }
        talk(format_args!("pennymill: version {version} of {} was not read back: {last}", self.name));
        Ok(())
    }

    /// The paths of the next version, sorted, if this is its commit, or by the commit that the store has.
    async fn with_commit(&self, bytes: u64, body: Option<Bytes>) -> Result<Vec<String>> {
        let version = self.version() + 1;
        let at = |e| from_delta(e).at(&self.name);
        let view = Arc::new(self.view.with_commit(&format!("{version:020}.json"), bytes, body));
        let seen: Arc<dyn ObjectStore> = view.clone();
        let log = log_store(&seen, &self.name)?;
        let mut state = self.state.clone();
        if let Err(error) = state.update(log.as_ref(), Some(version)).await {
            return Err(view.refused().map_or_else(|| at(error), |what| Error::unfit(what).at(&self.name)));
        }
        let files = state.snapshot().try_log_data().map_err(at)?;
        let mut paths: Vec<String> = files.iter().map(|file| file.path().into_owned()).collect();
        paths.sort();
        Ok(paths)
    }

    /// Sends the commit and finds out what came of it.
    async fn publish(&self, body: Bytes, run_id: &str) -> Result<Outcome> {
        let version = self.version() + 1;
        let path = commit_uri_from_version(Some(version));
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            pause_before(attempt).await;
            let put = self.store.put_opts(&path, body.clone().into(), PutMode::Create.into());
            let Err(error) = put.await else {
                return Ok(Outcome::Committed { version });
            };
            // The put may have landed all the same, and `AlreadyExists` may speak of our own.
            let error = Error::from(error);
            if Bug::CommitAnswerBelieved.is_planted() {
                return Err(error.at(&self.name));
            }
            match self.commit_metadata(version).await {
                // It has its name, and may lose it with the power: another put syncs it, or fails.
                Ok(Some(found))
                    if error.kind == Kind::CannotWrite
                        && found.get(RUN_ID).is_some_and(|found| found == run_id) =>
                {
                    last = error.to_string();
                }
                Ok(Some(found)) => {
                    let winner = found.get(RUN_ID).cloned();
                    let is_ours = winner.as_deref() == Some(run_id) || Bug::AnyCommitIsOurs.is_planted();
                    return Ok(match is_ours {
                        true => Outcome::Committed { version },
                        false => Outcome::Lost { winner },
                    });
                }
                // Refused for good (a full disk, no permission) before anything was in doubt.
                Ok(None) if attempt == 0 && error.kind != Kind::Temporary => {
                    return Err(error.at(&self.name));
                }
                Ok(None) | Err(_) => last = error.to_string(),
            }
        }
        if Bug::UnknownIsSuccess.is_planted() {
            return Ok(Outcome::Committed { version });
        }
        let what = format!("commit {version} may or may not have landed: {last}");
        Err(Error::new(Kind::OutcomeUnknown, what).at(&self.name))
            .map_err(|e| e.advise("run again: the next run finds out and counts nothing twice"))
    }

    /// The commit as the library writes it. The put is ours: the library's own would re-number
    /// the commit, would take an answer that was lost for a rival's, and may clean up the log.
    async fn commit_body(&self, add: &[PartFile], remove: &[PartFile], info: &CommitInfo) -> Result<Bytes> {
        let now = Utc::now().timestamp_millis();
        let removed = remove.iter().map(|part| removal(part, now));
        let added = add.iter().map(|part| addition(part, now));
        let actions = removed.chain(added).collect::<Result<Vec<_>>>()?;
        let mut metadata = info.metadata.clone();
        metadata.insert(RUN_ID.into(), info.run_id.clone());
        let properties = CommitProperties::default()
            .with_application_transaction(Transaction::new(&info.application, info.application_version))
            .with_metadata(metadata.into_iter().map(|(key, value)| (key, Value::String(value))));
        let operation = DeltaOperation::Write {
            mode: if remove.is_empty() { SaveMode::Append } else { SaveMode::Overwrite },
            partition_by: Some(self.state.metadata().partition_columns().to_vec()),
            predicate: None,
        };
        let prepared = CommitBuilder::from(properties)
            .with_actions(actions)
            // Without the table: what it demands was looked at, and the library writes to fewer.
            .build(None, self.delta.log_store(), operation)
            .into_prepared_commit_future()
            .await
            .map_err(|e| from_delta(e).at(&self.name))?;
        match prepared.commit_or_bytes() {
            CommitOrBytes::LogBytes(body) => Ok(body.clone()),
            CommitOrBytes::TmpCommit(_) => Err(Error::invariant("the commit is not in memory")),
        }
    }

    /// A part that is removed without being there, or added twice, is money counted twice.
    fn check_parts(&self, add: &[PartFile], remove: &[PartFile]) -> Result<()> {
        let partitioned = !self.state.metadata().partition_columns().is_empty();
        let files = self.files()?;
        let mut present: BTreeSet<&str> = files.iter().map(|part| part.path.as_str()).collect();
        for part in remove {
            if !present.remove(part.path.as_str()) {
                return Err(Error::invariant("a part to be removed is not in the table"));
            }
        }
        // Not even a removed path may come back: names are used once.
        present.extend(files.iter().map(|part| part.path.as_str()));
        for part in add {
            if !present.insert(&part.path) {
                return Err(Error::invariant("a part to be added is in the table already"));
            }
            if part.month.is_some() != partitioned {
                return Err(Error::invariant("a part does not fit the table's partitions"));
            }
            if Path::parse(&part.path).is_ok_and(|path| path.as_ref() == part.path) {
                continue;
            }
            return Err(Error::invariant("a part's path is not relative and plain"));
        }
        Ok(())
    }
}

fn addition(part: &PartFile, now: i64) -> Result<Action> {
    let stats = match &part.stats {
        Some(stats) => stats.clone(),
        None => format!(r#"{{"numRecords":{}}}"#, part.rows),
    };
    if rows_of(&stats) != Some(part.rows) {
        return Err(Error::invariant("the statistics of a part miss its row count"));
    }
    Ok(Action::Add(Add {
        path: part.path.clone(),
        partition_values: partition_values(part),
        size: signed(part.size_bytes)?,
        modification_time: now,
        data_change: true,
        stats: Some(stats),
        ..Add::default()
    }))
}

fn removal(part: &PartFile, now: i64) -> Result<Action> {
    Ok(Action::Remove(Remove {
        path: part.path.clone(),
        data_change: true,
        deletion_timestamp: Some(now),
        extended_file_metadata: Some(true),
        partition_values: Some(partition_values(part)),
        size: Some(signed(part.size_bytes)?),
        ..Remove::default()
    }))
}

fn partition_values(part: &PartFile) -> HashMap<String, Option<String>> {
    part.month.iter().map(|month| (MONTH.into(), Some(format!("{month}-01")))).collect()
}

fn signed(bytes: u64) -> Result<i64> {
    i64::try_from(bytes).map_err(|_| Error::invariant("a part is larger than any file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use arrow::datatypes::{DataType, Field, Schema};
    use futures::stream::BoxStream;
    use object_store::ObjectStoreExt;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
        PutOptions, PutPayload, PutResult, Result as StoreResult,
    };

    const TABLE: &str = "monthly_spending";

    /// Commits between two checkpoints.
    const EVERY: u64 = 20;

    struct Lake {
        store: Arc<dyn ObjectStore>,
        _directory: Option<tempfile::TempDir>,
    }

    impl Lake {
        fn in_memory() -> Lake {
            let store = Arc::new(InMemory::new());
            Lake { store, _directory: None }
        }

        fn local() -> Lake {
            let directory = tempfile::tempdir().unwrap();
            let store = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
            Lake { store, _directory: Some(directory) }
        }

        fn with_fault(&self, fault: Fault) -> Lake {
            let store = Arc::new(Faulty { inner: Arc::clone(&self.store), fault });
            Lake { store, _directory: None }
        }

        async fn create(&self) -> Table {
            Table::open_or_create(&self.store, TABLE, &schema(), &[MONTH]).await.unwrap()
        }

        async fn open(&self) -> Table {
            Table::open(&self.store, TABLE).await.unwrap().unwrap()
        }
    }

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("user_id", DataType::Int64, false),
            Field::new("category", DataType::Utf8, false),
            Field::new(MONTH, DataType::Date32, false),
            Field::new("spending", DataType::Decimal128(18, 2), false),
        ])
    }

    fn part(name: &str, month: &str, rows: u64) -> PartFile {
        let stats = format!(
            r#"{{"numRecords":{rows},"minValues":{{"user_id":-7,"category":"a'b","spending":-0.01}},"maxValues":{{"user_id":9007199254740993,"category":"z","spending":9999999999999999.99}},"nullCount":{{"user_id":0,"category":0,"spending":0}}}}"#
        );
        PartFile {
            path: format!("month={month}-01/part-{name}.parquet"),
            size_bytes: 1000 + rows,
            rows,
            month: Some(month.parse().unwrap()),
            stats: Some(stats),
        }
    }

    fn run(run_id: &str, application_version: i64) -> CommitInfo {
        CommitInfo {
            run_id: run_id.into(),
            application: "pennymill".into(),
            application_version,
            metadata: BTreeMap::from([("manifest".into(), format!("_runs/{run_id}/manifest.json"))]),
        }
    }

    fn committed(version: u64) -> Outcome {
        Outcome::Committed { version }
    }

    fn lost_to(run_id: &str) -> Outcome {
        Outcome::Lost { winner: Some(run_id.into()) }
    }

    /// What happens to the put of version 1, or to reads.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fault {
        AnswerLost,
        OwnPutAlreadyExists,
        NeverLands,
        Denied,
        ReadsDenied,
        ReadsTimeOut,
        LandsWithoutParts,
    }

    #[derive(Debug)]
    struct Faulty {
        inner: Arc<dyn ObjectStore>,
        fault: Fault,
    }

    fn unavailable() -> object_store::Error {
        object_store::Error::Generic { store: "test", source: "503 Slow Down".into() }
    }

    fn denied(location: &Path) -> object_store::Error {
        object_store::Error::PermissionDenied { path: location.to_string(), source: "403".into() }
    }

    /// A commit whose parts got lost on the way.
    fn without_parts(payload: PutPayload) -> PutPayload {
        let body = String::from_utf8(Bytes::from(payload).to_vec()).unwrap();
        let kept = body.lines().filter(|line| !line.starts_with("{\"add\""));
        Bytes::from(kept.map(|line| format!("{line}\n")).collect::<String>()).into()
    }

    impl std::fmt::Display for Faulty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Faulty({:?})", self.fault)
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Faulty {
        async fn put_opts(
            &self,
            location: &Path,
            payload: PutPayload,
            options: PutOptions,
        ) -> StoreResult<PutResult> {
            let is_commit = location.as_ref().ends_with("00000000000000000001.json");
            let payload = match self.fault {
                Fault::LandsWithoutParts if is_commit => without_parts(payload),
                _ => payload,
            };
            let put = self.inner.put_opts(location, payload, options);
            if !is_commit {
                return put.await;
            }
            match self.fault {
                Fault::AnswerLost => put.await.and(Err(unavailable())),
                Fault::OwnPutAlreadyExists => put.await.and(Err(object_store::Error::AlreadyExists {
                    path: location.to_string(),
                    source: "412".into(),
                })),
                Fault::NeverLands => Err(unavailable()),
                Fault::Denied => Err(denied(location)),
                Fault::ReadsDenied | Fault::ReadsTimeOut | Fault::LandsWithoutParts => put.await,
            }
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: PutMultipartOptions,
        ) -> StoreResult<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(location, options).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
            match self.fault {
                Fault::ReadsDenied => Err(denied(location)),
                Fault::ReadsTimeOut if location.as_ref().ends_with(".json") => Err(unavailable()),
                _ => self.inner.get_opts(location, options).await,
            }
        }

        fn delete_stream(
            &self,
            _: BoxStream<'static, StoreResult<Path>>,
        ) -> BoxStream<'static, StoreResult<Path>> {
            panic!("nothing is ever deleted");
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    #[tokio::test]
    async fn a_table_is_created_once_and_keeps_its_columns() {
        for lake in [Lake::in_memory(), Lake::local()] {
            assert!(Table::open(&lake.store, TABLE).await.unwrap().is_none());
            let table = lake.create().await;
            assert_eq!((table.version(), table.files().unwrap()), (0, vec![]));
            assert_eq!(table.schema().as_ref(), &schema());
            assert_eq!(lake.create().await.version(), 0);
            let narrow = Schema::new(vec![schema().field(0).clone()]);
            let refused = Table::open_or_create(&lake.store, TABLE, &narrow, &[]).await;
            assert_eq!(refused.err().unwrap().kind, Kind::Unfit);
            let plain = Table::open_or_create(&lake.store, "budget_alerts", &narrow, &[]).await;
            let alert = PartFile { path: "a.parquet".into(), month: None, ..part("a", "2025-01", 1) };
            let plain = plain.unwrap();
            assert_eq!(plain.commit(&[alert], &[], &run("one", 1)).await.unwrap(), committed(1));
            let plain = Table::open(&lake.store, "budget_alerts").await.unwrap().unwrap();
            assert_eq!(plain.files().unwrap()[0].month, None);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn creators_at_the_same_time_share_one_table() {
        for lake in [Lake::in_memory(), Lake::local()] {
            let lake = Arc::new(lake);
            let creators = (0..8).map(|_| {
                let lake = Arc::clone(&lake);
                tokio::spawn(async move { lake.create().await.state.metadata().id().to_string() })
            });
            let ids = futures::future::join_all(creators.collect::<Vec<_>>()).await;
            let ids: BTreeSet<String> = ids.into_iter().map(|id| id.unwrap()).collect();
            assert_eq!((ids.len(), lake.open().await.version()), (1, 0));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn commits_add_replace_and_stay_readable() {
        for lake in [Lake::in_memory(), Lake::local()] {
            let (old, other) = (part("0-one", "2025-01", 3), part("0-one", "2025-02", 4));
            let table = lake.create().await;
            let both = [other.clone(), old.clone()];
            assert_eq!(table.commit(&both, &[], &run("one", 10)).await.unwrap(), committed(1));
            assert_eq!(table.files().unwrap(), vec![]);
            let table = lake.open().await;
            assert_eq!(table.files().unwrap(), [old.clone(), other.clone()]);

            let new = PartFile { stats: None, ..part("0-two", "2025-01", 5) };
            let replaced = table.commit(&[new], std::slice::from_ref(&old), &run("two", 11)).await;
            assert_eq!(replaced.unwrap(), committed(2));
            let table = lake.open().await;
            let counted =
                PartFile { stats: Some(r#"{"numRecords":5}"#.into()), ..part("0-two", "2025-01", 5) };
            assert_eq!(table.files().unwrap(), [counted, other.clone()]);

            let before = Table::open_at(&lake.store, TABLE, 1).await.unwrap().unwrap();
            assert_eq!((before.version(), before.files().unwrap()), (1, vec![old, other]));
            assert!(Table::open_at(&lake.store, TABLE, 3).await.unwrap().is_none());
            assert_eq!(before.application_version("pennymill").await.unwrap(), Some(10));
            assert_eq!(table.application_version("pennymill").await.unwrap(), Some(11));
            assert_eq!(table.application_version("another").await.unwrap(), None);

            let said = table.commit_metadata(2).await.unwrap().unwrap();
            assert_eq!((said[RUN_ID].as_str(), said["operation"].as_str()), ("two", "WRITE"));
            assert_eq!(said["manifest"], "_runs/two/manifest.json");
            assert_eq!(table.commit_metadata(3).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn of_two_writers_one_commits_and_the_other_learns_who_did() {
        for lake in [Lake::in_memory(), Lake::local()] {
            let (first, second) = (lake.create().await, lake.create().await);
            let one = first.commit(&[part("one", "2025-01", 1)], &[], &run("one", 1)).await;
            let two = second.commit(&[part("two", "2025-01", 1)], &[], &run("two", 1)).await;
            assert_eq!((one.unwrap(), two.unwrap()), (committed(1), lost_to("one")));
            assert_eq!(lake.open().await.files().unwrap(), [part("one", "2025-01", 1)]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_writers_at_the_same_time_one_commits() {
        for lake in [Lake::in_memory(), Lake::local()] {
            let table = lake.create().await;
            let writers = (0..8).map(|writer| {
                let table = table.clone();
                tokio::spawn(async move {
                    let name = format!("run-{writer}");
                    table.commit(&[part(&name, "2025-01", 1)], &[], &run(&name, 1)).await.unwrap()
                })
            });
            let outcomes = futures::future::join_all(writers.collect::<Vec<_>>()).await;
            let outcomes: Vec<Outcome> = outcomes.into_iter().map(|o| o.unwrap()).collect();
            let winner = table.commit_metadata(1).await.unwrap().unwrap()[RUN_ID].clone();
            let count = |wanted: &Outcome| outcomes.iter().filter(|o| *o == wanted).count();
            assert_eq!((count(&committed(1)), count(&lost_to(&winner))), (1, 7));
            assert_eq!(lake.open().await.files().unwrap(), [part(&winner, "2025-01", 1)]);
        }
    }

    #[tokio::test]
    async fn an_answer_that_was_lost_is_found_in_the_log() {
        for fault in [Fault::AnswerLost, Fault::OwnPutAlreadyExists] {
            for lake in [Lake::in_memory(), Lake::local()] {
                let faulty = lake.with_fault(fault);
                let (first, second) = (faulty.create().await, faulty.create().await);
                let parts = [part("one", "2025-01", 1)];
                assert_eq!(first.commit(&parts, &[], &run("one", 1)).await.unwrap(), committed(1));
                // The same run again, as if it had not read the answer; then a rival.
                assert_eq!(second.commit(&parts, &[], &run("one", 1)).await.unwrap(), committed(1));
                assert_eq!(second.commit(&parts, &[], &run("two", 1)).await.unwrap(), lost_to("one"));
                assert_eq!(lake.open().await.files().unwrap(), parts);
            }
        }
    }

    #[tokio::test]
    async fn a_put_that_never_lands_is_unknown_and_one_that_is_denied_is_not() {
        let lake = Lake::in_memory();
        lake.create().await;
        for (fault, kind) in [(Fault::NeverLands, Kind::OutcomeUnknown), (Fault::Denied, Kind::Credentials)] {
            let table = lake.with_fault(fault).open().await;
            let refused = table.commit(&[part("one", "2025-01", 1)], &[], &run("one", 1)).await;
            assert_eq!(refused.unwrap_err().kind, kind);
            assert_eq!(lake.open().await.version(), 0);
        }
    }

    #[tokio::test]
    async fn what_a_commit_comes_to_is_read_back() {
        let lake = Lake::in_memory();
        lake.create().await;
        let table = lake.with_fault(Fault::LandsWithoutParts).open().await;
        let error = table.commit(&[part("one", "2025-01", 1)], &[], &run("one", 1)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invariant);
        assert!(error.to_string().contains("version 1 is published and lists other parts"), "{error}");
    }

    #[tokio::test]
    async fn reads_that_fail_say_what_to_do() {
        let lake = Lake::in_memory();
        lake.create().await;
        for (fault, kind) in [(Fault::ReadsDenied, Kind::Credentials), (Fault::ReadsTimeOut, Kind::Temporary)]
        {
            let faulty = lake.with_fault(fault);
            let error = Table::open(&faulty.store, TABLE).await.err().unwrap();
            assert_eq!(error.kind, kind, "{error}");
        }
        let commit = Path::from("monthly_spending/_delta_log/00000000000000000001.json");
        lake.store.put(&commit, "{\"add\":{\"path\":\"secret\"".into()).await.unwrap();
        let error = Table::open(&lake.store, TABLE).await.err().unwrap();
        assert_eq!(error.kind, Kind::Unfit);
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn parts_that_would_count_money_twice_are_refused() {
        let lake = Lake::in_memory();
        let (one, two) = (part("one", "2025-01", 1), part("two", "2025-01", 2));
        let (first, second) = (std::slice::from_ref(&one), std::slice::from_ref(&two));
        lake.create().await.commit(first, &[], &run("one", 1)).await.unwrap();
        let table = lake.open().await;
        let miscounted = PartFile { rows: 3, ..two.clone() };
        let unpartitioned = PartFile { month: None, ..two.clone() };
        let outside = PartFile { path: "../two.parquet".into(), ..two.clone() };
        let cases: [(&[PartFile], &[PartFile]); 8] = [
            (first, &[]),
            (first, first),
            (&[], second),
            (&[], &[one.clone(), one.clone()]),
            (&[two.clone(), two.clone()], &[]),
            (&[miscounted], &[]),
            (&[unpartitioned], &[]),
            (&[outside], &[]),
        ];
        for (add, remove) in cases {
            let refused = table.commit(add, remove, &run("two", 2)).await;
            assert_eq!(refused.unwrap_err().kind, Kind::Invariant);
        }
        // The work of an application's version is done once, whoever does it.
        let again = table.commit(second, &[], &run("two", 1)).await.unwrap();
        assert_eq!(again, Outcome::Lost { winner: None });
        assert_eq!(lake.open().await.version(), 1);
        // One that counts something else may be ahead of the table, and its work is done all the same.
        for (application, is_lost) in [(SETTLED, true), ("pennymill", false)] {
            let of = |version| CommitInfo { application: application.into(), ..run("two", version) };
            let table = lake.open().await;
            let next = table.version() as i64 + 2;
            table.commit(&[], &[], &of(next)).await.unwrap();
            let again = lake.open().await.commit(&[], &[], &of(next)).await;
            assert_eq!(again.ok(), is_lost.then_some(Outcome::Lost { winner: None }), "{application}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn checkpoints_repeat_the_log_and_delete_nothing() {
        for lake in [Lake::in_memory(), Lake::local()] {
            lake.create().await;
            let mut previous: Vec<PartFile> = vec![];
            for version in 1..=EVERY as i64 + 1 {
                let table = lake.open().await;
                let due = version == EVERY as i64 + 1;
                assert_eq!(table.checkpoint_when_due().await.unwrap(), due);
                let new = vec![part(&version.to_string(), "2025-01", version as u64)];
                table.commit(&new, &previous, &run(&version.to_string(), version)).await.unwrap();
                previous = new;
            }
            let table = lake.open().await;
            assert!(!table.checkpoint_when_due().await.unwrap());
            assert_eq!(table.files().unwrap(), previous);
            let at = Table::open_at(&lake.store, TABLE, EVERY).await.unwrap();
            let at = at.unwrap();
            let twenty = part("20", "2025-01", 20);
            assert_eq!(at.files().unwrap(), std::slice::from_ref(&twenty));
            assert_eq!(at.application_version("pennymill").await.unwrap(), Some(20));
            assert_eq!(table.commit_metadata(1).await.unwrap().unwrap()[RUN_ID], "1");
        }
    }

    #[tokio::test]
    async fn a_table_that_may_not_be_written_gets_no_checkpoint() {
        let lake = Lake::in_memory();
        lake.create().await;
        for version in 1..=EVERY as i64 {
            lake.open().await.commit(&[], &[], &run(&version.to_string(), version)).await.unwrap();
        }
        let first = Path::from("monthly_spending/_delta_log/00000000000000000000.json");
        let first = lake.store.get(&first).await.unwrap().bytes().await.unwrap();
        let line =
            first.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"{\"metaData\"")).unwrap();
        let mut line: Value = serde_json::from_slice(line).unwrap();
        line["metaData"]["configuration"]["delta.enableChangeDataFeed"] = "true".into();
        let next = Path::from(format!("monthly_spending/_delta_log/{:020}.json", EVERY + 1));
        lake.store.put(&next, line.to_string().into()).await.unwrap();
        assert!(!lake.open().await.checkpoint_when_due().await.unwrap());
        lake.store.delete(&next).await.unwrap();
        assert!(lake.open().await.checkpoint_when_due().await.unwrap());
    }
}
