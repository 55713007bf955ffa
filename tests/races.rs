//! Runs that are at work on one lake at the same time, and runs that stall while others go on.
//!
//! In: two to eight processes, the same logs or logs of their own, SIGSTOP and SIGCONT. Out: exit
//! codes, versions.
//! Invariant: whoever wins, every log is counted once, and a reader sees each log whole or not at all;
//! who loses plans again, or says that it is to be started again.

use crate::kills::{Ended, Ground, NIGHTS_MAX, Server, Whole, counted, duration, end, log, nights_in, send};
use crate::support::watch::Watch;
use crate::support::{Numbers, rounds, say, seed};
use pennymill::output::lake::Lake;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// What all rounds of a race come to.
#[derive(Default)]
struct Figures {
    processes: usize,
    versions: usize,
    lost: usize,
    reads: usize,
}

impl Figures {
    /// Adds a lake at the end of its race. Every attempt to publish has left a folder of its run.
    fn add(&mut self, ground: &Ground) {
        let versions = version(ground, "monthly_spending");
        let folders = std::fs::read_dir(ground.lake.join("_runs")).unwrap();
        let runs = folders.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
        self.versions += versions;
        self.lost += runs - versions;
    }

    fn say(&self, what: &str, rounds: usize) {
        let Figures { processes, versions, lost, reads } = self;
        say(&format!(
            "{what}: {rounds} rounds, {processes} processes, {versions} versions, {lost} lost races; \
             0 logs lost, 0 counted twice, {reads} reads, 0 halves"
        ));
    }
}

fn version(ground: &Ground, table: &str) -> usize {
    let lake = Lake::open(ground.lake.to_str().unwrap()).unwrap();
    lake.table(table).unwrap().unwrap().version() as usize
}

/// A reader that has to see every night whole or not at all, and never fewer of them than before.
fn watch(ground: &Ground) -> Watch {
    let most = AtomicUsize::new(0);
    Watch::start_with(ground.lake.to_str().unwrap(), move |seen| {
        let nights = nights_in(seen);
        let count = nights.len();
        *seen == counted(nights) && most.fetch_max(count, Ordering::Relaxed) <= count
    })
}

/// Lets them all run at once. Out: how each ended, in their order.
fn race(runs: impl Iterator<Item = Child>) -> Vec<Ended> {
    let runs: Vec<Child> = runs.collect();
    runs.into_iter().map(end).collect()
}

#[test]
fn the_same_logs_are_published_by_one_of_many_runs() {
    let (server, expected, rounds) = (Server::start(), Whole::undisturbed(2), rounds(3, 50));
    let (mut numbers, mut figures) = (Numbers(seed()), Figures::default());
    for round in 0..rounds {
        let processes = 2 + numbers.below(NIGHTS_MAX - 1);
        let at = format!("seed {}, round {round}, {processes} processes", seed());
        let ground = Ground::on(&server, &format!("same-{round}"));
        (1..=2).for_each(|night| ground.deliver(night));
        let watch = watch(&ground);
        let ended = race((0..processes).map(|_| ground.start_job()));
        ended.iter().for_each(|ended| ended.expect(&[0, 75], &at));
        assert!(ended.iter().any(|ended| ended.code == 0), "{at}: nobody has won");
        // The loser of a race may have ended before the winner's other tables were there.
        ground.run().expect(&[0], &at);
        figures.reads += watch.stop();
        for table in ["monthly_spending", "budget_alerts", "transactions"] {
            assert_eq!(version(&ground, table), 1, "{at}: {table} was published more than once");
        }
        assert!(Whole::of(&ground.lake) == expected, "{at}: it is not the lake of one run");
        figures.processes += processes;
        figures.add(&ground);
    }
    figures.say("the same logs", rounds);
}

