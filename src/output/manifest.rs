//! The manifest: what a run read, what it came to, and what it wrote; immutable.
//!
//! In: the results of a run. Out: JSON at `_runs/<run_id>/manifest.json`, which the commit names
//! with its checksum. Invariant: it is written, and read back, before the commit.

use crate::domain::month::Month;
use crate::input::ledger::{Entry, Status};
use crate::input::published::PartFile;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An object of the run beside the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Below the lake.
    pub path: String,
    pub size_bytes: u64,
    pub rows: u64,
    pub sha256: String,
}

/// A part of a published table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Below its table.
    pub path: String,
    pub size_bytes: u64,
    pub rows: u64,
    pub sha256: String,
    /// Of its partition: `2025-01`.
    pub month: String,
    pub stats: String,
}

impl PartRecord {
    pub fn new(month: Month, written: &super::part::WrittenPart) -> PartRecord {
        PartRecord {
            path: written.path.clone(),
            size_bytes: written.size_bytes,
            rows: written.rows,
            sha256: written.sha256.clone(),
            month: month.to_string(),
            stats: written.stats.clone(),
        }
    }

    pub fn file(&self) -> PartFile {
        PartFile {
            path: self.path.clone(),
            size_bytes: self.size_bytes,
            rows: self.rows,
            month: self.month.parse().ok(),
            stats: Some(self.stats.clone()),
        }
    }
}

/// What became of one input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    pub source_object: String,
    /// `counted` or `held`.
    pub status: String,
    pub reason: Option<String>,
    pub etag: String,
    pub size_bytes: u64,
    pub content_hash: String,
    pub rows_accepted: u64,
    pub rows_rejected: u64,
    pub rows_blank: u64,
    /// As text: an object's total may outgrow what JSON readers hold exactly.
    pub positive_cents: String,
    pub negative_cents: String,
}

impl InputRecord {
    /// None where the manifest does not hold whole numbers.
    pub fn net_cents(&self) -> Option<i128> {
        let cents = |text: &str| text.parse::<i128>().ok();
        Some(cents(&self.positive_cents)? + cents(&self.negative_cents)?)
    }

    /// As the ledger says it.
    pub fn new(source_object: &str, entry: Entry) -> InputRecord {
        let (status, reason) = match entry.status {
            Status::Counted => ("counted", None),
            Status::Held(reason) => ("held", Some(reason)),
        };
        InputRecord {
            source_object: source_object.to_string(),
            status: status.to_string(),
            reason,
            etag: entry.etag,
            size_bytes: entry.size_bytes,
            content_hash: entry.content_hash,
            rows_accepted: entry.rows_accepted,
            rows_rejected: entry.rows_rejected,
            rows_blank: entry.rows_blank,
            positive_cents: entry.positive_cents.to_string(),
            negative_cents: entry.negative_cents.to_string(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonthRecord {
    pub month: String,
    pub rows: u64,
    pub users: u64,
    pub groups: u64,
    pub net_cents: i64,
}

/// The parts of a table, as a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerRecord {
    pub parts: u64,
    /// Of their paths, sorted, a line each.
    pub sha256: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub run_id: String,
    pub job: String,
    /// SHA-256 of the job as it was understood, defaults and overrides included.
    pub job_sha256: String,
    /// The job as it was run, as JSON.
    #[serde(default)]
    pub job_spec: String,
    pub currency: String,
    pub time_zone: String,
    /// The version of `monthly_spending` this run started from.
    pub opening_version: u64,
    /// Months that were counted anew from their raw logs.
    #[serde(default)]
    pub rebuilt_months: Vec<String>,
    /// How an earlier program wrote the one month that it rebuilt.
    #[serde(default, skip_serializing)]
    pub rebuilt_month: Option<String>,
    pub inputs: Vec<InputRecord>,
    pub months: Vec<MonthRecord>,
    pub monthly_spending: Vec<PartRecord>,
    pub budget_alerts: Vec<PartRecord>,
    pub transactions: Vec<PartRecord>,
    pub ledger: FileRecord,
    pub rejects: Option<FileRecord>,
    /// Some lines of the counted objects, to tell overlaps by.
    #[serde(default)]
    pub line_samples: Option<FileRecord>,
    /// The new alerts as lines of JSON. None in manifests of an earlier program, whose alerts had
    /// another form and are left where they are.
    #[serde(default)]
    pub alert_files: Option<Vec<FileRecord>>,
    /// What the tables that follow hold once they have caught up with this run, by name. Empty in
    /// manifests of earlier programs.
    #[serde(default)]
    pub followers: BTreeMap<String, FollowerRecord>,
}

impl Manifest {
    /// The parts that the run has written for a table that follows `monthly_spending`.
    pub fn parts_of(&self, table: &str) -> &[PartRecord] {
        match table {
            super::lake::BUDGET_ALERTS => self.alert_parts(),
            super::lake::TRANSACTIONS => &self.transactions,
            _ => &[],
        }
    }

    /// The months that were counted anew.
    pub fn recounted(&self) -> Vec<Month> {
        self.rebuilt_months.iter().chain(&self.rebuilt_month).filter_map(|month| month.parse().ok()).collect()
    }

    /// The parts of `budget_alerts` that the run has written, in the form of today.
    pub fn alert_parts(&self) -> &[PartRecord] {
        if self.alert_files.is_some() { &self.budget_alerts } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_of_an_earlier_program_are_left_where_they_are() {
        let part = PartRecord {
            path: "month=2025-01-01/part.parquet".into(),
            size_bytes: 1,
            rows: 1,
            sha256: String::new(),
            month: "2025-01".into(),
            stats: "{}".into(),
        };
        let now =
            Manifest { budget_alerts: vec![part], alert_files: Some(Vec::new()), ..Manifest::default() };
        assert_eq!(now.alert_parts().len(), 1);
        let mut json = serde_json::to_value(&now).unwrap();
        json.as_object_mut().unwrap().remove("alert_files");
        json["alerts"] = serde_json::Value::Null;
        let earlier: Manifest = serde_json::from_value(json).unwrap();
        assert!(earlier.alert_parts().is_empty() && earlier.budget_alerts.len() == 1);
    }
}
