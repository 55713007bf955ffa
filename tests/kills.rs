//! A run is killed or ended at any instant, and simply started again.
//!
//! In: a log for every night, real processes on local files and on an S3 server, signals.
//! Out: the lake of a run that was left alone.
//! Invariant: a reader sees all of a night or nothing of it, and never fewer nights than before;
//! nothing is lost, counted twice or said twice; the logs stay as they are.

use crate::support::s3_server::{environment, serve};
use crate::support::watch::{State, Watch, state};
use crate::support::{Numbers, Scratch, part_bytes, parts, rounds, say, seed};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PENNYMILL: &str = env!("CARGO_BIN_EXE_pennymill");

/// Nights that the users' table knows of.
pub const NIGHTS_MAX: usize = 8;
const NIGHTS: usize = 4;
const USERS: u64 = 20;
const MONTHS: [&str; 3] = ["2025-01", "2025-02", "2025-03"];
const SELLERS: [(&str, &str); 3] = [("Corner Shop", "groceries"), ("Diner", "dining"), ("Pump", "gas")];

/// What is bought in a night, as (user, month, seller, cents): by users of its own, and by one who
/// buys every night, but not in the month that alerts are for. So it makes no difference which nights
/// one run counts together.
fn purchases(night: usize) -> Vec<(u64, &'static str, usize, i64)> {
    let mut numbers = Numbers(night as u64);
    let mut purchase = |user: u64, month: &'static str| {
        (user, month, numbers.below(SELLERS.len()), numbers.below(20_000) as i64 - 2_000)
    };
    let mut purchases: Vec<_> = MONTHS.into_iter().take(2).map(|month| purchase(1, month)).collect();
    for month in MONTHS {
        for user in (1..=USERS).map(|user| own(night) + user) {
            purchases.extend((0..4).map(|_| purchase(user, month)));
        }
    }
    purchases
}

/// The users of a night's own come after this one.
fn own(night: usize) -> u64 {
    night as u64 * 100
}

pub fn log(night: usize) -> String {
    let line = |(user, month, seller, cents): (u64, &str, usize, i64)| {
        let (sign, cents) = (if cents < 0 { "-" } else { "" }, cents.abs());
        let (seller, units, cents) = (SELLERS[seller].0, cents / 100, cents % 100);
        format!("{user}\t{month}-10T10:00:00Z\t{seller}\t{sign}{units}.{cents:02}\n")
    };
    purchases(night).into_iter().map(line).collect()
}

/// What a lake says that has counted these nights once.
pub fn counted(nights: impl IntoIterator<Item = usize>) -> State {
    let mut state = State::new();
    for (user, month, seller, cents) in nights.into_iter().flat_map(purchases) {
        let group = state.entry((month.to_string(), user, SELLERS[seller].1.to_string())).or_default();
        *group = (group.0 + cents, group.1 + 1);
    }
    state
}

/// The nights that somebody has counted something of.
pub fn nights_in(state: &State) -> BTreeSet<usize> {
    let user_nights = state.keys().map(|(_, user, _)| *user as usize / 100);
    user_nights.filter(|night| *night > 0).collect()
}

/// An S3 server over a folder of a test's own.
pub struct Server {
    folder: tempfile::TempDir,
    endpoint: String,
}

impl Server {
    pub fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = serve(folder.path());
        Server { folder, endpoint }
    }
}

/// Logs and a lake, on local files or on an S3 server whose folder is looked at as a local lake.
pub struct Ground {
    _scratch: Scratch,
    pub job: String,
    pub lake: PathBuf,
    /// As the program calls it.
    pub lake_url: String,
    pub logs: PathBuf,
    environment: Vec<(String, String)>,
}

impl Ground {
    pub fn local() -> Ground {
        let scratch = shop().rest("transactions = true");
        let (lake, logs) = (scratch.lake(), scratch.path("logs"));
        let (job, lake_url) = (text(&scratch.job()), text(&lake));
        Ground { _scratch: scratch, job, lake, lake_url, logs, environment: Vec::new() }
    }

