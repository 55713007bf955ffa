//! Bounds on what a checkpoint in Parquet may come to, before the library decodes it.
//!
//! In: the body of a checkpoint. Out: what is wrong with it.
//! Invariant: counted is what its values take once each stands for itself, never what its footer claims;
//! no more is unpacked at once than one page and one batch.

use super::bodies::{LINE_BYTES_MAX, TOO_DEEP, is_too_deep};
use crate::input::parquet_bounds::{batch_rows, footer, unpacked_bytes};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::HashSet;

const ROWS_MAX: u64 = 20_000_000;

/// What its values may come to: what no checkpoint is too small for, so much for each of its bytes, and
/// in any case.
const UNPACKED_BYTES_MIN: u64 = 64 * 1024 * 1024;
const UNPACKED_RATIO_MAX: u64 = 200;
const UNPACKED_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// What a row takes beside its texts.
const ROW_BYTES: u64 = 64;

/// Columns whose texts are JSON, which is parsed.
const JSON: [&str; 2] = ["add.stats", "metaData.schemaString"];

const NO_PARQUET: &str = "it is no Parquet";
const TOO_MUCH: &str = "it unpacks to more rows or bytes than any writer's";

/// Errors when a checkpoint in Parquet comes to too much, or its JSON nests too deep.
pub(super) fn check_parquet(body: &Bytes) -> Result<(), &'static str> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let footer = footer(body, options, i64::MAX as u64).map_err(|_| NO_PARQUET)?;
    let metadata = footer.metadata();
    let rows = metadata.row_groups().iter().map(|group| group.num_rows().unsigned_abs());
    let rows = rows.fold(0, u64::saturating_add);
    if rows > ROWS_MAX {
        return Err(TOO_MUCH);
    }
    let most = body.len() as u64 * UNPACKED_RATIO_MAX;
    let mut left = (UNPACKED_BYTES_MIN + most).min(UNPACKED_BYTES_MAX);
    let mut take = |bytes: u64| {
        left = left.checked_sub(bytes).ok_or(TOO_MUCH)?;
        Ok(())
    };
    take(rows * ROW_BYTES)?;
    take(unpacked_bytes(body, metadata).map_err(|_| NO_PARQUET)?)?;
    let file = SerializedFileReader::new(body.clone()).map_err(|_| NO_PARQUET)?;
    for leaf in 0..metadata.file_metadata().schema_descr().num_columns() {
        check_column(body, metadata, &file, leaf, &mut take)?;
    }
    Ok(())
}

/// Errors when the texts of a column come to too much, or nest too deep.
fn check_column(
    body: &Bytes,
    metadata: &ParquetMetaData,
    file: &SerializedFileReader<Bytes>,
    leaf: usize,
    take: &mut dyn FnMut(u64) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let column = metadata.file_metadata().schema_descr().column(leaf);
    let is_json = JSON.contains(&column.path().string().as_str());
    let rows = batch_rows(body, metadata, &[leaf]).map_err(|_| NO_PARQUET)?;
    for group in 0..metadata.num_row_groups() {
        let group = file.get_row_group(group).map_err(|_| NO_PARQUET)?;
        let reader = group.get_column_reader(leaf).map_err(|_| NO_PARQUET)?;
        let ColumnReader::ByteArrayColumnReader(mut reader) = reader else { return Ok(()) };
        while let Some(values) = next(&mut reader, rows)? {
            for value in &values {
                if value.len() > LINE_BYTES_MAX {
                    return Err(TOO_MUCH);
                }
                take(value.len() as u64)?;
            }
            // Rows that name one value of the dictionary share its bytes.
            let mut seen = HashSet::new();
            let mut values = values.iter().filter(|value| seen.insert((value.data().as_ptr(), value.len())));
            if is_json && values.any(|value| is_too_deep(value.data())) {
                return Err(TOO_DEEP);
            }
        }
    }
    Ok(())
}

