//! Reference tables as rows of text, whatever their form.
//!
//! In: a CSV, TSV or Parquet object, by its extension, and the columns that are wanted by name.
//! Out: one call per row. Invariant: a row that the caller refuses is named by table, line and
//! column, never by its content.

use crate::error::{Error, Kind, Result};
use crate::store::Place;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use smallvec::SmallVec;

/// A column by its name; optional ones may be missing from the table.
pub struct Column {
    pub name: &'static str,
    pub required: bool,
}

/// A refused cell: the index of its column and what is wrong with it.
pub struct Refused(pub usize, pub String);

pub const fn required(name: &'static str) -> Column {
    Column { name, required: true }
}

pub const fn optional(name: &'static str) -> Column {
    Column { name, required: false }
}

/// Where the rows of a table come from.
pub enum Source<'t> {
    /// A URL or path; its extension says its form.
    Stored(&'t str),
    /// Tab-separated text within the program. A line that begins with `#` is a comment.
    Shipped { name: &'t str, text: &'static str },
}

/// The cells of one row in the order of the columns asked for; missing and null cells are empty.
pub type Row<'a> = [&'a str];

/// Calls `take` for each row. Errors: no such table, a missing column, a refused row.
pub fn for_each_row(
    source: &Source,
    columns: &[Column],
    mut take: impl FnMut(&Row) -> Result<(), Refused>,
) -> Result<()> {
    for_each_line(source, columns, |_, row| take(row))
}

/// [`for_each_row`], and the line of each row: of a Parquet table its number, from 1.
pub fn for_each_line(
    source: &Source,
    columns: &[Column],
    mut take: impl FnMut(u64, &Row) -> Result<(), Refused>,
) -> Result<()> {
    let table = match source {
        Source::Stored(table) => table,
        Source::Shipped { name, text } => {
            return from_delimited(text.as_bytes(), b'\t', Some(b'#'), name, columns, &mut take);
        }
    };
    let place = Place::open(table)?;
    let table = place.shown.as_str();
    let bytes = place.read().map_err(|error| match error.kind {
        Kind::NotFound => Error::new(Kind::NotFound, "there is no such reference table").at(table),
        _ => error,
    })?;
    let extension = table.rsplit('.').next().unwrap_or_default();
    match extension {
        "csv" => from_delimited(&bytes, b',', None, table, columns, &mut take),
        "tsv" => from_delimited(&bytes, b'\t', None, table, columns, &mut take),
        "parquet" => from_parquet(bytes, table, columns, &mut take),
        _ => Err(unreadable(table, "a reference table is .csv, .tsv or .parquet")),
    }
}

/// Cells of a row that take no memory of their own.
const ROW_CELLS: usize = 8;

type Take<'a> = &'a mut dyn FnMut(u64, &Row) -> Result<(), Refused>;

fn unreadable(table: &str, what: impl std::fmt::Display) -> Error {
    Error::new(Kind::InputRefused, what.to_string()).at(table)
}

/// The error that a line of a table is refused with.
pub fn refused_line(table: &str, line: u64, what: impl Into<String>) -> Error {
    refused_row(format!("{table}:{line}"), what.into())
}

fn refused_row(place: String, what: String) -> Error {
    Error::new(Kind::InputRefused, what).at(place)
}

fn from_delimited(
    bytes: &[u8],
    delimiter: u8,
    comment: Option<u8>,
    table: &str,
    columns: &[Column],
    take: Take,
) -> Result<()> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).comment(comment).from_reader(bytes);
    let at = |error: csv::Error| {
        let line = error.position().map_or(0, |p| p.line());
        let what = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} fields where the header has {expected_len}")
            }
            csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_string(),
            _ => "not a delimited table".to_string(),
        };
        refused_row(format!("{table}:{line}"), what)
    };
    let header = reader.headers().map_err(at)?.clone();
    let names: Vec<&str> = header.iter().collect();
    let indexes = column_indexes(table, columns, &names)?;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(at)? {
        let line = record.position().map_or(0, |p| p.line());
        let cell = |index: &Option<usize>| index.and_then(|i| record.get(i)).unwrap_or("");
        let row: SmallVec<[&str; ROW_CELLS]> = indexes.iter().map(cell).collect();
        take(line, &row).map_err(|refused| refused_at(table, columns, line, refused))?;
    }
    Ok(())
}

fn from_parquet(bytes: Bytes, table: &str, columns: &[Column], take: Take) -> Result<()> {
    let bad = |e: &dyn std::fmt::Display| unreadable(table, format!("not a readable Parquet table: {e}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| bad(&e))?;
    let schema = builder.schema().clone();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let indexes = column_indexes(table, columns, &names)?;
    let mut line = 0;
    for batch in builder.build().map_err(|e| bad(&e))? {
        let batch = batch.map_err(|e| bad(&e))?;
        let as_text = |index: &Option<usize>| -> Result<Option<ArrayRef>> {
            let cast = index.map(|i| arrow::compute::cast(batch.column(i), &DataType::Utf8));
            cast.transpose().map_err(|e| bad(&e))
        };
        let texts: Vec<Option<ArrayRef>> = indexes.iter().map(as_text).collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            line += 1;
            let row: Vec<&str> = texts.iter().map(|text| text_cell(text, row)).collect();
            take(line, &row).map_err(|refused| refused_at(table, columns, line, refused))?;
        }
    }
    Ok(())
}

fn text_cell(text: &Option<ArrayRef>, row: usize) -> &str {
    match text {
        Some(text) if text.is_valid(row) => text.as_string::<i32>().value(row),
        _ => "",
    }
}

/// Where each wanted column stands.
fn column_indexes(table: &str, columns: &[Column], names: &[&str]) -> Result<Vec<Option<usize>>> {
    let find = |column: &Column| match names.iter().position(|n| n.trim() == column.name) {
        None if column.required => {
            let what = format!("column `{}` is missing", column.name);
            // What stands in place of a header may be data, which no error shows.
            let is_header = names.iter().any(|name| columns.iter().any(|column| column.name == name.trim()));
            let advice = match is_header {
                true => format!("its columns are: {}", names.join(", ")),
                false => "its first line must be a header".to_string(),
            };
            Err(unreadable(table, what).advise(advice))
        }
        found => Ok(found),
    };
    columns.iter().map(find).collect()
}

fn refused_at(table: &str, columns: &[Column], line: u64, Refused(column, what): Refused) -> Error {
    refused_row(format!("{table}:{line}"), format!("column `{}`: {what}", columns[column].name))
}
