//! Second deliveries, changed ones, overlapping ones, missing ones, and rows outside the job's months.
//!
//! In: small logs, night after night. Out: held, restated or counted, and said.
//! Invariant: a row is counted once or somebody has asked for more; nothing is dropped for looking alike.

use crate::support::{Scratch, part_bytes, real_data};
use std::io::Write;

fn rows(days: std::ops::Range<u32>) -> String {
    days.map(|day| format!("{}\t2025-01-{day:02}T10:00:00Z\tShop\t{day}.00\n", day % 3)).collect()
}

fn shop() -> Scratch {
    Scratch::new().table("sellers.csv", "seller,category\nShop,groceries\n")
}

fn net(scratch: &Scratch) -> i64 {
    scratch.published().values().map(|(cents, _)| cents).sum()
}

#[test]
fn a_duplicate_counts_when_it_is_let_in_by_name_and_only_that_one() {
    let scratch = shop();
    for name in ["a", "b", "c"] {
        scratch.write(&format!("logs/{name}.tsv"), rows(1..4));
    }
    assert_eq!((scratch.run(&[]).code, net(&scratch)), (3, 600));
    let said = scratch.run(&["--allow-duplicate", "b.tsv"]);
    assert_eq!((said.code, said.json()["inputs"]["new"].as_u64(), net(&scratch)), (3, Some(1), 1200));
    assert_eq!((scratch.run(&[]).code, net(&scratch)), (3, 1200), "the waiver is remembered, c is held");
    scratch.write("logs/d.tsv", rows(1..4));
    let said = scratch.run(&["--allow-duplicate", "c.tsv", "--allow-duplicate", "logs/d.tsv"]);
    assert_eq!((said.code, net(&scratch)), (0, 2400), "{}", said.stderr);
    let said = scratch.run(&["--allow-duplicate", "nobody.tsv"]);
    assert_eq!((said.code, said.stderr.lines().count()), (66, 1), "{}", said.stderr);
}

#[test]
fn a_changed_object_is_restated_with_all_the_months_it_touched_or_touches() {
    let (scratch, fresh) = (shop(), shop());
    let february = "1\t2025-02-01T10:00:00Z\tShop\t5.00\n";
    scratch.write("logs/a.tsv", rows(1..9)).write("logs/b.tsv", rows(10..12));
    scratch.write("logs/c.tsv", february);
    assert_eq!(scratch.run(&[]).code, 0);
    let changed = rows(2..5) + "x\n" + &february.replace("5.00", "7.00");
    scratch.write("logs/a.tsv", &changed);
    assert_eq!(scratch.run(&[]).code, 3);
    let said = scratch.run(&["--restate", "a.tsv"]);
    assert_eq!(said.code, 65, "one of five lines is rejected: {}", said.stderr);
    let lenient = ["--restate", "a.tsv", "--set", "limits.rejects_max_ratio=0.5"];
    let said = scratch.run(&lenient);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.json()["rebuilt_months"], serde_json::json!(["2025-01", "2025-02"]));
    fresh.write("logs/a.tsv", &changed).write("logs/b.tsv", rows(10..12)).write("logs/c.tsv", february);
    assert_eq!(fresh.run(&["--set", "limits.rejects_max_ratio=0.5"]).code, 0);
    let bytes = |scratch: &Scratch| part_bytes(&scratch.lake(), "monthly_spending");
    assert!(bytes(&scratch) == bytes(&fresh), "as if it had said so from the first");
    let again = scratch.run(&[]);
    assert_eq!((again.code, &again.json()["outcome"]), (0, &"nothing_to_do".into()));
    scratch.write("logs/a.tsv", "");
    assert_eq!(scratch.run(&["--restate", "a.tsv"]).code, 0, "an object that is taken back");
    assert_eq!(net(&scratch), 2100 + 500);
    assert_eq!(scratch.run(&["--restate", "new.tsv"]).code, 66);
    scratch.write("logs/new.tsv", rows(20..21));
    let said = scratch.run(&["--restate", "new.tsv"]);
    assert_eq!(said.code, 66, "{}", said.stderr);
    assert!(said.stderr.contains("not counted"), "{}", said.stderr);
    scratch.write("logs/c.tsv", rows(10..12));
    let said = scratch.run(&["--restate", "c.tsv"]);
    assert!(said.code == 65 && said.stderr.contains("b.tsv"), "now it says the same: {}", said.stderr);
}

