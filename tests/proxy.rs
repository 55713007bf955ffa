//! Nights on an object store whose answers are cut, late, repeated, refused or never come.
//!
//! In: an S3 server in this process, a proxy before it, the program in another process. Out: exit codes,
//! and the lake behind the server.
//! Invariant: a reader sees the lake as it was before the run or after it; what is temporary published
//! nothing; and started again, the run leaves the lake of one that nothing befell.

use crate::support::proxy::{Answer, Fault, Plan, Proxy, Reaches, Request};
use crate::support::watch::{State, Watch, state};
use crate::support::{Numbers, Said, Scratch, part_bytes, rounds, s3_server, say, seed};
use pennymill::domain::category::Categories;
use pennymill::input::published::EVERYBODY;
use pennymill::output::lake::Lake;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How long a client waits for an answer, where one may never come.
const IMPATIENCE: &str = "1500ms";

/// How often a run puts a commit whose outcome stays unclear.
const COMMIT_PUTS: usize = 5;

const EXPIRED: Answer = Answer::Status(403, "ExpiredToken");
/// As S3 says it of requests whose answer has a body.
const EXPIRED_AS_BAD: Answer = Answer::Status(400, "ExpiredToken");
const DOWN: Answer = Answer::Status(500, "InternalError");
const BUSY: Answer = Answer::Status(503, "SlowDown");
const THROTTLED: Answer = Answer::Status(429, "TooManyRequests");
const CONFLICT: Answer = Answer::Status(409, "ConditionalRequestConflict");

/// A fault, and the exit codes of a run that it befalls once.
struct Kind {
    name: &'static str,
    fault: Fault,
    codes: &'static [i32],
}

const fn kind(codes: &'static [i32], reaches: Reaches, answer: Answer, name: &'static str) -> Kind {
    Kind { name, fault: Fault { reaches, answer }, codes }
}

/// What the client or the run gets over, wherever it befalls.
const ABSORBED: &[i32] = &[0];
/// What ends a run where its outcome is unclear, but for its commit: that is found out.
const FELT: &[i32] = &[0, 75];
/// What is for a person to mend; behind the commit it is left to the next run.
const REFUSED: &[i32] = &[0, 77];

const KINDS: [Kind; 18] = [
    kind(FELT, Reaches::Never, Answer::Reset, "reset before the store heard of it"),
    kind(FELT, Reaches::Once, Answer::Reset, "reset after the store did it"),
    kind(ABSORBED, Reaches::Never, Answer::Closed, "closed before the store heard of it"),
    kind(ABSORBED, Reaches::Once, Answer::Closed, "closed after the store did it"),
    kind(FELT, Reaches::Once, Answer::Half, "cut in the middle of the answer"),
    kind(ABSORBED, Reaches::Late(150), Answer::Whole, "slow"),
    kind(FELT, Reaches::Never, Answer::Silence, "never answered, never done"),
    kind(FELT, Reaches::Once, Answer::Silence, "never answered, and done"),
    kind(ABSORBED, Reaches::Never, DOWN, "500, not done"),
    kind(ABSORBED, Reaches::Once, DOWN, "500, and done"),
    kind(ABSORBED, Reaches::Never, BUSY, "503, not done"),
    kind(ABSORBED, Reaches::Once, BUSY, "503, and done"),
    kind(ABSORBED, Reaches::Never, THROTTLED, "429, not done"),
    kind(ABSORBED, Reaches::Never, CONFLICT, "409, not done"),
    kind(ABSORBED, Reaches::Once, CONFLICT, "409, and done"),
    kind(ABSORBED, Reaches::Twice, Answer::Whole, "done twice"),
    kind(FELT, Reaches::Behind(3), Answer::Whole, "overtaken by others"),
    kind(REFUSED, Reaches::Never, EXPIRED, "credentials expired"),
];

impl Kind {
    /// Only what creates something is in conflict.
    fn befalls(&self) -> fn(&Request) -> bool {
        if self.fault.answer == CONFLICT { |request: &Request| request.creates } else { |_: &Request| true }
    }

    fn codes_at_commit(&self) -> &'static [i32] {
        if self.codes == REFUSED { &[77] } else { &[0] }
    }
}

/// The put that publishes; the first version of a table is empty and publishes nothing.
fn commits(request: &Request) -> bool {
    let first = request.path.ends_with("/00000000000000000000.json");
    request.creates && request.path.contains("/monthly_spending/_delta_log/") && !first
}

/// What a run starts from, and what it makes of it when nothing befalls it.
struct Start {
    /// A lake to be copied, or none.
    from: Option<&'static str>,
    before: State,
    after: Contents,
    requests: usize,
}

