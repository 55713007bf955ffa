//! One JSON object a line.
//!
//! In: record batches. Out: NDJSON, the keys of each object in the order of the columns.
//! Invariant: every row has every key (NULL is `null`), and an amount is a number with all its
//! digits (`12.30`), so that a reader with exact decimals loses nothing; a line holds no character
//! that nobody can see.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use serde::Serialize;

use super::{RowWriter, WriteResult};
use crate::error::json;

/// A value as one line.
pub fn to_line(value: &impl Serialize) -> String {
    json(&serde_json::to_string(value).expect("text and numbers are JSON")) + "\n"
}

pub struct JsonWriter<'a> {
    out: &'a mut (dyn Write + Send),
}

impl<'a> JsonWriter<'a> {
    pub fn new(out: &'a mut (dyn Write + Send)) -> Self {
        JsonWriter { out }
    }
}

impl RowWriter for JsonWriter<'_> {
    fn batch(&mut self, batch: &RecordBatch) -> WriteResult {
        let builder = WriterBuilder::new().with_explicit_nulls(true);
        let mut lines = builder.build::<_, LineDelimited>(Vec::new());
        lines.write(batch)?;
        lines.finish()?;
        let text = String::from_utf8(lines.into_inner())?;
        self.out.write_all(json(&text).as_bytes())?;
        Ok(self.out.flush()?)
    }

    fn finish(&mut self) -> WriteResult {
        Ok(())
    }
}
