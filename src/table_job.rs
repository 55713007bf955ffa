//! Jobs that replace a table: the answer to a question in SQL, the votes of the crowd.
//!
//! In: a job, and the `.sql` file beside it or the choices that it names. Out: the next version of
//! its table. Invariant: a reader sees the table as it was or as the job says, never half.

mod parts;

use crate::engine::sql::{Bounds, Question, reading_failed, within};
use crate::error::{Error, Kind, Result};
use crate::input::reference;
use crate::job::spec::{JobKind, Spec};
use crate::job::text::read_text;
use crate::kernel::{self, votes::VoteRules};
use crate::output::commit::CommitInfo;
use crate::output::crowd::{self, CROWD_VOTES};
use crate::output::lake::Lake;
use crate::output::part::WrittenPart;
use crate::output::recommendations::BUDGET_RECOMMENDATIONS;
use crate::output::table::Table;
use crate::query::{Sources, answer};
use crate::report::{Report, RunOutcome, peak_memory_bytes};
use crate::store::{Place, probe, wait};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::TryStreamExt;
use parts::{Parts, Size};
use std::sync::Arc;
use std::time::Instant;

/// Computes the job's table and replaces the one that is published.
pub fn publish(spec: &Spec) -> Result<Report> {
    let started = Instant::now();
    let lake = Lake::open(&spec.output.lake)?;
    let name = table_name(spec);
    let mut report =
        Report { job: spec.name.clone(), run_id: uuid::Uuid::now_v7().to_string(), ..Report::default() };
    lake.free_for_jobs(&name)?;
    let mut written = Vec::new();
    let target = Target { table: lake.place.child(&name), name: &name, run_id: &report.run_id };
    let computed = match spec.kind {
        JobKind::Votes => count_votes(spec, &lake, &target, &mut written),
        _ => ask(spec, &lake, &target, &mut written),
    };
    report.seconds.map = started.elapsed().as_secs_f64();
    let replaced = computed.and_then(|schema| replace(&lake, &target, &schema, &written));
    report.table_version = replaced.inspect_err(|error| target.take_back(&written, error))?;
    report.outcome = RunOutcome::Published;
    report.published_table = Some((name.clone(), written.iter().map(|part| part.rows).sum()));
    report.seconds.total = started.elapsed().as_secs_f64();
    report.seconds.publish = report.seconds.total - report.seconds.map;
    report.peak_memory_bytes = peak_memory_bytes();
    Ok(report)
}

/// Where the parts of a run go.
struct Target<'a> {
    table: Place,
    name: &'a str,
    run_id: &'a str,
}

impl Target<'_> {
    /// Deletes the parts of a run that failed, unless its commit may still land. What stays is for
    /// `gc`.
    fn take_back(&self, written: &[WrittenPart], error: &Error) {
        if error.kind != Kind::OutcomeUnknown {
            for part in written {
                let _ = self.table.child(&part.path).delete();
            }
        }
    }

    /// Makes sure, before anything is written, that it can be: the store creates a name once, and no
    /// table stands there that is not the job's.
    async fn fits(&self, lake: &Lake, schema: &SchemaRef) -> Result<()> {
        let place = lake.place.clone();
        let probed = tokio::task::spawn_blocking(move || probe(&place)).await;
        probed.map_err(|_| Error::invariant("a thread of the job stopped"))??;
        if lake.table_now(self.name).await?.is_some() {
            let opened = Table::open_or_create(lake.store(), self.name, schema, &[]).await;
            opened.map_err(|e| e.at(&lake.place.shown))?;
        }
        Ok(())
    }
}

/// The table that a job replaces.
pub fn table_name(spec: &Spec) -> String {
    let default = match spec.kind {
        JobKind::Votes => CROWD_VOTES,
        JobKind::Recommend => BUDGET_RECOMMENDATIONS,
        _ => &spec.name,
    };
    spec.output.table.clone().unwrap_or_else(|| default.to_string())
}

/// Makes the parts the table. Out: the version that it became.
fn replace(lake: &Lake, target: &Target, schema: &SchemaRef, written: &[WrittenPart]) -> Result<u64> {
    let _lock = lake.lock("_lock")?;
    let open = || lake.open_or_create_for_job(target.name, schema, &[]);
    let files: Vec<_> = written.iter().cloned().map(|part| part.file(None)).collect();
    let info = |table: &Table| CommitInfo::of_job(target.run_id, table);
    lake.put_parts(&open, &files, &|_| true, &info)
}

