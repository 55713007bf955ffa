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
use crate::kernel::quick::Lines;
use crate::kernel::scan::{Block, Scanner};
use crate::kernel::separators::Separators;
use crate::limits::{MONTHS_MAX, PARTITION_ROWS_TARGET, PARTITIONS_MAX};
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
/// Of all archives together, which are looked at from their beginnings on alone.
const ARCHIVE_SAMPLE_BYTES: usize = 1024 * 1024;
/// What an archive holds per byte, about: enough to choose a number of partitions.
const ARCHIVE_RATIO: u64 = 5;
/// An archive that begins in one month may go on in so many others.
const ARCHIVE_MONTHS_MORE: u32 = 14;

/// Chooses partitions by the users in a sample of lines.
pub fn partition_by_sample(objects: &[LogObject], zone: &Zone, categories: usize) -> Result<Partitioner> {
    let is_local = objects.iter().all(|object| object.place.is_local());
    let extent = if is_local { LOCAL } else { REMOTE };
    let stretches = stretches(objects, &extent);
    let read = |stretch: &Stretch| sample(stretch, zone);
    let read_all = || stretches.par_iter().map(read).collect::<Result<Vec<(Sample, u64)>>>();
    // More threads than cores only wait for each other, unless they wait for a server.
    let found = if is_local { read_all() } else { pool(REMOTE_SAMPLE_READERS)?.install(read_all) }?;
    let (mut seen, mut bytes) = (Sample::default(), 0);
    for (more, more_bytes) in found {
        seen.append(more);
        bytes += more_bytes;
    }
    if objects.iter().any(is_archive) {
        seen.months =
            seen.months.map(|(first, last)| (first, (last + ARCHIVE_MONTHS_MORE).min(MONTHS_MAX - 1)));
    }
    let content = |object: &LogObject| object.size_bytes * if is_archive(object) { ARCHIVE_RATIO } else { 1 };
    let total: u64 = objects.iter().map(content).sum();
    let line_bytes = bytes / (seen.users.len() as u64).max(1);
    let count = (total / line_bytes.max(1)).div_ceil(PARTITION_ROWS_TARGET) as usize;
    Ok(Partitioner::from_sample(seen, count.clamp(1, PARTITIONS_MAX), categories))
}

fn is_archive(object: &LogObject) -> bool {
    object.compression != fetch::Compression::None
}

/// Where lines are looked at.
struct Stretch<'o> {
    object: &'o LogObject,
    start: u64,
    bytes: usize,
}

fn stretches<'o>(objects: &'o [LogObject], extent: &Extent) -> Vec<Stretch<'o>> {
    let looked_at = objects.iter().step_by(objects.len().div_ceil(extent.objects).max(1));
    let archives = looked_at.clone().filter(|object| is_archive(object)).count().max(1);
    let archive_bytes = (ARCHIVE_SAMPLE_BYTES / archives).max(extent.stretch_bytes);
    let starts = |index: usize, object: &LogObject| -> Vec<u64> {
        if is_archive(object) {
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
    let of_object = |(index, object)| {
        let bytes = if is_archive(object) { archive_bytes } else { extent.stretch_bytes };
        starts(index, object).into_iter().map(move |start| Stretch { object, start, bytes })
    };
    looked_at.enumerate().flat_map(of_object).collect()
}

/// Its multiples are spread evenly over all values, however many there are of them.
const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// The lines of a stretch, and their bytes.
fn sample(stretch: &Stretch, zone: &Zone) -> Result<(Sample, u64)> {
    let (start, most) = (stretch.start, stretch.bytes as u64);
    let reader = fetch::open(stretch.object, start.saturating_sub(1), start + most)?;
    let scanner = Scanner::new(std::io::Read::take(reader, most), start, u64::MAX, stretch.bytes);
    let (mut seen, mut bytes, mut separators) = (Sample::default(), 0, Separators::default());
    // Damage is found, and told, by the map.
    let Ok(mut scanner) = scanner else { return Ok((seen, bytes)) };
    while let Ok(Some(Block::Lines { bytes: lines, .. })) = scanner.next_block() {
        bytes += lines.len() as u64;
        for (range, quick) in Lines::new(separators.index(lines), zone) {
            let line = &lines[range];
            let slowly = || parse_line(line.strip_suffix(b"\n").unwrap_or(line), zone);
            let Line::Transaction(transaction) = quick.map_or_else(slowly, Line::Transaction) else {
                continue;
            };
            let month = transaction.month.since(zone.months().first);
            let month = month.expect("parsing checked the month");
            seen.add(transaction.user_id, month, transaction.amount_cents);
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
            stretches(objects, &LOCAL).iter().map(|stretch| stretch.start).collect()
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
        let archives = objects(2, 4 << 20, fetch::Compression::Gzip);
        assert_eq!(starts(&archives), [0, 0]);
        assert_eq!(stretches(&archives, &LOCAL)[1].bytes, ARCHIVE_SAMPLE_BYTES / 2);
    }
}
