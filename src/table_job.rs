//! Jobs that replace a table: the answer to a question in SQL, the votes of the crowd.
//!
//! In: a job, and the `.sql` file beside it or the choices that it names. Out: the next version of
//! its table. Invariant: a reader sees the table as it was or as the job says, never half.

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::input::reference;
use crate::job::spec::{JobKind, Spec};
use crate::kernel::{self, votes::VoteRules};
use crate::output::commit::CommitInfo;
use crate::output::crowd::{self, CROWD_VOTES};
use crate::output::lake::Lake;
use crate::output::part;
use crate::output::recommendations::BUDGET_RECOMMENDATIONS;
use crate::output::table::Table;
use crate::query::answer;
use crate::report::{Report, RunOutcome, peak_memory_bytes};
use crate::schema;
use crate::store::wait;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::TryStreamExt;
use std::sync::Arc;
use std::time::Instant;

/// Computes the job's table and replaces the one that is published.
pub fn publish(spec: &Spec) -> Result<Report> {
    let started = Instant::now();
    let lake = Lake::open(&spec.output.lake)?;
    let name = table_name(spec);
    let (schema, batches) = match spec.kind {
        JobKind::Votes => votes(spec)?,
        _ => ask(spec, &lake)?,
    };
    let computed = started.elapsed().as_secs_f64();
    let mut report = Report { job: spec.name.clone(), ..Report::default() };
    replace(&lake, &name, &schema, &batches, &mut report)?;
    report.seconds.map = computed;
    report.seconds.total = started.elapsed().as_secs_f64();
    report.seconds.publish = report.seconds.total - computed;
    report.peak_memory_bytes = peak_memory_bytes();
    Ok(report)
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

fn replace(
    lake: &Lake,
    name: &str,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    report: &mut Report,
) -> Result<()> {
    lake.probe()?;
    let _lock = lake.lock("_lock")?;
    let open = || lake.open_or_create_for_job(name, schema, &[]);
    // A table that is not the job's is refused before anything is written.
    open()?;
    let (place, run_id) = (lake.place.child(name), uuid::Uuid::now_v7().to_string());
    let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    let bytes = part::encode(schema, batches)?;
    let written = part::write(&place, &format!("part-{run_id}.parquet"), bytes, rows)?;
    let info = |table: &Table| CommitInfo::of_job(&run_id, table);
    report.table_version = lake.put_parts(&open, &[written.file(None)], &|_| true, &info)?;
    (report.run_id, report.outcome) = (run_id, RunOutcome::Published);
    report.published_table = Some((name.to_string(), rows));
    Ok(())
}

/// Counts the votes in the choices that the job names.
fn votes(spec: &Spec) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let categories = reference::categories(&spec.input)?;
    let table = spec.input.category_overrides.as_deref().unwrap_or_default();
    let mut choices = reference::choices(table, &categories, &reference::zone(spec))?;
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
    Ok((schema::crowd_votes(), vec![crowd::batch(&counted, &categories)?]))
}

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// The text of a job's question, and the file it stands in.
pub fn question(spec: &Spec) -> Result<(String, String)> {
    let file = spec.folder.join(spec.query.as_deref().unwrap_or_default());
    let shown = file.display().to_string();
    match files::read_text(&file) {
        Ok(sql) => Ok((sql, shown)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(Kind::NotFound, "there is no such query file").at(&shown))
        }
        Err(e) => Err(files::failure(e).at(&shown)),
    }
}

fn ask(spec: &Spec, lake: &Lake) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let (sql, _) = question(spec)?;
    let limits = &spec.limits;
    wait(async {
        let answer = answer(lake, Vec::new(), &sql, limits.memory.0.0 as usize, limits.threads).await?;
        let schema = publishable(&answer.schema);
        let batches: Vec<RecordBatch> =
            answer.rows.try_collect().await.map_err(crate::engine::sql::reading_failed)?;
        let recast = batches.iter().map(|batch| recast(batch, &schema)).collect::<Result<_>>()?;
        Ok((schema, recast))
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
