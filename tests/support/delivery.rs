//! Deliveries: a lake with alerts, jobs that deliver them, what receivers check.
//!
//! In: how many users, a table of contacts. Out: job files, what runs said, signatures.
//! Invariant: a job may deliver to this machine, where all receivers of the tests are.

use super::receiver::Request;
use super::{Said, Scratch, said};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const SECRET: &str = "whsec_Y2FuYXJ5LXNlY3JldC1vZi0yNC1ieXRlcyE=";

/// A lake in which each of these users is told that dining is approached, and then exceeded, by two
/// runs.
pub fn alerted(users: u64) -> Scratch {
    let mut budgets = "user_id,category,amount\n".to_string();
    let (mut first, mut second) = (String::new(), String::new());
    for user in 1..=users {
        budgets += &format!("{user},dining,100.00\n");
        first += &format!("{user}\t2025-01-03T10:00:00Z\tCafe\t85.00\n");
        second += &format!("{user}\t2025-01-04T10:00:00Z\tCafe\t35.00\n");
    }
    let scratch = Scratch::new()
        .table("sellers.csv", "seller,category\nCafe,dining\n")
        .table("budget_overrides.csv", &budgets)
        .environment("PENNYMILL_WEBHOOK_SECRET", SECRET);
    for (name, log) in [("logs/a.tsv", first), ("logs/b.tsv", second)] {
        scratch.write(name, log);
        assert_eq!(scratch.run(&[]).code, 0);
    }
    scratch
}

/// Writes a job that may deliver to this machine, unless it names networks itself. `more` begins with
/// the keys of `[deliver]`, if there are any. Out: its file.
pub fn job(scratch: &Scratch, contacts: &str, more: &str) -> String {
    let header = if contacts.starts_with("user_id,") { "" } else { "user_id,channel,address\n" };
    scratch.write("contacts.csv", format!("{header}{contacts}"));
    let (contacts, lake) = (scratch.path("contacts.csv"), scratch.lake());
    let here = "[deliver]\nnetworks_allowed = [\"127.0.0.0/8\", \"::1/128\"]\n";
    let more = match more.contains("networks_allowed") {
        true => more.to_string(),
        false => format!("{here}{}", more.replacen("[deliver]\n", "", 1)),
    };
    let job = format!(
        "name = \"deliver\"\nkind = \"deliver\"\n[input]\ncontacts = {contacts:?}\n[output]\nlake = {lake:?}\n{more}"
    );
    scratch.write("deliver.toml", job);
    scratch.path("deliver.toml").to_str().unwrap().to_string()
}

pub fn deliver(scratch: &Scratch, job: &str) -> Said {
    scratch.pennymill(&["run", job, "--report", "json"])
}

pub fn select(scratch: &Scratch, sql: &str) -> Vec<String> {
    let lake = scratch.lake();
    let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.stdout.lines().skip(1).map(String::from).collect()
}

/// The secret that the program hands out for an address.
pub fn secret_of(scratch: &Scratch, address: &str) -> String {
    let said = scratch.pennymill(&["webhook-secret", address]);
    assert_eq!((said.code, said.stdout.lines().count()), (0, 1), "{}", said.stderr);
    said.stdout.trim().to_string()
}

/// The signature of a request as its receiver computes it.
pub fn signature(secret: &str, request: &Request) -> String {
    let headers = &request.headers;
    let signed = format!("{}.{}.{}", headers["webhook-id"], headers["webhook-timestamp"], request.body);
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(signed.as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// A copy of a lake with alerts, to be delivered in another way.
pub fn copy_of(scratch: &Scratch) -> Scratch {
    let copy = Scratch::new().environment("PENNYMILL_WEBHOOK_SECRET", SECRET);
    copy_folder(&scratch.lake(), &copy.lake());
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy_folder(&from, &to) } else { assert!(std::fs::copy(&from, &to).is_ok()) }
    }
}

/// What a run said that has to end by itself within this time.
pub fn deliver_within(scratch: &Scratch, job: &str, seconds: u64) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pennymill"));
    command.args(["run", job, "--report", "json"]).envs(scratch.environment.iter().cloned());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while process.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(seconds) {
            process.kill().unwrap();
            let said = said(process.wait_with_output().unwrap());
            panic!("still there after {seconds} s: {} {}", said.stdout, said.stderr);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    said(process.wait_with_output().unwrap())
}
