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
use futures::StreamExt;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStoreExt};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

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
        if object.place.is_local() {
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
            requests: VecDeque::new(),
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

/// A request under way.
struct Request {
    /// Its answer, piece by piece as it comes.
    body: UnboundedReceiver<object_store::Result<Bytes>>,
    missing_bytes: u64,
}

/// Requests in flight for one reader: while one is parsed, the next are on their way.
const REQUESTS_MAX: usize = 4;

/// Bounded ranges of a remote object, asked for ahead.
struct Remote {
    object: LogObject,
    next: u64,
    /// Where asking ahead ends: behind it lies at most the rest of one line.
    ahead_until: u64,
    requests: VecDeque<Request>,
    current: Bytes,
}

impl Remote {
    fn ask_ahead(&mut self) {
        while self.requests.len() < REQUESTS_MAX && self.next < self.ahead_until {
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
        // As many as come: a store may give up on a client that keeps it waiting.
        let (pieces, body) = unbounded_channel();
        start(async move {
            let answer = match store.get_opts(&path, options).await {
                Ok(answer) => answer,
                Err(error) => return drop(pieces.send(Err(error))),
            };
            if !matches!(answer.payload, GetResultPayload::Stream(_)) {
                return drop(pieces.send(answer.bytes().await));
            }
            let mut answer = answer.into_stream();
            // Nobody takes the pieces when the reader was given up.
            while let Some(piece) = answer.next().await
                && pieces.send(piece).is_ok()
            {}
        });
        self.requests.push_back(Request { body, missing_bytes: end - self.next });
        self.next = end;
    }

    /// The next bytes, in pieces as they came; none at the end.
    fn next_piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            self.ask_ahead();
            if self.requests.is_empty() && self.next < self.object.size_bytes {
                self.ask((self.next + LINE_BYTES_MAX as u64).min(self.object.size_bytes));
            }
            let Some(request) = self.requests.front_mut() else { return Ok(None) };
            match request.body.blocking_recv() {
                Some(Ok(piece)) => {
                    let missing_bytes = request.missing_bytes.checked_sub(piece.len() as u64);
                    let too_much = "a store gave more than it was asked for";
                    let too_much = || Error::invariant(too_much).at(&self.object.name);
                    request.missing_bytes = missing_bytes.ok_or_else(too_much)?;
                    return Ok(Some(piece));
                }
                Some(Err(error)) => return Err(self.object.changed_or(error)),
                // A whole answer, and a short one: the object is shorter than it was.
                None if request.missing_bytes > 0 => return Err(self.object.changed()),
                None => drop(self.requests.pop_front()),
            }
        }
    }
}

impl Read for Remote {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        // Full, as far as there is something: pieces are as small as the network makes them.
        while filled < buffer.len() {
            if self.current.is_empty() {
                let Some(piece) = self.next_piece().map_err(store_failure)? else { break };
                self.current = piece;
            }
            let count = (buffer.len() - filled).min(self.current.len());
            buffer[filled..filled + count].copy_from_slice(&self.current.split_to(count));
            filled += count;
        }
        Ok(filled)
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
        if !self.place.is_local() {
            return Ok(());
        }
        let meta = wait(self.place.store.head(&self.place.path)).map_err(|e| self.changed_or(e))?;
        match meta.size == self.size_bytes && LogObject::etag_of(&meta) == self.version {
            true => Ok(()),
            false => Err(self.changed()),
        }
    }
}
