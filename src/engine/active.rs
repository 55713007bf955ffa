//! Who was active: the users with a transaction in some days, looked for in the raw logs.
//!
//! In: objects, a stretch of time. Out: users in their order, each once.
//! Invariant: only what a run would accept counts; the memory taken is that of the users found.

use super::local::Tuning;
use super::read::scan;
use crate::domain::zone::Zone;
use crate::error::{Error, Kind, Result};
use crate::input::plan::{LogObject, Split, splits};
use crate::kernel::parse::{Line, parse_line};
use crate::kernel::scan::Block;
use ahash::AHashSet;
use rayon::prelude::*;
use std::ops::Range;

/// The users with a transaction at one of these instants, in microseconds since 1970.
pub fn active_users(
    objects: &[LogObject],
    micros: &Range<i64>,
    zone: &Zone,
    tuning: &Tuning,
) -> Result<Vec<u64>> {
    let of_split = |split: Split| -> Result<AHashSet<u64>> {
        let object = &objects[split.object];
        let mut users = AHashSet::new();
        let read = scan(object, split, tuning.read_bytes, |block, _| {
            let Block::Lines { bytes, .. } = block else { return true };
            for line in bytes.split(|b| *b == b'\n') {
                if let Line::Transaction(transaction) = parse_line(line, zone)
                    && micros.contains(&transaction.occurred_at_micros)
                {
                    users.insert(transaction.user_id);
                }
            }
            true
        })?;
        read.map_err(|damage| Error::new(Kind::InputRefused, damage).at(&object.name))?;
        Ok(users)
    };
    let larger_takes_smaller = |one: AHashSet<u64>, other: AHashSet<u64>| {
        let (mut larger, smaller) = if one.len() < other.len() { (other, one) } else { (one, other) };
        larger.extend(smaller);
        Ok(larger)
    };
    let splits = splits(objects, tuning.split_bytes).into_par_iter();
    let found =
        tuning.pool()?.install(|| splits.map(of_split).try_reduce(AHashSet::new, larger_takes_smaller))?;
    let mut users: Vec<u64> = found.into_iter().collect();
    users.sort_unstable();
    Ok(users)
}
