//! Between map and reduce: movements by partition, in memory up to a limit and on disk beyond it.
//!
//! In: chunks of a partition from any worker. Out: all chunks of one partition.
//! Invariant: movements in = movements out; chunks held in memory stay within the limit, give or
//! take one chunk per worker.

use crate::error::{Error, Result};
use crate::kernel::partition::{Chunk, ChunkSink, Movement};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
struct Slot {
    chunks: Vec<Chunk>,
    /// More of this partition, on disk.
    spilled: Vec<Spilled>,
}

/// Where in the spill file movements lie, one behind the other.
#[derive(Clone, Copy)]
struct Spilled {
    offset: u64,
    packed: usize,
    wide: usize,
}

pub struct Shuffle {
    slots: Vec<Mutex<Slot>>,
    held_bytes: AtomicU64,
    limit_bytes: u64,
    spill: Mutex<Spill>,
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
        Shuffle { slots, held_bytes: AtomicU64::new(0), limit_bytes, spill: Mutex::default() }
    }

    /// Bytes that went to disk.
    pub fn spilled_bytes(&self) -> u64 {
        self.spill.lock().expect("no thread panics in here").written_bytes
    }

    /// All movements of a partition, in no order. Errors: the spill file failed.
    pub fn take_partition(&self, partition: usize) -> Result<Vec<Chunk>> {
        let slot = std::mem::take(&mut *self.slots[partition].lock().expect("no thread panics in here"));
        let mut chunks = slot.chunks;
        self.held_bytes.fetch_sub(chunks.iter().map(Chunk::held_bytes).sum(), Ordering::Relaxed);
        let mut spill = self.spill.lock().expect("no thread panics in here");
        if let Some(failure) = spill.failure.take() {
            return Err(Error::temporary_folder(failure));
        }
        for spilled in slot.spilled {
            let read = spill.read(spilled).map_err(Error::temporary_folder)?;
            chunks.extend(read.into_iter().filter(|chunk| chunk.rows() > 0));
        }
        Ok(chunks)
    }

    /// Moves everything that is held to disk.
    fn spill_all(&self) {
        let mut spill = self.spill.lock().expect("no thread panics in here");
        if self.held_bytes.load(Ordering::Relaxed) <= self.limit_bytes || spill.failure.is_some() {
            return;
        }
        for slot in &self.slots {
            let mut slot = slot.lock().expect("no thread panics in here");
            if slot.chunks.is_empty() {
                continue;
            }
            match spill.write(&slot.chunks) {
                Ok(place) => slot.spilled.push(place),
                // The chunks stay in memory; the failure is told when the partition is taken.
                Err(failure) => return spill.failure = Some(failure),
            }
            let freed: u64 = slot.chunks.drain(..).map(|chunk| chunk.held_bytes()).sum();
            self.held_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }
}

impl Spill {
    fn write(&mut self, chunks: &[Chunk]) -> std::io::Result<Spilled> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let (mut packed, mut wide) = (Vec::new(), Vec::new());
        for chunk in chunks {
            match chunk {
                Chunk::Packed(rows) => packed.extend(rows.iter().map(|row| row.to_le_bytes())),
                Chunk::Wide(rows) => wide.extend(rows.iter().map(|row| row.to_bytes())),
            }
        }
        file.seek(SeekFrom::Start(self.written_bytes))?;
        file.write_all(packed.as_flattened())?;
        file.write_all(wide.as_flattened())?;
        let spilled = Spilled { offset: self.written_bytes, packed: packed.len(), wide: wide.len() };
        self.written_bytes += (packed.as_flattened().len() + wide.as_flattened().len()) as u64;
        Ok(spilled)
    }

    fn read(&mut self, spilled: Spilled) -> std::io::Result<[Chunk; 2]> {
        let file = self.file.as_mut().ok_or(std::io::ErrorKind::NotFound)?;
        let (mut packed, mut wide) = (vec![[0; 8]; spilled.packed], vec![[0; 16]; spilled.wide]);
        file.seek(SeekFrom::Start(spilled.offset))?;
        file.read_exact(packed.as_flattened_mut())?;
        file.read_exact(wide.as_flattened_mut())?;
        let packed = packed.into_iter().map(u64::from_le_bytes).collect();
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

    #[test]
    fn what_goes_in_comes_out_with_and_without_spilling() {
        for limit_bytes in [0, 20_000, u64::MAX] {
            let mut sample = Sample::default();
            (0..100).for_each(|user| sample.add(user, 1));
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
                let chunks = shuffle.take_partition(partition).unwrap();
                let unpacked = chunks.into_iter().map(move |chunk| match chunk {
                    Chunk::Packed(rows) => rows.into_iter().map(|row| packing.unpack(base, row)).collect(),
                    Chunk::Wide(rows) => rows,
                });
                unpacked.flatten().collect::<Vec<Movement>>()
            };
            let mut all: Vec<Movement> = (0..7).flat_map(of_partition).collect();
            let mut expected: Vec<Movement> = (0..3u64)
                .flat_map(|w| {
                    (0..5000).map(move |n| {
                        Movement::new(n % 100, 1 + (n % 90 == 0) as u32, CategoryId(2), (n * 3 + w) as i64)
                    })
                })
                .collect();
            all.sort_unstable();
            expected.sort_unstable();
            assert!(all == expected);
            assert_eq!(shuffle.held_bytes.load(Ordering::Relaxed), 0);
        }
    }
}
