//! Cleaning up beside logs that others have changed: checkpoints, commits that were cleaned up, features that
//! bind writers, files that are larger than any.
//!
//! In: a lake of two nights, and what others did to its logs. Out: what is left of it, exit codes.
//! Invariant: what a log names stays, wherever it stands; one table that cannot be written hinders none of
//! the others, and nothing is committed for nothing.

use crate::cleaning::{DEAD, add, commit, gc, gone, lake, litter, old, table_of_others};
use crate::support::checkpoint;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

fn commit_path(table: &Path, version: u64) -> PathBuf {
    table.join(format!("_delta_log/{version:020}.json"))
}

fn versions(table: &Path) -> usize {
    (0..).take_while(|version| commit_path(table, *version).exists()).count()
}

fn set_days_old(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

/// As a program does that sets a property.
fn set(table: &Path, property: &str) {
    let first = fs::read_to_string(commit_path(table, 0)).unwrap();
    let line = first.lines().find(|line| line.contains("metaData")).unwrap();
    let mut metadata: serde_json::Value = serde_json::from_str(line).unwrap();
    metadata["metaData"]["configuration"][property] = "true".into();
    commit(table, &[metadata.to_string()]);
}

#[test]
fn a_table_that_may_not_be_written_hinders_no_other() {
    let scratch = lake();
    let lake = scratch.lake();
    let litter = litter(&lake);
    let (of_totals, others): (Vec<PathBuf>, Vec<PathBuf>) =
        litter.into_iter().partition(|path| path.starts_with(lake.join("totals")));
    set(&lake.join("totals"), "delta.enableChangeDataFeed");
    let (spending, totals) = (lake.join("monthly_spending"), lake.join("totals"));
    let before = (versions(&spending), versions(&totals));
    let said = gc(&scratch, &lake, &[]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stderr.contains("totals: left alone: it has the feature `changeDataFeed`"),
        "{}",
        said.stderr
    );
    assert!(gone(&others) && of_totals.iter().all(|path| path.exists()), "{}", said.stdout);
    assert_eq!((versions(&spending), versions(&totals)), (before.0 + 1, before.1));
    // One of those that every lake has: nothing is done, nor committed.
    set(&lake.join("transactions"), "delta.appendOnly");
    old(&lake.join(format!("monthly_spending/month=2025-01-01/part-00000-{DEAD}.parquet")));
    for _ in 0..2 {
        let said = gc(&scratch, &lake, &[]);
        assert_eq!(said.code, 78, "{}{}", said.stdout, said.stderr);
        assert!(
            said.stderr.contains("transactions") && said.stderr.contains("`appendOnly`"),
            "{}",
            said.stderr
        );
        assert_eq!(versions(&spending), before.0 + 1, "it commits for nothing");
    }
}

#[test]
fn what_a_table_of_others_has_in_its_checkpoint_alone_stays() {
    let scratch = lake();
    let lake = scratch.lake();
    let part = |number: u32| old(&lake.join(format!("totals/part-{number:05}-{DEAD}.parquet")));
    let kept = [part(0), part(1)];
    let absolute = format!("file://{}", kept[0].display());
    // One whose files lie outside it, and one that is partitioned as none of ours.
    for (name, partitions, path) in
        [("clone", "", &*absolute), ("by_name", "\"a\"", &format!("../totals/part-00001-{DEAD}.parquet"))]
    {
        let table = lake.join(name);
        table_of_others(
            &table,
            partitions,
            &[add(path).replace("\"partitionValues\":{}", "\"partitionValues\":{\"a\":\"x\"}")],
        );
        checkpoint(&table, 0);
        commit(&table, &["{\"commitInfo\":{\"timestamp\":1}}".to_string()]);
        fs::remove_file(commit_path(&table, 0)).unwrap();
    }
    let litter = litter(&lake);
    let said = gc(&scratch, &lake, &[]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    assert!(kept.iter().all(|file| file.exists()), "a file that a log names is gone: {}", said.stdout);
    assert!(gone(&litter) && said.stderr.contains("clone: left alone: some of its files lie outside"));
    assert_eq!(said.stderr.matches("lake/clone").count(), 1, "{}", said.stderr);
}

#[test]
fn commits_that_were_cleaned_up_are_older_than_the_weeks_that_are_kept_or_nothing_is_deleted() {
    let scratch = lake();
    let lake = scratch.lake();
    let spending = lake.join("monthly_spending");
    checkpoint(&spending, 1);
    checkpoint(&lake.join("totals"), 1);
    fs::remove_file(commit_path(&lake.join("totals"), 0)).unwrap();
    fs::remove_file(commit_path(&spending, 0)).unwrap();
    let litter = litter(&lake);
    let said = gc(&scratch, &lake, &[]);
    assert_eq!(said.code, 78, "{}{}", said.stdout, said.stderr);
    let where_and_what = said.stderr.contains("lake/monthly_spending: commit 0 is missing from its log");
    assert!(where_and_what && said.stderr.contains("restore"), "{}", said.stderr);
    assert!(litter.iter().all(|path| path.exists()));
    // Its first commit that is left is older than the weeks; that of the other table is not.
    set_days_old(&commit_path(&spending, 1), 40);
    let of_unknown_run = old(&lake.join(format!("_runs/{DEAD}/manifest.json")));
    set_days_old(&of_unknown_run, 44);
    let said = gc(&scratch, &lake, &[]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("totals: left alone: commit 0 is missing from its log"), "{}", said.stderr);
    assert!(of_unknown_run.exists(), "its commit may be one of those that are gone");
    let stays = |path: &Path| ["totals", "_runs"].iter().any(|folder| path.starts_with(lake.join(folder)));
    assert!(litter.iter().all(|path| path.exists() == stays(path)), "{}", said.stdout);
}

#[test]
fn files_that_are_larger_than_any_are_refused_before_they_are_read() {
    let scratch = lake();
    let lake = scratch.lake();
    let spending = lake.join("monthly_spending");
    checkpoint(&spending, 2);
    let lake_text = lake.to_str().unwrap();
    let refused = |place: &str, what: &str| {
        for command in ["audit", "gc"] {
            let said = scratch.pennymill(&[command, "--lake", lake_text]);
            assert_eq!(said.code, 78, "{command}: {}{}", said.stdout, said.stderr);
            let is_named = said.stderr.contains(place) && said.stderr.contains(what);
            assert!(is_named && said.stderr.lines().count() == 1, "{command}: {}", said.stderr);
        }
    };
    let sparse = |path: &Path, bytes: u64| {
        let whole = fs::read(path).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
        whole
    };
    let path = commit_path(&spending, 1);
    let whole = sparse(&path, 6 << 30);
    refused("monthly_spending", "larger than any writer's");
    fs::write(&path, whole).unwrap();
    let commit: Vec<serde_json::Value> =
        fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let manifest = commit.iter().find_map(|line| line["commitInfo"]["manifest"].as_str()).unwrap();
    sparse(&lake.join(manifest), 6 << 30);
    let said = gc(&scratch, &lake, &[]);
    assert_eq!((said.code, said.stderr.lines().count()), (78, 1), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("manifest.json") && said.stderr.contains("the most is"), "{}", said.stderr);
    let said = scratch.pennymill(&["audit", "--lake", lake_text]);
    assert_eq!(said.code, 70, "an audit reports it, and goes on: {}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("the most is"), "{}", said.stdout);
}
