//! Groups as the row groups of a Parquet object, encoded apart from each other, on any thread.
//!
//! In: sorted groups. Out: row groups, and objects made of them.
//! Invariant: the same groups give the same bytes; the statistics of users hold for whatever order
//! they come in.

use super::category_column::CategoryColumn;
use super::chunk::{Chunk, Form, PAGE_VALUES, Page, chunk};
use super::delta;
use crate::domain::category::Categories;
use crate::domain::spend::Spend;
use crate::error::Result;
use crate::output::part::broken;
use crate::schema;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::Encoding;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};
use std::sync::Arc;

/// The columns of a row group.
pub type Columns = Vec<Chunk>;

/// Encodes groups as the row groups of a part.
pub struct SpendEncoder {
    schema: SchemaDescriptor,
    properties: WriterPropertiesPtr,
    categories: CategoryColumn,
}

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
        Ok(SpendEncoder { schema, properties, categories })
    }

    /// The columns of one row group.
    pub fn encode(&self, groups: &[Spend]) -> Result<Columns> {
        let column = |index| self.schema.column(index);
        // Most differences of users are 0, and shrink once more. Their ranges tell readers what to leave
        // out; those of the others are about the same everywhere.
        let users = Form { compress: true, ..NUMBERS };
        Ok(vec![
            numbers(&column(USER_ID), users, groups, |group| group.user_id as i64, range)?,
            self.categories.encode(groups)?,
            numbers(&column(AMOUNT), NUMBERS, groups, |group| group.amount_cents, |_| None)?,
            numbers(
                &column(TRANSACTION_COUNT),
                NUMBERS,
                groups,
                |group| group.transaction_count as i64,
                |_| None,
            )?,
        ])
    }

    /// Makes one object of its row groups.
    pub fn join(&self, row_groups: Vec<Columns>) -> Result<Bytes> {
        let size: usize = row_groups.iter().flatten().map(|chunk| chunk.bytes.len()).sum();
        let room = Vec::with_capacity(size + FOOTER_BYTES);
        let written = || -> std::result::Result<Vec<u8>, ParquetError> {
            let root = self.schema.root_schema_ptr();
            let mut writer = SerializedFileWriter::new(room, root, self.properties.clone())?;
            for columns in row_groups {
                let mut row_group = writer.next_row_group()?;
                for Chunk { bytes, close } in columns {
                    row_group.append_column(&bytes, close)?;
                }
                row_group.close()?;
            }
            writer.into_inner()
        };
        Ok(written().map_err(broken)?.into())
    }
}

const NUMBERS: Form = Form { encoding: Encoding::DELTA_BINARY_PACKED, dictionary: None, compress: false };

/// A column of whole numbers, and what to tell of the numbers of a page.
fn numbers(
    column: &ColumnDescPtr,
    form: Form,
    groups: &[Spend],
    number: impl Fn(&Spend) -> i64,
    range: impl Fn(&[i64]) -> Option<(i64, i64)>,
) -> Result<Chunk> {
    let mut numbers = Vec::with_capacity(PAGE_VALUES);
    let pages = groups.chunks(PAGE_VALUES).map(|groups| {
        numbers.clear();
        numbers.extend(groups.iter().map(&number));
        Page { body: delta::encode(&numbers), values: numbers.len(), range: range(&numbers) }
    });
    chunk(column, form, pages)
}

fn range(numbers: &[i64]) -> Option<(i64, i64)> {
    Some((*numbers.iter().min()?, *numbers.iter().max()?))
}

/// Sorted groups as one Parquet object.
pub fn encode(groups: &[Spend], categories: &Categories) -> Result<Bytes> {
    let encoder = SpendEncoder::new(categories)?;
    let row_groups = groups.chunks(crate::limits::ROW_GROUP_ROWS).map(|groups| encoder.encode(groups));
    encoder.join(row_groups.collect::<Result<_>>()?)
}
