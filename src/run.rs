//! The story of a run.
//!
//! In: a job file and what was typed. Out: a report, and the exit code for cron.
//! Invariant: a run can be killed at any line and simply started again.

use crate::attempt::{Attempt, Ended, Recount, Wish};
use crate::bench;
use crate::deliver;
use crate::domain::month::Month;
use crate::engine::local::Tuning;
use crate::engine::read::{content, months_of};
use crate::error::{EXIT_NEEDS_A_LOOK, Error, Kind, Result, talk};
use crate::input::gaps::{Gap, gaps};
use crate::input::ledger::{Entry, Ledger};
use crate::input::plan::{self, CHANGED, Held, Listing, LogObject, Plan};
use crate::input::reference::{Reference, zone};
use crate::job::cli::{ReportForm, RunArgs};
use crate::job::spec::{JobKind, Spec};
use crate::limits::COMMIT_ATTEMPTS_MAX;
use crate::output::crowd;
use crate::output::lake::{Lake, Losses};
use crate::planted::Bug;
use crate::progress::Progress;
use crate::recommend;
use crate::report::{Report, RunOutcome, peak_memory_bytes, plan_json, plan_text};
use crate::table_job;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Runs a job. Out: what to print on stdout, and the exit code.
pub fn run(args: &RunArgs) -> Result<(String, u8)> {
    let spec = Spec::load(&args.job.job, &args.job.sets)?;
    if args.report == ReportForm::SmallerIsBetter && spec.kind != JobKind::Bench {
        let error = Error::unfit("--report smaller-is-better is for jobs of kind \"bench\"");
        return Err(error.advise("use --report json"));
    }
    if args.dry_run {
        return dry_run(&spec, args.report).map(|text| (text, 0));
    }
    let asked = Asked {
        rebuild: args.rebuild,
        restate: args.restate.clone(),
        allow_duplicate: args.allow_duplicate.clone(),
    };
    if spec.kind != JobKind::Spending && !asked.is_nothing() {
        let what = "--rebuild, --restate and --allow-duplicate are for jobs of kind \"spending\"";
        return Err(Error::unfit(what).advise("run this one again instead"));
    }
    if let Some(months) = args.backtest {
        if spec.kind != JobKind::Recommend {
            return Err(Error::unfit("--backtest is for jobs of kind \"recommend\""));
        }
        return recommend::backtest(&spec, months, args.report).map(|text| (text, 0));
    }
    let (report, code) = match spec.kind {
        JobKind::Spending => publish(&spec, &asked, &Tuning::of(&spec))?,
        JobKind::Recommend => (recommend::publish(&spec)?, 0),
        JobKind::Deliver => deliver::publish(&spec)?,
        JobKind::Sql | JobKind::Votes => (table_job::publish(&spec)?, 0),
        JobKind::Bench => {
            let publish =
                |job: &Spec| publish(job, &Asked::default(), &Tuning::of(job)).map(|(report, _)| report);
            return Ok((bench::run(&spec, &publish)?.print(args.report), 0));
        }
    };
    let text = match args.report {
        ReportForm::Human => report.to_text(),
        // The last form was refused above.
        ReportForm::Json | ReportForm::SmallerIsBetter => report.to_json(),
    };
    Ok((text, code))
}

/// What is asked of a run besides counting what is new.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// A month to be counted anew.
    pub rebuild: Option<Month>,
    /// Names of counted objects that are to be counted as they are now.
    pub restate: Vec<String>,
    /// Names of objects that may say the same as others.
    pub allow_duplicate: Vec<String>,
}

