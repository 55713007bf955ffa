//! The benchmark job: what it reports, and where its forms belong.
//!
//! In: a few generated rows. Out: the keys that scripts and charts rely on.
//! Invariant: nothing is said of how long anything takes.

use crate::support::{Said, Scratch};
use serde_json::Value;
use std::path::Path;

const STAGES: [&str; 6] = ["plan", "map", "reduce", "alerts", "publish", "total"];

/// The shipped job, over few rows.
fn bench(scratch: &Scratch, more: &[&str]) -> Said {
    let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/bench.toml");
    let sets = ["rows=3000", "users=150", "sellers=150", "runs=2"].map(|set| format!("bench.{set}"));
    let mut arguments = vec!["run", job.to_str().unwrap()];
    sets.iter().for_each(|set| arguments.extend(["--set", set.as_str()]));
    arguments.extend(more);
    scratch.pennymill(&arguments)
}

/// A scratch folder in which the program keeps what is temporary.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let folder = scratch.path("temporary");
    std::fs::create_dir(&folder).unwrap();
    scratch.environment("TMPDIR", folder.to_str().unwrap())
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[test]
fn the_report_has_the_keys_that_scripts_rely_on() {
    let scratch = scratch();
    let said = bench(&scratch, &["--report", "json"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    assert_eq!(said.stdout.lines().count(), 1);
    let report = said.json();
    let sorted = |keys: &str| {
        let mut keys: Vec<String> = keys.split(' ').map(String::from).collect();
        keys.sort();
        keys
    };
    for (path, expected) in [
        ("", "job version input machine runs stages peak_memory_bytes"),
        ("/input", "rows bytes users sellers months files seed compress sha256"),
        ("/machine", "cpu threads memory_bytes"),
        ("/stages/0", "name seconds ns_per_row rows_per_second bytes_per_second"),
        ("/stages/0/seconds", "median min max"),
    ] {
        let mut found = keys(report.pointer(path).unwrap());
        found.sort();
        assert_eq!(found, sorted(expected), "{path}");
    }
    assert_eq!(names(&report["stages"]), STAGES);
    assert_eq!((&report["job"], &report["runs"]), (&"bench".into(), &2.into()));
    assert_eq!((&report["input"]["rows"], &report["input"]["files"]), (&3000.into(), &4.into()));
    let left = std::fs::read_dir(scratch.path("temporary")).unwrap().count();
    assert_eq!(left, 0, "nothing is left behind");
}

#[test]
fn the_input_is_the_same_for_the_same_seed_and_its_checksum_is_that_of_the_logs() {
    use sha2::Digest;
    let scratch = scratch();
    let input = |more: &[&str]| {
        let said = bench(&scratch, &[more, &["--report", "json"]].concat());
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.json()["input"].clone()
    };
    let first = input(&[]);
    assert_eq!(first, input(&["--set", "limits.threads=1", "--set", "output.transactions=true"]));
    assert_ne!(first["sha256"], input(&["--set", "bench.seed=8"])["sha256"]);
    assert_eq!(input(&["--set", "bench.compress=zst"])["compress"], "zst");
    let out = scratch.path("made");
    let arguments =
        "generate --rows 3000 --users 150 --sellers 150 --months 2025-01..2025-03 --files 4 --seed 7 --out";
    let mut arguments: Vec<&str> = arguments.split(' ').collect();
    arguments.push(out.to_str().unwrap());
    assert_eq!(scratch.pennymill(&arguments).code, 0);
    let mut logs: Vec<_> =
        std::fs::read_dir(out.join("logs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.sort();
    let bytes: Vec<u8> = logs.iter().flat_map(|log| std::fs::read(log).unwrap()).collect();
    let sha256: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&first["sha256"], &first["bytes"]), (&sha256.into(), &bytes.len().into()));
}

#[test]
fn charts_of_benchmarks_get_their_list() {
    let scratch = scratch();
    let said = bench(&scratch, &["--report", "smaller-is-better"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let list = said.json();
    assert_eq!(names(&list), [&STAGES[..], &["peak memory"]].concat());
    for entry in list.as_array().unwrap() {
        assert!(entry["value"].is_number() && entry["extra"].is_string(), "{entry}");
        let is_stage = entry["name"] != "peak memory";
        assert_eq!(entry["unit"], if is_stage { "ns/row" } else { "MiB" });
        let range = entry["range"].as_str().is_some_and(|range| range.starts_with("± "));
        assert_eq!(range, is_stage, "{entry}");
    }
    let page = bench(&scratch, &[]).stdout;
    assert!(page.starts_with("bench: 2 runs over 3,000 rows"), "{page}");
    assert!(STAGES.iter().all(|stage| page.contains(&format!("\n  {stage} "))), "{page}");
}

#[test]
fn the_form_of_charts_is_for_bench_jobs_alone() {
    let scratch = Scratch::new();
    scratch.write("logs/a.tsv", "1\t2025-01-10T10:00:00Z\tCorner Shop\t10.00\n");
    let job = scratch.job();
    let said = scratch.pennymill(&["run", job.to_str().unwrap(), "--report", "smaller-is-better"]);
    assert_eq!((said.code, said.stderr.lines().count()), (78, 1), "{}", said.stderr);
    assert!(said.stderr.contains("\"bench\"") && said.stderr.contains("--report json"), "{}", said.stderr);
    assert!(!scratch.lake().exists(), "nothing was published");
    let said = scratch.pennymill(&["score", "--labels", "none.csv", "--report", "smaller-is-better"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
}

#[test]
fn a_bench_job_is_planned_and_checked_without_being_run() {
    let scratch = scratch();
    let plan = bench(&scratch, &["--dry-run"]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    assert!(plan.stdout.starts_with("bench: plan; nothing was written\n  generate   3,000 rows"));
    let plan = bench(&scratch, &["--dry-run", "--report", "json"]).json();
    assert_eq!((&plan["outcome"], &plan["bench"]["rows"]), (&"planned".into(), &3000.into()));
    let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/bench.toml");
    let check = |more: &[&str]| scratch.pennymill(&[&["check", job.to_str().unwrap()][..], more].concat());
    let said = check(&[]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    assert!(said.stdout.starts_with("bench: fit to run\n  generate   1,000,000 rows"), "{}", said.stdout);
    let refused = check(&["--set", "bench.rows=0"]);
    assert_eq!((refused.code, refused.stderr.lines().count()), (78, 1), "{}", refused.stderr);
    assert!(refused.stderr.contains("[bench]: --rows is 0"), "{}", refused.stderr);
    let rebuild = bench(&scratch, &["--rebuild", "2025-01"]);
    assert_eq!((rebuild.code, rebuild.stderr.lines().count()), (78, 1), "{}", rebuild.stderr);
}
