//! What the fuzzer starts from and once stumbled over, and random changes of it.
//!
//! In: `fuzz/corpus/`, a seed. Out: pass, or the file or the round that fails, with its bytes.
//! Invariant: the checks are the fuzzer's own; a file whose name begins with `good` has something
//! good in it, so that no check passes because everything is refused at its door.

#[path = "../fuzz/checks/mod.rs"]
mod checks;

use crate::support::{Numbers, rounds, say, seed};
use checks::{CHECKS, Check};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Bytes that mean something to one reader or another.
const TELLING: &[u8] = b"\t\n\r\0 .,:;-+*#\"'\\[]{}=/09TZe\x7F\x80\xC3\xEF\xFF";

/// More than a line may have.
const MANY_BYTES: usize = 70_000;

/// The most that a message shows.
const SHOWN_BYTES: usize = 8192;

/// The name of a file and what it holds.
type File = (String, Vec<u8>);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// By their names.
fn corpus(target: &str) -> Vec<File> {
    let entries = std::fs::read_dir(folder().join(target)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let file = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        (path.file_name().unwrap().to_str().unwrap().to_string(), bytes)
    };
    paths.into_iter().map(file).collect()
}

/// Runs a check. `what` names its bytes, should it fail.
fn check(check: Check, bytes: &[u8], what: &str) -> bool {
    std::panic::catch_unwind(|| check(bytes)).unwrap_or_else(|_| {
        let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
        panic!("{what} fails, {} bytes: b\"{}\"", bytes.len(), shown.escape_ascii())
    })
}

#[test]
fn every_file_of_the_corpus_holds() {
    let folders = std::fs::read_dir(folder()).unwrap();
    let folders: BTreeSet<String> =
        folders.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_string()).collect();
    let targets = BTreeSet::from(CHECKS.map(|(target, _)| target.to_string()));
    assert_eq!(folders, targets, "a folder for each check");
    let mut files = 0;
    for (target, run) in CHECKS {
        for (name, bytes) in corpus(target) {
            let found_good = check(run, &bytes, &format!("{target}/{name}"));
            assert!(found_good || !name.starts_with("good"), "{target}/{name}: nothing in it is good");
            files += 1;
        }
    }
    say(&format!("fuzz corpus: {files} files for {} checks hold", CHECKS.len()));
}

#[test]
fn random_changes_of_the_corpus_hold() {
    let rounds = rounds(2_000, 200_000);
    // Ledgers are held to a checksum before they are read, and the reader of Parquet has assertions about
    // what it is given.
    for (target, run) in CHECKS.into_iter().filter(|(target, _)| *target != "ledger") {
        let (files, mut numbers) = (corpus(target), Numbers(seed()));
        // Only where lines are read does it matter how long they are.
        let may_swell = ["line", "archive"].contains(&target);
        let mut good = 0;
        for round in 0..rounds {
            let bytes = changed(&mut numbers, &files, may_swell);
            let what = format!("{target}, PENNYMILL_SEED={}, round {round}", seed());
            good += usize::from(check(run, &bytes, &what));
        }
        let are_mixed = good > 0 && good < rounds;
        assert!(are_mixed || rounds < 100, "{target}: {good} of {rounds} are good: one kind is not tried");
        say(&format!("{target}: {rounds} changed inputs hold, {good} of them with something good in them"));
    }
}

/// A file with a few changes, such as a bad disk, a careless hand or an enemy would make.
fn changed(numbers: &mut Numbers, files: &[File], may_swell: bool) -> Vec<u8> {
    let mut bytes = numbers.one_of(files).1.clone();
    for _ in 0..1 + numbers.below(4) {
        let start = numbers.below(bytes.len() + 1);
        let end = start + numbers.below((bytes.len() - start).min(40) + 1);
        match numbers.below(8) {
            0 => bytes.insert(start, numbers.below(256) as u8),
            1 => bytes.insert(start, *numbers.one_of(TELLING)),
            2 if start < bytes.len() => bytes[start] ^= 1 << numbers.below(8),
            3 if start < bytes.len() => bytes[start] = *numbers.one_of(TELLING),
            4 => drop(bytes.drain(start..end)),
            5 => bytes.extend_from_within(start..end),
            6 if may_swell && numbers.below(50) == 0 => {
                let many = std::iter::repeat_n(*numbers.one_of(TELLING), MANY_BYTES);
                drop(bytes.splice(start..end, many));
            }
            _ => {
                // A stretch of another file, or of the same one.
                let other = &numbers.one_of(files).1;
                let from = numbers.below(other.len() + 1);
                let until = from + numbers.below((other.len() - from).min(40) + 1);
                drop(bytes.splice(start..end, other[from..until].iter().copied()));
            }
        }
    }
    bytes
}
