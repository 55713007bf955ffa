//! Why: every transaction behind a monthly amount, every budget of a month, or how a seller is
//! understood.
//!
//! In: a user and a month of a lake, or a seller. Out: rows with the place, the layer and the entry
//! that decided; budgets and what was said of them; or the steps, the candidates and the decision.
//! Invariant: the rows add up to the published cents, or the difference is said and the exit code
//! tells; nothing is written.

mod budgets;

use crate::domain::money::format_cents;
use crate::domain::month::Month;
use crate::engine::local::Tuning;
use crate::engine::of_user::{self, Wanted};
use crate::engine::rows::columns;
use crate::engine::sql::{Bounds, Question, reading_failed, within};
use crate::error::{EXIT_NEEDS_A_LOOK, Error, Kind, Result, talk};
use crate::input::plan;
use crate::input::reference::{Reference, zone};
use crate::job::cli::{ExplainArgs, QueryFormat};
use crate::job::sections::Limits;
use crate::job::spec::{JobKind, Spec};
use crate::kernel::categorize::{Candidate, Categorizer};
use crate::kernel::descriptor::steps;
use crate::output::crowd;
use crate::output::lake::{Head, Lake, TRANSACTIONS};
use crate::query::{Sources, answer, write_batch};
use crate::report::printable;
use crate::schema;
use arrow::array::{ArrayRef, AsArray, Date32Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Decimal128Type, Int64Type};
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Cents and transactions by category.
type Sums = BTreeMap<String, (i128, i64)>;

/// A user, a month, and a category if only one is asked for.
struct OfUser {
    user_id: u64,
    month: Month,
    category: Option<String>,
    /// The version of the lake; none is the newest.
    as_of: Option<u64>,
}

/// Explains what was asked for. Out: what goes to stdout, and the exit code.
pub fn run(args: &ExplainArgs) -> Result<(String, u8)> {
    match (&args.seller, args.user, args.month) {
        (Some(seller), ..) => explain_seller(seller, args).map(|text| (text, 0)),
        (None, Some(user_id), Some(month)) => {
            let (category, as_of) = (args.category.clone(), args.as_of);
            explain_month(&OfUser { user_id, month, category, as_of }, args)
        }
        _ => Err(Error::unfit("explain needs --user and --month, or --seller")),
    }
}

fn explain_seller(seller: &str, args: &ExplainArgs) -> Result<String> {
    let spec = args.layers.spec()?;
    let reference = Reference::load(&spec, crowd::read)?;
    let categorizer = Categorizer::of(&reference)?;
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = write_seller(&mut page, seller, &categorizer, &reference);
    Ok(page)
}

fn write_seller(
    page: &mut String,
    seller: &str,
    categorizer: &Categorizer,
    reference: &Reference,
) -> std::fmt::Result {
    writeln!(page, "printed      {}", printable(seller))?;
    for (step, text) in steps(seller) {
        writeln!(page, "  {step:<28} {text}")?;
    }
    let candidates = categorizer.candidates(seller);
    for candidate in &candidates {
        let code = reference.categories.code(candidate.category);
        let (layer, entry) = (candidate.source.name(), printable(&candidate.entry));
        writeln!(page, "candidate    {code} by {layer} `{entry}`: {}", candidate.how)?;
    }
    let code = |candidate: &Candidate| reference.categories.code(candidate.category);
    for rule in candidates.iter().filter(|candidate| candidate.conditional) {
        writeln!(
            page,
            "decision     {} for the amounts that the rule `{}` asks for, else",
            code(rule),
            rule.entry
        )?;
    }
    match candidates.iter().find(|candidate| !candidate.conditional) {
        Some(first) => {
            let (code, layer) = (code(first), first.source.name());
            writeln!(page, "decision     {code} by {layer}, unless the user chose otherwise")
        }
        None => writeln!(page, "decision     uncategorized: no layer knows it"),
    }
}

