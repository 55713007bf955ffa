//! Readers of log objects: a stretch of a plain one, or a compressed one from its beginning.
//!
//! In: an object as it was planned. Out: `std::io::Read` over its (decompressed) bytes.
//! Invariant: every range is read on condition of the planned etag; all members of an archive are
//! read; a store's trouble and an archive's damage stay two things.

use super::plan::LogObject;
use crate::error::{Error, Kind, Result};
use crate::limits::{DECOMPRESSION_RATIO_MAX, LINE_BYTES_MAX, REMOTE_REQUEST_BYTES};
use crate::planted::Bug;
use crate::store::{for_reading, start, wait};
use bytes::Bytes;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStoreExt};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// How an object is compressed, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub fn of(name: &str) -> Compression {
        match name.rsplit('.').next() {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// A reader of an object's content.
pub struct LogReader {
    content: Box<dyn Read>,
    packed_bytes: Option<Rc<Cell<u64>>>,
}

impl LogReader {
    /// Of an archive: how many of its own bytes were read so far.
    pub fn packed_bytes(&self) -> Option<Rc<Cell<u64>>> {
        self.packed_bytes.clone()
    }
}

impl Read for LogReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(buffer)
    }
}

/// A reader that stands at byte `start` of the object's content; `start` is 0 for compressed ones.
/// Nothing beyond `end` is asked for ahead, but reading may go on there.
pub fn open(object: &LogObject, start: u64, end: u64) -> Result<LogReader> {
    let raw = Raw::open(object, start, end)?;
    assert!(start == 0 || object.compression == Compression::None, "archives are read from their start");
    let taken = Rc::new(Cell::new(0));
    let counted = Counted { inner: raw, taken: taken.clone() };
    let opened: Box<dyn Read> = match object.compression {
        Compression::None => return Ok(LogReader { content: Box::new(counted.inner), packed_bytes: None }),
        Compression::Gzip if Bug::FirstMemberOnly.is_planted() => {
            Box::new(flate2::read::GzDecoder::new(counted))
        }
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(counted)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(counted)?),
    };
    let packed_bytes = Some(taken.clone());
    Ok(LogReader { content: Box::new(Bounded { inner: opened, taken, given: 0 }), packed_bytes })
}

/// What a failed read means: the store failed (the run stops), or the content is damaged (the
/// object is held, with this reason).
pub fn failure(error: io::Error) -> Result<String> {
    match error.downcast::<StoreFailure>() {
        Ok(StoreFailure(error)) => Err(error),
        Err(damage) => Ok(format!("cannot be decompressed: {damage}")),
    }
}

/// A store's error on its way through decoders that only know `io::Error`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct StoreFailure(Error);

fn store_failure(error: Error) -> io::Error {
    io::Error::other(StoreFailure(error))
}

/// The object's own bytes.
enum Raw {
    Local(File, String),
    Remote(Box<Remote>),
}

impl Raw {
    fn open(object: &LogObject, start: u64, end: u64) -> Result<Raw> {
        let changed = |error: object_store::Error| object.changed_or(error);
        if object.place.url.scheme() == "file" {
            let options = GetOptions { if_match: object.etag.clone(), ..GetOptions::default() };
            let got = wait(object.place.store.get_opts(&object.place.path, options)).map_err(changed)?;
            let GetResultPayload::File(mut file, _) = got.payload else {
                return Err(Error::invariant("a local store gave no file").at(&object.name));
            };
            file.seek(SeekFrom::Start(start))?;
            return Ok(Raw::Local(file, object.name.clone()));
        }
        let remote = Remote {
            object: object.clone(),
            next: start,
            ahead_until: end.min(object.size_bytes),
            ahead: Vec::new(),
            current: Bytes::new(),
        };
        Ok(Raw::Remote(Box::new(remote)))
    }
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Raw::Local(file, name) => {
                file.read(buffer).map_err(|e| store_failure(for_reading(e.into()).at(name)))
            }
            Raw::Remote(remote) => remote.read(buffer),
        }
    }
}

