//! The machine fails under a run: power, disks, limits, memory.
//!
//! In: ext4 images, small disks, limits of the system, control groups, traces of system calls.
//! Out: exit codes, and lakes.
//! Invariant: a lake is as it was before a run or as it is after it, whole; what was acknowledged stays
//! when the power goes; starting again gives the lake of a night that nothing disturbed.
#![cfg(unix)]

use crate::support::{Numbers, Said, Scratch, part_bytes, rounds, say, seed};
use pennymill::output::lake::MONTHLY_SPENDING;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// What has to work here for a test to mean something.
const TMPFS: [&str; 7] = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"];
const IMAGES: [&str; 5] = [
    "unshare",
    "-m",
    "sh",
    "-c",
    "image=$(mktemp) && truncate -s 16M \"$image\" && mkfs.ext4 -q -F \"$image\" && \
     mount -o loop \"$image\" /mnt; worked=$?; rm -f \"$image\"; exit $worked",
];
const STRACE: [&str; 4] = ["strace", "-o", "/dev/null", "true"];
const FILE_LIMITS: [&str; 3] = ["bash", "-c", "trap '' XFSZ; ulimit -f 4"];

fn able(command: &[&str]) -> bool {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let works = output.is_ok_and(|output| output.status.success());
    if !works {
        say(&format!("skipped: this does not work here: {}", command.join(" ")));
    }
    works
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs to the end; a signal is told as a shell tells it, as 128 and its number.
fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: code.unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A run that gave up says so in one line.
fn refused(said: &Said, codes: &[i32], context: &str) {
    assert!(codes.contains(&said.code), "{context}: exit {} and not {codes:?}: {}", said.code, said.stderr);
    let is_line = said.stderr.lines().count() == 1 && said.stderr.starts_with("pennymill: ");
    assert!(is_line, "{context}: {}", said.stderr);
}

/// All files and folders below.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    let below: Vec<PathBuf> = found.iter().flat_map(|path| entries(path)).collect();
    found.extend(below);
    found
}

