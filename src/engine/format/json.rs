//! One JSON object a line.
//!
//! In: record batches. Out: NDJSON, the keys of each object in the order of the columns.
//! Invariant: every row has every key (NULL is `null`), and an amount is a number with all its
//! digits (`12.30`), so that a reader with exact decimals loses nothing; a line holds no control
//! character.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use serde::Serialize;

use super::{RowWriter, WriteResult};

/// A value as one line.
pub fn to_line(value: &impl Serialize) -> String {
    escaped(serde_json::to_string(value).expect("text and numbers are JSON")) + "\n"
}

/// JSON lets the second set of control characters stand, and a terminal obeys them. Outside of its strings
/// there are none.
fn escaped(json: String) -> String {
    let steers = |c: char| ('\u{7f}'..='\u{9f}').contains(&c);
    if !json.contains(steers) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + json.len() / 8);
    for c in json.chars() {
        match steers(c) {
            true => escaped += &format!("\\u{:04x}", c as u32),
            false => escaped.push(c),
        }
    }
    escaped
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
        self.out.write_all(escaped(text).as_bytes())?;
        Ok(self.out.flush()?)
    }

    fn finish(&mut self) -> WriteResult {
        Ok(())
    }
}
