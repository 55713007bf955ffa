//! CSV that a spreadsheet can open without running it.
//!
//! In: record batches. Out: a header and one record a row, quoted as RFC 4180 says, each line
//! ended by a line feed alone, as the tools that read it expect.
//! Invariant: no cell but a number starts with a character that a spreadsheet takes for a
//! formula; NULL is an empty cell, empty text is `""`.

use std::fmt::Write as _;
use std::io::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::{RowWriter, WriteResult, cells, is_number};
use crate::planted::Bug;

/// What a formula can start with (OWASP, "CSV injection"), the wide forms of Asian keyboards
/// included. Text that starts so gets an apostrophe in front.
pub(super) const FORMULA_STARTS: [char; 12] =
    ['=', '+', '-', '@', '\t', '\r', '\n', '\0', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

pub struct CsvWriter<'a> {
    out: &'a mut (dyn Write + Send),
    /// For each column whether it holds numbers, which are left as they are.
    numbers: Vec<bool>,
    /// The lines of one batch.
    lines: String,
    /// The cell at hand, before it is quoted.
    cell: String,
}

impl<'a> CsvWriter<'a> {
    /// Writes the header.
    pub fn new(schema: &SchemaRef, out: &'a mut (dyn Write + Send)) -> std::io::Result<Self> {
        let mut header = String::new();
        for (place, field) in schema.fields().iter().enumerate() {
            if place > 0 {
                header.push(',');
            }
            push_cell(&mut header, field.name(), true);
        }
        header.push('\n');
        out.write_all(header.as_bytes())?;
        let numbers = schema.fields().iter().map(|field| is_number(field.data_type())).collect();
        Ok(CsvWriter { out, numbers, lines: String::new(), cell: String::new() })
    }
}

impl RowWriter for CsvWriter<'_> {
    fn batch(&mut self, batch: &RecordBatch) -> WriteResult {
        let formatters = cells(batch)?;
        self.lines.clear();
        for row in 0..batch.num_rows() {
            for (place, formatter) in formatters.iter().enumerate() {
                if place > 0 {
                    self.lines.push(',');
                }
                if !batch.column(place).is_null(row) {
                    self.cell.clear();
                    write!(self.cell, "{}", formatter.value(row))?;
                    push_cell(&mut self.lines, &self.cell, !self.numbers[place]);
                } else if formatters.len() == 1 {
                    // An empty line would be skipped, and the row lost.
                    self.lines.push_str("\"\"");
                }
            }
            self.lines.push('\n');
        }
        self.out.write_all(self.lines.as_bytes())?;
        Ok(self.out.flush()?)
    }

    fn finish(&mut self) -> WriteResult {
        Ok(())
    }
}

/// One cell, guarded if it is text, and quoted where it has to be.
fn push_cell(line: &mut String, cell: &str, is_text: bool) {
    let is_formula = is_text && cell.starts_with(FORMULA_STARTS) && !Bug::FormulaRuns.is_planted();
    let guard = if is_formula { "'" } else { "" };
    if cell.is_empty() || cell.contains([',', '"', '\n', '\r']) {
        line.push('"');
        line.push_str(guard);
        line.push_str(&cell.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(guard);
        line.push_str(cell);
    }
}
