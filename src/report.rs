//! What a run did: the counters, and all wording.
//!
//! In: what a run came to. Out: a page for a person, or one JSON object for a machine.
//! Invariant: keys are fixed; no seller, user or amount of a single transaction appears.

mod backtest;
mod memory;
mod plan;

pub use backtest::{backtest_json, backtest_text};
pub use memory::{forget_peak_memory, peak_memory_bytes, proc_bytes};
pub use plan::{plan_json, plan_text};

use crate::domain::category::CategorySource;
use crate::domain::money::format_cents;
use crate::domain::transaction::RejectReason;
use crate::engine::format::to_line;
pub use crate::error::printable;
use crate::input::gaps::Gap;
use crate::input::plan::Held;
use crate::kernel::fused::Outcome;
use crate::kernel::memo::MemoCounts;
use crate::output::manifest::{InputRecord, MonthRecord};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    Published,
    #[default]
    NothingToDo,
    Held,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Inputs {
    /// Listed under the job's logs.
    pub objects: u64,
    /// Counted by this run.
    pub new: u64,
    pub held: u64,
    /// Of the counted ones.
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Rows {
    pub read: u64,
    pub accepted: u64,
    pub rejected: u64,
    pub blank: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct AmountCents {
    pub positive: i64,
    pub negative: i64,
    pub net: i64,
}

/// How often the categorizer's memory knew a seller, over all reading of the run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sellers {
    pub remembered_rows: u64,
    /// Known but for a reference number, case or punctuation.
    pub remembered_folded_rows: u64,
    pub looked_up_rows: u64,
    pub hit_ratio: f64,
}

impl From<MemoCounts> for Sellers {
    fn from(counts: MemoCounts) -> Sellers {
        let MemoCounts { by_text, by_folded_text, looked_up } = counts;
        let rows = (by_text + by_folded_text + looked_up).max(1) as f64;
        Sellers {
            remembered_rows: by_text,
            remembered_folded_rows: by_folded_text,
            looked_up_rows: looked_up,
            hit_ratio: ((by_text + by_folded_text) as f64 / rows * 1e4).round() / 1e4,
        }
    }
}

/// New alerts, and what became of earlier ones.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct AlertCounts {
    pub approaching: u64,
    pub exceeded: u64,
    pub pace: u64,
    pub cleared: u64,
    pub corrected: u64,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct DeliveryCounts {
    pub delivered: u64,
    /// To be sent by a later run.
    pub deferred: u64,
    /// Written down in `dead_letters`.
    pub dead: u64,
    /// Alerts that concern a user without a contact.
    pub without_contact: u64,
}

impl DeliveryCounts {
    pub fn messages(&self) -> u64 {
        self.delivered + self.deferred + self.dead
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Seconds {
    pub plan: f64,
    pub map: f64,
    pub reduce: f64,
    pub alerts: f64,
    pub publish: f64,
    pub total: f64,
}

/// Rows of an object that stand in another one as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overlap {
    pub source_object: String,
    pub counted_object: String,
    pub rows: u64,
    /// Whether only a sample of the lines was compared.
    pub estimated: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct HeldInput {
    pub source_object: String,
    pub reason: String,
}

/// The report of a run. Keys may be added; none is renamed or removed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub run_id: String,
    pub job: String,
    pub outcome: RunOutcome,
    pub inputs: Inputs,
    pub rows: Rows,
    pub rejects: BTreeMap<&'static str, u64>,
    pub amount_cents: AmountCents,
    pub months: Vec<MonthRecord>,
    pub categorized: BTreeMap<&'static str, u64>,
    pub sellers: Sellers,
    pub alerts: AlertCounts,
    pub alerts_as_of: Option<String>,
    /// The month that was rebuilt: `rows` are then all rows of its logs, amounts those of the month.
    pub rebuilt_month: Option<String>,
    /// All months that were counted anew.
    pub rebuilt_months: Vec<String>,
    /// Every object that was read, and what it came to.
    pub objects: Vec<InputRecord>,
    /// Rows of new objects that stand in other counted objects too; counted all the same.
    pub overlaps: Vec<Overlap>,
    /// Periods without an object, where the names of the others lead to expect one.
    pub gaps: Vec<Gap>,
    pub held: Vec<HeldInput>,
    pub seconds: Seconds,
    pub peak_memory_bytes: u64,
    pub spilled_bytes: u64,
    pub table_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<DeliveryCounts>,
    /// The month that a job of kind `recommend` has recommended budgets for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommended_month: Option<String>,
    /// The table of a job of kind `sql`, and its rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_table: Option<(String, u64)>,
}

impl Report {
    /// Takes the counts of all counted objects together.
    pub fn count(&mut self, sum: &Outcome) {
        self.rows =
            Rows { read: sum.lines, accepted: sum.accepted, rejected: sum.rejected_rows(), blank: sum.blank };
        let reasons = RejectReason::ALL.iter().zip(sum.rejected);
        self.rejects = reasons.filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.name(), n)).collect();
        let sources = CategorySource::ALL.iter().zip(sum.by_source);
        self.categorized = sources.map(|(source, n)| (source.name(), n)).collect();
        self.amount_cents = AmountCents {
            positive: saturated(sum.positive_cents),
            negative: saturated(sum.negative_cents),
            net: saturated(sum.net_cents()),
        };
    }

    pub fn hold(&mut self, held: &[Held]) {
        self.inputs.held = held.len() as u64;
        let input = |held: &Held| HeldInput { source_object: held.name.clone(), reason: held.reason.clone() };
        self.held = held.iter().map(input).collect();
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        to_line(self)
    }

    /// A page of text.
    pub fn to_text(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_page(&mut page);
        page
    }

    fn write_page(&self, page: &mut String) -> std::fmt::Result {
        let outcome = match self.outcome {
            RunOutcome::NothingToDo if self.deliveries.is_some() => "nothing to deliver".to_string(),
            RunOutcome::Published if self.deliveries.is_some() => "delivered what could be".to_string(),
            RunOutcome::Published => format!("published version {}", self.table_version),
            RunOutcome::NothingToDo => "nothing new to read; the lake is as it was".to_string(),
            RunOutcome::Held => "nothing published: every new input is held".to_string(),
        };
        writeln!(page, "{}: {outcome}", self.job)?;
        if let Some(counts) = &self.deliveries {
            let [delivered, deferred, dead, without] =
                [counts.delivered, counts.deferred, counts.dead, counts.without_contact].map(grouped);
            writeln!(
                page,
                "  messages   {delivered} delivered, {deferred} to be sent again, {dead} dead letters"
            )?;
            writeln!(page, "  alerts     {without} of users without a contact")?;
            return writeln!(page, "  time       {:.2} s", self.seconds.total);
        }
        match (&self.published_table, self.outcome) {
            (Some((table, rows)), _) => {
                let month = self.recommended_month.as_ref().map(|month| format!(" for {month}"));
                writeln!(page, "  table      {table}: {} rows{}", grouped(*rows), month.unwrap_or_default())?;
            }
            (None, RunOutcome::Published) => self.write_published(page)?,
            _ => {}
        }
        for held in &self.held {
            writeln!(page, "  held       {}: {}", printable(&held.source_object), printable(&held.reason))?;
        }
        self.write_doubts(page)?;
        let seconds = &self.seconds;
        write!(page, "  time       {:.2} s", seconds.total)?;
        if self.outcome == RunOutcome::Published {
            let Seconds { plan, map, reduce, alerts, publish, .. } = seconds;
            write!(page, " (plan {plan:.2}, map {map:.2}, reduce {reduce:.2}, alerts {alerts:.2}, ")?;
            write!(page, "publish {publish:.2})")?;
            write!(page, ", peak memory {} MiB", self.peak_memory_bytes >> 20)?;
        }
        writeln!(page)
    }

    fn write_published(&self, page: &mut String) -> std::fmt::Result {
        let (inputs, rows, cents) = (&self.inputs, &self.rows, &self.amount_cents);
        writeln!(page, "  run        {}", self.run_id)?;
        if !self.rebuilt_months.is_empty() {
            let months = self.rebuilt_months.join(", ");
            writeln!(page, "  rebuilt    {months}, from all logs that were counted for it")?;
        }
        let held = if inputs.held > 0 { format!(", {} held", inputs.held) } else { String::new() };
        writeln!(
            page,
            "  inputs     {} new of {} listed, {}{held}",
            grouped(inputs.new),
            grouped(inputs.objects),
            size(inputs.bytes)
        )?;
        writeln!(
            page,
            "  rows       {} read = {} accepted + {} rejected + {} blank",
            grouped(rows.read),
            grouped(rows.accepted),
            grouped(rows.rejected),
            grouped(rows.blank)
        )?;
        let list = |counts: &BTreeMap<&str, u64>| {
            let one = |(name, n): (&&str, &u64)| format!("{name} {}", grouped(*n));
            counts.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        if !self.rejects.is_empty() {
            writeln!(page, "  rejects    {}", list(&self.rejects))?;
        }
        writeln!(page, "  decided by {}", list(&self.categorized))?;
        let remembered = self.sellers.hit_ratio * 100.0;
        let looked_up = grouped(self.sellers.looked_up_rows);
        writeln!(page, "  sellers    {looked_up} looked up, {remembered:.2} % of the rows remembered")?;
        let money = |cents: i64| format_cents(i128::from(cents));
        writeln!(
            page,
            "  amount     {} spent, {} received, {} net",
            money(cents.positive),
            money(cents.negative),
            money(cents.net)
        )?;
        self.write_alerts(page)?;
        writeln!(page, "  month      {:>14} {:>12} {:>12} {:>18}", "transactions", "users", "groups", "net")?;
        for month in &self.months {
            writeln!(
                page,
                "  {}    {:>14} {:>12} {:>12} {:>18}",
                month.month,
                grouped(month.rows),
                grouped(month.users),
                grouped(month.groups),
                money(month.net_cents)
            )?;
        }
        Ok(())
    }

    /// What is counted, and may be worth a look.
    fn write_doubts(&self, page: &mut String) -> std::fmt::Result {
        for overlap in self.overlaps.iter().take(DOUBTS_SHOWN) {
            let Overlap { source_object, counted_object, rows, estimated } = overlap;
            let (object, counted) = (printable(source_object), printable(counted_object));
            let about = if *estimated { "about " } else { "" };
            let rows = grouped(*rows);
            writeln!(
                page,
                "  overlap    {object}: {about}{rows} of its rows stand in {counted} too; all are counted"
            )?;
        }
        for gap in self.gaps.iter().take(DOUBTS_SHOWN) {
            writeln!(page, "  gap        {} in {}: {}", gap.period, printable(&gap.series), gap.reason)?;
        }
        for (count, what) in [(self.overlaps.len(), "overlaps"), (self.gaps.len(), "gaps")] {
            if count > DOUBTS_SHOWN {
                writeln!(page, "  and        {} more {what}, with --report json", count - DOUBTS_SHOWN)?;
            }
        }
        Ok(())
    }

    fn write_alerts(&self, page: &mut String) -> std::fmt::Result {
        let AlertCounts { approaching, exceeded, pace, cleared, corrected } = self.alerts;
        if self.alerts_as_of.is_none() && corrected == 0 {
            return Ok(());
        }
        write!(page, "  alerts     {} approaching, {} exceeded", grouped(approaching), grouped(exceeded))?;
        for (count, name) in [(pace, "pace"), (cleared, "cleared"), (corrected, "corrected")] {
            if count > 0 {
                write!(page, ", {} {name}", grouped(count))?;
            }
        }
        match &self.alerts_as_of {
            Some(month) => writeln!(page, ", for {month}"),
            None => writeln!(page),
        }
    }
}

/// Overlaps, and gaps, on the page.
const DOUBTS_SHOWN: usize = 10;

fn saturated(cents: i128) -> i64 {
    i64::try_from(cents).unwrap_or(if cents < 0 { i64::MIN } else { i64::MAX })
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3145728` as `3.0 MiB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(
            (size(1023), size(1536), size(5 << 30)),
            ("1023 B".into(), "1.5 KiB".into(), "5.00 GiB".into())
        );
        assert!(peak_memory_bytes() > 0 || cfg!(not(target_os = "linux")));
    }
}
