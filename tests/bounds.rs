//! What a table, a job and a sum may take, and what happens beyond.
//!
//! In: small files that claim or become much, rules without end, sums that no column holds. Out: exit
//! codes, messages, what is counted all the same.
//! Invariant: what is too much is refused or held with its place, before it costs memory or time; no
//! user stands in a message.

use crate::support::{Said, Scratch};
use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use parquet::arrow::ArrowWriter;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const LOG: &str = "7\t2025-01-10T10:00:00Z\tCorner Shop\t10.00\n";

/// Writes a Parquet table of a batch again and again.
fn table(path: &Path, columns: Vec<(&str, ArrayRef)>, times: usize) -> u64 {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    (0..times).for_each(|_| writer.write(&batch).unwrap());
    writer.close().unwrap();
    std::fs::metadata(path).unwrap().len()
}

fn texts(text: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows)))
}

/// A run with a small `limits.memory` and this table.
fn with_table(scratch: &Scratch, key: &str, path: &Path) -> Said {
    scratch.write("logs/a.tsv", LOG);
    scratch.run(&["--set", "limits.memory=64MiB", "--set", &format!("input.{key}={}", path.display())])
}

fn refused(said: &Said, what: &str) {
    assert_eq!((said.code, said.stderr.lines().count()), (65, 1), "{}", said.stderr);
    assert!(said.stderr.contains(what), "{what}: {}", said.stderr);
}

#[test]
fn a_small_table_of_very_many_rows_is_refused_before_it_is_decoded() {
    let scratch = Scratch::new();
    let path = scratch.path("many.parquet");
    let numbers: ArrayRef = Arc::new(Int64Array::from_value(1, 1_000_000));
    let bytes = table(&path, vec![("user_id", numbers.clone()), ("monthly_income", numbers)], 30);
    assert!(bytes < 1_000_000, "{bytes}");
    let since = Instant::now();
    refused(&with_table(&scratch, "users", &path), "many.parquet: 30000000 rows; the most is 11184810");
    assert!(since.elapsed().as_secs() < 20);
    let (rows, one) = (1_000_000, |text| texts(text, 1_000_000));
    let columns = vec![
        ("user_id", one("1")),
        ("seller", one("a")),
        ("category", one("gas")),
        ("set_at", one("2025-01-01")),
    ];
    table(&path, columns, 4);
    refused(&with_table(&scratch, "category_overrides", &path), "4000000 rows; the most is 3355443");
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let columns = vec![("user_id", numbers), ("category", one("gas")), ("amount", one("5.00"))];
    table(&path, columns, 1);
    let said = with_table(&scratch, "budget_overrides", &path);
    assert_eq!(said.code, 0, "a million budgets are usual: {}", said.stderr);
}

#[test]
fn cells_lists_and_claims_beyond_all_measure_are_refused() {
    let scratch = Scratch::new();
    let path = scratch.path("odd.parquet");
    let long = "x".repeat(1 << 20);
    table(&path, vec![("seller", texts(&long, 50)), ("category", texts("gas", 50))], 1);
    refused(
        &with_table(&scratch, "sellers", &path),
        "odd.parquet:1: column `seller`: a cell of more than 65536 bytes",
    );
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..3).map(|n| Some(vec![Some(n); 2])));
    table(&path, vec![("user_id", Arc::new(lists)), ("monthly_income", texts("1", 3))], 1);
    refused(&with_table(&scratch, "users", &path), "column `user_id` is of lists or structs");
    let whole = std::fs::read(&path).unwrap();
    let tail = whole.len() - 8;
    for (what, bytes) in [
        ("it is no Parquet file", b"root:x:0:0:root:/root:/bin/sh\n".to_vec()),
        ("a footer of 4294967295 bytes", [&whole[..tail], &[0xff; 4], b"PAR1"].concat()),
        ("its footer is longer than the file", [b"PAR1", &[0xff, 0xff, 0, 0][..], b"PAR1"].concat()),
        (
            "its footer cannot be read",
            [&b"PAR1"[..], &[0x1c; 1000], &1000u32.to_le_bytes(), b"PAR1"].concat(),
        ),
        (
            "its footer cannot be read",
            [&b"PAR1"[..], &[0x29, 0xfc, 0xff, 0xff, 0xff, 7], &6u32.to_le_bytes(), b"PAR1"].concat(),
        ),
    ] {
        std::fs::write(&path, bytes).unwrap();
        refused(&with_table(&scratch, "users", &path), what);
    }
    let csv = scratch.path("odd.csv");
    std::fs::write(&csv, format!("seller,category\n\"{long}\",gas\n")).unwrap();
    refused(
        &with_table(&scratch, "sellers", &csv),
        "odd.csv:2: column `seller`: a cell of more than 65536 bytes",
    );
    let sparse = std::fs::File::create(&csv).unwrap();
    sparse.set_len(1 << 40).unwrap();
    refused(&with_table(&scratch, "sellers", &csv), "1099511627776 bytes; the most is 536870912");
    let toml = scratch.path("odd.toml");
    std::fs::File::create(&toml).unwrap().set_len(1 << 40).unwrap();
    refused(&with_table(&scratch, "categories", &toml), "1099511627776 bytes; the most is 4194304");
    for (job, what) in
        [(toml.to_str().unwrap(), "a job file of more than 4194304 bytes"), ("/dev/zero", "it is a device")]
    {
        let said = scratch.pennymill(&["run", job]);
        assert_eq!(said.code, 78, "{}", said.stderr);
        assert!(said.stderr.contains(what), "{}", said.stderr);
    }
}