/// A job, and what has to come of it.
struct Night {
    scratch: Scratch,
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
    fn of(scratch: Scratch) -> Night {
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
    fn sample(is_first: bool, follows: bool) -> Night {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample_data");
        let tables = ["sellers.csv", "users.csv", "budget_template.toml"];
        let line = |name: &str| format!("{} = {:?}\n", name.split('.').next().unwrap(), sample.join(name));
        let lines: String = tables[..if follows { 3 } else { 1 }].iter().map(|name| line(name)).collect();
        let scratch = Scratch::new().input(&lines).rest(&format!("transactions = {follows}"));
        let deliver = |month: &str| {
            let name = format!("logs/{month}-part-0001.tsv");
            fs::copy(sample.join(&name), scratch.path(&name)).unwrap();
        };
        ["2025-01", "2025-02"].map(deliver);
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
    fn lay(&self, lake: PathBuf) -> PathBuf {
        let before = self.scratch.path("before");
        if before.exists() {
            done(Command::new("cp").arg("-a").args([&before, &lake]));
        }
        lake
    }

    /// The run, started by `wrapper` if there is one.
    fn command(&self, lake: &Path, wrapper: &[&str]) -> Command {
        let (job, lake) = (self.scratch.job(), format!("output.lake={}", lake.display()));
        let run = [env!("CARGO_BIN_EXE_pennymill"), "run", job.to_str().unwrap(), "--report", "json"];
        let words: Vec<&str> = wrapper.iter().copied().chain(run).chain(["--set", &lake]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    }

    fn ask_followers(&self, lake: &Path) -> String {
        let lake = lake.to_str().unwrap();
        let ask =
            |sql: &str| self.scratch.pennymill(&["query", "--lake", lake, sql, "--format", "csv"]).stdout;
        FOLLOWERS.map(ask).concat()
    }

    fn logs_now(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let mut logs = entries(&self.scratch.path("logs"));
        logs.sort();
        let look = |path: PathBuf| {
            let found = fs::metadata(&path).unwrap();
            (path, found.len(), found.modified().unwrap())
        };
        logs.into_iter().map(look).collect()
    }

    /// Whether a reader sees the lake as it is after the night; as before it is all right too.
    fn is_after(&self, lake: &Path, context: &str) -> bool {
        let seen = part_bytes(lake, MONTHLY_SPENDING);
        assert!(seen == self.before || seen == self.after, "{context}: a reader sees half of a run");
        seen == self.after
    }

    /// Starts the job again: whatever was before, that has to be the end of it.
    fn mend(&self, lake: &Path, context: &str) {
        let outcome = if self.is_after(lake, context) { "nothing_to_do" } else { "published" };
        let said = said(&mut self.command(lake, &[]));
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{context}");
        assert_eq!(said.json()["outcome"], outcome, "{context}");
        assert!(part_bytes(lake, MONTHLY_SPENDING) == self.after, "{context}: another lake");
        assert!(self.ask_followers(lake) == self.followers, "{context}: other alerts or transactions");
        assert_eq!(self.logs_now(), self.logs, "{context}: logs were touched");
    }

    fn expect_nothing_staged(&self, lake: &Path, context: &str) {
        let staged = |path: &PathBuf| path.to_string_lossy().ends_with("#0");
        assert!(!entries(lake).iter().any(staged), "{context}: half an object was left");
    }
}

/// Something mounted on a folder of the test's own until it is dropped.
struct Mount {
    at: PathBuf,
}

impl Mount {
    fn new(at: PathBuf, arguments: &[&str]) -> Mount {
        fs::create_dir_all(&at).unwrap();
        done(Command::new("mount").args(arguments).arg(&at));
        Mount { at }
    }

    fn tmpfs(at: PathBuf, options: &str) -> Mount {
        Mount::new(at, &["-t", "tmpfs", "-o", options, "none"])
    }

    fn remount(&self, options: &str) {
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

const CANARY: &[u8] = b"written and never synced";

fn signal(run: &Child, name: &str) {
    done(Command::new("kill").arg(name).arg(run.id().to_string()));
}

/// Stops a process and waits until all its threads stand still, none of their calls under way.
fn freeze(run: &Child) {
    signal(run, "-STOP");
    let threads = format!("/proc/{}/task", run.id());
    let moves = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| state.starts_with(['R', 'S', 'D']))
    };
    while fs::read_dir(&threads).unwrap().flatten().any(moves) {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Runs on a disk of its own. Out: what a power cut would have left of the disk after each pause, as the
/// commit gets its name, and, at last, once the run has said that it is done. What was not synced is in
/// the memory of the file system and not in the image.
fn power_cuts(night: &Night, folder: &Path, wrapper: &[&str], pauses: &[Duration]) -> Vec<PathBuf> {
    let image = folder.join("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    done(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
    let disk =
        Mount::new(night.scratch.path("disk"), &["-o", "loop,commit=300", image.to_str().unwrap()]);
    let lake = night.lay(disk.at.join("lake"));
    done(Command::new("sync").arg("-f").arg(&disk.at));
    fs::write(disk.at.join("canary"), CANARY).unwrap();
    let log = lake.join("monthly_spending/_delta_log");
    let version = fs::read_dir(&log).map_or(1, |entries| entries.count());
    let commit = log.join(format!("{version:020}.json"));
    let mut run = night.command(&lake, wrapper).stdout(Stdio::null()).spawn().unwrap();
    let copy = |name: String| {
        let copied = folder.join(name);
        done(Command::new("cp").arg("--sparse=always").args([&image, &copied]));
        copied
    };
    let mut cuts = Vec::new();
    for number in 0..=pauses.len() {
        match pauses.get(number) {
            Some(pause) => std::thread::sleep(*pause),
            None if pauses.is_empty() => break,
            None => {
                let since = Instant::now();
                while !commit.exists() && since.elapsed() < Duration::from_secs(20) {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        }
        freeze(&run);
        cuts.push(copy(format!("cut-{number}")));
        signal(&run, "-CONT");
    }
    let ended = run.wait().unwrap();
    cuts.push(copy("acknowledged".into()));
    assert!(ended.success(), "{ended}");
    cuts
}

/// Whether the lake in an image is as after the night. Starts the job again on it.
fn examine(night: &Night, image: &Path, context: &str) -> bool {
    let disk = Mount::new(night.scratch.path("copy"), &["-o", "loop", image.to_str().unwrap()]);
    let canary = fs::read(disk.at.join("canary")).unwrap_or_default();
    assert!(canary.is_empty(), "{context}: the image has what nobody synced, so this proves nothing");
    let lake = disk.at.join("lake");
    let after = night.is_after(&lake, context);
    night.mend(&lake, context);
    after
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    if !able(&IMAGES) || !able(&TMPFS) {
        return;
    }
    let nights = [Night::sample(false, false), Night::sample(true, true)];
    let (mut numbers, mut images, mut published) = (Numbers(seed()), 0, 0);
    for round in 0..rounds(6, 200).div_ceil(4) {
        let night = &nights[round % 2];
        let memory = Mount::tmpfs(night.scratch.path("memory"), "size=512m");
        let pauses = [(); 2].map(|()| Duration::from_micros(numbers.below(200_000) as u64));
        let cuts = power_cuts(night, &memory.at, &[], &pauses);
        for (number, image) in cuts.iter().enumerate() {
            let context = format!("seed {}, round {round}, image {number}", seed());
            let after = examine(night, image, &context);
            assert!(after || number + 1 < cuts.len(), "{context}: it was acknowledged and is lost");
            (images, published) = (images + 1, published + usize::from(after));
        }
    }
    say(&format!("power cuts: {images} images, {published} with the run in them, 0 acknowledged runs lost"));
    if able(&STRACE) {
        let forgets = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"];
        let forgets = [&forgets[..], &["-e", "inject=fsync,fdatasync:retval=0"]].concat();
        let memory = Mount::tmpfs(nights[0].scratch.path("memory"), "size=512m");
        let cuts = power_cuts(&nights[0], &memory.at, &forgets, &[]);
        let kept = examine(&nights[0], &cuts[0], "nothing is synced");
        assert!(!kept, "a run that syncs nothing passes, so this proves nothing");
    }
}

/// Gives the lake a disk that is larger from run to run, in bytes or in files, until one has room.
fn fill(night: &Night, option: &str, unit: usize, need: usize) -> usize {
    let steps = rounds(4, 60);
    let mut full = 0;
    for step in 1..=2 * steps + 8 {
        let room = (need * step).div_ceil(steps) * unit;
        let context = format!("{option}={room}");
        let disk = Mount::tmpfs(night.scratch.path("disk"), &context);
        let lake = disk.at.join("lake");
        let said = said(&mut night.command(&lake, &[]));
        let after = night.is_after(&lake, &context);
        night.expect_nothing_staged(&lake, &context);
        let is_done = said.code == 0 && said.stderr.is_empty();
        if said.code == 0 {
            assert!(after, "{context}: nothing is there");
            let follows = said.stderr.lines().all(|line| line.contains("follow with the next run"));
            assert!(follows && said.stderr.lines().count() <= 1, "{context}: {}", said.stderr);
        } else {
            refused(&said, &[73], &context);
            assert!(!after, "{context}: refused and published");
            full += 1;
        }
        disk.remount("size=1g,nr_inodes=100000");
        night.mend(&lake, &context);
        if is_done {
            assert!(full > 0, "no disk was too small");
            return full;
        }
    }
    panic!("{option}: no disk is large enough");
}

#[test]
fn a_lake_on_a_disk_of_any_size() {
    if !able(&TMPFS) {
        return;
    }
    let night = Night::sample(true, true);
    let lake = entries(&night.scratch.path("after"));
    let pages = lake.iter().map(|path| fs::metadata(path).unwrap()).filter(fs::Metadata::is_file);
    let pages = pages.map(|file| file.len().div_ceil(4096) as usize).sum();
    let (bytes, files) = (fill(&night, "size", 4096, pages), fill(&night, "nr_inodes", 1, lake.len()));
    say(&format!("full disks: {bytes} without room and {files} without a file to spare, each refused whole"));
}

#[test]
fn a_temporary_folder_of_any_size() {
    if !able(&TMPFS) {
        return;
    }
    // Ids that lie far apart do not pack: each movement takes 16 bytes, and all together go to disk.
    let line = |n: u64| format!("{}\t2025-01-{:02}T10:00:00Z\tA\t1.00\n", n << 52, n % 28 + 1);
    let scratch = Scratch::new().rest("[limits]\nmemory = \"64MiB\"");
    scratch.write("logs/wide.tsv", (0..1000).map(line).collect::<String>().repeat(2200));
    let night = Night::of(scratch);
    let (lake, steps) = (night.scratch.lake(), rounds(2, 60));
    for step in 0..=2 * steps {
        let context = format!("size={}k", 64 + 35_000 * step / steps);
        let folder = Mount::tmpfs(night.scratch.path("temporary"), &context);
        let said = said(night.command(&lake, &[]).env("TMPDIR", &folder.at));
        assert!(entries(&folder.at).is_empty(), "{context}: something was left");
        if said.code == 0 {
            assert!(said.json()["spilled_bytes"].as_u64() > Some(0) && step > 0, "{context}");
            night.mend(&lake, &context);
            return say(&format!("full temporary folders: {step}, each refused whole"));
        }
        refused(&said, &[73], &context);
        assert!(!night.is_after(&lake, &context), "{context}: refused and published");
    }
    panic!("no temporary folder is large enough");
}
