//! A night whose outcome is known, and the mounts and limits that it is run under.
//!
//! In: the sample data or logs of the test's own. Out: the lakes before and after, and what a run said.
//! Invariant: a lake is as it was before the run or as it is after it, whole.

use super::{Said, Scratch, part_bytes, say};
use pennymill::output::lake::MONTHLY_SPENDING;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// What has to work here for a test to mean something.
pub const TMPFS: [&str; 7] = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"];
pub const IMAGES: [&str; 5] = [
    "unshare",
    "-m",
    "sh",
    "-c",
    "image=$(mktemp) && truncate -s 16M \"$image\" && mkfs.ext4 -q -F \"$image\" && \
     mount -o loop \"$image\" /mnt; worked=$?; rm -f \"$image\"; exit $worked",
];
pub const STRACE: [&str; 4] = ["strace", "-o", "/dev/null", "true"];
pub const FILE_LIMITS: [&str; 3] = ["bash", "-c", "trap '' XFSZ; ulimit -f 4"];

pub fn able(command: &[&str]) -> bool {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let works = output.is_ok_and(|output| output.status.success());
    if !works {
        say(&format!("skipped: this does not work here: {}", command.join(" ")));
    }
    works
}

pub fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs to the end; a signal is told as a shell tells it, as 128 and its number.
pub fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: code.unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A run that gave up says so in one line.
pub fn refused(said: &Said, codes: &[i32], context: &str) {
    assert!(codes.contains(&said.code), "{context}: exit {} and not {codes:?}: {}", said.code, said.stderr);
    let is_line = said.stderr.lines().count() == 1 && said.stderr.starts_with("pennymill: ");
    assert!(is_line, "{context}: {}", said.stderr);
}

/// All files and folders below.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    let below: Vec<PathBuf> = found.iter().flat_map(|path| entries(path)).collect();
    found.extend(below);
    found
}

/// A job, and what has to come of it.
pub struct Night {
    pub scratch: Scratch,
    before: Vec<(String, Vec<u8>)>,
    after: Vec<(String, Vec<u8>)>,
    followers: String,
    logs: Vec<(PathBuf, u64, SystemTime)>,
}

/// What the tables say that follow the commit, where they are.
const FOLLOWERS: [&str; 2] = [
    "select * exclude (run_id) from budget_alerts order by alert_id",
    "select sum(line), sum(amount), user_id % 16 u, month, category from transactions \
     group by u, month, category order by u, month, category",
];

impl Night {
    /// The logs of `scratch` are new to its lake `before`, if there is one.
    pub fn of(scratch: Scratch) -> Night {
        let (before, after) = (part_bytes(&scratch.path("before"), MONTHLY_SPENDING), Vec::new());
        let mut night = Night { scratch, before, after, followers: String::new(), logs: Vec::new() };
        night.logs = night.logs_now();
        let lake = night.lay(night.scratch.path("after"));
        let said = said(&mut night.command(&lake, &[]));
        assert_eq!(said.code, 0, "{}", said.stderr);
        (night.after, night.followers) = (part_bytes(&lake, MONTHLY_SPENDING), night.ask_followers(&lake));
        assert!(night.before != night.after);
        night
    }

    /// The sample data: all of it at once, or March and late rows on top of a lake. With `follows`, two
    /// tables follow the commit; without, nothing is synced after it.
    pub fn sample(is_first: bool, follows: bool) -> Night {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample_data");
        let tables = ["sellers.csv", "users.csv", "budget_template.toml"];
        let line = |name: &str| format!("{} = {:?}\n", name.split('.').next().unwrap(), sample.join(name));
        let lines: String = tables[..if follows { 3 } else { 1 }].iter().map(|name| line(name)).collect();
        let scratch = Scratch::new().input(&lines).rest(&format!("transactions = {follows}"));
        let deliver = |month: &str| {
            let name = format!("logs/{month}-part-0001.tsv");
            fs::copy(sample.join(&name), scratch.path(&name)).unwrap();
        };
        deliver("2025-01");
        deliver("2025-02");
        if !is_first {
            let lake = format!("output.lake={}", scratch.path("before").display());
            let said = scratch.run(&["--set", &lake]);
            assert_eq!(said.code, 0, "{}", said.stderr);
        }
        deliver("2025-03");
        scratch.write("logs/late.tsv", "1\t2025-01-31T23:59:59Z\tSomebody\t1.00\n");
        Night::of(scratch)
    }