#[test]
fn logs_of_their_own_are_all_counted() {
    let (server, rounds) = (Server::start(), rounds(3, 50));
    let (mut numbers, mut figures) = (Numbers(seed()), Figures::default());
    for round in 0..rounds {
        let nights = 2 + numbers.below(NIGHTS_MAX - 1);
        let at = format!("seed {}, round {round}, {nights} processes", seed());
        let ground = Ground::on(&server, &format!("own-{round}"));
        let bucket = ground.logs.parent().unwrap();
        for night in 1..=nights {
            std::fs::create_dir(bucket.join(format!("logs-{night}"))).unwrap();
            std::fs::write(bucket.join(format!("logs-{night}/log.tsv")), log(night)).unwrap();
        }
        let start = |night: usize| {
            let logs = ground.lake_url.replace("/lake/", &format!("/logs-{night}/"));
            ground.start(&["run", &ground.job, "--set", &format!("input.logs={logs}")])
        };
        let watch = watch(&ground);
        let mut waiting: Vec<usize> = (1..=nights).collect();
        // One of them wins every time, so that as many starts as there are runs are enough.
        for _ in 0..nights {
            figures.processes += waiting.len();
            let ended = race(waiting.iter().map(|night| start(*night)));
            ended.iter().for_each(|ended| ended.expect(&[0, 75], &at));
            let lost = waiting.into_iter().zip(ended).filter(|(_, ended)| ended.code != 0);
            waiting = lost.map(|(night, _)| night).collect();
        }
        assert!(waiting.is_empty(), "{at}: {waiting:?} never won");
        figures.reads += watch.stop();
        assert!(ground.state() == counted(1..=nights), "{at}: a log is lost, or counted twice");
        assert!(Whole::of(&ground.lake) == Whole::undisturbed(nights), "{at}: it is not the lake of one run");
        assert_eq!(version(&ground, "monthly_spending"), nights, "{at}: versions without a log of their own");
        figures.add(&ground);
    }
    assert!(figures.lost > 0, "nobody has met anybody");
    figures.say("logs of their own", rounds);
}

#[test]
fn on_local_files_a_run_is_refused_while_another_is_at_work() {
    let (expected, rounds) = (Whole::undisturbed(2), rounds(3, 50));
    let (mut numbers, mut refused, mut figures) = (Numbers(seed()), 0, Figures::default());
    for round in 0..rounds {
        let processes = 2 + numbers.below(NIGHTS_MAX - 1);
        let at = format!("seed {}, round {round}, {processes} processes", seed());
        let ground = Ground::local();
        (1..=2).for_each(|night| ground.deliver(night));
        let lock = Lake::open(&ground.lake_url).unwrap().lock("_lock").unwrap();
        for ended in race((0..processes).map(|_| ground.start_job())) {
            ended.expect(&[75], &at);
            assert!(ended.stderr.contains("another run is at work on this lake"), "{at}: {}", ended.stderr);
        }
        assert!(ground.state().is_empty(), "{at}: a run that was refused has published");
        drop(lock);
        let watch = watch(&ground);
        let ended = race((0..processes).map(|_| ground.start_job()));
        ended.iter().for_each(|ended| ended.expect(&[0, 75], &at));
        assert!(ended.iter().any(|ended| ended.code == 0), "{at}: they have refused each other");
        refused += ended.iter().filter(|ended| ended.code == 75).count();
        ground.settle(2, &expected, &at);
        figures.reads += watch.stop();
        assert_eq!(version(&ground, "monthly_spending"), 1, "{at}: it was published more than once");
        figures.processes += 2 * processes;
        figures.add(&ground);
    }
    figures.say(&format!("local files, {refused} runs refused in a race"), rounds);
}

/// Whether a process lies still after SIGSTOP. One that has ended lies still, too.
fn lies_still(run: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", run.id())).unwrap();
    let state = status.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    matches!(state, Some('T' | 'Z'))
}

