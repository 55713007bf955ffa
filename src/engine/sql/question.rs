//! What may be asked.
//!
//! In: the text of a query. Out: its one statement with the tables that it names; then its plan.
//! Invariant: the plan reads and does nothing else, and working on it takes a bounded stack.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::execution::context::{SQLOptions, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, SetExpr, ShowStatementIn, Statement as SqlStatement, TableFactor, Visit, Visitor,
};

use super::bounds::on_large_stack;
use super::failure::{planning_failed, unknown_table};
use super::text::refuse_beyond_bounds;
use crate::error::{Error, Result};
use crate::limits::SQL_JOINED_MAX;

/// How deep expressions may be nested, and how long a chain of UNIONs may be.
pub(super) const MAX_DEPTH: usize = 100;

/// The schema whose tables list the others, and those of them that do.
const LISTS: [&str; 3] = ["tables", "views", "columns"];
const INFORMATION_SCHEMA: &str = "information_schema";

/// A statement that only reads, as far as its words go.
#[derive(Debug)]
pub struct Question {
    statement: Statement,
    references: Vec<TableReference>,
    /// The tables that it names. Those that a WITH makes are none.
    pub tables: BTreeSet<String>,
    /// Whether it lists all tables that there are.
    pub lists_tables: bool,
}

impl Question {
    /// Parses one statement. Errors: it is wrong, it does more than read, it is too deep.
    pub fn parse(sql: &str) -> Result<Question> {
        on_large_stack(|| {
            refuse_beyond_bounds(sql)?;
            let statement = one_statement(sql)?;
            if let Some(verb) = writing_verb(&statement) {
                return Err(read_only(&verb));
            }
            refuse_explained_explain(&statement)?;
            refuse_deep_nesting(&statement)?;
            Question::of(statement)
        })
    }

    fn of(statement: Statement) -> Result<Question> {
        let (references, _) = resolve_table_references(&statement, true).map_err(planning_failed)?;
        let is_of = |reference: &TableReference, schema| reference.schema() == Some(schema);
        let functions = Functions::of(&statement);
        let mut tables: BTreeSet<String> = references
            .iter()
            .filter(|reference| !is_of(reference, INFORMATION_SCHEMA))
            .map(|reference| reference.table().to_string())
            .filter(|name| !functions.are_all(name))
            .collect();
        let lists = |reference: &TableReference| {
            is_of(reference, INFORMATION_SCHEMA) && LISTS.contains(&reference.table())
        };
        let (columns_of, shows) = shown(&statement);
        tables.extend(columns_of);
        let lists_tables = shows.unwrap_or_else(|| references.iter().any(lists));
        Ok(Question { statement, references, tables, lists_tables })
    }

