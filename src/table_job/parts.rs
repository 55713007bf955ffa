//! The parts of an answer, written as its rows come.
//!
//! In: batches. Out: parts of a table that no commit names yet.
//! Invariant: no more than one part is held in memory, and it is bounded; so are all of them together.

use crate::error::{Error, Result};
use crate::limits::{ANSWER_PART_BYTES, ANSWER_PART_ROWS, ANSWER_ROWS_MAX};
use crate::output::part::WrittenPart;
use crate::planted::Bug;
use crate::schema;
use crate::store::Place;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;

/// What an answer may come to.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub rows: u64,
    pub bytes: u64,
    /// A part ends when it has passed this; so does a row group that takes half of it.
    pub part_bytes: usize,
}

impl Size {
    /// Parts are small where memory is: one is held as it is written, and once more as it is read back.
    pub fn of(answer_bytes: u64, memory_bytes: u64) -> Size {
        let part_bytes = match Bug::AnswerInOnePart.is_planted() {
            true => usize::MAX,
            false => ANSWER_PART_BYTES.min(memory_bytes as usize / 16),
        };
        let unbounded = Bug::AnswerUnbounded.is_planted();
        let bytes = if unbounded { u64::MAX } else { answer_bytes };
        Size { rows: ANSWER_ROWS_MAX, bytes, part_bytes }
    }
}

/// Parts under way.
pub struct Parts<'a> {
    table: &'a Place,
    run_id: &'a str,
    schema: SchemaRef,
    size: Size,
    /// The part at hand, and its rows.
    writer: Option<ArrowWriter<Vec<u8>>>,
    rows: u64,
    /// Those that were written. Its owner deletes them where the rest does not come.
    written: &'a mut Vec<WrittenPart>,
}

impl<'a> Parts<'a> {
    pub fn new(
        table: &'a Place,
        run_id: &'a str,
        schema: SchemaRef,
        size: Size,
        written: &'a mut Vec<WrittenPart>,
    ) -> Parts<'a> {
        Parts { table, run_id, schema, size, writer: None, rows: 0, written }
    }

    /// Adds rows. Errors when the answer becomes too large.
    pub async fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        let rows = self.rows + self.written.iter().map(|part| part.rows).sum::<u64>();
        if rows > self.size.rows {
            return Err(too_large(format!("more than {} rows", self.size.rows)));
        }
        let writer = self.writer()?;
        writer.write(batch).map_err(broken)?;
        let (held, encoded) = (writer.memory_size(), writer.bytes_written() + writer.in_progress_size());
        if held > self.size.part_bytes / 2 {
            self.writer()?.flush().map_err(broken)?;
        }
        if encoded > self.size.part_bytes || self.rows >= ANSWER_PART_ROWS {
            self.end_part().await?;
        }
        Ok(())
    }

    /// Writes what is left. An answer without rows is a part without rows.
    pub async fn finish(mut self) -> Result<()> {
        if self.writer.is_some() || self.written.is_empty() {
            self.end_part().await?;
        }
        Ok(())
    }

    fn writer(&mut self) -> Result<&mut ArrowWriter<Vec<u8>>> {
        if self.writer.is_none() {
            let options = ArrowWriterOptions::new().with_properties(schema::writer_properties().build());
            let writer = ArrowWriter::try_new_with_options(Vec::new(), self.schema.clone(), options);
            self.writer = Some(writer.map_err(broken)?);
        }
        self.writer.as_mut().ok_or_else(|| Error::invariant("a part has no writer"))
    }

    async fn end_part(&mut self) -> Result<()> {
        self.writer()?;
        let writer = self.writer.take().ok_or_else(|| Error::invariant("a part has no writer"))?;
        let bytes = writer.into_inner().map_err(broken)?;
        let before = self.written.iter().map(|part| part.size_bytes).sum::<u64>();
        if before + bytes.len() as u64 > self.size.bytes {
            return Err(too_large(format!("more than {} MiB, as Parquet", self.size.bytes >> 20)));
        }
        let path = match self.written.len() {
            0 => format!("part-{}.parquet", self.run_id),
            number => format!("part-{number:05}-{}.parquet", self.run_id),
        };
        let bytes = self.table.child(&path).create_and_read_now(bytes.into()).await?;
        self.written.push(WrittenPart::new(path, &bytes, std::mem::take(&mut self.rows))?);
        Ok(())
    }
}

fn too_large(what: String) -> Error {
    let advice = "ask for fewer rows or columns; limits.answer bounds its bytes";
    Error::unfit(format!("the answer is {what}; nothing was published")).at("query").advise(advice)
}

fn broken(error: ParquetError) -> Error {
    Error::invariant(format!("Parquet cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::output::part;
    use crate::store::wait;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn batches(count: i64) -> (SchemaRef, Vec<RecordBatch>) {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = |number: i64| {
            let numbers =
                (0..1000).map(|n| (number * 1000 + n).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64));
            let numbers = Arc::new(Int64Array::from_iter_values(numbers));
            RecordBatch::try_new(schema.clone(), vec![numbers]).unwrap()
        };
        (schema.clone(), (0..count).map(batch).collect())
    }

    fn write(size: Size, count: i64) -> (Result<()>, Vec<WrittenPart>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let table = Place::open(folder.path().to_str().unwrap()).unwrap();
        let (schema, batches) = batches(count);
        let mut written = Vec::new();
        let done = wait(async {
            let mut parts = Parts::new(&table, "run", schema, size, &mut written);
            for batch in &batches {
                parts.add(batch).await?;
            }
            parts.finish().await
        });
        (done, written, folder)
    }

    #[test]
    fn a_small_answer_is_one_part_as_it_always_was() {
        let size = Size::of(1 << 30, 1 << 30);
        let (done, written, folder) = write(size, 200);
        done.unwrap();
        assert_eq!((written.len(), written[0].path.as_str()), (1, "part-run.parquet"));
        let (schema, batches) = batches(200);
        let bytes = part::encode(&schema, &batches).unwrap();
        assert!(std::fs::read(folder.path().join("part-run.parquet")).unwrap() == bytes);
        let (done, written, _) = write(size, 0);
        done.unwrap();
        assert_eq!((written.len(), written[0].rows), (1, 0));
    }

    #[test]
    fn a_large_answer_is_many_parts_and_too_large_a_one_is_refused() {
        let size = Size { part_bytes: 100_000, ..Size::of(1 << 30, 1 << 30) };
        let (done, written, _) = write(size, 100);
        done.unwrap();
        assert!(written.len() >= 7 && written.iter().all(|part| part.size_bytes < 150_000), "{written:?}");
        assert_eq!(written.iter().map(|part| part.rows).sum::<u64>(), 100_000);
        assert_eq!(written[1].path, "part-00001-run.parquet");
        let bounded = [Size { rows: 99_999, ..size }, Size { bytes: 600_000, ..size }];
        for (size, said) in bounded.into_iter().zip(["more than 99999 rows", "more than 0 MiB"]) {
            let error = write(size, 100).0.unwrap_err();
            assert_eq!(error.kind, Kind::Unfit);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
