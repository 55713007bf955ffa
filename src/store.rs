//! Where bytes live: the only file that names a cloud.
//!
//! In: a URL or a path as the user wrote it. Out: an object store and a path in it.
//! Invariant: what a local store says is written is on the disk, name and all; credentials come
//! from `AWS_*`, `AZURE_*` and `GOOGLE_*` alone and appear in no message.

mod folder;
mod local;
mod whole;

pub use folder::{Children, Contents, Odd, Staged};

use crate::error::{Error, Kind, Result, without_credentials};
use crate::limits::OBJECT_BYTES_MAX;
use crate::planted::Bug;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use local::SyncedLocal;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio::runtime::Runtime;
use url::Url;
use whole::WholeReads;

/// The program's one runtime, which drives the stores' futures.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = built.expect("the system lets us start threads");
        #[cfg(unix)]
        {
            let _in_runtime = runtime.enter();
            outlive_file_limits();
        }
        runtime
    })
}

/// A file that comes to the limit of its process is an error of that write, as on a full disk, and not the
/// end of the process: once the signal has a handler, the write fails instead.
#[cfg(unix)]
fn outlive_file_limits() {
    use tokio::signal::unix::{SignalKind, signal};
    /// As Linux and macOS count signals.
    const SIGXFSZ: i32 = 25;
    // Where it cannot be handled, the limit ends the process, which is safe as well.
    let _ = signal(SignalKind::from_raw(SIGXFSZ));
}

/// Makes ready what stores need, and the process for files that may not grow.
pub fn set_up() {
    runtime();
}

/// Waits for a future of a store. Never call it from async code.
pub fn wait<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

/// Starts a future of a store that tells itself what comes of it.
pub fn start(future: impl Future<Output = ()> + Send + 'static) {
    runtime().spawn(future);
}

/// Stores that a program brings itself, by scheme and host of their URLs.
static MOUNTED: RwLock<BTreeMap<String, Arc<dyn ObjectStore>>> = RwLock::new(BTreeMap::new());

fn mount_point(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
}

/// Makes a store known under a URL such as `mine://lakes`: places below it lie in that store.
/// Nothing that this program opens itself can be taken over. Errors: no URL.
pub fn mount(url: &str, store: Arc<dyn ObjectStore>) -> Result<()> {
    let url = Url::parse(url).map_err(|e| Error::unfit(format!("not a URL: {e}")))?;
    MOUNTED.write().unwrap_or_else(PoisonError::into_inner).insert(mount_point(&url), store);
    Ok(())
}

fn mounted(url: &Url) -> Option<Arc<dyn ObjectStore>> {
    MOUNTED.read().unwrap_or_else(PoisonError::into_inner).get(&mount_point(url)).cloned()
}

/// How often a create is tried again that meets a conflict where nothing is: S3 says so of requests
/// that crossed each other.
const CONFLICTS_MAX: u32 = 3;

/// An object or a prefix in a store.
#[derive(Clone, Debug)]
pub struct Place {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    /// As the user wrote it, without a query string: fit for messages and for the ledger.
    pub shown: String,
    pub url: Url,
}

impl Place {
    /// Opens `file://`, `s3://`, `gs://` and `az://` URLs, and paths of the local file system,
    /// relative ones from the working directory. Errors: another scheme, unusable credentials, no
    /// text.
    pub fn open(text: &str) -> Result<Place> {
        if text.is_empty() {
            return Err(Error::unfit("no place is named").advise("give a path or a URL"));
        }
        match text.split_once("://") {
            Some((scheme, _)) => Place::open_url(text, scheme),
            None => Place::open_path(text, text),
        }
    }

