//! A month as it is published: its parts, and their groups in the order of users.
//!
//! In: the parts of a version. Out: the groups of a part, or of some users.
//! Invariant: keys rise strictly within a part, and parts share no user; anything else is refused.
//! Of a range of users only the row groups that may hold one are decoded.

use super::parquet_bounds::{batch_rows, footer};
use crate::domain::category::{Categories, CategoryId, is_code};
use crate::domain::month::Month;
use crate::domain::spend::Spend;
use crate::error::{Error, Kind, Result};
use crate::limits::{PART_GROUPS, PART_ROWS_MAX};
use crate::schema;
use crate::store::Place;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal64Type, Int32Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

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

/// Users from the first to the last, both included.
pub type Users = RangeInclusive<u64>;

/// Everybody.
pub const EVERYBODY: Users = 0..=u64::MAX;

impl PartFile {
    /// Its users by its statistics; everybody, which is never too few, where they do not say.
    pub fn users(&self) -> Users {
        let statistics = self.stats.as_ref().and_then(|stats| serde_json::from_str(stats).ok());
        let statistics: serde_json::Value = statistics.unwrap_or_default();
        let user = |bound: &str| statistics[bound]["user_id"].as_u64();
        user("minValues").unwrap_or(0)..=user("maxValues").unwrap_or(u64::MAX)
    }
}

/// A published part of a month, and the users it may hold.
#[derive(Clone, Debug)]
pub struct PublishedPart {
    pub month: Month,
    pub users: Users,
    /// As its commit says.
    pub rows: u64,
    pub place: Place,
}

impl PublishedPart {
    /// The part of a table that lies at `table`.
    pub fn new(month: Month, file: &PartFile, table: &Place) -> PublishedPart {
        PublishedPart { month, users: file.users(), rows: file.rows, place: table.child(&file.path) }
    }

    /// Reads all groups into a buffer in place of what was there.
    pub fn read(&self, categories: &Categories, groups: &mut Vec<Spend>) -> Result<()> {
        groups.clear();
        // A commit may claim any number.
        groups.reserve_exact((self.rows as usize).min(2 * PART_GROUPS));
        read_batches(self.place.read()?, &EVERYBODY, categories, &self.place.shown, |some| {
            groups.extend_from_slice(some);
            Ok(())
        })
    }
}

/// Everybody, in shares that begin with these users. The more months are looked at together, the
/// more of their parts begin somewhere, and the smaller the shares.
pub fn shares(first_users: impl Iterator<Item = u64>) -> Vec<Users> {
    let mut begins: BTreeSet<u64> = first_users.collect();
    begins.insert(*EVERYBODY.start());
    let ends = begins.iter().skip(1).map(|next| next - 1).chain([*EVERYBODY.end()]);
    begins.iter().zip(ends).map(|(begin, end)| *begin..=end).collect()
}

/// The groups of some users of a month, of which these are all parts in the order of users.
pub fn read_users(parts: &[PublishedPart], users: &Users, categories: &Categories) -> Result<Vec<Spend>> {
    let mut found: Vec<Spend> = Vec::new();
    for part in parts.iter().filter(|part| overlap(&part.users, users)) {
        let before = found.len();
        read_batches(part.place.read()?, users, categories, &part.place.shown, |groups| {
            found.extend(groups.iter().filter(|group| users.contains(&group.user_id)));
            Ok(())
        })?;
        if before > 0 && found.len() > before && found[before - 1].user_id >= found[before].user_id {
            return Err(Error::invariant("the parts of a month share users").at(&part.place.shown));
        }
    }
    Ok(found)
}

fn overlap(one: &Users, other: &Users) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}

/// The users of a row group by its statistics, where it has any.
pub fn users_of(row_group: &RowGroupMetaData, column: usize) -> Option<Users> {
    let Some(Statistics::Int64(statistics)) = row_group.column(column).statistics() else { return None };
    let bound = |bound: &i64| u64::try_from(*bound).ok();
    Some(bound(statistics.min_opt()?)?..=bound(statistics.max_opt()?)?)
}

/// The index of the column `user_id` in a Parquet file.
pub fn user_column(metadata: &ParquetMetaData) -> Option<usize> {
    let columns = metadata.file_metadata().schema_descr();
    columns.columns().iter().position(|column| column.name() == "user_id")
}

/// The row groups of a file, sorted by user, that may hold one of these.
pub fn row_groups(metadata: &ParquetMetaData, users: &Users) -> Vec<usize> {
    let column = user_column(metadata);
    let may_hold = |group: &RowGroupMetaData| {
        let held = column.and_then(|column| users_of(group, column));
        held.is_none_or(|held| overlap(&held, users))
    };
    let groups = metadata.row_groups().iter().enumerate();
    groups.filter(|(_, group)| may_hold(group)).map(|(index, _)| index).collect()
}

/// All groups of one part of `monthly_spending`.
pub fn read_groups(bytes: Bytes, categories: &Categories, shown: &str) -> Result<Vec<Spend>> {
    let mut all = Vec::new();
    read_batches(bytes, &EVERYBODY, categories, shown, |groups| {
        all.extend_from_slice(groups);
        Ok(())
    })?;
    Ok(all)
}

