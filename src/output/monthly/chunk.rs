//! A column chunk of a part whose values are encoded here and not by the Parquet library.
//!
//! In: the bodies of pages. Out: the chunk, and what its row group says of it. The library writes the
//! pages around their bodies.
//! Invariant: the column is required, not nested and not compressed, so a body is values alone.

use crate::error::Result;
use crate::output::part::{Column, broken};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// Values of one data page, as many as in those of the library.
pub const PAGE_VALUES: usize = 20_000;

/// How the values of a chunk are encoded.
#[derive(Clone, Copy)]
pub struct Form<'a> {
    pub encoding: Encoding,
    /// Of a dictionary: its values, PLAIN, and how many.
    pub dictionary: Option<(&'a Bytes, u32)>,
}

/// Makes a chunk of the bodies of its data pages, each with the number of its values.
pub fn chunk(
    column: &ColumnDescPtr,
    form: Form,
    bodies: impl Iterator<Item = (Vec<u8>, usize)>,
) -> Result<Column> {
    let mut sink = TrackedWrite::new(Vec::new());
    let mut writer = SerializedPageWriter::new(&mut sink);
    let dictionary = form.dictionary.map(|(values, count)| dictionary_page(values, count));
    let dictionary = dictionary.map(|page| write(&mut writer, page)).transpose()?;
    let (mut offsets, mut pages) = (OffsetIndexBuilder::new(), Vec::new());
    for (body, values) in bodies {
        let page = write(&mut writer, data_page(body, values, form.encoding))?;
        offsets.append_row_count(values as i64);
        offsets.append_offset_and_size(page.offset as i64, page.compressed_size as i32);
        pages.push(page);
    }
    writer.close().map_err(broken)?;
    let bytes = sink.into_inner().map_err(broken)?;
    let (size, values) = (bytes.len() as i64, pages.iter().map(|page| i64::from(page.num_values)).sum());
    let of_pages = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
    let of_dictionary = dictionary.iter().map(|_| of_pages(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
    let of_data = of_pages(PageType::DATA_PAGE, form.encoding, pages.len() as i32);
    let encodings = dictionary.iter().map(|_| Encoding::PLAIN).chain([Encoding::RLE, form.encoding]);
    let metadata = ColumnChunkMetaData::builder(column.clone())
        .set_compression(Compression::UNCOMPRESSED)
        .set_encodings(encodings.collect())
        .set_page_encoding_stats(of_dictionary.chain([of_data]).collect())
        .set_total_compressed_size(size)
        .set_total_uncompressed_size(size)
        .set_num_values(values)
        .set_dictionary_page_offset(dictionary.map(|page| page.offset as i64))
        .set_data_page_offset(pages.first().map_or(size, |page| page.offset as i64))
        .build()
        .map_err(broken)?;
    let close = ColumnCloseResult {
        bytes_written: bytes.len() as u64,
        rows_written: values as u64,
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: Some(offsets.build()),
    };
    Ok(Column::ByHand(bytes.into(), close))
}

fn dictionary_page(values: &Bytes, count: u32) -> Page {
    Page::DictionaryPage {
        buf: values.clone(),
        num_values: count,
        encoding: Encoding::PLAIN,
        is_sorted: false,
    }
}

fn data_page(body: Vec<u8>, values: usize, encoding: Encoding) -> Page {
    Page::DataPage {
        buf: body.into(),
        num_values: values as u32,
        encoding,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    }
}

fn write(writer: &mut SerializedPageWriter<Vec<u8>>, page: Page) -> Result<PageWriteSpec> {
    let size = page.buffer().len();
    writer.write_page(CompressedPage::new(page, size)).map_err(broken)
}

/// ULEB128: seven bits a byte, the lowest first.
pub fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
