//! The nightly job as cron meets it: first run, second run, a new file, a rebuild, held inputs.
//!
//! In: the sample data and small logs. Out: reports, exit codes, published rows.
//! Invariant: what is published is the sum of what was counted, once.

use crate::support::{Scratch, part_bytes, parts};
use serde_json::Value;
use std::path::Path;

/// The shipped job on the shipped data, with a lake of its own.
fn sample() -> (Scratch, Vec<String>) {
    let scratch = Scratch::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::remove_dir(scratch.path("logs")).unwrap();
    let mut arguments = vec!["run".to_string(), root.join("jobs/nightly.toml").display().to_string()];
    let set =
        |key: &str, value: std::path::PathBuf| ["--set".to_string(), format!("{key}={}", value.display())];
    for (key, name) in [
        ("input.logs", "logs/"),
        ("input.sellers", "sellers.csv"),
        ("input.users", "users.csv"),
        ("input.category_overrides", "category_overrides.csv"),
        ("input.budget_template", "budget_template.toml"),
        ("input.budget_overrides", "budget_overrides.csv"),
    ] {
        arguments.extend(set(key, root.join("sample_data").join(name)));
    }
    arguments.extend(set("output.lake", scratch.lake()));
    (scratch, arguments)
}

fn said(scratch: &Scratch, arguments: &[String], more: &[&str]) -> crate::support::Said {
    let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    scratch.pennymill(&all)
}

