//! Budget alerts: the state of a user's alerts in a category, and the next record.
//!
//! In: the records so far, the amount spent, the budget, the thresholds. Out: the next record, if
//! one is due.
//! Invariant: records are never changed, only followed by others; the records of a user, month and
//! category are numbered consecutively; refunds are subtracted; zero spending never triggers an
//! alert.

use super::budget::{Budget, MILLION};
use super::category::CategoryId;
use super::month::Month;
use crate::planted::Bug;
use sha2::{Digest, Sha256};

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertEvent {
    /// Spending reached a threshold.
    Raised,
    /// Spending fell below a threshold again, by refunds or a higher budget.
    Cleared,
    /// An earlier alert of a month that is closed or recounted was wrong.
    Corrected,
}

impl AlertEvent {
    pub const ALL: [AlertEvent; 3] = [AlertEvent::Raised, AlertEvent::Cleared, AlertEvent::Corrected];

    pub fn name(self) -> &'static str {
        match self {
            AlertEvent::Raised => "raised",
            AlertEvent::Cleared => "cleared",
            AlertEvent::Corrected => "corrected",
        }
    }
}

/// The severity of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertLevel {
    /// A threshold below the whole budget.
    Approaching,
    /// The whole budget, or more.
    Exceeded,
    /// At this rate the month will end above the budget.
    Pace,
}

impl AlertLevel {
    pub const ALL: [AlertLevel; 3] = [AlertLevel::Approaching, AlertLevel::Exceeded, AlertLevel::Pace];

    pub fn name(self) -> &'static str {
        match self {
            AlertLevel::Approaching => "approaching",
            AlertLevel::Exceeded => "exceeded",
            AlertLevel::Pace => "pace",
        }
    }

    fn of(threshold_millionths: i64) -> AlertLevel {
        if threshold_millionths < MILLION { AlertLevel::Approaching } else { AlertLevel::Exceeded }
    }
}

/// One alert record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertRecord {
    pub user_id: u64,
    pub category: CategoryId,
    /// From 1 within its user, month and category.
    pub sequence: u32,
    pub event: AlertEvent,
    pub level: AlertLevel,
    /// The share of the budget that was reached, or is no longer reached; for a pace alert, the
    /// share above which the month is expected to end.
    pub threshold_millionths: i64,
    /// The highest threshold in force after this record; `None` if below all.
    pub reached_millionths: Option<i64>,
    pub spent_cents: i64,
    pub budget: Budget,
}

/// The identity of an alert: 16 bytes, printed as 32 hexadecimal digits.
pub type AlertId = u128;

impl AlertRecord {
    /// The first 16 bytes of SHA-256 over `user month category sequence`, so that a receiver can
    /// drop duplicates.
    pub fn id(&self, month: Month, category: &str) -> AlertId {
        let text = format!("{} {month} {category} {}", self.user_id, self.sequence);
        let digest = Sha256::digest(text.as_bytes());
        u128::from_be_bytes(digest[..16].try_into().expect("a digest has 32 bytes"))
    }

    /// The sort key of records within a month.
    pub fn key(&self) -> (u64, CategoryId, u32) {
        (self.user_id, self.category, self.sequence)
    }
}

/// True if spending has reached a share of the budget. Below the whole budget, equality suffices;
/// from the whole budget on, spending must be greater, since exactly the budget is not exceeded.
pub fn reaches(threshold_millionths: i64, spent_cents: i64, budget_cents: i64) -> bool {
    let spent = i128::from(spent_cents) * i128::from(MILLION);
    let line = i128::from(budget_cents) * i128::from(threshold_millionths);
    spent_cents > 0 && if threshold_millionths < MILLION { spent >= line } else { spent > line }
}

/// When to raise pace alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The day of the month up to which spending is known, and the number of days of the month.
    pub day: u32,
    pub days: u32,
    /// The margin by which the projection must exceed the budget, as a share of the budget.
    pub margin_millionths: i64,
}

impl Pace {
    /// True if spending at this rate ends the month above the budget plus the margin.
    fn exceeds(self, spent_cents: i64, budget_cents: i64) -> bool {
        let projected = i128::from(spent_cents) * i128::from(self.days) * i128::from(MILLION);
        let line = i128::from(budget_cents) * i128::from(self.day) * i128::from(self.threshold());
        spent_cents > 0 && projected > line
    }

    fn threshold(self) -> i64 {
        MILLION + self.margin_millionths
    }
}

/// The rules for the alerts of one month.
#[derive(Clone, Debug)]
pub struct AlertRule {
    /// In millionths of the budget, strictly ascending.
    pub thresholds: Vec<i64>,
    /// `None` if pace alerts are off or not yet due.
    pub pace: Option<Pace>,
    /// True for the month in progress. For other months, and for recounted ones, no new alerts are
    /// raised, but wrong ones are corrected.
    pub is_open: bool,
}