/// What a lake says: spending, alerts, transactions.
#[derive(PartialEq)]
struct Contents {
    state: State,
    spending: Vec<(String, Vec<u8>)>,
    alerts: Vec<String>,
    transactions: Vec<(String, Vec<u8>)>,
}

impl Contents {
    fn of(lake: &Path) -> Contents {
        let shown = lake.to_str().unwrap();
        let (opened, categories) = (Lake::open(shown).unwrap(), Categories::builtin());
        let mut alerts = Vec::new();
        for month in opened.head().unwrap().map(|head| head.months()).unwrap_or_default() {
            let said = opened.alert_history(month).unwrap().records(&EVERYBODY, &categories).unwrap();
            alerts.extend(said.iter().map(|record| format!("{month} {record:?}")));
        }
        Contents {
            state: state(shown),
            spending: part_bytes(lake, "monthly_spending"),
            alerts,
            transactions: part_bytes(lake, "transactions"),
        }
    }
}

/// A bucket with logs, a server, the proxy before it, and a job.
struct World {
    folder: tempfile::TempDir,
    proxy: Proxy,
    /// Asks with the store client's own patience, and with little.
    patient: Scratch,
    hasty: Scratch,
    logs: BTreeMap<PathBuf, Vec<u8>>,
    starts: Vec<Start>,
}

/// Purchases of some users on some days of a month, at the sellers by turns.
fn log(month: u32, days: std::ops::Range<u32>, users: u32) -> String {
    let sellers = ["Canary Bakery", "Corner Shop", "Bus", "Somebody"];
    let lines = days.flat_map(|day| (1..=users).map(move |user| (day, user)));
    let line = |(day, user): (u32, u32)| {
        let seller = sellers[(user + day) as usize % sellers.len()];
        format!("{user}\t2025-{month:02}-{day:02}T10:00:00Z\t{seller}\t{user}{day}.{day:02}\n")
    };
    lines.map(line).collect()
}

fn job(endpoint: &str) -> Scratch {
    let budgets = (1..9).map(|user| format!("{user},groceries,{}.00\n", user * 60)).collect::<String>();
    let scratch = Scratch::new()
        .table("sellers.csv", "seller,category\nCanary Bakery,groceries\nCorner Shop,dining\nBus,transport\n")
        .table("budget_overrides.csv", &("user_id,category,amount\n".to_string() + &budgets))
        .input("logs = \"s3://bucket/logs/\"")
        .rest("transactions = true");
    let variables = s3_server::environment(endpoint);
    variables.iter().fold(scratch, |scratch, (name, value)| scratch.environment(name, value))
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("bucket/logs");
        std::fs::create_dir_all(&logs).unwrap();
        let proxy = Proxy::before(&s3_server::serve(folder.path()), folder.path());
        let patient = job(&proxy.endpoint);
        let hasty = job(&proxy.endpoint).environment("AWS_TIMEOUT", IMPATIENCE);
        let mut world = World { folder, proxy, patient, hasty, logs: BTreeMap::new(), starts: Vec::new() };
        std::fs::write(logs.join("a.tsv"), log(1, 1..20, 8)).unwrap();
        std::fs::write(logs.join("b.tsv"), log(2, 1..15, 5)).unwrap();
        let said = world.run(&world.patient, "one-night");
        assert_eq!(said.code, 0, "{}", said.stderr);
        std::fs::write(logs.join("c.tsv"), log(2, 15..25, 8)).unwrap();
        world.logs = read_all(&logs);
        world.starts = [None, Some("one-night")].map(|from| world.undisturbed(from)).into();
        world
    }

    fn lake(&self, name: &str) -> PathBuf {
        self.folder.path().join("bucket").join(name)
    }

    fn run(&self, job: &Scratch, lake: &str) -> Said {
        job.run(&["--set", &format!("output.lake=s3://bucket/{lake}/")])
    }

    /// Who asks: where an answer may never come, one with little patience.
    fn client(&self, fault: Fault) -> &Scratch {
        match (fault.reaches, fault.answer) {
            (Reaches::Behind(_), _) | (_, Answer::Silence) => &self.hasty,
            _ => &self.patient,
        }
    }

    fn undisturbed(&self, from: Option<&'static str>) -> Start {
        let lake = self.lake("undisturbed");
        copy(from.map(|from| self.lake(from)), &lake);
        let before = state(lake.to_str().unwrap());
        self.proxy.begin(Plan::NOTHING);
        let said = self.run(&self.patient, "undisturbed");
        assert_eq!(said.code, 0, "{}", said.stderr);
        let requests = self.proxy.requests();
        assert_eq!(requests.iter().filter(|request| commits(request)).count(), 1);
        let after = Contents::of(&lake);
        assert!(before != after.state && !after.alerts.is_empty() && !after.transactions.is_empty());
        std::fs::remove_dir_all(&lake).unwrap();
        Start { from, before, after, requests: requests.len() }
    }

    /// The lake that a run starts from, and a reader of it.
    fn prepare(&self, label: &str, start: &Start) -> Watch {
        // Of a test that fails, this is shown.
        println!("{label}");
        let lake = self.lake("lake");
        copy(start.from.map(|from| self.lake(from)), &lake);
        Watch::start(lake.to_str().unwrap(), vec![start.before.clone(), start.after.state.clone()])
    }

    /// What a reader sees now.
    fn seen(&self) -> State {
        state(self.lake("lake").to_str().unwrap())
    }

    /// A run that something befalls, and one that nothing does. Out: the first one's exit code, and
    /// what befell it.
    fn round(&self, label: &str, start: &Start, plan: Plan, job: &Scratch) -> (i32, Vec<(usize, Request)>) {
        let watch = self.prepare(label, start);
        self.proxy.begin(plan);
        let said = self.run(job, "lake");
        let befallen = self.proxy.befallen();
        check_words(label, &said);
        match said.code {
            0 => assert!(self.seen() == start.after.state, "{label}: published, and not to be seen"),
            76 => {}
            code => assert!(self.seen() == start.before, "{label}: exit {code} published something"),
        }
        self.proxy.begin(Plan::NOTHING);
        self.ends_well(label, start, watch);
        (said.code, befallen)
    }

    /// Runs again, and finds everything as if nothing had befallen anybody.
    fn ends_well(&self, label: &str, start: &Start, watch: Watch) {
        let published = self.seen() == start.after.state;
        let again = self.run(&self.patient, "lake");
        assert_eq!(again.code, 0, "{label}: and then: {}", again.stderr);
        let outcome = if published { "nothing_to_do" } else { "published" };
        assert_eq!(again.json()["outcome"], outcome, "{label}");
        assert!(Contents::of(&self.lake("lake")) == start.after, "{label}: the lake is another one");
        assert!(read_all(&self.lake("logs")) == self.logs, "{label}: the logs were touched");
        assert!(watch.stop() > 0, "{label}: nobody looked");
        std::fs::remove_dir_all(self.lake("lake")).unwrap();
    }
}

