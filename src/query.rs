//! Questions in SQL over a lake, and over the raw logs of a job.
//!
//! In: what was typed. Out: the answer on stdout, talk on stderr.
//! Invariant: a question only reads; it sees each table at one version; it ends within its bounds.

mod tables;

use crate::engine::format::{self, Format};
use crate::engine::raw::{RAW_TRANSACTIONS, RawLogs, table};
use crate::engine::sql::{self, Bounds, QueryResult, Question, Verifier, within};
use crate::error::{EXIT_NEEDS_A_LOOK, Error, Kind, Result, talk};
use crate::input::plan;
use crate::input::reference::{Reference, zone};
use crate::job::cli::{QueryArgs, QueryFormat};
use crate::job::spec::Spec;
use crate::kernel::categorize::Categorizer;
use crate::output::crowd;
use crate::output::lake::Lake;
use crate::store::wait;
use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tables::{Opened, checksums};
use url::Url;

/// What a question is asked of, beside the lake as it is.
#[derive(Default)]
pub struct Sources {
    /// As the lake was at this version of `monthly_spending`.
    pub as_of: Option<u64>,
    /// Hold parts to their checksums.
    pub verify: bool,
    /// There are raw logs, be it that the question names them or not.
    pub has_logs: bool,
    pub logs: Option<Arc<dyn TableProvider>>,
}

/// An answer that is about to be read.
pub struct Answer {
    pub rows: QueryResult,
    /// Tables that should have been listed and cannot be opened.
    pub unopened: usize,
}

/// Answers a question on stdout. Out: the exit code.
pub fn run(args: &QueryArgs) -> Result<u8> {
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
    let question = Question::parse(&args.sql)?;
    let bounds = bounds(args, spec.as_ref());
    let with_logs = spec.as_ref().filter(|spec| spec.input.logs.is_some());
    let logs = match with_logs {
        Some(spec) if question.tables.contains(RAW_TRANSACTIONS) => Some(raw_logs(spec)?),
        Some(spec) if question.lists_tables => raw_logs(spec).inspect_err(passed_over).ok(),
        _ => None,
    };
    let are_logs_missing = question.lists_tables && with_logs.is_some() && logs.is_none();
    let sources = Sources {
        as_of: args.as_of,
        verify: args.verify || spec.as_ref().is_some_and(|spec| spec.input.verify),
        has_logs: with_logs.is_some(),
        logs: logs.as_ref().map(|logs| table(logs.clone(), bounds.threads())),
    };
    let lake = Lake::open(&lake)?;
    let (written, unopened) = within(&bounds, async || {
        let answer = answer(&lake, question, sources, &bounds).await?;
        let written = format::write(answer.rows, form(args.format), &mut stdout).await?;
        Ok((written, answer.unopened))
    })?;
    // A reader that has seen enough is no error.
    let _ = std::io::stdout().flush();
    if args.format == QueryFormat::Table && !written.reader_left {
        talk(format_args!("{} rows", written.rows));
    }
    match logs.map_or(0, |logs| logs.rejected.load(Ordering::Relaxed)) {
        0 => {}
        rejected => talk(format_args!("{rejected} lines of the raw logs are no transactions")),
    }
    Ok(if unopened == 0 && !are_logs_missing { 0 } else { EXIT_NEEDS_A_LOOK })
}

/// Says that a table is not among those that are listed.
fn passed_over(error: &Error) {
    talk(format_args!("pennymill: passed over: {error}"));
}

fn bounds(args: &QueryArgs, spec: Option<&Spec>) -> Bounds {
    let bounds = Bounds::of(&spec.map(|spec| spec.limits.clone()).unwrap_or_default());
    match args.timeout {
        Some(timeout) => Bounds { time: Duration::from_secs(timeout.0), ..bounds },
        None => bounds,
    }
}

/// Plans a question over the published tables that it names, and starts to answer it.
pub async fn answer(lake: &Lake, question: Question, sources: Sources, bounds: &Bounds) -> Result<Answer> {
    let lists_tables = question.lists_tables;
    let elsewhere: Vec<String> = sources.has_logs.then(|| RAW_TRANSACTIONS.to_string()).into_iter().collect();
    let Opened { tables, mut known, unopened } =
        Opened::of(lake, &question, sources.as_of, &elsewhere).await?;
    let is_nothing = tables.is_empty() && known.is_empty() && unopened == 0 && !sources.has_logs;
    if is_nothing && (!question.tables.is_empty() || is_empty(lake).await) {
        let error = Error::new(Kind::NotFound, "there is no lake, or nothing was published to it");
        return Err(error.at(&lake.place.shown));
    }
    known.extend(tables.iter().map(|table| table.name.clone()));
    known.extend(elsewhere);
    known.sort();
    known.dedup();
    let verifier = match sources.verify {
        true => Some(Arc::new(Verifier::new(checksums(lake, sources.as_of).await?))),
        false => None,
    };
    let url = Url::parse("lake://published").map_err(|e| Error::invariant(e.to_string()))?;
    let lake = sql::Lake { store: lake.store().clone(), url, tables, known, verifier: verifier.clone() };
    let extra = sources.logs.map(|logs| (RAW_TRANSACTIONS.to_string(), logs)).into_iter().collect();
    let rows = sql::query(lake, extra, question, bounds).await?;
    if let Some(verifier) = verifier {
        let (held, unknown) = verifier.counts();
        talk(format_args!(
            "{held} parts are what their manifests name; of {unknown} parts nobody knows the checksum"
        ));
    }
    Ok(Answer { rows, unopened: if lists_tables { unopened } else { 0 } })
}

/// Whether no object is there. What cannot be listed may hold some.
async fn is_empty(lake: &Lake) -> bool {
    lake.store().list(None).next().await.is_none()
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
