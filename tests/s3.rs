//! Logs read from an S3 server, and the lake written to it.
//!
//! In: `s3s-fs` in this process, the program in another. Out: the same lake as on local files.
//! Invariant: the server is real, requests are signed.

use crate::support::s3_server::{environment, serve};
use crate::support::{Scratch, part_bytes};
use std::path::Path;

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
