//! Real transactions, where they lie beside the project.
//!
//! In: council purchase cards and household baskets. Out: the totals that their publishers' rows
//! add up to, summed here independently. Invariant: none of it is copied into the project.

use crate::support::{Scratch, part_bytes, real_data};
use std::path::Path;

fn copy(from: &Path, scratch: &Scratch, name: &str) {
    std::fs::copy(from, scratch.path("logs").join(name)).unwrap();
}

fn drops(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

const SECOND_DELIVERY: &str = "2014-05-upload.tsv";

#[test]
fn oxford_has_4368_rows() {
    let Some(file) = real_data("oxford/transactions.tsv") else { return };
    let scratch = Scratch::new();
    copy(&file, &scratch, "oxford.tsv");
    // 21 of its rows, payments by transfer, name no seller: more than a job lets through unasked.
    let said = scratch.run(&[]);
    assert_eq!((said.code, said.stdout.contains("21 of 4368 lines rejected")), (65, true), "{}", said.stdout);
    let report = scratch.run(&["--set", "limits.rejects_max_ratio=0.01"]).json();
    assert_eq!(
        report["rows"],
        serde_json::json!({"read": 4368, "accepted": 4347, "rejected": 21, "blank": 0})
    );
    let text = std::fs::read_to_string(file).unwrap();
    let rows =
        text.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|fields| !fields[2].is_empty());
    let cents: i64 = rows.map(|fields| fields[3].replace('.', "").parse::<i64>().unwrap()).sum();
    assert_eq!(report["amount_cents"]["net"], cents);
}

#[test]
fn completejourney_adds_up_over_thirteen_months() {
    let Some(file) = real_data("completejourney/transactions.tsv.gz") else { return };
    let scratch = Scratch::new();
    copy(&file, &scratch, "baskets.tsv.gz");
    let report = scratch.run(&[]).json();
    assert_eq!(report["rows"]["accepted"], 1_469_307);
    assert_eq!(report["amount_cents"]["net"], 459_603_958);
    assert_eq!(report["months"].as_array().unwrap().len(), 13);
    assert_eq!(report["months"][12]["rows"], 534, "the spill into 2018-01");
    let cents: i64 = scratch.published().values().map(|(cents, _)| cents).sum();
    assert_eq!(cents, 459_603_958);
}

#[test]
fn birmingham_is_the_same_at_once_and_drop_by_drop() {
    let Some(folder) = real_data("birmingham/drops") else { return };
    let (whole, one_by_one) = (Scratch::new(), Scratch::new());
    let files: Vec<_> = drops(&folder).into_iter().filter(|f| !f.ends_with(SECOND_DELIVERY)).collect();
    for file in &files {
        copy(file, &whole, file.file_name().unwrap().to_str().unwrap());
    }
    let said = whole.run(&[]);
    let report = said.json();
    assert_eq!(said.code, 0, "{report}");
    assert_eq!(report["rows"]["accepted"], 127_106);
    assert_eq!(report["rows"]["blank"].as_i64().unwrap() + report["rows"]["rejected"].as_i64().unwrap(), 1);
    assert_eq!(report["amount_cents"]["net"], 2_016_448_186i64);
    for file in &files {
        copy(file, &one_by_one, file.file_name().unwrap().to_str().unwrap());
        let said = one_by_one.run(&[]);
        assert_eq!((said.code, &said.json()["inputs"]["new"]), (0, &1.into()), "{}", said.stdout);
    }
    assert_eq!(
        part_bytes(&whole.lake(), "monthly_spending"),
        part_bytes(&one_by_one.lake(), "monthly_spending")
    );
}

#[test]
fn the_drop_that_was_delivered_twice_is_counted_once() {
    let Some(folder) = real_data("birmingham/drops") else { return };
    let scratch = Scratch::new();
    for file in drops(&folder) {
        copy(&file, &scratch, file.file_name().unwrap().to_str().unwrap());
    }
    let said = scratch.run(&[]);
    let report = said.json();
    assert_eq!((said.code, &report["inputs"]["held"]), (3, &1.into()));
    assert!(report["held"][0]["source_object"].as_str().unwrap().ends_with("2014-06.tsv"));
    assert!(report["held"][0]["reason"].as_str().unwrap().contains(SECOND_DELIVERY));
    assert_eq!(report["amount_cents"]["net"], 2_016_448_186i64);
}
