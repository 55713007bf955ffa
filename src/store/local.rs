//! Local files as an object store that keeps what it says it has written.
//!
//! In: objects. Out: files. Invariant: every object is synced before it gets its name, and its name and
//! its folder's before the put returns; without all of it, a power cut leaves commits gone or empty.

use crate::planted::Bug;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, UploadPart,
};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The local file system, synced.
#[derive(Debug, Default)]
pub(super) struct SyncedLocal {
    inner: LocalFileSystem,
}

impl fmt::Display for SyncedLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("local files")
    }
}

/// Listings of the inner store skip names that end in `#` and digits.
const STAGED_SUFFIX: &str = "#0";

/// Input or output failed, by POSIX.
const EIO: i32 = 5;

/// Writes the object beside its place, syncs it, names it, and syncs the directory.
fn put_synced(target: PathBuf, payload: &PutPayload, mode: &PutMode) -> std::io::Result<()> {
    let directory = target.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    create_synced_directory(directory)?;
    let mut staging = tempfile::Builder::new();
    staging.suffix(STAGED_SUFFIX);
    // Temporary files are private; objects are what other files of this user are.
    #[cfg(unix)]
    staging.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut staged = staging.tempfile_in(directory)?;
    payload.iter().try_for_each(|bytes| staged.write_all(bytes))?;
    if !Bug::FileNotSynced.is_planted() {
        staged.as_file().sync_all()?;
    }
    match mode {
        PutMode::Create => {
            if let Err(error) = staged.persist_noclobber(&target) {
                // The name that is there may be our own, made before a sync that failed.
                File::open(directory)?.sync_all()?;
                return Err(error.error);
            }
        }
        _ => drop(staged.persist(&target)?),
    }
    if Bug::NameNotSynced.is_planted() {
        return Ok(());
    }
    let synced = File::open(directory)?.sync_all();
    if Bug::SyncFailureIgnored.is_planted() { Ok(()) } else { synced }
}

/// Folders whose names this process has synced.
static SYNCED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn synced() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    SYNCED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates what is missing, from the top, and syncs each new name. A folder that is there may be that of a
/// run which died before it had synced its name, or is about to; what is above it was synced before it
/// was made.
fn create_synced_directory(directory: &std::path::Path) -> std::io::Result<()> {
    let is_there = directory.is_dir();
    if is_there && synced().contains(directory) {
        return Ok(());
    }
    let Some(parent) = directory.parent() else {
        return if is_there { Ok(()) } else { Err(std::io::ErrorKind::NotFound.into()) };
    };
    if !is_there {
        create_synced_directory(parent)?;
        match std::fs::create_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    match File::open(parent) {
        // A folder that we may not look into, or whose file system knows no syncing, is not of our making.
        Err(error) if is_there && error.kind() == std::io::ErrorKind::PermissionDenied => {}
        opened => match opened?.sync_all() {
            Err(error) if is_there && knows_no_syncing(&error) => {}
            synced => synced?,
        },
    }
    synced().insert(directory.to_path_buf());
    Ok(())
}

fn knows_no_syncing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::Unsupported)
}

async fn put_in_background(
    target: PathBuf,
    path: String,
    payload: PutPayload,
    mode: PutMode,
) -> object_store::Result<PutResult> {
    let put = tokio::task::spawn_blocking(move || put_synced(target, &payload, &mode)).await?;
    // A disk that fails while it is written is for its owner to mend, like one that is full.
    let mended = |source: std::io::Error| match source.raw_os_error() {
        Some(EIO) => std::io::Error::new(std::io::ErrorKind::StorageFull, source),
        _ => source,
    };
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => {
            object_store::Error::AlreadyExists { path, source: source.into() }
        }
        _ => object_store::Error::Generic { store: "local files", source: source.into() },
    };
    put.map_err(mended).map_err(failed)?;
    Ok(PutResult { e_tag: None, version: None })
}

/// A multipart upload that is synced like a put.
#[derive(Debug)]
struct SyncedUpload {
    target: PathBuf,
    path: String,
    bytes: Vec<u8>,
}

#[async_trait::async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        data.iter().for_each(|bytes| self.bytes.extend_from_slice(bytes));
        Box::pin(async { Ok(()) })
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let bytes = std::mem::take(&mut self.bytes);
        put_in_background(self.target.clone(), self.path.clone(), bytes.into(), PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.bytes.clear();
        Ok(())
    }
}

#[async_trait::async_trait]
impl ObjectStore for SyncedLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let target = self.inner.path_to_filesystem(location)?;
        put_in_background(target, location.to_string(), payload, options.mode).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        // Only checkpoints outgrow one put here; they are held whole, to be synced like the rest.
        let _ = options;
        let target = self.inner.path_to_filesystem(location)?;
        Ok(Box::new(SyncedUpload { target, path: location.to_string(), bytes: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
