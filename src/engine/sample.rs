//! Partitions by a sample of users.
//!
//! In: the objects to read. Out: ranges of users of about equal weight, and about as many as keep
//! one in a core's cache. Invariant: a bad sample costs time, never a cent.

use crate::domain::zone::Zone;
use crate::error::{Error, Kind, Result};
use crate::input::fetch;
use crate::input::plan::LogObject;
use crate::kernel::parse::{Line, parse_line};
use crate::kernel::partition::{Partitioner, Sample};
use crate::kernel::scan::{Block, Scanner};
use crate::limits::{PARTITION_ROWS_TARGET, PARTITIONS_MAX};
use rayon::prelude::*;

/// Objects that are looked at, and bytes of each, for a sample of users.
const SAMPLE_OBJECTS: usize = 64;
/// Of all plain objects together: logs sorted by user must be looked at in many places.
const SAMPLE_STRETCHES: u64 = 256;
const SAMPLE_BYTES: usize = 16 * 1024;
/// Of one object one stretch in so many bytes: the sample asks for little beside the map.
const SAMPLE_EVERY_BYTES: u64 = 4 * 1024 * 1024;
/// Stretches that are read at once: a remote store takes its time for each, however short.
const SAMPLE_READERS: usize = 16;
/// What an archive holds per byte, about: enough to choose a number of partitions.
const ARCHIVE_RATIO: u64 = 5;

/// Chooses partitions by the users in a sample of lines.
pub fn partition_by_sample(objects: &[LogObject], zone: &Zone, categories: usize) -> Result<Partitioner> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(SAMPLE_READERS).build();
    let pool = pool.map_err(|e| Error::new(Kind::Temporary, format!("cannot start threads: {e}")))?;
    let stretches = stretches(objects);
    let read = |(object, start): &(&LogObject, u64)| sample(object, *start, zone);
    let found: Vec<(Sample, u64)> = pool.install(|| stretches.par_iter().map(read).collect::<Result<_>>())?;
    let (mut seen, mut bytes) = (Sample::default(), 0);
    for (more, more_bytes) in found {
        seen.append(more);
        bytes += more_bytes;
    }
    let content = |object: &LogObject| match object.compression {
        fetch::Compression::None => object.size_bytes,
        _ => object.size_bytes * ARCHIVE_RATIO,
    };
    let total: u64 = objects.iter().map(content).sum();
    let line_bytes = bytes / (seen.users.len() as u64).max(1);
    let count = (total / line_bytes.max(1)).div_ceil(PARTITION_ROWS_TARGET) as usize;
    Ok(Partitioner::from_sample(seen, count.clamp(1, PARTITIONS_MAX), categories))
}

/// Where lines are looked at.
fn stretches(objects: &[LogObject]) -> Vec<(&LogObject, u64)> {
    let looked_at = objects.iter().step_by(objects.len().div_ceil(SAMPLE_OBJECTS).max(1));
    let starts = |index: usize, object: &LogObject| -> Vec<u64> {
        if object.compression != fetch::Compression::None {
            return vec![0];
        }
        let most = object.size_bytes.div_ceil(SAMPLE_EVERY_BYTES).max(1);
        let count = (SAMPLE_STRETCHES / objects.len() as u64).clamp(1, most);
        // In each object at another place: objects may each be sorted by user.
        let shift = (index as u64).wrapping_mul(GOLDEN_RATIO) >> 32;
        let start = |stretch: u64| {
            let of_count = u128::from(stretch << 32 | shift);
            (u128::from(object.size_bytes) * of_count / u128::from(count << 32)) as u64
        };
        (0..count).map(start).collect()
    };
    let all = looked_at.enumerate();
    all.flat_map(|(index, object)| starts(index, object).into_iter().map(move |start| (object, start)))
        .collect()
}

/// Its multiples are spread evenly over all values, however many there are of them.
const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// Some lines from `start` on, and the bytes of those lines.
fn sample(object: &LogObject, start: u64, zone: &Zone) -> Result<(Sample, u64)> {
    let end = start + SAMPLE_BYTES as u64;
    let reader = std::io::Read::take(fetch::open(object, start.saturating_sub(1), end)?, SAMPLE_BYTES as u64);
    let scanner = Scanner::new(reader, start, u64::MAX, SAMPLE_BYTES);
    let (mut seen, mut bytes) = (Sample::default(), 0);
    // Damage is found, and told, by the map.
    let Ok(mut scanner) = scanner else { return Ok((seen, bytes)) };
    while let Ok(Some(Block::Lines { bytes: lines, .. })) = scanner.next_block() {
        bytes += lines.len() as u64;
        for line in lines.split(|b| *b == b'\n') {
            if let Line::Transaction(transaction) = parse_line(line, zone) {
                let month = transaction.month.since(zone.months().first);
                seen.add(transaction.user_id, month.expect("parsing checked the month"));
            }
        }
    }
    Ok((seen, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Place;

    fn objects(count: usize, size_bytes: u64, compression: fetch::Compression) -> Vec<LogObject> {
        let object = |index: usize| LogObject {
            name: index.to_string(),
            place: Place::open("/nowhere").unwrap(),
            etag: None,
            version: String::new(),
            size_bytes,
            compression,
        };
        (0..count).map(object).collect()
    }

    #[test]
    fn a_sample_asks_for_little_and_looks_everywhere() {
        let starts = |objects: &[LogObject]| -> Vec<u64> {
            stretches(objects).into_iter().map(|(_, start)| start).collect()
        };
        let plain = |count, size_bytes| starts(&objects(count, size_bytes, fetch::Compression::None));
        let one = plain(1, 1 << 30);
        assert_eq!((one.len(), one[0], one[128]), (256, 0, 1 << 29));
        let mut small = plain(64, 4 << 20);
        assert_eq!(small.len(), 64);
        small.sort_unstable();
        let widest = small.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest < Some((4 << 20) / 16) && small[63] < 4 << 20, "{small:?}");
        assert_eq!(plain(1000, 4 << 20).len(), 63);
        assert_eq!(plain(1, 0), [0]);
        assert_eq!(starts(&objects(2, 4 << 20, fetch::Compression::Gzip)), [0, 0]);
    }
}
