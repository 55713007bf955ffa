//! A run is killed at random instants and simply started again.
//!
//! In: the sample logs, real processes, SIGKILL. Out: the lake of a run that was left alone.
//! Invariant: a reader sees nothing or all; nothing is lost and nothing is counted or said twice.

use crate::support::{Numbers, Scratch, part_bytes, parts};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn sample() -> Scratch {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample_data");
    let names = [
        ("logs", "logs/"),
        ("sellers", "sellers.csv"),
        ("users", "users.csv"),
        ("budget_template", "budget_template.toml"),
    ];
    let line = |(key, name): (&str, &str)| format!("{key} = {:?}\n", sample.join(name));
    Scratch::new().input(&names.map(line).concat()).rest("transactions = true")
}

/// Rows of the tables that follow the commit.
fn followers(scratch: &Scratch) -> String {
    let sql = "select (select count(*) from budget_alerts), (select count(distinct alert_id) from budget_alerts), \
               (select count(*) from transactions), (select sum(amount) from transactions)";
    let lake = scratch.lake();
    scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]).stdout
}

#[test]
fn kill_at_any_instant_and_start_again() {
    let undisturbed = sample();
    assert_eq!(undisturbed.run(&[]).code, 0);
    let (expected, expected_followers) =
        (part_bytes(&undisturbed.lake(), "monthly_spending"), followers(&undisturbed));
    let mut numbers = Numbers(2025);
    for round in 0..12 {
        let scratch = sample();
        let job = scratch.job();
        for _ in 0..4 {
            let mut run = Command::new(env!("CARGO_BIN_EXE_pennymill"))
                .args(["run", job.to_str().unwrap()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_micros(numbers.below(250_000) as u64));
            run.kill().unwrap();
            run.wait().unwrap();
            if scratch.lake().join("monthly_spending/_delta_log").exists() {
                let seen = parts(&scratch.lake(), "monthly_spending").len();
                assert!([0, expected.len()].contains(&seen), "round {round}: half of a run is to be seen");
            }
        }
        let said = scratch.run(&[]);
        assert_eq!(said.code, 0, "round {round}: {}", said.stderr);
        assert_eq!(part_bytes(&scratch.lake(), "monthly_spending"), expected, "round {round}");
        assert_eq!(followers(&scratch), expected_followers, "round {round}");
    }
}
