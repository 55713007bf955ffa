//! The report of a benchmark, in three forms.
//!
//! In: the reports of its runs. Out: a table for people, one JSON object, or the list read by chart
//! tools.
//! Invariant: keys and the order of the stages are fixed; keys may be added, but none is renamed or
//! removed.

use crate::engine::format::to_line;
use crate::error::Result;
use crate::files;
use crate::generate::Generated;
use crate::job::cli::ReportForm;
use crate::job::spec::Spec;
use crate::job::values::Compress;
use crate::report::{Report, Seconds, grouped, proc_bytes, size};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;

#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    pub job: String,
    pub version: &'static str,
    pub input: BenchInput,
    pub machine: Machine,
    /// The number of timed runs.
    pub runs: u32,
    pub stages: Vec<Stage>,
    /// The maximum over the timed runs.
    pub peak_memory_bytes: u64,
}

/// What was generated. Reports with the same `sha256` are comparable.
#[derive(Clone, Debug, Serialize)]
pub struct BenchInput {
    pub rows: u64,
    /// The size of all logs on disk.
    pub bytes: u64,
    pub users: u64,
    pub sellers: u32,
    pub months: String,
    pub files: u32,
    pub seed: u64,
    pub compress: Option<Compress>,
    /// Of all logs, concatenated in the order of their names.
    pub sha256: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// `None` if the system does not report it.
    pub cpu: Option<String>,
    /// The number of workers of a run.
    pub threads: usize,
    pub memory_bytes: Option<u64>,
}

/// The time of a stage; rates are computed from the median.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    pub name: &'static str,
    pub seconds: Spread,
    pub ns_per_row: f64,
    pub rows_per_second: f64,
    pub bytes_per_second: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// An entry of `customSmallerIsBetter`, a format of github-action-benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    pub extra: String,
}

/// Selects the seconds of a stage of a run.
type SecondsOf = fn(&Seconds) -> f64;

/// In the order of a run. The total exceeds the sum of the others, since reference tables are read
/// between them.
const STAGES: [(&str, SecondsOf); 6] = [
    ("plan", |seconds| seconds.plan),
    ("map", |seconds| seconds.map),
    ("reduce", |seconds| seconds.reduce),
    ("alerts", |seconds| seconds.alerts),
    ("publish", |seconds| seconds.publish),
    ("total", |seconds| seconds.total),
];

impl BenchReport {
    /// Summarises the timed runs, of which there is at least one, over the data in `data`.
    pub fn new(spec: &Spec, made: &Generated, data: &Path, runs: &[Report]) -> Result<BenchReport> {
        let (rows, bytes) = (made.rows, made.log_bytes());
        let stages = STAGES.into_iter().map(|(name, seconds_of)| {
            let seconds = runs.iter().map(|run| seconds_of(&run.seconds)).collect();
            Stage::new(name, Spread::of(seconds), rows, bytes)
        });
        let bench = &spec.bench;
        Ok(BenchReport {
            job: spec.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            input: BenchInput {
                rows,
                bytes,
                users: bench.users,
                sellers: bench.sellers,
                months: bench.months.0.to_string(),
                files: bench.files,
                seed: bench.seed,
                compress: bench.compress,
                sha256: sha256_of_logs(made, data)?,
            },
            machine: Machine::of(spec),
            runs: bench.runs,
            stages: stages.collect(),
            peak_memory_bytes: runs.iter().map(|run| run.peak_memory_bytes).max().unwrap_or(0),
        })
    }

    /// The output on stdout.
    pub fn print(&self, form: ReportForm) -> String {
        match form {
            ReportForm::Human => {
                let mut page = String::new();
                // Writing to a string cannot fail.
                let _ = self.write_page(&mut page);
                page
            }
            ReportForm::Json => to_line(self),
            ReportForm::SmallerIsBetter => to_line(&self.measures()),
        }
    }

