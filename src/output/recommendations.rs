//! `budget_recommendations`: a part for some users, written and read back.
//!
//! In: recommendations in the order of users and categories. Out: the part.
//! Invariant: where there is nothing to recommend, nothing is written.

use super::part::{self, WrittenPart};
use crate::domain::category::Categories;
use crate::domain::month::Month;
use crate::engine::recommending::Recommendation;
use crate::error::{Error, Result};
use crate::schema;
use crate::store::Place;
use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use std::sync::Arc;

pub const BUDGET_RECOMMENDATIONS: &str = "budget_recommendations";

/// Writes a part of the month below `table`; none where there are no rows.
pub fn write(
    table: &Place,
    run_id: &str,
    month: Month,
    sequence: usize,
    rows: &[Recommendation],
    categories: &Categories,
) -> Result<Option<WrittenPart>> {
    if rows.is_empty() {
        return Ok(None);
    }
    let path = format!("month={month}-01/part-{sequence:05}-{run_id}.parquet");
    let schema = part::without_partition_column(&schema::budget_recommendations());
    let bytes = part::encode(&schema, &[batch(rows, categories)?])?;
    part::write(table, &path, bytes, rows.len() as u64).map(Some)
}

fn batch(rows: &[Recommendation], categories: &Categories) -> Result<RecordBatch> {
    let numbers = |number: &dyn Fn(&Recommendation) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| number(row) as i64)))
    };
    let amounts = |amount: &dyn Fn(&Recommendation) -> Option<i64>| -> ArrayRef {
        let cents = rows.iter().map(|row| amount(row).map(i128::from));
        Arc::new(cents.collect::<Decimal128Array>().with_data_type(schema::AMOUNT))
    };
    let codes = rows.iter().map(|row| categories.code(row.category));
    let columns: Vec<ArrayRef> = vec![
        numbers(&|row| row.user_id),
        Arc::new(StringArray::from_iter_values(codes)),
        amounts(&|row| Some(row.amount_cents)),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.basis.name()))),
        amounts(&|row| row.template_cents),
        amounts(&|row| row.history_cents),
        numbers(&|row| row.history_months as u64),
    ];
    let schema = part::without_partition_column(&schema::budget_recommendations());
    let batch = RecordBatch::try_new(schema, columns);
    batch.map_err(|e| Error::invariant(format!("recommendations are no table: {e}")))
}
