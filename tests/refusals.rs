//! What the program says when it cannot: one line on stderr, with the place and the remedy, and
//! the exit code of its kind.
//!
//! In: jobs that cannot run. Out: their refusals. Invariant: no user data stands in a message.

use crate::support::Scratch;

const LOG: &str = "1\t2025-01-10T10:00:00Z\tCorner Shop\t10.00\n";

/// Runs the job of a scratch folder; its exit code and its one line.
fn refusal(scratch: &Scratch, more: &[&str]) -> (i32, String) {
    let said = scratch.run(more);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    assert_eq!(said.stdout, "");
    (said.code, said.stderr.trim().to_string())
}

#[test]
fn jobs_that_cannot_be_read() {
    let scratch = Scratch::new();
    let said = scratch.pennymill(&["run", scratch.path("none.toml").to_str().unwrap()]);
    assert_eq!((said.code, said.stderr.contains("there is no such job file")), (66, true), "{}", said.stderr);
    let (code, line) = refusal(&scratch, &["--set", "input.log=x"]);
    assert_eq!(code, 78);
    assert!(line.ends_with("--set: unknown key `input.log`; did you mean `input.logs`?"), "{line}");
    let (code, line) = refusal(&Scratch::new().input("sellerz = 'a'"), &[]);
    assert_eq!(code, 78);
    assert!(
        line.contains("job.toml:5:1: unknown key `input.sellerz`; did you mean `input.sellers`?"),
        "{line}"
    );
    assert_eq!(scratch.pennymill(&["run"]).code, 2);
}

#[test]
fn logs_that_are_not_there() {
    let scratch = Scratch::new();
    let (code, line) = refusal(&scratch, &[]);
    assert_eq!(code, 66);
    assert!(line.contains("there are no logs") && line.contains("input.logs"), "{line}");
    assert!(!scratch.lake().exists(), "a job without logs leaves no trace");
    assert_eq!(refusal(&scratch, &["--set", "input.logs=ftp://host/x"]).0, 78);
}

#[test]
fn reference_tables_that_cannot_be_used() {
    for (name, text, place, what) in [
        ("sellers.csv", "seller,category\nA,groceries\nB,food\n", "sellers.csv:3", "not a category"),
        ("sellers.csv", "name,category\nA,groceries\n", "sellers.csv", "column `seller` is missing"),
        ("users.csv", "user_id,monthly_income\n1,lots\n", "users.csv:2", "column `monthly_income`"),
        (
            "users.csv",
            "user_id,monthly_income\n1,1\n1,2\n",
            "users.csv:3",
            "the user of line 2 stands here again",
        ),
        ("users.csv", "user_id,monthly_income\n1\n", "users.csv:2", "1 fields where the header has 2"),
        (
            "budget_overrides.csv",
            "user_id,category,amount\n1,income,5\n",
            "budget_overrides.csv:2",
            "no budget",
        ),
        (
            "budget_template.toml",
            "[[tier]]\nname='a'\nincome_from='0'\nshares={gas=2}\n",
            "budget_template.toml",
            "tier 1: the share of `gas`",
        ),
        (
            "budget_overrides.csv",
            "user_id,category,amount,from_month,to_month\n1,gas,5,2025-01,2025-03\n1,gas,6,2025-03,\n",
            "budget_overrides.csv:3",
            "of line 2",
        ),
        (
            "budget_overrides.csv",
            "user_id,category,amount,from_month,to_month\n1,gas,5,2025-02,2025-01\n",
            "budget_overrides.csv:2",
            "column `to_month`: before from_month",
        ),
        (
            "budget_overrides.csv",
            "user_id,category,amount\n1,gas,-1\n",
            "budget_overrides.csv:2",
            "less than zero",
        ),
        ("users.csv", "user_id,monthly_income\n1,-5\n", "users.csv:2", "less than zero"),
        (
            "category_overrides.csv",
            "user_id,seller,category,set_at,timestamp\n1,A,gas,2025-01-01,2025-01-01\n",
            "category_overrides.csv:2",
            "needs both",
        ),
    ] {
        let scratch = Scratch::new().table(name, text);
        scratch.write("logs/a.tsv", LOG);
        let (code, line) = refusal(&scratch, &[]);
        assert_eq!(code, 65, "{line}");
        assert!(line.contains(place) && line.contains(what), "{line}");
        let check = scratch.pennymill(&["check", scratch.job().to_str().unwrap()]);
        assert_eq!((check.code, check.stderr.trim()), (65, line.as_str()), "check says what a run would say");
    }
    let scratch = Scratch::new().input("users = 'nowhere.csv'");
    scratch.write("logs/a.tsv", LOG);
    assert_eq!(refusal(&scratch, &[]).0, 66);
}

#[test]
fn stores_that_do_not_answer() {
    let scratch = Scratch::new()
        .environment("AWS_ENDPOINT", "http://127.0.0.1:9")
        .environment("AWS_ALLOW_HTTP", "true")
        .environment("AWS_ACCESS_KEY_ID", "canary-key")
        .environment("AWS_SECRET_ACCESS_KEY", "canary-secret");
    scratch.write("logs/a.tsv", LOG);
    let (code, line) = refusal(&scratch, &["--set", "input.logs=s3://bucket/logs/"]);
    assert_eq!(code, 75);
    assert!(line.contains("s3://bucket/logs/") && !line.contains("canary"), "{line}");
}

#[test]
fn lakes_that_cannot_be_written() {
    let scratch = Scratch::new();
    scratch.write("logs/a.tsv", LOG).write("lake", "a file stands where the lake should be");
    let (code, line) = refusal(&scratch, &[]);
    assert_eq!(code, 73, "{line}");
}

#[test]
fn a_refusal_does_not_tell_what_stands_in_a_row() {
    let scratch = Scratch::new().table("sellers.csv", "seller,category\nCanary Seller,canary_category\n");
    scratch.write("logs/a.tsv", LOG);
    let (_, line) = refusal(&scratch, &[]);
    assert!(!line.to_lowercase().contains("canary seller") && !line.contains("canary_category"), "{line}");
}

#[test]
fn check_writes_nothing() {
    let scratch = Scratch::new();
    scratch.write("logs/a.tsv", LOG);
    let said = scratch.pennymill(&["check", scratch.job().to_str().unwrap()]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    assert!(said.stdout.starts_with("test: fit to run"), "{}", said.stdout);
    assert!(!scratch.lake().exists());
}
