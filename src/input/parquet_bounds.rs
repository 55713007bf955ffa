//! What a Parquet file may cost, found out before anything of it is decoded.
//!
//! In: the bytes of a file that somebody else may have written. Out: its footer, and how many rows may
//! be decoded at once.
//! Invariant: rows are those that the pages hold, not those that the footer claims; no page and no
//! batch takes more memory than `limits` allows, however small the file is.

use super::thrift::{Compact, FALSE, I32, LIST, STRUCT};
use crate::limits::{PARQUET_BATCH_BYTES, PARQUET_FOOTER_BYTES_MAX, PARQUET_PAGE_BYTES_MAX};
use crate::planted::Bug;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use std::io::Read;

/// Groups within each other in a schema.
const SCHEMA_DEPTH_MAX: usize = 16;

/// Rows of a batch where values are short.
const BATCH_ROWS_MAX: u64 = 8192;

/// What ends a Parquet file: the length of the footer, and four letters.
const TAIL_BYTES: usize = 8;

/// Reads the footer of a file of at most `rows_max` rows. Errors: what is wrong with it, without a word
/// of what it holds.
pub fn footer(
    bytes: &Bytes,
    options: ArrowReaderOptions,
    rows_max: u64,
) -> Result<ArrowReaderMetadata, String> {
    check_footer(bytes)?;
    let metadata = ArrowReaderMetadata::load(bytes, options).map_err(|_| "its footer cannot be read")?;
    let rows = rows(metadata.metadata()).ok_or("its footer counts rows that cannot be")?;
    match rows > rows_max && !Bug::FooterBoundIgnored.is_planted() {
        true => Err(format!("{rows} rows; the most is {rows_max}")),
        false => Ok(metadata),
    }
}

/// How many rows a footer promises; none where its numbers contradict each other.
pub fn rows(metadata: &ParquetMetaData) -> Option<u64> {
    let of_groups = metadata.row_groups().iter();
    let mut rows = of_groups.map(|group| u64::try_from(group.num_rows()).ok());
    let rows = rows.try_fold(0u64, |sum, rows| sum.checked_add(rows?))?;
    (u64::try_from(metadata.file_metadata().num_rows()) == Ok(rows)).then_some(rows)
}

/// Walks over the footer before anybody builds something of it.
fn check_footer(bytes: &[u8]) -> Result<(), String> {
    let body = bytes.len().checked_sub(TAIL_BYTES).filter(|_| bytes.starts_with(b"PAR1"));
    let (body, tail) = bytes.split_at(body.ok_or("it is no Parquet file")?);
    let (length, magic) = tail.split_at(4);
    if magic != b"PAR1" {
        return Err("it is no whole Parquet file, or an encrypted one".into());
    }
    let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
    if length > PARQUET_FOOTER_BYTES_MAX {
        return Err(format!("a footer of {length} bytes; the most is {PARQUET_FOOTER_BYTES_MAX}"));
    }
    let start = body.len().checked_sub(length).ok_or("its footer is longer than the file")?;
    let mut depth = 0;
    let walked = Compact::new(&body[start..]).fields(|footer, id, kind| match (id, kind) {
        (2, LIST) => schema_depth(footer).map(|found| {
            depth = found;
            true
        }),
        _ => Some(false),
    });
    walked.ok_or("its footer cannot be read")?;
    match depth > SCHEMA_DEPTH_MAX {
        true => Err(format!("a schema of more than {SCHEMA_DEPTH_MAX} groups within each other")),
        false => Ok(()),
    }
}

/// How deep the groups of a schema lie in each other: it is a list in which each node says how many
/// of the next ones are its children.
fn schema_depth(footer: &mut Compact) -> Option<usize> {
    let (nodes, STRUCT) = footer.list()? else { return None };
    // Of each open group: how many of its children are still to come.
    let (mut open, mut deepest): (Vec<i64>, usize) = (Vec::new(), 0);
    for _ in 0..nodes {
        let mut children = 0;
        footer.fields(|node, id, kind| match (id, kind) {
            (5, I32) => node.whole().map(|count| {
                children = count;
                true
            }),
            _ => Some(false),
        })?;
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(missing) = open.last_mut() {
            *missing -= 1;
        }
        if children > 0 && open.len() <= SCHEMA_DEPTH_MAX {
            open.push(children);
        }
        deepest = deepest.max(open.len());
    }
    Some(deepest)
}

/// What the pages of all columns come to once they are unpacked, the values of lists included: those may be
/// any number in a few bytes.
pub fn unpacked_bytes(bytes: &[u8], metadata: &ParquetMetaData) -> Result<u64, String> {
    let mut sum = 0u64;
    for group in metadata.row_groups() {
        let rows = u64::try_from(group.num_rows()).map_err(|_| "its footer cannot be read")?;
        for column in group.columns() {
            sum = sum.saturating_add(walk_pages(bytes, column, rows)?.unpacked_bytes);
        }
    }
    Ok(sum)
}