    /// A bucket of its own for every ground.
    pub fn on(server: &Server, bucket: &str) -> Ground {
        let folder = server.folder.path().join(bucket);
        std::fs::create_dir_all(folder.join("logs")).unwrap();
        let lake_url = format!("s3://{bucket}/lake/");
        let scratch = shop()
            .input(&format!("logs = \"s3://{bucket}/logs/\""))
            .rest(&format!("lake = \"{lake_url}\"\ntransactions = true"));
        let environment =
            environment(&server.endpoint).map(|(name, value)| (name.to_string(), value.to_string()));
        let (job, lake, logs) = (text(&scratch.job()), folder.join("lake"), folder.join("logs"));
        Ground { _scratch: scratch, job, lake, lake_url, logs, environment: environment.to_vec() }
    }

    pub fn deliver(&self, night: usize) {
        std::fs::write(self.logs.join(format!("night-{night}.tsv")), log(night)).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts the program.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(PENNYMILL).args(arguments).spawn().unwrap()
    }

    pub fn start_job(&self) -> Child {
        self.start(&["run", &self.job])
    }

    pub fn run(&self) -> Ended {
        end(self.start_job())
    }

    pub fn state(&self) -> State {
        state(self.lake.to_str().unwrap())
    }

    /// A reader that has to see the first nights, and never fewer of them than before.
    fn watch(&self) -> Watch {
        let newest = AtomicUsize::new(0);
        Watch::start_with(self.lake.to_str().unwrap(), move |seen| {
            let nights = nights_in(seen).len();
            *seen == counted(1..=nights) && newest.fetch_max(nights, Ordering::Relaxed) <= nights
        })
    }

    /// A plain run ends well, and everything is as if nothing had happened.
    pub fn settle(&self, nights: usize, expected: &Whole, at: &str) {
        self.run().expect(&[0], at);
        assert!(self.state() == counted(1..=nights), "{at}: something is lost, or counted twice");
        assert!(Whole::of(&self.lake) == *expected, "{at}: it is not the lake of a run that was left alone");
        for night in 1..=nights {
            let text = std::fs::read_to_string(self.logs.join(format!("night-{night}.tsv"))).unwrap();
            assert!(text == log(night), "{at}: a log has changed");
        }
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

fn shop() -> Scratch {
    let line = |(seller, category): (&str, &str)| format!("{seller},{category}\n");
    let users = (1..=NIGHTS_MAX).flat_map(|night| (1..=USERS).map(move |user| own(night) + user));
    let incomes: String = users.map(|user| format!("{user},1000.00\n")).collect();
    let tier = "[[tier]]\nname = \"all\"\nincome_from = \"0\"\nshares = { groceries = 0.2, dining = 0.1 }\n";
    Scratch::new()
        .table("sellers.csv", &format!("seller,category\n{}", SELLERS.map(line).concat()))
        .table("users.csv", &format!("user_id,monthly_income\n{incomes}"))
        .table("budget_template.toml", tier)
}

/// How a process ended.
pub struct Ended {
    /// As a shell says it: of a process that a signal has ended, 128 and the signal.
    pub code: i32,
    pub stderr: String,
}

impl Ended {
    pub fn expect(&self, codes: &[i32], at: &str) {
        assert!(codes.contains(&self.code), "{at}: it ended with {}: {}", self.code, self.stderr);
        let is_plain = self.stderr.lines().all(|line| line.starts_with("pennymill: "));
        let has_failed = ![0, 137, 143].contains(&self.code);
        let lines = self.stderr.lines().count();
        assert!(is_plain && (lines == 1 || !has_failed), "{at}: it says {}", self.stderr);
    }
}

pub fn end(run: Child) -> Ended {
    let output = run.wait_with_output().unwrap();
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal)).unwrap();
    Ended { code, stderr: String::from_utf8(output.stderr).unwrap() }
}

/// Everything that a lake says, without what names its runs and its folder.
#[derive(PartialEq)]
pub struct Whole {
    spending: Vec<(String, Vec<u8>)>,
    alerts: Vec<String>,
    transactions: Vec<String>,
}