fn explain_month(question: &OfUser, args: &ExplainArgs) -> Result<(String, u8)> {
    let spec = args.layers.job_spec()?;
    let lake = match (&args.lake, &spec) {
        (Some(lake), _) => Lake::open(lake)?,
        (None, Some(spec)) => Lake::open(&spec.output.lake)?,
        (None, None) => return Err(Error::unfit("neither --lake nor --job names a lake")),
    };
    let head = lake.published_head(args.as_of)?;
    if let Some(spec) = &spec {
        head.fits(spec)?;
    }
    if args.budgets {
        let spec = spec.map_or_else(|| last_job(&lake, &head), Ok)?;
        let rows = budgets::rows(&lake, &head, &spec, question.user_id, question.month)?;
        return Ok((write_batch(rows, args.format)?, 0));
    }
    let published = published(&lake, question)?;
    let mut rows = published_transactions(&lake, question)?;
    if rows.as_ref().is_none_or(|rows| sums(rows) != published) {
        let spec = spec.map_or_else(|| last_job(&lake, &head).map(|spec| args.layers.apply(spec)), Ok)?;
        if spec.kind != JobKind::Spending {
            return Err(Error::unfit("explain needs a job of kind \"spending\""));
        }
        rows = Some(raw_transactions(&spec, &head, question)?);
    }
    let rows = rows.expect("there is an answer by now");
    let found = sums(&rows);
    let text = write_rows(rows, args.format)?;
    let verdict = verdict(question, &published, &found);
    let code = if found == published { 0 } else { EXIT_NEEDS_A_LOOK };
    if args.format == QueryFormat::Table {
        return Ok((text + &verdict, code));
    }
    verdict.lines().for_each(talk);
    Ok((text, code))
}

/// The job of the newest run, as its manifest tells it.
fn last_job(lake: &Lake, head: &Head) -> Result<Spec> {
    let manifest = lake.newest_manifest(&head.table)?;
    let spec = manifest.and_then(|manifest| serde_json::from_str::<Spec>(&manifest.job_spec).ok());
    let spec = spec.filter(|spec| spec.kind == JobKind::Spending);
    spec.ok_or_else(|| {
        let error = Error::new(Kind::NotFound, "no run of the lake says which logs it read");
        error.at(&lake.place.shown).advise("name its job with --job")
    })
}

fn select(lake: &Lake, sql: &str, as_of: Option<u64>) -> Result<Vec<RecordBatch>> {
    let question = Question::parse(sql)?;
    let sources = Sources { as_of, ..Sources::default() };
    let bounds = Bounds::of(&Limits::default());
    within(&bounds, async || {
        let answer = answer(lake, question, sources, &bounds).await?;
        answer.rows.rows.try_collect().await.map_err(reading_failed)
    })
}

fn condition(question: &OfUser) -> String {
    let OfUser { user_id, month, category, .. } = question;
    // Only a name within quotes could say anything else than it should.
    let category = category.as_ref().map(|code| format!(" and category = '{}'", code.replace('\'', "''")));
    format!("month = date '{month}-01' and user_id = {user_id}{}", category.unwrap_or_default())
}

fn published(lake: &Lake, question: &OfUser) -> Result<Sums> {
    let sql = format!(
        "select category, amount, transaction_count from monthly_spending where {}",
        condition(question)
    );
    let mut published = Sums::new();
    for batch in select(lake, &sql, question.as_of)? {
        let categories = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8);
        let categories = categories.map_err(|e| Error::invariant(e.to_string()))?;
        let amounts = batch.column(1).as_primitive::<Decimal128Type>();
        let counts = batch.column(2).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let category = categories.as_string::<i32>().value(row).to_string();
            published.insert(category, (amounts.value(row), counts.value(row)));
        }
    }
    if published.is_empty() {
        let OfUser { user_id, month, category, .. } = question;
        let category = category.as_ref().map_or(String::new(), |code| format!(" under {code}"));
        let what = format!("nothing is published for user {user_id} in {month}{category}");
        return Err(Error::new(Kind::NotFound, what).at(&lake.place.shown));
    }
    Ok(published)
}

/// What the published table of transactions says, where there is one.
fn published_transactions(lake: &Lake, question: &OfUser) -> Result<Option<RecordBatch>> {
    if lake.table(TRANSACTIONS)?.is_none() {
        return Ok(None);
    }
    let schema = schema::transactions();
    let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    let sql = format!(
        "select {} from transactions where {} order by source_object, line",
        names.join(", "),
        condition(question)
    );
    let broken = |e: arrow::error::ArrowError| Error::invariant(format!("transactions are no table: {e}"));
    let mut rows = Vec::new();
    for batch in select(lake, &sql, question.as_of)? {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()));
        let columns = columns.collect::<Result<_, _>>().map_err(broken)?;
        rows.push(RecordBatch::try_new(schema.clone(), columns).map_err(broken)?);
    }
    concat_batches(&schema, &rows).map(Some).map_err(broken)
}

