//! Questions in SQL over published tables, answered by DataFusion.
//!
//! In: a lake (a store and, for each table, a fixed list of Parquet files of one version), tables
//! from elsewhere, one statement, a bound on memory and a number of threads.
//! Out: a schema and a stream of record batches.
//! Invariant: a question reads. Whatever would write, create, set or copy is refused before it is
//! planned, and again after.

mod failure;
mod published;
mod reader;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::config::SpillCompression;
use datafusion::execution::context::{SQLOptions, SessionContext, SessionState};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::EmptyRecordBatchStream;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{DataFrame, SessionConfig};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{SetExpr, Statement as SqlStatement};
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::domain::month::Month;
use crate::error::{Error, Result};

pub use failure::{planning_failed, reading_failed};

/// A table as a reader sees it: a fixed list of Parquet files of one version.
pub struct PublishedTable {
    pub name: String,
    /// Every column, in published order, the partition column included.
    pub schema: SchemaRef,
    /// The column that says the month: a `DATE`, the first of the month, not stored in the files.
    pub partition_column: Option<String>,
    pub files: Vec<PublishedFile>,
    /// The columns that the rows of each file are sorted by, ascending; may be empty.
    pub sorted_by: Vec<String>,
}

/// One Parquet file of a published table.
pub struct PublishedFile {
    /// The full path in the store.
    pub path: Path,
    pub size_bytes: u64,
    pub rows: Option<u64>,
    /// The month of every row; needed where the table has a partition column.
    pub month: Option<Month>,
    /// The smallest and the largest `user_id` in the file. Exact, since `min(user_id)` is
    /// answered from it.
    pub user_id_range: Option<(i64, i64)>,
}

/// The published tables and the store they lie in.
pub struct Lake {
    pub store: Arc<dyn ObjectStore>,
    /// What the store is known by inside a query; only its scheme and authority count.
    pub url: Url,
    pub tables: Vec<PublishedTable>,
}

/// The rows that answer a question.
pub struct QueryResult {
    pub schema: SchemaRef,
    pub rows: SendableRecordBatchStream,
    /// The rows are the text of a plan (`EXPLAIN`), laid out in lines by the engine.
    pub is_plan: bool,
}

/// Makes the stream of one partition, anew for every scan.
pub type StreamMaker = Box<dyn Fn() -> SendableRecordBatchStream + Send + Sync>;

/// Plans one statement and starts to run it. The rows are computed while the stream is read.
pub async fn query(
    lake: Lake,
    extra: Vec<(String, Arc<dyn TableProvider>)>,
    sql: &str,
    memory_bytes: usize,
    threads: usize,
) -> Result<QueryResult> {
    let context = session(memory_bytes, threads).map_err(planning_failed)?;
    register(&context, lake, extra)?;
    let state = context.state();
    let plan = read_only_plan(&state, sql).await?;
    let is_plan = matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
    let frame = DataFrame::new(state, plan);
    let rows = frame.execute_stream().await.map_err(planning_failed)?;
    Ok(QueryResult { schema: rows.schema(), rows, is_plan })
}

