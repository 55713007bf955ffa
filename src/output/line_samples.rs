//! Some lines of every counted object, kept beside its run to tell overlaps by.
//!
//! In: samples by object. Out: one Parquet object, and back.
//! Invariant: hashes of lines, never lines; an object without a sampled line does not appear.

use super::manifest::FileRecord;
use super::part;
use crate::error::{Error, Result};
use crate::kernel::line_sample::LineSample;
use crate::schema;
use arrow::array::{AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name below a run.
const NAME: &str = "line_samples.parquet";

/// Writes samples by object; `create` makes an object of the run.
pub fn write(
    objects: &[(&str, &LineSample)],
    create: &dyn Fn(&str, Bytes, u64) -> Result<FileRecord>,
) -> Result<FileRecord> {
    let mut all: Vec<(&str, i32, i64)> = Vec::new();
    for (name, sample) in objects {
        all.extend(sample.hashes.iter().map(|hash| (*name, sample.level as i32, *hash as i64)));
    }
    let schema = schema::line_samples();
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(all.iter().map(|(name, ..)| *name))),
        Arc::new(Int32Array::from_iter_values(all.iter().map(|(_, level, _)| *level))),
        Arc::new(Int64Array::from_iter_values(all.iter().map(|(.., hash)| *hash))),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns);
    let batch = batch.map_err(|e| Error::invariant(format!("samples are no table: {e}")))?;
    create(NAME, part::encode(&schema, &[batch])?, all.len() as u64)
}

/// The samples that [`write`] has written. None for anything else.
pub fn read(bytes: Bytes) -> Option<BTreeMap<String, LineSample>> {
    let mut samples: BTreeMap<String, LineSample> = BTreeMap::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?.build().ok()? {
        let batch = batch.ok()?;
        let names = batch.column_by_name("source_object")?.as_string_opt::<i32>()?;
        let levels = batch.column_by_name("level")?.as_primitive_opt::<Int32Type>()?;
        let hashes = batch.column_by_name("line_hash")?.as_primitive_opt::<Int64Type>()?;
        for row in 0..batch.num_rows() {
            let sample = samples.entry(names.value(row).to_string()).or_default();
            sample.level = u32::try_from(levels.value(row)).ok().filter(|level| *level < u64::BITS)?;
            sample.hashes.push(hashes.value(row) as u64);
        }
    }
    Some(samples)
}
