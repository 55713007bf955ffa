//! `deliveries` and `dead_letters`: what was delivered, and what never will be.
//!
//! In: messages that are settled. Out: what is settled, by the run whose alerts they carry.
//! Invariant: rows are only added; a message is in `deliveries` once it is settled, and in
//! `dead_letters` before that if it was refused.

use super::commit::CommitInfo;
use super::lake::{Lake, MONTHLY_SPENDING};
use super::part;
use crate::error::{Error, Result};
use crate::input::contacts::Channel;
use crate::input::published::PartFile;
use crate::output::table::Table;
use crate::planted::Bug;
use crate::schema;
use crate::store::wait;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

pub const DELIVERIES: &str = "deliveries";
pub const DEAD_LETTERS: &str = "dead_letters";

/// Who says up to which version of `monthly_spending` everything is settled.
pub(super) const SETTLED: &str = "pennymill-deliver";

const ONE_TIME: &str = "restore monthly_spending, budget_alerts, transactions, deliveries, dead_letters and \
                        _runs from copies of one time";

/// A message that nobody has to send any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub message_id: u128,
    pub channel: Channel,
    /// None of a file, which is for many.
    pub user_id: Option<u64>,
    /// The run that made the alerts.
    pub alerts_run_id: String,
    pub alerts: u64,
    /// Of this run of the job.
    pub attempts: u32,
    pub at_micros: i64,
    /// Why it is a dead letter; none of one that was delivered.
    pub reason: Option<String>,
}

/// The version of `monthly_spending` up to which everything is settled.
pub fn settled_version(lake: &Lake) -> Result<u64> {
    let Some(table) = lake.table(DELIVERIES)? else { return Ok(0) };
    let Some(version) = wait(table.application_version(SETTLED))? else { return Ok(0) };
    // One that is ahead would leave what comes undelivered.
    match version.unsigned_abs() <= lake.published(MONTHLY_SPENDING)?.version() {
        true => Ok(version.unsigned_abs()),
        // Which of them was restored is unknown, and what else is of another time.
        false => {
            let what = format!("version {version} of {MONTHLY_SPENDING} is settled, and there is none yet");
            Err(Error::unfit(what).at(DELIVERIES).below(&lake.place.shown).advise(ONE_TIME))
        }
    }
}

/// The messages with the alerts of a version that are settled.
pub fn settled(lake: &Lake, version: u64) -> Result<HashSet<u128>> {
    let mut settled = HashSet::new();
    if Bug::DeliveredAgain.is_planted() {
        return Ok(settled);
    }
    let Some(table) = lake.table(DELIVERIES)? else { return Ok(settled) };
    let place = lake.place.child(DELIVERIES);
    for file in table.files()?.iter().filter(|file| file.path.starts_with(&prefix(version))) {
        let broken = |e: &dyn std::fmt::Display| Error::invariant(format!("deliveries cannot be read: {e}"));
        let bytes = place.child(&file.path).read()?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| broken(&e))?;
        for batch in builder.build().map_err(|e| broken(&e))? {
            let batch = batch.map_err(|e| broken(&e))?;
            let ids = batch.column_by_name("message_id").and_then(|column| column.as_string_opt::<i32>());
            for id in ids.ok_or_else(|| broken(&"no message_id"))?.iter().flatten() {
                settled.insert(u128::from_str_radix(id, 16).map_err(|e| broken(&e))?);
            }
        }
    }
    Ok(settled)
}

/// The ledger of one run of the job.
pub struct DeliveryLedger<'a> {
    lake: &'a Lake,
    run_id: String,
    /// Parts that this run has written.
    sequence: usize,
}

impl<'a> DeliveryLedger<'a> {
    pub fn new(lake: &'a Lake, run_id: String) -> DeliveryLedger<'a> {
        DeliveryLedger { lake, run_id, sequence: 0 }
    }

    /// Adds messages with the alerts of a version.
    pub fn append(&mut self, version: u64, messages: &[Settled]) -> Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let dead: Vec<Settled> =
            messages.iter().filter(|message| message.reason.is_some()).cloned().collect();
        self.sequence += 1;
        if !dead.is_empty() {
            self.append_to(DEAD_LETTERS, &schema::dead_letters(), version, &dead)?;
        }
        self.append_to(DELIVERIES, &schema::deliveries(), version, messages)
    }

    fn append_to(&self, name: &str, schema: &SchemaRef, version: u64, messages: &[Settled]) -> Result<()> {
        let bytes = part::encode(schema, &[batch(messages, schema)?])?;
        let path = format!("{}{:05}-{}.parquet", prefix(version), self.sequence, self.run_id);
        let (place, rows) = (self.lake.place.child(name), messages.len() as u64);
        let written = part::write(&place, &path, bytes, rows)?;
        // Each part is a commit of its own: nobody else may have taken this number of this run.
        let application = format!("{SETTLED}-{}", self.run_id);
        self.commit(name, schema, &[written.file(None)], &application, self.sequence as i64)
    }

    /// Everything up to this version is settled.
    pub fn settle(&self, version: u64) -> Result<()> {
        // Another run may have got there first.
        if settled_version(self.lake)? >= version {
            return Ok(());
        }
        self.commit(DELIVERIES, &schema::deliveries(), &[], SETTLED, version as i64)
    }

    fn commit(
        &self,
        name: &str,
        schema: &SchemaRef,
        add: &[PartFile],
        application: &str,
        application_version: i64,
    ) -> Result<()> {
        // Rows are only added, so a race that was lost is run again.
        let open = || self.lake.open_or_create(name, schema, &[]);
        let info = |_: &Table| CommitInfo {
            run_id: self.run_id.clone(),
            application: application.to_string(),
            application_version,
            metadata: BTreeMap::new(),
        };
        self.lake.put_parts(&open, add, &|_| false, &info).map(|_| ())
    }
}

/// How the names of parts begin that hold messages with the alerts of a version.
fn prefix(version: u64) -> String {
    format!("part-{version:010}-")
}

fn batch(messages: &[Settled], schema: &SchemaRef) -> Result<RecordBatch> {
    let texts = |text: &dyn Fn(&Settled) -> Option<String>| -> ArrayRef {
        Arc::new(messages.iter().map(text).collect::<StringArray>())
    };
    let numbers = |number: &dyn Fn(&Settled) -> Option<u64>| -> ArrayRef {
        Arc::new(messages.iter().map(|message| number(message).map(|n| n as i64)).collect::<Int64Array>())
    };
    let status = |message: &Settled| if message.reason.is_some() { "dead" } else { "delivered" };
    let at = TimestampMicrosecondArray::from_iter_values(messages.iter().map(|message| message.at_micros));
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "message_id" => texts(&|message| Some(format!("{:032x}", message.message_id))),
            "channel" => texts(&|message| Some(message.channel.name().into())),
            "user_id" => numbers(&|message| message.user_id),
            "alerts_run_id" => texts(&|message| Some(message.alerts_run_id.clone())),
            "alerts" => numbers(&|message| Some(message.alerts)),
            "attempts" => numbers(&|message| Some(message.attempts.into())),
            "settled_at" => Arc::new(at.clone().with_timezone("UTC")),
            "reason" => texts(&|message| message.reason.clone()),
            "status" => texts(&|message| Some(status(message).into())),
            other => unreachable!("{other} is no column of settled messages"),
        }
    });
    let batch = RecordBatch::try_new(schema.clone(), columns.collect());
    batch.map_err(|e| Error::invariant(format!("deliveries are no table: {e}")))
}
