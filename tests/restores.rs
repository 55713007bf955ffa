//! Tables of one lake that were restored from copies of different nights, in whole or in part.
//!
//! In: histories of several nights with a copy after each, random restores. Out: exit codes, sums, the
//! audit.
//! Invariant: the next run publishes what the logs come to, with every table that follows complete, or is
//! refused with the leader unchanged; no audit is content while a table lacks a run.

use crate::support::{Numbers, Said, Scratch, rounds, seed};
use std::fs;
use std::path::{Path, PathBuf};

const TABLES: [&str; 3] = ["monthly_spending", "transactions", "budget_alerts"];

/// What becomes of a folder of the lake.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Kept,
    /// As it was after that night.
    Whole(usize),
    /// Its log as it was after that night, its parts as they are.
    Log(usize),
    /// Its parts as they were after that night, its log as it is.
    Parts(usize),
    Gone,
}

/// A lake of some nights, with a copy of each.
struct History {
    scratch: Scratch,
    nights: usize,
}

impl History {
    /// Of some nights, after some of which the month is counted anew.
    fn random(numbers: &mut Numbers) -> History {
        let nights = 3 + numbers.below(3);
        History::new(nights, |_| numbers.below(4) == 0)
    }

    fn new(nights: usize, mut is_rebuilt: impl FnMut(usize) -> bool) -> History {
        let tier = "[[tier]]\nname = \"all\"\nincome_from = \"0\"\nshares = { groceries = 0.1 }\n";
        let incomes: String = (1..20).map(|user| format!("{user},1000.00\n")).collect();
        let scratch = Scratch::new()
            .table("sellers.csv", "seller,category\nShop,groceries\n")
            .table("users.csv", &format!("user_id,monthly_income\n{incomes}"))
            .table("budget_template.toml", tier);
        let mut history = History { scratch, nights: 0 };
        for night in 1..=nights {
            history.deliver(night);
            assert_eq!(history.run(&[]).code, 0);
            if is_rebuilt(night) {
                assert_eq!(history.run(&["--rebuild", "2025-01"]).code, 0);
            }
            copy(&history.scratch.lake(), &history.copy_of(night));
            history.nights = night;
        }
        history
    }

    fn copy_of(&self, night: usize) -> PathBuf {
        self.scratch.path(&format!("copies/{night}"))
    }

    /// The log of a night: a user of its own who spends too much.
    fn deliver(&self, night: usize) {
        let line = format!("{night}\t2025-01-{night:02}T10:00:00Z\tShop\t{}.00\n", 200 + night);
        self.scratch.write(&format!("logs/{night}.tsv"), line);
    }

    fn run(&self, more: &[&str]) -> Said {
        self.scratch.run(&[more, &["--set", "output.transactions=true"]].concat())
    }

    fn ask(&self, arguments: &[&str]) -> Said {
        let lake = self.scratch.lake();
        self.scratch.pennymill(&[arguments, &["--lake", lake.to_str().unwrap()]].concat())
    }

    fn answer(&self, sql: &str) -> Option<String> {
        let said = self.ask(&["query", sql, "--format", "csv"]);
        (said.code == 0).then(|| said.stdout.lines().last().unwrap_or_default().to_string())
    }

    /// Puts the lake back to its last night, and then what has a fate to it.
    fn suffer(&self, fates: &[(&str, Fate)]) {
        fs::remove_dir_all(self.scratch.lake()).unwrap();
        copy(&self.copy_of(self.nights), &self.scratch.lake());
        for (folder, fate) in fates {
            let here = self.scratch.lake().join(folder);
            let from = |night: usize| self.copy_of(night).join(folder);
            match *fate {
                Fate::Kept => {}
                Fate::Gone => fs::remove_dir_all(&here).unwrap(),
                Fate::Whole(night) => {
                    fs::remove_dir_all(&here).unwrap();
                    copy(&from(night), &here);
                }
                Fate::Log(night) => {
                    fs::remove_dir_all(here.join("_delta_log")).unwrap();
                    copy(&from(night).join("_delta_log"), &here.join("_delta_log"));
                }
                Fate::Parts(night) => {
                    let log = self.scratch.path("log");
                    fs::rename(here.join("_delta_log"), &log).unwrap();
                    fs::remove_dir_all(&here).unwrap();
                    copy(&from(night), &here);
                    fs::remove_dir_all(here.join("_delta_log")).unwrap();
                    fs::rename(&log, here.join("_delta_log")).unwrap();
                }
            }
        }
    }

