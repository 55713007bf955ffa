//! Local files as an object store that keeps what it says it has written.
//!
//! In: objects. Out: files. Invariant: every object is synced before it gets its name, and its name and
//! its folder's before the put returns; without all of it, a power cut leaves commits gone or empty.
//! Only plain files are read, and below its root nothing is deleted through a link, nor written where a
//! link stood when the write began.

use super::folder::is_staged;
use crate::files::{self, NotPlain, Odd};
use crate::planted::Bug;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, UploadPart,
};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{self, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

/// The local file system, synced.
#[derive(Debug)]
pub(super) struct SyncedLocal {
    inner: LocalFileSystem,
    /// Links above it were resolved; below it none is followed but for reading.
    root: PathBuf,
}

impl SyncedLocal {
    pub(super) fn below(root: PathBuf) -> SyncedLocal {
        SyncedLocal { inner: LocalFileSystem::new(), root }
    }
}

impl fmt::Display for SyncedLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("local files")
    }
}

/// Listings of the inner store skip names that end in `#` and digits.
const STAGED_SUFFIX: &str = "#0";
const STAGED_PREFIX: &str = ".tmp";

/// Whether a put of this program has made a file of this name, on the way to its own.
pub(super) fn is_staged_by_us(name: &str) -> bool {
    let random = name.strip_prefix(STAGED_PREFIX).and_then(|name| name.strip_suffix(STAGED_SUFFIX));
    random.is_some_and(|random| !random.is_empty() && random.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// A file as an object. The tag is that of the library's own local store: ledgers remember it.
pub(super) fn description(metadata: &Metadata, location: Path) -> std::io::Result<ObjectMeta> {
    let modified = metadata.modified()?;
    let micros = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let e_tag = Some(format!("{:x}-{micros:x}-{:x}", metadata.ino(), metadata.len()));
    Ok(ObjectMeta { location, last_modified: modified.into(), size: metadata.len(), e_tag, version: None })
}

fn failed(source: std::io::Error, path: &path::Path) -> Error {
    let named = || path.display().to_string();
    match (NotPlain::behind(&source), source.kind()) {
        (Some(refused), _) if refused.odd != Odd::Folder => {
            Error::NotSupported { source: refused.named().into() }
        }
        // A folder is no object.
        (Some(_), _) | (None, std::io::ErrorKind::NotFound) => {
            Error::NotFound { path: named(), source: source.into() }
        }
        (None, std::io::ErrorKind::NotADirectory) => {
            let is_in_the_way = |above: &&path::Path| above.exists() && !above.is_dir();
            let above = path.ancestors().find(is_in_the_way).unwrap_or(path);
            let what = format!("{}: it is no folder, and has to be one: move it away", above.display());
            Error::NotSupported { source: what.into() }
        }
        _ => Error::Generic { store: "local files", source: source.into() },
    }
}

fn get(path: PathBuf, location: Path, options: &GetOptions) -> object_store::Result<GetResult> {
    let file = files::open(&path).map_err(|e| failed(e, &path))?;
    let meta = file.metadata().and_then(|metadata| description(&metadata, location));
    let meta = meta.map_err(|e| failed(e, &path))?;
    options.check_preconditions(&meta)?;
    let range = match &options.range {
        None => 0..meta.size,
        Some(range) => {
            let range = range.as_range(meta.size);
            range.map_err(|e| Error::Generic { store: "local files", source: e.into() })?
        }
    };
    Ok(GetResult { payload: GetResultPayload::File(file, path), attributes: Default::default(), range, meta })
}

fn get_ranges(path: &path::Path, ranges: &[Range<u64>]) -> std::io::Result<Vec<Bytes>> {
    let file = files::open(path)?;
    let length = file.metadata()?.len();
    let bytes_of = |range: &Range<u64>| {
        // A footer may claim any range: memory is taken only for what is there.
        if range.start > range.end || range.end > length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    };
    ranges.iter().map(bytes_of).collect()
}

/// Input or output failed, by POSIX.
const EIO: i32 = 5;

/// What lies right in a folder, behind links as well. The library's own listing fails for the sake of one
/// name that is no text, or of one entry that goes while it is listed; no object has such a name.
fn list_folder(folder: &path::Path) -> std::io::Result<ListResult> {
    let (mut common_prefixes, mut objects) = (BTreeSet::new(), Vec::new());
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(ListResult { common_prefixes: Vec::new(), objects });
        }
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let (Ok(location), Ok(metadata)) = (Path::from_absolute_path(&path), path.metadata()) else {
            continue;
        };
        if metadata.is_dir() {
            common_prefixes.insert(location);
        } else if metadata.is_file() && !location.filename().is_some_and(is_staged) {
            objects.push(description(&metadata, location)?);
        }
    }
    Ok(ListResult { common_prefixes: common_prefixes.into_iter().collect(), objects })
}