/// How many rows of these columns may be decoded at once. Errors: pages that do not hold the rows that
/// the footer promises, or take too much.
pub fn batch_rows(bytes: &[u8], metadata: &ParquetMetaData, leaves: &[usize]) -> Result<usize, String> {
    let mut row_bytes = 1;
    for leaf in leaves {
        let mut of_column = 0;
        for group in metadata.row_groups() {
            let column = group.columns().get(*leaf).ok_or("its footer lacks a column")?;
            let rows = u64::try_from(group.num_rows()).map_err(|_| "its footer cannot be read")?;
            of_column = of_column.max(walk_pages(bytes, column, rows)?.row_bytes);
        }
        row_bytes += of_column;
    }
    Ok((PARQUET_BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS_MAX) as usize)
}

/// The header of a page.
#[derive(Default)]
struct Page {
    kind: i64,
    unpacked_bytes: i64,
    packed_bytes: i64,
    values: i64,
    encoding: i64,
    /// Of the second version: levels, which stand before the values and are never packed.
    level_bytes: i64,
    is_unpacked: bool,
}

const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
const DATA_PAGE_V2: i64 = 3;
/// Each value may repeat the beginning of the one before it.
const DELTA_BYTE_ARRAY: i64 = 7;

impl Page {
    fn read(header: &mut Compact) -> Option<Page> {
        let mut page = Page::default();
        header.fields(|header, id, kind| {
            let number = match (id, kind) {
                (1, I32) => &mut page.kind,
                (2, I32) => &mut page.unpacked_bytes,
                (3, I32) => &mut page.packed_bytes,
                (5 | 7, STRUCT) => return page.read_values(header),
                (8, STRUCT) => return page.read_second(header),
                _ => return Some(false),
            };
            *number = header.whole()?;
            Some(true)
        })?;
        Some(page)
    }

    /// The header of a dictionary, or of a data page of the first version.
    fn read_values(&mut self, header: &mut Compact) -> Option<bool> {
        header.fields(|header, id, kind| {
            let number = match (id, kind) {
                (1, I32) => &mut self.values,
                (2, I32) => &mut self.encoding,
                _ => return Some(false),
            };
            *number = header.whole()?;
            Some(true)
        })?;
        Some(true)
    }

    /// The header of a data page of the second version.
    fn read_second(&mut self, header: &mut Compact) -> Option<bool> {
        header.fields(|header, id, kind| {
            match (id, kind) {
                (1, I32) => self.values = header.whole()?,
                (4, I32) => self.encoding = header.whole()?,
                (5 | 6, I32) => self.level_bytes = self.level_bytes.checked_add(header.whole()?)?,
                (7, FALSE) => self.is_unpacked = true,
                _ => return Some(false),
            }
            Some(true)
        })?;
        Some(true)
    }

    fn is_data(&self) -> bool {
        matches!(self.kind, DATA_PAGE | DATA_PAGE_V2)
    }

    /// What one row of it may take once it is decoded.
    fn row_bytes(&self) -> u64 {
        let (bytes, values) = (self.unpacked_bytes.unsigned_abs(), self.values.unsigned_abs().max(1));
        match self.is_data() && self.encoding != DELTA_BYTE_ARRAY {
            true => bytes.div_ceil(values),
            // All of its rows may be its longest value.
            false => bytes,
        }
    }
}

/// What the pages of a column in one row group come to.
struct Walked {
    /// What one value may take.
    row_bytes: u64,
    unpacked_bytes: u64,
}

/// A value of a list, with its levels.
const LISTED_BYTES: u64 = 16;

/// Walks over the pages of a column in one row group, by their headers.
fn walk_pages(bytes: &[u8], column: &ColumnChunkMetaData, rows: u64) -> Result<Walked, String> {
    let wrong = || "its pages are not where its footer says".to_string();
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let start = usize::try_from(start).map_err(|_| wrong())?;
    let length = usize::try_from(column.compressed_size()).map_err(|_| wrong())?;
    let mut pages = start.checked_add(length).and_then(|end| bytes.get(start..end)).ok_or_else(wrong)?;
    let is_flat = column.column_descr().max_rep_level() == 0;
    let (mut row_bytes, mut values, mut unpacked_bytes) = (0, 0u64, 0u64);
    while !pages.is_empty() {
        let mut header = Compact::new(pages);
        let page = Page::read(&mut header).ok_or_else(wrong)?;
        let (_, body) = pages.split_at(pages.len() - header.rest());
        let packed = usize::try_from(page.packed_bytes).ok().filter(|packed| *packed <= body.len());
        let (body, rest) = body.split_at(packed.ok_or_else(wrong)?);
        check_page(&page, body, column)?;
        if page.is_data() {
            values = values.saturating_add(page.values.unsigned_abs());
        }
        row_bytes = row_bytes.max(page.row_bytes());
        unpacked_bytes = unpacked_bytes.saturating_add(page.unpacked_bytes.unsigned_abs());
        if !is_flat && page.is_data() {
            let value = if page.encoding == DELTA_BYTE_ARRAY { page.row_bytes() } else { LISTED_BYTES };
            unpacked_bytes = unpacked_bytes.saturating_add(page.values.unsigned_abs().saturating_mul(value));
        }
        pages = rest;
    }
    // Of a column within lists there may be more values than rows.
    if is_flat && values != rows {
        return Err(format!("its footer promises {rows} rows, its pages hold {values}"));
    }
    let row_bytes = match column.column_type() {
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => row_bytes,
        _ => size_of::<i128>() as u64,
    };
    Ok(Walked { row_bytes, unpacked_bytes })
}