#[test]
fn the_sample_job_publishes_what_its_readme_says_and_a_second_start_finds_nothing() {
    let (scratch, arguments) = sample();
    let first = said(&scratch, &arguments, &["--report", "json"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let report = first.json();
    assert_eq!(report["outcome"], "published");
    assert_eq!(
        report["rows"],
        serde_json::json!({"read": 60000, "accepted": 59970, "rejected": 30, "blank": 0})
    );
    assert_eq!(report["amount_cents"]["positive"], 268_391_376);
    assert_eq!(report["amount_cents"]["negative"], -53_933_657);
    assert_eq!(report["amount_cents"]["net"], 214_457_719);
    let months = report["months"].as_array().unwrap();
    let sum = |key: &str| months.iter().map(|m| m[key].as_i64().unwrap()).sum::<i64>();
    assert_eq!((months.len(), sum("rows"), sum("net_cents")), (3, 59_970, 214_457_719));
    let categorized = report["categorized"].as_object().unwrap();
    assert_eq!(categorized.values().map(|n| n.as_i64().unwrap()).sum::<i64>(), 59_970);
    assert!(categorized["override"].as_i64() > Some(0) && categorized["none"].as_i64() > Some(0));
    assert_eq!(report["alerts_as_of"], "2025-03");
    let cents: i64 = scratch.published().values().map(|(cents, _)| cents).sum();
    assert_eq!(cents, 214_457_719);

    let again = said(&scratch, &arguments, &["--report", "json"]);
    assert_eq!((again.code, &again.json()["outcome"]), (0, &Value::from("nothing_to_do")));
    let page = said(&scratch, &arguments, &[]);
    assert!(page.stdout.contains("nothing new to read"), "{}", page.stdout);
    assert_eq!(page.stderr, "", "a log is no place for a progress bar");
}

#[test]
fn the_report_has_the_keys_that_scripts_rely_on() {
    let (scratch, arguments) = sample();
    let report = said(&scratch, &arguments, &["--report", "json"]).json();
    for (path, keys) in [
        (
            "",
            "run_id job outcome inputs rows rejects amount_cents months categorized alerts seconds peak_memory_bytes table_version",
        ),
        ("/inputs", "objects new held bytes"),
        ("/rows", "read accepted rejected blank"),
        ("/amount_cents", "positive negative net"),
        ("/months/0", "month rows users groups net_cents"),
        ("/categorized", "override rule alias dictionary crowd keyword none"),
        ("/alerts", "approaching exceeded pace cleared corrected"),
        ("/seconds", "plan map reduce alerts publish total"),
    ] {
        let object = report.pointer(path).unwrap().as_object().unwrap();
        for key in keys.split(' ') {
            assert!(object.contains_key(key), "{path}/{key}");
        }
    }
}

const JANUARY: &str =
    "1\t2025-01-10T10:00:00Z\tCorner Shop\t10.00\n2\t2025-01-11T10:00:00Z\tCorner Shop\t5.50\n";
const FEBRUARY: &str = "1\t2025-02-10T10:00:00Z\tCorner Shop\t7.00\n";
const LATE: &str = "1\t2025-01-31T23:59:59Z\tCorner Shop\t-2.50\n";

fn cents(scratch: &Scratch, month: &str, user: u64) -> i64 {
    scratch.published()[&(month.to_string(), user, "groceries".to_string())].0
}

fn shop() -> Scratch {
    let scratch = Scratch::new().table("sellers.csv", "seller,category\nCorner Shop,groceries\n");
    scratch.write("logs/a.tsv", JANUARY).write("logs/b.tsv", FEBRUARY);
    scratch
}

#[test]
fn a_new_file_is_all_the_next_run_reads_and_only_its_months_are_rewritten() {
    let scratch = shop();
    assert_eq!(scratch.run(&[]).json()["inputs"]["new"], 2);
    let before = parts(&scratch.lake(), "monthly_spending");
    scratch.write("logs/c.tsv", LATE);
    let report = scratch.run(&[]).json();
    assert_eq!((&report["inputs"]["new"], &report["rows"]["read"]), (&1.into(), &1.into()));
    assert_eq!(report["months"].as_array().unwrap().len(), 1);
    assert_eq!((cents(&scratch, "2025-01", 1), cents(&scratch, "2025-02", 1)), (750, 700));
    let after = parts(&scratch.lake(), "monthly_spending");
    let kept: Vec<_> = after.iter().filter(|part| before.contains(part)).collect();
    assert_eq!((kept.len(), after.len()), (1, 2), "February's part is the same file");
    assert!(kept[0].0.starts_with("month=2025-02"));
}

#[test]
fn fed_one_by_one_or_at_once_the_lake_is_the_same() {
    let (one, other) =
        (shop(), Scratch::new().table("sellers.csv", "seller,category\nCorner Shop,groceries\n"));
    one.write("logs/c.tsv", LATE);
    assert_eq!(one.run(&[]).code, 0);
    for (name, text) in [("a", JANUARY), ("b", FEBRUARY), ("c", LATE)] {
        other.write(&format!("logs/{name}.tsv"), text);
        assert_eq!(other.run(&[]).code, 0);
    }
    assert_eq!(part_bytes(&one.lake(), "monthly_spending"), part_bytes(&other.lake(), "monthly_spending"));
}

#[test]
fn a_second_delivery_is_held_and_named_until_it_goes() {
    let scratch = shop();
    scratch.write("logs/copy.tsv", JANUARY);
    let said = scratch.run(&[]);
    let report = said.json();
    assert_eq!(
        (said.code, &report["outcome"], &report["inputs"]["held"]),
        (3, &"published".into(), &1.into())
    );
    assert!(report["held"][0]["source_object"].as_str().unwrap().ends_with("copy.tsv"));
    assert!(report["held"][0]["reason"].as_str().unwrap().contains("a.tsv"));
    assert_eq!(cents(&scratch, "2025-01", 1), 1000, "counted once");
    let again = scratch.run(&[]);
    assert_eq!((again.code, &again.json()["outcome"]), (3, &"nothing_to_do".into()), "it still needs a look");
    std::fs::remove_file(scratch.path("logs/copy.tsv")).unwrap();
    assert_eq!(scratch.run(&[]).code, 0);

    // Delivered a night later, with other line ends and in another order, it is nothing to publish.
    let other: Vec<String> = JANUARY.lines().rev().map(|line| format!("{line}\r\n")).collect();
    scratch.write("logs/later.tsv", other.concat());
    let said = scratch.run(&[]);
    assert_eq!((said.code, &said.json()["outcome"]), (65, &"held".into()));
    assert_eq!(cents(&scratch, "2025-01", 1), 1000);
}

#[test]
fn a_counted_file_that_changes_is_held_and_one_that_is_only_touched_is_not() {
    let scratch = shop();
    scratch.run(&[]);
    scratch.write("logs/a.tsv", JANUARY);
    assert_eq!(scratch.run(&[]).code, 0, "the same bytes under a new time");
    scratch.write("logs/a.tsv", JANUARY.replace("10.00", "99.00"));
    let said = scratch.run(&[]);
    assert_eq!(said.code, 3, "{}", said.stdout);
    assert!(said.json()["held"][0]["reason"].as_str().unwrap().contains("changed after it was counted"));
    assert_eq!(cents(&scratch, "2025-01", 1), 1000);
}

#[test]
fn the_same_file_by_another_spelling_is_the_same_file() {
    let scratch = shop();
    scratch.run(&[]);
    scratch.write("logs/a.tsv", format!("{JANUARY}{LATE}"));
    let spellings = [scratch.path("logs/../logs/"), scratch.path("logs"), scratch.path("logs/a.tsv")];
    for spelling in spellings {
        let said = scratch.run(&["--set", &format!("input.logs={}", spelling.display())]);
        let report = said.json();
        assert_eq!(
            (said.code, &report["inputs"]["held"]),
            (3, &1.into()),
            "{}: {report}",
            spelling.display()
        );
        assert_eq!(cents(&scratch, "2025-01", 1), 1000, "nothing is counted again");
    }
}

#[test]
fn a_file_that_the_store_hides_is_held_aloud() {
    let scratch = shop();
    scratch.write("logs/late#1", LATE);
    let said = scratch.run(&[]);
    assert_eq!((said.code, &said.json()["inputs"]["new"]), (3, &2.into()));
    assert!(said.json()["held"][0]["reason"].as_str().unwrap().contains("rename it"), "{}", said.stdout);
}

#[test]
fn a_lake_keeps_its_currency_and_its_zone() {
    let scratch = shop();
    scratch.run(&[]);
    scratch.write("logs/c.tsv", LATE);
    for set in ["input.currency=EUR", "input.time_zone=Asia/Tokyo"] {
        let said = scratch.run(&["--set", set]);
        assert_eq!((said.code, said.stderr.lines().count()), (78, 1), "{}", said.stderr);
        assert!(said.stderr.contains("the lake is counted in"), "{}", said.stderr);
    }
}

#[test]
fn a_late_row_into_a_month_of_several_parts_changes_its_sum_alone() {
    let scratch = Scratch::new();
    let row = |user: usize| format!("{user}\t2025-01-10T10:00:00Z\tSomebody\t1.00\n");
    let users = pennymill::limits::PART_GROUPS * 2 + 1000;
    scratch.write("logs/a.tsv", (0..users).map(row).collect::<String>());
    assert_eq!(scratch.run(&[]).json()["months"][0]["groups"], users);
    assert_eq!(parts(&scratch.lake(), "monthly_spending").len(), 3);
    let before = scratch.published();
    scratch.write("logs/b.tsv", row(1_500_000));
    assert_eq!(scratch.run(&[]).json()["months"][0]["rows"], users + 1);
    let mut expected = before;
    expected.get_mut(&("2025-01".to_string(), 1_500_000, "uncategorized".to_string())).unwrap().0 = 200;
    expected.get_mut(&("2025-01".to_string(), 1_500_000, "uncategorized".to_string())).unwrap().1 = 2;
    assert!(scratch.published() == expected);
    assert_eq!(parts(&scratch.lake(), "monthly_spending").len(), 3);
}

#[test]
fn an_object_with_too_many_rejects_is_held_until_the_job_lets_it_in() {
    let scratch = shop();
    scratch.write("logs/bad.tsv", format!("not a transaction\n{LATE}"));
    let said = scratch.run(&[]);
    assert_eq!(said.code, 3);
    let reason = said.json()["held"][0]["reason"].as_str().unwrap().to_string();
    assert!(reason.contains("1 of 2 lines") && reason.contains("field_count at line 1"), "{reason}");
    assert_eq!(cents(&scratch, "2025-01", 1), 1000, "nothing of it is counted");
    assert_eq!(scratch.run(&[]).code, 3, "and it is not read again");
    let said = scratch.run(&["--set", "limits.rejects_max_ratio=0.5"]);
    assert_eq!((said.code, &said.json()["rejects"]["field_count"]), (0, &1.into()));
    assert_eq!(cents(&scratch, "2025-01", 1), 750);
}

#[test]
fn archives_that_break_off_are_held_and_harm_nobody() {
    use std::io::Write;
    let scratch = shop();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(LATE.repeat(400).as_bytes()).unwrap();
    let whole = encoder.finish().unwrap();
    scratch.write("logs/cut.tsv.gz", &whole[..whole.len() - 5]);
    scratch.write("logs/tail.tsv.gz", [&whole[..], b"garbage"].concat());
    scratch.write("logs/zeros.tsv.zst", zstd::encode_all(&vec![b'\n'; 64 << 20][..], 3).unwrap());
    scratch.write("logs/cut.tsv.zst", &zstd::encode_all(LATE.as_bytes(), 1).unwrap()[..20]);
    let said = scratch.run(&["--set", "output.transactions=true"]);
    let report = said.json();
    assert_eq!(
        (said.code, &report["inputs"]["held"], &report["inputs"]["new"]),
        (3, &4.into(), &2.into()),
        "{report}"
    );
    let reasons: Vec<&str> =
        report["held"].as_array().unwrap().iter().map(|h| h["reason"].as_str().unwrap()).collect();
    assert!(reasons.iter().all(|reason| reason.starts_with("cannot be decompressed")), "{reasons:?}");
    assert_eq!(cents(&scratch, "2025-01", 1), 1000);
    assert_eq!(scratch.run(&[]).code, 3);
}

#[test]
fn a_month_is_rebuilt_from_its_raw_logs_with_the_dictionary_of_today() {
    let scratch = shop();
    scratch.write("logs/c.tsv", LATE);
    scratch.run(&["--set", "output.transactions=true"]);
    let before = part_bytes(&scratch.lake(), "monthly_spending");
    let said = scratch.run(&["--rebuild", "2025-01", "--set", "output.transactions=true"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(part_bytes(&scratch.lake(), "monthly_spending"), before, "the same again, byte for byte");
    scratch.write("sellers.csv", "seller,category\nCorner Shop,dining\n");
    assert_eq!(scratch.run(&["--rebuild", "2025-01", "--set", "output.transactions=true"]).code, 0);
    let rows = scratch.published();
    assert_eq!(rows[&("2025-01".into(), 1, "dining".into())], (750, 2));
    assert_eq!(rows[&("2025-02".into(), 1, "groceries".into())], (700, 1), "other months stay");
    let lake = scratch.lake();
    let count = |sql: &str| {
        scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]).stdout
    };
    assert_eq!(count("select count(*) n from transactions where category = 'dining'"), "n\n3\n");
    assert_eq!(count("select count(*) n from transactions"), "n\n4\n");
    std::fs::remove_file(scratch.path("logs/c.tsv")).unwrap();
    let said = scratch.run(&["--rebuild", "2025-01"]);
    assert_eq!(said.code, 66, "{}", said.stderr);
    assert!(said.stderr.contains("c.tsv") && said.stderr.lines().count() == 1, "{}", said.stderr);
}

#[test]
fn manual_choices_win_and_survive_a_rebuild_with_another_dictionary() {
    let scratch = shop().table(
        "category_overrides.csv",
        "user_id,seller,category,set_at,timestamp,amount\n1,CORNER shop,health,2025-01-01,,\n\
         2,Corner Shop,travel,2025-01-01,2025-01-11T10:00:00Z,5.50\n",
    );
    scratch.run(&[]);
    scratch.write("sellers.csv", "seller,category\nCorner Shop,dining\n");
    scratch.run(&["--rebuild", "2025-01"]);
    let rows = scratch.published();
    assert_eq!(rows[&("2025-01".into(), 1, "health".into())], (1000, 1));
    assert_eq!(rows[&("2025-01".into(), 2, "travel".into())], (550, 1));
    assert_eq!(rows.len(), 3, "{rows:?}");
}

#[test]
fn alerts_come_once_net_of_refunds_and_for_one_month() {
    let alerts = |scratch: &Scratch| {
        let lake = scratch.lake();
        let sql = "select user_id, sequence, event, level, spent, budget, budget_source from budget_alerts order by 1, 2";
        let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]);
        said.stdout.lines().skip(1).map(String::from).collect::<Vec<_>>()
    };
    let scratch = Scratch::new()
        .table("sellers.csv", "seller,category\nShop,groceries\nPay,income\n")
        .table("users.csv", "user_id,monthly_income\n1,1000.00\n2,1000.00\n3,1000.00\n4,\n")
        .table(
            "budget_template.toml",
            "[[tier]]\nname = \"all\"\nincome_from = \"0.00\"\nshares = { groceries = 0.1 }\n",
        )
        .table("budget_overrides.csv", "user_id,category,amount,from_month\n3,groceries,50.00,2025-02\n");
    let row = |user: u64, day: &str, amount: &str| format!("{user}\t{day}\tShop\t{amount}\n");
    let february = [
        row(1, "2025-02-01", "79.99"),
        row(2, "2025-02-01", "100.00"),
        row(3, "2025-02-02", "50.01"),
        row(4, "2025-02-02", "999"),
    ];
    scratch.write("logs/a.tsv", row(1, "2025-01-01", "500.00") + &february.concat());
    let report = scratch.run(&[]).json();
    let counts = |approaching, exceeded, cleared, corrected| {
        serde_json::json!({
            "approaching": approaching, "exceeded": exceeded, "pace": 0, "cleared": cleared, "corrected": corrected
        })
    };
    assert_eq!(report["alerts"], counts(1, 1, 0, 0));
    let first = ["2,1,raised,approaching,100.00,100.00,template", "3,1,raised,exceeded,50.01,50.00,manual"];
    assert_eq!(alerts(&scratch), first);

    scratch.write(
        "logs/b.tsv",
        row(1, "2025-02-03", "0.01") + &row(3, "2025-02-03", "-10.00") + &row(2, "2025-02-04", "-50.00"),
    );
    assert_eq!(scratch.run(&[]).json()["alerts"], counts(1, 0, 2, 0));
    let second = [
        "1,1,raised,approaching,80.00,100.00,template",
        first[0],
        "2,2,cleared,approaching,50.00,100.00,template",
        first[1],
        "3,2,cleared,exceeded,40.01,50.00,manual",
    ];
    assert_eq!(alerts(&scratch), second, "refunds clear, and take nothing back");
    scratch.write("logs/c.tsv", row(1, "2025-01-09", "900.00"));
    assert_eq!(scratch.run(&[]).json()["alerts"], counts(0, 0, 0, 0));
    scratch.run(&["--rebuild", "2025-02"]);
    assert_eq!(alerts(&scratch), second, "none for a past month, none from a rebuild that changes nothing");
    scratch.write("sellers.csv", "seller,category\nShop,dining\n");
    assert_eq!(scratch.run(&["--rebuild", "2025-02"]).json()["alerts"], counts(0, 0, 0, 2));
    let corrected: Vec<String> =
        alerts(&scratch).into_iter().filter(|alert| alert.contains("corrected")).collect();
    let third =
        ["1,2,corrected,approaching,0.00,100.00,template", "3,3,corrected,approaching,0.00,50.00,manual"];
    assert_eq!(corrected, third, "what was said of groceries was said of dining");

    let run = scratch.path("lake/_runs");
    let lines: usize = std::fs::read_dir(run)
        .unwrap()
        .filter_map(|run| std::fs::read_to_string(run.unwrap().path().join("alerts-00000.ndjson")).ok())
        .map(|text| text.lines().inspect(|line| drop(serde_json::from_str::<Value>(line).unwrap())).count())
        .sum();
    assert_eq!(lines, 7);
}

#[test]
fn a_dry_run_tells_and_touches_nothing() {
    let scratch = shop();
    let job = scratch.job();
    let said = scratch.pennymill(&["run", job.to_str().unwrap(), "--dry-run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("2 new") && said.stdout.contains("2025-02"), "{}", said.stdout);
    assert!(!scratch.lake().exists());
}

#[test]
fn two_runs_at_once_count_everything_once() {
    let scratch = shop();
    let job = scratch.job();
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let run = || scratch.pennymill(&["run", job.to_str().unwrap()]).code;
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(codes.iter().all(|code| [0, 75].contains(code)), "{codes:?}");
    assert_eq!(scratch.run(&[]).code, 0);
    assert_eq!(cents(&scratch, "2025-01", 1), 1000);
}
