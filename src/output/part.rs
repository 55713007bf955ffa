//! Parquet objects: encoded, created under a name nobody used, and read back.
//!
//! In: batches. Out: the object, its size, checksum and statistics.
//! Invariant: the same batches give the same bytes; what is read back is what was written.

use crate::domain::month::Month;
use crate::error::{Error, Result};
use crate::input::published::{PartFile, Users, user_column, users_of};
use crate::output::manifest::FileRecord;
use crate::schema;
use crate::store::Place;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
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
    /// An object with these bytes, which were read back.
    pub fn new(path: String, bytes: &Bytes, rows: u64) -> Result<WrittenPart> {
        let (size_bytes, sha256) = (bytes.len() as u64, sha256(bytes));
        Ok(WrittenPart { path, size_bytes, rows, sha256, stats: statistics(bytes.clone(), rows)? })
    }

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

/// Creates the object `path` below `table`, and reads it back.
pub fn write(table: &Place, path: &str, bytes: Bytes, rows: u64) -> Result<WrittenPart> {
    let bytes = table.child(path).create_and_read(bytes)?;
    WrittenPart::new(path.to_string(), &bytes, rows)
}

/// Creates an object of a run beside the tables, and reads it back.
pub fn write_file(lake: &Place, path: String, bytes: Bytes, rows: u64) -> Result<FileRecord> {
    let bytes = lake.child(&path).create_and_read(bytes)?;
    Ok(FileRecord { size_bytes: bytes.len() as u64, rows, sha256: sha256(&bytes), path })
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