#[test]
fn rules_are_counted_before_they_are_compiled() {
    let rules = |count: usize| -> String {
        let rule = |number| format!("\\p{{L}}{{2}} shop {number},gas\n");
        "pattern,category\n".to_string() + &(0..count).map(rule).collect::<String>()
    };
    let scratch = Scratch::new().table("rules.csv", &rules(70_000));
    scratch.write("logs/a.tsv", LOG);
    let since = Instant::now();
    refused(&scratch.run(&[]), "rules.csv:65537: column `pattern`: more than 65535 rules");
    assert!(since.elapsed().as_secs() < 8, "{:?}", since.elapsed());
    for (rule, what) in [
        (
            "(a{1000}){1000},gas\n",
            "rules.csv:3: column `pattern`: not a regular expression, or too large a one",
        ),
        ("(((,gas\n", "rules.csv:3: column `pattern`: not a regular expression"),
    ] {
        scratch.write("rules.csv", rules(1) + rule);
        refused(&scratch.run(&[]), what);
    }
    let large = (0..400).map(|number| format!("\\w{{12}}{number},gas\n")).collect::<String>();
    scratch.write("rules.csv", "pattern,category\n".to_string() + &large);
    refused(&scratch.run(&[]), "the patterns up to this one are too large together");
}

/// Rows of the largest amount, of a user whom no message names.
fn rows(count: usize, sign: &str) -> String {
    let line = |row: usize| {
        let (minute, second) = (row / 60 % 60, row % 60);
        format!("31337\t2025-01-10T10:{minute:02}:{second:02}Z\tShop\t{sign}10000000000.00\n")
    };
    (0..count).map(line).collect()
}

fn held(said: &Said) -> Vec<(String, String)> {
    let json = said.json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_string();
    let one = |held: &serde_json::Value| {
        let name = text(&held["source_object"]);
        (name.rsplit('/').next().unwrap().to_string(), text(&held["reason"]))
    };
    json["held"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn of_objects_whose_sum_is_too_large_the_largest_is_held_until_there_is_room() {
    let scratch = Scratch::new();
    let reason = "with it a sum would be more than DECIMAL(18,2) holds, of 2025-01";
    // A million of them are the first sum that does not fit.
    scratch
        .write("logs/a.tsv", rows(400_000, ""))
        .write("logs/b.tsv", rows(600_000, ""))
        .write("logs/c.tsv", LOG);
    let said = scratch.run(&[]);
    assert_eq!((said.code, held(&said)), (3, vec![("b.tsv".into(), reason.into())]), "{}", said.stderr);
    assert!(!format!("{}{}", said.stdout, said.stderr).contains("31337"));
    let published = scratch.published();
    assert_eq!(published.values().map(|sum| sum.1).sum::<u64>(), 400_001);
    // The next nights go on, without another look at it while its month is as it was.
    let said = scratch.run(&[]);
    assert_eq!((said.code, held(&said).len(), &said.json()["outcome"]), (3, 1, &"nothing_to_do".into()));
    scratch.write("logs/d.tsv", rows(1, "-"));
    let said = scratch.run(&[]);
    assert_eq!((said.code, held(&said).len()), (3, 1), "{}", said.stderr);
    // Somebody has made room.
    let said = scratch.run(&[]);
    assert_eq!((said.code, held(&said)), (0, vec![]), "{}", said.stderr);
    let sum = scratch.published().into_iter().find(|(key, _)| key.1 == 31337).unwrap().1;
    assert_eq!(sum, (999_999_000_000_000_000, 1_000_001));
    assert_eq!(scratch.pennymill(&["audit", "--lake", scratch.lake().to_str().unwrap()]).code, 0);
    // What is counted cannot be held.
    scratch.write("logs/d.tsv", rows(2, ""));
    let said = scratch.run(&["--restate", "d.tsv"]);
    refused(&said, reason);
    assert!(said.stderr.contains("b.tsv: "), "{}", said.stderr);
}

#[test]
fn one_object_alone_and_what_is_negative_are_too_large_as_well() {
    let scratch = Scratch::new();
    scratch.write("logs/a.tsv", rows(1_000_000, "-"));
    let said = scratch.run(&[]);
    assert_eq!((said.code, held(&said).len()), (65, 1), "{}", said.stderr);
    scratch.write("logs/b.tsv", LOG);
    let said = scratch.run(&[]);
    assert_eq!((said.code, held(&said)[0].0.as_str()), (3, "a.tsv"), "{}", said.stderr);
    assert_eq!(scratch.published().len(), 1);
    // Too much on the way, and nothing at the end, in whatever order.
    let scratch = Scratch::new();
    scratch.write("logs/a.tsv", rows(1_000_000, "-")).write("logs/b.tsv", rows(1_000_000, ""));
    let said = scratch.run(&["--set", "limits.memory=64MiB"]);
    assert_eq!((said.code, held(&said).len()), (0, 0), "{}", said.stderr);
    assert_eq!(scratch.published().into_values().collect::<Vec<_>>(), [(0, 2_000_000)]);
}