/// Counts the votes in the choices that the job names, and writes them.
fn count_votes(
    spec: &Spec,
    lake: &Lake,
    target: &Target,
    written: &mut Vec<WrittenPart>,
) -> Result<SchemaRef> {
    let votes = votes(spec)?;
    let schema = votes.schema();
    let size = Size::of(u64::MAX, spec.limits.memory.0.0);
    wait(async {
        target.fits(lake, &schema).await?;
        let mut parts = Parts::new(&target.table, target.run_id, schema.clone(), size, written);
        parts.add(&votes).await?;
        parts.finish().await
    })?;
    Ok(schema)
}

fn votes(spec: &Spec) -> Result<RecordBatch> {
    let categories = reference::categories(&spec.input)?;
    let table = spec.input.category_overrides.as_deref().unwrap_or_default();
    let mut choices = reference::choices(spec, table, &categories)?;
    let wish = &spec.votes;
    if let Some(day) = &wish.as_of {
        choices.retain(|choice| choice.set_at_micros < day.0.end_micros());
    }
    let latest_micros = choices.iter().map(|choice| choice.set_at_micros).max().unwrap_or(0);
    let now_micros = wish.as_of.as_ref().map_or(latest_micros, |day| day.0.end_micros());
    let rules = VoteRules {
        votes_min: wish.minimum.into(),
        margin_millionths: wish.margin.0,
        since_micros: wish
            .age_days_max
            .map(|days| now_micros.saturating_sub(i64::from(days).saturating_mul(DAY_MICROS))),
    };
    let counted = kernel::votes::count(&choices, &rules, categories.uncategorized());
    crowd::batch(&counted, &categories)
}

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// The text of a job's question, and the file it stands in.
pub fn question(spec: &Spec) -> Result<(String, String)> {
    let file = spec.folder.join(spec.query.as_deref().unwrap_or_default());
    let shown = file.display().to_string();
    Ok((read_text(&file, "query file")?, shown))
}

/// Answers the job's question, and writes the answer as its rows come.
fn ask(spec: &Spec, lake: &Lake, target: &Target, written: &mut Vec<WrittenPart>) -> Result<SchemaRef> {
    let (sql, _) = question(spec)?;
    let question = Question::parse(&sql)?;
    let bounds = Bounds::of(&spec.limits);
    let size = Size::of(spec.limits.answer.0.0, spec.limits.memory.0.0);
    let sources = Sources { verify: spec.input.verify, ..Sources::default() };
    within(&bounds, async || {
        let mut answer = answer(lake, question, sources, &bounds).await?.rows;
        let schema = publishable(&answer.schema);
        target.fits(lake, &schema).await?;
        let mut parts = Parts::new(&target.table, target.run_id, schema.clone(), size, written);
        while let Some(batch) = answer.rows.try_next().await.map_err(reading_failed)? {
            parts.add(&recast(&batch, &schema)?).await?;
        }
        parts.finish().await?;
        Ok(schema)
    })
}

/// Delta has no views, dictionaries or unsigned integers: plain types of the same values.
fn publishable(schema: &SchemaRef) -> SchemaRef {
    use arrow::datatypes::DataType as Type;
    let plain = |kind: &Type| match kind {
        Type::Utf8View | Type::LargeUtf8 => Type::Utf8,
        Type::BinaryView | Type::LargeBinary => Type::Binary,
        Type::UInt8 | Type::UInt16 => Type::Int32,
        Type::UInt32 => Type::Int64,
        Type::UInt64 => Type::Decimal128(20, 0),
        Type::Dictionary(_, value) => *value.clone(),
        other => other.clone(),
    };
    let fields = schema.fields().iter().map(|field| {
        arrow::datatypes::Field::new(field.name(), plain(field.data_type()), field.is_nullable())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn recast(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let broken = |e: arrow::error::ArrowError| Error::invariant(format!("an answer is no table: {e}"));
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()));
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>().map_err(broken)?).map_err(broken)
}
