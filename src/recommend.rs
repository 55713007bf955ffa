//! Jobs that recommend budgets for the month to come.
//!
//! In: a job, the published months, incomes, what users have set. Out: the month's recommendations,
//! or how well such recommendations would have done in the past.
//! Invariant: a reader sees the month's recommendations as they were or as the job says, never half;
//! the same lake, tables and day give the same bytes.

use crate::domain::month::{Month, MonthRange, days_in_month};
use crate::domain::recommend::HISTORY_MONTHS_MAX;
use crate::engine::active::active_users;
use crate::engine::ahead::Ahead;
use crate::engine::backtest::{Backtest, Score};
use crate::engine::local::Tuning;
use crate::engine::recommending::Recommending;
use crate::error::{Error, Kind, Result};
use crate::input::published::{PartFile, PublishedPart, Users, shares};
use crate::input::{plan, reference};
use crate::job::cli::ReportForm;
use crate::job::spec::Spec;
use crate::job::values::Day;
use crate::limits::COMMIT_ATTEMPTS_MAX;
use crate::output::commit::{CommitInfo, Outcome};
use crate::output::lake::{APPLICATION, Head, Lake, MONTHLY_SPENDING};
use crate::output::recommendations;
use crate::report::{Report, RunOutcome, backtest_json, backtest_text, peak_memory_bytes};
use crate::schema;
use crate::store::wait;
use crate::table_job::table_name;
use std::collections::BTreeMap;
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
    let budgets = reference::budgets(&spec.input, &categories)?;
    let day = as_of(spec, &head)?;
    let active = active(spec, &head, day)?;
    let month = day.month().plus(1).ok_or_else(|| Error::unfit("there is no month after the last one"))?;
    let window: Vec<Month> = complete_months(day).collect();
    let recommending = Recommending {
        month,
        window: window.iter().map(|month| parts(&lake, &head, *month)).collect(),
        active: &active,
        budgets: &budgets,
        categories: &categories,
        savings_millionths: spec.recommend.savings.0,
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
    let budgets = reference::budgets(&spec.input, &categories)?;
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
    let published = published.map(|month| (month, parts(&lake, &head, month))).collect();
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
        ReportForm::Json => backtest_json(&spec.name, months, &score) + "\n",
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

fn parts(lake: &Lake, head: &Head, month: Month) -> Vec<PublishedPart> {
    let table = lake.place.child(MONTHLY_SPENDING);
    head.parts_of(month).iter().map(|file| PublishedPart::new(month, file, &table)).collect()
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
        && let Some(active) = reference::active_users(users, since, &zone)?
    {
        return Ok(active);
    }
    let Some(logs) = &spec.input.logs else {
        let error = Error::unfit("nothing says who is active");
        return Err(error.advise(
            "name `input.users` with the column last_active_at, or `input.logs`, whose transactions tell",
        ));
    };
    let listing = plan::list(logs)?;
    // Before the job's first month nothing is counted.
    let first_micros = zone.first_instant_of(zone.months().first.first_day()) * 1_000_000;
    let days = since.max(first_micros)..end;
    let months = [days.start, end - 1].map(|micros| zone.month_index(micros.div_euclid(1_000_000)));
    let [Some(first), Some(last)] = months else {
        return Err(Error::unfit("the job's day lies outside `input.months`"));
    };
    let mut objects = BTreeMap::new();
    for index in first..=last {
        let month = zone.month(index);
        // A month in which nothing was bought has no logs.
        if head.parts_of(month).is_empty() {
            continue;
        }
        let counted = plan::counted_for(month, &head.ledger, &listing.objects)?;
        objects.extend(counted.into_iter().map(|object| (object.name.clone(), object)));
    }
    let objects: Vec<_> = objects.into_values().collect();
    active_users(&objects, &days, &zone, &Tuning::of(spec))
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
    let (name, month) = (table_name(spec), recommending.month);
    let place = lake.place.child(&name);
    for _ in 0..COMMIT_ATTEMPTS_MAX {
        let run_id = uuid::Uuid::now_v7().to_string();
        let table = lake.open_or_create_for_job(&name, &schema::budget_recommendations(), &["month"])?;
        let since = Instant::now();
        let write = |sequence, users| {
            let rows = recommending.of(&users)?;
            recommendations::write(&place, &run_id, month, sequence, &rows, recommending.categories)
        };
        let written = of_all(spec, shares_of(recommending), &write)?;
        let add: Vec<PartFile> = written.into_iter().flatten().map(|part| part.file(Some(month))).collect();
        report.seconds.reduce = since.elapsed().as_secs_f64();
        let mut remove = table.files()?;
        remove.retain(|part| part.month == Some(month));
        let rows = add.iter().map(|part| part.rows).sum();
        let info = CommitInfo {
            run_id: run_id.clone(),
            application: APPLICATION.to_string(),
            application_version: table.version() as i64 + 1,
            metadata: BTreeMap::new(),
        };
        if let Outcome::Committed { version } = wait(table.commit(&add, &remove, &info))? {
            (report.run_id, report.outcome) = (run_id, RunOutcome::Published);
            report.table_version = version;
            report.published_table = Some((name, rows));
            report.recommended_month = Some(month.to_string());
            return Ok(());
        }
    }
    let what = format!("another run took the version {COMMIT_ATTEMPTS_MAX} times");
    Err(Error::new(Kind::Temporary, what).at(&name).advise("run again"))
}

/// Whether a run would find what it needs. Out: how many incomes and manual budgets there are.
pub fn check(spec: &Spec, head: Option<&Head>) -> Result<(usize, usize)> {
    let categories = reference::categories(&spec.input)?;
    let counts = reference::budgets(&spec.input, &categories)?.counts();
    if let Some(head) = head.filter(|head| !head.parts.is_empty()) {
        head.fits(spec)?;
        active(spec, head, as_of(spec, head)?)?;
    }
    Ok(counts)
}
