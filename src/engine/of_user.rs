//! The transactions of one user and month, looked for in the raw logs.
//!
//! In: the objects that were counted for the month, the rules of a job. Out: rows with their object
//! and line. Invariant: the rows are those a run would count for this user and month, in the order
//! of objects and lines; only the user's own lines are parsed.

use super::local::Tuning;
use super::read::scan;
use super::rows::{Row, SplitRows};
use crate::domain::month::Month;
use crate::domain::zone::Zone;
use crate::error::{Error, Kind, Result};
use crate::input::plan::{LogObject, Split, splits};
use crate::kernel::categorize::Categorizer;
use crate::kernel::fused::Recorder;
use crate::kernel::memo::{Known, Memo};
use crate::kernel::parse::{Line, parse_line};
use crate::kernel::scan::Block;
use rayon::prelude::*;

/// What is looked for, and by which rules.
pub struct Wanted<'a> {
    pub user_id: u64,
    pub month: Month,
    pub zone: &'a Zone,
    pub categorizer: &'a Categorizer,
}

/// The user's rows of the month by object, in the order of the objects.
pub fn rows(objects: &[LogObject], wanted: &Wanted, tuning: &Tuning) -> Result<Vec<Vec<Row>>> {
    let splits = splits(objects, tuning.split_bytes);
    let known = Known::new(wanted.categorizer);
    let read = |split: &Split| of_split(&objects[split.object], *split, wanted, &known, tuning.read_bytes);
    let found: Vec<(u64, Vec<Row>)> =
        tuning.pool()?.install(|| splits.par_iter().map(read).collect::<Result<_>>())?;
    let mut by_object: Vec<Vec<Row>> = objects.iter().map(|_| Vec::new()).collect();
    let mut lines_before = vec![0; objects.len()];
    for (split, (lines, rows)) in splits.iter().zip(found) {
        let before = &mut lines_before[split.object];
        by_object[split.object].extend(rows.into_iter().map(|row| Row { line: row.line + *before, ..row }));
        *before += lines;
    }
    Ok(by_object)
}

/// The lines of a split, and the user's rows among them.
fn of_split(
    object: &LogObject,
    split: Split,
    wanted: &Wanted,
    known: &Known,
    read_bytes: usize,
) -> Result<(u64, Vec<Row>)> {
    // An accepted line spells its user in one way only.
    let user = format!("{}\t", wanted.user_id);
    let (mut lines, mut found) = (0, SplitRows::default());
    let mut memo = Memo::new(known);
    let read = scan(object, split, read_bytes, |block, _| {
        let bytes = match block {
            Block::Lines { bytes, .. } => bytes,
            Block::Overlong { .. } => b"\n",
        };
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if line.starts_with(user.as_bytes())
                && let Line::Transaction(transaction) =
                    parse_line(line.strip_suffix(b"\n").unwrap_or(line), wanted.zone)
                && transaction.month == wanted.month
            {
                found.record(&transaction, memo.categorize(&transaction), lines);
            }
            lines += 1;
        }
        true
    })?;
    read.map_err(|damage| Error::new(Kind::InputRefused, damage).at(&object.name))?;
    Ok((lines, found.by_month.remove(&wanted.month).unwrap_or_default()))
}