/// What the raw logs say that were counted for the month, by the layers of the job.
fn raw_transactions(spec: &Spec, head: &Head, question: &OfUser) -> Result<RecordBatch> {
    let reference = Reference::load(spec, crowd::read)?;
    let categorizer = Categorizer::of(&reference)?;
    let listing = plan::list(spec.input.logs.as_deref().unwrap_or_default())?;
    let objects = plan::counted_for(question.month, &head.ledger, &listing.objects)?;
    let zone = zone(spec);
    let wanted =
        Wanted { user_id: question.user_id, month: question.month, zone: &zone, categorizer: &categorizer };
    let by_object = of_user::rows(&objects, &wanted, &Tuning::of(spec))?;
    let broken = |e: arrow::error::ArrowError| Error::invariant(format!("transactions are no table: {e}"));
    let mut batches = Vec::new();
    for (object, rows) in objects.iter().zip(by_object) {
        let month: ArrayRef = Arc::new(Date32Array::from_value(question.month.first_day(), rows.len()));
        let rest = columns(&rows, &reference.categories, &categorizer, &object.name);
        let columns = [month].into_iter().chain(rest).collect();
        batches.push(RecordBatch::try_new(schema::transactions(), columns).map_err(broken)?);
    }
    let rows = concat_batches(&schema::transactions(), &batches).map_err(broken)?;
    match &question.category {
        None => Ok(rows),
        Some(code) => {
            let categories = text(&rows, "category").iter();
            let wanted = categories.map(|category| Some(category == Some(code.as_str()))).collect();
            filter_record_batch(&rows, &wanted).map_err(broken)
        }
    }
}

fn text<'r>(rows: &'r RecordBatch, column: &str) -> &'r arrow::array::StringArray {
    rows.column_by_name(column).expect("a column of the table").as_string::<i32>()
}

fn sums(rows: &RecordBatch) -> Sums {
    let categories = text(rows, "category");
    let amounts = rows.column_by_name("amount").expect("a column of the table");
    let amounts = amounts.as_primitive::<Decimal128Type>();
    let mut sums = Sums::new();
    for row in 0..rows.num_rows() {
        let sum = sums.entry(categories.value(row).to_string()).or_default();
        *sum = (sum.0 + amounts.value(row), sum.1 + 1);
    }
    sums
}

/// Most telling columns first; who and when was asked for.
const SHOWN: [&str; 8] =
    ["category", "amount", "occurred_at", "seller", "category_source", "matched", "source_object", "line"];

fn write_rows(rows: RecordBatch, wanted: QueryFormat) -> Result<String> {
    let shown = SHOWN.map(|name| rows.schema().index_of(name).expect("a column of the table"));
    write_batch(rows.project(&shown).map_err(|e| Error::invariant(e.to_string()))?, wanted)
}

/// A line per category: what the rows add up to, and what is published.
fn verdict(question: &OfUser, published: &Sums, found: &Sums) -> String {
    let mut verdict = String::new();
    let all: std::collections::BTreeSet<&String> = published.keys().chain(found.keys()).collect();
    for category in all {
        let of = |sums: &Sums| sums.get(category).copied().unwrap_or_default();
        let ((cents, count), (shown_cents, shown_count)) = (of(found), of(published));
        let (found, shown) = (format_cents(cents), format_cents(shown_cents));
        let said = match (cents, count) == (shown_cents, shown_count) {
            true => "as published".to_string(),
            false => format!("but {shown} in {shown_count} transactions are published"),
        };
        let _ = writeln!(verdict, "{category}: {found} in {count} transactions, {said}");
    }
    if published != found {
        let month = question.month;
        let _ = writeln!(
            verdict,
            "the reference tables or the logs say something else than when the month was counted; \
             `pennymill run JOB --rebuild {month}` makes them agree, or says what is wrong"
        );
    }
    verdict
}
