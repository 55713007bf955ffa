//! The store as the library sees it: the files of one version of a table's log, each looked at first.
//!
//! In: a lake, the files that make up a version. Out: their bodies, from memory after the first time.
//! Invariant: the library lists what was chosen and nothing else, no hint among it; a body that breaks a
//! bound never reaches its parsers.

use super::bodies::check_json;
use super::checkpoints::check_parquet;
use super::{Segment, folder};
use crate::output::features::{Demands, Noted, Versions};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest file of a log: a checkpoint of millions of parts.
pub(in crate::output) const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
pub(in crate::output) const TOO_LARGE: &str = "it is larger than any writer's";

/// A lake with the log of one table as of one version.
#[derive(Debug)]
pub(in crate::output) struct LogView {
    lake: Arc<dyn ObjectStore>,
    /// `<table>/_delta_log`.
    folder: Path,
    files: Vec<ObjectMeta>,
    bodies: Mutex<BTreeMap<Path, Bytes>>,
    /// The first body that broke a bound.
    refused: Mutex<Option<String>>,
}

impl LogView {
    pub fn new(lake: &Arc<dyn ObjectStore>, table: &str, segment: &Segment) -> LogView {
        LogView {
            lake: Arc::clone(lake),
            folder: folder(table),
            files: segment.files.clone(),
            bodies: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// The same with one commit more, whose body is this one, or what the store has.
    pub fn with_commit(&self, name: &str, bytes: u64, body: Option<Bytes>) -> LogView {
        let location = self.folder.clone().join(name);
        let last_modified = chrono::Utc::now();
        let meta =
            ObjectMeta { location: location.clone(), last_modified, size: bytes, e_tag: None, version: None };
        let mut bodies = lock(&self.bodies).clone();
        bodies.extend(body.map(|body| (location, body)));
        LogView {
            lake: Arc::clone(&self.lake),
            folder: self.folder.clone(),
            files: self.files.iter().cloned().chain([meta]).collect(),
            bodies: Mutex::new(bodies),
            refused: Mutex::default(),
        }
    }

    /// What is wrong with the log, where a body of it was refused.
    pub fn refused(&self) -> Option<String> {
        lock(&self.refused).clone()
    }

    /// What the commits read so far demand of readers, for a log that the library does not take.
    pub fn demands(&self) -> Demands {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Line {
            protocol: Option<Versions>,
            meta_data: Option<Noted>,
        }
        let (mut protocol, mut metadata) = (Versions::default(), Noted::default());
        let bodies = lock(&self.bodies);
        let commits = bodies.iter().filter(|(location, _)| location.extension() == Some("json"));
        for line in commits.flat_map(|(_, body)| body.split(|&byte| byte == b'\n')) {
            let line: Line = serde_json::from_slice(line).unwrap_or_default();
            protocol = line.protocol.unwrap_or(protocol);
            metadata = line.meta_data.unwrap_or(metadata);
        }
        let mut demands = Demands::of_protocol(protocol);
        demands.add_metadata(&metadata);
        demands
    }

    /// The whole body of a file of the log.
    async fn body(&self, location: &Path) -> Result<Bytes> {
        if let Some(body) = lock(&self.bodies).get(location) {
            return Ok(body.clone());
        }
        let found = self.lake.get(location).await?;
        let refuse = |what: &str| {
            lock(&self.refused).get_or_insert(format!("{} cannot be used: {what}", name_of(location)));
            Error::Generic { store: "log", source: what.into() }
        };
        if found.meta.size > FILE_BYTES_MAX {
            return Err(refuse(TOO_LARGE));
        }
        let body = found.bytes().await?;
        let checked = match location.extension() {
            Some("json") => check_json(&body),
            Some("parquet") => check_parquet(&body),
            _ => Ok(()),
        };
        checked.map_err(refuse)?;
        lock(&self.bodies).insert(location.clone(), body.clone());
        Ok(body)
    }

    fn is_of_log(&self, location: &Path) -> bool {
        location.prefix_matches(&self.folder)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `commit 7` for a person, or what the file is called.
fn name_of(location: &Path) -> String {
    let name = location.filename().unwrap_or_default();
    match name.strip_suffix(".json").and_then(|version| version.parse::<u64>().ok()) {
        Some(version) => format!("commit {version} of its log"),
        None => format!("{name} of its log"),
    }
}

impl fmt::Display for LogView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lake.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for LogView {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !self.is_of_log(location) || options.head {
            return self.lake.get_opts(location, options).await;
        }
        if location.filename() == Some("_last_checkpoint") {
            return Err(Error::NotFound { path: location.to_string(), source: "hints are not shown".into() });
        }
        let body = self.body(location).await?;
        let size = body.len() as u64;
        let wrong = |e: &dyn fmt::Display| Error::Generic { store: "log", source: e.to_string().into() };
        let range = match &options.range {
            Some(range) => range.as_range(size).map_err(|e| wrong(&e))?,
            None => 0..size,
        };
        let listed = self.files.iter().find(|meta| meta.location == *location);
        let last_modified = listed.map_or_else(chrono::Utc::now, |meta| meta.last_modified);
        let meta = ObjectMeta { location: location.clone(), last_modified, size, e_tag: None, version: None };
        let slice = body.slice(range.start as usize..range.end as usize);
        let payload = GetResultPayload::Stream(futures::stream::iter([Ok(slice)]).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.lake.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.lake.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.lake.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match prefix {
            Some(prefix) if self.is_of_log(prefix) => {
                futures::stream::iter(self.files.clone().into_iter().map(Ok)).boxed()
            }
            _ => self.lake.list(prefix),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        let is_behind = move |meta: &Result<ObjectMeta>| match meta {
            Ok(meta) => meta.location > offset,
            Err(_) => true,
        };
        self.list(prefix).filter(move |meta| std::future::ready(is_behind(meta))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.lake.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.lake.copy_opts(from, to, options).await
    }
}
