//! `budget_alerts`: Parquet for whoever asks, NDJSON for whoever reads lines.
//!
//! In: the records that are due, month by month, in their order. Out: parts of the table and files
//! of the run, read back.
//! Invariant: a part ends with a user, and its records rise by user, category and number.

use super::manifest::FileRecord;
use super::part::{self, WrittenPart};
use crate::domain::alert::AlertRecord;
use crate::domain::category::Categories;
use crate::domain::money::format_cents;
use crate::domain::month::Month;
use crate::error::{Error, Result};
use crate::limits::PART_ALERTS;
use crate::output::lake::BUDGET_ALERTS;
use crate::planted::Bug;
use crate::schema;
use crate::store::Place;
use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use rayon::prelude::*;
use serde::Serialize;
use std::sync::Arc;

/// Writes the records of a run.
pub struct AlertWriter<'a> {
    lake: &'a Place,
    run_id: &'a str,
    categories: &'a Categories,
    waiting: Vec<AlertRecord>,
    written: WrittenAlerts,
}

/// What was written.
#[derive(Debug, Default)]
pub struct WrittenAlerts {
    pub parts: Vec<(Month, WrittenPart)>,
    pub files: Vec<FileRecord>,
}

impl<'a> AlertWriter<'a> {
    pub fn new(lake: &'a Place, run_id: &'a str, categories: &'a Categories) -> Self {
        AlertWriter { lake, run_id, categories, waiting: Vec::new(), written: WrittenAlerts::default() }
    }

    /// Takes the next records of a month. Errors when they do not follow those before them.
    pub fn add(&mut self, month: Month, records: Vec<AlertRecord>) -> Result<()> {
        let rise = |pair: &[AlertRecord]| pair[0].key() < pair[1].key();
        let first = self.waiting.len().saturating_sub(1);
        self.waiting.extend(records);
        if !self.waiting[first..].windows(2).all(rise) {
            return Err(Error::invariant("alerts are not in the order of users, or one is due twice"));
        }
        match self.waiting.len() >= PART_ALERTS {
            true => self.end_month(month),
            false => Ok(()),
        }
    }

    /// Writes what waits. What comes next may be of another month.
    pub fn end_month(&mut self, month: Month) -> Result<()> {
        let records = std::mem::take(&mut self.waiting);
        if records.is_empty() {
            return Ok(());
        }
        let (run_id, sequence, rows) = (self.run_id, self.written.parts.len(), records.len() as u64);
        let table = self.lake.child(BUDGET_ALERTS);
        let path = format!("month={month}-01/part-{sequence:05}-{run_id}.parquet");
        let bytes = to_parquet(&records, month, self.categories, run_id)?;
        let written = part::write(&table, &path, bytes, rows)?;
        self.written.parts.push((month, written));
        let path = format!("_runs/{run_id}/alerts-{sequence:05}.ndjson");
        let lines = to_ndjson(&records, month, self.categories, run_id);
        self.written.files.push(part::write_file(self.lake, path, lines, rows)?);
        Ok(())
    }

    pub fn finish(self) -> WrittenAlerts {
        assert!(self.waiting.is_empty(), "each month was ended");
        self.written
    }
}

/// One JSON object per line.
pub fn to_ndjson(records: &[AlertRecord], month: Month, categories: &Categories, run_id: &str) -> Bytes {
    let line = |record| {
        let line = AlertLine::new(record, month, categories, run_id);
        serde_json::to_string(&line).expect("text and numbers are JSON") + "\n"
    };
    let lines: Vec<String> = records.par_iter().map(line).collect();
    lines.concat().into()
}

/// A record as it is told outside of tables: the columns of `budget_alerts`, shares and amounts as
/// text.
#[derive(Serialize)]
pub struct AlertLine<'a> {
    alert_id: String,
    user_id: u64,
    month: String,
    category: &'a str,
    sequence: u32,
    event: &'static str,
    level: &'static str,
    threshold: String,
    reached: Option<String>,
    spent: String,
    budget: String,
    rolled_over: String,
    budget_source: &'static str,
    run_id: &'a str,
}

