//! Questions in SQL over a lake, and over the raw logs of a job.
//!
//! In: what was typed. Out: the answer on stdout, talk on stderr.
//! Invariant: a question only reads; it sees each table at one version.

use crate::engine::format::{self, Format};
use crate::engine::raw::{RAW_TRANSACTIONS, RawLogs, table};
use crate::engine::sql::{self, PublishedFile, PublishedTable, QueryResult};
use crate::error::{Error, Kind, Result, talk};
use crate::input::plan;
use crate::input::published::PartFile;
use crate::input::reference::{Reference, zone};
use crate::job::cli::{QueryArgs, QueryFormat};
use crate::job::spec::Spec;
use crate::kernel::categorize::Categorizer;
use crate::output::crowd;
use crate::output::lake::{BUDGET_ALERTS, Lake, MONTHLY_SPENDING, REJECTS, TRANSACTIONS};
use crate::schema;
use crate::store::wait;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use object_store::path::Path;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use url::Url;

/// Answers a question on stdout.
pub fn run(args: &QueryArgs) -> Result<()> {
    let spec = args.job.as_ref().map(|job| Spec::load(job, &args.sets)).transpose()?;
    let lake = match (&args.lake, &spec) {
        (Some(lake), _) => lake.clone(),
        (None, Some(spec)) => spec.output.lake.clone(),
        (None, None) => return Err(Error::unfit("neither --lake nor --job names a lake")),
    };
    let mut stdout = std::io::stdout();
    if args.format == QueryFormat::Parquet && stdout.is_terminal() {
        let error = Error::unfit("Parquet is not for a terminal");
        return Err(error.advise("redirect stdout to a file, or use --format table"));
    }
    let logs = spec.as_ref().map(raw_logs).transpose()?;
    let limits = spec.map(|spec| spec.limits).unwrap_or_default();
    let raw =
        |logs: &Arc<RawLogs>| (RAW_TRANSACTIONS.to_string(), table(logs.clone(), cores(limits.threads)));
    let extra = logs.iter().map(raw).collect();
    let lake = Lake::open(&lake)?;
    let written = wait(async {
        let memory_bytes = limits.memory.0.0 as usize;
        let tables = published(&lake, &args.sql, args.as_of).await?;
        let answer = answer_from(&lake, tables, extra, &args.sql, memory_bytes, limits.threads).await?;
        format::write(answer, form(args.format), &mut stdout).await
    })?;
    // A reader that has seen enough is no error.
    let _ = stdout.flush();
    if args.format == QueryFormat::Table && !written.reader_left {
        talk(format_args!("{} rows", written.rows));
    }
    match logs.map_or(0, |logs| logs.rejected.load(Ordering::Relaxed)) {
        0 => {}
        rejected => talk(format_args!("{rejected} lines of the raw logs are no transactions")),
    }
    Ok(())
}

/// Plans a question over everything that the lake has published.
pub async fn answer(
    lake: &Lake,
    extra: Vec<(String, Arc<dyn TableProvider>)>,
    sql: &str,
    memory_bytes: usize,
    threads: usize,
) -> Result<QueryResult> {
    let tables = published(lake, sql, None).await?;
    answer_from(lake, tables, extra, sql, memory_bytes, threads).await
}

/// [`answer`] from tables at chosen versions.
pub async fn answer_from(
    lake: &Lake,
    tables: Vec<PublishedTable>,
    extra: Vec<(String, Arc<dyn TableProvider>)>,
    sql: &str,
    memory_bytes: usize,
    threads: usize,
) -> Result<QueryResult> {
    if tables.is_empty() && extra.is_empty() {
        let error = Error::new(Kind::NotFound, "there is no lake, or nothing was published to it");
        return Err(error.at(&lake.place.shown));
    }
    let url = Url::parse("lake://published").map_err(|e| Error::invariant(e.to_string()))?;
    let lake = sql::Lake { store: lake.store().clone(), url, tables };
    sql::query(lake, extra, sql, memory_bytes, cores(threads)).await
}