    /// Whether every table holds all nights, to the cent.
    fn is_complete(&self, nights: usize) -> bool {
        let total: usize = (1..=nights).map(|night| 200 + night).sum();
        let sum = |table: &str| self.answer(&format!("select sum(amount) from {table}"));
        let is_whole = |table: &str| sum(table) == Some(format!("{total}.00"));
        // None is missing, and none was said twice.
        let sql = "select count(distinct user_id), count(*) - count(distinct alert_id) from budget_alerts";
        let alerts = self.answer(sql) == Some(format!("{nights},0"));
        is_whole("monthly_spending") && is_whole("transactions") && alerts
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The commits of a table.
fn commits(lake: &Path, table: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(lake.join(table).join("_delta_log")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut commits: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    commits.sort();
    commits
}

/// Takes from the manifests what earlier programs did not write there.
fn as_of_an_earlier_program(lake: &Path) {
    for (path, commit) in commits(lake, "monthly_spending") {
        let mut commit = String::from_utf8(commit).unwrap();
        let info: serde_json::Value = serde_json::from_str(commit.lines().next().unwrap()).unwrap();
        let Some(name) = info["commitInfo"]["manifest"].as_str() else { continue };
        let text = fs::read(lake.join(name)).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        manifest.as_object_mut().unwrap().remove("followers");
        let text = serde_json::to_vec_pretty(&manifest).unwrap();
        let checksum = info["commitInfo"]["manifest_sha256"].as_str().unwrap();
        commit = commit.replace(checksum, &pennymill::output::part::sha256(&text));
        fs::write(lake.join(name), text).unwrap();
        fs::write(path, commit).unwrap();
    }
}

fn fate(numbers: &mut Numbers, folder: &str, nights: usize) -> Fate {
    let night = 1 + numbers.below(nights);
    match numbers.below(8) {
        0..=2 => Fate::Kept,
        3 | 4 => Fate::Whole(night),
        5 if folder != "_runs" => Fate::Log(night),
        6 if folder != "_runs" => Fate::Parts(night),
        5..=7 if night == 1 => Fate::Gone,
        _ => Fate::Whole(night),
    }
}

/// Publishes the next night over what the lake has suffered, and holds what comes of it.
fn next_night(history: &History, fates: &[(&str, Fate)], at: &str) -> i32 {
    history.suffer(fates);
    let night = history.nights + 1;
    history.deliver(night);
    let lake = history.scratch.lake();
    let before: Vec<_> = TABLES.map(|table| commits(&lake, table)).to_vec();
    let said = history.run(&[]);
    let audit = history.ask(&["audit", "--share", "0"]);
    match said.code {
        0 => {
            // What lies below a table whose log is whole is for whoever reads it, and for the audit.
            let is_lost = fates.iter().any(|(_, fate)| matches!(fate, Fate::Parts(_)));
            let is_complete = history.is_complete(night);
            assert!(is_complete || is_lost && audit.code == 70, "{at}: incomplete: {}", audit.stdout);
            if is_complete && audit.code != 0 {
                // Parts that older versions name may be gone; nothing that is there may be wrong.
                assert!(is_lost, "{at}: {}", audit.stdout);
            }
        }
        66 | 78 => {
            assert!(said.stderr.lines().all(|line| line.starts_with("pennymill: ")), "{at}: {}", said.stderr);
            for (table, before) in TABLES.iter().zip(before) {
                let after = commits(&lake, table);
                // The tables that follow may have been caught up before.
                let is_same = if *table == TABLES[0] { after == before } else { after.starts_with(&before) };
                assert!(is_same, "{at}: {table} was changed: {}", said.stderr);
            }
        }
        code => panic!("{at}: exit {code}: {}{}", said.stdout, said.stderr),
    }
    if audit.code == 0 {
        // What the run did not publish is no run that a table could lack.
        let nights = if said.code == 0 { night } else { published_nights(history) };
        assert!(history.is_complete(nights), "{at}: the audit is content: {}", audit.stdout);
    }
    fs::remove_file(history.scratch.path(&format!("logs/{night}.tsv"))).unwrap();
    said.code
}

fn published_nights(history: &History) -> usize {
    let users = history.answer("select count(distinct user_id) from monthly_spending");
    users.map_or(0, |users| users.parse().unwrap())
}

#[test]
fn tables_of_different_age_are_made_one_or_refused() {
    let mut numbers = Numbers(seed());
    let mut ended = std::collections::BTreeMap::<i32, usize>::new();
    for round in 0..rounds(2, 20) {
        let history = History::random(&mut numbers);
        if round % 2 == 1 {
            (1..=history.nights).for_each(|night| as_of_an_earlier_program(&history.copy_of(night)));
        }
        for turn in 0..rounds(6, 40) {
            let folders = [TABLES[0], TABLES[1], TABLES[2], "_runs"];
            let mut fates = folders.map(|folder| (folder, fate(&mut numbers, folder, history.nights)));
            // Most often one table alone is restored.
            if turn % 2 == 0 {
                let kept = numbers.below(3) + 1;
                let others = fates.iter_mut().enumerate().filter(|(number, _)| *number != kept);
                others.for_each(|(_, (_, fate))| *fate = Fate::Kept);
            }
            let at = format!("seed {}, history {round}, turn {turn}: {fates:?}", seed());
            *ended.entry(next_night(&history, &fates, &at)).or_default() += 1;
        }
    }
    assert!(ended.contains_key(&0) && ended.len() > 1, "{ended:?}");
}

#[test]
fn a_table_that_follows_is_filled_again_with_every_run_that_it_lacks() {
    let history = History::new(4, |_| false);
    for earlier in [false, true] {
        if earlier {
            (1..=history.nights).for_each(|night| as_of_an_earlier_program(&history.copy_of(night)));
        }
        for table in &TABLES[1..] {
            let code = next_night(&history, &[(table, Fate::Log(1))], table);
            assert_eq!(code, 0, "{table}: its parts are there");
        }
        let both: Vec<(&str, Fate)> = TABLES[1..].iter().map(|table| (*table, Fate::Log(1))).collect();
        assert_eq!(next_night(&history, &both, "both"), 0);
    }
}

#[test]
fn a_part_that_is_gone_is_named_and_no_hole_is_committed() {
    let history = History::new(4, |_| false);
    for table in &TABLES[1..] {
        assert_eq!(
            next_night(&history, &[(table, Fate::Whole(1))], table),
            78,
            "{table}: its parts are gone"
        );
        let said = history.run(&[]);
        assert!(said.stderr.contains(table) && said.stderr.contains("is gone"), "{}", said.stderr);
        assert!(said.stderr.contains("--rebuild 2025-01"), "it names the way out: {}", said.stderr);
    }
    // The way out.
    history.suffer(&[("transactions", Fate::Gone)]);
    assert_eq!(history.run(&[]).code, 78);
    assert_eq!(history.run(&["--rebuild", "2025-01"]).code, 0);
    assert!(history.is_complete(history.nights));
    assert_eq!(history.ask(&["audit"]).code, 0);
}

#[test]
fn a_table_ahead_of_its_leader_is_refused_before_anything_is_counted() {
    let history = History::new(4, |_| false);
    for fate in [Fate::Whole(1), Fate::Log(1), Fate::Gone] {
        let fates = [("monthly_spending", fate)];
        assert_eq!(next_night(&history, &fates, "ahead"), 78);
        let said = history.run(&[]);
        assert!(said.stderr.contains("restore monthly_spending"), "{}", said.stderr);
        assert!(fate == Fate::Gone || history.ask(&["audit", "--share", "0"]).code == 70);
    }
}
