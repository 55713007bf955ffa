//! A store in memory that fails as a script says, and grows old as a test says.
//!
//! In: a script that gives each operation its fate, days that pass. Out: an object store.
//! Invariant: a create makes one object; an object is there whole or not at all, unless the script cuts
//! one short that a good store could not cut; what is late lands when the test says so.

use bytes::Bytes;
use futures::stream::{BoxStream, iter, once};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    List,
    Write,
    Delete,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Served,
    /// Nothing is done, and an error says so.
    Refused,
    /// It is done, and an error says otherwise.
    AnswerLost,
    /// An error now; a write is done later.
    Late,
    /// Half of a body is read or written; a listing lacks what is newest.
    Short,
    /// No answer comes until the client gives up.
    Hanging,
    /// Who asks may not; a create meets a name that is not there.
    Denied,
    /// It is served, once all that is late has landed.
    Landing,
}

pub const FAULTS: [Fate; 6] =
    [Fate::Refused, Fate::AnswerLost, Fate::Late, Fate::Short, Fate::Hanging, Fate::Denied];

/// Gives the operation with this number, from 0, its fate.
pub type Script = dyn Fn(usize, Operation, &str) -> Fate + Send + Sync;

/// How long nothing comes of an operation that hangs.
const HANGING: Duration = Duration::from_millis(2);

const DAY_MILLIS: i64 = 24 * 3600 * 1000;

/// A handle: all clones are one store.
#[derive(Clone)]
pub struct Faults(Arc<State>, Whose);

/// Whose operations meet their fate, and are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Program,
    Reader,
}

struct State {
    inner: InMemory,
    script: RwLock<Arc<Script>>,
    operations: AtomicUsize,
    late: Mutex<Vec<(Path, PutPayload, PutMode)>>,
    today: AtomicI64,
    /// How far the clock of the store is ahead.
    ahead_millis: AtomicI64,
    /// The day on which an object was written.
    written: Mutex<BTreeMap<Path, i64>>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store that fails")
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store that fails")
    }
}

fn unavailable(what: &'static str) -> Error {
    Error::Generic { store: "test", source: what.into() }
}

fn denied(location: Option<&Path>) -> Error {
    let path = location.map(Path::to_string).unwrap_or_default();
    Error::PermissionDenied { path, source: "403 Forbidden".into() }
}

impl Faults {
    pub fn new() -> Faults {
        Faults::over(InMemory::new(), 0, BTreeMap::new())
    }

    /// A copy, which goes its own way.
    pub fn fork(&self) -> Faults {
        let written = self.0.written.lock().unwrap().clone();
        Faults::over(self.0.inner.fork(), self.0.today.load(Ordering::SeqCst), written)
    }

    fn over(inner: InMemory, today: i64, written: BTreeMap<Path, i64>) -> Faults {
        let state = State {
            inner,
            script: RwLock::new(Arc::new(|_, _, _| Fate::Served)),
            operations: AtomicUsize::new(0),
            late: Mutex::default(),
            today: AtomicI64::new(today),
            ahead_millis: AtomicI64::new(0),
            written: Mutex::new(written),
        };
        Faults(Arc::new(state), Whose::Program)
    }

    /// The same store for a reader, whom no fault befalls.
    pub fn for_reading(&self) -> Faults {
        Faults(Arc::clone(&self.0), Whose::Reader)
    }

    /// From now on, operations are counted from 0 and meet what this says.
    pub fn obey(&self, script: impl Fn(usize, Operation, &str) -> Fate + Send + Sync + 'static) {
        self.0.operations.store(0, Ordering::SeqCst);
        *self.0.script.write().unwrap() = Arc::new(script);
    }

    /// From now on all is served. Out: how many operations there were.
    pub fn recover(&self) -> usize {
        let operations = self.0.operations.load(Ordering::SeqCst);
        self.obey(|_, _, _| Fate::Served);
        operations
    }

    /// What was late lands, in its order. Out: how much of it was still wanted.
    pub async fn land(&self) -> usize {
        let late = std::mem::take(&mut *self.0.late.lock().unwrap());
        let mut landed = 0;
        for (path, payload, mode) in late {
            landed += usize::from(self.write(&path, payload, mode).await.is_ok());
        }
        landed
    }

    /// All that is stored grows older.
    pub fn pass(&self, days: i64) {
        self.0.today.fetch_add(days, Ordering::SeqCst);
    }

    /// From now on the clock of the store is ahead of that of the machine.
    pub fn set_clock(&self, ahead: chrono::TimeDelta) {
        self.0.ahead_millis.store(ahead.num_milliseconds(), Ordering::SeqCst);
    }

    async fn fate(&self, operation: Operation, path: &str) -> Fate {
        if self.1 == Whose::Reader {
            return Fate::Served;
        }
        let script = Arc::clone(&self.0.script.read().unwrap());
        match script(self.0.operations.fetch_add(1, Ordering::SeqCst), operation, path) {
            Fate::Landing => {
                self.land().await;
                Fate::Served
            }
            fate => fate,
        }
    }

    pub async fn write(&self, path: &Path, payload: PutPayload, mode: PutMode) -> Result<PutResult> {
        let put = self.0.inner.put_opts(path, payload, mode.into()).await?;
        self.0.written.lock().unwrap().insert(path.clone(), self.0.today.load(Ordering::SeqCst));
        Ok(put)
    }

    fn age_millis(&self, path: &Path) -> i64 {
        let written = self.0.written.lock().unwrap().get(path).copied().unwrap_or(0);
        (self.0.today.load(Ordering::SeqCst) - written) * DAY_MILLIS
    }

