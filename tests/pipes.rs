//! Pipes, sockets, devices, folders and links where a plain file is expected.
//!
//! In: each of them under the name of a table, a job, a lock, a commit. Out: exit codes, one line.
//! Invariant: nobody waits for the other end of a pipe, nothing is written where a link leads, and the
//! message names the file and what to do.

use crate::support::{Said, Scratch};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes as long as this, but waiting.
const PATIENCE: Duration = Duration::from_secs(30);

fn pipe(path: &Path) {
    if path.exists() {
        fs::remove_file(path).unwrap();
    }
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Runs the program; one that is still there after that is killed, and has waited.
fn run(arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pennymill"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, started) = (command.spawn().unwrap(), Instant::now());
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{arguments:?} waits");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A lake of one night with all kinds of tables beside it.
fn night() -> Scratch {
    let scratch = Scratch::new()
        .table("sellers.csv", "seller,category\nShop,groceries\n")
        .table("category_overrides.csv", "user_id,seller,category,set_at\n")
        .table("users.csv", "user_id,monthly_income\n1,1000.00\n");
    scratch.write("logs/1.tsv", "1\t2025-01-01T10:00:00Z\tShop\t1.50\n");
    scratch.write("labels.csv", "seller,account,rows\nShop,food,1\n");
    scratch.write("contacts.csv", "user_id,channel,address\n");
    scratch.write("question.sql", "select 1 as one");
    let lake = scratch.lake();
    let of_kind = |kind: &str, more: &str| {
        format!("name = \"job\"\nkind = \"{kind}\"\n{more}\n[output]\nlake = {lake:?}\n")
    };
    scratch.write("sql.toml", of_kind("sql", "query = \"question.sql\""));
    let contacts = format!("[input]\ncontacts = {:?}", scratch.path("contacts.csv"));
    scratch.write("deliver.toml", of_kind("deliver", &contacts));
    assert_eq!(scratch.run(&[]).code, 0);
    scratch
}

#[test]
fn a_pipe_is_refused_at_once_wherever_it_lies() {
    let lake_files = [
        "_runs/_lock",
        "_runs/_probe",
        "monthly_spending/_delta_log/00000000000000000001.json",
        "monthly_spending/_delta_log/00000000000000000002.json",
        "monthly_spending/_delta_log/_last_checkpoint",
        "budget_alerts/_delta_log/00000000000000000000.json",
    ];
    let named = ["sellers.csv", "category_overrides.csv", "users.csv", "job.toml"];
    let files = named.map(String::from).into_iter().chain(lake_files.map(|file| format!("lake/{file}")));
    let spending: Vec<(String, &str)> = files.map(|file| (file, "run")).collect();
    let others = [
        ("question.sql", "sql"),
        ("sql.toml", "sql"),
        ("contacts.csv", "deliver"),
        ("lake/_runs/_deliver_lock", "deliver"),
        ("labels.csv", "score"),
        ("lake/_runs/_lock", "gc"),
        ("lake/_runs/_clock", "gc"),
        ("lake/monthly_spending/_delta_log/00000000000000000002.json", "query"),
    ];
    let others = others.map(|(file, what)| (file.to_string(), what));
    for (file, what) in spending.into_iter().chain(others) {
        let scratch = night();
        scratch.write("logs/2.tsv", "1\t2025-01-02T10:00:00Z\tShop\t1.50\n");
        let path = |name: &str| scratch.path(name).to_str().unwrap().to_string();
        fs::create_dir_all(scratch.path(&file).parent().unwrap()).unwrap();
        pipe(&scratch.path(&file));
        let said = match what {
            "run" => run(&["run", &path("job.toml")]),
            "sql" => run(&["run", &path("sql.toml")]),
            "deliver" => run(&["run", &path("deliver.toml")]),
            "score" => run(&["score", "--labels", &path("labels.csv")]),
            "gc" => run(&["gc", "--lake", &path("lake")]),
            _ => run(&["query", "--lake", &path("lake"), "select * from monthly_spending"]),
        };
        let at = format!("{file} for {what}: {} {}{}", said.code, said.stdout, said.stderr);
        // The one is written anew, over whatever lies there; of the others a log has no need.
        let is_harmless = ["_clock", "_last_checkpoint", "00000000000000000000.json"];
        if is_harmless.iter().any(|name| file.ends_with(name)) && said.code == 0 {
            continue;
        }
        let code = if said.stderr.contains("named pipe") { 78 } else { 66 };
        assert!(said.code == code && said.stderr.lines().count() == 1, "{at}");
        assert!(code == 66 || said.stderr.contains(file.rsplit('/').next().unwrap()), "{at}");
    }
}

#[test]
fn sockets_devices_and_folders_are_no_tables() {
    let scratch = night();
    scratch.write("logs/2.tsv", "1\t2025-01-02T10:00:00Z\tShop\t1.50\n");
    let socket = scratch.path("socket.csv");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    symlink("/dev/zero", scratch.path("zero.csv")).unwrap();
    symlink("/dev/zero", scratch.path("zero.toml")).unwrap();
    fs::create_dir(scratch.path("folder.csv")).unwrap();
    for (name, code) in [("socket.csv", 78), ("zero.csv", 78), ("folder.csv", 66)] {
        let table = format!("input.sellers={:?}", scratch.path(name));
        let said = run(&["run", scratch.job().to_str().unwrap(), "--set", &table]);
        assert!(said.code == code && said.stderr.contains(name), "{name}: {}{}", said.code, said.stderr);
    }
    let said = run(&["run", scratch.path("zero.toml").to_str().unwrap()]);
    assert!(said.code == 78 && said.stderr.contains("device"), "{}", said.stderr);
    // A link to a plain file is as good as the file: secrets and tables are mounted so.
    symlink(scratch.path("sellers.csv"), scratch.path("linked.csv")).unwrap();
    let table = format!("input.sellers={:?}", scratch.path("linked.csv"));
    assert_eq!(run(&["run", scratch.job().to_str().unwrap(), "--set", &table]).code, 0);
}

#[test]
fn a_lock_that_is_a_link_is_refused_and_makes_nothing() {
    for (lock, job) in [("_lock", "sql.toml"), ("_deliver_lock", "deliver.toml"), ("_lock", "job.toml")] {
        let (scratch, outside) = (night(), tempfile::tempdir().unwrap());
        let path = scratch.lake().join("_runs").join(lock);
        for kind in ["link", "folder"] {
            if path.symlink_metadata().is_ok() {
                fs::remove_file(&path).unwrap();
            }
            match kind {
                "link" => symlink(outside.path().join("made"), &path).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            let said = run(&["run", scratch.path(job).to_str().unwrap()]);
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{lock} has made a file outside");
            assert!(said.code == 78 && said.stderr.contains(kind), "{lock}: {} {}", said.code, said.stderr);
            assert!(said.stderr.contains(lock) && said.stderr.lines().count() == 1, "{}", said.stderr);
        }
    }
}

#[test]
fn nothing_is_written_through_a_link_in_a_lake() {
    for linked in
        ["_runs", "monthly_spending", "monthly_spending/month=2025-01-01", "monthly_spending/_delta_log"]
    {
        let (scratch, outside) = (night(), tempfile::tempdir().unwrap());
        let (folder, moved) = (scratch.lake().join(linked), outside.path().join("moved"));
        fs::rename(&folder, &moved).unwrap();
        symlink(&moved, &folder).unwrap();
        let entries = || fs::read_dir(&moved).unwrap().count();
        let before = entries();
        scratch.write("logs/2.tsv", "1\t2025-01-02T10:00:00Z\tShop\t1.50\n");
        for command in [&["run"][..], &["gc", "--lake"]] {
            let target = if command[0] == "run" { scratch.path("job.toml") } else { scratch.lake() };
            let said = run(&[command, &[target.to_str().unwrap()]].concat());
            let at = format!("{linked}, {command:?}: {} {}{}", said.code, said.stdout, said.stderr);
            // Where there is nothing to write, a link is reported.
            let code = if command[0] == "run" || linked == "_runs" { 78 } else { 3 };
            assert!(said.code == code && said.stderr.contains("link"), "{at}");
            assert!(said.stderr.contains(linked.rsplit('/').next().unwrap()), "{at}");
            assert_eq!(entries(), before, "{at}: something was written behind the link");
        }
    }
    // The lake itself may lie behind one.
    let scratch = night();
    fs::rename(scratch.lake(), scratch.path("elsewhere")).unwrap();
    symlink(scratch.path("elsewhere"), scratch.lake()).unwrap();
    scratch.write("logs/2.tsv", "1\t2025-01-02T10:00:00Z\tShop\t1.50\n");
    assert_eq!(run(&["run", scratch.path("job.toml").to_str().unwrap()]).code, 0);
}
