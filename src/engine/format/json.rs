//! One JSON object a line.
//!
//! In: record batches. Out: NDJSON, the keys of each object in the order of the columns.
//! Invariant: every row has every key (NULL is `null`), and an amount is a number with all its
//! digits (`12.30`), so that a reader with exact decimals loses nothing.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;

use super::{RowWriter, WriteResult};

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
        let mut lines = builder.build::<_, LineDelimited>(&mut *self.out);
        lines.write(batch)?;
        lines.finish()?;
        Ok(self.out.flush()?)
    }

    fn finish(&mut self) -> WriteResult {
        Ok(())
    }
}