    fn write_page(&self, page: &mut String) -> std::fmt::Result {
        let BenchInput { rows, bytes, files, seed, .. } = &self.input;
        let (rows, bytes) = (grouped(*rows), size(*bytes));
        writeln!(
            page,
            "{}: {} runs over {rows} rows, {bytes} in {files} logs, seed {seed}",
            self.job, self.runs
        )?;
        let Machine { cpu, threads, memory_bytes } = &self.machine;
        let cpu = cpu.as_deref().unwrap_or("unknown processor");
        let memory = memory_bytes.map_or("unknown".to_string(), size);
        writeln!(page, "  machine    {cpu}; {threads} threads, {memory} of memory")?;
        writeln!(
            page,
            "  stage    {:>10} {:>10} {:>10} {:>10} {:>14} {:>10}",
            "median s", "min s", "max s", "ns/row", "rows/s", "MiB/s"
        )?;
        for Stage { name, seconds, ns_per_row, rows_per_second, bytes_per_second } in &self.stages {
            let Spread { median, min, max } = seconds;
            let (rows, mebibytes) = (grouped(*rows_per_second as u64), bytes_per_second / 1_048_576.0);
            write!(page, "  {name:<8} {median:>10.4} {min:>10.4} {max:>10.4} {ns_per_row:>10.1}")?;
            writeln!(page, " {rows:>14} {mebibytes:>10.1}")?;
        }
        writeln!(page, "  peak memory {}", size(self.peak_memory_bytes))
    }

    fn measures(&self) -> Vec<Measure> {
        let rows = grouped(self.input.rows);
        let of_stage = |stage: &Stage| {
            let Spread { median, min, max } = stage.seconds;
            let range = (max - median).max(median - min) * 1e9 / self.input.rows as f64;
            let per_second = grouped(stage.rows_per_second as u64);
            Measure {
                name: stage.name,
                unit: "ns/row",
                value: rounded(stage.ns_per_row),
                range: Some(format!("± {}", rounded(range))),
                extra: format!("median of {} runs over {rows} rows; {per_second} rows/s", self.runs),
            }
        };
        let memory = Measure {
            name: "peak memory",
            unit: "MiB",
            value: rounded(self.peak_memory_bytes as f64 / 1_048_576.0),
            range: None,
            extra: format!("the most of {} runs over {rows} rows", self.runs),
        };
        self.stages.iter().map(of_stage).chain([memory]).collect()
    }
}

impl Stage {
    fn new(name: &'static str, seconds: Spread, rows: u64, bytes: u64) -> Stage {
        // The clock may not have advanced, and JSON has no infinity.
        let median = seconds.median.max(1e-9);
        Stage {
            name,
            seconds,
            ns_per_row: seconds.median * 1e9 / rows as f64,
            rows_per_second: rows as f64 / median,
            bytes_per_second: bytes as f64 / median,
        }
    }
}

impl Spread {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Spread { median: (low + high) / 2.0, min: values[0], max: values[values.len() - 1] }
    }
}

impl Machine {
    fn of(spec: &Spec) -> Machine {
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        Machine {
            cpu: model.map(|model| model.trim_start_matches([' ', '\t', ':']).to_string()),
            threads: match spec.limits.threads {
                0 => rayon::current_num_threads(),
                threads => threads,
            },
            memory_bytes: proc_bytes("/proc/meminfo", "MemTotal:"),
        }
    }
}

fn sha256_of_logs(made: &Generated, data: &Path) -> Result<String> {
    let mut names: Vec<&str> = made.logs.iter().map(|log| log.name.as_str()).collect();
    names.sort_unstable();
    let mut hasher = Sha256::new();
    for name in names {
        let path = data.join(name);
        let copied = files::open(&path).and_then(|mut log| std::io::copy(&mut log, &mut hasher));
        copied.map_err(|e| files::failure(e).at(path.display()))?;
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// To three decimals.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_their_mean() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(vec![7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn a_stage_of_zero_seconds_has_finite_rates() {
        let stage = Stage::new("plan", Spread::of(vec![0.0]), 1000, 50_000);
        assert_eq!(stage.ns_per_row, 0.0);
        assert!(stage.rows_per_second.is_finite() && stage.bytes_per_second.is_finite());
        let stage = Stage::new("map", Spread::of(vec![0.5]), 1000, 50_000);
        assert_eq!((stage.ns_per_row, stage.rows_per_second, stage.bytes_per_second), (5e5, 2e3, 1e5));
    }
}
