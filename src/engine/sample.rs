//! Partitions by a sample of users.
//!
//! In: the objects to read. Out: ranges of users of about equal weight, and about as many as keep
//! one in a core's cache. Invariant: a bad sample costs time, never a cent.

use crate::domain::zone::Zone;
use crate::error::Result;
use crate::input::fetch;
use crate::input::plan::LogObject;
use crate::kernel::parse::{Line, parse_line};
use crate::kernel::partition::{Partitioner, Sample};
use crate::kernel::scan::{Block, Scanner};
use crate::limits::{PARTITION_ROWS_TARGET, PARTITIONS_MAX};

/// Objects that are looked at, and bytes of each, for a sample of users.
const SAMPLE_OBJECTS: usize = 64;
/// Of all plain objects together: logs sorted by user must be looked at in many places.
const SAMPLE_STRETCHES: u64 = 256;
const SAMPLE_BYTES: usize = 16 * 1024;
/// What an archive holds per byte, about: enough to choose a number of partitions.
const ARCHIVE_RATIO: u64 = 5;

/// Chooses partitions by the users in a sample of lines.
pub fn partition_by_sample(objects: &[LogObject], zone: &Zone, categories: usize) -> Result<Partitioner> {
    let (mut seen, mut bytes) = (Sample::default(), 0u64);
    for object in objects.iter().step_by(objects.len().div_ceil(SAMPLE_OBJECTS).max(1)) {
        let stretches = match object.compression {
            fetch::Compression::None => (SAMPLE_STRETCHES / objects.len() as u64).max(1),
            _ => 1,
        };
        for stretch in 0..stretches {
            let start = object.size_bytes / stretches * stretch;
            bytes += sample(object, start, zone, &mut seen)?;
        }
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

/// Adds some lines from `start` on; the bytes of those lines.
fn sample(object: &LogObject, start: u64, zone: &Zone, seen: &mut Sample) -> Result<u64> {
    let end = start + SAMPLE_BYTES as u64;
    let reader = std::io::Read::take(fetch::open(object, start.saturating_sub(1), end)?, SAMPLE_BYTES as u64);
    let scanner = Scanner::new(reader, start, u64::MAX, SAMPLE_BYTES);
    // Damage is found, and told, by the map.
    let Ok(mut scanner) = scanner else { return Ok(0) };
    let mut bytes = 0;
    while let Ok(Some(Block::Lines { bytes: lines, .. })) = scanner.next_block() {
        bytes += lines.len() as u64;
        for line in lines.split(|b| *b == b'\n') {
            if let Line::Transaction(transaction) = parse_line(line, zone) {
                let month = transaction.month.since(zone.months().first);
                seen.add(transaction.user_id, month.expect("parsing checked the month"));
            }
        }
    }
    Ok(bytes)
}
