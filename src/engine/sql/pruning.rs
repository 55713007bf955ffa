//! Which files a query can leave unopened.
//!
//! In: files with their month and statistics, and a filter. Out: the files that stay.
//! Invariant: a file that can hold a row which passes the filter stays.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

use super::LISTED_VALUES;

/// Whether a filter has a value for a given row while the query is still being planned.
pub fn can_be_evaluated_now(filter: &Expr) -> bool {
    let later = |part: &Expr| match part {
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::BinaryExpr(_)
        | Expr::Not(_)
        | Expr::Negative(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Like(_)
        | Expr::Case(_)
        | Expr::Cast(_)
        | Expr::TryCast(_) => false,
        // Subqueries, outer references, placeholders: known only once the query runs.
        _ => true,
    };
    !filter.exists(|part| Ok(later(part))).unwrap_or(true)
}

/// The files whose month passes a filter on the month alone.
pub fn of_months(
    session: &dyn Session,
    files: Vec<PartitionedFile>,
    filter: Expr,
    partition: &FieldRef,
) -> PlanResult<Vec<PartitionedFile>> {
    if files.is_empty() {
        return Ok(files);
    }
    let months = files.iter().flat_map(|file| file.partition_values.iter().cloned());
    let months: ArrayRef = ScalarValue::iter_to_array(months)?;
    let schema = Arc::new(Schema::new(vec![partition.clone()]));
    let filter = session.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(&schema))?)?;
    let months = RecordBatch::try_new(schema, vec![months])?;
    let passes = filter.evaluate(&months)?.into_array(months.num_rows())?;
    let passes = passes.as_boolean().iter();
    let kept = files.into_iter().zip(passes).filter(|(_, passes)| *passes == Some(true));
    Ok(kept.map(|(file, _)| file).collect())
}

/// The files that a filter cannot exclude by their statistics.
pub fn within_ranges(
    session: &dyn Session,
    files: Vec<PartitionedFile>,
    filter: Expr,
    scanned: &SchemaRef,
) -> PlanResult<Vec<PartitionedFile>> {
    let columns = DFSchema::try_from(Arc::clone(scanned))?;
    let filter = session.create_physical_expr(filter, &columns)?;
    let pruning = PruningPredicateBuilder::new()
        .with_file_schema(Arc::clone(scanned))
        .with_max_in_list_size(LISTED_VALUES);
    let Some(pruning) = pruning.build(filter) else {
        return Ok(files);
    };
    let known = files.iter().filter_map(|file| file.statistics.clone()).collect();
    let kept = pruning.prune(&PrunableStatistics::new(known, Arc::clone(scanned)))?;
    Ok(files.into_iter().zip(kept).filter(|(_, keep)| *keep).map(|(file, _)| file).collect())
}

/// Whether subqueries used as values can be computed by joins. As a join,
/// `month = (SELECT max(month) …)` leaves the files of the other months unopened; otherwise the
/// value comes too late for that. But a join does not notice a second row, and would count twice
/// what it should refuse: so only where each such subquery stands in a filter and has one row.
pub fn subqueries_can_be_joined(plan: &LogicalPlan) -> PlanResult<bool> {
    let mut can_be = true;
    plan.apply_with_subqueries(|node| {
        let in_filter = matches!(node, LogicalPlan::Filter(_));
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarSubquery(query) = part {
                    can_be &= in_filter && query.subquery.max_rows() == Some(1);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(can_be)
}
