//! `transactions`: every counted transaction with its category, its source and its line.
//!
//! In: what workers record, piece by piece, in any order. Out: parts per object and month.
//! Invariant: rows stand in the order of their lines, and parts end by their number of rows, so
//! the bytes depend neither on splits nor on threads.

use super::part::{self, WrittenPart};
use crate::domain::category::Categories;
use crate::domain::month::Month;
use crate::engine::feed::PieceId;
use crate::engine::local::Record;
use crate::engine::rows::{self, Row, SplitRows};
use crate::error::{Error, Result};
use crate::input::plan::{LogObject, Split};
use crate::kernel::categorize::Categorizer;
use crate::limits::PART_TRANSACTIONS;
use crate::schema;
use crate::store::Place;
use arrow::array::RecordBatch;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Writes the table's parts while the map goes on.
pub struct TransactionWriter<'a> {
    pub table: Place,
    pub run_id: &'a str,
    pub categories: &'a Categories,
    pub categorizer: &'a Categorizer,
    pub objects: &'a [LogObject],
    pub state: Mutex<State>,
}

/// Pieces wait here until all before them have come.
#[derive(Default)]
pub struct State {
    next: PieceId,
    waiting: BTreeMap<PieceId, (Split, u64, SplitRows)>,
    /// How many pieces a split had.
    ends: BTreeMap<usize, usize>,
    /// The object being written, the lines before the next piece, its rows and parts by month.
    object: usize,
    lines_before: u64,
    rows: BTreeMap<Month, Vec<Row>>,
    sequence: usize,
    parts: Vec<(Month, WrittenPart)>,
}

impl Record for TransactionWriter<'_> {
    type Recorder = SplitRows;

    fn start(&self) -> SplitRows {
        SplitRows::default()
    }

    fn finish(&self, split: Split, piece: PieceId, lines: u64, rows: SplitRows) -> Result<()> {
        let mut state = self.state.lock().expect("no thread panics in here");
        state.waiting.insert(piece, (split, lines, rows));
        self.append_all(&mut state)
    }

    fn end(&self, split: usize, pieces: usize) -> Result<()> {
        let mut state = self.state.lock().expect("no thread panics in here");
        state.ends.insert(split, pieces);
        self.append_all(&mut state)
    }
}

impl TransactionWriter<'_> {
    /// Appends what is next, as far as it has come.
    fn append_all(&self, state: &mut State) -> Result<()> {
        loop {
            let next = state.next;
            if state.ends.get(&next.split) == Some(&next.sequence) {
                state.next = PieceId { split: next.split + 1, sequence: 0 };
                continue;
            }
            let Some((split, lines, rows)) = state.waiting.remove(&next) else { return Ok(()) };
            state.next.sequence += 1;
            self.append(state, split, lines, rows)?;
        }
    }

    fn append(&self, state: &mut State, split: Split, lines: u64, rows: SplitRows) -> Result<()> {
        if split.object != state.object {
            self.flush(state, 1)?;
            (state.object, state.lines_before) = (split.object, 0);
        }
        let before = state.lines_before;
        for (month, rows) in rows.by_month {
            let rows = rows.into_iter().map(|row| Row { line: row.line + before, ..row });
            state.rows.entry(month).or_default().extend(rows);
        }
        state.lines_before += lines;
        self.flush(state, PART_TRANSACTIONS)
    }

    /// Writes the months of the object at hand that have at least so many rows.
    fn flush(&self, state: &mut State, rows_min: usize) -> Result<()> {
        for (month, rows) in &mut state.rows {
            while rows.len() >= rows_min {
                let rest = rows.split_off(rows.len().min(PART_TRANSACTIONS));
                let full = std::mem::replace(rows, rest);
                let path = format!("month={month}-01/part-{:05}-{}.parquet", state.sequence, self.run_id);
                let name = &self.objects[state.object].name;
                state.parts.push((*month, self.write(&path, &full, name)?));
                state.sequence += 1;
            }
        }
        state.rows.retain(|_, rows| !rows.is_empty());
        Ok(())
    }

    fn write(&self, path: &str, rows: &[Row], source_object: &str) -> Result<WrittenPart> {
        let columns = rows::columns(rows, self.categories, self.categorizer, source_object);
        let schema = part::without_partition_column(&schema::transactions());
        let batch = RecordBatch::try_new(schema.clone(), columns);
        let batch = batch.map_err(|e| Error::invariant(format!("transactions are no table: {e}")))?;
        part::write(&self.table, path, part::encode(&schema, &[batch])?, rows.len() as u64)
    }

    /// All parts, in the order of their writing; their rows are `rows`, or something is lost.
    pub fn close(self, rows: u64) -> Result<Vec<(Month, WrittenPart)>> {
        let mut state = std::mem::take(&mut *self.state.lock().expect("no thread panics in here"));
        self.flush(&mut state, 1)?;
        let written: u64 = state.parts.iter().map(|(_, part)| part.rows).sum();
        match written == rows && state.waiting.is_empty() {
            true => Ok(state.parts),
            false => Err(Error::invariant(format!("{written} of {rows} transactions were written"))),
        }
    }
}
