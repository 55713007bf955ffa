//! Harnesses that work in processes of their own: one for each share of their cases.
//!
//! In: the name of the test that asks. Out: the share that this process is to do, or nothing for the
//! process that has started the others and has seen them end well.
//! Invariant: a share that fails fails the test, with what it said.

use super::say;
use std::process::{Command, Stdio};

const SHARE: &str = "PENNYMILL_SHARE";
const FIGURES: &str = "figures: ";

/// This process does those cases whose number has this remainder.
#[derive(Clone, Copy)]
pub struct Share {
    pub index: usize,
    pub count: usize,
}

impl Share {
    /// What came of it, for the process that asked.
    pub fn say(&self, figures: &str) {
        println!("{FIGURES}{figures}");
    }
}

/// Starts the test again in so many processes, unless this is one of them.
pub fn shares(test: &str, count: usize) -> Option<Share> {
    if let Ok(index) = std::env::var(SHARE) {
        return Some(Share { index: index.parse().unwrap(), count });
    }
    // Runs that are disturbed talk, more than a pipe holds.
    let start = |index: usize| {
        let complaints = tempfile::NamedTempFile::new().unwrap();
        let started = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(SHARE, index.to_string())
            .stdout(Stdio::piped())
            .stderr(complaints.reopen().unwrap())
            .spawn();
        (started.unwrap(), complaints)
    };
    let started: Vec<_> = (0..count).map(start).collect();
    for (share, complaints) in started {
        let ended = share.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let complaints = std::fs::read_to_string(complaints.path()).unwrap();
        let failure = complaints.find("panicked at").map_or("", |at| &complaints[at..]);
        let failure: Vec<&str> = failure.lines().take(4).collect();
        assert!(ended.status.success(), "{test}: {}", failure.join("\n"));
        said.lines().filter_map(|line| line.split_once(FIGURES)).for_each(|(_, figures)| say(figures));
    }
    None
}