type Request = tokio::task::JoinHandle<object_store::Result<Bytes>>;

/// Requests in flight for one reader: while one is parsed, the next are on their way.
const REQUESTS_AHEAD: usize = 3;

/// Bounded ranges of a remote object, asked for ahead.
struct Remote {
    object: LogObject,
    next: u64,
    /// Where asking ahead ends: behind it lies at most the rest of one line.
    ahead_until: u64,
    /// Oldest last.
    ahead: Vec<Request>,
    current: Bytes,
}

impl Remote {
    fn ask_ahead(&mut self) {
        while self.ahead.len() < REQUESTS_AHEAD && self.next < self.ahead_until {
            self.ask((self.next + REMOTE_REQUEST_BYTES).min(self.ahead_until));
        }
    }

    /// Asks for the bytes up to `end`.
    fn ask(&mut self, end: u64) {
        let options = GetOptions {
            if_match: self.object.etag.clone(),
            range: Some(GetRange::Bounded(self.next..end)),
            ..GetOptions::default()
        };
        let (store, path) = (self.object.place.store.clone(), self.object.place.path.clone());
        let request = async move { store.get_opts(&path, options).await?.bytes().await };
        self.ahead.insert(0, start(request));
        self.next = end;
    }
}

impl Read for Remote {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            self.ask_ahead();
            if self.ahead.is_empty() && self.next < self.object.size_bytes {
                self.ask((self.next + LINE_BYTES_MAX as u64).min(self.object.size_bytes));
            }
            let Some(oldest) = self.ahead.pop() else { return Ok(0) };
            let answer = wait(oldest).map_err(|e| store_failure(Error::invariant(e.to_string())))?;
            self.current = answer.map_err(|e| store_failure(self.object.changed_or(e)))?;
            self.ask_ahead();
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

struct Counted<R> {
    inner: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}

/// Stops an archive that swells beyond all measure.
struct Bounded<R> {
    inner: R,
    taken: Rc<Cell<u64>>,
    given: u64,
}

/// Small archives may well be full of zeros.
const RATIO_FROM_BYTES: u64 = 1024 * 1024;

impl<R: Read> Read for Bounded<R> {
    /// Fills the buffer, as far as there is something: decoders give little at a time.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < buffer.len() {
            match self.inner.read(&mut buffer[count..]) {
                Err(_) if Bug::DamageIsTheEnd.is_planted() => break,
                Ok(0) => break,
                more => count += more?,
            }
        }
        self.given += count as u64;
        let most = self.taken.get().saturating_mul(DECOMPRESSION_RATIO_MAX);
        if self.given > RATIO_FROM_BYTES && self.given > most && !Bug::SwellsUnbounded.is_planted() {
            let what = format!("it swells more than {DECOMPRESSION_RATIO_MAX} times");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(count)
    }
}

impl LogObject {
    /// A precondition that failed, or an object that is gone, means that somebody changed the
    /// input while it was read.
    fn changed_or(&self, error: object_store::Error) -> Error {
        use object_store::Error as Store;
        match error {
            Store::Precondition { .. } | Store::NotModified { .. } => self.changed(),
            other => for_reading(other.into()).at(&self.name),
        }
    }

    fn changed(&self) -> Error {
        let error = Error::new(Kind::Temporary, "the object changed while it was read").at(&self.name);
        error.advise("run again when its delivery is complete")
    }

    /// Errors when the object is no longer the one that was planned. Every request to a remote
    /// store was conditional on that already; an open local file can grow under its reader.
    pub fn still_as_planned(&self) -> Result<()> {
        if self.place.url.scheme() != "file" {
            return Ok(());
        }
        let meta = wait(self.place.store.head(&self.place.path)).map_err(|e| self.changed_or(e))?;
        match meta.size == self.size_bytes && LogObject::etag_of(&meta) == self.version {
            true => Ok(()),
            false => Err(self.changed()),
        }
    }
}
