//! What may be asked.
//!
//! In: the text of a query. Out: the plan of its one statement.
//! Invariant: the plan reads and does nothing else, and planning it takes a bounded stack.

use std::fmt;
use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Query, SetExpr, Statement as SqlStatement, Visit, Visitor};

use super::failure::{planning_failed, unknown_table};
use crate::error::{Error, Result};

/// How deep expressions may be nested, so that they are planned in a stack of two megabytes.
pub(super) const MAX_DEPTH: usize = 100;

/// The plan of the one statement in `sql`, if all it does is read.
pub async fn read_only_plan(state: &SessionState, sql: &str) -> Result<LogicalPlan> {
    let statement = parse(state, sql)?;
    if let Some(verb) = writing_verb(&statement) {
        return Err(read_only(&verb));
    }
    refuse_deep_nesting(&statement)?;
    let references = state.resolve_table_references(&statement).map_err(planning_failed)?;
    let plan = match state.statement_to_plan(statement).await {
        Ok(plan) => plan,
        Err(error) => {
            let known = published_names(state);
            let unknown = unknown_table(&error, &references, &known);
            return Err(unknown.unwrap_or_else(|| planning_failed(error)));
        }
    };
    // The statement looked like a question; what it was planned as has to be one too
    // (`SELECT … INTO`, a writing `WITH`).
    let reading_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    match reading_only.verify_plan(&plan) {
        Ok(()) => Ok(plan),
        Err(_) => Err(read_only(&first_word(plan.display()))),
    }
}

/// The one statement in `sql`.
fn parse(state: &SessionState, sql: &str) -> Result<Statement> {
    let dialect = state.config_options().sql_parser.dialect;
    let parsed = state.sql_to_statement(sql, &dialect);
    parsed.map_err(|error| match error {
        DataFusionError::NotImplemented(what) if what.contains("single SQL statement") => {
            Error::unfit("more than one statement: ask one question at a time").at("query")
        }
        other => planning_failed(other),
    })
}

/// What the statement would do, in a word, if that is more than reading.
fn writing_verb(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Explain(explained) => writing_verb(&explained.statement),
        Statement::Statement(statement) => match &**statement {
            // `WITH … INSERT` is parsed as a query whose body is the INSERT.
            SqlStatement::Query(query) => match &*query.body {
                SetExpr::Insert(body)
                | SetExpr::Update(body)
                | SetExpr::Delete(body)
                | SetExpr::Merge(body) => Some(first_word(body)),
                _ => None,
            },
            SqlStatement::Explain { .. }
            | SqlStatement::ExplainTable { .. }
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
            | SqlStatement::ShowVariable { .. } => None,
            other => Some(first_word(other)),
        },
        other => Some(first_word(other)),
    }
}

fn first_word(statement: impl fmt::Display) -> String {
    let text = statement.to_string();
    text.split([' ', ':']).next().unwrap_or_default().to_string()
}

/// Planning descends by recursion, and a chain like `a OR b OR c` is as deep as it is long: without a bound a long one would end the process for want of stack.
fn refuse_deep_nesting(statement: &Statement) -> Result<()> {
    let statement = match statement {
        Statement::Statement(statement) => statement,
        Statement::Explain(explained) => return refuse_deep_nesting(&explained.statement),
        _ => return Ok(()),
    };
    match statement.visit(&mut Depth(0)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => {
            let what = format!("it is nested more than {MAX_DEPTH} deep");
            let advice = "a chain (OR, AND, +, UNION) is as deep as it is long; use IN (…) for a list";
            Err(Error::unfit(what).at("query").advise(advice))
        }
    }
}

/// How deep in expressions a walk through a statement is.
struct Depth(usize);

impl Visitor for Depth {
    type Break = ();

    /// A chain of UNIONs leans to the left; to the right the parser bounds what it reads.
    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut length = 0;
        let mut body = &query.body;
        while let SetExpr::SetOperation { left, .. } = &**body {
            length += 1;
            body = left;
        }
        within(length)
    }

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.0 += 1;
        within(self.0)
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.0 -= 1;
        ControlFlow::Continue(())
    }
}

fn within(depth: usize) -> ControlFlow<()> {
    if depth > MAX_DEPTH { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn read_only(verb: &str) -> Error {
    Error::unfit(format!("`{verb}` is refused: a query only reads"))
        .at("query")
        .advise("use SELECT, EXPLAIN, DESCRIBE or SHOW; published tables change through jobs alone")
}

/// The names a query may use.
fn published_names(state: &SessionState) -> Vec<String> {
    let defaults = &state.config_options().catalog;
    let catalog = state.catalog_list().catalog(&defaults.default_catalog);
    let schema = catalog.and_then(|catalog| catalog.schema(&defaults.default_schema));
    let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
    names.sort();
    names
}