/// From the logs to the next version of the lake. `tuning` changes the time it takes, never a
/// byte of what is published.
pub fn publish(spec: &Spec, asked: &Asked, tuning: &Tuning) -> Result<(Report, u8)> {
    let started = Instant::now();
    let lake = Lake::open(&spec.output.lake)?;
    // Before the lake is touched: a job that names no logs leaves no trace.
    let listing = plan::list(spec.input.logs.as_deref().unwrap_or_default())?;
    let duplicates = plan::named(&asked.allow_duplicate, &listing.objects)?;
    lake.probe()?;
    let _lock = lake.lock("_lock")?;
    let mut report = Report { job: spec.name.clone(), ..Report::default() };
    report.inputs.objects = listing.objects.len() as u64;
    let mut reference = None;
    for attempt in 0..COMMIT_ATTEMPTS_MAX {
        pause_before(attempt);
        let head = lake.head_or_create()?;
        head.fits(spec)?;
        lake.fits(spec)?;
        follow(&lake, asked)?;
        report.table_version = head.table.version();
        let limit = spec.limits.rejects_max_ratio.0;
        let mut plan = Plan::new(listing.clone(), &head.ledger, limit, &duplicates);
        let recount = recount(asked, spec, &head.ledger, &listing, tuning)?;
        plan.leave_out(&recount.as_ref().map(|recount| recount.restated.clone()).unwrap_or_default());
        let refreshed = compare_touched(&mut plan, &head.ledger)?;
        let wish = recount.as_ref().map_or(Wish::Count(&plan.new), Wish::Recount);
        report.gaps = gaps_so_far(&listing, &head.ledger);
        report.hold(&plan.held);
        report.seconds.plan = started.elapsed().as_secs_f64();
        if matches!(wish, Wish::Count([])) {
            return Ok(finish(report, started));
        }
        let reference = match &reference {
            Some(reference) => reference,
            None => reference.insert(Reference::load(spec, crowd::read)?),
        };
        let progress = Progress::new(wish.objects().iter().map(|object| object.size_bytes).sum());
        let attempt = Attempt {
            spec,
            lake: &lake,
            head: &head,
            reference,
            tuning: *tuning,
            started,
            held: &plan.held,
            refreshed: &refreshed,
            duplicates: &duplicates,
            progress: &progress,
        };
        let ended = match attempt.run(&wish, &mut report) {
            // It stalled, others went on, and what it wrote was cleaned up meanwhile.
            Err(error) if error.kind == Kind::NotFound && lake.has_moved(&head)? => Ended::Lost,
            ended => ended?,
        };
        match ended {
            Ended::Lost => continue,
            Ended::AllHeld => return Ok(finish(report, started)),
            Ended::Published => {
                // The commit stands whatever comes now; the next run catches up what is left.
                if let Err(error) = lake.catch_up_with(asked.losses()) {
                    talk(format_args!(
                        "pennymill: published; the other tables follow with the next run: {error}"
                    ));
                }
                return Ok(finish(report, started));
            }
        }
    }
    let what = format!("another run took the version {COMMIT_ATTEMPTS_MAX} times");
    Err(Error::new(Kind::Temporary, what).at(&lake.place.shown).advise("run again"))
}

/// The other tables follow up to the head before its alerts are read, also after a lost race.
fn follow(lake: &Lake, asked: &Asked) -> Result<()> {
    if Bug::CatchUpSkipped.is_planted() { Ok(()) } else { lake.catch_up_with(asked.losses()) }
}

impl Asked {
    /// Counting months anew is the way out where parts of them are lost.
    fn losses(&self) -> Losses {
        let is_recount = self.rebuild.is_some() || !self.restate.is_empty();
        if is_recount { Losses::Accepted } else { Losses::Refused }
    }

    fn is_nothing(&self) -> bool {
        self.rebuild.is_none() && self.restate.is_empty() && self.allow_duplicate.is_empty()
    }
}

/// The months to count anew and what they are counted from, if that was asked for.
fn recount(
    asked: &Asked,
    spec: &Spec,
    ledger: &Ledger,
    listing: &Listing,
    tuning: &Tuning,
) -> Result<Option<Recount>> {
    let restated = plan::named(&asked.restate, &listing.objects)?;
    if let Some(name) = restated.iter().find(|name| !ledger.is_counted(name)) {
        let error = Error::new(Kind::NotFound, "it is not counted, so there is nothing to restate").at(name);
        return Err(error.advise("run without --restate, which counts it"));
    }
    let now: Vec<LogObject> =
        listing.objects.iter().filter(|object| restated.contains(&object.name)).cloned().collect();
    let mut months = months_of(&now, &zone(spec), tuning)?;
    months.extend(restated.iter().flat_map(|name| &ledger.entries[name].months).map(|m| m.month));
    months.extend(asked.rebuild);
    if months.is_empty() && restated.is_empty() {
        return Ok(None);
    }
    let objects = plan::recounted_for(&months, &restated, ledger, &listing.objects)?;
    Ok(Some(Recount { months, objects, restated }))
}

