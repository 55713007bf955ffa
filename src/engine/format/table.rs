//! Aligned columns for people.
//!
//! In: record batches. Out: text in blocks of a thousand rows; each block has a header and widths
//! of its own, so that the first rows of a long answer do not wait for the last. Numbers are
//! aligned on the right.
//! Invariant: what stands in the data cannot move the cursor, colour the terminal, hide or
//! reorder text: such characters are written as escapes.

use std::fmt::Write as _;
use std::io::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::{RowWriter, WriteResult, cells, is_number};
use crate::error::is_printable;

/// How many rows are laid out together.
const BLOCK_ROWS: usize = 1000;

/// Between two columns.
const GAP: &str = "  ";

pub struct TableWriter<'a> {
    out: &'a mut (dyn Write + Send),
    names: Vec<String>,
    /// For each column whether it is aligned on the right.
    numbers: Vec<bool>,
    block: Vec<Vec<String>>,
    blocks_written: usize,
}

impl<'a> TableWriter<'a> {
    pub fn new(schema: &SchemaRef, out: &'a mut (dyn Write + Send)) -> Self {
        let fields = schema.fields();
        TableWriter {
            out,
            names: fields.iter().map(|field| escaped(field.name(), false)).collect(),
            numbers: fields.iter().map(|field| is_number(field.data_type())).collect(),
            block: Vec::new(),
            blocks_written: 0,
        }
    }

    fn write_block(&mut self) -> std::io::Result<()> {
        let mut widths: Vec<usize> = self.names.iter().map(|name| name.chars().count()).collect();
        for row in &self.block {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        let mut text = String::new();
        if self.blocks_written > 0 {
            text.push('\n');
        }
        for row in [&self.names, &rule].into_iter().chain(&self.block) {
            push_line(&mut text, row, &widths, &self.numbers);
        }
        self.block.clear();
        self.blocks_written += 1;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl RowWriter for TableWriter<'_> {
    fn batch(&mut self, batch: &RecordBatch) -> WriteResult {
        let formatters = cells(batch)?;
        for row in 0..batch.num_rows() {
            let mut line = Vec::with_capacity(formatters.len());
            for (formatter, column) in formatters.iter().zip(batch.columns()) {
                line.push(match column.is_null(row) {
                    true => "NULL".to_string(),
                    false => escaped(&formatter.value(row).try_to_string()?, false),
                });
            }
            self.block.push(line);
            if self.block.len() == BLOCK_ROWS {
                self.write_block()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> WriteResult {
        if !self.block.is_empty() || self.blocks_written == 0 {
            self.write_block()?;
        }
        Ok(())
    }
}

/// One line, without spaces at its end.
fn push_line(text: &mut String, row: &[String], widths: &[usize], numbers: &[bool]) {
    let start = text.len();
    for (place, cell) in row.iter().enumerate() {
        let padding = " ".repeat(widths[place] - cell.chars().count());
        if place > 0 {
            text.push_str(GAP);
        }
        match numbers[place] {
            true => text.extend([padding.as_str(), cell]),
            false => text.extend([cell, padding.as_str()]),
        }
    }
    let end = start + text[start..].trim_end_matches(' ').len();
    text.truncate(end);
    text.push('\n');
}

/// The plan of a query, which comes laid out in lines.
pub struct PlanWriter<'a> {
    out: &'a mut (dyn Write + Send),
}

impl<'a> PlanWriter<'a> {
    pub fn new(out: &'a mut (dyn Write + Send)) -> Self {
        PlanWriter { out }
    }
}

impl RowWriter for PlanWriter<'_> {
    fn batch(&mut self, batch: &RecordBatch) -> WriteResult {
        let formatters = cells(batch)?;
        for row in 0..batch.num_rows() {
            for formatter in &formatters {
                let text = escaped(&formatter.value(row).try_to_string()?, true);
                writeln!(self.out, "{}", text.trim_end())?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn finish(&mut self) -> WriteResult {
        Ok(())
    }
}

/// Text with everything that is not plainly seen written as an escape.
fn escaped(text: &str, keep_lines: bool) -> String {
    let mut seen = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' if keep_lines => seen.push('\n'),
            '\n' => seen.push_str("\\n"),
            '\r' => seen.push_str("\\r"),
            '\t' => seen.push_str("\\t"),
            hidden if !is_printable(hidden) => {
                // Writing to a string cannot fail.
                let _ = write!(seen, "\\u{{{:x}}}", u32::from(hidden));
            }
            plain => seen.push(plain),
        }
    }
    seen
}
