//! The ledger held to the raw logs.
//!
//! In: the ledger, the logs as they lie. Out: findings on logs that are gone, have changed, or come to
//! something else when they are read again.
//! Invariant: lines are parsed one by one, each the whole way.

use super::Audit;
use crate::domain::month::MonthRange;
use crate::domain::zone::Zone;
use crate::engine::read::scan;
use crate::error::Result;
use crate::input::ledger::{Entry, Ledger};
use crate::input::plan::{self, LogObject, Split};
use crate::job::cli::AuditArgs;
use crate::kernel::content::Content;
use crate::kernel::parse::{Line, parse_line};
use crate::kernel::scan::Block;
use crate::limits::READ_BYTES;
use crate::store::Place;
use std::collections::BTreeMap;

/// Holds every counted object to what lies there, and a share of them to what they say.
pub(super) fn hold_objects(
    ledger: &Ledger,
    time_zone: &str,
    args: &AuditArgs,
    audit: &mut Audit,
) -> Result<()> {
    let mut there = Vec::new();
    for (name, entry) in ledger.counted() {
        let Some(meta) = Place::open(name)?.head()? else {
            audit.changed(name, "the raw log is gone");
            continue;
        };
        if meta.size != entry.size_bytes || LogObject::etag_of(&meta) != entry.etag {
            audit.changed(name, "the raw log was written anew since it was counted");
        }
        there.push((name, entry));
    }
    // The order of a hash that the seed is in: the first of them are a fair draw.
    there.sort_by_key(|(name, _)| xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), args.seed));
    let count = (there.len() as f64 * args.share).ceil() as usize;
    for (name, entry) in &there[..count.min(there.len())] {
        audit.recounted += 1;
        if let Some(what) = recount(name, entry, time_zone)? {
            audit.broken(name.as_str(), what);
        }
    }
    Ok(())
}

/// Reads an object again. Out: what it does not come to any more.
fn recount(name: &str, entry: &Entry, time_zone: &str) -> Result<Option<String>> {
    let (first, last) = match (entry.months.first(), entry.months.last()) {
        (Some(first), Some(last)) => (first.month, last.month),
        // Nothing of it counts; any month will do.
        _ => ("2000-01".parse().expect("a month"), "2000-01".parse().expect("a month")),
    };
    let Some(zone) = Zone::new(time_zone, MonthRange { first, last }) else {
        return Ok(Some(format!("its time zone {time_zone} is unknown")));
    };
    let (mut content, mut lines, mut blank) = (Content::default(), 0, 0);
    let mut months: BTreeMap<_, (u64, i128)> = BTreeMap::new();
    let [object] = &plan::list(name)?.objects[..] else { return Ok(Some("it is no single log".into())) };
    let whole = Split { object: 0, start: 0, end: u64::MAX };
    let read = scan(object, whole, READ_BYTES, |block, _| {
        let bytes = match block {
            Block::Overlong { head, .. } => {
                content.add(head);
                lines += 1;
                return true;
            }
            Block::Lines { bytes, .. } => bytes,
        };
        for raw in bytes.split_inclusive(|byte| *byte == b'\n') {
            content.add(raw);
            lines += 1;
            match parse_line(raw.strip_suffix(b"\n").unwrap_or(raw), &zone) {
                Line::Blank => blank += 1,
                Line::Refused(_) => {}
                Line::Transaction(transaction) => {
                    let sum = months.entry(transaction.month).or_default();
                    *sum = (sum.0 + 1, sum.1 + i128::from(transaction.amount_cents));
                }
            }
        }
        true
    })?;
    let counted: BTreeMap<_, _> = entry.months.iter().map(|m| (m.month, (m.rows, m.net_cents))).collect();
    months.retain(|month, _| counted.contains_key(month));
    Ok(match read {
        Err(damage) => Some(damage),
        Ok(()) if content.to_string() != entry.content_hash => {
            Some("it says something else than it did".into())
        }
        Ok(()) if (lines, blank) != (entry.rows_read, entry.rows_blank) => {
            Some("its lines are counted wrongly".into())
        }
        Ok(()) if months != counted => Some("its rows and cents are counted wrongly".into()),
        Ok(()) => None,
    })
}