impl Whole {
    pub fn of(lake: &Path) -> Whole {
        let spending = part_bytes(lake, "monthly_spending");
        Whole { spending, alerts: rows(lake, "budget_alerts"), transactions: rows(lake, "transactions") }
    }

    /// Of a lake on local files whose one run nobody has disturbed.
    pub fn undisturbed(nights: usize) -> Whole {
        let ground = Ground::local();
        (1..=nights).for_each(|night| ground.deliver(night));
        ground.run().expect(&[0], "undisturbed");
        let whole = Whole::of(&ground.lake);
        assert!(ground.state() == counted(1..=nights) && !whole.alerts.is_empty());
        assert_eq!(whole.transactions.len(), (1..=nights).map(|night| purchases(night).len()).sum::<usize>());
        whole
    }
}

fn rows(lake: &Path, table: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for (path, bytes) in parts(lake, table) {
        let month = path.split('/').next().unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
        for batch in reader.build().unwrap().map(Result::unwrap) {
            let is_kept = |name: &str| !["run_id", "source_object"].contains(&name);
            let schema = batch.schema();
            let kept: Vec<usize> =
                (0..batch.num_columns()).filter(|column| is_kept(schema.field(*column).name())).collect();
            let mut csv = arrow::csv::WriterBuilder::new().with_header(false).build(Vec::new());
            csv.write(&batch.project(&kept).unwrap()).unwrap();
            let text = String::from_utf8(csv.into_inner()).unwrap();
            rows.extend(text.lines().map(|line| format!("{month} {line}")));
        }
    }
    rows.sort();
    rows
}

