//! A month as it is published: its parts, and its groups in the order of users.
//!
//! In: the parts of the head. Out: groups up to a user, part by part.
//! Invariant: parts of a month hold disjoint, rising ranges of users, and keys rise strictly
//! within and across them; anything else is refused.

use crate::domain::category::Categories;
use crate::domain::month::Month;
use crate::domain::spend::Spend;
use crate::error::{Error, Kind, Result};
use crate::store::Place;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::VecDeque;

/// A Parquet file of a published table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFile {
    /// Below the table: `month=2025-01-01/part-….parquet`.
    pub path: String,
    pub size_bytes: u64,
    pub rows: u64,
    pub month: Option<Month>,
    /// Delta statistics as JSON: numRecords, minValues, maxValues, nullCount.
    pub stats: Option<String>,
}

impl PartFile {
    /// Its first user by its statistics; 0, which is never too late, where they do not say.
    pub fn first_user(&self) -> u64 {
        let statistics = self.stats.as_ref().and_then(|stats| serde_json::from_str(stats).ok());
        let statistics: serde_json::Value = statistics.unwrap_or_default();
        statistics["minValues"]["user_id"].as_u64().unwrap_or(0)
    }
}

/// Reads the groups of one part of `monthly_spending`. Errors when a category is unknown to the
/// job, or keys do not rise strictly.
pub fn read_groups(bytes: Bytes, categories: &Categories, shown: &str) -> Result<Vec<Spend>> {
    let broken = |e: &dyn std::fmt::Display| {
        Error::invariant(format!("a published part cannot be read: {e}")).at(shown)
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| broken(&e))?;
    let mut groups = Vec::with_capacity(builder.metadata().file_metadata().num_rows() as usize);
    for batch in builder.with_batch_size(64 * 1024).build().map_err(|e| broken(&e))? {
        let batch = batch.map_err(|e| broken(&e))?;
        append_groups(&batch, categories, &mut groups).map_err(|e| e.at(shown))?;
    }
    match groups.windows(2).all(|pair| pair[0].key() < pair[1].key()) {
        true => Ok(groups),
        false => Err(broken(&"its keys do not rise")),
    }
}

fn append_groups(batch: &RecordBatch, categories: &Categories, groups: &mut Vec<Spend>) -> Result<()> {
    let missing = || Error::invariant("the columns of a published part are not ours");
    let column = |name: &str| batch.column_by_name(name).ok_or_else(missing);
    let users = column("user_id")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
    let codes = column("category")?.as_string_opt::<i32>().ok_or_else(missing)?;
    let cents = column("amount")?.as_primitive_opt::<Decimal128Type>().ok_or_else(missing)?;
    let counts = column("transaction_count")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
    for row in 0..batch.num_rows() {
        let code = codes.value(row);
        let category = categories.id(code).ok_or_else(|| {
            let error =
                Error::new(Kind::Unfit, format!("the lake holds the category `{code}`, the job does not"));
            error.advise("keep a category in the job's set for as long as the lake holds it")
        })?;
        let whole = |number: i64| u64::try_from(number).map_err(|_| missing());
        groups.push(Spend {
            user_id: whole(users.value(row))?,
            category,
            amount_cents: i64::try_from(cents.value(row)).map_err(|_| missing())?,
            transaction_count: whole(counts.value(row))?,
        });
    }
    Ok(())
}

/// The groups of one published month, taken from the first user to the last.
pub struct OpeningMonth {
    pub month: Month,
    /// With their first users.
    parts: VecDeque<(u64, Place)>,
    waiting: VecDeque<Spend>,
}

impl OpeningMonth {
    /// A month with these parts, in the order of their users; none for a month that is new.
    pub fn new(month: Month, parts: Vec<(u64, Place)>) -> OpeningMonth {
        OpeningMonth { month, parts: parts.into(), waiting: VecDeque::new() }
    }

    /// The first users of the parts not yet read: stretches that end there hold one part each.
    pub fn part_starts(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|(first_user, _)| *first_user)
    }

    /// All groups of users before `end` that were not taken yet; of all users when there is no end.
    pub fn take_until(&mut self, end: Option<u64>, categories: &Categories) -> Result<Vec<Spend>> {
        let before_end = |group: &Spend| end.is_none_or(|end| group.user_id < end);
        while self.waiting.back().is_none_or(before_end) {
            // A part whose first user lies behind the end is not needed yet.
            if self.parts.front().is_none_or(|(first_user, _)| end.is_some_and(|end| *first_user >= end)) {
                break;
            }
            let Some((_, part)) = self.parts.pop_front() else { break };
            let groups = read_groups(part.read()?, categories, &part.shown)?;
            let last = self.waiting.back().map(|group| group.user_id);
            if last.is_some_and(|last| groups.first().is_some_and(|first| first.user_id <= last)) {
                return Err(Error::invariant("the parts of a month share users").at(&part.shown));
            }
            self.waiting.extend(groups);
        }
        let count = self.waiting.partition_point(before_end);
        Ok(self.waiting.drain(..count).collect())
    }
}