/// One line of stderr for a failure, at most one for a success, and no secret anywhere. That there is
/// no checkpoint yet is said aside.
fn check_words(label: &str, said: &Said) {
    assert!(said.stderr.lines().all(|line| line.starts_with("pennymill: ")), "{label}: {}", said.stderr);
    let lines = said.stderr.lines().filter(|line| !line.starts_with("pennymill: no checkpoint was written"));
    let count = lines.count();
    assert!(count == 1 || (said.code == 0 && count == 0), "{label}: {}", said.stderr);
    let words = (said.stdout.clone() + &said.stderr).to_lowercase();
    assert!(!words.contains("canary"), "{label}: a secret is told: {words}");
}

fn read_all(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Copies a lake, or makes sure that there is none.
fn copy(from: Option<PathBuf>, to: &Path) {
    assert!(!to.exists());
    let mut folders: Vec<_> = from.map(|from| (from, to.to_path_buf())).into_iter().collect();
    while let Some((from, to)) = folders.pop() {
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (path, to) = (entry.path(), to.join(entry.file_name()));
            match path.is_dir() {
                true => folders.push((path, to)),
                false => _ = std::fs::copy(path, to).unwrap(),
            }
        }
    }
}

#[test]
fn whatever_befalls_the_commit_the_night_is_published() {
    let world = World::new();
    let starts = rounds(1, 2);
    for kind in &KINDS {
        // The last start is a lake that holds a night already.
        for start in world.starts.iter().rev().take(starts) {
            let label = format!("{}, at the commit onto {:?}", kind.name, start.from);
            let plan = Plan { fault: kind.fault, from: 1, befalls: commits, times: 1 };
            let (code, befallen) = world.round(&label, start, plan, world.client(kind.fault));
            assert_eq!(befallen.len(), 1, "{label}");
            assert!(kind.codes_at_commit().contains(&code), "{label}: exit {code}");
        }
    }
    say(&format!("{} kinds of fault at the commit: none lost, none counted twice", KINDS.len()));
}

