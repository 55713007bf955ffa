//! Benchmark runs: one command that generates data, runs the job and reports times.
//!
//! In: a job of kind `bench`, and a function that publishes a job. Out: the time of each stage.
//! Invariant: every run starts from an empty lake and must count exactly the generated rows,
//! otherwise no report is made; all files are in a temporary folder that is removed at the end.

mod report;

pub use report::BenchReport;

use crate::error::{Error, Result};
use crate::generate::{self, Compression, Generated, Options};
use crate::job::cli::ReportForm;
use crate::job::sections::{Input, Output};
use crate::job::spec::{JobKind, Spec};
use crate::job::values::{Compress, OneOrMore};
use crate::report::{Report, RunOutcome, forget_peak_memory, grouped};
use std::path::Path;

/// Publishes a job of kind `spending`. Passed in, since `run` is a module below this one.
pub type Publish<'a> = &'a dyn Fn(&Spec) -> Result<Report>;

/// The place of invalid generator options in errors.
const SECTION: &str = "[bench]";

/// Generates the data, runs the job once to warm up, then as often as the job specifies.
pub fn run(spec: &Spec, publish: Publish) -> Result<BenchReport> {
    let folder = tempfile::Builder::new().prefix("pennymill-bench-").tempdir();
    let folder = folder.map_err(Error::temporary_folder)?;
    let (data, lake) = (folder.path().join("made"), folder.path().join("lake"));
    let made = generate::generate(&options(spec, &data)).map_err(|e| e.at(SECTION))?;
    let job = spending(spec, &data, &lake);
    run_once(&job, &made, publish)?;
    forget_peak_memory();
    let runs = (0..spec.bench.runs).map(|_| run_once(&job, &made, publish));
    BenchReport::new(spec, &made, &data, &runs.collect::<Result<Vec<_>>>()?)
}

/// The generator options of a job of kind `bench`, with output into the folder `out`.
pub fn options(spec: &Spec, out: &Path) -> Options {
    let bench = &spec.bench;
    Options {
        rows: bench.rows,
        users: bench.users,
        sellers: bench.sellers,
        months: bench.months.0.0,
        files: bench.files,
        seed: bench.seed,
        out: out.to_path_buf(),
        compress: bench.compress.map(|form| match form {
            Compress::Gz => Compression::Gzip,
            Compress::Zst => Compression::Zstd,
        }),
        reject_ratio: 0.0,
        reference_ratio: 0.0,
    }
}

/// The job of kind `spending` over the data generated into the folder `data`.
pub fn spending(spec: &Spec, data: &Path, lake: &Path) -> Spec {
    let made = |name: &str| data.join(name).display().to_string();
    let input = Input {
        logs: Some(made("logs/")),
        sellers: OneOrMore(vec![made("sellers.csv")]),
        category_overrides: Some(made("category_overrides.csv")),
        users: Some(made("users.csv")),
        budget_template: Some(made("budget_template.toml")),
        budget_overrides: Some(made("budget_overrides.csv")),
        time_zone: spec.input.time_zone.clone(),
        ..Input::default()
    };
    let transactions = spec.output.transactions;
    let output = Output { lake: lake.display().to_string(), table: None, transactions };
    Spec { kind: JobKind::Spending, input, output, ..spec.clone() }
}

/// Publishes into a lake that does not exist yet, and removes it afterwards.
fn run_once(job: &Spec, made: &Generated, publish: Publish) -> Result<Report> {
    let report = publish(job)?;
    hold_to_generated(&report, made)?;
    let lake = &job.output.lake;
    std::fs::remove_dir_all(lake).map_err(|e| Error::from(e).at(lake))?;
    Ok(report)
}

/// Errors: the run read or published other totals than were generated.
fn hold_to_generated(report: &Report, made: &Generated) -> Result<()> {
    let rows = made.rows - made.bad_rows;
    let read = (report.rows.read, report.rows.accepted, i128::from(report.amount_cents.net));
    let months = report.months.iter();
    let published =
        months.fold((0, 0), |(rows, cents), month| (rows + month.rows, cents + i128::from(month.net_cents)));
    let holds = report.outcome == RunOutcome::Published
        && read == (made.rows, rows, made.net_cents())
        && published == (rows, made.net_cents());
    match holds {
        true => Ok(()),
        false => Err(Error::invariant(format!(
            "{rows} rows of {} cents net were generated; of {} lines read, {} of {} cents were accepted; \
             {} of {} cents were published",
            made.net_cents(),
            read.0,
            read.1,
            read.2,
            published.0,
            published.1
        ))),
    }
}

/// The output of `--dry-run`.
pub fn plan(spec: &Spec, form: ReportForm) -> Result<String> {
    generate::check(&options(spec, Path::new(""))).map_err(|e| e.at(SECTION))?;
    Ok(match form {
        ReportForm::Human => format!("{}: plan; nothing was written\n{}", spec.name, wish(spec)),
        ReportForm::Json | ReportForm::SmallerIsBetter => {
            serde_json::json!({"job": spec.name, "outcome": "planned", "bench": spec.bench}).to_string()
                + "\n"
        }
    })
}

/// Checks that the job can run. Errors: options that no data can be generated from.
pub fn check(spec: &Spec) -> Result<String> {
    generate::check(&options(spec, Path::new(""))).map_err(|e| e.at(SECTION))?;
    Ok(format!("{}: fit to run\n{}", spec.name, wish(spec)))
}

/// What will be generated and run, one item per line.
fn wish(spec: &Spec) -> String {
    let bench = &spec.bench;
    format!(
        "  generate   {} rows of {} users and {} sellers in {} logs, months {}, seed {}\n  \
         runs       1 to warm up, {} that are timed\n",
        grouped(bench.rows),
        grouped(bench.users),
        grouped(bench.sellers.into()),
        bench.files,
        bench.months.0,
        bench.seed,
        bench.runs
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::manifest::MonthRecord;

    fn made() -> Generated {
        Generated {
            rows: 10,
            bad_rows: 0,
            rejects: Vec::new(),
            positive_cents: 500,
            negative_cents: -120,
            logs: Vec::new(),
            tables: Vec::new(),
        }
    }

    fn report() -> Report {
        let mut report = Report { outcome: RunOutcome::Published, ..Report::default() };
        (report.rows.read, report.rows.accepted, report.amount_cents.net) = (10, 10, 380);
        report.months =
            vec![MonthRecord { month: "2025-01".into(), rows: 10, users: 2, groups: 3, net_cents: 380 }];
        report
    }

    #[test]
    fn totals_that_differ_from_the_generated_ones_are_an_invariant_error() {
        assert!(hold_to_generated(&report(), &made()).is_ok());
        let changes: [fn(&mut Report); 6] = [
            |report| report.rows.read = 11,
            |report| report.rows.accepted = 9,
            |report| report.amount_cents.net = 379,
            |report| report.months[0].net_cents = 381,
            |report| report.months[0].rows = 9,
            |report| report.outcome = RunOutcome::Held,
        ];
        for change in changes {
            let mut report = report();
            change(&mut report);
            let error = hold_to_generated(&report, &made()).unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::Invariant);
            assert!(error.to_string().starts_with("10 rows of 380 cents net were generated"), "{error}");
        }
    }
}
