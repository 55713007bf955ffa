//! Between map and reduce: movements by partition, in memory up to a limit and on disk beyond it.
//!
//! In: chunks of a partition from any worker. Out: the chunks of one partition, some at a time.
//! Invariant: movements in = movements out; chunks held in memory stay within the limit, give or
//! take one chunk per worker, and of a partition that outgrows it only some are read back at once.

use crate::error::{Error, Result};
use crate::kernel::movement::{Chunk, Movement, PackedRows};
use crate::kernel::partition::ChunkSink;
use crate::limits::{MOVEMENTS_AT_ONCE, PARTITION_ROWS_TARGET};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The movements of one partition, as far as they were not taken.
#[derive(Default)]
pub struct Slot {
    chunks: Vec<Chunk>,
    /// More of this partition, on disk.
    spilled: Vec<Spilled>,
}

/// Where in the spill file movements lie, one behind the other.
#[derive(Clone, Copy)]
struct Spilled {
    offset: u64,
    packed: usize,
    packed_row_bytes: usize,
    wide: usize,
}

impl Spilled {
    /// Takes at most so many movements of one kind off the front.
    fn split_off(&mut self, rows: usize) -> Spilled {
        let (packed, wide) = (self.packed.min(rows), if self.packed > 0 { 0 } else { self.wide.min(rows) });
        let taken = Spilled { packed, wide, ..*self };
        self.offset += taken.size_bytes();
        (self.packed, self.wide) = (self.packed - packed, self.wide - wide);
        taken
    }

    fn size_bytes(&self) -> u64 {
        (self.packed * self.packed_row_bytes + self.wide * size_of::<Movement>()) as u64
    }
}

pub struct Shuffle {
    slots: Vec<Mutex<Slot>>,
    held_bytes: AtomicU64,
    limit_bytes: u64,
    spill: Mutex<Spill>,
    has_failed: AtomicBool,
}

#[derive(Default)]
struct Spill {
    /// Nameless: it is gone when the process is.
    file: Option<File>,
    written_bytes: u64,
    failure: Option<std::io::Error>,
}

impl Shuffle {
    pub fn new(partitions: usize, limit_bytes: u64) -> Shuffle {
        let slots = (0..partitions).map(|_| Mutex::default()).collect();
        let (held_bytes, has_failed) = (AtomicU64::new(0), AtomicBool::new(false));
        Shuffle { slots, held_bytes, limit_bytes, spill: Mutex::default(), has_failed }
    }

    /// Errors: the spill file failed, so nothing keeps movements within the limit any more.
    pub fn check(&self) -> Result<()> {
        if !self.has_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let failure = self.spill.lock().expect("no thread panics in here").failure.take();
        let again = || std::io::Error::other("movements could not be written");
        Err(Error::temporary_folder(failure.unwrap_or_else(again)))
    }

    /// How many movements of a partition are to be taken at once: what sorts them takes some of the memory
    /// that the map does not need any more.
    pub fn rows_at_once(&self) -> usize {
        let rows = usize::try_from(self.limit_bytes / MEMORY_BYTES_PER_ROW).unwrap_or(MOVEMENTS_AT_ONCE);
        rows.clamp(PARTITION_ROWS_TARGET as usize, MOVEMENTS_AT_ONCE)
    }

    /// Bytes that went to disk.
    pub fn spilled_bytes(&self) -> u64 {
        self.spill.lock().expect("no thread panics in here").written_bytes
    }

    /// Takes a partition. Errors: the spill file failed.
    pub fn take_partition(&self, partition: usize) -> Result<Slot> {
        let slot = std::mem::take(&mut *self.slots[partition].lock().expect("no thread panics in here"));
        self.held_bytes.fetch_sub(slot.chunks.iter().map(Chunk::held_bytes).sum(), Ordering::Relaxed);
        self.check().map(|()| slot)
    }

    /// Movements of a partition that was taken, in no order, about so many: none when it is empty.
    /// Errors: the spill file failed.
    pub fn take_some(&self, slot: &mut Slot, rows_max: usize) -> Result<Vec<Chunk>> {
        let (mut chunks, mut rows) = (Vec::new(), 0);
        while rows < rows_max
            && let Some(chunk) = slot.chunks.pop()
        {
            rows += chunk.rows();
            chunks.push(chunk);
        }
        while rows < rows_max
            && let Some(spilled) = slot.spilled.last_mut()
        {
            let some = spilled.split_off(rows_max - rows);
            if spilled.size_bytes() == 0 {
                slot.spilled.pop();
            }
            let mut spill = self.spill.lock().expect("no thread panics in here");
            let read = spill.read(some).map_err(Error::temporary_folder)?;
            rows += some.packed + some.wide;
            chunks.extend(read.into_iter().filter(|chunk| chunk.rows() > 0));
        }
        Ok(chunks)
    }