/// The state of the alerts of one user, month and category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The number of the last record; 0 if there is none.
    pub sequence: u32,
    /// The highest threshold reported as reached, and the budget in force then.
    pub reached: Option<(i64, Budget)>,
    pub pace_was_said: bool,
}

impl Standing {
    /// The state after the next record. `None` if the record is not the next in sequence.
    pub fn after(self, record: &AlertRecord) -> Option<Standing> {
        if record.sequence != self.sequence + 1 {
            return None;
        }
        let said = match (record.level, record.reached_millionths) {
            (AlertLevel::Pace, _) => self.reached,
            (_, Some(threshold)) => Some((threshold, record.budget)),
            (_, None) => None,
        };
        let pace_was_said = self.pace_was_said || record.level == AlertLevel::Pace;
        Some(Standing { sequence: record.sequence, reached: said, pace_was_said })
    }
}

impl AlertRule {
    /// The next record, if one is due. A reached threshold takes precedence over a pace alert.
    /// `budget` is `None` if the user set none and the template has none.
    pub fn next(
        &self,
        (user_id, category): (u64, CategoryId),
        standing: &Standing,
        spent_cents: i64,
        budget: Option<Budget>,
    ) -> Option<AlertRecord> {
        let record = |event, level, threshold, reached: Option<i64>, budget| AlertRecord {
            user_id,
            category,
            sequence: standing.sequence + 1,
            event,
            level,
            threshold_millionths: threshold,
            reached_millionths: reached,
            spent_cents,
            budget,
        };
        let said = standing.reached.map(|(threshold, _)| threshold);
        if !self.is_open {
            // An earlier alert is measured against the budget in force when it was raised.
            let (threshold, of) = standing.reached?;
            let wrong = !reaches(threshold, spent_cents, of.amount_cents);
            let still = self.highest_reached(spent_cents, of).filter(|still| *still < threshold);
            let level = AlertLevel::of(threshold);
            return wrong.then(|| record(AlertEvent::Corrected, level, threshold, still, of));
        }
        let reached = budget.and_then(|budget| self.highest_reached(spent_cents, budget));
        if let (Some(threshold), Some(budget)) = (reached, budget)
            && (said.is_none_or(|said| said < threshold) || Bug::AlertsRepeat.is_planted())
        {
            let level = AlertLevel::of(threshold);
            return Some(record(AlertEvent::Raised, level, threshold, reached, budget));
        }
        if let Some((threshold, of)) = standing.reached
            && budget.is_none_or(|budget| !reaches(threshold, spent_cents, budget.amount_cents))
        {
            let level = AlertLevel::of(threshold);
            return Some(record(AlertEvent::Cleared, level, threshold, reached, budget.unwrap_or(of)));
        }
        let (pace, budget) = (self.pace?, budget?);
        let is_due = !standing.pace_was_said
            && !reaches(MILLION, spent_cents, budget.amount_cents)
            && pace.exceeds(spent_cents, budget.amount_cents);
        is_due.then(|| record(AlertEvent::Raised, AlertLevel::Pace, pace.threshold(), said, budget))
    }