/// A session whose sorts, joins and aggregates share `memory_bytes` and spill what is beyond to
/// the system's temporary folder (`TMPDIR`).
fn session(memory_bytes: usize, threads: usize) -> datafusion::error::Result<SessionContext> {
    let threads = threads.max(1);
    let mut config = SessionConfig::new()
        .with_target_partitions(threads)
        .with_information_schema(true);
    let options = config.options_mut();
    // Without this `amount * 0.19` is computed in floats, which may not hold money.
    options.sql_parser.parse_float_as_decimal = true;
    // As a join, `month = (SELECT max(month) …)` leaves the files of the other months unopened.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    options.execution.spill_compression = SpillCompression::Lz4Frame;
    // Each sort sets this much aside to merge its spilled runs: a small pool must afford it.
    let merge_reserve = &mut options.execution.sort_spill_reservation_bytes;
    *merge_reserve = (*merge_reserve).min(memory_bytes / (4 * threads));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .build_arc()?;
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// Makes the tables known by name; two of one name are the caller's mistake.
fn register(
    context: &SessionContext,
    lake: Lake,
    extra: Vec<(String, Arc<dyn TableProvider>)>,
) -> Result<()> {
    context.register_object_store(&lake.url, lake.store);
    let mut tables = extra;
    for table in lake.tables {
        let name = table.name.clone();
        let provider = published::PublishedProvider::try_new(table, &lake.url)?;
        tables.push((name, Arc::new(provider)));
    }
    for (name, provider) in tables {
        let reference = datafusion::common::TableReference::bare(name.as_str());
        let earlier = context.register_table(reference, provider).map_err(planning_failed)?;
        if earlier.is_some() {
            return Err(Error::unfit(format!("two tables are called `{name}`")));
        }
    }
    Ok(())
}

/// The plan of the one statement in `sql`, if all it does is read.
async fn read_only_plan(state: &SessionState, sql: &str) -> Result<LogicalPlan> {
    let statement = parse(state, sql)?;
    if let Some(verb) = writing_verb(&statement) {
        return Err(read_only(&verb));
    }
    let references = state.resolve_table_references(&statement).map_err(planning_failed)?;
    let plan = match state.statement_to_plan(statement).await {
        Ok(plan) => plan,
        Err(error) => {
            let known = published_names(state);
            let unknown = failure::unknown_table(&error, &references, &known);
            return Err(unknown.unwrap_or_else(|| planning_failed(error)));
        }
    };
    // The statement looked like a question; what it was planned as has to be one too
    // (`SELECT … INTO`, a writing `WITH`).
    let reading_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    match reading_only.verify_plan(&plan) {
        Ok(()) => Ok(plan),
        Err(_) => Err(read_only(plan.display().to_string().split(':').next().unwrap_or_default())),
    }
}

/// The one statement in `sql`.
fn parse(state: &SessionState, sql: &str) -> Result<Statement> {
    let dialect = state.config_options().sql_parser.dialect;
    state.sql_to_statement(sql, &dialect).map_err(|error| {
        use datafusion::error::DataFusionError as Failure;
        match error {
            Failure::NotImplemented(_) => {
                Error::unfit("more than one statement: ask one question at a time").at("query")
            }
            other => planning_failed(other),
        }
    })
}

/// What the statement would do, in a word, if that is more than reading.
fn writing_verb(statement: &Statement) -> Option<String> {
    let first_word = |text: String| text.split_whitespace().next().unwrap_or_default().to_string();
    match statement {
        Statement::Explain(explained) => writing_verb(&explained.statement),
        Statement::Statement(statement) => match &**statement {
            // `WITH … INSERT` is parsed as a query whose body is the INSERT.
            SqlStatement::Query(query) => match &*query.body {
                SetExpr::Insert(body)
                | SetExpr::Update(body)
                | SetExpr::Delete(body)
                | SetExpr::Merge(body) => Some(first_word(body.to_string())),
                _ => None,
            },
            SqlStatement::Explain { .. }
            | SqlStatement::ExplainTable { .. }
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
            | SqlStatement::ShowVariable { .. } => None,
            other => Some(first_word(other.to_string())),
        },
        other => Some(first_word(other.to_string())),
    }
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

/// A table whose rows are made by the caller, one stream for each partition.
pub fn streaming_table(schema: SchemaRef, partitions: Vec<StreamMaker>) -> Arc<dyn TableProvider> {
    let mut partitions = partitions;
    if partitions.is_empty() {
        // A plan without partitions is no plan: nothing to read is one empty stream.
        let empty = schema.clone();
        partitions.push(Box::new(move || Box::pin(EmptyRecordBatchStream::new(empty.clone()))));
    }
    let partitions = partitions
        .into_iter()
        .map(|make| Arc::new(MadePartition { schema: schema.clone(), make }) as _)
        .collect();
    let table = StreamingTable::try_new(schema, partitions);
    Arc::new(table.expect("every partition was given the schema of the table"))
}

/// A partition that asks its maker for a stream whenever it is scanned.
struct MadePartition {
    schema: SchemaRef,
    make: StreamMaker,
}

impl fmt::Debug for MadePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MadePartition")
    }
}

impl PartitionStream for MadePartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        (self.make)()
    }
}

#[cfg(test)]
mod tests;
