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
    let start = |index: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(SHARE, index.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let started: Vec<_> = (0..count).map(start).collect();
    for share in started {
        let ended = share.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&ended.stderr);
        // Runs that are disturbed talk; the failure is what was said last.
        let last: Vec<&str> = complaint.lines().rev().take(20).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        assert!(ended.status.success(), "{test}:\n{}", last.join("\n"));
        said.lines().filter_map(|line| line.split_once(FIGURES)).for_each(|(_, figures)| say(figures));
    }
    None
}
