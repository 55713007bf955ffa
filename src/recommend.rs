//! Jobs that recommend budgets for the month to come.
//!
//! In: a job, the published months, incomes, what users have set. Out: the month's recommendations,
//! or how well such recommendations would have done in the past.
//! Invariant: a reader sees the month's recommendations as they were or as the job says, never half;
//! the same lake, tables and day give the same bytes.

use crate::domain::month::{Month, MonthRange, days_in_month};
use crate::domain::recommend::HISTORY_MONTHS_MAX;
use crate::domain::zone::Zone;
use crate::engine::active::active_users;
use crate::engine::ahead::Ahead;
use crate::engine::backtest::{Backtest, Score};
use crate::engine::local::Tuning;
use crate::engine::recommending::{RecommendRule, Recommending};
use crate::error::{Error, Kind, Result};
use crate::input::plan::LogObject;
use crate::input::published::{PartFile, Users, shares};
use crate::input::{plan, reference};
use crate::job::cli::ReportForm;
use crate::job::spec::Spec;
use crate::job::values::Day;
use crate::output::commit::CommitInfo;
use crate::output::lake::{Head, Lake};
use crate::output::recommendations;
use crate::output::table::Table;
use crate::report::{Report, RunOutcome, backtest_json, backtest_text, peak_memory_bytes};
use crate::schema;
use crate::table_job::table_name;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

/// How long ago a user may have been active last, the day of the job included.
const ACTIVE_DAYS: i64 = 30;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Computes the recommendations and replaces those of the same month.
pub fn publish(spec: &Spec) -> Result<Report> {
    let started = Instant::now();
    let lake = Lake::open(&spec.output.lake)?;
    let head = published(&lake, spec)?;
    let categories = reference::categories(&spec.input)?;
    let budgets = reference::budgets(spec, &categories)?;
    let day = as_of(spec, &head)?;
    let active = active(spec, &head, day)?;
    let month = day.month().plus(1).ok_or_else(|| Error::unfit("there is no month after the last one"))?;
    let rule = RecommendRule { month, categories: &categories, savings_millionths: spec.recommend.savings.0 };
    let recommending = Recommending {
        rule,
        window: complete_months(day).map(|month| head.month(month, &lake)).collect(),
        active: &active,
        budgets: &budgets,
    };
    lake.probe()?;
    let _lock = lake.lock("_lock")?;
    let mut report = Report { job: spec.name.clone(), ..Report::default() };
    replace(&lake, spec, &recommending, &mut report)?;
    report.seconds.total = started.elapsed().as_secs_f64();
    report.peak_memory_bytes = peak_memory_bytes();
    Ok(report)
}

/// Scores the rule on months that are over. Out: what goes to stdout.
pub fn backtest(spec: &Spec, months: MonthRange, form: ReportForm) -> Result<String> {
    let lake = Lake::open(&spec.output.lake)?;
    let head = published(&lake, spec)?;
    let categories = reference::categories(&spec.input)?;
    let budgets = reference::budgets(spec, &categories)?;
    let is_over = complete_months(as_of(spec, &head)?).last();
    let scored: Vec<Month> = head
        .months()
        .into_iter()
        .filter(|m| months.contains(*m) && is_over.is_some_and(|last| *m <= last))
        .collect();
    let (Some(first), Some(last)) = (scored.first().copied(), scored.last().copied()) else {
        let error = Error::new(Kind::NotFound, format!("no month of {months} is published and over"));
        return Err(error.at(&lake.place.shown));
    };
    let months = MonthRange { first, last };
    let published = head.months().into_iter().filter(|month| *month <= last);
    let published = published.map(|month| (month, head.month(month, &lake))).collect();
    let backtest = Backtest {
        months: scored,
        published,
        budgets: &budgets,
        categories: &categories,
        savings_millionths: spec.recommend.savings.0,
    };
    let begins = backtest.published.iter().flat_map(|(_, parts)| parts).map(|part| *part.users.start());
    let score = of_all(spec, shares(begins), &|_, users| backtest.of(&users))?;
    let score = score.iter().fold(Score::default(), |sum, more| sum.plus(more));
    Ok(match form {
        ReportForm::Json => backtest_json(&spec.name, months, &score),
        ReportForm::Human | ReportForm::SmallerIsBetter => backtest_text(&spec.name, months, &score),
    })
}

fn published(lake: &Lake, spec: &Spec) -> Result<Head> {
    let head = lake.head()?.filter(|head| !head.parts.is_empty()).ok_or_else(|| {
        let error = Error::new(Kind::NotFound, "there is no lake, or nothing was published to it");
        error.at(&lake.place.shown).advise("run the job of kind \"spending\" first")
    })?;
    head.fits(spec)?;
    Ok(head)
}

/// The job's day: the one it names, or else that of the last transaction that is counted.
fn as_of(spec: &Spec, head: &Head) -> Result<Day> {
    if let Some(day) = &spec.recommend.as_of {
        return Ok(day.0);
    }
    let month = head.last_month().ok_or_else(|| Error::invariant("a lake with parts has a month"))?;
    let Some(micros) = head.ledger.last_micros(month) else {
        let error = Error::unfit(
            "the lake does not know the day of its last transaction, since an earlier program counted it",
        );
        return Err(error.advise("name the day in `recommend.as_of`"));
    };
    Ok(Day::of(month, reference::zone(spec).day_of_month(month, micros.div_euclid(1_000_000))))
}

