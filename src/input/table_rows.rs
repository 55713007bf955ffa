//! Reference tables as rows of text, whatever their form.
//!
//! In: a CSV, TSV or Parquet object, by its extension, and the columns that are wanted by name.
//! Out: one call per row. Invariant: a row that the caller refuses is named by table, line and
//! column, never by its content; a table whose rows would take more memory than they may is refused,
//! a Parquet one before any of it is decoded.

use super::parquet_bounds::{batch_rows, footer, rows};
use crate::error::{Error, Kind, Result, near};
use crate::limits::{CELL_BYTES_MAX, ROW_BYTES_KEPT, TABLE_BYTES_MAX};
use crate::planted::Bug;
use crate::store::Place;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
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
    /// The same, what a row of it takes beside its cells once it is read, and what all rows may take.
    Bounded { table: &'t str, row_bytes: u64, bytes_max: u64 },
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
    let (table, row_bytes, bytes_max) = match source {
        Source::Stored(table) => (table, ROW_BYTES_KEPT, TABLE_BYTES_MAX),
        Source::Bounded { table, row_bytes, bytes_max } => (table, *row_bytes, *bytes_max),
        Source::Shipped { name, text } => {
            let mut rows = Rows { table: name, columns, row_bytes: 0, room: u64::MAX, take: &mut take };
            return rows.add_delimited(text.as_bytes(), b'\t', Some(b'#'));
        }
    };
    let place = Place::open(table)?;
    let bytes = read_bounded(&place, bytes_max)?;
    let table = place.shown.as_str();
    let extension = table.rsplit('.').next().unwrap_or_default();
    let mut rows = Rows { table, columns, row_bytes, room: bytes_max, take: &mut take };
    match extension {
        "csv" => rows.add_delimited(&bytes, b',', None),
        "tsv" => rows.add_delimited(&bytes, b'\t', None),
        "parquet" => rows.add_parquet(bytes),
        _ => Err(unreadable(table, "a reference table is .csv, .tsv or .parquet")),
    }
}

/// The bytes of a reference table. Errors: there is none, or it is larger than it may be.
pub(super) fn read_bounded(place: &Place, bytes_max: u64) -> Result<Bytes> {
    if let Some(meta) = place.head()?
        && meta.size > bytes_max
    {
        let error = unreadable(&place.shown, format!("{} bytes; the most is {bytes_max}", meta.size));
        return Err(error.advise(LESS));
    }
    place.read().map_err(|error| match error.kind {
        Kind::NotFound => Error::new(Kind::NotFound, "there is no such reference table").at(&place.shown),
        _ => error,
    })
}

const LESS: &str = "name a smaller table, or let the job use more memory with limits.memory";

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

/// A table on its way to whoever takes its rows.
struct Rows<'a> {
    table: &'a str,
    columns: &'a [Column],
    row_bytes: u64,
    /// Bytes that further rows may take.
    room: u64,
    take: Take<'a>,
}