/// Gaps among all that is listed or was ever counted.
fn gaps_so_far(listing: &Listing, ledger: &Ledger) -> Vec<Gap> {
    let names = listing.objects.iter().map(|object| &object.name).chain(ledger.entries.keys());
    gaps(names.map(|name| (name.as_str(), None)), &BTreeSet::new())
}

fn finish(mut report: Report, started: Instant) -> (Report, u8) {
    report.seconds.total = started.elapsed().as_secs_f64();
    report.peak_memory_bytes = peak_memory_bytes();
    let code = match report.outcome {
        RunOutcome::Held => Kind::InputRefused.exit_code(),
        _ if report.inputs.held > 0 && !Bug::HeldIsFine.is_planted() => EXIT_NEEDS_A_LOOK,
        _ => 0,
    };
    (report, code)
}

fn dry_run(spec: &Spec, form: ReportForm) -> Result<String> {
    if spec.kind == JobKind::Bench {
        return bench::plan(spec, form);
    }
    if spec.kind == JobKind::Deliver {
        return deliver::plan(spec);
    }
    let lake = Lake::open(&spec.output.lake)?;
    if spec.kind != JobKind::Spending {
        let table = table_job::table_name(spec);
        return Ok(match form {
            ReportForm::Human => {
                format!("{}: plan; nothing was written\n  table      {table} to be replaced\n", spec.name)
            }
            ReportForm::Json | ReportForm::SmallerIsBetter => {
                serde_json::json!({"job": spec.name, "outcome": "planned", "table": table}).to_string() + "\n"
            }
        });
    }
    let listing = plan::list(spec.input.logs.as_deref().unwrap_or_default())?;
    let head = lake.head()?;
    let ledger = head.as_ref().map(|head| head.ledger.clone()).unwrap_or_default();
    let plan = Plan::new(listing, &ledger, spec.limits.rejects_max_ratio.0, &BTreeSet::new());
    let months = months_of(&plan.new, &zone(spec), &Tuning::of(spec))?;
    let parts = |month: &Month| head.as_ref().map_or(0, |head| head.parts_of(*month).len());
    let months: Vec<(String, usize)> = months.iter().map(|m| (m.to_string(), parts(m))).collect();
    Ok(match form {
        ReportForm::Human => plan_text(&spec.name, &plan, &months),
        ReportForm::Json | ReportForm::SmallerIsBetter => plan_json(&spec.name, &plan, &months),
    })
}

/// Objects that were touched since they were counted: those that say the same stay counted, under
/// their new etag; the others are held.
fn compare_touched(plan: &mut Plan, ledger: &Ledger) -> Result<Ledger> {
    let mut refreshed = Ledger::default();
    for object in std::mem::take(&mut plan.touched) {
        let entry = &ledger.entries[&object.name];
        match content(&object)? {
            Ok(content)
                if content.to_string() == entry.content_hash || Bug::ChangeOverlooked.is_planted() =>
            {
                let entry = Entry { etag: object.version.clone(), ..entry.clone() };
                refreshed.entries.insert(object.name.clone(), entry);
            }
            _ => plan.held.push(Held { name: object.name.clone(), reason: CHANGED.into() }),
        }
    }
    Ok(refreshed)
}

/// Losers of a race wait a little, each another time.
fn pause_before(attempt: u32) {
    if attempt > 0 {
        let jitter = u64::from(uuid::Uuid::now_v7().as_bytes()[15]);
        std::thread::sleep(Duration::from_millis(u64::from(attempt) * 100 + jitter));
    }
}
