//! Why a user hears of a budget, or does not: every budget of a month, and what was said of it.
//!
//! In: a user and a month of a lake, the budgets of a job. Out: a row for each category.
//! Invariant: budgets, thresholds and standings are computed as a run computes them.

use crate::domain::alert::{AlertRecord, reaches};
use crate::domain::budget::{Budget, MILLION};
use crate::domain::category::{Categories, CategoryId, CategoryKind};
use crate::domain::month::Month;
use crate::engine::budgeted::BudgetedMonth;
use crate::error::{Error, Result};
use crate::input::reference;
use crate::job::spec::Spec;
use crate::output::alerts::share;
use crate::output::lake::{Head, Lake};
use crate::schema::{AMOUNT, SHARE};
use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use std::sync::Arc;

/// What is said of one category.
struct Row {
    category: CategoryId,
    spent_cents: i64,
    budget: Option<Budget>,
    alerts: Vec<AlertRecord>,
    /// The next threshold, and the spending that reaches it.
    next: Option<(i64, i64)>,
}

/// The rows of a user's categories: those with a budget, with spending, or of which something was
/// said.
pub fn rows(lake: &Lake, head: &Head, spec: &Spec, user_id: u64, month: Month) -> Result<RecordBatch> {
    let categories = reference::categories(&spec.input)?;
    let budgets = reference::budgets(spec, &categories)?;
    let from = spec.budgets.roll_over_from.as_ref().map(|from| from.0);
    let parts = |month| head.month(month, lake);
    let budgeted = BudgetedMonth::new(month, from, &budgets, &categories, parts);
    let users = user_id..=user_id;
    let mut user = budgeted.read(&users)?;
    let records = lake.alert_history(month)?.records(&users, &categories)?;
    let spending = std::mem::take(&mut user.spending);
    let mut rows = Vec::new();
    for category in (0..categories.count()).map(|id| CategoryId(id as u8)) {
        let spent = spending.iter().find(|group| group.category == category);
        let spent_cents = spent.map_or(0, |group| group.amount_cents);
        let budget = match categories.kind(category) {
            CategoryKind::Spend => user.budget((user_id, category))?,
            _ => None,
        };
        let alerts: Vec<AlertRecord> = records.iter().filter(|r| r.category == category).copied().collect();
        if spent.is_some() || budget.is_some() || !alerts.is_empty() {
            let next = budget.and_then(|budget| {
                next_threshold(&spec.alerts.thresholds.0, spent_cents, budget.amount_cents)
            });
            rows.push(Row { category, spent_cents, budget, alerts, next });
        }
    }
    batch(&rows, &categories)
}

/// The first threshold that is not reached, and the least spending that reaches it.
fn next_threshold(thresholds: &[i64], spent_cents: i64, budget_cents: i64) -> Option<(i64, i64)> {
    let next = thresholds.iter().find(|threshold| !reaches(**threshold, spent_cents, budget_cents))?;
    let (line, million) = (i128::from(budget_cents) * i128::from(*next), i128::from(MILLION));
    let at = match *next < MILLION {
        true => (line + million - 1).div_euclid(million).max(1),
        false => line.div_euclid(million) + 1,
    };
    Some((*next, i64::try_from(at).ok()?))
}

fn batch(rows: &[Row], categories: &Categories) -> Result<RecordBatch> {
    let decimals = |kind, number: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef {
        let numbers = rows.iter().map(|row| number(row).map(i128::from));
        Arc::new(numbers.collect::<Decimal128Array>().with_data_type(kind))
    };
    let texts = |text: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(text).collect::<StringArray>())
    };
    let last = |row: &Row| {
        let last = row.alerts.last()?;
        Some(format!("{} {} at {}", last.event.name(), last.level.name(), share(last.threshold_millionths)))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("category", texts(&|row| Some(categories.code(row.category).to_string()))),
        ("spent", decimals(AMOUNT, &|row| Some(row.spent_cents))),
        ("budget", decimals(AMOUNT, &|row| row.budget.map(|budget| budget.amount_cents))),
        ("budget_source", texts(&|row| row.budget.map(|budget| budget.source.name().to_string()))),
        ("rolled_over", decimals(AMOUNT, &|row| row.budget.map(|budget| budget.rolled_over_cents))),
        ("alerts", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.alerts.len() as i64)))),
        ("last_alert", texts(&last)),
        ("next_threshold", decimals(SHARE, &|row| row.next.map(|(threshold, _)| threshold))),
        ("next_at", decimals(AMOUNT, &|row| row.next.map(|(_, at)| at))),
    ];
    let batch = RecordBatch::try_from_iter(columns);
    batch.map_err(|e| Error::invariant(format!("budgets are no table: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_threshold_is_reached_by_the_cent_it_tells() {
        let thresholds = [500_000, 800_000, MILLION, 1_200_000];
        for (spent, budget) in [
            (0, 100_00),
            (49_99, 99_99),
            (85_00, 100_00),
            (100_00, 100_00),
            (0, 0),
            (-5, 1),
            (110_00, 100_00),
        ] {
            let (threshold, at) = next_threshold(&thresholds, spent, budget).unwrap();
            assert!(
                reaches(threshold, at, budget) && !reaches(threshold, at - 1, budget),
                "{spent} of {budget}"
            );
        }
        assert_eq!(next_threshold(&thresholds, 120_01, 100_00), None);
    }
}