/// The months that are over by the end of a day, as far back as history goes, oldest first.
fn complete_months(day: Day) -> impl Iterator<Item = Month> {
    let month = day.month();
    let is_over = day.day_of_month() == days_in_month(month.year(), month.month_of_year());
    let behind = u32::from(!is_over);
    let ago = (behind..behind + HISTORY_MONTHS_MAX as u32).rev();
    ago.filter_map(move |ago| month.minus(ago))
}

/// The users who were active in the days before the end of the job's day.
fn active(spec: &Spec, head: &Head, day: Day) -> Result<Vec<u64>> {
    let zone = reference::zone(spec);
    let end = day.end_micros_in(&zone);
    let since = end - ACTIVE_DAYS * DAY_MICROS;
    if let Some(users) = &spec.input.users
        && let Some(active) = reference::active_users(spec, users, since)?
    {
        return Ok(active);
    }
    let objects = logs_of(spec, head, &zone, since..end)?;
    active_users(&objects, &(since..end), &zone, &Tuning::of(spec))
}

/// The logs that were counted for the months of some days.
fn logs_of(spec: &Spec, head: &Head, zone: &Zone, days: Range<i64>) -> Result<Vec<LogObject>> {
    let Some(logs) = &spec.input.logs else {
        let error = Error::unfit("nothing says who is active");
        return Err(error.advise(
            "name `input.users` with the column last_active_at, or `input.logs`, whose transactions tell",
        ));
    };
    let listing = plan::list(logs)?;
    // Before the job's first month nothing is counted.
    let first_micros = zone.first_instant_of(zone.months().first.first_day()) * 1_000_000;
    let edges = [days.start.max(first_micros), days.end - 1];
    let [Some(first), Some(last)] = edges.map(|micros| zone.month_index(micros.div_euclid(1_000_000))) else {
        return Err(Error::unfit("the job's day lies outside `input.months`"));
    };
    let mut objects = BTreeMap::new();
    // A month in which nothing was bought has no logs.
    for month in (first..=last).map(|index| zone.month(index)).filter(|m| !head.parts_of(*m).is_empty()) {
        let counted = plan::counted_for(month, &head.ledger, &listing.objects)?;
        objects.extend(counted.into_iter().map(|object| (object.name.clone(), object)));
    }
    Ok(objects.into_values().collect())
}

/// So many active users at once, at most.
const SHARE_USERS: usize = 32 * 1024;

/// Shares of users that begin with the parts of the months, and hold a bounded number of active ones.
fn shares_of(recommending: &Recommending) -> Vec<Users> {
    let parts = recommending.window.iter().flatten().map(|part| *part.users.start());
    shares(parts.chain(recommending.active.iter().copied().step_by(SHARE_USERS)))
}

/// Works on all shares of users, some at a time. Out: the results in the order of users.
fn of_all<T: Send>(
    spec: &Spec,
    shares: Vec<Users>,
    work: &(dyn Fn(usize, Users) -> Result<T> + Sync),
) -> Result<Vec<T>> {
    let pool = Tuning::of(spec).pool()?;
    let one = |(sequence, users)| work(sequence, users);
    pool.in_place_scope(|scope| {
        let most = pool.current_num_threads() + 1;
        let mut ahead = Ahead::new(scope, shares.into_iter().enumerate(), &one, most);
        let mut results = Vec::new();
        while let Some(result) = ahead.take_next() {
            results.push(result?);
        }
        Ok(results)
    })
}

fn replace(lake: &Lake, spec: &Spec, recommending: &Recommending, report: &mut Report) -> Result<()> {
    let (name, rule, run_id) = (table_name(spec), recommending.rule, uuid::Uuid::now_v7().to_string());
    let open = || lake.open_or_create_for_job(&name, &schema::budget_recommendations(), &["month"]);
    // A table that is not the job's is refused before anything is written.
    open()?;
    let (place, since) = (lake.place.child(&name), Instant::now());
    let write = |sequence, users| {
        let rows = recommending.of(&users)?;
        recommendations::write(&place, &run_id, rule.month, sequence, &rows, rule.categories)
    };
    let written = of_all(spec, shares_of(recommending), &write)?.into_iter().flatten();
    let add: Vec<PartFile> = written.map(|part| part.file(Some(rule.month))).collect();
    report.seconds.reduce = since.elapsed().as_secs_f64();
    let info = |table: &Table| CommitInfo::of_job(&run_id, table);
    let of_month = |part: &PartFile| part.month == Some(rule.month);
    report.table_version = lake.put_parts(&open, &add, &of_month, &info)?;
    (report.run_id, report.outcome) = (run_id, RunOutcome::Published);
    report.published_table = Some((name, add.iter().map(|part| part.rows).sum()));
    report.recommended_month = Some(rule.month.to_string());
    Ok(())
}

/// Whether a run would find what it needs; no log is read. Out: how many incomes and manual budgets
/// there are.
pub fn check(spec: &Spec, head: Option<&Head>) -> Result<(usize, usize)> {
    let categories = reference::categories(&spec.input)?;
    let counts = reference::budgets(spec, &categories)?.counts();
    let zone = reference::zone(spec);
    let users = spec.input.users.as_deref();
    let active = users.map_or(Ok(None), |users| reference::active_users(spec, users, 0))?;
    if let Some(head) = head.filter(|head| !head.parts.is_empty()) {
        head.fits(spec)?;
        let end = as_of(spec, head)?.end_micros_in(&zone);
        if active.is_none() {
            logs_of(spec, head, &zone, end - ACTIVE_DAYS * DAY_MICROS..end)?;
        }
    }
    Ok(counts)
}