/// As many files as the library's own local store deletes at once.
const DELETES_AT_ONCE: usize = 10;

/// Deletes a file, which is reached from the root, if it lies below it.
fn delete(root: &path::Path, target: &path::Path) -> std::io::Result<()> {
    match (target.strip_prefix(root), target.parent(), target.file_name()) {
        (Ok(below), _, _) if !below.as_os_str().is_empty() => files::remove(root, below),
        (_, Some(folder), Some(name)) => files::remove(folder, name.as_ref()),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}

/// Writes the object beside its place, syncs it, names it, and syncs the directory.
fn put_synced(
    root: &path::Path,
    target: &path::Path,
    payload: &PutPayload,
    mode: &PutMode,
) -> std::io::Result<()> {
    let directory = target.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    files::expect_no_links(root, directory)?;
    create_synced_directory(directory)?;
    let mut staging = tempfile::Builder::new();
    staging.prefix(STAGED_PREFIX).suffix(STAGED_SUFFIX);
    // Temporary files are private; objects are what other files of this user are.
    staging.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut staged = staging.tempfile_in(directory)?;
    payload.iter().try_for_each(|bytes| staged.write_all(bytes))?;
    if !Bug::FileNotSynced.is_planted() {
        staged.as_file().sync_all()?;
    }
    match mode {
        PutMode::Create => {
            if let Err(error) = staged.persist_noclobber(target) {
                // The name that is there may be our own, made before a sync that failed.
                File::open(directory)?.sync_all()?;
                if error.error.kind() == std::io::ErrorKind::AlreadyExists {
                    files::refuse_what_is_not_plain(target)?;
                }
                return Err(error.error);
            }
        }
        _ => drop(staged.persist(target)?),
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
    root: PathBuf,
    target: PathBuf,
    path: String,
    payload: PutPayload,
    mode: PutMode,
) -> object_store::Result<PutResult> {
    let put = tokio::task::spawn_blocking(move || put_synced(&root, &target, &payload, &mode)).await?;
    // A disk that fails while it is written is for its owner to mend, like one that is full.
    let mended = |source: std::io::Error| match source.raw_os_error() {
        Some(EIO) => std::io::Error::new(std::io::ErrorKind::StorageFull, source),
        _ => source,
    };
    let failed = |source: std::io::Error| match (NotPlain::behind(&source), source.kind()) {
        (Some(refused), _) => Error::NotSupported { source: refused.named().into() },
        (_, std::io::ErrorKind::AlreadyExists) => Error::AlreadyExists { path, source: source.into() },
        _ => Error::Generic { store: "local files", source: source.into() },
    };
    put.map_err(mended).map_err(failed)?;
    Ok(PutResult { e_tag: None, version: None })
}

/// A multipart upload that is synced like a put.
#[derive(Debug)]
struct SyncedUpload {
    root: PathBuf,
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
        let (root, target, path) = (self.root.clone(), self.target.clone(), self.path.clone());
        put_in_background(root, target, path, bytes.into(), PutMode::Overwrite).await
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
        put_in_background(self.root.clone(), target, location.to_string(), payload, options.mode).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        // Only checkpoints outgrow one put here; they are held whole, to be synced like the rest.
        let _ = options;
        let target = self.inner.path_to_filesystem(location)?;
        let (root, path) = (self.root.clone(), location.to_string());
        Ok(Box::new(SyncedUpload { root, target, path, bytes: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let (path, location) = (self.inner.path_to_filesystem(location)?, location.clone());
        tokio::task::spawn_blocking(move || get(path, location, &options)).await?
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        let (path, ranges) = (self.inner.path_to_filesystem(location)?, ranges.to_vec());
        let read = move || get_ranges(&path, &ranges).map_err(|e| failed(e, &path));
        tokio::task::spawn_blocking(read).await?
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let root = self.root.clone();
        let delete = move |location: object_store::Result<Path>| {
            let root = root.clone();
            async move {
                let location = location?;
                let target = LocalFileSystem::new().path_to_filesystem(&location)?;
                let deleted = move || delete(&root, &target).map_err(|e| failed(e, &target));
                tokio::task::spawn_blocking(deleted).await?.map(|()| location)
            }
        };
        locations.map(delete).buffered(DELETES_AT_ONCE).boxed()
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
        let folder = path::Path::new("/").join(prefix.unwrap_or(&Path::ROOT).as_ref());
        let listed = move || list_folder(&folder).map_err(|e| failed(e, &folder));
        tokio::task::spawn_blocking(listed).await?
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