    fn open_path(path: &str, shown: &str) -> Result<Place> {
        let unfit = |what: String| Error::unfit(what).at(shown);
        let absolute = resolved(std::path::Path::new(path)).map_err(|e| unfit(e.to_string()))?;
        let parsed = Path::from_absolute_path(&absolute).map_err(|e| unfit(e.to_string()))?;
        let url = Url::from_directory_path(&absolute).map_err(|()| unfit("not a path".into()))?;
        let store = Arc::new(SyncedLocal::below(absolute));
        Ok(Place { store, path: parsed, shown: shown.to_string(), url })
    }

    fn open_url(text: &str, scheme: &str) -> Result<Place> {
        let url = Url::parse(text).map_err(|e| Error::unfit(format!("not a URL: {e}")))?;
        let shown = without_credentials(&url);
        let variables = match scheme {
            "file" => {
                let path = url.to_file_path().map_err(|()| Error::unfit("not a local path").at(&shown))?;
                return Place::open_path(&path.to_string_lossy(), &shown);
            }
            "s3" => "AWS_",
            "gs" => "GOOGLE_",
            "az" => "AZURE_",
            _ => {
                if let Some(store) = mounted(&url) {
                    let store = Arc::new(WholeReads(store));
                    let path = Path::from_url_path(url.path());
                    let path = path.map_err(|e| Error::unfit(e.to_string()).at(&shown))?;
                    return Ok(Place { store, path, shown, url });
                }
                let what = format!("no store is known for `{scheme}://`");
                return Err(Error::unfit(what).advise("use file://, s3://, gs://, az:// or a path"));
            }
        };
        // Without their prefix, `TOKEN` or `REGION` of some other program would be taken for ours.
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let options = std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with(variables));
        let options: Vec<(String, String)> =
            options.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        expect_urls(&options)?;
        let (store, path) =
            object_store::parse_url_opts(&url, options).map_err(|e| Error::from(e).at(&shown))?;
        Ok(Place { store: Arc::new(WholeReads(store.into())), path, shown, url })
    }

    /// The same for the same place, however it was written: the absolute path, or the URL.
    pub fn identity(&self) -> String {
        match self.url.to_file_path() {
            Ok(path) => path.to_string_lossy().trim_end_matches('/').to_string(),
            Err(()) => without_credentials(&self.url).trim_end_matches('/').to_string(),
        }
    }

    /// Whether it lies in the local file system.
    pub fn is_local(&self) -> bool {
        self.url.scheme() == "file"
    }

    /// The place of a name below this one.
    pub fn child(&self, name: &str) -> Place {
        let path = name.split('/').fold(self.path.clone(), |path, segment| path.join(segment));
        let shown = format!("{}/{name}", self.shown.trim_end_matches('/'));
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{name}", self.url.path().trim_end_matches('/')));
        Place { store: self.store.clone(), path, shown, url }
    }

    /// The object's description; none when there is no such object.
    pub fn head(&self) -> Result<Option<ObjectMeta>> {
        match wait(self.store.head(&self.path)) {
            Ok(meta) => Ok(Some(meta)),
            // A directory of a local store is no object.
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => self.fail(error),
        }
    }

    /// All objects below, sorted by path: local listings come in any order.
    pub fn list(&self) -> Result<Vec<ObjectMeta>> {
        let listed = self.store.list(Some(&self.path)).try_collect::<Vec<_>>();
        let mut listed = wait(listed).or_else(|e| self.fail(e))?;
        listed.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(listed)
    }

    /// The whole object. Errors with `NotFound` when there is none, and where it is larger than any that is
    /// read whole.
    pub fn read(&self) -> Result<Bytes> {
        wait(self.read_now())
    }

    /// [`Place::read`] for async code.
    pub async fn read_now(&self) -> Result<Bytes> {
        let found = self.store.get(&self.path).await.or_else(|e| self.fail(e))?;
        if found.meta.size > OBJECT_BYTES_MAX {
            let what = format!("it has {} bytes; the most is {OBJECT_BYTES_MAX}", found.meta.size);
            return Err(Error::unfit(what).at(&self.shown).advise("restore it from a copy"));
        }
        found.bytes().await.or_else(|e| self.fail(e))
    }

    /// Writes an object under a name that nobody has used. Errors when there is another one already.
    pub fn create(&self, bytes: Bytes) -> Result<()> {
        wait(self.create_now(&bytes))
    }

    /// Creates an object and reads it back. Out: what the store gives for it. Errors when that is not
    /// what it was given.
    pub fn create_and_read(&self, bytes: Bytes) -> Result<Bytes> {
        wait(self.create_and_read_now(bytes))
    }

    /// [`Place::create_and_read`] for async code.
    pub async fn create_and_read_now(&self, bytes: Bytes) -> Result<Bytes> {
        self.create_now(&bytes).await?;
        let back = self.read_now().await?;
        match back == bytes {
            true => Ok(back),
            false => Err(Error::invariant("an object reads back with other bytes").at(&self.shown)),
        }
    }

    async fn create_now(&self, bytes: &Bytes) -> Result<()> {
        match self.create_or_read(bytes).await.map_err(|e| e.at(&self.shown))? {
            Some(held) if held != *bytes => {
                let error =
                    Error::new(Kind::Temporary, "an object of this name is there and says something else");
                Err(error.at(&self.shown))
            }
            // Our own put may have landed with its answer lost, and been sent again.
            _ => Ok(()),
        }
    }

    /// Creates the object; where one is there already, what it says. A conflict with nothing is tried
    /// again.
    async fn create_or_read(&self, bytes: &Bytes) -> Result<Option<Bytes>> {
        for _ in 0..=CONFLICTS_MAX {
            match self.store.put_opts(&self.path, bytes.clone().into(), PutMode::Create.into()).await {
                Ok(_) => return Ok(None),
                Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            match self.read_now().await {
                Err(error) if error.kind == Kind::NotFound => {}
                read => return read.map(Some),
            }
        }
        let what = "the store refused to create an object that it does not hold";
        Err(Error::new(Kind::Temporary, what).advise("run again"))
    }

    /// The place of an object that was listed below this one.
    pub fn at(&self, meta: &ObjectMeta) -> Place {
        self.at_path(meta.location.clone())
    }

    fn at_path(&self, path: Path) -> Place {
        let below = path.as_ref().strip_prefix(self.path.as_ref());
        let shown = below.map_or_else(
            || path.to_string(),
            |below| format!("{}/{}", self.shown.trim_end_matches('/'), below.trim_start_matches('/')),
        );
        Place { path, shown, ..self.clone() }
    }

    /// The time by the clock of the store, which stamps what is written to it. Writes the object anew.
    pub fn store_time(&self) -> Result<DateTime<Utc>> {
        let stamped = async {
            self.store.put(&self.path, Bytes::from_static(b"clock").into()).await?;
            self.store.head(&self.path).await
        };
        let stamped = wait(stamped).map_err(|e| cannot_write(e.into()).at(&self.shown))?;
        Ok(stamped.last_modified)
    }

    /// Deletes the object, if it is there.
    pub fn delete(&self) -> Result<()> {
        match wait(self.store.delete(&self.path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::from(error).at(&self.shown)),
        }
    }

    fn fail<T>(&self, error: object_store::Error) -> Result<T> {
        Err(for_reading(error.into()).at(&self.shown))
    }
}