impl<'a> AlertLine<'a> {
    pub fn new(
        record: &AlertRecord,
        month: Month,
        categories: &'a Categories,
        run_id: &'a str,
    ) -> AlertLine<'a> {
        let category = categories.code(record.category);
        let amount = |cents: i64| format_cents(i128::from(cents));
        AlertLine {
            alert_id: format!("{:032x}", record.id(month, category)),
            user_id: record.user_id,
            month: month.to_string(),
            category,
            sequence: record.sequence,
            event: record.event.name(),
            level: record.level.name(),
            threshold: share(record.threshold_millionths),
            reached: record.reached_millionths.map(share),
            spent: amount(record.spent_cents),
            budget: amount(record.budget.amount_cents),
            rolled_over: amount(record.budget.rolled_over_cents),
            budget_source: record.budget.source.name(),
            run_id,
        }
    }
}

/// Millionths as a decimal without needless zeros: `0.8`, `1`.
pub fn share(millionths: i64) -> String {
    let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A part of the table.
pub fn to_parquet(
    records: &[AlertRecord],
    month: Month,
    categories: &Categories,
    run_id: &str,
) -> Result<Bytes> {
    let of_run = uuid::Uuid::parse_str(run_id).ok().filter(|_| Bug::AlertIdOfRun.is_planted());
    let of_run = of_run.map_or(0, |id| id.as_u128());
    let ids: Vec<String> = records
        .par_iter()
        .map(|record| format!("{:032x}", record.id(month, categories.code(record.category)) ^ of_run))
        .collect();
    let texts = |text: &dyn Fn(&AlertRecord) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(records.iter().map(text)))
    };
    let numbers = |number: &dyn Fn(&AlertRecord) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(records.iter().map(|record| number(record) as i64)))
    };
    let decimals = |kind, number: &dyn Fn(&AlertRecord) -> Option<i64>| -> ArrayRef {
        let numbers = records.iter().map(|record| number(record).map(i128::from));
        Arc::new(numbers.collect::<Decimal128Array>().with_data_type(kind))
    };
    let codes = records.iter().map(|record| categories.code(record.category));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(ids)),
        numbers(&|record| record.user_id),
        Arc::new(StringArray::from_iter_values(codes)),
        numbers(&|record| record.sequence.into()),
        texts(&|record| record.event.name()),
        texts(&|record| record.level.name()),
        decimals(schema::SHARE, &|record| Some(record.threshold_millionths)),
        decimals(schema::SHARE, &|record| record.reached_millionths),
        decimals(schema::AMOUNT, &|record| Some(record.spent_cents)),
        decimals(schema::AMOUNT, &|record| Some(record.budget.amount_cents)),
        decimals(schema::AMOUNT, &|record| Some(record.budget.rolled_over_cents)),
        texts(&|record| record.budget.source.name()),
        Arc::new(StringArray::from_iter_values(records.iter().map(|_| run_id))),
    ];
    let schema = part::without_partition_column(&schema::budget_alerts());
    let batch = RecordBatch::try_new(schema.clone(), columns);
    part::encode(&schema, &[batch.map_err(|e| Error::invariant(format!("alerts are no table: {e}")))?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::{AlertEvent, AlertLevel};
    use crate::domain::budget::{Budget, BudgetSource};
    use crate::input::alerts::read_records;
    use crate::input::published::EVERYBODY;

    #[test]
    fn records_survive_parquet_and_are_lines_of_json() {
        let categories = Categories::builtin();
        let month = "2025-01".parse().unwrap();
        let first = AlertRecord {
            user_id: 1,
            category: categories.id("gas").unwrap(),
            sequence: 1,
            event: AlertEvent::Raised,
            level: AlertLevel::Approaching,
            threshold_millionths: 800_000,
            reached_millionths: Some(800_000),
            spent_cents: 90_05,
            budget: Budget { amount_cents: 100_00, rolled_over_cents: 50, source: BudgetSource::Template },
        };
        let second = AlertRecord {
            sequence: 2,
            event: AlertEvent::Cleared,
            reached_millionths: None,
            spent_cents: -5,
            ..first
        };
        let records = [first, second];
        let mut read = Vec::new();
        let bytes = to_parquet(&records, month, &categories, "run").unwrap();
        read_records(bytes.clone(), &EVERYBODY, &categories, |record| read.push(record)).unwrap();
        assert_eq!(read, records);
        read_records(bytes, &(2..=5), &categories, |_| panic!("nobody asked for user 1")).unwrap();
        let lines = String::from_utf8(to_ndjson(&records, month, &categories, "run").to_vec()).unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((&lines[0]["spent"], &lines[0]["threshold"]), (&"90.05".into(), &"0.8".into()));
        assert_eq!((&lines[1]["reached"], &lines[1]["event"]), (&serde_json::Value::Null, &"cleared".into()));
    }
}