#[test]
fn whatever_befalls_any_request_the_night_can_be_run_again() {
    let (world, seed) = (World::new(), seed());
    let (mut numbers, mut by_code) = (Numbers(seed), BTreeMap::<i32, usize>::new());
    let count = rounds(12, 200);
    for round in 0..count {
        let (start, kind) = (numbers.one_of(&world.starts), numbers.one_of(&KINDS));
        let from = 1 + numbers.below(start.requests);
        let (name, onto) = (kind.name, start.from);
        let label =
            format!("PENNYMILL_SEED={seed}, round {round}: {name}, from request {from} on, onto {onto:?}");
        let plan = Plan { fault: kind.fault, from, befalls: kind.befalls(), times: 1 };
        let (code, befallen) = world.round(&label, start, plan, world.client(kind.fault));
        let codes: &[i32] = match befallen.first() {
            None => &[0],
            Some((_, request)) if commits(request) => kind.codes_at_commit(),
            Some(_) => kind.codes,
        };
        assert!(codes.contains(&code), "{label}: exit {code}, befallen: {befallen:?}");
        *by_code.entry(code).or_default() += 1;
    }
    say(&format!("{count} faults at random requests, exit codes {by_code:?}: none lost, none counted twice"));
}

/// Commits of which nobody can say whether they landed, until they do.
#[test]
fn a_commit_that_lands_late_is_published_or_refused_whole() {
    let world = World::new();
    let fault = Fault { reaches: Reaches::Behind(usize::MAX), answer: Answer::Reset };
    for start in &world.starts {
        for overtaken in [false, true] {
            let label = format!("onto {:?}, overtaken: {overtaken}", start.from);
            let watch = world.prepare(&label, start);
            world.proxy.begin(Plan { fault, from: 1, befalls: commits, times: COMMIT_PUTS });
            let said = world.run(&world.patient, "lake");
            let puts = world.proxy.befallen().len();
            assert_eq!((said.code, puts), (76, COMMIT_PUTS), "{label}: {}", said.stderr);
            check_words(&label, &said);
            assert!(world.seen() == start.before, "{label}");
            if overtaken {
                let said = world.run(&world.patient, "lake");
                assert_eq!(said.code, 0, "{label}: {}", said.stderr);
            }
            world.proxy.let_go();
            assert!(world.seen() == start.after.state, "{label}");
            world.ends_well(&label, start, watch);
        }
    }
}

#[test]
fn a_store_that_lets_us_in_no_more_is_a_matter_of_credentials() {
    let world = World::new();
    for answer in [EXPIRED, EXPIRED_AS_BAD] {
        for_good(&world, answer, rounds(12, 200).div_ceil(4), |start| start.requests, 77);
    }
}

#[test]
fn a_store_that_goes_down_is_left_for_another_time() {
    let world = World::new();
    for answer in [DOWN, Answer::Reset] {
        // The client takes seconds to give up; at the commit they would add up.
        for_good(&world, answer, rounds(12, 200).div_ceil(12), |start| start.requests / 4, 75);
    }
}

/// Every request from a random one on is answered like this, in some rounds.
fn for_good(world: &World, answer: Answer, count: usize, most: fn(&Start) -> usize, expected: i32) {
    let seed = seed();
    let mut numbers = Numbers(seed);
    for round in 0..count {
        let start = numbers.one_of(&world.starts);
        let from = 1 + numbers.below(most(start));
        let onto = start.from;
        let label = format!("PENNYMILL_SEED={seed}, round {round}: {answer:?} from {from} on, onto {onto:?}");
        let fault = Fault { reaches: Reaches::Never, answer };
        let plan = Plan { fault, from, befalls: |_| true, times: usize::MAX };
        let (code, befallen) = world.round(&label, start, plan, &world.patient);
        // A commit that is not answered may have landed; one that is over stands, whatever comes.
        let at_commit = befallen.iter().any(|(_, request)| commits(request));
        // What is answered to a HEAD has no words that tell expired credentials from a bad request.
        let is_mute = befallen.first().is_some_and(|(_, request)| request.method == "HEAD");
        let is_fine = code == expected || (is_mute && code == 75) || code == 0 || (at_commit && code == 76);
        assert!(is_fine, "{label}: exit {code}, at first {:?}", befallen.first());
    }
    say(&format!("{answer:?} for good, {count} times: none lost, none counted twice"));
}

#[test]
fn a_store_that_overwrites_what_is_created_twice_is_refused() {
    let world = World::new();
    for start in &world.starts {
        let label = format!("overwriting, onto {:?}", start.from);
        let fault = Fault { reaches: Reaches::Overwriting, answer: Answer::Whole };
        let plan = Plan { fault, from: 1, befalls: |_| true, times: usize::MAX };
        let (code, befallen) = world.round(&label, start, plan, &world.patient);
        assert_eq!(code, 78, "{label}");
        let mut written = befallen.iter().filter(|(_, request)| request.method == "PUT");
        assert!(written.all(|(_, request)| request.path.contains("/_runs/_probe")), "{label}");
    }
}
