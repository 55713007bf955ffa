//! A column chunk of a part whose values are encoded here and not by the Parquet library.
//!
//! In: the bodies of its pages. Out: the chunk, and what its row group says of it. The library writes
//! the pages around their bodies.
//! Invariant: the column is required and not nested, so a body is values alone.

use crate::error::Result;
use crate::output::part::broken;
use crate::schema::ZSTD_LEVEL;
use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Compression, Encoding, PageType, Type, ZstdLevel};
use parquet::column::page::{self, CompressedPage, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{
    ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// How the values of a chunk are encoded.
#[derive(Clone, Copy)]
pub struct Form<'a> {
    pub encoding: Encoding,
    /// Of a dictionary: its values, PLAIN, and how many.
    pub dictionary: Option<(&'a Bytes, u32)>,
    /// Data pages are compressed with zstd; with a dictionary they are not.
    pub compress: bool,
}

/// The values of a data page, encoded.
#[derive(Default)]
pub struct PageBody {
    /// Compressed, if their form says so.
    pub bytes: Bytes,
    /// Before they were compressed.
    pub size: usize,
    pub values: usize,
    /// The least and the greatest of them, where readers are to be told; of all pages or of none.
    pub range: Option<(i64, i64)>,
}

/// A column chunk.
pub struct Chunk {
    pub bytes: Bytes,
    pub close: ColumnCloseResult,
}

/// About what stands before the body of a page.
const PAGE_HEADER_BYTES: usize = 32;

/// Makes a chunk of its data pages.
pub fn chunk(column: &ColumnDescPtr, form: Form, pages: Vec<PageBody>) -> Result<Chunk> {
    assert!(form.dictionary.is_none() || !form.compress, "a dictionary is written as it is");
    let bodies =
        pages.iter().map(|page| page.bytes.len()).chain(form.dictionary.map(|(values, _)| values.len()));
    let mut sink = TrackedWrite::new(Vec::with_capacity(bodies.map(|body| body + PAGE_HEADER_BYTES).sum()));
    let mut writer = SerializedPageWriter::new(&mut sink);
    let mut write = |page, size| writer.write_page(CompressedPage::new(page, size)).map_err(broken);
    let dictionary =
        form.dictionary.map(|(values, count)| write(dictionary_page(values, count), values.len()));
    let dictionary = dictionary.transpose()?;
    let (mut offsets, mut written, mut ranges) = (OffsetIndexBuilder::new(), Vec::new(), Vec::new());
    for PageBody { bytes, size, values, range } in pages {
        let page = write(data_page(bytes, values, form.encoding), size)?;
        offsets.append_row_count(values as i64);
        offsets.append_offset_and_size(page.offset as i64, page.compressed_size as i32);
        written.push(page);
        ranges.extend(range);
    }
    writer.close().map_err(broken)?;
    let bytes = sink.into_inner().map_err(broken)?;
    let metadata = metadata(column, form, dictionary.as_ref(), &written, &ranges)?;
    let close = ColumnCloseResult {
        bytes_written: bytes.len() as u64,
        rows_written: metadata.num_values() as u64,
        metadata,
        bloom_filter: None,
        column_index: column_index(&ranges, written.len())?,
        offset_index: Some(offsets.build()),
    };
    Ok(Chunk { bytes: bytes.into(), close })
}

/// What the row group says of a chunk with these pages.
fn metadata(
    column: &ColumnDescPtr,
    form: Form,
    dictionary: Option<&PageWriteSpec>,
    pages: &[PageWriteSpec],
    ranges: &[(i64, i64)],
) -> Result<ColumnChunkMetaData> {
    let size = |size: &dyn Fn(&PageWriteSpec) -> usize| {
        dictionary.into_iter().chain(pages).map(size).sum::<usize>() as i64
    };
    let of_pages = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
    let of_dictionary = dictionary.iter().map(|_| of_pages(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
    let of_data = of_pages(PageType::DATA_PAGE, form.encoding, pages.len() as i32);
    let encodings = dictionary.iter().map(|_| Encoding::PLAIN).chain([Encoding::RLE, form.encoding]);
    let zstd = || ZstdLevel::try_new(ZSTD_LEVEL).map(Compression::ZSTD).map_err(broken);
    let mut builder = ColumnChunkMetaData::builder(column.clone())
        .set_compression(if form.compress { zstd()? } else { Compression::UNCOMPRESSED })
        .set_encodings(encodings.collect())
        .set_page_encoding_stats(of_dictionary.chain([of_data]).collect())
        .set_total_compressed_size(size(&|page| page.compressed_size))
        .set_total_uncompressed_size(size(&|page| page.uncompressed_size))
        .set_num_values(pages.iter().map(|page| i64::from(page.num_values)).sum())
        .set_dictionary_page_offset(dictionary.map(|page| page.offset as i64))
        .set_data_page_offset(pages.first().map_or(0, |page| page.offset as i64));
    let least = ranges.iter().map(|(least, _)| *least).min();
    if least.is_some() {
        let greatest = ranges.iter().map(|(_, greatest)| *greatest).max();
        builder = builder.set_statistics(Statistics::int64(least, greatest, None, Some(0), false));
    }
    builder.build().map_err(broken)
}

/// The ranges of the pages, if all are known.
fn column_index(ranges: &[(i64, i64)], pages: usize) -> Result<Option<ColumnIndexMetaData>> {
    if ranges.is_empty() {
        return Ok(None);
    }
    assert_eq!(ranges.len(), pages, "of all pages or of none");
    let mut index = ColumnIndexBuilder::new(Type::INT64);
    for (least, greatest) in ranges {
        index.append(false, least.to_le_bytes().to_vec(), greatest.to_le_bytes().to_vec(), 0);
    }
    let rises = |pair: &[(i64, i64)]| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1;
    if ranges.windows(2).all(rises) {
        index.set_boundary_order(BoundaryOrder::ASCENDING);
    }
    index.build().map(Some).map_err(broken)
}

fn dictionary_page(values: &Bytes, count: u32) -> page::Page {
    page::Page::DictionaryPage {
        buf: values.clone(),
        num_values: count,
        encoding: Encoding::PLAIN,
        is_sorted: false,
    }
}

fn data_page(buf: Bytes, values: usize, encoding: Encoding) -> page::Page {
    page::Page::DataPage {
        buf,
        num_values: values as u32,
        encoding,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    }
}

/// ULEB128: seven bits a byte, the lowest first.
pub fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
