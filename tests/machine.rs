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
        let words: Vec<&str> = wrapper.iter().copied().chain(run).chain(["--set", lake.as_str()]).collect();
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
    let disk = Mount::new(night.scratch.path("disk"), &["-o", "loop,commit=300", image.to_str().unwrap()]);
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
        let forgets = [&forgets[..], &["-e", "inject=fsync,fdatasync:retval=0"][..]].concat();
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
    let pages: usize = pages.map(|file| file.len().div_ceil(4096) as usize).sum();
    let (bytes, files) = (fill(&night, "size", 4096, pages), fill(&night, "nr_inodes", 1, lake.len()));
    say(&format!("full disks: {bytes} without room and {files} without a file to spare, each refused whole"));
}

#[test]
fn a_temporary_folder_of_any_size() {
    if !able(&TMPFS) {
        return;
    }
    // Ids that lie far apart do not pack: each movement takes 16 bytes, and all together go to disk.
    let line = |n: u64| format!("{}\t2025-01-{:02}T10:00:00Z\tA\t1.00\n", (n + 1) << 52, n % 28 + 1);
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

#[test]
fn a_report_that_nobody_can_read() {
    let full = || fs::File::options().write(true).open("/dev/full");
    if full().is_err() {
        return say("skipped: there is no /dev/full");
    }
    let night = Night::sample(false, true);
    let lake = night.lay(night.scratch.path("without-report"));
    let said_nothing = said(night.command(&lake, &[]).stdout(full().unwrap()));
    assert!([0, 73].contains(&said_nothing.code), "{}: {}", said_nothing.code, said_nothing.stderr);
    assert!(night.is_after(&lake, "without a report"));
    night.mend(&lake, "without a report");
    let lake = night.lay(night.scratch.path("without-errors"));
    assert_eq!(said(night.command(&lake, &[]).stderr(full().unwrap())).code, 0);
    night.mend(&lake, "without errors");
    let nowhere = night.scratch.job().join("lake");
    let refusal = said(night.command(&nowhere, &[]).stderr(full().unwrap()));
    assert_eq!(refusal.code, 73, "what cannot be told is told by the exit code all the same");
}

#[test]
fn files_that_may_not_grow() {
    if !able(&FILE_LIMITS) {
        return;
    }
    let (night, mut stopped) = (Night::sample(false, true), 0);
    for round in 0..rounds(2, 5).min(5) {
        // A process that ignores the signal is told by an error; any other is killed by it.
        for (ignore, codes) in [("trap '' XFSZ", [0, 73, 73]), ("true", [0, 73, 128 + 25])] {
            let limit = format!("ulimit -c 0; {ignore}; ulimit -f {}; exec \"$@\"", 4 << (4 * round));
            let lake = night.lay(night.scratch.path(&format!("lake-{round}-{}", ignore.len())));
            let said = said(&mut night.command(&lake, &["bash", "-c", &limit, "bash"]));
            assert!(codes.contains(&said.code), "{limit}: exit {}: {}", said.code, said.stderr);
            // One that is killed may have committed.
            let is_told = night.is_after(&lake, &limit) == (said.code == 0);
            assert!(is_told || said.code > 128, "{limit}: exit {}: {}", said.code, said.stderr);
            if said.code == 73 {
                refused(&said, &[73], &limit);
                night.expect_nothing_staged(&lake, &limit);
            }
            stopped += usize::from(said.code != 0);
            night.mend(&lake, &limit);
        }
    }
    assert!(stopped > 0, "no limit was small enough");
    say(&format!("limits of files: {stopped} runs stopped, 0 half"));
}

#[test]
fn a_disk_that_is_read_only() {
    if !able(&TMPFS) {
        return;
    }
    let night = Night::sample(false, true);
    let disk = Mount::tmpfs(night.scratch.path("disk"), "size=64m");
    let lake = night.lay(disk.at.join("lake"));
    disk.remount("ro");
    for lake in [&lake, &disk.at.join("new")] {
        refused(&said(&mut night.command(lake, &[])), &[73], "read-only");
    }
    assert!(!night.is_after(&lake, "read-only"));
    disk.remount("rw");
    night.mend(&lake, "read-only no more");
}

#[test]
fn what_cannot_be_synced_is_not_acknowledged() {
    if !able(&STRACE) {
        return;
    }
    let night = Night::sample(false, true);
    // Once a commit has its name it may be there or not.
    let cases: [(&str, &str, &[i32]); 3] = [
        ("EIO", "_runs", &[73]),
        ("EDQUOT", "monthly_spending/month=2025-01-01", &[73]),
        ("ENOSPC", "monthly_spending/_delta_log", &[73, 76]),
    ];
    for (number, (error, folder, codes)) in cases.into_iter().enumerate() {
        let lake = night.lay(night.scratch.path(&format!("lake-{number}")));
        let (folder, inject) = (lake.join(folder), format!("inject=fsync,fdatasync:error={error}"));
        let context = format!("{error} for {}", folder.display());
        let folder = folder.to_str().unwrap();
        let wrapper = ["strace", "-f", "-o", "/dev/null", "-P", folder, "-e", "trace=fsync,fdatasync", "-e"];
        let wrapper = [&wrapper[..], &[inject.as_str()][..]].concat();
        refused(&said(&mut night.command(&lake, &wrapper)), codes, &context);
        night.mend(&lake, &context);
    }
}

/// A control group with a cap on memory, of either version of them.
struct Group {
    folder: PathBuf,
}

impl Group {
    fn new(name: &str, cap_bytes: u64) -> Option<Group> {
        let versions = [
            ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"], cap_bytes),
            ("/sys/fs/cgroup", ["memory.max", "memory.swap.max"], 0),
        ];
        for (root, [limit, swap], swap_bytes) in versions {
            let folder = Path::new(root).join(format!("pennymill-{}-{name}", std::process::id()));
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Group { folder };
            let limit = group.folder.join(limit);
            if limit.exists() && fs::write(limit, cap_bytes.to_string()).is_ok() {
                // Not every machine counts what is swapped; most have nothing to swap to.
                let _ = fs::write(group.folder.join(swap), swap_bytes.to_string());
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

#[test]
fn a_cap_on_memory() {
    if Group::new("probe", 1 << 30).is_none() {
        return say("skipped: there are no control groups with a cap on memory");
    }
    let scratch = Scratch::new();
    let made = scratch.path("made");
    let rows = ["--rows", "1500000", "--users", "300000", "--months", "2025-01..2025-03", "--files", "4"];
    let generate = [&["generate", "--out", made.to_str().unwrap()][..], &rows[..]].concat();
    assert_eq!(scratch.pennymill(&generate).code, 0);
    fs::remove_dir(scratch.path("logs")).unwrap();
    fs::rename(made.join("logs"), scratch.path("logs")).unwrap();
    let sellers = format!("sellers = {:?}", made.join("sellers.csv"));
    let night = Night::of(scratch.input(&sellers).rest("[limits]\nmemory = \"64MiB\""));
    let mut ends = Vec::new();
    let (mut published, mut is_whole) = (0, true);
    let caps: [u64; 8] = [32, 256, 128, 192, 96, 160, 224, 64];
    for cap in caps.into_iter().take(rounds(2, 8)) {
        let context = format!("{cap} MiB");
        let group = Group::new(&cap.to_string(), cap << 20).unwrap();
        let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let lake = night.scratch.path(&format!("lake-{published}"));
        let wrapper = ["sh", "-c", enter, group.folder.to_str().unwrap()];
        let said = said(&mut night.command(&lake, &wrapper));
        is_whole = night.is_after(&lake, &context);
        match said.code {
            0 => assert!(is_whole, "{context}: nothing is there"),
            75 => refused(&said, &[75], &context),
            code => assert_eq!(code, 137, "{context}: {}", said.stderr),
        }
        assert!(cap > 32 || said.code != 0, "{context} are enough, so this proves nothing");
        ends.push(format!("{context}: exit {}", said.code));
        if is_whole {
            night.mend(&lake, &context);
            published += 1;
        }
    }
    if !is_whole {
        night.mend(&night.scratch.path(&format!("lake-{published}")), "without a cap");
    }
    say(&format!("caps on memory: {}", ends.join(", ")));
}

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

/// The names made in a lake, and the commits among them. Errors: a name made before what it names was
/// synced, or a commit made before all earlier names were.
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
