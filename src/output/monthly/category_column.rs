//! The categories of a row group as one Parquet column chunk.
//!
//! In: groups. Out: a dictionary page with the codes of all categories of the job, and data pages
//! with the id of each group's category. The Parquet library writes the pages; what stands in them is
//! made here, as the format's Encodings.md lays it down: PLAIN for codes, and for ids RLE_DICTIONARY
//! with bit-packed runs alone. The library would look up the text of each value to number it, which
//! took a tenth of the reduce, and a category has its number already.
//! Invariant: every reader of Parquet reads the codes of the groups' categories.

use crate::domain::category::Categories;
use crate::domain::spend::Spend;
use crate::error::{Error, Result};
use crate::output::part::broken;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// Groups of one data page, as many as in those of the library.
const PAGE_GROUPS: usize = 20_000;

/// Ids are packed by eights, which fill whole bytes.
const PACKED_AT_ONCE: usize = 8;

/// Encodes the categories of row groups.
pub struct CategoryColumn {
    column: ColumnDescPtr,
    /// Each with its length before it.
    codes: Bytes,
    count: u32,
    id_bits: u32,
}

impl CategoryColumn {
    /// `column` describes a required column of text.
    pub fn new(column: ColumnDescPtr, categories: &Categories) -> CategoryColumn {
        let mut codes = Vec::new();
        for code in categories.codes() {
            codes.extend((code.len() as u32).to_le_bytes());
            codes.extend(code.as_bytes());
        }
        let count = categories.count() as u32;
        let id_bits = (u32::BITS - (count - 1).leading_zeros()).max(1);
        CategoryColumn { column, codes: codes.into(), count, id_bits }
    }

    /// The chunk's bytes and what its row group says of it. Errors: a category that is none of the
    /// job's.
    pub fn encode(&self, groups: &[Spend]) -> Result<(Bytes, ColumnCloseResult)> {
        if groups.iter().any(|group| u32::from(group.category.0) >= self.count) {
            return Err(Error::invariant("a group has no category"));
        }
        let mut sink = TrackedWrite::new(Vec::new());
        let mut writer = SerializedPageWriter::new(&mut sink);
        let codes = Page::DictionaryPage {
            buf: self.codes.clone(),
            num_values: self.count,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let codes = write(&mut writer, codes)?;
        let (mut offsets, mut pages) = (OffsetIndexBuilder::new(), Vec::new());
        for groups in groups.chunks(PAGE_GROUPS) {
            let page = write(&mut writer, self.page(groups))?;
            offsets.append_row_count(groups.len() as i64);
            offsets.append_offset_and_size(page.offset as i64, page.compressed_size as i32);
            pages.push(page);
        }
        writer.close().map_err(broken)?;
        let bytes = sink.into_inner().map_err(broken)?;
        let size = bytes.len() as i64;
        let of_pages = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let metadata = ColumnChunkMetaData::builder(self.column.clone())
            .set_compression(Compression::UNCOMPRESSED)
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_page_encoding_stats(vec![
                of_pages(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1),
                of_pages(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, pages.len() as i32),
            ])
            .set_total_compressed_size(size)
            .set_total_uncompressed_size(size)
            .set_num_values(groups.len() as i64)
            .set_dictionary_page_offset(Some(codes.offset as i64))
            .set_data_page_offset(pages.first().map_or(size, |page| page.offset as i64))
            .build()
            .map_err(broken)?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: groups.len() as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(offsets.build()),
        };
        Ok((bytes.into(), close))
    }

    /// Ids in one bit-packed run.
    fn page(&self, groups: &[Spend]) -> Page {
        let eights = groups.len().div_ceil(PACKED_AT_ONCE);
        let mut body = Vec::with_capacity(16 + eights * self.id_bits as usize);
        body.push(self.id_bits as u8);
        push_varint(&mut body, (eights as u32) << 1 | 1);
        for eight in groups.chunks(PACKED_AT_ONCE) {
            // The first one lowest.
            let ids = eight.iter().rev().map(|group| u64::from(group.category.0));
            let packed = ids.fold(0, |packed, id| packed << self.id_bits | id);
            body.extend_from_slice(&packed.to_le_bytes()[..self.id_bits as usize]);
        }
        Page::DataPage {
            buf: body.into(),
            num_values: groups.len() as u32,
            encoding: Encoding::RLE_DICTIONARY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        }
    }
}

fn write(writer: &mut SerializedPageWriter<Vec<u8>>, page: Page) -> Result<PageWriteSpec> {
    let size = page.buffer().len();
    writer.write_page(CompressedPage::new(page, size)).map_err(broken)
}

/// ULEB128: seven bits a byte, the lowest first.
fn push_varint(bytes: &mut Vec<u8>, mut number: u32) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::super::{CATEGORY, encode};
    use super::*;
    use crate::domain::category::CategoryId;
    use arrow::array::AsArray;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    /// So many categories, and their codes in the order of their ids.
    fn categories(count: usize) -> (Categories, Vec<String>) {
        let code = |n: usize| if n + 1 == count { "uncategorized".to_string() } else { format!("c{n:03}") };
        let entry = |code: &String| format!("[[category]]\ncode = {code:?}\nname = \"\"\nkind = \"spend\"\n");
        let codes: Vec<String> = (0..count).map(code).collect();
        (Categories::parse(&codes.iter().map(entry).collect::<String>()).unwrap(), codes)
    }

    #[test]
    fn every_reader_reads_the_codes() {
        for (count, bits) in [(1, 1), (2, 1), (3, 2), (22, 5), (32, 5), (33, 6), (255, 8)] {
            let (categories, codes) = categories(count);
            for rows in [1, 7, 8, 9, PAGE_GROUPS, 2 * PAGE_GROUPS + 1] {
                let group = |n: usize| Spend {
                    user_id: n as u64,
                    category: CategoryId((n * 7919 % count) as u8),
                    amount_cents: 1,
                    transaction_count: 1,
                };
                let groups: Vec<Spend> = (0..rows).map(group).collect();
                let reader = ParquetRecordBatchReaderBuilder::try_new(encode(&groups, &categories).unwrap());
                let reader = reader.unwrap();
                let column = reader.metadata().row_group(0).column(CATEGORY);
                assert!(column.compressed_size() < (rows * bits / 8 + 3000) as i64, "{bits} bits each");
                let mut read = Vec::new();
                for batch in reader.build().unwrap() {
                    let batch = batch.unwrap();
                    read.extend(
                        batch["category"].as_string::<i32>().iter().map(|code| code.unwrap().to_string()),
                    );
                }
                let expected = groups.iter().map(|group| &codes[usize::from(group.category.0)]);
                assert!(read.iter().eq(expected), "{rows} rows of {count} categories");
            }
        }
        let stranger = Spend { user_id: 1, category: CategoryId(3), amount_cents: 1, transaction_count: 1 };
        assert!(encode(&[stranger], &categories(3).0).is_err());
    }
}
