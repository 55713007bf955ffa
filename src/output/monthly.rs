//! `monthly_spending`: closing groups encoded as row groups, written as parts, and read back.
//!
//! In: closing groups of each month in the order of users. Out: the parts of the touched months,
//! and their totals, as read back from the store.
//! Invariant: the same groups give the same bytes; what is read back equals what was meant.

mod category_column;
mod chunk;
mod cutter;
mod delta;
mod queue;

pub use cutter::{Cutter, RowGroup};
pub use queue::{QueueState, RowGroupQueue};

use crate::domain::category::Categories;
use crate::domain::month::Month;
use crate::domain::spend::Spend;
use crate::error::{Error, Result};
use crate::input::published::{EVERYBODY, read_batches};
use crate::kernel::keyed::{Digest, GroupTotals, Key};
use crate::limits::ROW_GROUP_ROWS;
use crate::output::part::{self, RowGroupEncoder, WrittenPart};
use crate::schema;
use crate::store::Place;
use arrow::array::{ArrayRef, Int64Array};
use bytes::Bytes;
use category_column::CategoryColumn;
use chunk::{Form, PAGE_VALUES, chunk};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Encoding;
use parquet::schema::types::ColumnDescPtr;
use std::sync::Arc;

/// A part that stands in the store and was read back.
pub struct MonthPart {
    pub month: Month,
    /// Of its month, from 0.
    pub sequence: usize,
    pub written: WrittenPart,
    /// Its first and its last user.
    pub users: (u64, u64),
    pub totals: GroupTotals,
}

/// What writers of parts share.
pub struct PartWriter<'a> {
    table: Place,
    run_id: &'a str,
    categories: &'a Categories,
    key: Key,
    encoder: SpendEncoder,
}

/// A row group as it will stand in its part; the groups themselves are needed no more.
#[derive(Default)]
pub struct EncodedRowGroup {
    /// Groups of the part before these.
    start: usize,
    groups: usize,
    digest: Digest,
    columns: part::RowGroup,
}

impl<'a> PartWriter<'a> {
    /// Writes to `table` with the names of a run. `key` is that of the run's keyed totals.
    pub fn new(
        table: Place,
        run_id: &'a str,
        categories: &'a Categories,
        key: Key,
    ) -> Result<PartWriter<'a>> {
        let encoder = SpendEncoder::new(categories)?;
        Ok(PartWriter { table, run_id, categories, key, encoder })
    }

    fn encode(&self, row_group: &RowGroup) -> Result<EncodedRowGroup> {
        let RowGroup { start, groups, .. } = row_group;
        Ok(EncodedRowGroup {
            start: *start,
            groups: groups.len(),
            digest: Digest::of(self.key, *start, groups),
            columns: self.encoder.encode(groups)?,
        })
    }

    /// Writes a part and reads it back. Errors when what is read back is not what was meant.
    fn write(&self, month: Month, sequence: usize, row_groups: Vec<EncodedRowGroup>) -> Result<MonthPart> {
        let groups: usize = row_groups.iter().map(|row_group| row_group.groups).sum();
        let meant = row_groups.iter().fold(Digest::default(), |sum, some| sum.plus(some.digest));
        let columns = row_groups.into_iter().map(|row_group| row_group.columns).collect();
        let bytes = self.encoder.row_groups.join(columns)?;
        let path = format!("month={month}-01/part-{sequence:05}-{}.parquet", self.run_id);
        let written = part::write(&self.table, &path, bytes, groups as u64)?;
        let place = self.table.child(&path);
        let (mut totals, mut digest) = (GroupTotals::default(), Digest::default());
        let mut users: Option<(u64, u64)> = None;
        let bytes = part::read_back(&place, &written)?;
        read_batches(bytes, &EVERYBODY, self.categories, &place.shown, |back| {
            digest = digest.plus(Digest::of(self.key, totals.groups as usize, back));
            totals.add(self.key, month, back, users.map(|(_, last)| last));
            if let [first, .., last] | [first @ last] = back {
                users = Some((users.map_or(first.user_id, |(first, _)| first), last.user_id));
            }
            Ok(())
        })?;
        if (totals.groups, digest) != (groups as u64, meant) {
            return Err(Error::invariant("a part reads back otherwise than it was written").at(&place.shown));
        }
        let users = users.ok_or_else(|| Error::invariant("a part is empty").at(&place.shown))?;
        Ok(MonthPart { month, sequence, written, users, totals })
    }
}

/// Encodes groups as the row groups of a part.
struct SpendEncoder {
    row_groups: RowGroupEncoder,
    categories: CategoryColumn,
    amount: ColumnDescPtr,
    transaction_count: ColumnDescPtr,
}

/// Where the columns stand.
const USER_ID: usize = 0;
const CATEGORY: usize = 1;
const AMOUNT: usize = 2;
const TRANSACTION_COUNT: usize = 3;

/// Users that are made a batch at once: they stay in a core's cache while they are encoded.
const BATCH_GROUPS: usize = 16 * 1024;

impl SpendEncoder {
    fn new(categories: &Categories) -> Result<SpendEncoder> {
        // The columns say all themselves; how the program holds them is no reader's concern.
        let options = ArrowWriterOptions::new()
            .with_properties(schema::spending_properties().build())
            .with_skip_arrow_metadata(true);
        let row_groups = RowGroupEncoder::new(schema::spending_in_memory(), options)?;
        Ok(SpendEncoder {
            categories: CategoryColumn::new(row_groups.column(CATEGORY)?, categories),
            amount: row_groups.column(AMOUNT)?,
            transaction_count: row_groups.column(TRANSACTION_COUNT)?,
            row_groups,
        })
    }

    fn encode(&self, groups: &[Spend]) -> Result<part::RowGroup> {
        let users = groups.chunks(BATCH_GROUPS).map(|groups| {
            let users = Int64Array::from_iter_values(groups.iter().map(|group| group.user_id as i64));
            Arc::new(users) as ArrayRef
        });
        Ok(vec![
            self.row_groups.encode(USER_ID, users)?,
            self.categories.encode(groups)?,
            differences(&self.amount, groups, |group| group.amount_cents)?,
            differences(&self.transaction_count, groups, |group| group.transaction_count as i64)?,
        ])
    }
}

/// A column of whole numbers.
fn differences(
    column: &ColumnDescPtr,
    groups: &[Spend],
    number: impl Fn(&Spend) -> i64,
) -> Result<part::Column> {
    let mut numbers = Vec::with_capacity(PAGE_VALUES);
    let bodies = groups.chunks(PAGE_VALUES).map(|groups| {
        numbers.clear();
        numbers.extend(groups.iter().map(&number));
        (delta::encode(&numbers), groups.len())
    });
    chunk(column, Form { encoding: Encoding::DELTA_BINARY_PACKED, dictionary: None }, bodies)
}

/// Sorted groups as one Parquet object.
pub fn encode(groups: &[Spend], categories: &Categories) -> Result<Bytes> {
    let encoder = SpendEncoder::new(categories)?;
    let row_groups = groups.chunks(ROW_GROUP_ROWS).map(|groups| encoder.encode(groups));
    encoder.row_groups.join(row_groups.collect::<Result<_>>()?)
}
