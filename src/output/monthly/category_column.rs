//! The categories of a part, page by page, and the chunks that they make.
//!
//! In: groups. Out: a dictionary with the codes of all categories of the job, and the id of each
//! group's category, as the format's Encodings.md lays it down: PLAIN for codes, and for ids
//! RLE_DICTIONARY with bit-packed runs alone. The Parquet library would look up the text of each value
//! to number it, which took a fifth of the reduce, and a category has its number already.
//! Invariant: every reader of Parquet reads the codes of the groups' categories.

use super::chunk::{Chunk, Form, PageBody, chunk, push_varint};
use crate::domain::category::Categories;
use crate::error::{Error, Result};
use crate::kernel::groups::Groups;
use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::schema::types::ColumnDescPtr;

/// Ids are packed by eights, which fill whole bytes.
const PACKED_AT_ONCE: usize = 8;

/// Encodes the categories of a part.
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

    /// A page. Errors: a category that is none of the job's.
    pub fn encode(&self, groups: &[Groups]) -> Result<PageBody> {
        let ids = groups.iter().flat_map(|piece| piece.iter().map(|group| group.category.0));
        let ids: Vec<u8> = ids.collect();
        if ids.iter().any(|id| u32::from(*id) >= self.count) {
            return Err(Error::invariant("a group has no category"));
        }
        let bytes = Bytes::from(self.packed(&ids));
        Ok(PageBody { size: bytes.len(), bytes, values: ids.len(), range: None })
    }

    /// A chunk of its pages.
    pub fn chunk(&self, pages: Vec<PageBody>) -> Result<Chunk> {
        let dictionary = Some((&self.codes, self.count));
        chunk(&self.column, Form { encoding: Encoding::RLE_DICTIONARY, dictionary, compress: false }, pages)
    }

    /// Ids in one bit-packed run.
    fn packed(&self, ids: &[u8]) -> Vec<u8> {
        let eights = ids.len().div_ceil(PACKED_AT_ONCE);
        let mut body = Vec::with_capacity(16 + eights * self.id_bits as usize);
        body.push(self.id_bits as u8);
        push_varint(&mut body, (eights as u64) << 1 | 1);
        for eight in ids.chunks(PACKED_AT_ONCE) {
            // The first one lowest.
            let packed = eight.iter().rev().fold(0, |packed, id| packed << self.id_bits | u64::from(*id));
            body.extend_from_slice(&packed.to_le_bytes()[..self.id_bits as usize]);
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoder::{CATEGORY, encode};
    use super::*;
    use crate::domain::category::CategoryId;
    use crate::domain::spend::Spend;
    use crate::limits::PAGE_GROUPS;
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