impl Rows<'_> {
    fn add_delimited(&mut self, bytes: &[u8], delimiter: u8, comment: Option<u8>) -> Result<()> {
        let table = self.table;
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
        let indexes = column_indexes(table, self.columns, &names)?;
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(at)? {
            let line = record.position().map_or(0, |p| p.line());
            let cell = |index: &Option<usize>| index.and_then(|i| record.get(i)).unwrap_or("");
            let row: SmallVec<[&str; ROW_CELLS]> = indexes.iter().map(cell).collect();
            self.give(line, &row)?;
        }
        Ok(())
    }

    fn add_parquet(&mut self, bytes: Bytes) -> Result<()> {
        let table = self.table;
        let bad = |what: String| unreadable(table, format!("not a readable Parquet table: {what}"));
        let metadata = footer(&bytes, ArrowReaderOptions::new(), u64::MAX).map_err(bad)?;
        let rows = rows(metadata.metadata()).unwrap_or(u64::MAX);
        let kept = rows.saturating_mul(self.row_bytes);
        if kept > self.room && !Bug::FooterBoundIgnored.is_planted() {
            let most = self.room / self.row_bytes;
            return Err(unreadable(table, format!("{rows} rows; the most is {most}")).advise(LESS));
        }
        let schema = metadata.schema().clone();
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let indexes = column_indexes(table, self.columns, &names)?;
        for (column, index) in self.columns.iter().zip(&indexes) {
            if index.is_some_and(|index| schema.field(index).data_type().is_nested()) {
                return Err(bad(format!("column `{}` is of lists or structs", column.name)));
            }
        }
        let columns = metadata.parquet_schema();
        let wanted: Vec<usize> = (0..columns.num_columns())
            .filter(|leaf| indexes.contains(&Some(columns.get_column_root_idx(*leaf))))
            .collect();
        let batch_rows = batch_rows(&bytes, metadata.metadata(), &wanted).map_err(bad)?;
        let mask = ProjectionMask::leaves(columns, wanted);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
            .with_projection(mask)
            .with_batch_size(batch_rows)
            .build();
        // What a reader says of a file may repeat what the file holds.
        let broken = || bad("its pages cannot be decoded".into());
        let mut line = 0;
        for batch in reader.map_err(|_| broken())? {
            let batch = batch.map_err(|_| broken())?;
            let as_text = |index: &Option<usize>| -> Result<Option<ArrayRef>> {
                let column = index.and_then(|index| batch.column_by_name(schema.field(index).name()));
                let cast = column.map(|column| arrow::compute::cast(column, &DataType::Utf8));
                cast.transpose().map_err(|_| broken())
            };
            let texts: Vec<Option<ArrayRef>> = indexes.iter().map(as_text).collect::<Result<_>>()?;
            for row in 0..batch.num_rows() {
                line += 1;
                let row: SmallVec<[&str; ROW_CELLS]> =
                    texts.iter().map(|text| text_cell(text, row)).collect();
                self.give(line, &row)?;
            }
        }
        Ok(())
    }

    /// Hands a row over, if there is room for it.
    fn give(&mut self, line: u64, row: &Row) -> Result<()> {
        let refuse = |refused| refused_at(self.table, self.columns, line, refused);
        if let Some(long) = row.iter().position(|cell| cell.len() > CELL_BYTES_MAX) {
            return Err(refuse(Refused(long, format!("a cell of more than {CELL_BYTES_MAX} bytes"))));
        }
        let bytes = self.row_bytes + row.iter().map(|cell| cell.len() as u64).sum::<u64>();
        let room = self.room.checked_sub(bytes);
        self.room = room.ok_or_else(|| {
            let error = refused_line(self.table, line, "more rows than there is memory for");
            error.advise(LESS)
        })?;
        (self.take)(line, row).map_err(refuse)
    }
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
        None if column.required => Err(unreadable(table, format!("column `{}` is missing", column.name))
            .advise(missing_advice(column, columns, names))),
        found => Ok(found),
    };
    columns.iter().map(find).collect()
}

/// What stands in place of a header may be data, which no error shows: columns are named by their
/// numbers, unless they are those that are looked for.
fn missing_advice(column: &Column, columns: &[Column], names: &[&str]) -> String {
    let is_known = |name: &&str| columns.iter().any(|column| column.name == name.trim());
    if !names.iter().any(|name| is_known(name) || near(name.trim(), column.name)) {
        return "its first line must be a header".to_string();
    }
    let is_meant = |name: &&str| !is_known(name) && near(name.trim(), column.name);
    match names.iter().position(is_meant) {
        Some(index) => format!("is its column {} meant?", index + 1),
        None => {
            let known: Vec<&str> =
                names.iter().filter(|name| is_known(name)).map(|name| name.trim()).collect();
            format!("of its {} columns these are known: {}", names.len(), known.join(", "))
        }
    }
}

fn refused_at(table: &str, columns: &[Column], line: u64, Refused(column, what): Refused) -> Error {
    refused_row(format!("{table}:{line}"), format!("column `{}`: {what}", columns[column].name))
}
