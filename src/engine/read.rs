//! Reading objects line by line, for whatever is wanted of them.
//!
//! In: an object as it was planned. Out: its blocks; what it says as a whole; the months it
//! touches. Invariant: damage of an object is told apart from a store's trouble.

use super::local::Tuning;
use crate::domain::month::Month;
use crate::domain::zone::Zone;
use crate::error::Result;
use crate::input::fetch;
use crate::input::plan::{LogObject, Split, splits};
use crate::kernel::content::Content;
use crate::kernel::parse::{Line, parse_line};
use crate::kernel::scan::{Block, Scanner};
use crate::limits::READ_BYTES;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Reads the lines of a split until `on_block`, which hears how many bytes the block took, has
/// seen enough. Bytes are counted as they lie in the store. The inner error is damage: the object
/// cannot be read to its end.
pub fn scan(
    object: &LogObject,
    split: Split,
    read_bytes: usize,
    mut on_block: impl FnMut(Block, u64) -> bool,
) -> Result<Result<(), String>> {
    let reader = fetch::open(object, split.start.saturating_sub(1), split.end)?;
    let packed = reader.packed_bytes();
    let mut scanner = match Scanner::new(reader, split.start, split.end, read_bytes) {
        Ok(scanner) => scanner,
        Err(error) => return fetch::failure(error).map(Err),
    };
    let mut told = 0;
    loop {
        match scanner.next_block() {
            Ok(Some(block)) => {
                let bytes = match &packed {
                    None => block.line_bytes(),
                    Some(taken) => taken.get() - told,
                };
                told += bytes;
                if !on_block(block, bytes) {
                    return Ok(Ok(()));
                }
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => return fetch::failure(error).map(Err),
        }
    }
}

/// What an object says, read for nothing but that. The inner error is damage.
pub fn content(object: &LogObject) -> Result<Result<Content, String>> {
    let mut content = Content::default();
    let whole = Split { object: 0, start: 0, end: u64::MAX };
    let read = scan(object, whole, READ_BYTES, |block, _| {
        match block {
            Block::Overlong { head, .. } => _ = content.add(head),
            Block::Lines { bytes, .. } => {
                bytes.split_inclusive(|b| *b == b'\n').for_each(|line| _ = content.add(line));
            }
        }
        true
    })?;
    Ok(read.map(|()| content))
}

/// The months that the objects touch, read for nothing but that.
pub fn months_of(objects: &[LogObject], zone: &Zone, tuning: &Tuning) -> Result<BTreeSet<Month>> {
    let of_split = |split: Split| {
        let mut months = BTreeSet::new();
        let damage = scan(&objects[split.object], split, tuning.read_bytes, |block, _| {
            let Block::Lines { bytes, .. } = block else { return true };
            for line in bytes.split(|b| *b == b'\n') {
                if let Line::Transaction(transaction) = parse_line(line, zone) {
                    months.insert(transaction.month);
                }
            }
            true
        })?;
        // What a damaged object says does not count.
        Ok(if damage.is_ok() { months } else { BTreeSet::new() })
    };
    let splits = splits(objects, tuning.split_bytes).into_par_iter();
    let union = |mut all: BTreeSet<Month>, more| {
        all.extend(more);
        Ok(all)
    };
    tuning.pool()?.install(|| splits.map(of_split).try_reduce(BTreeSet::new, union))
}
