//! A month as it is published: its parts, and their groups in the order of users.
//!
//! In: the parts of the head. Out: the groups of a part.
//! Invariant: keys rise strictly within a part; anything else is refused.

use crate::domain::category::{Categories, CategoryId};
use crate::domain::month::Month;
use crate::domain::spend::Spend;
use crate::error::{Error, Kind, Result};
use crate::schema;
use crate::store::Place;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal64Type, Int32Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

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

/// A part that a touched month was published with.
#[derive(Clone, Debug)]
pub struct OpeningPart {
    pub month: Month,
    pub first_user: u64,
    pub place: Place,
}

impl OpeningPart {
    pub fn read(&self, categories: &Categories) -> Result<Vec<Spend>> {
        read_groups(self.place.read()?, categories, &self.place.shown)
    }
}

/// All groups of one part of `monthly_spending`.
pub fn read_groups(bytes: Bytes, categories: &Categories, shown: &str) -> Result<Vec<Spend>> {
    let mut all = Vec::new();
    read_batches(bytes, categories, shown, |groups| {
        all.extend_from_slice(groups);
        Ok(())
    })?;
    Ok(all)
}

/// Reads the groups of one part of `monthly_spending`, batch by batch. Errors when a category is
/// unknown to the job, or keys do not rise strictly.
pub fn read_batches(
    bytes: Bytes,
    categories: &Categories,
    shown: &str,
    mut on_groups: impl FnMut(&[Spend]) -> Result<()>,
) -> Result<()> {
    let broken = |e: &dyn std::fmt::Display| {
        Error::invariant(format!("a published part cannot be read: {e}")).at(shown)
    };
    let options = ArrowReaderOptions::new().with_schema(schema::spending_in_memory());
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options);
    let builder = builder.map_err(|e| broken(&e))?;
    let mut groups = Vec::with_capacity(BATCH_ROWS);
    let mut last = None;
    for batch in builder.with_batch_size(BATCH_ROWS).build().map_err(|e| broken(&e))? {
        let batch = batch.map_err(|e| broken(&e))?;
        groups.clear();
        append_groups(&batch, categories, &mut groups).map_err(|e| e.at(shown))?;
        let rise = groups.windows(2).all(|pair| pair[0].key() < pair[1].key());
        let follow = groups.first().is_none_or(|first| last.is_none_or(|last| last < first.key()));
        if !rise || !follow {
            return Err(broken(&"its keys do not rise"));
        }
        last = groups.last().map(Spend::key).or(last);
        on_groups(&groups)?;
    }
    Ok(())
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
        categories.id(code).ok_or_else(|| {
            let error =
                Error::new(Kind::Unfit, format!("the lake holds the category `{code}`, the job does not"));
            error.advise("keep a category in the job's set for as long as the lake holds it")
        })
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