    /// Moves everything that is held to disk.
    fn spill_all(&self) {
        let mut spill = self.spill.lock().expect("no thread panics in here");
        let is_enough = self.held_bytes.load(Ordering::Relaxed) <= self.limit_bytes;
        if is_enough || self.has_failed.load(Ordering::Relaxed) {
            return;
        }
        for slot in &self.slots {
            let mut slot = slot.lock().expect("no thread panics in here");
            if slot.chunks.is_empty() {
                continue;
            }
            match spill.write(&slot.chunks) {
                Ok(place) => slot.spilled.push(place),
                // The chunks stay in memory until somebody asks.
                Err(failure) => {
                    spill.failure = Some(failure);
                    return self.has_failed.store(true, Ordering::Relaxed);
                }
            }
            let freed: u64 = slot.chunks.drain(..).map(|chunk| chunk.held_bytes()).sum();
            self.held_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }
}

/// Of the limit, for each movement that is added up at once: up to 16 bytes, once more for sorting and once
/// more as they come from disk, by some workers.
const MEMORY_BYTES_PER_ROW: u64 = 256;

/// What is written at once.
const WRITE_BYTES: usize = 1 << 20;

impl Spill {
    fn write(&mut self, chunks: &[Chunk]) -> std::io::Result<Spilled> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.seek(SeekFrom::Start(self.written_bytes))?;
        let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
        let mut spilled = Spilled { offset: self.written_bytes, packed: 0, packed_row_bytes: 0, wide: 0 };
        for chunk in chunks {
            let Chunk::Packed(rows) = chunk else { continue };
            file.write_all(rows.bytes())?;
            spilled.packed += rows.rows();
            // All chunks of a run are packed in the same way.
            spilled.packed_row_bytes = rows.row_bytes();
        }
        for chunk in chunks {
            let Chunk::Wide(rows) = chunk else { continue };
            rows.iter().try_for_each(|row| file.write_all(&row.to_bytes()))?;
            spilled.wide += rows.len();
        }
        file.flush()?;
        self.written_bytes += spilled.size_bytes();
        Ok(spilled)
    }

    fn read(&mut self, spilled: Spilled) -> std::io::Result<[Chunk; 2]> {
        let file = self.file.as_mut().ok_or(std::io::ErrorKind::NotFound)?;
        let Spilled { offset, packed, packed_row_bytes, wide } = spilled;
        let (mut packed, mut wide) = (vec![0; packed * packed_row_bytes], vec![[0; 16]; wide]);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut packed)?;
        file.read_exact(wide.as_flattened_mut())?;
        let packed = PackedRows::of_bytes(packed, packed_row_bytes);
        Ok([Chunk::Packed(packed), Chunk::Wide(wide.iter().map(Movement::from_bytes).collect())])
    }
}

impl ChunkSink for &Shuffle {
    fn take(&mut self, partition: usize, chunk: Chunk) {
        let bytes = chunk.held_bytes();
        // Counted before it can be seen: whoever spills it takes it off the count.
        let held = self.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.slots[partition].lock().expect("no thread panics in here").chunks.push(chunk);
        if held > self.limit_bytes {
            self.spill_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::category::CategoryId;
    use crate::kernel::partition::{Partitioner, Sample, Scatter};
    use crate::limits::CHUNK_BYTES;

    #[test]
    fn what_goes_in_comes_out_with_and_without_spilling() {
        for (limit_bytes, rows_max) in [(0, 1), (0, 100), (20_000, 700), (20_000, 1 << 20), (u64::MAX, 1500)]
        {
            let mut sample = Sample::default();
            (0..100).for_each(|user| sample.add(user, 1, 100));
            let partitioner = Partitioner::from_sample(sample, 7, 3);
            let shuffle = Shuffle::new(partitioner.count(), limit_bytes);
            std::thread::scope(|scope| {
                for worker in 0..3u64 {
                    let (shuffle, partitioner) = (&shuffle, &partitioner);
                    scope.spawn(move || {
                        let mut scatter = Scatter::new(partitioner, shuffle);
                        (0..5000).for_each(|n| {
                            scatter.push(Movement::new(
                                n % 100,
                                1 + (n % 90 == 0) as u32,
                                CategoryId(2),
                                (n * 3 + worker) as i64,
                            ))
                        });
                        scatter.finish();
                    });
                }
            });
            assert_eq!(shuffle.spilled_bytes() > 0, limit_bytes < u64::MAX);
            let of_partition = |partition: usize| {
                let (packing, base) = partitioner.packing(partition).unwrap();
                let mut slot = shuffle.take_partition(partition).unwrap();
                let mut all = Vec::new();
                loop {
                    let chunks = shuffle.take_some(&mut slot, rows_max).unwrap();
                    let rows: usize = chunks.iter().map(Chunk::rows).sum();
                    assert!(rows < rows_max + CHUNK_BYTES / 3, "{rows} rows at once");
                    all.extend(chunks.into_iter().flat_map(|chunk| match chunk {
                        Chunk::Packed(rows) => rows.iter().map(|row| packing.unpack(base, row)).collect(),
                        Chunk::Wide(rows) => rows,
                    }));
                    if rows == 0 {
                        return all;
                    }
                }
            };
            let mut all: Vec<Movement> = (0..7).flat_map(of_partition).collect();
            let mut expected: Vec<Movement> = (0..3u64)
                .flat_map(|w| {
                    (0..5000).map(move |n| {
                        Movement::new(n % 100, 1 + (n % 90 == 0) as u32, CategoryId(2), (n * 3 + w) as i64)
                    })
                })
                .collect();
            all.sort_unstable_by_key(|movement| movement.to_bytes());
            expected.sort_unstable_by_key(|movement: &Movement| movement.to_bytes());
            assert!(all == expected);
            assert_eq!(shuffle.held_bytes.load(Ordering::Relaxed), 0);
        }
    }
}
