//! Logs read from an S3 server, and the lake written to it.
//!
//! In: `s3s-fs` in this process, the program in another. Out: the same lake as on local files, and its books.
//! Invariant: the server is real, requests are signed.

use crate::support::s3_server::{environment, serve};
use crate::support::{Scratch, part_bytes, parts};
use std::path::Path;
use std::process::Command;

#[test]
fn a_lake_on_s3_is_the_lake_on_local_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("bucket/logs")).unwrap();
    let endpoint = serve(folder.path());
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample_data");
    let scratch = Scratch::new().input(&format!("sellers = {:?}", sample.join("sellers.csv")));
    let scratch = environment(&endpoint)
        .iter()
        .fold(scratch, |scratch, (name, value)| scratch.environment(name, value));
    for entry in std::fs::read_dir(sample.join("logs")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join("bucket/logs").join(entry.file_name())).unwrap();
        std::fs::copy(entry.path(), scratch.path("logs").join(entry.file_name())).unwrap();
    }
    let local = scratch.run(&[]);
    assert_eq!(local.code, 0, "{}", local.stderr);
    let remote = ["--set", "input.logs=s3://bucket/logs/", "--set", "output.lake=s3://bucket/lake/"];
    let said = scratch.run(&remote);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.json()["rows"], local.json()["rows"]);
    let lake = folder.path().join("bucket/lake");
    assert_eq!(part_bytes(&lake, "monthly_spending"), part_bytes(&scratch.lake(), "monthly_spending"));

    let again = scratch.run(&remote);
    assert_eq!((again.code, &again.json()["outcome"]), (0, &"nothing_to_do".into()), "{}", again.stderr);
    let late = "1\t2025-01-31T23:59:59Z\tSomebody\t1.00\n";
    std::fs::write(folder.path().join("bucket/logs/late.tsv"), late).unwrap();
    let third = scratch.run(&remote);
    assert_eq!((third.code, &third.json()["inputs"]["new"]), (0, &1.into()), "{}", third.stderr);

    let sql = "select sum(transaction_count) n from monthly_spending";
    let said = scratch.pennymill(&["query", "--lake", "s3://bucket/lake/", sql, "--format", "csv"]);
    assert_eq!(said.stdout, "n\n59971\n", "{}", said.stderr);
    scratch.write("totals.sql", sql);
    scratch.write(
        "totals.toml",
        "name = \"totals\"\nkind = \"sql\"\nquery = \"totals.sql\"\n[output]\nlake = \"s3://bucket/lake/\"\n",
    );
    let said = scratch.pennymill(&["run", scratch.path("totals.toml").to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let totals =
        ["query", "--lake", "s3://bucket/lake/", "select n from totals", "--format", "csv", "--verify"];
    let said = scratch.pennymill(&totals);
    assert_eq!(said.stdout, "n\n59971\n", "{}", said.stderr);

    let explain = ["explain", "--lake", "s3://bucket/lake", "--user", "1", "--month", "2025-01"];
    let said = scratch.pennymill(&explain);
    assert!(said.stdout.contains("uncategorized: 1.00 in 1 transactions, as published"), "{}", said.stderr);
    scratch.write("chosen.csv", "user_id,seller,category,set_at\n1,Somebody,dining,2025-01-01\n");
    let votes = format!(
        "name = \"votes\"\nkind = \"votes\"\n[input]\ncategory_overrides = {:?}\n[output]\nlake = \"s3://bucket/lake/\"\n[votes]\nminimum = 1\n",
        scratch.path("chosen.csv")
    );
    scratch.write("votes.toml", votes);
    let said = scratch.pennymill(&["run", scratch.path("votes.toml").to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said =
        scratch.pennymill(&["explain", "--seller", "SOMEBODY", "--votes", "s3://bucket/lake/crowd_votes"]);
    assert!(said.stdout.contains("candidate    dining by crowd"), "{}{}", said.stdout, said.stderr);

    let scratch = scratch.environment("AWS_SECRET_ACCESS_KEY", "wrong");
    let said = scratch.run(&remote);
    assert_eq!(said.code, 77, "{}", said.stderr);
    assert!(!said.stderr.contains("wrong") && said.stderr.lines().count() == 1, "{}", said.stderr);
}

#[test]
fn the_books_of_a_lake_on_s3() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = folder.path().join("bucket");
    std::fs::create_dir_all(bucket.join("logs")).unwrap();
    let endpoint = serve(folder.path());
    let scratch = Scratch::new().table("sellers.csv", "seller,category\nShop,groceries\n");
    let scratch = environment(&endpoint)
        .iter()
        .fold(scratch, |scratch, (name, value)| scratch.environment(name, value));
    let job =
        ["input.logs=s3://bucket/logs/", "output.lake=s3://bucket/lake/", "limits.rejects_max_ratio=0.9"];
    let job: Vec<&str> = job.iter().flat_map(|set| ["--set", *set]).collect();
    for night in 1..4 {
        let log = format!("{night}\t2025-01-0{night}T10:00:00Z\tShop\t{night}.50\nbad {night}\t\r\nno end");
        std::fs::write(bucket.join(format!("logs/{night}.tsv")), log).unwrap();
        let said = scratch.run(&job);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    let ask = |arguments: &[&str]| scratch.pennymill(&[arguments, &["--lake", "s3://bucket/lake/"]].concat());

    let history = ask(&["history", "--format", "json"]).stdout;
    let runs: Vec<serde_json::Value> =
        history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(runs.len(), 4, "{history}");
    let run = runs[3]["run_id"].as_str().unwrap();
    assert_eq!(ask(&["rejects", "--run", run]).stdout, "bad 3\t\r\nno end");
    let sql = "select sum(amount) from monthly_spending";
    let then = ask(&["query", sql, "--as-of", "2", "--format", "csv"]);
    assert!(then.stdout.ends_with("\n4.00\n"), "{}{}", then.stdout, then.stderr);

    let dead = bucket.join("lake/_runs/01890a5d-ac96-774b-bcce-b302099a8057/manifest.json");
    std::fs::create_dir_all(dead.parent().unwrap()).unwrap();
    std::fs::write(&dead, "left").unwrap();
    assert!(ask(&["gc"]).stdout.contains("nothing to clean up"), "all is young");
    let aged = Command::new("touch").args(["-d", "10 days ago"]).arg(&dead).status().unwrap();
    assert!(aged.success());
    let said = ask(&["gc"]);
    assert!(said.code == 0 && !dead.exists(), "{}{}", said.stdout, said.stderr);

    let audit = || ask(&["audit", "--share", "1", "--report", "json"]);
    let said = audit();
    assert_eq!((said.code, said.json()["recounted"].as_u64()), (0, Some(3)), "{}", said.stderr);
    let (path, mut bytes) = parts(&bucket.join("lake"), "monthly_spending").remove(0);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(bucket.join("lake/monthly_spending").join(path), bytes).unwrap();
    let said = audit();
    assert_eq!(said.code, 70, "{}", said.stdout);
    assert!(said.stdout.contains("not what was written"), "{}", said.stdout);
}