/// Sends a signal to a process that nobody has waited for.
pub fn send(signal: &str, run: &Child) {
    let kill = format!("kill -{signal} {}", run.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
}

/// How long a run takes that nobody disturbs; the first run of a lake, with everything to do.
pub fn duration(ground: &Ground) -> Duration {
    ground.deliver(1);
    let started = Instant::now();
    ground.run().expect(&[0], "undisturbed");
    started.elapsed()
}

/// Some time from none to `longest`.
fn sometime(numbers: &mut Numbers, longest: Duration) -> Duration {
    Duration::from_micros(numbers.below(longest.as_micros() as usize) as u64)
}

/// Night by night a run is sent a signal at some instant of it, and what it left is left to the next
/// night's run. `ended` is how a run ends that the signal meets.
fn disturb_at_random(place: &str, signal: &str, ended: i32, runs: usize, ground: &dyn Fn(usize) -> Ground) {
    let (expected, duration) = (Whole::undisturbed(NIGHTS), duration(&ground(0)));
    let (mut reads, mut met, mut published) = (0, 0, 0);
    for lake in 1..=runs.div_ceil(NIGHTS) {
        let mut numbers = Numbers(seed().wrapping_add(lake as u64));
        let ground = ground(lake);
        let watch = ground.watch();
        for night in 1..=NIGHTS {
            let at = format!("{place}, seed {}, lake {lake}, night {night}", seed());
            ground.deliver(night);
            let run = ground.start_job();
            std::thread::sleep(sometime(&mut numbers, duration));
            send(signal, &run);
            let end = end(run);
            end.expect(&[0, ended], &at);
            let is_published = ground.state() == counted(1..=night);
            assert!(is_published || end.code != 0, "{at}: it says that it has published");
            (met, published) = (met + usize::from(end.code != 0), published + usize::from(is_published));
        }
        ground.settle(NIGHTS, &expected, &format!("{place}, seed {}, lake {lake}", seed()));
        reads += watch.stop();
    }
    assert!(met > 0, "no signal has met a run");
    let runs = runs.div_ceil(NIGHTS) * NIGHTS;
    say(&format!(
        "{place}: SIG{signal} met {met} of {runs} runs, {published} of them had published; \
         0 lost, 0 counted twice, {reads} reads, 0 halves"
    ));
}

#[test]
fn killed_at_random_on_local_files() {
    disturb_at_random("local files", "KILL", 137, rounds(24, 300), &|_| Ground::local());
}

#[test]
fn killed_at_random_on_s3() {
    let server = Server::start();
    let ground = |lake: usize| Ground::on(&server, &format!("kills-{lake}"));
    disturb_at_random("S3", "KILL", 137, rounds(8, 100), &ground);
}

#[test]
fn ended_at_random() {
    disturb_at_random("local files", "TERM", 143, rounds(8, 100), &|_| Ground::local());
    let server = Server::start();
    let ground = |lake: usize| Ground::on(&server, &format!("terms-{lake}"));
    disturb_at_random("S3", "TERM", 143, rounds(4, 50), &ground);
}

/// The system calls that make something durable. A machine may not have all of them.
const DURABLE: &str = "?fsync,?fdatasync,?link,?linkat,?rename,?renameat,?renameat2,?mkdir,?mkdirat";

/// For how long a thread is held behind a durable call, in microseconds: long enough to be killed there.
const HELD_MICROS: u32 = 4_000;

/// Runs the job, and kills it right behind its `last` durable call, whichever thread makes it: strace
/// itself counts the calls of each thread apart. Out: how many it made, and how it ended.
fn killed_behind(ground: &Ground, last: usize) -> (usize, Ended) {
    // With -D the program is our own child, which a kill meets at once.
    let mut strace = ground.command("strace");
    strace.args(["-D", "-f", "-qq", "-e", &format!("trace={DURABLE}")]);
    strace.args(["-e", &format!("inject={DURABLE}:delay_exit={HELD_MICROS}")]);
    strace.args([PENNYMILL, "run", &ground.job]);
    let mut run = strace.spawn().unwrap();
    let mut calls = 0;
    for line in BufReader::new(run.stderr.take().unwrap()).lines() {
        calls += usize::from(line.unwrap().contains("(DELAYED)"));
        if calls == last {
            run.kill().unwrap();
        }
    }
    (calls, end(run))
}

#[test]
fn killed_behind_every_durable_call() {
    let works =
        Command::new("strace").args(["-o", "/dev/null", "-e", "inject=?fsync:delay_exit=1", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        return say("skipped: there is no strace that may trace");
    }
    for nights in 1..=2 {
        let (ground, expected) = (Ground::local(), Whole::undisturbed(nights));
        for night in 1..nights {
            ground.deliver(night);
            ground.run().expect(&[0], "the nights before");
        }
        ground.deliver(nights);
        let before = ground.lake.with_extension("before");
        copy(&ground.lake, &before);
        let (calls, undisturbed) = killed_behind(&ground, usize::MAX);
        undisturbed.expect(&[0], "undisturbed");
        // Every call, or in a small run some of them, other ones under another seed.
        let stride = calls.div_ceil(rounds(8, calls).max(8));
        let (mut kills, mut published) = (0, 0);
        for last in (1 + seed() as usize % stride..).step_by(stride) {
            let at = format!("seed {}, night {nights}, killed behind durable call {last}", seed());
            copy(&before, &ground.lake);
            let watch = ground.watch();
            let (_, end) = killed_behind(&ground, last);
            end.expect(&[0, 137], &at);
            let seen = ground.state();
            let is_published = seen == counted(1..=nights);
            assert!(is_published || seen == counted(1..nights), "{at}: half of a night is to be seen");
            ground.settle(nights, &expected, &at);
            watch.stop();
            if end.code == 0 {
                break;
            }
            (kills, published) = (kills + 1, published + usize::from(is_published));
        }
        assert!(0 < published && published < kills, "the kills did not fall on both sides of the commit");
        say(&format!(
            "night {nights}: {kills} of {calls} durable calls were the last; {published} had published; 0 lost"
        ));
    }
}

/// Makes a lake what another one is, which may be nothing.
fn copy(from: &Path, to: &Path) {
    let copy = r#"rm -rf "$1" && if [ -e "$0" ]; then cp -a "$0" "$1"; fi"#;
    assert!(Command::new("sh").args(["-c", copy]).args([from, to]).status().unwrap().success());
}
