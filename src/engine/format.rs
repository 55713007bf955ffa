//! Rows for people and for programs.
//!
//! In: the answer to a query. Out: text or Parquet in any writer, batch by batch.
//! Invariant: nothing is held but the batch at hand (Parquet: the row group), so a long answer
//! needs no more memory than a short one; a reader that stops reading is no error.

mod csv;
mod json;
mod table;

pub use json::to_line;

use std::error::Error as Cause;
use std::fmt;
use std::io::{BufWriter, ErrorKind, Write};
use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::sql::{QueryResult, reading_failed};
use crate::error::{Error, Kind, Result};

/// What a row group of Parquet may take in memory, however wide its rows are.
const ROW_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// How the rows of an answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns, for people.
    Table,
    Csv,
    /// One object a line.
    Json,
    /// One file.
    Parquet,
}

impl Format {
    pub const ALL: [Format; 4] = [Format::Table, Format::Csv, Format::Json, Format::Parquet];

    pub fn name(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Parquet => "parquet",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        let known = Format::ALL.into_iter().find(|format| format.name() == text);
        known.ok_or_else(|| format!("`{text}` is not a format: table, csv, json or parquet"))
    }
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub rows: u64,
    /// The reader closed its end before the last row.
    pub reader_left: bool,
}

/// A failure below a format; what it means is decided in one place.
type WriteResult = Result<(), Box<dyn Cause + Send + Sync>>;

/// A format at work on one answer.
trait RowWriter {
    fn batch(&mut self, batch: &RecordBatch) -> WriteResult;

    /// Whatever comes after the last row; the format is not used again.
    fn finish(&mut self) -> WriteResult;
}

/// Writes all rows of the answer as they come.
pub async fn write(result: QueryResult, format: Format, out: &mut (dyn Write + Send)) -> Result<Written> {
    let QueryResult { schema, mut rows, is_plan } = result;
    let mut written = Written { rows: 0, reader_left: false };
    let mut buffered = BufWriter::with_capacity(64 * 1024, out);
    let mut writer = match row_writer(&schema, is_plan, format, &mut buffered) {
        Ok(writer) => writer,
        Err(failure) => return left_or_failed(failure, written),
    };
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(reading_failed)?;
        if let Err(failure) = writer.batch(&batch) {
            return left_or_failed(failure, written);
        }
        written.rows += batch.num_rows() as u64;
    }
    let finished = writer.finish();
    drop(writer);
    match finished.and_then(|()| Ok(buffered.flush()?)) {
        Ok(()) => Ok(written),
        Err(failure) => left_or_failed(failure, written),
    }
}

fn row_writer<'a>(
    schema: &SchemaRef,
    is_plan: bool,
    format: Format,
    out: &'a mut (dyn Write + Send),
) -> Result<Box<dyn RowWriter + Send + 'a>, Box<dyn Cause + Send + Sync>> {
    if matches!(format, Format::Json | Format::Parquet) {
        names_differ(schema)?;
    }
    Ok(match format {
        Format::Table if is_plan => Box::new(table::PlanWriter::new(out)),
        Format::Table => Box::new(table::TableWriter::new(schema, out)),
        Format::Csv => Box::new(csv::CsvWriter::new(schema, out)?),
        Format::Json => Box::new(json::JsonWriter::new(out)),
        Format::Parquet => Box::new(parquet_writer(schema, out)?),
    })
}

/// A reader of objects or of Parquet would see one of two columns of the same name.
fn names_differ(schema: &SchemaRef) -> Result<()> {
    let mut names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::unfit(format!("two columns are called `{}`", pair[0]))
            .at("query")
            .advise("give one of them another name with AS")),
        None => Ok(()),
    }
}

fn parquet_writer<W: Write + Send>(
    schema: &SchemaRef,
    out: W,
) -> Result<ArrowWriter<W>, parquet::errors::ParquetError> {
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
    // The types of Parquet say all there is to say; Arrow's own (text as views) would bind the
    // readers to it.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(out, schema.clone(), options)
}

impl<W: Write + Send> RowWriter for ArrowWriter<W> {
    fn batch(&mut self, batch: &RecordBatch) -> WriteResult {
        self.write(batch)?;
        if self.memory_size() > ROW_GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> WriteResult {
        ArrowWriter::finish(self)?;
        Ok(())
    }
}

/// A reader that has left is a good end (`| head`); anything else is an error.
fn left_or_failed(failure: Box<dyn Cause + Send + Sync>, written: Written) -> Result<Written> {
    let failure = match failure.downcast::<Error>() {
        Ok(ours) => return Err(*ours),
        Err(other) => other,
    };
    let mut cause: Option<&(dyn Cause + 'static)> = Some(failure.as_ref());
    while let Some(current) = cause {
        if let Some(system) = current.downcast_ref::<std::io::Error>() {
            if system.kind() == ErrorKind::BrokenPipe {
                return Ok(Written { reader_left: true, ..written });
            }
            return Err(Error::new(Kind::CannotWrite, system.to_string()).at("output"));
        }
        cause = current.source();
    }
    Err(Error::unfit(format!("the rows cannot be written in this format: {failure}")).at("output"))
}

/// The cells of a batch as text. A value that has no text is an error, not a cell that says so.
fn cells(batch: &RecordBatch) -> Result<Vec<ArrayFormatter<'_>>, arrow::error::ArrowError> {
    const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(false);
    let columns = batch.columns().iter();
    columns.map(|column| ArrayFormatter::try_new(column.as_ref(), &OPTIONS)).collect()
}

/// Whether the values of a column are numbers, to be aligned on the right and never quoted.
fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_number(values),
        other => other.is_numeric(),
    }
}

#[cfg(test)]
mod tests;
