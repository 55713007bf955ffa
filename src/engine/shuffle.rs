//! Between map and reduce: movements by partition, in memory up to a limit and on disk beyond it.
//!
//! In: chunks of a partition from any worker. Out: all movements of one partition.
//! Invariant: movements in = movements out; chunks held in memory stay within the limit, give or
//! take one chunk per worker.

use crate::error::{Error, Result};
use crate::kernel::partition::{ChunkSink, Movement};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const MOVEMENT_BYTES: u64 = 16;

#[derive(Default)]
struct Slot {
    chunks: Vec<Vec<Movement>>,
    /// Where in the spill file more of this partition lies: (offset, movements).
    spilled: Vec<(u64, u64)>,
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
    pub fn take_partition(&self, partition: usize) -> Result<Vec<Movement>> {
        let slot = std::mem::take(&mut *self.slots[partition].lock().expect("no thread panics in here"));
        let in_memory: usize = slot.chunks.iter().map(Vec::len).sum();
        let on_disk: u64 = slot.spilled.iter().map(|s| s.1).sum();
        let mut movements = Vec::with_capacity(in_memory + on_disk as usize);
        for chunk in &slot.chunks {
            movements.extend_from_slice(chunk);
            self.held_bytes.fetch_sub(chunk_bytes(chunk), Ordering::Relaxed);
        }
        let mut spill = self.spill.lock().expect("no thread panics in here");
        if let Some(failure) = spill.failure.take() {
            return Err(Error::from(failure).at("spill file").advise("make room in the temporary folder"));
        }
        for (offset, count) in slot.spilled {
            spill.read(offset, count, &mut movements).map_err(|e| Error::from(e).at("spill file"))?;
        }
        Ok(movements)
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
            let freed: u64 = slot.chunks.drain(..).map(|chunk| chunk_bytes(&chunk)).sum();
            self.held_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }
}

fn chunk_bytes(chunk: &Vec<Movement>) -> u64 {
    chunk.capacity() as u64 * MOVEMENT_BYTES
}

impl Spill {
    fn write(&mut self, chunks: &[Vec<Movement>]) -> std::io::Result<(u64, u64)> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let bytes: Vec<u8> = chunks.iter().flatten().flat_map(|m| m.to_bytes()).collect();
        file.seek(SeekFrom::Start(self.written_bytes))?;
        file.write_all(&bytes)?;
        let place = (self.written_bytes, bytes.len() as u64 / MOVEMENT_BYTES);
        self.written_bytes += bytes.len() as u64;
        Ok(place)
    }

    fn read(&mut self, offset: u64, count: u64, into: &mut Vec<Movement>) -> std::io::Result<()> {
        let file = self.file.as_mut().ok_or(std::io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; (count * MOVEMENT_BYTES) as usize];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)?;
        let (movements, rest) = bytes.as_chunks::<16>();
        assert!(rest.is_empty(), "whole movements are spilled");
        into.extend(movements.iter().map(Movement::from_bytes));
        Ok(())
    }
}

impl ChunkSink for &Shuffle {
    fn take(&mut self, partition: usize, chunk: Vec<Movement>) {
        let bytes = chunk_bytes(&chunk);
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
    use crate::kernel::partition::{Partitioner, Scatter};

    #[test]
    fn what_goes_in_comes_out_with_and_without_spilling() {
        for limit_bytes in [0, 20_000, u64::MAX] {
            let partitioner = Partitioner::from_sample((0..100).collect(), 7);
            let shuffle = Shuffle::new(partitioner.count(), limit_bytes);
            std::thread::scope(|scope| {
                for worker in 0..3u64 {
                    let (shuffle, partitioner) = (&shuffle, &partitioner);
                    scope.spawn(move || {
                        let mut scatter = Scatter::new(partitioner, shuffle);
                        (0..5000).for_each(|n| {
                            scatter.push(Movement::new(n % 100, 1, CategoryId(2), (n * 3 + worker) as i64))
                        });
                        scatter.finish();
                    });
                }
            });
            assert_eq!(shuffle.spilled_bytes() > 0, limit_bytes < u64::MAX);
            let mut all: Vec<Movement> = (0..7).flat_map(|p| shuffle.take_partition(p).unwrap()).collect();
            let mut expected: Vec<Movement> = (0..3u64)
                .flat_map(|w| {
                    (0..5000).map(move |n| Movement::new(n % 100, 1, CategoryId(2), (n * 3 + w) as i64))
                })
                .collect();
            all.sort_unstable();
            expected.sort_unstable();
            assert!(all == expected);
            assert_eq!(shuffle.held_bytes.load(Ordering::Relaxed), 0);
        }
    }
}
