//! What a question puts aside when its memory is full: files without a name.
//!
//! In: bytes. Out: those bytes. Invariant: the system takes the files back when the process ends,
//! however it ends, since nothing but the process holds them; together they stay within a cap.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use futures::Stream;
use futures::stream::try_unfold;

use crate::error::Error;
use crate::planted::Bug;

/// How much is read at once.
const READ_BYTES: u64 = 128 * 1024;

/// The room that the files of one question share.
#[derive(Debug)]
pub struct Room {
    cap_bytes: u64,
    used_bytes: Arc<AtomicU64>,
}

impl Room {
    pub fn new(cap_bytes: u64) -> Room {
        Room { cap_bytes, used_bytes: Arc::default() }
    }
}

impl TempFileFactory for Room {
    fn create_temp_file(&self, _description: &str) -> PlanResult<Arc<dyn SpillFile>> {
        let file = match Bug::SpillKeepsName.is_planted() {
            true => tempfile::NamedTempFile::new().and_then(|file| Ok(file.keep()?.0)),
            false => tempfile::tempfile(),
        };
        let file = file.map_err(|e| DataFusionError::External(Box::new(Error::temporary_folder(e))))?;
        let (cap_bytes, used_bytes) = (self.cap_bytes, self.used_bytes.clone());
        Ok(Arc::new(Unnamed(Arc::new(Spilled {
            file: Mutex::new(file),
            bytes: AtomicU64::new(0),
            cap_bytes,
            used_bytes,
        }))))
    }
}

/// A file without a name, as the engine uses it.
struct Unnamed(Arc<Spilled>);

struct Spilled {
    file: Mutex<File>,
    bytes: AtomicU64,
    cap_bytes: u64,
    /// Of all files of the question.
    used_bytes: Arc<AtomicU64>,
}

impl Drop for Spilled {
    fn drop(&mut self) {
        self.used_bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Spilled {
    fn append(&self, bytes: &[u8]) -> Result<(), Error> {
        let length = bytes.len() as u64;
        let used = self.used_bytes.fetch_add(length, Ordering::Relaxed) + length;
        // Counted whether or not it is written: the question is over if it is not.
        let end = self.bytes.fetch_add(length, Ordering::Relaxed);
        if used > self.cap_bytes && !Bug::SpillUnbounded.is_planted() {
            let what = format!("the query would put aside more than {} MiB", self.cap_bytes >> 20);
            return Err(Error::unfit(what).at("query").advise(
                "allow more of limits.spill or of limits.memory, or ask for fewer rows, columns or groups",
            ));
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.seek(SeekFrom::Start(end)).and_then(|_| file.write_all(bytes));
        written.map_err(Error::temporary_folder)
    }

    /// The bytes from `start` on, some at a time; none at the end.
    fn read(&self, start: u64) -> Result<Option<Bytes>, Error> {
        let length = self.bytes.load(Ordering::Relaxed).saturating_sub(start).min(READ_BYTES);
        let mut bytes = vec![0; length as usize];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(Error::temporary_folder)?;
        Ok((!bytes.is_empty()).then(|| bytes.into()))
    }
}

impl SpillFile for Unnamed {
    fn size(&self) -> Option<u64> {
        Some(self.0.bytes.load(Ordering::Relaxed))
    }

    fn read_stream(&self) -> PlanResult<Pin<Box<dyn Stream<Item = PlanResult<Bytes>> + Send>>> {
        // Read where it is asked for: what was put aside lately is still in the system's cache, and
        // buffers that are freed by other threads than their own are slow to be used again.
        Ok(Box::pin(try_unfold((self.0.clone(), 0), async |(file, start)| {
            let read = file.read(start).map_err(|e| DataFusionError::External(Box::new(e)))?;
            Ok(read.map(|bytes| (bytes.clone(), (file, start + bytes.len() as u64))))
        })))
    }

    fn open_writer(&self) -> PlanResult<Box<dyn SpillWriter>> {
        Ok(Box::new(Appender(self.0.clone())))
    }
}

struct Appender(Arc<Spilled>);

impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.append(bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl SpillWriter for Appender {
    fn finish(&mut self) -> PlanResult<()> {
        Ok(())
    }
}
