//! Questions in SQL over published tables, answered by DataFusion.
//!
//! In: a lake (a store and, for each table, a fixed list of Parquet files of one version), tables
//! from elsewhere, one statement, and bounds on what it may take.
//! Out: a schema and a stream of record batches.
//! Invariant: a question reads. Whatever would write, create, set or copy is refused before it is
//! planned, and again after. It ends within its bounds.

mod bounds;
mod depth;
mod failure;
mod memory;
mod pruning;
mod published;
mod question;
mod reader;
mod spill;
mod text;
mod verify;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::TableReference;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::context::SessionContext;
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{EmptyRecordBatchStream, execute_stream};
use datafusion::prelude::SessionConfig;
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::domain::month::Month;
use crate::error::Result;

use depth::refuse_deep_plan;
use failure::planning_failed;
use memory::SharedMemory;
use spill::Room;

pub use bounds::{Bounds, within};
pub use failure::reading_failed;
pub use question::Question;
pub use verify::Verifier;

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
    /// Those that the question names.
    pub tables: Vec<PublishedTable>,
    /// The names of all tables, for whoever asks for one that is not there.
    pub known: Vec<String>,
    /// Holds the parts that are read to their checksums, where that is wished.
    pub verifier: Option<Arc<Verifier>>,
}

/// The rows that answer a question.
pub struct QueryResult {
    pub schema: SchemaRef,
    pub rows: SendableRecordBatchStream,
    /// The rows are the text of a plan (`EXPLAIN`), laid out in lines by the engine.
    pub is_plan: bool,
}

/// What a spilled run takes while it is merged with others: about two batches of ten columns.
const MERGED_RUN_BYTES: usize = 1024 * 1024;

/// How many spilled runs a sort merges at once. Left alone it takes all the memory there is for
/// as many as it can, and the next merge finds none.
const MAX_RUNS_MERGED: usize = 64;

/// Footers of parts that are kept for other threads; less where memory is small.
const FOOTERS_BYTES: usize = 50 * 1024 * 1024;

/// Lists up to this length are compared with the statistics of files, row groups and pages.
const LISTED_VALUES: usize = 100;

/// Makes the stream of one partition, anew for every scan.
pub type StreamMaker = Box<dyn Fn() -> SendableRecordBatchStream + Send + Sync>;

/// Plans one statement and starts to run it. The rows are computed while the stream is read.
pub async fn query(
    lake: Lake,
    extra: Vec<(String, Arc<dyn TableProvider>)>,
    question: Question,
    bounds: &Bounds,
) -> Result<QueryResult> {
    let context = session(bounds, !extra.is_empty()).map_err(planning_failed)?;
    let known: Vec<String> = lake.known.iter().chain(extra.iter().map(|(name, _)| name)).cloned().collect();
    register(&context, lake, extra)?;
    let mut state = context.state();
    let plan = question.plan(&state, &known).await?;
    refuse_deep_plan(&plan)?;
    let options = state.config_mut().options_mut();
    options.optimizer.enable_physical_uncorrelated_scalar_subquery =
        !pruning::subqueries_can_be_joined(&plan).map_err(planning_failed)?;
    let is_plan = matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
    let plan = state.optimize(&plan).map_err(planning_failed)?;
    // What was flat may have been folded into something deep.
    refuse_deep_plan(&plan)?;
    let plan = state.query_planner().create_physical_plan(&plan, &state).await.map_err(planning_failed)?;
    let rows = execute_stream(plan, state.task_ctx()).map_err(planning_failed)?;
    Ok(QueryResult { schema: rows.schema(), rows, is_plan })
}

/// A session whose sorts, joins and aggregates share memory and put aside what is beyond it, in the
/// system's temporary folder (`TMPDIR`).
fn session(bounds: &Bounds, rows_are_made: bool) -> datafusion::error::Result<SessionContext> {
    let threads = bounds.threads();
    let memory_bytes = bounds.operators_bytes(rows_are_made);
    let mut config = SessionConfig::new().with_target_partitions(threads).with_information_schema(true);
    let options = config.options_mut();
    // Without this `amount * 0.19` is computed in floats, which may not hold money.
    options.sql_parser.parse_float_as_decimal = true;
    // Each sort sets this much aside to merge its spilled runs: a small pool must afford it.
    let kept = SharedMemory::kept_from_spillers(memory_bytes);
    let merge_reserve = &mut options.execution.sort_spill_reservation_bytes;
    *merge_reserve = (*merge_reserve).min(kept / (2 * threads));
    let runs_merged = (kept / (2 * threads) / MERGED_RUN_BYTES).clamp(2, MAX_RUNS_MERGED);
    let spilled = DiskManager::builder()
        .with_temp_file_factory(Arc::new(Room::new(bounds.spill_bytes)))
        .with_max_spill_merge_fan_in(runs_merged);
    let footers_bytes = FOOTERS_BYTES.min(bounds.memory_bytes / 16);
    let runtime = RuntimeEnvBuilder::new()
        .with_disk_manager_builder(spilled)
        .with_cache_manager(CacheManagerConfig::default().with_metadata_cache_limit(footers_bytes))
        .with_memory_pool(Arc::new(SharedMemory::new(memory_bytes)))
        .build_arc()?;
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// Makes the tables known by name; a second one of the same name is an error.
fn register(
    context: &SessionContext,
    lake: Lake,
    extra: Vec<(String, Arc<dyn TableProvider>)>,
) -> Result<()> {
    context.register_object_store(&lake.url, lake.store);
    let mut tables = extra;
    for table in lake.tables {
        let name = table.name.clone();
        let provider = published::PublishedProvider::try_new(table, &lake.url, lake.verifier.clone())?;
        tables.push((name, Arc::new(provider)));
    }
    for (name, provider) in tables {
        context.register_table(TableReference::bare(name), provider).map_err(planning_failed)?;
    }
    Ok(())
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