/// How the names of variables end that hold a URL.
const URL_VARIABLES: [&str; 6] =
    ["_endpoint", "_endpoint_url", "_endpoint_url_s3", "_base_url", "_proxy_url", "_full_uri"];

/// Errors when a variable that holds the address of a server does not: the stores' client panics over some.
fn expect_urls(options: &[(String, String)]) -> Result<()> {
    let is_server = |text: &str| {
        let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
        url.is_some_and(|url| url.has_host())
    };
    // Whether to use some endpoint is no address.
    let holds_url =
        |name: &str| !name.contains("_use_") && URL_VARIABLES.iter().any(|end| name.ends_with(end));
    match options.iter().find(|(name, value)| holds_url(name) && !is_server(value)) {
        None => Ok(()),
        // The value may hold a password.
        Some((name, _)) => {
            let what = format!("{} is not the URL of a server", name.to_ascii_uppercase());
            Err(Error::unfit(what).advise("write it with http:// or https:// in front"))
        }
    }
}

/// The absolute path, links and `..` resolved as far as it exists.
fn resolved(path: &std::path::Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    for ancestor in absolute.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = absolute.strip_prefix(ancestor).map_err(std::io::Error::other)?;
            return Ok(real.join(rest));
        }
    }
    Ok(absolute)
}

