//! Partitions by a sample of users.
//!
//! In: the objects to read. Out: ranges of users of about equal weight, and about as many as keep
//! one in a core's cache. Invariant: a bad sample costs time, never a cent.

use super::local::pool;
use crate::domain::zone::Zone;
use crate::error::Result;
use crate::input::fetch;
use crate::input::plan::LogObject;
use crate::kernel::parse::{Line, parse_line};
use crate::kernel::partition::{Partitioner, Sample};
use crate::kernel::scan::{Block, Scanner};
use crate::limits::{PARTITION_ROWS_TARGET, PARTITIONS_MAX};
use rayon::prelude::*;

/// How much is looked at for a sample of users.
struct Extent {
    objects: usize,
    /// Of all plain objects together: logs sorted by user must be looked at in many places.
    stretches: u64,
    stretch_bytes: usize,
}

const LOCAL: Extent = Extent { objects: 64, stretches: 256, stretch_bytes: 16 * 1024 };
/// A remote store takes its time for each request, however short: fewer, and as many bytes.
const REMOTE: Extent = Extent { objects: 16, stretches: 64, stretch_bytes: 64 * 1024 };
/// Of one object one stretch in so many bytes: the sample asks for little beside the map.
const SAMPLE_EVERY_BYTES: u64 = 4 * 1024 * 1024;
/// Stretches that are read at once from a remote store, which takes its time for each.
const REMOTE_SAMPLE_READERS: usize = 16;
/// What an archive holds per byte, about: enough to choose a number of partitions.
const ARCHIVE_RATIO: u64 = 5;

/// Chooses partitions by the users in a sample of lines.
pub fn partition_by_sample(objects: &[LogObject], zone: &Zone, categories: usize) -> Result<Partitioner> {
    let is_local = objects.iter().all(|object| object.place.is_local());
    let extent = if is_local { LOCAL } else { REMOTE };
    let stretches = stretches(objects, &extent);
    let read = |(object, start): &(&LogObject, u64)| sample(object, *start, extent.stretch_bytes, zone);
    let read_all = || stretches.par_iter().map(read).collect::<Result<Vec<(Sample, u64)>>>();
    // More threads than cores only wait for each other, unless they wait for a server.
    let found = if is_local { read_all() } else { pool(REMOTE_SAMPLE_READERS)?.install(read_all) }?;
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
fn stretches<'o>(objects: &'o [LogObject], extent: &Extent) -> Vec<(&'o LogObject, u64)> {
    let looked_at = objects.iter().step_by(objects.len().div_ceil(extent.objects).max(1));
    let starts = |index: usize, object: &LogObject| -> Vec<u64> {
        if object.compression != fetch::Compression::None {
            return vec![0];
        }
        let most = object.size_bytes.div_ceil(SAMPLE_EVERY_BYTES).max(1);
        let count = (extent.stretches / objects.len() as u64).clamp(1, most);
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

/// The lines of a stretch from `start` on, and their bytes.
fn sample(object: &LogObject, start: u64, stretch_bytes: usize, zone: &Zone) -> Result<(Sample, u64)> {
    let most = stretch_bytes as u64;
    let reader = std::io::Read::take(fetch::open(object, start.saturating_sub(1), start + most)?, most);
    let scanner = Scanner::new(reader, start, u64::MAX, stretch_bytes);
    let (mut seen, mut bytes) = (Sample::default(), 0);
    // Damage is found, and told, by the map.
    let Ok(mut scanner) = scanner else { return Ok((seen, bytes)) };
    while let Ok(Some(Block::Lines { bytes: lines, .. })) = scanner.next_block() {
        bytes += lines.len() as u64;
        for line in lines.split(|b| *b == b'\n') {
            if let Line::Transaction(transaction) = parse_line(line, zone) {
                let month = transaction.month.since(zone.months().first);
                let month = month.expect("parsing checked the month");
                seen.add(transaction.user_id, month, transaction.amount_cents);
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
            stretches(objects, &LOCAL).into_iter().map(|(_, start)| start).collect()
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
