//! `budget_alerts`: NDJSON for whoever sends them, Parquet for whoever asks.
//!
//! In: the alerts that the closing groups amount to, and those emitted before. Out: the new ones.
//! Invariant: an alert is emitted once per user, month, category and level; `approaching` is not
//! emitted once the budget was said to be exceeded.

use super::part;
use crate::domain::alert::{Alert, AlertId, AlertLevel, alert_id};
use crate::domain::money::format_cents;
use crate::error::{Error, Result};
use crate::schema;
use arrow::array::{ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::HashSet;
use std::sync::Arc;

/// The ids of alerts that were emitted.
pub type Emitted = HashSet<AlertId>;

/// Adds the alerts of one published part of `budget_alerts`.
pub fn read_emitted(bytes: Bytes, emitted: &mut Emitted) -> Result<()> {
    let broken = |e: &dyn std::fmt::Display| Error::invariant(format!("budget_alerts cannot be read: {e}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| broken(&e))?;
    for batch in builder.build().map_err(|e| broken(&e))? {
        let batch = batch.map_err(|e| broken(&e))?;
        let ids = batch.column_by_name("alert_id").and_then(|column| column.as_string_opt::<i32>());
        for id in ids.ok_or_else(|| broken(&"no alert_id"))?.iter().flatten() {
            emitted.insert(AlertId::from_str_radix(id, 16).map_err(|e| broken(&e))?);
        }
    }
    Ok(())
}

/// The alerts that were not emitted before.
pub fn not_yet_emitted(alerts: Vec<Alert>, emitted: &Emitted) -> Vec<Alert> {
    if emitted.is_empty() {
        return alerts;
    }
    let is_new = |alert: &Alert| {
        let exceeded = alert_id(alert.user_id, alert.month, &alert.category, AlertLevel::Exceeded);
        !emitted.contains(&alert.id()) && !emitted.contains(&exceeded)
    };
    alerts.into_iter().filter(is_new).collect()
}

/// One JSON object per line.
pub fn to_ndjson(alerts: &[Alert], run_id: &str) -> Bytes {
    let line = |alert: &Alert| {
        let record = serde_json::json!({
            "alert_id": format!("{:032x}", alert.id()),
            "user_id": alert.user_id,
            "month": alert.month.to_string(),
            "category": alert.category,
            "level": alert.level.name(),
            "spent": format_cents(i128::from(alert.spent_cents)),
            "budget": format_cents(i128::from(alert.budget.amount_cents)),
            "budget_source": alert.budget.source.name(),
            "threshold": threshold(alert.threshold_millionths),
            "run_id": run_id,
        });
        format!("{record}\n")
    };
    alerts.iter().map(line).collect::<String>().into()
}

/// Millionths as a decimal without needless zeros: `0.8`, `1`.
fn threshold(millionths: i64) -> String {
    let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The file of the table's partition.
pub fn to_parquet(alerts: &[Alert], run_id: &str) -> Result<Bytes> {
    let texts = |text: &dyn Fn(&Alert) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(alerts.iter().map(text)))
    };
    let decimals = |kind, number: &dyn Fn(&Alert) -> i64| -> ArrayRef {
        let numbers = alerts.iter().map(|alert| i128::from(number(alert)));
        Arc::new(Decimal128Array::from_iter_values(numbers).with_data_type(kind))
    };
    let columns: Vec<ArrayRef> = vec![
        texts(&|alert| format!("{:032x}", alert.id())),
        Arc::new(Int64Array::from_iter_values(alerts.iter().map(|alert| alert.user_id as i64))),
        texts(&|alert| alert.category.clone()),
        texts(&|alert| alert.level.name().into()),
        decimals(schema::AMOUNT, &|alert| alert.spent_cents),
        decimals(schema::AMOUNT, &|alert| alert.budget.amount_cents),
        texts(&|alert| alert.budget.source.name().into()),
        decimals(schema::SHARE, &|alert| alert.threshold_millionths),
        texts(&|_| run_id.to_string()),
    ];
    let schema = part::without_partition_column(&schema::budget_alerts());
    let batch = RecordBatch::try_new(schema.clone(), columns);
    part::encode(&schema, &[batch.map_err(|e| Error::invariant(format!("alerts are no table: {e}")))?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::{Budget, BudgetSource};

    #[test]
    fn an_alert_is_said_once_and_not_after_a_louder_one() {
        let alert = |level| Alert {
            user_id: 1,
            month: "2025-01".parse().unwrap(),
            category: "gas".into(),
            level,
            spent_cents: 9005,
            budget: Budget { amount_cents: 10_000, source: BudgetSource::Template },
            threshold_millionths: 800_000,
        };
        let (approaching, exceeded) = (alert(AlertLevel::Approaching), alert(AlertLevel::Exceeded));
        let new = |alert: &Alert, before: &[&Alert]| {
            let emitted = before.iter().map(|a| a.id()).collect();
            !not_yet_emitted(vec![alert.clone()], &emitted).is_empty()
        };
        assert!(new(&approaching, &[]) && new(&exceeded, &[&approaching]));
        assert!(
            !new(&approaching, &[&approaching])
                && !new(&approaching, &[&exceeded])
                && !new(&exceeded, &[&exceeded])
        );
        let mut read = Emitted::new();
        read_emitted(to_parquet(std::slice::from_ref(&exceeded), "run").unwrap(), &mut read).unwrap();
        assert_eq!(read, Emitted::from([exceeded.id()]));
        let line = String::from_utf8(to_ndjson(&[approaching], "run").to_vec()).unwrap();
        assert!(
            line.ends_with("}\n")
                && line.contains("\"spent\":\"90.05\"")
                && line.contains("\"threshold\":\"0.8\"")
        );
    }
}
