//! What an attempt leaves in writing: entries of the ledger, the manifest's lists, the report.
//!
//! In: what was read, and what was written and read back. Out: their records.
//! Invariant: the ledger, the manifest and the report say the same of the same object and month.

use super::Read;
use super::alerts::Said;
use crate::domain::month::Month;
use crate::error::{Error, Result};
use crate::input::ledger::{Entry, MonthEntry, Status};
use crate::input::plan::LogObject;
use crate::kernel::fused::{MonthShare, Outcome};
use crate::kernel::keyed::GroupTotals;
use crate::output::manifest::{InputRecord, Manifest, MonthRecord};
use crate::output::monthly::MonthPart;
use crate::report::{Report, RunOutcome};
use std::collections::BTreeMap;

/// What the ledger says of an object; of one that cannot be read to its end nothing is known.
pub(super) fn entry(object: &LogObject, outcome: Option<&Outcome>, run_id: &str, status: Status) -> Entry {
    let month = |(month, share): (&Month, &MonthShare)| MonthEntry {
        month: *month,
        rows: share.rows,
        net_cents: share.net_cents,
        last_micros: Some(share.last_micros),
    };
    let content_hash = outcome.map(|outcome| outcome.content.to_string()).unwrap_or_default();
    let nothing = Outcome::default();
    let outcome = outcome.unwrap_or(&nothing);
    Entry {
        etag: object.version.clone(),
        size_bytes: object.size_bytes,
        content_hash,
        status,
        run_id: run_id.to_string(),
        rows_read: outcome.lines,
        rows_accepted: outcome.accepted,
        rows_rejected: outcome.rejected_rows(),
        rows_blank: outcome.blank,
        positive_cents: outcome.positive_cents,
        negative_cents: outcome.negative_cents,
        months: outcome.by_month.iter().map(month).collect(),
    }
}

pub(super) fn inputs(read: &Read) -> Vec<InputRecord> {
    let run_id = &read.run_id;
    let counted = |(object, outcome): &(LogObject, Outcome)| {
        InputRecord::new(&object.name, entry(object, Some(outcome), run_id, Status::Counted))
    };
    let held = |(object, outcome, reason): &(LogObject, Option<Outcome>, String)| {
        InputRecord::new(&object.name, entry(object, outcome.as_ref(), run_id, Status::Held(reason.clone())))
    };
    read.kept.iter().map(counted).chain(read.held.iter().map(held)).collect()
}

/// The totals of each month over its parts, which share no user.
pub(super) fn months(parts: &[MonthPart]) -> Result<Vec<MonthRecord>> {
    let mut months: BTreeMap<Month, GroupTotals> = BTreeMap::new();
    for part in parts {
        let totals = months.entry(part.month).or_default();
        *totals = totals.plus(part.totals);
    }
    let record = |(month, totals): (Month, GroupTotals)| {
        let net_cents = i64::try_from(totals.net_cents);
        Ok(MonthRecord {
            month: month.to_string(),
            rows: totals.transactions,
            users: totals.users,
            groups: totals.groups,
            net_cents: net_cents.map_err(|_| Error::invariant("a month's total leaves 64 bits"))?,
        })
    };
    months.into_iter().map(record).collect()
}

pub(super) fn fill(report: &mut Report, read: &Read, said: &Said, manifest: Manifest, version: u64) {
    report.run_id = read.run_id.clone();
    report.outcome = RunOutcome::Published;
    report.count(&read.sum);
    report.inputs.new = read.kept.len() as u64;
    report.inputs.bytes = read.kept.iter().map(|(object, _)| object.size_bytes).sum();
    report.months = manifest.months;
    report.rebuilt_month = manifest.rebuilt_month;
    report.alerts = said.counts;
    report.alerts_as_of = said.as_of.map(|month| month.to_string());
    report.sellers = read.mapped.memo.into();
    report.spilled_bytes = read.mapped.shuffle.spilled_bytes();
    report.table_version = version;
}
