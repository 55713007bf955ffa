//! What is said of the months that a run has touched.
//!
//! In: the touched months as they were written, the months before them, the budgets. Out: records,
//! written and read back.
//! Invariant: new alerts are for one month only, and never from a rebuild; of all other months that
//! were touched, what was said wrongly is corrected.

use super::{Attempt, Closing, Read, Wish};
use crate::domain::alert::{AlertEvent, AlertLevel, AlertRecord, AlertRule, Pace};
use crate::domain::month::{Month, days_in_month};
use crate::engine::alerting::Alerting;
use crate::engine::budgeted::BudgetedMonth;
use crate::error::Result;
use crate::input::alerts::AlertHistory;
use crate::input::published::PublishedPart;
use crate::input::reference::zone;
use crate::job::values::AsOf;
use crate::output::alerts::{AlertWriter, WrittenAlerts};
use crate::output::lake::{BUDGET_ALERTS, MONTHLY_SPENDING};
use crate::output::monthly::MonthPart;
use crate::report::AlertCounts;

/// What was said, and for which month something new could be.
pub(super) struct Said {
    pub written: WrittenAlerts,
    pub counts: AlertCounts,
    pub as_of: Option<Month>,
}

impl Attempt<'_> {
    pub(super) fn say(&self, wish: &Wish, read: &Read, closing: &Closing) -> Result<Said> {
        let table = self.lake.place.child(BUDGET_ALERTS);
        let before = self.lake.table(BUDGET_ALERTS)?.map_or(Ok(Vec::new()), |table| table.files())?;
        let of_month = |month: Month| before.iter().filter(move |part| part.month == Some(month));
        // Where nobody has a budget nothing can be new, but what was said may have to be cleared.
        let as_of = self
            .alert_month(wish, &closing.touched)
            .filter(|month| !self.reference.budgets.is_empty() || of_month(*month).next().is_some());
        let mut writer = AlertWriter::new(&self.lake.place, &read.run_id, &self.reference.categories);
        let mut counts = AlertCounts::default();
        let pool = self.tuning.pool()?;
        for month in &closing.touched {
            let (said, is_open) = (of_month(*month).cloned().collect::<Vec<_>>(), as_of == Some(*month));
            if said.is_empty() && !is_open {
                continue;
            }
            let alerting = Alerting {
                month: self.budgeted(*month, closing),
                rule: AlertRule {
                    thresholds: self.spec.alerts.thresholds.0.clone(),
                    pace: if is_open { self.pace(*month, read) } else { None },
                    is_open,
                },
                history: AlertHistory::read(&said, &table)?,
            };
            alerting.run(&pool, |records| {
                counts.add(&records);
                writer.add(*month, records)
            })?;
            writer.end_month(*month)?;
        }
        Ok(Said { written: writer.finish(), counts, as_of })
    }

    /// New alerts are for one month, only when it is touched, and never from a rebuild.
    fn alert_month(&self, wish: &Wish, touched: &[Month]) -> Option<Month> {
        let as_of = match self.spec.alerts.as_of.0 {
            AsOf::Month(month) => Some(month),
            AsOf::Day(day) => Some(day.month()),
            AsOf::Latest => touched.iter().copied().max().max(self.head.last_month()),
        };
        as_of.filter(|month| wish.recount().is_none() && touched.contains(month))
    }

    /// A touched month as it was written, with the months before it as they will be published.
    fn budgeted(&self, month: Month, closing: &Closing) -> BudgetedMonth<'_> {
        let table = self.lake.place.child(MONTHLY_SPENDING);
        let part = |part: &MonthPart| PublishedPart {
            month: part.month,
            users: part.users.0..=part.users.1,
            rows: part.written.rows,
            place: table.child(&part.written.path),
        };
        let parts = |month: Month| -> Vec<PublishedPart> {
            match closing.touched.contains(&month) {
                true => closing.parts.iter().filter(|part| part.month == month).map(part).collect(),
                false => self.head.month(month, self.lake),
            }
        };
        let from = self.spec.budgets.roll_over_from.as_ref().map(|from| from.0);
        BudgetedMonth::new(month, from, &self.reference.budgets, &self.reference.categories, parts)
    }

    /// Pace alerts, where they are wanted and the day has come.
    fn pace(&self, month: Month, read: &Read) -> Option<Pace> {
        let alerts = &self.spec.alerts;
        let from_day = alerts.pace_from_day?;
        let day = match alerts.as_of.0 {
            AsOf::Day(day) => Some(day.day_of_month()),
            AsOf::Month(_) | AsOf::Latest => {
                let now = read.sum.by_month.get(&month).map(|share| share.last_micros);
                let before = self.head.ledger.last_micros(month);
                let is_known = before.is_some() || self.head.parts_of(month).is_empty();
                now.max(before)
                    .filter(|_| is_known)
                    .map(|last| zone(self.spec).day_of_month(month, last.div_euclid(1_000_000)))
            }
        };
        let days = days_in_month(month.year(), month.month_of_year());
        let pace = |day| Pace { day, days, margin_millionths: alerts.pace_margin.0 };
        day.filter(|day| *day >= from_day).map(pace)
    }
}

impl AlertCounts {
    fn add(&mut self, records: &[AlertRecord]) {
        for record in records {
            *match (record.event, record.level) {
                (AlertEvent::Cleared, _) => &mut self.cleared,
                (AlertEvent::Corrected, _) => &mut self.corrected,
                (AlertEvent::Raised, AlertLevel::Approaching) => &mut self.approaching,
                (AlertEvent::Raised, AlertLevel::Exceeded) => &mut self.exceeded,
                (AlertEvent::Raised, AlertLevel::Pace) => &mut self.pace,
            } += 1;
        }
    }
}