/// A page takes what its header says, and that is not too much.
fn check_page(page: &Page, body: &[u8], column: &ColumnChunkMetaData) -> Result<(), String> {
    let unpacked = u64::try_from(page.unpacked_bytes).map_err(|_| "a page of less than no bytes")?;
    let unpacked = unpacked.max(body.len() as u64);
    if unpacked > PARQUET_PAGE_BYTES_MAX {
        return Err(format!("a page of {unpacked} bytes; the most is {PARQUET_PAGE_BYTES_MAX}"));
    }
    let values = u64::try_from(page.values).map_err(|_| "a page of less than no values")?;
    if page.kind == DICTIONARY_PAGE && values > unpacked {
        return Err("a dictionary of more values than bytes".into());
    }
    match column.compression() {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) | Compression::LZ4_RAW => {
            Ok(())
        }
        // What unpacks it asks for no size.
        Compression::GZIP(_) if page.is_unpacked => Ok(()),
        Compression::GZIP(_) => {
            let levels = usize::try_from(page.level_bytes).ok();
            let packed =
                levels.and_then(|levels| body.get(levels..)).ok_or("a page shorter than its levels")?;
            let mut taken = flate2::read::MultiGzDecoder::new(packed).take(unpacked + 1);
            match std::io::copy(&mut taken, &mut std::io::sink()) {
                Ok(bytes) if bytes <= unpacked => Ok(()),
                Err(_) if packed.is_empty() => Ok(()),
                _ => Err("a page that takes more than its header says".into()),
            }
        }
        _ => Err("its pages are compressed in a way that cannot be bounded; use zstd or snappy".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{BrotliLevel, GzipLevel, ZstdLevel};
    use parquet::file::properties::WriterProperties;
    use std::sync::Arc;

    fn file(properties: WriterProperties, seller: &str, rows: i64) -> Bytes {
        let users: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let sellers: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|_| seller)));
        let batch = RecordBatch::try_from_iter([("user_id", users), ("seller", sellers)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes.into()
    }

    fn batch(bytes: &Bytes) -> Result<usize, String> {
        let footer = footer(bytes, ArrowReaderOptions::new(), 1_000_000)?;
        batch_rows(bytes, footer.metadata(), &[0, 1])
    }

    #[test]
    fn batches_are_as_small_as_values_may_be_long() {
        let properties = || WriterProperties::builder();
        assert_eq!(batch(&file(properties().build(), "a", 10_000)), Ok(8192));
        // Each row may be the one value of the dictionary, which takes a mebibyte.
        let long = "x".repeat(1 << 20);
        let rows = batch(&file(properties().build(), &long, 1000)).unwrap();
        assert!(rows <= 256, "{rows}");
        let plain = properties().set_dictionary_enabled(false).build();
        assert!(batch(&file(plain, &long, 100)).unwrap() <= 256);
    }

    #[test]
    fn every_form_of_pages_is_walked() {
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ] {
            for version in [
                parquet::file::properties::WriterVersion::PARQUET_1_0,
                parquet::file::properties::WriterVersion::PARQUET_2_0,
            ] {
                let properties = WriterProperties::builder().set_compression(compression);
                let properties =
                    properties.set_writer_version(version).set_max_row_group_row_count(Some(777));
                assert_eq!(batch(&file(properties.build(), "abc", 5000)), Ok(8192), "{compression:?}");
            }
        }
        let brotli = Compression::BROTLI(BrotliLevel::default());
        let refused = batch(&file(WriterProperties::builder().set_compression(brotli).build(), "a", 10));
        assert!(refused.unwrap_err().contains("zstd or snappy"));
    }

    #[test]
    fn what_a_file_claims_is_held_to_its_pages() {
        let whole = file(WriterProperties::builder().build(), "a", 1000).to_vec();
        let refused = |bytes: Vec<u8>| batch(&Bytes::from(bytes)).unwrap_err();
        assert!(footer(&whole.clone().into(), ArrowReaderOptions::new(), 999).is_err());
        assert_eq!(refused(b"root:x:0:0".to_vec()), "it is no Parquet file");
        assert_eq!(
            refused(whole[..whole.len() - 1].to_vec()),
            "it is no whole Parquet file, or an encrypted one"
        );
        let tail = whole.len() - TAIL_BYTES;
        let mut long = whole.clone();
        long[tail..tail + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(refused(long).starts_with("a footer of 4294967295 bytes"));
        // Whatever one byte becomes, nothing panics and nothing takes memory.
        for place in (0..whole.len()).step_by(3) {
            for byte in [0x00, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[place] = byte;
                let _ = batch(&broken.into());
            }
        }
    }
}
