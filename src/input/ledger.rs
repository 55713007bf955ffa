//! The ledger: every input that was ever counted or held, with what it came to.
//!
//! In: the ledger of the newest commit, and the entries of this run. Out: the next ledger, as
//! Parquet. Invariant: old + added = new; no object and no content is counted twice.

use super::parquet_bounds::{batch_rows, footer};
use crate::domain::month::Month;
use crate::error::{Error, Result};
use crate::limits::LEDGER_ROWS_MAX;
use crate::planted::Bug;
use crate::schema;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Builder, Int64Builder, RecordBatch, StringBuilder,
};
use arrow::datatypes::{Decimal128Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Counted,
    /// Nothing of it is counted, for this reason.
    Held(String),
}

/// Accepted rows of one month of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthEntry {
    pub month: Month,
    pub rows: u64,
    pub net_cents: i128,
    /// Of the latest of them, since 1970; unknown of what an earlier program counted.
    pub last_micros: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub etag: String,
    pub size_bytes: u64,
    /// What it says, whatever the order of its lines; empty where it could not be read.
    pub content_hash: String,
    pub status: Status,
    /// The run that counted or held it.
    pub run_id: String,
    pub rows_read: u64,
    pub rows_accepted: u64,
    pub rows_rejected: u64,
    pub rows_blank: u64,
    /// Of the rejected ones: outside the job's months, and fed in when a wider job recounts theirs.
    pub rows_outside: u64,
    pub positive_cents: i128,
    pub negative_cents: i128,
    pub months: Vec<MonthEntry>,
    /// Whether it was let in by name although it says the same as another object.
    pub duplicate_allowed: bool,
}

/// Entries by the name of their object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub entries: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct MonthText {
    month: String,
    rows: u64,
    /// As text: readers of JSON do not hold every integer exactly.
    net_cents: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_micros: Option<i64>,
}

impl Ledger {
    /// The contents that are counted.
    pub fn counted_contents(&self) -> HashSet<&str> {
        self.counted().map(|(_, entry)| entry.content_hash.as_str()).collect()
    }

    /// The newest run that has counted something for each month.
    pub fn newest_runs(&self) -> HashMap<Month, &str> {
        let mut newest = HashMap::new();
        for (_, entry) in self.counted() {
            for of_month in &entry.months {
                let run = newest.entry(of_month.month).or_insert(entry.run_id.as_str());
                *run = entry.run_id.as_str().max(*run);
            }
        }
        newest
    }

    pub fn is_counted(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.status == Status::Counted)
    }

    /// Rows and net cents that are counted for each month.
    pub fn months(&self) -> BTreeMap<Month, (u64, i128)> {
        let mut months: BTreeMap<Month, (u64, i128)> = BTreeMap::new();
        for of_object in self.counted().flat_map(|(_, entry)| &entry.months) {
            let sum = months.entry(of_object.month).or_default();
            *sum = (sum.0 + of_object.rows, sum.1 + of_object.net_cents);
        }
        months
    }

    pub fn counted(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter().filter(|(_, entry)| entry.status == Status::Counted)
    }

    /// The latest transaction that is counted for a month, since 1970; none where there is none, or
    /// an earlier program has counted some of the month and did not keep it.
    pub fn last_micros(&self, month: Month) -> Option<i64> {
        let of_month = self.counted().flat_map(|(_, entry)| &entry.months).filter(|m| m.month == month);
        of_month.map(|m| m.last_micros).try_fold(None, |last, next| Some(last.max(Some(next?)))).flatten()
    }

    pub fn to_parquet(&self) -> Result<Bytes> {
        let broken =
            |e: &dyn std::fmt::Display| Error::invariant(format!("the ledger cannot be written: {e}"));
        let schema = schema::ledger();
        let columns = self.columns().map_err(|e| broken(&e))?;
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|e| broken(&e))?;
        let properties = schema::writer_properties().build();
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, schema, Some(properties)).map_err(|e| broken(&e))?;
        writer.write(&batch).map_err(|e| broken(&e))?;
        writer.close().map_err(|e| broken(&e))?;
        Ok(bytes.into())
    }

    fn columns(&self) -> Result<Vec<ArrayRef>> {
        let text = |value: fn(&String, &Entry) -> Option<String>| -> ArrayRef {
            let mut builder = StringBuilder::new();
            self.entries.iter().for_each(|(name, entry)| builder.append_option(value(name, entry)));
            Arc::new(builder.finish())
        };
        let number = |value: fn(&Entry) -> u64| -> ArrayRef {
            let mut builder = Int64Builder::new();
            self.entries.values().for_each(|entry| builder.append_value(value(entry) as i64));
            Arc::new(builder.finish())
        };
        let cents = |value: fn(&Entry) -> i128| -> ArrayRef {
            let mut builder = Decimal128Builder::new().with_data_type(schema::TOTAL);
            self.entries.values().for_each(|entry| builder.append_value(value(entry)));
            Arc::new(builder.finish())
        };
        Ok(vec![
            text(|name, _| Some(name.clone())),
            text(|_, entry| Some(entry.etag.clone())),
            number(|entry| entry.size_bytes),
            text(|_, entry| Some(entry.content_hash.clone())),
            text(|_, entry| Some(if entry.status == Status::Counted { "counted" } else { "held" }.into())),
            text(|_, entry| match &entry.status {
                Status::Counted => None,
                Status::Held(reason) => Some(reason.clone()),
            }),
            text(|_, entry| Some(entry.run_id.clone())),
            number(|entry| entry.rows_read),
            number(|entry| entry.rows_accepted),
            number(|entry| entry.rows_rejected),
            number(|entry| entry.rows_blank),
            cents(|entry| entry.positive_cents),
            cents(|entry| entry.negative_cents),
            text(|_, entry| Some(months_to_text(&entry.months))),
            number(|entry| entry.rows_outside),
            Arc::new(
                self.entries.values().map(|entry| Some(entry.duplicate_allowed)).collect::<BooleanArray>(),
            ),
        ])
    }

    pub fn from_parquet(bytes: Bytes) -> Result<Ledger> {
        let broken = |what: &dyn std::fmt::Display| {
            let error = Error::unfit(format!("the ledger is damaged: {what}"));
            error.advise("`pennymill audit` says where the lake is damaged; restore it from a copy")
        };
        let metadata = footer(&bytes, ArrowReaderOptions::new(), LEDGER_ROWS_MAX).map_err(|e| broken(&e))?;
        let leaves: Vec<usize> = (0..metadata.parquet_schema().num_columns()).collect();
        let batch_rows = batch_rows(&bytes, metadata.metadata(), &leaves).map_err(|e| broken(&e))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
        let builder = builder.with_batch_size(batch_rows);
        let mut entries = BTreeMap::new();
        let unread = "its pages cannot be decoded";
        for batch in builder.build().map_err(|_| broken(&unread))? {
            let batch = batch.map_err(|_| broken(&unread))?;
            for row in usize::from(Bug::LedgerForgets.is_planted())..batch.num_rows() {
                let (name, entry) =
                    entry_at(&batch, row).ok_or_else(|| broken(&"its columns are not ours"))?;
                entries.insert(name, entry);
            }
        }
        Ok(Ledger { entries })
    }
}

