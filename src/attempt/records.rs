//! What an attempt leaves in writing: entries of the ledger, the manifest's lists, the report.
//!
//! In: what was read, and what was written and read back. Out: their records.
//! Invariant: the ledger, the manifest and the report say the same of the same object and month.

use super::Read;
use super::alerts::Said;
use crate::domain::month::Month;
use crate::domain::transaction::RejectReason;
use crate::error::{Error, Result};
use crate::input::ledger::{Entry, Ledger, MonthEntry, Status};
use crate::input::plan::LogObject;
use crate::kernel::fused::{MonthShare, Outcome};
use crate::kernel::keyed::GroupTotals;
use crate::output::manifest::{InputRecord, Manifest, MonthRecord};
use crate::output::monthly::MonthPart;
use crate::report::{Report, RunOutcome};
use std::collections::BTreeMap;

/// What the ledger says of an object; of one that cannot be read to its end nothing is known.
pub(super) fn entry(object: &LogObject, outcome: Option<&Outcome>, run_id: &str, status: Status) -> Entry {
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
        rows_outside: outcome.rejected[RejectReason::OutOfWindow as usize],
        positive_cents: outcome.positive_cents,
        negative_cents: outcome.negative_cents,
        months: outcome.by_month.iter().map(|(month, share)| month_entry(*month, share)).collect(),
        duplicate_allowed: false,
    }
}

pub(super) fn month_entry(month: Month, share: &MonthShare) -> MonthEntry {
    let (rows, net_cents) = (share.rows, share.net_cents());
    MonthEntry { month, rows, net_cents, last_micros: Some(share.last_micros) }
}

/// Everything that was read, as the ledger says it after the run.
pub(super) fn inputs(read: &Read, ledger: &Ledger) -> Vec<InputRecord> {
    let kept = read.kept.iter().map(|(object, _)| object);
    let all = kept.chain(read.held.iter().map(|(object, ..)| object));
    all.map(|object| InputRecord::new(&object.name, ledger.entries[&object.name].clone())).collect()
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
    report.rebuilt_month = match &manifest.rebuilt_months[..] {
        [month] => Some(month.clone()),
        _ => None,
    };
    report.rebuilt_months = manifest.rebuilt_months;
    report.objects = manifest.inputs;
    report.alerts = said.counts;
    report.alerts_as_of = said.as_of.map(|month| month.to_string());
    report.sellers = read.mapped.memo.into();
    report.spilled_bytes = read.mapped.shuffle.spilled_bytes() + read.mapped.rejects.spilled_bytes();
    report.table_version = version;
}
