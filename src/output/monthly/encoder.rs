//! Groups as the pages of a Parquet object, encoded apart from each other, on any thread.
//!
//! In: sorted groups. Out: pages, and objects made of them.
//! Invariant: the same groups give the same bytes; the statistics of users hold for whatever order
//! they come in.

use super::category_column::CategoryColumn;
use super::chunk::{Chunk, Form, PageBody, chunk};
use super::delta;
use crate::domain::category::Categories;
use crate::domain::spend::Spend;
use crate::error::{Error, Result};
use crate::kernel::groups::Groups;
use crate::limits::{PAGE_GROUPS, ROW_GROUP_ROWS};
use crate::output::part::broken;
use crate::schema;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::Encoding;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;
use std::sync::{Arc, Mutex};
use zstd::bulk::Compressor;

/// The columns of a page.
pub type Columns = [PageBody; COLUMNS];

/// Encodes groups as the pages of a part.
pub struct SpendEncoder {
    schema: SchemaDescriptor,
    properties: WriterPropertiesPtr,
    categories: CategoryColumn,
    /// Of whoever does not encode at the moment.
    scratch: Mutex<Vec<Scratch>>,
}

/// What one thread works with while it encodes.
struct Scratch {
    numbers: Vec<i64>,
    body: Vec<u8>,
    compressor: Compressor<'static>,
}

const COLUMNS: usize = 4;
/// Where the columns stand.
const USER_ID: usize = 0;
pub const CATEGORY: usize = 1;
const AMOUNT: usize = 2;
pub const TRANSACTION_COUNT: usize = 3;

/// What an object takes besides its columns, about.
const FOOTER_BYTES: usize = 64 * 1024;

impl SpendEncoder {
    pub fn new(categories: &Categories) -> Result<SpendEncoder> {
        let schema = ArrowSchemaConverter::new().convert(&schema::spending_in_memory()).map_err(broken)?;
        let properties = Arc::new(schema::spending_properties().build());
        let categories = CategoryColumn::new(schema.column(CATEGORY), categories);
        Ok(SpendEncoder { schema, properties, categories, scratch: Mutex::default() })
    }

    /// One page.
    pub fn encode(&self, groups: &[Groups]) -> Result<Columns> {
        let scratch = self.scratch.lock().expect("no thread panics in here").pop();
        let mut scratch = scratch.map_or_else(Scratch::new, Ok)?;
        let columns = [
            scratch.users(groups)?,
            self.categories.encode(groups)?,
            scratch.numbers(groups, |group| group.amount_cents),
            scratch.numbers(groups, |group| group.transaction_count as i64),
        ];
        self.scratch.lock().expect("no thread panics in here").push(scratch);
        Ok(columns)
    }

    /// Makes one object of the pages of its row groups.
    pub fn join(&self, row_groups: Vec<Vec<Columns>>) -> Result<Bytes> {
        let bodies = row_groups.iter().flatten().flatten();
        let size: usize = bodies.map(|body| body.bytes.len()).sum();
        let room = Vec::with_capacity(size + size / 64 + FOOTER_BYTES);
        let (root, properties) = (self.schema.root_schema_ptr(), self.properties.clone());
        let mut writer = SerializedFileWriter::new(room, root, properties).map_err(broken)?;
        for pages in row_groups {
            let mut row_group = writer.next_row_group().map_err(broken)?;
            for Chunk { bytes, close } in self.chunks(pages)? {
                row_group.append_column(&bytes, close).map_err(broken)?;
            }
            row_group.close().map_err(broken)?;
        }
        Ok(writer.into_inner().map_err(broken)?.into())
    }

    /// The columns of a row group.
    fn chunks(&self, pages: Vec<Columns>) -> Result<[Chunk; COLUMNS]> {
        let mut columns = [const { Vec::new() }; COLUMNS];
        for page in pages {
            columns.iter_mut().zip(page).for_each(|(column, body)| column.push(body));
        }
        let [users, categories, amounts, counts] = columns;
        let column = |index| self.schema.column(index);
        Ok([
            chunk(&column(USER_ID), USERS, users)?,
            self.categories.chunk(categories)?,
            chunk(&column(AMOUNT), NUMBERS, amounts)?,
            chunk(&column(TRANSACTION_COUNT), NUMBERS, counts)?,
        ])
    }
}

const NUMBERS: Form = Form { encoding: Encoding::DELTA_BINARY_PACKED, dictionary: None, compress: false };
/// Most differences of users are 0, and shrink once more.
const USERS: Form = Form { compress: true, ..NUMBERS };

impl Scratch {
    fn new() -> Result<Scratch> {
        let compressor = Compressor::new(schema::ZSTD_LEVEL).map_err(not_compressed)?;
        Ok(Scratch { numbers: Vec::new(), body: Vec::new(), compressor })
    }

