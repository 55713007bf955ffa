//! Categorized transactions as rows: for the table of them, and for questions over raw logs.
//!
//! In: what the map accepts. Out: rows by month, and their Arrow columns.
//! Invariant: a row says where it stood and who decided its category; the seller is the raw one.

use crate::domain::category::Categories;
use crate::domain::month::Month;
use crate::domain::transaction::Transaction;
use crate::kernel::categorize::{Categorizer, Decision};
use crate::kernel::fused::Recorder;
use crate::schema;
use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Row {
    pub user_id: u64,
    pub occurred_at_micros: i64,
    pub amount_cents: i64,
    /// From 0.
    pub line: u64,
    pub decision: Decision,
    pub seller: Box<str>,
}

/// What one worker saw of one split.
#[derive(Default)]
pub struct SplitRows {
    pub by_month: BTreeMap<Month, Vec<Row>>,
}

impl Recorder for SplitRows {
    fn record(&mut self, transaction: &Transaction, decision: Decision, line: u64) {
        self.by_month.entry(transaction.month).or_default().push(Row {
            user_id: transaction.user_id,
            occurred_at_micros: transaction.occurred_at_micros,
            amount_cents: transaction.amount_cents,
            line,
            decision,
            seller: transaction.seller.into(),
        });
    }
}

/// The columns of [`schema::transactions`] behind the month.
pub fn columns(
    rows: &[Row],
    categories: &Categories,
    categorizer: &Categorizer,
    source_object: &str,
) -> Vec<ArrayRef> {
    let texts = |text: &dyn for<'r> Fn(&'r Row) -> &'r str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(text)))
    };
    let matched = rows.iter().map(|row| categorizer.matched(&row.decision));
    let times = rows.iter().map(|row| row.occurred_at_micros);
    let amounts = rows.iter().map(|row| i128::from(row.amount_cents));
    vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.user_id as i64))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
        texts(&|row| &row.seller),
        Arc::new(Decimal128Array::from_iter_values(amounts).with_data_type(schema::AMOUNT)),
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| categories.code(row.decision.category)),
        )),
        texts(&|row| row.decision.source.name()),
        Arc::new(matched.collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| source_object))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.line as i64 + 1))),
    ]
}