/// The values of the next rows; none at the end.
fn next(
    reader: &mut ColumnReaderImpl<ByteArrayType>,
    rows: usize,
) -> Result<Option<Vec<ByteArray>>, &'static str> {
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    let read = reader.read_records(rows, Some(&mut definitions), Some(&mut repetitions), &mut values);
    let (rows, _, _) = read.map_err(|_| NO_PARQUET)?;
    Ok((rows > 0).then_some(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, ArrayRef, Int32Array, ListArray, RecordBatch, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Encoding, ZstdLevel};
    use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    /// As it would stand in a checkpoint: batches of a column of `add`.
    fn checkpoint(name: &str, batches: u32, column: ArrayRef, properties: WriterPropertiesBuilder) -> Bytes {
        let field = Arc::new(Field::new(name, column.data_type().clone(), true));
        let add: ArrayRef = Arc::new(StructArray::from(vec![(field, column)]));
        let batch = RecordBatch::try_from_iter([("add", add)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
        (0..batches).for_each(|_| writer.write(&batch).unwrap());
        Bytes::from(writer.into_inner().unwrap())
    }

    fn texts(text: &str, count: usize) -> ArrayRef {
        Arc::new(StringArray::from(vec![Some(text); count]))
    }

    #[test]
    fn json_in_a_checkpoint_nests_to_the_same_bound() {
        let stats = |text: &str| {
            let column: ArrayRef = Arc::new(StringArray::from(vec![Some("{}"), None, Some(text)]));
            checkpoint("stats", 1, column, WriterProperties::builder())
        };
        let deep = format!("{{\"minValues\":{}", "[".repeat(100_000));
        assert_eq!(check_parquet(&stats(&deep)), Err(TOO_DEEP));
        assert_eq!(check_parquet(&stats("{\"numRecords\":1}")), Ok(()));
        assert_eq!(check_parquet(&Bytes::from_static(b"no Parquet")), Err(NO_PARQUET));
    }

    #[test]
    fn values_that_share_their_bytes_are_counted_for_each_row() {
        let zstd = || {
            let level = ZstdLevel::try_new(3).unwrap();
            WriterProperties::builder().set_compression(parquet::basic::Compression::ZSTD(level))
        };
        let long = "x".repeat(1 << 20);
        let started = Instant::now();
        for name in ["stats", "path", "anything"] {
            let body = checkpoint(name, 8, texts(&long, 100), zstd());
            assert!(body.len() < 256 << 10, "{} bytes", body.len());
            assert_eq!(check_parquet(&body), Err(TOO_MUCH), "{name}");
        }
        // Each value repeats the beginning of the one before it.
        let front = zstd().set_dictionary_enabled(false).set_encoding(Encoding::DELTA_BYTE_ARRAY);
        assert_eq!(check_parquet(&checkpoint("stats", 1, texts(&long, 200), front)), Err(TOO_MUCH));
        let plain = zstd().set_dictionary_enabled(false);
        assert_eq!(check_parquet(&checkpoint("stats", 1, texts(&long, 80), plain)), Err(TOO_MUCH));
        // A list of no bytes, as long as nobody's.
        let numbers = Arc::new(Int32Array::from(vec![7; 6_000_000]));
        let field = Arc::new(Field::new("element", numbers.data_type().clone(), false));
        let list = ListArray::new(field, OffsetBuffer::from_lengths([6_000_000]), numbers, None);
        assert_eq!(check_parquet(&checkpoint("list", 1, Arc::new(list), zstd())), Err(TOO_MUCH));
        assert!(started.elapsed() < Duration::from_secs(60), "it took {:?}", started.elapsed());
        // What writers do write.
        let stats = "{\"numRecords\":1}".repeat(20);
        assert_eq!(check_parquet(&checkpoint("stats", 4, texts(&stats, 20_000), zstd())), Ok(()));
    }
}