/// Permission that is denied to a reader is a matter of who is asking.
pub fn for_reading(mut error: Error) -> Error {
    if error.kind == Kind::CannotWrite {
        error.kind = Kind::Credentials;
    }
    error
}

/// Makes sure of the one thing that publishing stands on: a store that does not overwrite what
/// is created twice. The probe object stays; every run asks again, since a lake can move.
pub fn probe(lake: &Place) -> Result<()> {
    if Bug::ProbeSkipped.is_planted() {
        return Ok(());
    }
    let probe = lake.child("_runs/_probe");
    let create = |body: &Bytes| wait(probe.create_or_read(body)).map_err(|e| cannot_write(e).at(&lake.shown));
    let unfit = |what: &str| Error::unfit(what).at(&lake.shown).advise("use another store for the lake");
    let first = Bytes::from_static(b"first");
    // Whatever an earlier run has left there must stay; two runs may probe at the same time.
    let before = create(&first)?.unwrap_or(first);
    match create(&Bytes::from_static(b"second"))? {
        None => Err(unfit("the store overwrites an object that is created twice")),
        Some(held) if held != before => Err(unfit("the store does not give back what was created first")),
        Some(_) => Ok(()),
    }
}

/// A store that cannot even be written is a matter for its owner, not for another try.
fn cannot_write(mut error: Error) -> Error {
    if error.kind == Kind::NotFound {
        error.kind = Kind::Unfit;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_created_once() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Place::open(folder.path().to_str().unwrap()).unwrap();
        probe(&lake).unwrap();
        probe(&lake).unwrap();
        let object = lake.child("a/b/c.txt");
        object.create(Bytes::from_static(b"one")).unwrap();
        assert!(object.create(Bytes::from_static(b"two")).is_err());
        assert_eq!(object.read().unwrap().as_ref(), b"one");
        assert_eq!(lake.child("a").list().unwrap().len(), 1, "nothing staged is left or listed");
    }

    #[test]
    fn a_name_that_is_no_text_hinders_no_listing() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let lake = Place::open(folder.path().to_str().unwrap()).unwrap();
        lake.child("table/part").create(Bytes::from_static(b"one")).unwrap();
        std::fs::create_dir(folder.path().join(std::ffi::OsStr::from_bytes(b"\xff"))).unwrap();
        std::os::unix::fs::symlink("nothing", folder.path().join("broken")).unwrap();
        let listed = wait(lake.store.list_with_delimiter(Some(&lake.path))).unwrap();
        assert_eq!(listed.common_prefixes, [lake.child("table").path]);
        assert!(listed.objects.is_empty());
        let nothing = lake.child("nothing").path;
        assert!(wait(lake.store.list_with_delimiter(Some(&nothing))).unwrap().common_prefixes.is_empty());
    }

    #[test]
    fn other_schemes_and_credentials_in_urls() {
        let error = Place::open("ftp://host/x").unwrap_err();
        assert!(error.to_string().contains("no store is known for `ftp://`"));
        let url = Url::parse("s3://key:secret@bucket/a?sig=secret#secret").unwrap();
        assert_eq!(without_credentials(&url), "s3://bucket/a");
    }
}