/// What a job means by so many threads.
fn cores(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// The tables that a question can be about, as they are or as they were at a version.
pub async fn published(lake: &Lake, sql: &str, as_of: Option<u64>) -> Result<Vec<PublishedTable>> {
    let mut tables = Vec::new();
    let sorted_by = vec!["user_id".to_string(), "category".to_string()];
    let known = [
        (MONTHLY_SPENDING, schema::monthly_spending(), sorted_by),
        (BUDGET_ALERTS, schema::budget_alerts(), Vec::new()),
        (TRANSACTIONS, schema::transactions(), Vec::new()),
    ];
    for (name, schema, sorted_by) in known {
        let table = match as_of {
            None => lake.table_now(name).await?,
            Some(version) => lake.table_as_of(name, version).await?,
        };
        if let Some(table) = table {
            let files = table.files()?.into_iter().map(|part| file(name, part)).collect();
            let partition_column = Some("month".to_string());
            tables.push(PublishedTable {
                name: name.to_string(),
                schema,
                partition_column,
                files,
                sorted_by,
            });
        }
    }
    let of_jobs = if as_of.is_none() { lake.published_by_jobs().await? } else { Vec::new() };
    for name in of_jobs {
        if let Some(table) = lake.table_now(&name).await? {
            let files = table.files()?.into_iter().map(|part| file(&name, part)).collect();
            let partition_column = table.partition_column();
            tables.push(PublishedTable { partition_column, ..unpartitioned(&name, table.schema(), files) });
        }
    }
    // Finding all rejects takes every manifest there is: only for questions that speak of them.
    if !tables.is_empty() && sql.to_lowercase().contains(REJECTS) {
        let rejects = lake.rejects(as_of).await?.into_iter().map(|record| PublishedFile {
            path: Path::from(record.path.as_str()),
            size_bytes: record.size_bytes,
            rows: Some(record.rows),
            month: None,
            user_id_range: None,
        });
        tables.push(unpartitioned(REJECTS, schema::rejects(), rejects.collect()));
    }
    Ok(tables)
}

fn unpartitioned(name: &str, schema: SchemaRef, files: Vec<PublishedFile>) -> PublishedTable {
    PublishedTable { name: name.to_string(), schema, partition_column: None, files, sorted_by: Vec::new() }
}

fn file(table: &str, part: PartFile) -> PublishedFile {
    let statistics: serde_json::Value =
        part.stats.and_then(|stats| serde_json::from_str(&stats).ok()).unwrap_or_default();
    let bound = |which: &str| statistics[which]["user_id"].as_i64();
    PublishedFile {
        path: Path::from(format!("{table}/{}", part.path)),
        size_bytes: part.size_bytes,
        rows: Some(part.rows),
        month: part.month,
        user_id_range: bound("minValues").zip(bound("maxValues")),
    }
}

fn raw_logs(spec: &Spec) -> Result<Arc<RawLogs>> {
    let objects = plan::list(spec.input.logs.as_deref().unwrap_or_default())?.objects;
    let reference = Reference::load(spec, crowd::read)?;
    let categorizer = Categorizer::of(&reference)?;
    let (zone, categories) = (zone(spec), reference.categories);
    Ok(Arc::new(RawLogs { objects, zone, categories, categorizer, rejected: Default::default() }))
}

/// A small table as text. Parquet, which is none, is refused.
pub fn write_batch(rows: RecordBatch, wanted: QueryFormat) -> Result<String> {
    let schema = rows.schema();
    let stream = RecordBatchStreamAdapter::new(schema.clone(), futures::stream::iter([Ok(rows)]));
    let result = QueryResult { schema, rows: Box::pin(stream), is_plan: false };
    let mut bytes = Vec::new();
    wait(format::write(result, form(wanted), &mut bytes))?;
    String::from_utf8(bytes).map_err(|_| Error::unfit("Parquet is not for this; use csv or json"))
}

/// The format that was typed.
pub fn form(format: QueryFormat) -> Format {
    match format {
        QueryFormat::Table => Format::Table,
        QueryFormat::Csv => Format::Csv,
        QueryFormat::Json => Format::Json,
        QueryFormat::Parquet => Format::Parquet,
    }
}