/// Reads the row groups of one part of `monthly_spending` that may hold one of the users, batch by
/// batch. Errors when a category is unknown to the job, or keys do not rise strictly.
pub fn read_batches(
    bytes: Bytes,
    users: &Users,
    categories: &Categories,
    shown: &str,
    on_groups: impl FnMut(&[Spend]) -> Result<()>,
) -> Result<()> {
    let part = OpenPart::open(bytes, categories, shown)?;
    part.read(row_groups(part.metadata.metadata(), users), on_groups)
}

/// A part of `monthly_spending`, its footer read.
pub struct OpenPart<'a> {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    batch_rows: usize,
    categories: &'a Categories,
    shown: &'a str,
}

impl<'a> OpenPart<'a> {
    pub fn open(bytes: Bytes, categories: &'a Categories, shown: &'a str) -> Result<OpenPart<'a>> {
        let options = ArrowReaderOptions::new().with_schema(schema::spending_in_memory());
        let metadata = footer(&bytes, options, PART_ROWS_MAX).map_err(|e| damaged(&e, shown))?;
        let leaves: Vec<usize> = (0..metadata.parquet_schema().num_columns()).collect();
        let batch_rows = batch_rows(&bytes, metadata.metadata(), &leaves).map_err(|e| damaged(&e, shown))?;
        Ok(OpenPart { bytes, metadata, batch_rows: batch_rows.min(BATCH_ROWS), categories, shown })
    }

    /// Its place, for messages.
    pub fn shown(&self) -> &str {
        self.shown
    }

    pub fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// Reads these row groups batch by batch. Errors when a category is unknown to the job, or keys do
    /// not rise strictly.
    pub fn read(
        &self,
        row_groups: Vec<usize>,
        mut on_groups: impl FnMut(&[Spend]) -> Result<()>,
    ) -> Result<()> {
        // What a reader says of a file may repeat what the file holds.
        let broken = |_: ParquetError| damaged(&"its pages cannot be decoded", self.shown);
        let (bytes, metadata) = (self.bytes.clone(), self.metadata.clone());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
        let builder = builder.with_row_groups(row_groups).with_batch_size(self.batch_rows);
        let mut groups = Vec::with_capacity(BATCH_ROWS);
        let mut last = None;
        for batch in builder.build().map_err(broken)? {
            let batch = batch.map_err(|e| broken(e.into()))?;
            groups.clear();
            append_groups(&batch, self.categories, &mut groups).map_err(|e| e.at(self.shown))?;
            let rise = groups.windows(2).all(|pair| pair[0].key() < pair[1].key());
            let follow = groups.first().is_none_or(|first| last.is_none_or(|last| last < first.key()));
            if !rise || !follow {
                return Err(damaged(&"its keys do not rise", self.shown));
            }
            last = groups.last().map(Spend::key).or(last);
            on_groups(&groups)?;
        }
        Ok(())
    }
}

fn damaged(what: &dyn std::fmt::Display, shown: &str) -> Error {
    let error = Error::unfit(format!("a published part is damaged: {what}")).at(shown);
    error.advise("restore it from a copy, or rebuild its month with --rebuild")
}

/// A job has dropped a category that the lake holds. What cannot be a code is not repeated.
pub fn unknown_category(code: &str) -> Error {
    if !is_code(code) {
        return Error::unfit("the lake holds a category that no job can have: it is damaged");
    }
    let error = Error::new(Kind::Unfit, format!("the lake holds the category `{code}`, the job does not"));
    error.advise("keep a category in the job's set (`input.categories`) for as long as the lake holds it")
}

const BATCH_ROWS: usize = 16 * 1024;

fn append_groups(batch: &RecordBatch, categories: &Categories, groups: &mut Vec<Spend>) -> Result<()> {
    let missing = || Error::invariant("the columns of a published part are not ours");
    let column = |name: &str| batch.column_by_name(name).ok_or_else(missing);
    let users = column("user_id")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
    let codes = column("category")?.as_dictionary_opt::<Int32Type>().ok_or_else(missing)?;
    let cents = column("amount")?.as_primitive_opt::<Decimal64Type>().ok_or_else(missing)?;
    let counts = column("transaction_count")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
    if batch.columns().iter().any(|column| column.null_count() > 0) {
        return Err(missing());
    }
    let code = |code: Option<&str>| {
        let code = code.unwrap_or_default();
        categories.id(code).ok_or_else(|| unknown_category(code))
    };
    let codes_by_key = codes.values().as_string_opt::<i32>().ok_or_else(missing)?;
    let by_key = codes_by_key.iter().map(code).collect::<Result<Vec<CategoryId>>>()?;
    let rows = users.values().iter().zip(codes.keys().values()).zip(cents.values()).zip(counts.values());
    for (((user, key), cents), count) in rows {
        let whole = |number: i64| u64::try_from(number).map_err(|_| missing());
        groups.push(Spend {
            user_id: whole(*user)?,
            category: by_key[*key as usize],
            amount_cents: *cents,
            transaction_count: whole(*count)?,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_hold_everybody_once() {
        assert_eq!(shares([].into_iter()), [EVERYBODY]);
        assert_eq!(shares([0].into_iter()), [EVERYBODY]);
        assert_eq!(shares([70, 5, 5, 0, 70].into_iter()), [0..=4, 5..=69, 70..=u64::MAX]);
        assert_eq!(shares([u64::MAX].into_iter()), [0..=u64::MAX - 1, u64::MAX..=u64::MAX]);
    }
}