    /// Encodes a column of whole numbers.
    fn encode(&mut self, groups: &[Groups], number: impl Fn(&Spend) -> i64) {
        self.numbers.clear();
        groups.iter().for_each(|piece| self.numbers.extend(piece.iter().map(&number)));
        delta::encode(&self.numbers, &mut self.body);
    }

    fn numbers(&mut self, groups: &[Groups], number: impl Fn(&Spend) -> i64) -> PageBody {
        self.encode(groups, number);
        let (bytes, size) = (Bytes::copy_from_slice(&self.body), self.body.len());
        PageBody { bytes, size, values: self.numbers.len(), range: None }
    }

    /// The ranges of users tell readers what to leave out; those of the other columns are about the same
    /// everywhere.
    fn users(&mut self, groups: &[Groups]) -> Result<PageBody> {
        self.encode(groups, |group| group.user_id as i64);
        let range = self.numbers.iter().min().copied().zip(self.numbers.iter().max().copied());
        let bytes = self.compressor.compress(&self.body).map_err(not_compressed)?.into();
        Ok(PageBody { bytes, size: self.body.len(), values: self.numbers.len(), range })
    }
}

fn not_compressed(e: std::io::Error) -> Error {
    Error::invariant(format!("a page cannot be compressed: {e}"))
}

/// Sorted groups as one Parquet object, whatever their number.
pub fn encode(groups: &[Spend], categories: &Categories) -> Result<Bytes> {
    let encoder = SpendEncoder::new(categories)?;
    let page = |page: &[Spend]| encoder.encode(&[Groups::of(page.to_vec())]);
    let pages = |groups: &[Spend]| groups.chunks(PAGE_GROUPS).map(page).collect();
    encoder.join(groups.chunks(ROW_GROUP_ROWS).map(pages).collect::<Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::category::CategoryId;
    use parquet::basic::BoundaryOrder;
    use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
    use parquet::file::page_index::column_index::ColumnIndexMetaData;
    use parquet::file::statistics::Statistics;

    /// What an object says of the ranges of its users is held to the users themselves.
    fn check_ranges(users: &[u64], order: BoundaryOrder) {
        let group = |user_id: &u64| {
            let category = CategoryId(0);
            Spend { user_id: *user_id, category, amount_cents: 1, transaction_count: 1 }
        };
        let groups: Vec<Spend> = users.iter().map(group).collect();
        let object = encode(&groups, &Categories::builtin()).unwrap();
        let metadata = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        let metadata = metadata.parse_and_finish(&object).unwrap();
        let row_groups: Vec<&[u64]> = users.chunks(ROW_GROUP_ROWS).collect();
        assert_eq!(metadata.num_row_groups(), row_groups.len());
        let least = |users: &[u64]| *users.iter().min().unwrap() as i64;
        let greatest = |users: &[u64]| *users.iter().max().unwrap() as i64;
        for (index, users) in row_groups.iter().enumerate() {
            let Some(Statistics::Int64(range)) = metadata.row_group(index).column(USER_ID).statistics()
            else {
                panic!("users have statistics")
            };
            let told = (range.min_opt().copied(), range.max_opt().copied(), range.null_count_opt());
            assert_eq!(told, (Some(least(users)), Some(greatest(users)), Some(0)));
            let told = &metadata.column_index().unwrap()[index][USER_ID];
            assert_eq!(told.get_boundary_order(), Some(order));
            let ColumnIndexMetaData::INT64(pages) = told else { panic!("users are whole numbers") };
            assert_eq!(pages.num_pages() as usize, users.len().div_ceil(PAGE_GROUPS));
            let offsets = metadata.offset_index().unwrap()[index][USER_ID].page_locations();
            for (page, users) in users.chunks(PAGE_GROUPS).enumerate() {
                assert_eq!(pages.min_value(page), Some(&least(users)));
                assert_eq!(pages.max_value(page), Some(&greatest(users)));
                assert_eq!(offsets[page].first_row_index as usize, page * PAGE_GROUPS);
            }
        }
    }

    #[test]
    fn users_are_told_by_row_group_and_page() {
        let count = (2 * ROW_GROUP_ROWS + PAGE_GROUPS + 5) as u64;
        let rising: Vec<u64> = (0..count).map(|n| 7 + n / 3).collect();
        check_ranges(&rising, BoundaryOrder::ASCENDING);
        check_ranges(&rising[..1], BoundaryOrder::ASCENDING);
        // Nobody writes them so; what is told must hold all the same.
        let falling: Vec<u64> = rising[..ROW_GROUP_ROWS].iter().rev().copied().collect();
        check_ranges(&falling, BoundaryOrder::UNORDERED);
    }
}