    fn aged(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let ahead_millis = self.0.ahead_millis.load(Ordering::SeqCst);
        meta.last_modified += chrono::TimeDelta::milliseconds(ahead_millis - self.age_millis(&meta.location));
        meta
    }

    /// A commit says when it was made; it grows old like the object that it is.
    fn aged_body(&self, path: &Path, body: Bytes) -> Bytes {
        const KEY: &str = "\"timestamp\":";
        let is_commit = path.as_ref().contains("/_delta_log/") && path.as_ref().ends_with(".json");
        let age = self.age_millis(path);
        if !is_commit || age == 0 {
            return body;
        }
        let text = std::str::from_utf8(&body).unwrap();
        let Some(start) = text.find(KEY).map(|at| at + KEY.len()) else { return body };
        let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
        let millis: i64 = text[start..start + digits].parse().unwrap();
        let aged = format!("{}{}{}", &text[..start], millis - age, &text[start + digits..]);
        assert_eq!(aged.len(), text.len(), "a commit keeps its length");
        aged.into()
    }

    /// Whether a listing is served; whether it lacks what is newest.
    async fn may_list(&self, prefix: Option<&Path>) -> Result<bool> {
        let path = prefix.map(Path::to_string).unwrap_or_default();
        match self.fate(Operation::List, &path).await {
            Fate::Served => Ok(false),
            // A log that is not listed is one that comes a night later: no fault.
            Fate::Short if path.ends_with("_delta_log") => Ok(true),
            Fate::Hanging => {
                tokio::time::sleep(HANGING).await;
                Err(unavailable("operation timed out"))
            }
            Fate::Denied => Err(denied(prefix)),
            _ => Err(unavailable("503 Slow Down")),
        }
    }

    async fn listed(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let lacks_newest = self.may_list(prefix.as_ref()).await?;
        let mut listed: Vec<ObjectMeta> = self.0.inner.list(prefix.as_ref()).try_collect().await?;
        listed.sort_by(|a, b| a.location.cmp(&b.location));
        if lacks_newest {
            let newest = listed.iter().rposition(|meta| meta.location.as_ref().ends_with(".json"));
            newest.map(|newest| listed.remove(newest));
        }
        Ok(listed.into_iter().map(|meta| self.aged(meta)).collect())
    }

    async fn delete_one(&self, path: Path) -> Result<Path> {
        match self.fate(Operation::Delete, path.as_ref()).await {
            Fate::Served => self.0.inner.delete(&path).await.map(|()| path),
            Fate::AnswerLost | Fate::Late => {
                self.0.inner.delete(&path).await?;
                Err(unavailable("connection reset"))
            }
            Fate::Denied => Err(denied(Some(&path))),
            _ => Err(unavailable("503 Slow Down")),
        }
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faults {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match self.fate(Operation::Write, location.as_ref()).await {
            Fate::Served => self.write(location, payload, options.mode).await,
            Fate::AnswerLost => {
                self.write(location, payload, options.mode).await?;
                Err(unavailable("connection reset"))
            }
            Fate::Late => {
                self.0.late.lock().unwrap().push((location.clone(), payload, options.mode));
                Err(unavailable("operation timed out"))
            }
            // No store has ever shown half of a commit: its put is one.
            Fate::Short if !location.as_ref().contains("_delta_log") => {
                let whole: Bytes = payload.into();
                let half = whole.slice(..whole.len() / 2);
                self.write(location, half.into(), options.mode).await
            }
            Fate::Hanging => {
                tokio::time::sleep(HANGING).await;
                Err(unavailable("operation timed out"))
            }
            Fate::Denied if options.mode == PutMode::Create => {
                Err(Error::AlreadyExists { path: location.to_string(), source: "409 Conflict".into() })
            }
            Fate::Denied => Err(denied(Some(location))),
            _ => Err(unavailable("503 Slow Down")),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.fate(Operation::Write, location.as_ref()).await {
            Fate::Served => self.0.inner.put_multipart_opts(location, options).await,
            _ => Err(unavailable("503 Slow Down")),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fate = self.fate(Operation::Read, location.as_ref()).await;
        match fate {
            Fate::Served | Fate::Short => {}
            Fate::Hanging => {
                tokio::time::sleep(HANGING).await;
                return Err(unavailable("operation timed out"));
            }
            Fate::Denied => return Err(denied(Some(location))),
            _ => return Err(unavailable("503 Slow Down")),
        }
        let is_head = options.head;
        let mut got = self.0.inner.get_opts(location, options).await?;
        got.meta = self.aged(got.meta);
        if is_head {
            return Ok(got);
        }
        let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let mut body = self.aged_body(location, got.bytes().await?);
        if fate == Fate::Short {
            body = body.slice(..body.len() / 2);
        }
        // In pieces, as networks do.
        let cut = body.len() / 3;
        let pieces = [body.slice(..cut), Bytes::new(), body.slice(cut..)].map(Ok);
        let payload = GetResultPayload::Stream(iter(pieces).boxed());
        Ok(GetResult { payload, meta, range, attributes })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let faults = self.clone();
        let delete = move |path: Result<Path>| {
            let faults = faults.clone();
            async move { faults.delete_one(path?).await }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (faults, prefix) = (self.clone(), prefix.cloned());
        let listed = once(async move { faults.listed(prefix).await });
        listed.map_ok(|listed| iter(listed.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.may_list(prefix).await?;
        self.0.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        panic!("nothing is ever copied");
    }
}
