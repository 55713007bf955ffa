//! The rejects of a run: every refused line with its place, reason and raw bytes.
//!
//! In: rejects of the counted objects, some at a time. Out: one Parquet object.
//! Invariant: one row per rejected line, in the order of objects and lines; `raw` is the line as
//! it stood, its end included.

use super::part;
use crate::error::{Error, Result};
use crate::kernel::fused::Reject;
use crate::schema;
use arrow::array::{ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::sync::Arc;

/// Hands over the rejected lines of what [`to_parquet`] has written, as they stood, one after the other.
/// Errors: that cannot be read, or, inside, whoever takes them fails.
pub fn each_raw_line(
    bytes: Bytes,
    mut on_line: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<std::io::Result<()>> {
    let broken = |e: &dyn std::fmt::Display| Error::unfit(format!("the rejects cannot be read: {e}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| broken(&e))?;
    for batch in builder.build().map_err(|e| broken(&e))? {
        let batch = batch.map_err(|e| broken(&e))?;
        let raw = batch.column_by_name("raw").and_then(|column| column.as_binary_opt::<i32>());
        let raw = raw.ok_or_else(|| broken(&"they have no raw lines"))?;
        if let Err(error) = raw.iter().flatten().try_for_each(&mut on_line) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// `rejects` are (object, rejects of it). Errors: they cannot be read, or are not so many.
pub fn to_parquet<'a>(
    rejects: impl Iterator<Item = (&'a str, Result<Vec<Reject>>)>,
    rejected_rows: u64,
) -> Result<Bytes> {
    let (schema, mut rows) = (schema::rejects(), 0);
    let batches = rejects.map(|(name, rejects)| {
        let rejects = rejects?;
        rows += rejects.len() as u64;
        batch(&schema, name, &rejects)
    });
    let bytes = part::encode_each(&schema, batches)?;
    match rows == rejected_rows {
        true => Ok(bytes),
        false => Err(Error::invariant(format!("{rejected_rows} rows were rejected and {rows} are kept"))),
    }
}

fn batch(schema: &SchemaRef, name: &str, rejects: &[Reject]) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rejects.iter().map(|_| name))),
        Arc::new(Int64Array::from_iter_values(rejects.iter().map(|reject| reject.line as i64 + 1))),
        Arc::new(Int64Array::from_iter_values(rejects.iter().map(|reject| reject.byte_offset as i64))),
        Arc::new(Int32Array::from_iter_values(rejects.iter().map(|reject| reject.refusal.column as i32))),
        Arc::new(StringArray::from_iter_values(rejects.iter().map(|reject| reject.refusal.reason.name()))),
        Arc::new(BinaryArray::from_iter_values(rejects.iter().map(|reject| &reject.raw))),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns);
    batch.map_err(|e| Error::invariant(format!("rejects are no table: {e}")))
}
