//! What was said of a month: the records of `budget_alerts`, user by user.
//!
//! In: the published parts of the month. Out: records in the order of users, categories and
//! sequence numbers, and where each user stands.
//! Invariant: of one user and category the numbers are 1, 2, 3 …, or the table is refused. What is
//! held in memory is the month's parts as they lie in the store, and the records asked for.

use super::parquet_bounds::{batch_rows, footer};
use super::published::{PartFile, Users, row_groups, unknown_category};
use crate::domain::alert::{AlertEvent, AlertLevel, AlertRecord, Standing};
use crate::domain::budget::{Budget, BudgetSource};
use crate::domain::category::{Categories, CategoryId};
use crate::error::{Error, Result};
use crate::limits::PART_ROWS_MAX;
use crate::store::Place;
use arrow::array::{Array, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Decimal128Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

/// The parts of one month, with their places for errors.
#[derive(Default)]
pub struct AlertHistory {
    parts: Vec<(Bytes, String)>,
}

/// Where a user and category stand.
pub type Standings = Vec<((u64, CategoryId), Standing)>;

impl AlertHistory {
    /// Reads the parts of a month below `table`.
    pub fn read(files: &[PartFile], table: &Place) -> Result<AlertHistory> {
        let read = |file: &PartFile| {
            let place = table.child(&file.path);
            Ok((place.read()?, place.shown))
        };
        Ok(AlertHistory { parts: files.iter().map(read).collect::<Result<_>>()? })
    }

    /// All records about these users.
    pub fn records(&self, users: &Users, categories: &Categories) -> Result<Vec<AlertRecord>> {
        let mut records = Vec::new();
        for (bytes, shown) in &self.parts {
            read_records(bytes.clone(), users, categories, |record| records.push(record))
                .map_err(|e| e.at(shown))?;
        }
        records.sort_unstable_by_key(AlertRecord::key);
        Ok(records)
    }

    /// Where these users stand, in the order of users and categories.
    pub fn standings(&self, users: &Users, categories: &Categories) -> Result<Standings> {
        let mut standings = Standings::new();
        for record in self.records(users, categories)? {
            let key = (record.user_id, record.category);
            if standings.last().is_none_or(|(last, _)| *last != key) {
                standings.push((key, Standing::default()));
            }
            let (_, standing) = standings.last_mut().expect("one was pushed");
            let next = standing.after(&record);
            *standing =
                next.ok_or_else(|| Error::invariant("the alerts of a user are not numbered one by one"))?;
        }
        Ok(standings)
    }
}

/// Reads the records about some users of one part of `budget_alerts`, in their order. Errors when a
/// category is unknown to the job, or the columns are not ours.
pub fn read_records(
    bytes: Bytes,
    users: &Users,
    categories: &Categories,
    mut on_record: impl FnMut(AlertRecord),
) -> Result<()> {
    let broken = |what: &dyn std::fmt::Display| {
        let error = Error::unfit(format!("a part of budget_alerts is damaged: {what}"));
        error.advise("`pennymill audit` says where the lake is damaged; restore it from a copy")
    };
    let metadata = footer(&bytes, ArrowReaderOptions::new(), PART_ROWS_MAX).map_err(|e| broken(&e))?;
    let leaves: Vec<usize> = (0..metadata.parquet_schema().num_columns()).collect();
    let batch_rows = batch_rows(&bytes, metadata.metadata(), &leaves).map_err(|e| broken(&e))?;
    let wanted = row_groups(metadata.metadata(), users);
    let columns = ProjectionMask::columns(metadata.parquet_schema(), COLUMNS);
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
        .with_row_groups(wanted)
        .with_projection(columns)
        .with_batch_size(batch_rows);
    let unread = "its pages cannot be decoded";
    for batch in builder.build().map_err(|_| broken(&unread))? {
        let batch = batch.map_err(|_| broken(&unread))?;
        let columns = Columns::of(&batch).ok_or_else(|| broken(&"its columns are not ours"))?;
        for row in 0..batch.num_rows() {
            if !users.contains(&(columns.user_id.value(row) as u64)) {
                continue;
            }
            let code = columns.category.value(row);
            let category = categories.id(code).ok_or_else(|| unknown_category(code))?;
            let record = columns.record(row, category);
            on_record(record.ok_or_else(|| broken(&"a record says what no run says"))?);
        }
    }
    Ok(())
}

/// What a record is made of; its id and its run follow from elsewhere.
const COLUMNS: [&str; 11] = [
    "user_id",
    "category",
    "sequence",
    "event",
    "level",
    "threshold",
    "reached",
    "spent",
    "budget",
    "rolled_over",
    "budget_source",
];

struct Columns<'b> {
    user_id: &'b Int64Array,
    category: &'b StringArray,
    sequence: &'b Int64Array,
    event: &'b StringArray,
    level: &'b StringArray,
    threshold: &'b Decimal128Array,
    reached: &'b Decimal128Array,
    spent: &'b Decimal128Array,
    budget: &'b Decimal128Array,
    rolled_over: &'b Decimal128Array,
    budget_source: &'b StringArray,
}

impl<'b> Columns<'b> {
    fn of(batch: &'b RecordBatch) -> Option<Columns<'b>> {
        let number = |name| batch.column_by_name(name)?.as_primitive_opt::<Int64Type>();
        let text = |name| batch.column_by_name(name)?.as_string_opt::<i32>();
        let decimal = |name| batch.column_by_name(name)?.as_primitive_opt::<Decimal128Type>();
        Some(Columns {
            user_id: number("user_id")?,
            category: text("category")?,
            sequence: number("sequence")?,
            event: text("event")?,
            level: text("level")?,
            threshold: decimal("threshold")?,
            reached: decimal("reached")?,
            spent: decimal("spent")?,
            budget: decimal("budget")?,
            rolled_over: decimal("rolled_over")?,
            budget_source: text("budget_source")?,
        })
    }

    fn record(&self, row: usize, category: CategoryId) -> Option<AlertRecord> {
        let whole = |column: &Decimal128Array| i64::try_from(column.value(row)).ok();
        let (event, level, source) =
            (self.event.value(row), self.level.value(row), self.budget_source.value(row));
        Some(AlertRecord {
            user_id: u64::try_from(self.user_id.value(row)).ok()?,
            category,
            sequence: u32::try_from(self.sequence.value(row)).ok()?,
            event: AlertEvent::ALL.into_iter().find(|known| known.name() == event)?,
            level: AlertLevel::ALL.into_iter().find(|known| known.name() == level)?,
            threshold_millionths: whole(self.threshold)?,
            reached_millionths: match self.reached.is_valid(row) {
                true => Some(whole(self.reached)?),
                false => None,
            },
            spent_cents: whole(self.spent)?,
            budget: Budget {
                amount_cents: whole(self.budget)?,
                rolled_over_cents: whole(self.rolled_over)?,
                source: BudgetSource::ALL.into_iter().find(|known| known.name() == source)?,
            },
        })
    }
}