#[test]
fn overlaps_are_told_to_the_row_and_nothing_is_dropped() {
    let scratch = shop();
    scratch.write("logs/a.tsv", rows(1..20)).write("logs/b.tsv", rows(15..25));
    let report = scratch.run(&[]).json();
    let overlap = |report: &serde_json::Value, at: usize| {
        let overlap = &report["overlaps"][at];
        let end = |key: &str| overlap[key].as_str().unwrap().rsplit('/').next().unwrap().to_string();
        (end("source_object"), end("counted_object"), overlap["rows"].as_u64().unwrap())
    };
    assert_eq!(overlap(&report, 0), ("b.tsv".into(), "a.tsv".into(), 5));
    assert_eq!(report["rows"]["accepted"], 29, "all are counted");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let reversed: Vec<String> = rows(18..29).lines().rev().map(|line| format!("{line}\r\n")).collect();
    encoder.write_all(reversed.concat().as_bytes()).unwrap();
    scratch.write("logs/c.tsv.gz", encoder.finish().unwrap());
    let report = scratch.run(&[]).json();
    assert_eq!(overlap(&report, 0), ("c.tsv.gz".into(), "b.tsv".into(), 7), "in any order and form");
    assert_eq!(overlap(&report, 1), ("c.tsv.gz".into(), "a.tsv".into(), 2));
    scratch.write("logs/d.tsv", rows(1..20).replace("2025-01", "2025-02"));
    assert_eq!(scratch.run(&[]).json()["overlaps"], serde_json::json!([]));
}

#[test]
fn missing_nights_are_told() {
    let scratch = shop();
    for day in [1, 2, 3, 4, 6] {
        scratch.write(&format!("logs/2025-01-{day:02}.tsv"), rows(day..day + 1));
    }
    let said = scratch.run(&[]);
    assert_eq!(said.code, 0, "a gap holds nothing up");
    assert_eq!(said.json()["gaps"][0]["period"], "2025-01-05");
    assert_eq!(scratch.run(&[]).json()["gaps"].as_array().unwrap().len(), 1, "as long as it is there");
    scratch.write("logs/2025-01-05.tsv", rows(5..6));
    assert_eq!(scratch.run(&[]).json()["gaps"], serde_json::json!([]));
}

#[test]
fn rows_outside_the_months_are_rejects_until_a_wider_job_recounts_their_month() {
    let scratch = shop();
    let march = "7\t2025-03-01T10:00:00Z\tShop\t-3.00\n7\t2025-03-02T10:00:00Z\tShop\t8.00\n";
    scratch.write("logs/a.tsv", rows(1..9) + march).write("logs/b.tsv", rows(10..12));
    let narrow = ["--set", "input.months=2025-01..2025-02", "--set", "limits.rejects_max_ratio=0.5"];
    let said = scratch.run(&narrow);
    assert_eq!((said.code, &said.json()["rejects"]["out_of_window"]), (0, &2.into()), "{}", said.stderr);
    let said = scratch.run(&["--rebuild", "2025-03"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(scratch.published()[&("2025-03".into(), 7, "groceries".into())], (500, 2));
    let fresh = shop();
    fresh.write("logs/a.tsv", rows(1..9) + march).write("logs/b.tsv", rows(10..12));
    fresh.run(&[]);
    let bytes = |scratch: &Scratch| part_bytes(&scratch.lake(), "monthly_spending");
    assert!(bytes(&scratch) == bytes(&fresh), "as if the job had been wider from the first");
    assert_eq!(scratch.run(&["--rebuild", "2025-03"]).code, 0, "again, and nothing is counted twice");
    assert!(bytes(&scratch) == bytes(&fresh));
}

#[test]
fn real_drops_night_by_night_with_one_of_them_twice_in_another_form() {
    let Some(folder) = real_data("birmingham/drops") else { return };
    let scratch = Scratch::new();
    let mut drops: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    drops.retain(|path| path.extension().is_some_and(|e| e == "tsv"));
    drops.sort();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let (mut overlaps, mut held) = (Vec::new(), Vec::new());
    for drop in &drops {
        let name = drop.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(drop).unwrap();
        if name == "2014-05-upload.tsv" {
            let other: Vec<String> = text.lines().rev().map(|line| format!("{line}\r\n")).collect();
            encoder.write_all(other.concat().as_bytes()).unwrap();
            let packed = std::mem::replace(
                &mut encoder,
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()),
            );
            scratch.write(&format!("logs/{name}.gz"), packed.finish().unwrap());
        } else {
            scratch.write(&format!("logs/{name}"), text);
        }
        let report = scratch.run(&[]).json();
        let end = |value: &serde_json::Value| value.as_str().unwrap().rsplit('/').next().unwrap().to_string();
        for overlap in report["overlaps"].as_array().unwrap() {
            overlaps.push((
                end(&overlap["counted_object"]),
                end(&overlap["source_object"]),
                overlap["rows"].as_u64().unwrap(),
            ));
        }
        held.extend(report["held"].as_array().unwrap().iter().map(|h| end(&h["source_object"])));
    }
    held.dedup();
    overlaps.sort_by_key(|overlap| std::cmp::Reverse(overlap.2));
    crate::support::say(&format!("held {held:?}, overlaps {overlaps:?}, net {} cents", net(&scratch)));
    assert_eq!(held, ["2014-06.tsv"], "the one that comes second");
    assert!(overlaps.contains(&("2015-12.tsv".into(), "2016-01.tsv".into(), 42)), "{overlaps:?}");
    assert_eq!(net(&scratch), 2_016_448_186);
    let before = part_bytes(&scratch.lake(), "monthly_spending");
    let again = scratch.run(&[]);
    assert_eq!((again.code, &again.json()["outcome"]), (3, &"nothing_to_do".into()));
    assert!(part_bytes(&scratch.lake(), "monthly_spending") == before, "a second feeding changes nothing");
}
