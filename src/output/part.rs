//! Parquet objects: encoded, created under a name nobody used, read back and held to a checksum.
//!
//! In: batches. Out: the object, its size, checksum and statistics.
//! Invariant: the same batches give the same bytes; what is read back is what was written.

use crate::domain::month::Month;
use crate::error::{Error, Kind, Result};
use crate::input::published::{PartFile, Users, user_column, users_of};
use crate::output::manifest::FileRecord;
use crate::schema;
use crate::store::Place;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnDescPtr;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// An object that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenPart {
    /// Below its table.
    pub path: String,
    pub size_bytes: u64,
    pub rows: u64,
    pub sha256: String,
    /// Delta statistics as JSON.
    pub stats: String,
}

impl WrittenPart {
    /// As a table's commit names it.
    pub fn file(self, month: Option<Month>) -> PartFile {
        let WrittenPart { path, size_bytes, rows, stats, .. } = self;
        PartFile { path, size_bytes, rows, month, stats: Some(stats) }
    }
}

/// A Delta table keeps its partition column, `month`, in paths and not in files.
pub fn without_partition_column(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().filter(|f| f.name() != "month").cloned().collect();
    Arc::new(Schema::new(fields))
}

/// Encodes batches as one Parquet object.
pub fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Bytes> {
    encode_each(schema, batches.iter().cloned().map(Ok))
}

/// Encodes batches as one Parquet object, as they come.
pub fn encode_each(schema: &SchemaRef, batches: impl Iterator<Item = Result<RecordBatch>>) -> Result<Bytes> {
    let options = ArrowWriterOptions::new().with_properties(schema::writer_properties().build());
    let mut bytes = Vec::new();
    let writer = ArrowWriter::try_new_with_options(&mut bytes, schema.clone(), options);
    let mut writer = writer.map_err(broken)?;
    for batch in batches {
        writer.write(&batch?).map_err(broken)?;
    }
    writer.close().map_err(broken)?;
    Ok(bytes.into())
}

pub(super) fn broken(e: ParquetError) -> Error {
    Error::invariant(format!("Parquet cannot be written: {e}"))
}

/// Encodes row groups apart from each other, on any thread, before they make an object.
pub struct RowGroupEncoder {
    schema: SchemaRef,
    options: ArrowWriterOptions,
    columns: ArrowRowGroupWriterFactory,
}

/// The columns of a row group, encoded.
pub type RowGroup = Vec<Column>;

/// A column of a row group, encoded.
pub enum Column {
    ByArrow(ArrowColumnChunk),
    ByHand(Bytes, ColumnCloseResult),
}

impl Column {
    fn size_bytes(&self) -> u64 {
        match self {
            Column::ByArrow(column) => column.close().bytes_written,
            Column::ByHand(bytes, _) => bytes.len() as u64,
        }
    }

    fn append_to(self, row_group: &mut SerializedRowGroupWriter<Vec<u8>>) -> Result<(), ParquetError> {
        match self {
            Column::ByArrow(column) => column.append_to_row_group(row_group),
            Column::ByHand(bytes, close) => row_group.append_column(&bytes, close),
        }
    }
}

impl RowGroupEncoder {
    pub fn new(schema: SchemaRef, options: ArrowWriterOptions) -> Result<RowGroupEncoder> {
        let (_, columns) = begin(Vec::new(), &schema, &options)?;
        Ok(RowGroupEncoder { schema, options, columns })
    }

    /// The description of a column.
    pub fn column(&self, index: usize) -> Result<ColumnDescPtr> {
        let schema = ArrowSchemaConverter::new().convert(&self.schema).map_err(broken)?;
        Ok(schema.column(index))
    }

