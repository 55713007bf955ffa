//! The machine fails under a run: power, disks, limits, memory.
//!
//! In: ext4 images, small disks, limits of the system, control groups, traces of system calls.
//! Out: exit codes, and lakes.
//! Invariant: a lake is as it was before a run or as it is after it, whole; what was acknowledged stays
//! when the power goes; starting again gives the lake of a night that nothing disturbed.
#![cfg(unix)]

use crate::support::night::{
    FILE_LIMITS, IMAGES, Mount, Night, STRACE, TMPFS, able, done, entries, refused, said,
};
use crate::support::{Numbers, Scratch, rounds, say, seed};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
        // Whoever starts it may have it ignore the signal of such files, or not.
        for ignore in ["trap '' XFSZ", "true"] {
            let limit = format!("ulimit -c 0; {ignore}; ulimit -f {}; exec \"$@\"", 4 << (4 * round));
            let lake = night.lay(night.scratch.path(&format!("lake-{round}-{}", ignore.len())));
            let said = said(&mut night.command(&lake, &["bash", "-c", &limit, "bash"]));
            assert!([0, 73].contains(&said.code), "{limit}: exit {}: {}", said.code, said.stderr);
            let is_told = night.is_after(&lake, &limit) == (said.code == 0);
            assert!(is_told, "{limit}: exit {}: {}", said.code, said.stderr);
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