fn stop(run: &Child) {
    send("STOP", run);
    while !lies_still(run) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether runs can be stopped here and be seen to lie still.
fn can_stop() -> bool {
    let can = Path::new("/proc/self/stat").exists();
    if !can {
        say("skipped: there is no /proc that tells whether a process lies still");
    }
    can
}

#[test]
fn a_run_that_stalls_on_local_files_keeps_others_out() {
    if !can_stop() {
        return;
    }
    let (expected, longest, rounds) = (Whole::undisturbed(1), duration(&Ground::local()), rounds(6, 60));
    let mut refused = 0;
    for round in 0..rounds {
        let at = format!("round {round} of {rounds}");
        let ground = Ground::local();
        ground.deliver(1);
        let run = ground.start_job();
        std::thread::sleep(longest * round as u32 / rounds as u32);
        stop(&run);
        let is_locked = Lake::open(&ground.lake_url).unwrap().lock("_lock").is_err();
        let other = ground.run();
        send("CONT", &run);
        other.expect(if is_locked { &[75] } else { &[0] }, &at);
        end(run).expect(&[0], &at);
        ground.settle(1, &expected, &at);
        refused += usize::from(is_locked);
    }
    assert!(refused > 0, "no run was stopped while it was at work");
    say(&format!(
        "stalled on local files: {rounds} rounds, {refused} others refused; 0 lost, 0 counted twice"
    ));
}

/// All files of a lake but those of the tables' logs.
fn files(lake: &Path) -> BTreeSet<PathBuf> {
    let (mut folders, mut files) = (vec![lake.to_path_buf()], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true if entry.file_name() == "_delta_log" => {}
                true => folders.push(entry.path()),
                false => {
                    files.insert(entry.path());
                }
            }
        }
    }
    files
}

/// Cleans up, ten days after everything was written. Out: how it ended, and how many files are gone.
fn clean_up(ground: &Ground) -> (Ended, usize) {
    let before = files(&ground.lake);
    let ten_days_ago = SystemTime::now() - Duration::from_secs(10 * 24 * 3600);
    for path in &before {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(ten_days_ago).unwrap();
    }
    let ended = end(ground.start(&["gc", "--lake", &ground.lake_url]));
    (ended, before.difference(&files(&ground.lake)).count())
}

/// On S3 nothing keeps others out. What the run has written so far is cleaned up while it is stopped.
#[test]
fn a_run_that_stalls_on_s3_while_others_publish_and_clean_up() {
    if !can_stop() {
        return;
    }
    let (server, expected, rounds) = (Server::start(), Whole::undisturbed(2), rounds(6, 60));
    let longest = duration(&Ground::on(&server, "stalls"));
    let (mut deleted, mut again) = (0, 0);
    for round in 0..rounds {
        let at = format!("round {round} of {rounds}");
        let ground = Ground::on(&server, &format!("stalls-{round}"));
        ground.deliver(1);
        ground.run().expect(&[0], &at);
        ground.deliver(2);
        let (watch, before) = (watch(&ground), files(&ground.lake));
        let run = ground.start_job();
        while files(&ground.lake) == before && !lies_still(&run) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // From its first file on; before, there is nothing that could be taken from it.
        std::thread::sleep(longest * (round as u32 / 2) / rounds as u32);
        stop(&run);
        // Every other time another run counts what the stopped one is about to count.
        let other = (round % 2 == 1).then(|| ground.run());
        let (cleaned_up, gone) = clean_up(&ground);
        send("CONT", &run);
        other.iter().for_each(|other| other.expect(&[0], &at));
        cleaned_up.expect(&[0], &at);
        let ended = end(run);
        ended.expect(&[0, 75], &at);
        ground.settle(2, &expected, &at);
        watch.stop();
        (deleted, again) = (deleted + gone, again + usize::from(ended.code == 75));
    }
    assert!(deleted > 0, "nothing was taken from a stopped run");
    say(&format!(
        "stalled on S3: {rounds} rounds, {deleted} files cleaned up, {again} runs to be started again; \
         0 lost, 0 counted twice"
    ));
}