fn entry_at(batch: &RecordBatch, row: usize) -> Option<(String, Entry)> {
    let text = |name: &str| -> Option<Option<String>> {
        let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        Some(column.is_valid(row).then(|| column.value(row).to_string()))
    };
    let number = |name: &str| -> Option<u64> {
        let column = batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
        u64::try_from(column.value(row)).ok()
    };
    let cents = |name: &str| -> Option<i128> {
        Some(batch.column_by_name(name)?.as_primitive_opt::<Decimal128Type>()?.value(row))
    };
    let status = match text("status")??.as_str() {
        "counted" => Status::Counted,
        _ => Status::Held(text("status_reason")??),
    };
    let entry = Entry {
        etag: text("etag")??,
        size_bytes: number("size_bytes")?,
        content_hash: text("content_hash")??,
        status,
        run_id: text("run_id")??,
        rows_read: number("rows_read")?,
        rows_accepted: number("rows_accepted")?,
        rows_rejected: number("rows_rejected")?,
        rows_blank: number("rows_blank")?,
        positive_cents: cents("positive")?,
        negative_cents: cents("negative")?,
        months: months_from_text(&text("months")??)?,
        // Ledgers of an earlier program do not say: any rejected row may have been one of these.
        rows_outside: number("rows_outside").or_else(|| number("rows_rejected"))?,
        duplicate_allowed: batch
            .column_by_name("duplicate_allowed")
            .is_some_and(|column| column.as_boolean_opt().is_some_and(|column| column.value(row))),
    };
    Some((text("source_object")??, entry))
}

fn months_to_text(months: &[MonthEntry]) -> String {
    let text = |m: &MonthEntry| MonthText {
        month: m.month.to_string(),
        rows: m.rows,
        net_cents: m.net_cents.to_string(),
        last_micros: m.last_micros,
    };
    let texts: Vec<MonthText> = months.iter().map(text).collect();
    serde_json::to_string(&texts).expect("text and numbers are JSON")
}

fn months_from_text(text: &str) -> Option<Vec<MonthEntry>> {
    let texts: Vec<MonthText> = serde_json::from_str(text).ok()?;
    let entry = |m: MonthText| {
        Some(MonthEntry {
            month: m.month.parse().ok()?,
            rows: m.rows,
            net_cents: m.net_cents.parse().ok()?,
            last_micros: m.last_micros,
        })
    };
    texts.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_survives_parquet() {
        let entry = Entry {
            etag: "1-2".into(),
            size_bytes: 17,
            content_hash: "ab".into(),
            status: Status::Counted,
            run_id: "run".into(),
            rows_read: 4,
            rows_accepted: 2,
            rows_rejected: 1,
            rows_blank: 1,
            rows_outside: 1,
            duplicate_allowed: true,
            positive_cents: 1 << 80,
            negative_cents: -5,
            months: vec![MonthEntry {
                month: "2025-01".parse().unwrap(),
                rows: 2,
                net_cents: -7,
                last_micros: Some(1_700_000_000_000_000),
            }],
        };
        let held = Entry { status: Status::Held("why".into()), months: vec![], ..entry.clone() };
        let entries = BTreeMap::from([("a.tsv".to_string(), entry), ("b.tsv".to_string(), held)]);
        let ledger = Ledger { entries };
        assert_eq!(Ledger::from_parquet(ledger.to_parquet().unwrap()).unwrap(), ledger);
        assert_eq!(ledger.counted_contents(), HashSet::from(["ab"]));
    }
}
