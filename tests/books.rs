//! What a lake says of itself: its history, its audit, its rejects, questions about a version, and what
//! cleaning up leaves.
//!
//! In: a lake of several nights, and hands laid on it. Out: rows, findings, exit codes.
//! Invariant: whatever was tampered with is found, and cleaning up takes nothing that a reader needs.

use crate::support::{Scratch, part_bytes, parts};
use std::process::Command;

fn nights() -> Scratch {
    let scratch = Scratch::new().table("sellers.csv", "seller,category\nShop,groceries\n");
    let row = |user: u32, day: u32| format!("{user}\t2025-01-{day:02}T10:00:00Z\tShop\t{day}.50\n");
    let lenient = ["--set", "limits.rejects_max_ratio=0.9", "--set", "output.transactions=true"];
    for night in 1..4 {
        let log = row(night, night) + "bad line\t\r\n" + &row(9, night) + "no end";
        scratch.write(&format!("logs/{night}.tsv"), log);
        assert_eq!(scratch.run(&lenient).code, 0);
    }
    scratch
}

fn ask(scratch: &Scratch, arguments: &[&str]) -> crate::support::Said {
    let lake = scratch.lake();
    scratch.pennymill(&[arguments, &["--lake", lake.to_str().unwrap()]].concat())
}

#[test]
fn every_version_is_told_and_can_be_asked() {
    let scratch = nights();
    let history = ask(&scratch, &["history", "--format", "csv"]).stdout;
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines.len(), 5, "{history}");
    assert!(lines[1].contains("create") && lines[4].contains(",count,test,1,0,2,7.00,2025-01,"), "{history}");
    let sums = |version: &str| {
        let sql = "select sum(amount), (select count(*) from transactions) as kept, (select count(*) from rejects) as refused \
                   from monthly_spending";
        ask(&scratch, &["query", sql, "--as-of", version, "--format", "csv"]).stdout
    };
    assert!(sums("1").ends_with("3.00,2,2\n"), "{}", sums("1"));
    assert!(sums("3").ends_with("15.00,6,6\n"), "{}", sums("3"));
    assert_eq!(ask(&scratch, &["query", "select 1", "--as-of", "9"]).code, 66);
    let explain = ["explain", "--user", "9", "--month", "2025-01", "--as-of", "2"];
    let said = ask(&scratch, &explain);
    assert!(
        said.code == 0 && said.stdout.contains("4.00 in 2 transactions, as published"),
        "{}",
        said.stdout
    );
}

#[test]
fn rejected_lines_come_back_as_they_stood() {
    let scratch = nights();
    let history = ask(&scratch, &["history", "--format", "json"]).stdout;
    let last: serde_json::Value = serde_json::from_str(history.trim().lines().last().unwrap()).unwrap();
    let run = last["run_id"].as_str().unwrap();
    let said = ask(&scratch, &["rejects", "--run", run]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "bad line\t\r\nno end"), "{}", said.stderr);
    assert_eq!(ask(&scratch, &["rejects", "--run", "nobody"]).code, 66);
}

#[test]
fn an_audit_finds_what_was_tampered_with() {
    let scratch = nights();
    let audit = |share: &str| ask(&scratch, &["audit", "--share", share, "--report", "json"]);
    let said = audit("1");
    assert_eq!(
        (said.code, said.json()["recounted"].as_u64()),
        (0, Some(3)),
        "{}{}",
        said.stdout,
        said.stderr
    );
    assert_eq!(said.json()["months"][0]["net_cents"], "1500");
    std::fs::remove_file(scratch.path("logs/1.tsv")).unwrap();
    let said = audit("0");
    assert_eq!((said.code, said.json()["findings"].as_array().unwrap().len()), (3, 1), "{}", said.stdout);
    let (path, bytes) = &parts(&scratch.lake(), "monthly_spending")[0];
    let path = scratch.lake().join("monthly_spending").join(path);
    let mut other = bytes.clone();
    let middle = other.len() / 2;
    other[middle] ^= 1;
    std::fs::write(&path, &other).unwrap();
    let said = audit("0");
    assert_eq!(said.code, 70, "{}", said.stdout);
    assert!(said.stdout.contains("not what was written"), "{}", said.stdout);
}

#[test]
fn cleaning_up_takes_what_nobody_needs_and_takes_the_version_first() {
    let scratch = nights();
    let lake = scratch.lake();
    let dead = "01890a5d-ac96-774b-bcce-b302099a8057";
    let files = [
        format!("_runs/{dead}/manifest.json"),
        format!("monthly_spending/month=2025-01-01/part-00000-{dead}.parquet"),
        "monthly_spending/.tmpAb#0".to_string(),
    ];
    for file in &files {
        std::fs::create_dir_all(lake.join(file).parent().unwrap()).unwrap();
        std::fs::write(lake.join(file), "left").unwrap();
    }
    let before = part_bytes(&lake, "monthly_spending");
    assert!(ask(&scratch, &["gc"]).stdout.contains("nothing to clean up"), "all is young");
    let old = |path: &str| {
        let done = Command::new("touch").args(["-d", "10 days ago"]).arg(lake.join(path)).status().unwrap();
        assert!(done.success());
    };
    files.iter().for_each(|file| old(file));
    let young = format!("monthly_spending/month=2025-01-01/part-00001-{dead}.parquet");
    std::fs::write(lake.join(&young), "under way").unwrap();
    let plan = ask(&scratch, &["gc", "--dry-run"]);
    assert!(plan.code == 0 && files.iter().all(|file| lake.join(file).exists()), "{}", plan.stderr);
    let said = ask(&scratch, &["gc"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(files.iter().all(|file| !lake.join(file).exists()), "{}", said.stdout);
    assert!(lake.join(&young).exists() && part_bytes(&lake, "monthly_spending") == before);
    assert!(lake.join("monthly_spending/_delta_log/00000000000000000004.json").exists());
    assert_eq!(ask(&scratch, &["query", "select * from monthly_spending", "--as-of", "1"]).code, 0);
    scratch.write("logs/4.tsv", "9\t2025-01-04T10:00:00Z\tShop\t1.00\n");
    assert_eq!(scratch.run(&[]).code, 0, "a run goes on from there");
    assert_eq!(ask(&scratch, &["audit", "--share", "1"]).code, 0);
}
