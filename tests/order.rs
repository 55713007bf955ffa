//! The order in which a run makes things durable.
//!
//! In: a trace of the system calls of a run. Out: whether every name was made of something synced, and
//! every commit of names synced. Invariant: a trace that lacks one of its syncs, or has it too late, is
//! refused.
#![cfg(unix)]

use crate::support::night::{Night, STRACE, able, said};
use crate::support::say;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A system call that did what it was asked to, and when: by lines of the trace.
#[derive(Clone)]
struct Call {
    name: String,
    arguments: String,
    paths: Vec<String>,
    begin: usize,
    end: usize,
}

impl Call {
    fn syncs(&self, path: &str) -> bool {
        ["fsync", "fdatasync"].contains(&self.name.as_str()) && self.paths[0] == path
    }

    fn is_sync(&self) -> bool {
        self.syncs(&self.paths[0])
    }

    /// The folder of the name that it makes.
    fn folder(&self) -> &str {
        self.paths.last().and_then(|path| path.rsplit_once('/')).map_or("", |(folder, _)| folder)
    }
}

fn calls(trace: &str) -> Vec<Call> {
    let (mut begun, mut calls) = (BTreeMap::new(), Vec::new());
    for (end, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let (mut begin, mut text) = (end, text.trim_start().to_string());
        if let Some(head) = text.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (end, head.to_string()));
            continue;
        }
        if let Some((_, rest)) = text.split_once(" resumed>") {
            let Some((since, head)) = begun.remove(thread) else { continue };
            (begin, text) = (since, head + rest);
        }
        let Some((call, result)) = text.rsplit_once(" = ") else { continue };
        let Some((name, arguments)) = call.split_once('(') else { continue };
        if result.starts_with(['-', '?']) {
            continue;
        }
        let paths: Vec<String> = match name {
            "fsync" | "fdatasync" => {
                arguments.split(['<', '>']).nth(1).map(String::from).into_iter().collect()
            }
            _ => arguments.split('"').skip(1).step_by(2).map(String::from).collect(),
        };
        if paths.is_empty() {
            continue;
        }
        calls.push(Call { name: name.into(), arguments: arguments.into(), paths, begin, end });
    }
    calls
}

/// The names made in a lake, and the commits among them. Errors: a name made before what it names or its
/// folder's name was synced, or a commit made before all earlier names were.
fn order(calls: &[Call], lake: &str) -> Result<(usize, usize), String> {
    let mut names: Vec<&Call> = Vec::new();
    for call in calls.iter().filter(|call| !call.is_sync()) {
        let Some(path) = call.paths.last().filter(|path| path.starts_with(lake)) else { continue };
        if call.name == "openat" {
            if call.arguments.contains("O_CREAT") && !path.ends_with("#0") && !path.ends_with("/_lock") {
                return Err(format!("{path} is written in its place"));
            }
            continue;
        }
        let staged = &call.paths[0];
        let is_synced = calls.iter().any(|sync| sync.syncs(staged) && sync.end < call.begin);
        if !call.name.starts_with("mkdir") && !is_synced {
            return Err(format!("{path} has its name before it is synced"));
        }
        // The folder may be one that a dead run has made and not synced.
        let made = calls.iter().find(|made| made.name.starts_with("mkdir") && made.paths[0] == call.folder());
        let above = call.folder().rsplit_once('/').map_or("/", |(above, _)| above);
        let is_found = |sync: &Call| made.is_none_or(|made| sync.begin > made.end) && sync.end < call.begin;
        if !calls.iter().any(|sync| sync.syncs(above) && is_found(sync)) {
            return Err(format!("{path} has its name before its folder's is synced"));
        }
        names.push(call);
    }
    let commits: Vec<&Call> = names.iter().copied().filter(|c| c.folder().ends_with("_delta_log")).collect();
    for name in &names {
        let syncs = calls.iter().filter(|sync| sync.begin > name.end && sync.syncs(name.folder()));
        let Some(synced) = syncs.map(|sync| sync.end).min() else {
            return Err(format!("a name in {} is never synced", name.folder()));
        };
        if commits.iter().any(|commit| commit.begin > name.end && commit.begin < synced) {
            return Err(format!("a commit comes before a name in {} is synced", name.folder()));
        }
    }
    Ok((names.len(), commits.len()))
}

#[test]
fn everything_is_synced_before_it_is_named_and_named_before_the_commit() {
    if !able(&STRACE) {
        return;
    }
    for is_first in [true, false] {
        let night = Night::sample(is_first, true);
        let (lake, trace) = (night.lay(night.scratch.lake()), night.scratch.path("trace"));
        let traced = "trace=openat,mkdir,mkdirat,fsync,fdatasync,link,linkat,rename,renameat,renameat2";
        let wrapper = ["strace", "-f", "-y", "-o", trace.to_str().unwrap(), "-e", traced];
        assert_eq!(said(&mut night.command(&lake, &wrapper)).code, 0);
        let (calls, lake) = (calls(&fs::read_to_string(trace).unwrap()), lake.to_str().unwrap());
        let (names, commits) = order(&calls, lake).unwrap_or_else(|error| panic!("{error}"));
        assert!(names > 15 && commits >= 3, "{names} names and {commits} commits");

        // Each of the syncs is missed, be it left out or late. One is not: that of an object which lost
        // its name to another.
        let syncs = calls.iter().filter(|call| call.is_sync() && call.paths[0].starts_with(lake));
        let paths: BTreeSet<&String> = syncs.map(|call| &call.paths[0]).collect();
        for path in paths {
            let is_named = |call: &Call| !call.is_sync() && call.name != "openat" && call.paths[0] == *path;
            if path.ends_with("#0") && !calls.iter().any(is_named) {
                continue;
            }
            let (mut without, mut late) = (calls.clone(), calls.clone());
            without.retain(|call| !call.syncs(path));
            assert!(order(&without, lake).is_err(), "{path} need not be synced");
            late.iter_mut().filter(|call| call.syncs(path)).for_each(|call| {
                (call.begin, call.end) = (usize::MAX, usize::MAX);
            });
            // Behind the last commit there is none to be late for.
            assert!(path.ends_with("_delta_log") || order(&late, lake).is_err(), "{path} may be late");
        }
        say(&format!("order of syncs: {names} names, {commits} commits, every sync missed when it fails"));
    }
}
