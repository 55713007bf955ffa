//! Machines and users that are not what they seem: other zones, tongues and clocks; ids and sellers
//! that are chosen to meet in one place.
//!
//! In: the same logs in many environments; logs of chosen ids and sellers beside random ones. Out: pass,
//! with how much longer the chosen ones took.
//! Invariant: what is published depends on the logs, the tables and the job alone, and nobody can make
//! a run slow by choosing names.

use crate::bad_input::published;
use crate::support::{Numbers, Scratch, part_bytes, rounds, say, seed};
use std::path::Path;
use std::process::Command;

type Id = fn(u64) -> u64;
type Name = fn(usize) -> String;
type PartBytes = Vec<(String, Vec<u8>)>;

/// A run over the same odd logs, in a world that is set up in some way. Out: what must not differ.
fn told(logs: &Path, environment: &[(&str, &str)], clock: Option<&str>) -> (Vec<String>, Vec<PartBytes>) {
    let set = |scratch: Scratch, (name, value): &(&str, &str)| scratch.environment(name, value);
    let scratch = environment.iter().fold(Scratch::new(), set);
    let scratch = scratch
        .input(&format!("logs = {logs:?}\ntime_zone = \"Europe/Berlin\""))
        .table("sellers.csv", "seller,category\nISTANBUL MARKET,groceries\nİstanbul Kafe,dining\n")
        .table("budget_overrides.csv", "user_id,category,amount\n1,groceries,10.00\n")
        .rest("transactions = true\n[limits]\nrejects_max_ratio = 1.0");
    let report = match clock {
        None => scratch.run(&[]).json(),
        Some(clock) => {
            let job = scratch.job();
            let run = [clock, env!("CARGO_BIN_EXE_pennymill"), "run", job.to_str().unwrap()];
            let output = Command::new("faketime").arg("-f").args(run).args(["--report", "json"]).output();
            serde_json::from_slice(&output.unwrap().stdout).unwrap()
        }
    };
    assert_eq!(report["rejects"], serde_json::json!({"bad_amount": 2, "nonexistent_local_time": 5}));
    let keys = ["rows", "rejects", "amount_cents", "months", "categorized", "alerts", "alerts_as_of"];
    let tables = ["monthly_spending", "transactions"];
    (
        keys.map(|key| report[key].to_string()).to_vec(),
        tables.map(|table| part_bytes(&scratch.lake(), table)).to_vec(),
    )
}

#[test]
fn neither_time_zone_nor_locale_nor_clock_of_the_machine_changes_anything() {
    let shared = Scratch::new();
    let times =
        ["2025-01-31T23:30:00", "2025-03-30T02:30:00", "2025-10-26T02:30:00", "2025-02-01", "1738364399"];
    let sellers = ["ISTANBUL market", "istanbul MARKET", "İSTANBUL KAFE", "ıstanbul kafe", "Straße"];
    let line = |(index, time): (usize, &&str)| {
        sellers.map(|seller| format!("1\t{time}\t{seller}\t{index}.50\n")).concat()
    };
    let bad = "1\t2025-01-01\tShop\t1,50\n1\t2025-01-01\tShop\t١\n";
    shared.write("logs/a.tsv", times.iter().enumerate().map(line).collect::<String>() + bad);
    let logs = shared.path("logs/");
    let expected = told(&logs, &[("TZ", "UTC"), ("LC_ALL", "C")], None);
    for (zone, locale) in [("Asia/Tokyo", "tr_TR.UTF-8"), (":/nowhere", "de_DE.ISO-8859-1"), ("", "")] {
        let environment = [("TZ", zone), ("LC_ALL", locale), ("LANG", locale)];
        assert!(told(&logs, &environment, None) == expected, "TZ={zone} LC_ALL={locale}");
    }
    match Command::new("faketime").arg("--version").output() {
        Err(_) => say("skipped: there is no faketime to set a clock with"),
        Ok(_) => {
            for clock in ["-5y", "+5y"] {
                assert!(told(&logs, &[], Some(clock)) == expected, "a clock of {clock}");
            }
        }
    }
}

/// The shortest time of three runs over a log, without what it takes to plan and to publish.
fn seconds(log: &str) -> f64 {
    let run = |_| {
        let (report, _) = published(&format!("floods://of{}", log.len()), &[("a.tsv", log.as_bytes())]);
        assert_eq!(report.rows.accepted as usize, log.lines().count());
        report.seconds.map + report.seconds.reduce
    };
    (0..3).map(run).fold(f64::INFINITY, f64::min)
}

/// How many times longer chosen names may take than random ones, on a machine that does other things
/// as well.
const RATIO_MAX: f64 = 5.0;

fn compare(what: &str, random: f64, chosen: f64) {
    let ratio = chosen / random;
    say(&format!("{what}: {ratio:.2} times as long as random ones"));
    assert!(ratio < RATIO_MAX, "{what}: {chosen:.3} s, and {random:.3} s for random ones");
}

#[test]
fn chosen_users_cost_what_random_ones_cost() {
    let users = rounds(200_000, 1_000_000).clamp(1000, 1 << 20) as u64;
    let log = |user: &dyn Fn(u64) -> u64| -> String {
        let line = |k| format!("{}\t2025-01-10T10:00:00Z\tShop\t1.00\n", user(k));
        (0..users).map(line).collect()
    };
    let mut numbers = Numbers(seed());
    let ids: Vec<u64> = (0..users).map(|_| numbers.below(i64::MAX as usize) as u64).collect();
    let random = seconds(&log(&|k| ids[k as usize]));
    let chosen: [(&str, Id); 5] = [
        ("users in a row", |k| k),
        ("multiples of 2^32", |k| k << 32),
        ("users that share 43 low bits", |k| k << 43 | 5),
        ("users just below 2^63", |k| i64::MAX as u64 - k),
        // The multiplication that spreads ids (Fibonacci hashing) undone: their high bits are the same.
        ("users that share a hash", |k| k.wrapping_mul(0xF1DE_83E1_9937_733D) & i64::MAX as u64),
    ];
    for (what, user) in chosen {
        compare(what, random, seconds(&log(&user)));
    }
}

/// A word for a number: digits might be taken for a reference.
fn word(mut number: usize) -> String {
    let letter = |_| {
        let letter = b'a' + (number % 26) as u8;
        number /= 26;
        char::from(letter)
    };
    (0..8).map(letter).collect()
}

#[test]
fn chosen_sellers_cost_what_random_ones_cost() {
    let sellers = rounds(20_000, 200_000).clamp(1000, 1 << 20);
    let log = |seller: &mut dyn FnMut(usize) -> String| -> String {
        let line = |k| format!("7\t2025-01-10T10:00:00Z\t{}\t1.00\n", seller(k));
        (0..sellers).map(line).collect()
    };
    let mut numbers = Numbers(seed());
    let random = seconds(&log(&mut |_| (0..6).map(|_| word(numbers.below(1 << 37))).collect()));
    let chosen: [(&str, Name); 5] = [
        ("sellers that end otherwise", |k| "a".repeat(40) + &word(k)),
        ("sellers that begin otherwise", |k| word(k) + &"a".repeat(40)),
        ("sellers that differ in the middle", |k| "a".repeat(16) + &word(k) + &"a".repeat(24)),
        ("long sellers that end otherwise", |k| "a".repeat(60) + &word(k)),
        ("sellers of many words", |k| format!("{} a b c d e f g h i j k l m n", word(k))),
    ];
    for (what, seller) in chosen {
        compare(what, random, seconds(&log(&mut |k| seller(k))));
    }
}