    fn highest_reached(&self, spent_cents: i64, budget: Budget) -> Option<i64> {
        let reached = |threshold: &&i64| reaches(**threshold, spent_cents, budget.amount_cents);
        self.thresholds.iter().rev().find(reached).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::BudgetSource;

    const DINING: CategoryId = CategoryId(3);

    fn budget(amount_cents: i64) -> Budget {
        Budget { amount_cents, rolled_over_cents: 0, source: BudgetSource::Template }
    }

    fn rule(is_open: bool) -> AlertRule {
        AlertRule { thresholds: vec![800_000, MILLION], pace: None, is_open }
    }

    #[test]
    fn thresholds_are_exact_at_their_edges() {
        let at = |threshold, spent, budget| reaches(threshold, spent, budget);
        assert!(!at(800_000, 7999, 10_000) && at(800_000, 8000, 10_000));
        assert!(!at(MILLION, 10_000, 10_000) && at(MILLION, 10_001, 10_000));
        assert!(!at(1_200_000, 12_000, 10_000) && at(1_200_000, 12_001, 10_000));
        assert!(at(MILLION, 1, 0) && at(800_000, 1, 0), "zero is a budget");
        assert!(!at(800_000, 0, 0) && !at(MILLION, -5, 0), "zero spending is no alert");
        assert!(!at(MILLION, i64::MAX, i64::MAX) && at(800_000, i64::MAX, i64::MAX));
    }

    /// Successive nights of a budget of 100.00: spent, whether the month is open, and the record
    /// with the threshold reached after it.
    #[test]
    fn records_follow_spending_night_by_night() {
        let nights: &[(i64, bool, &str)] = &[
            (50_00, true, "-"),
            (85_00, true, "1 raised approaching 0.8, reached 0.8"),
            (90_00, true, "-"),
            (70_00, true, "2 cleared approaching 0.8, reached none"),
            (120_00, true, "3 raised exceeded 1, reached 1"),
            (95_00, true, "4 cleared exceeded 1, reached 0.8"),
            (101_00, true, "5 raised exceeded 1, reached 1"),
            (130_00, false, "-"),
            (85_00, false, "6 corrected exceeded 1, reached 0.8"),
            (120_00, false, "-"),
            (10_00, false, "7 corrected approaching 0.8, reached none"),
            (500_00, false, "-"),
        ];
        let mut standing = Standing::default();
        for (night, (spent, is_open, expected)) in nights.iter().enumerate() {
            let record = rule(*is_open).next((7, DINING), &standing, *spent, Some(budget(100_00)));
            let said = record.map_or("-".to_string(), |r| {
                let share = |millionths: i64| millionths as f64 / 1e6;
                let reached = r.reached_millionths.map_or("none".into(), |m| share(m).to_string());
                let (event, level) = (r.event.name(), r.level.name());
                let threshold = share(r.threshold_millionths);
                format!("{} {event} {level} {threshold}, reached {reached}", r.sequence)
            });
            assert_eq!(said, *expected, "night {night}");
            standing = record.map_or(standing, |record| standing.after(&record).unwrap());
        }
    }

    #[test]
    fn a_changed_budget_raises_or_clears_and_a_removed_one_clears() {
        let open = rule(true);
        let first = open.next((1, DINING), &Standing::default(), 90_00, Some(budget(100_00))).unwrap();
        let standing = Standing::default().after(&first).unwrap();
        let next = |budget| open.next((1, DINING), &standing, 90_00, budget).map(|r| (r.event, r.level));
        assert_eq!(next(Some(budget(89_99))), Some((AlertEvent::Raised, AlertLevel::Exceeded)));
        assert_eq!(next(Some(budget(200_00))), Some((AlertEvent::Cleared, AlertLevel::Approaching)));
        assert_eq!(next(None), Some((AlertEvent::Cleared, AlertLevel::Approaching)));
        let closed = rule(false).next((1, DINING), &standing, 90_00, Some(budget(200_00)));
        assert_eq!(
            closed, None,
            "a closed month is measured against the budget in force when the alert was raised"
        );
    }

    #[test]
    fn changed_thresholds_keep_alerts_that_still_hold() {
        let first = rule(true).next((1, DINING), &Standing::default(), 85_00, Some(budget(100_00))).unwrap();
        let standing = Standing::default().after(&first).unwrap();
        let other = AlertRule { thresholds: vec![900_000, MILLION], pace: None, is_open: true };
        let next = |spent| other.next((1, DINING), &standing, spent, Some(budget(100_00)));
        assert_eq!(next(86_00), None);
        assert_eq!(
            next(79_00).map(|r| (r.event, r.threshold_millionths)),
            Some((AlertEvent::Cleared, 800_000))
        );
        assert_eq!(
            next(91_00).map(|r| (r.event, r.threshold_millionths)),
            Some((AlertEvent::Raised, 900_000))
        );
    }

    #[test]
    fn a_pace_alert_is_raised_once_and_only_before_the_budget_is_exceeded() {
        let pace = Pace { day: 10, days: 30, margin_millionths: 100_000 };
        let with = AlertRule { pace: Some(pace), ..rule(true) };
        let next = |standing: &Standing, spent| with.next((1, DINING), standing, spent, Some(budget(100_00)));
        let none = Standing::default();
        assert_eq!(next(&none, 36_66), None, "109.98 is within the margin");
        let said = next(&none, 36_67).unwrap();
        assert_eq!((said.level, said.threshold_millionths), (AlertLevel::Pace, 1_100_000));
        let standing = none.after(&said).unwrap();
        assert_eq!(next(&standing, 60_00), None);
        let louder = next(&standing, 85_00).unwrap();
        assert_eq!((louder.level, louder.sequence), (AlertLevel::Approaching, 2));
        assert_eq!(next(&none, 100_01).unwrap().level, AlertLevel::Exceeded);
        let closed = AlertRule { is_open: false, ..with.clone() };
        assert_eq!(closed.next((1, DINING), &standing, 1_00, None), None, "a forecast is not corrected");
    }

    #[test]
    fn records_are_consecutive_and_ids_depend_on_the_sequence() {
        let raised = rule(true).next((1, DINING), &Standing::default(), 90_00, Some(budget(100_00))).unwrap();
        assert_eq!(Standing::default().after(&AlertRecord { sequence: 2, ..raised }), None);
        let month: Month = "2025-01".parse().unwrap();
        let id = raised.id(month, "dining");
        assert_ne!(id, AlertRecord { sequence: 2, ..raised }.id(month, "dining"));
        assert_eq!(id, AlertRecord { spent_cents: 1, ..raised }.id(month, "dining"));
    }
}