    /// The plan, if all it does is read. `known` are the names of all tables.
    pub async fn plan(self, state: &SessionState, known: &[String]) -> Result<LogicalPlan> {
        let plan = match state.statement_to_plan(self.statement).await {
            Ok(plan) => plan,
            Err(error) => {
                let unknown = unknown_table(&error, &self.references, known);
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
}

/// The one statement in `sql`.
fn one_statement(sql: &str) -> Result<Statement> {
    let parsed = DFParserBuilder::new(sql).build().and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(planning_failed)?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (None, _) => Err(Error::unfit("no question is asked").at("query")),
        (Some(_), false) => {
            Err(Error::unfit("more than one statement: ask one question at a time").at("query"))
        }
    }
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

/// Of SHOW: the table whose columns it shows, and whether it lists tables. Such statements are
/// answered from the whole of `information_schema`, and most need little of it.
fn shown(statement: &Statement) -> (Option<String>, Option<bool>) {
    let statement = match statement {
        Statement::Explain(explained) => return shown(&explained.statement),
        Statement::Statement(statement) => &**statement,
        _ => return (None, None),
    };
    match statement {
        SqlStatement::ShowColumns { show_options, .. } => {
            let table = match &show_options.show_in {
                Some(ShowStatementIn { parent_name: Some(name), .. }) => last_of(name),
                _ => None,
            };
            (table, Some(false))
        }
        SqlStatement::ShowFunctions { .. } | SqlStatement::ShowVariable { .. } => (None, Some(false)),
        _ => (None, None),
    }
}

/// What stands in a FROM with arguments, and what stands there without.
#[derive(Default)]
struct Functions {
    called: BTreeSet<String>,
    plain: BTreeSet<String>,
}

impl Functions {
    fn of(statement: &Statement) -> Functions {
        match statement {
            Statement::Explain(explained) => Functions::of(&explained.statement),
            Statement::Statement(statement) => {
                let mut functions = Functions::default();
                // It never breaks off.
                let _ = statement.visit(&mut functions);
                functions
            }
            _ => Functions::default(),
        }
    }

    /// Whether all that has this name is a function that makes rows, and no table.
    fn are_all(&self, name: &str) -> bool {
        self.called.contains(name) && !self.plain.contains(name)
    }
}

impl Visitor for Functions {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args, .. } = factor
            && let Some(name) = last_of(name)
        {
            let names = if args.is_some() { &mut self.called } else { &mut self.plain };
            names.insert(name);
        }
        ControlFlow::Continue(())
    }
}

/// The name itself, without what qualifies it, as the planner reads it.
fn last_of(name: &ObjectName) -> Option<String> {
    let part = name.0.last()?.as_ident()?;
    Some(if part.quote_style.is_some() { part.value.clone() } else { part.value.to_lowercase() })
}

/// An explanation has nothing to explain, and a thousand of them are a thousand deep.
fn refuse_explained_explain(statement: &Statement) -> Result<()> {
    let Statement::Explain(explained) = statement else { return Ok(()) };
    let is_explain = match &*explained.statement {
        Statement::Explain(_) => true,
        Statement::Statement(inner) => {
            matches!(&**inner, SqlStatement::Explain { .. } | SqlStatement::ExplainTable { .. })
        }
        _ => false,
    };
    match is_explain {
        true => Err(Error::unfit("EXPLAIN of an EXPLAIN").at("query").advise("explain the question itself")),
        false => Ok(()),
    }
}

/// A chain like `a OR b OR c` is as deep as it is long, and so is one of joins.
fn refuse_deep_nesting(statement: &Statement) -> Result<()> {
    let statement = match statement {
        Statement::Statement(statement) => statement,
        Statement::Explain(explained) => return refuse_deep_nesting(&explained.statement),
        _ => return Ok(()),
    };
    match statement.visit(&mut Depth(0)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error.at("query")),
    }
}

/// How deep in expressions a walk through a statement is.
struct Depth(usize);

impl Visitor for Depth {
    type Break = Error;

    /// A chain of UNIONs leans to the left; to the right the parser bounds what it reads.
    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let mut length = 0;
        let mut body = &query.body;
        while let SetExpr::SetOperation { left, right, .. } = &**body {
            length += 1;
            joined_within_bounds(right)?;
            body = left;
        }
        joined_within_bounds(body)?;
        within(length)
    }

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<Error> {
        self.0 += 1;
        within(self.0)
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<Error> {
        self.0 -= 1;
        ControlFlow::Continue(())
    }
}

fn within(depth: usize) -> ControlFlow<Error> {
    if depth <= MAX_DEPTH {
        return ControlFlow::Continue(());
    }
    let error = Error::unfit(format!("it is nested more than {MAX_DEPTH} deep"));
    let advice = "a chain (OR, AND, +, UNION) is as deep as it is long; use IN (…) for a list";
    ControlFlow::Break(error.advise(advice))
}

fn joined_within_bounds(body: &SetExpr) -> ControlFlow<Error> {
    let SetExpr::Select(select) = body else { return ControlFlow::Continue(()) };
    let joined = select.from.iter().map(|table| 1 + table.joins.len()).sum::<usize>();
    if joined <= SQL_JOINED_MAX {
        return ControlFlow::Continue(());
    }
    let error = Error::unfit(format!("one FROM joins {joined} tables; the most is {SQL_JOINED_MAX}"));
    ControlFlow::Break(error.advise("ask in several steps"))
}

fn read_only(verb: &str) -> Error {
    Error::unfit(format!("`{verb}` is refused: a query only reads"))
        .at("query")
        .advise("use SELECT, EXPLAIN, DESCRIBE or SHOW; published tables change through jobs alone")
}