    /// Another lake as it was before.
    pub fn lay(&self, lake: PathBuf) -> PathBuf {
        let before = self.scratch.path("before");
        if before.exists() {
            done(Command::new("cp").arg("-a").args([&before, &lake]));
        }
        lake
    }

    /// The run, started by `wrapper` if there is one.
    pub fn command(&self, lake: &Path, wrapper: &[&str]) -> Command {
        let (job, lake) = (self.scratch.job(), format!("output.lake={}", lake.display()));
        let run = [env!("CARGO_BIN_EXE_pennymill"), "run", job.to_str().unwrap(), "--report", "json"];
        let words: Vec<&str> = wrapper.iter().copied().chain(run).chain(["--set", lake.as_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    }

    pub fn ask_followers(&self, lake: &Path) -> String {
        let lake = lake.to_str().unwrap();
        let ask =
            |sql: &str| self.scratch.pennymill(&["query", "--lake", lake, sql, "--format", "csv"]).stdout;
        FOLLOWERS.map(ask).concat()
    }

    pub fn logs_now(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let mut logs = entries(&self.scratch.path("logs"));
        logs.sort();
        let look = |path: PathBuf| {
            let found = fs::metadata(&path).unwrap();
            (path, found.len(), found.modified().unwrap())
        };
        logs.into_iter().map(look).collect()
    }

    /// Whether a reader sees the lake as it is after the night; as before it is all right too.
    pub fn is_after(&self, lake: &Path, context: &str) -> bool {
        let seen = part_bytes(lake, MONTHLY_SPENDING);
        assert!(seen == self.before || seen == self.after, "{context}: a reader sees half of a run");
        seen == self.after
    }

    /// Starts the job again: whatever was before, that has to be the end of it.
    pub fn mend(&self, lake: &Path, context: &str) {
        let outcome = if self.is_after(lake, context) { "nothing_to_do" } else { "published" };
        let said = said(&mut self.command(lake, &[]));
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{context}");
        assert_eq!(said.json()["outcome"], outcome, "{context}");
        assert!(part_bytes(lake, MONTHLY_SPENDING) == self.after, "{context}: another lake");
        assert!(self.ask_followers(lake) == self.followers, "{context}: other alerts or transactions");
        assert_eq!(self.logs_now(), self.logs, "{context}: logs were touched");
    }

    pub fn expect_nothing_staged(&self, lake: &Path, context: &str) {
        let staged = |path: &PathBuf| path.to_string_lossy().ends_with("#0");
        assert!(!entries(lake).iter().any(staged), "{context}: half an object was left");
    }
}

/// Something mounted on a folder of the test's own until it is dropped.
pub struct Mount {
    pub at: PathBuf,
}

impl Mount {
    pub fn new(at: PathBuf, arguments: &[&str]) -> Mount {
        fs::create_dir_all(&at).unwrap();
        done(Command::new("mount").args(arguments).arg(&at));
        Mount { at }
    }

    pub fn tmpfs(at: PathBuf, options: &str) -> Mount {
        Mount::new(at, &["-t", "tmpfs", "-o", options, "none"])
    }

    pub fn remount(&self, options: &str) {
        done(Command::new("mount").arg("-o").arg(format!("remount,{options}")).arg(&self.at));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg(&self.at).output();
        if !gone.is_ok_and(|output| output.status.success()) {
            let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        }
    }
}
