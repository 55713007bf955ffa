//! The rejects of a run: every refused line with its place, reason and raw bytes.
//!
//! In: rejects of the counted objects. Out: one Parquet object.
//! Invariant: one row per rejected line, in the order of objects and lines; `raw` is the line as
//! it stood, its end included.

use super::part;
use crate::error::{Error, Result};
use crate::kernel::fused::Reject;
use crate::schema;
use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use std::sync::Arc;

/// `objects` are (name, rejects).
pub fn to_parquet(objects: &[(&str, &[Reject])]) -> Result<Bytes> {
    let mut all: Vec<(&str, &Reject)> = Vec::new();
    for (name, rejects) in objects {
        all.extend(rejects.iter().map(|reject| (*name, reject)));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(all.iter().map(|(name, _)| *name))),
        Arc::new(Int64Array::from_iter_values(all.iter().map(|(_, reject)| reject.line as i64 + 1))),
        Arc::new(Int64Array::from_iter_values(all.iter().map(|(_, reject)| reject.byte_offset as i64))),
        Arc::new(Int32Array::from_iter_values(all.iter().map(|(_, reject)| reject.refusal.column as i32))),
        Arc::new(StringArray::from_iter_values(all.iter().map(|(_, reject)| reject.refusal.reason.name()))),
        Arc::new(BinaryArray::from_iter_values(all.iter().map(|(_, reject)| &reject.raw))),
    ];
    let schema = schema::rejects();
    let batch = RecordBatch::try_new(schema.clone(), columns);
    part::encode(&schema, &[batch.map_err(|e| Error::invariant(format!("rejects are no table: {e}")))?])
}