    /// Encodes one column of a row group, that at `index`.
    pub fn encode(&self, index: usize, arrays: impl Iterator<Item = ArrayRef>) -> Result<Column> {
        // Only encryption would ask which of the row groups it is.
        let mut columns = self.columns.create_column_writers(0).map_err(broken)?;
        let mut column = columns.swap_remove(index);
        for array in arrays {
            for leaf in compute_leaves(self.schema.field(index), &array).map_err(broken)? {
                column.write(&leaf).map_err(broken)?;
            }
        }
        column.close().map(Column::ByArrow).map_err(broken)
    }

    /// Makes one object of its row groups.
    pub fn join(&self, row_groups: Vec<RowGroup>) -> Result<Bytes> {
        let size: u64 = row_groups.iter().flatten().map(Column::size_bytes).sum();
        let room = Vec::with_capacity(size as usize + FOOTER_BYTES);
        let (mut writer, _) = begin(room, &self.schema, &self.options)?;
        for row_group in row_groups {
            let mut next = writer.next_row_group().map_err(broken)?;
            row_group.into_iter().try_for_each(|column| column.append_to(&mut next)).map_err(broken)?;
            next.close().map_err(broken)?;
        }
        Ok(writer.into_inner().map_err(broken)?.into())
    }
}

/// What an object takes besides its columns, about.
const FOOTER_BYTES: usize = 64 * 1024;

type Begun = (SerializedFileWriter<Vec<u8>>, ArrowRowGroupWriterFactory);

fn begin(room: Vec<u8>, schema: &SchemaRef, options: &ArrowWriterOptions) -> Result<Begun> {
    let writer = ArrowWriter::try_new_with_options(room, schema.clone(), options.clone());
    writer.and_then(ArrowWriter::into_serialized_writer).map_err(broken)
}

/// Creates the object `path` below `table`.
pub fn write(table: &Place, path: &str, bytes: Bytes, rows: u64) -> Result<WrittenPart> {
    let place = table.child(path);
    let written = WrittenPart {
        path: path.to_string(),
        size_bytes: bytes.len() as u64,
        rows,
        sha256: sha256(&bytes),
        stats: statistics(bytes.clone(), rows)?,
    };
    place.create(bytes)?;
    Ok(written)
}

/// Reads a written object back and holds it to its checksum.
pub fn read_back(place: &Place, written: &WrittenPart) -> Result<Bytes> {
    let bytes = place.read()?;
    match sha256(&bytes) == written.sha256 {
        true => Ok(bytes),
        false => Err(Error::new(Kind::Invariant, "an object reads back with other bytes").at(&place.shown)),
    }
}

/// Creates an object of a run beside the tables, and reads it back.
pub fn write_file(lake: &Place, path: String, bytes: Bytes, rows: u64) -> Result<FileRecord> {
    let (place, checksum, size_bytes) = (lake.child(&path), sha256(&bytes), bytes.len() as u64);
    place.create(bytes)?;
    match sha256(&place.read()?) == checksum {
        true => Ok(FileRecord { path, size_bytes, rows, sha256: checksum }),
        false => Err(Error::invariant("an object reads back with other bytes").at(&place.shown)),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The range of `user_id` over the row groups, for readers that prune files before they open one.
fn statistics(bytes: Bytes, rows: u64) -> Result<String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes);
    let builder = builder.map_err(|e| Error::invariant(format!("Parquet cannot be read: {e}")))?;
    let range = user_range(builder.metadata());
    let json = match range {
        Some((low, high)) => serde_json::json!({
            "numRecords": rows,
            "minValues": {"user_id": low},
            "maxValues": {"user_id": high},
            "nullCount": {"user_id": 0},
        }),
        None => serde_json::json!({ "numRecords": rows }),
    };
    Ok(json.to_string())
}

fn user_range(metadata: &ParquetMetaData) -> Option<(u64, u64)> {
    let column = user_column(metadata)?;
    let users = metadata.row_groups().iter().map(|group| users_of(group, column));
    let ranges: Vec<Users> = users.collect::<Option<_>>()?;
    Some((*ranges.iter().map(Users::start).min()?, *ranges.iter().map(Users::end).max()?))
}
