//! Questions that would take all memory, all time, all disk or all of the stack.
//!
//! In: questions and jobs, asked of real processes with little of each. Out: answers, or one line and an
//! exit code. Invariant: no process ends by a signal, takes more than it was given, or leaves a file.
#![cfg(target_os = "linux")]

use crate::support::Scratch;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What the processes of these tests are given.
const MEMORY_MIB: u64 = 128;

/// A process that takes this much has no bound, and is not let go on.
const MEMORY_LOST_MIB: u64 = 1500;

/// Nor is one that takes so long.
const LOST: Duration = Duration::from_secs(100);

/// The lake of the sample data, and a job that asks questions of it.
fn lake() -> Scratch {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample_data");
    let scratch = Scratch::new().input(&format!(
        "logs = {:?}\nsellers = {:?}",
        sample.join("logs/"),
        sample.join("sellers.csv")
    ));
    assert_eq!(scratch.run(&[]).code, 0);
    std::fs::create_dir(scratch.path("tmp")).unwrap();
    scratch
}

fn job(scratch: &Scratch, name: &str, sql: &str, limits: &str) -> PathBuf {
    scratch.write(&format!("{name}.sql"), sql);
    let lake = scratch.lake();
    scratch.write(
        &format!("{name}.toml"),
        format!(
            "name = {name:?}\nkind = \"sql\"\nquery = \"{name}.sql\"\n[output]\nlake = {lake:?}\n[limits]\n{limits}\n"
        ),
    );
    scratch.path(&format!("{name}.toml"))
}

/// How a process ended.
struct Ended {
    /// 128 and more: by a signal.
    code: i32,
    stderr: String,
    took: Duration,
    peak_mib: u64,
}

fn start(scratch: &Scratch, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pennymill"))
        .args(arguments)
        .env("TMPDIR", scratch.path("tmp"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The peak of the program's own memory: rusage would count what this process had when it started it.
fn peak_mib(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn end(mut child: Child) -> Ended {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    let (started, mut peak) = (Instant::now(), 0);
    let status = loop {
        peak = peak.max(peak_mib(&child));
        if peak > MEMORY_LOST_MIB || started.elapsed() > LOST {
            child.kill().unwrap();
        }
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(3)),
        }
    };
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap();
    Ended { code, stderr, took: started.elapsed(), peak_mib: peak }
}

fn ask(scratch: &Scratch, sql: &str, more: &[&str]) -> Ended {
    let lake = scratch.lake();
    let memory = format!("limits.memory={MEMORY_MIB}MiB");
    let job = job(scratch, "limits", "select 1", "");
    let mut arguments = vec!["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"];
    arguments.extend(["--job", job.to_str().unwrap(), "--set", &memory]);
    arguments.extend(more);
    end(start(scratch, &arguments))
}

fn nested(times: usize, open: &str, inner: &str, close: &str) -> String {
    format!("{}{inner}{}", open.repeat(times), close.repeat(times))
}

fn joined(count: usize, table: impl Fn(usize) -> String, by: &str) -> String {
    (0..count).map(table).collect::<Vec<_>>().join(by)
}

/// Each kind of question that has no bound of its own, and the exit codes that it may have.
fn hostile() -> Vec<(&'static str, String, &'static [i32])> {
    const ANSWERED: &[i32] = &[0];
    const TOO_MUCH: &[i32] = &[78];
    const TOO_SLOW: &[i32] = &[75];
    const EITHER: &[i32] = &[75, 78];
    const SMALL: &[i32] = &[0, 78];
    let s = |text: &str| text.to_string();
    let chain = |count, step: &str, last: &str| {
        let steps =
            (1..count).map(|n| format!(", a{n} as ({})", step.replace("BEFORE", &format!("a{}", n - 1))));
        format!("with a0 as (select 1 as x){} select {last} from a{}", steps.collect::<String>(), count - 1)
    };
    vec![
        // Values that grow.
        ("repeat", s("select sum(length(repeat(category, 1000000))) from monthly_spending"), TOO_MUCH),
        ("lpad", s("select length(lpad('a', 2000000000))"), TOO_MUCH),
        ("lpad by row", s("select sum(length(lpad(category, 1000000))) from monthly_spending"), TOO_MUCH),
        (
            "replace",
            s("select sum(length(replace(category, 'a', repeat('x', 9000000)))) from monthly_spending"),
            TOO_MUCH,
        ),
        (
            "regexp_replace",
            s(
                "select sum(length(regexp_replace(category, '.', repeat('x', 100000), 'g'))) from monthly_spending",
            ),
            TOO_MUCH,
        ),
        (
            "doubling",
            chain(40, "select concat(repeat('x', 1000), x, x, x, x) as x from BEFORE", "max(length(x))"),
            EITHER,
        ),
        (
            "string_agg",
            s(
                "select length(string_agg(repeat(category, 100), ',')) from monthly_spending, generate_series(1, 1000)",
            ),
            TOO_MUCH,
        ),
        (
            "array_agg",
            s(
                "select count(a) from (select array_agg(repeat(category, 100)) a from monthly_spending, generate_series(1, 1000))",
            ),
            TOO_MUCH,
        ),
        (
            "window frame",
            s(
                "select max(x) from (select array_agg(user_id) over (order by user_id rows between unbounded preceding and current row) x from monthly_spending)",
            ),
            TOO_MUCH,
        ),
        (
            "growing recursion",
            s(
                "with recursive r as (select 'x' as n union all select n || n from r) select max(length(n)) from r",
            ),
            TOO_MUCH,
        ),
        (
            "cube",
            s(
                "select count(*) from (select 1 from monthly_spending group by cube(user_id, category, amount, month, user_id + 1, user_id + 2, user_id + 3, user_id + 4, user_id + 5, user_id + 6, user_id + 7, user_id + 8, user_id + 9))",
            ),
            EITHER,
        ),
        // Rows without end.
        (
            "recursion",
            s("with recursive r as (select 1 as n union all select n + 1 from r) select count(*) from r"),
            TOO_SLOW,
        ),
        (
            "fanning recursion",
            s(
                "with recursive r as (select 1 as n union all select r.n + 1 from r, generate_series(1, 1000)) select count(*) from r",
            ),
            EITHER,
        ),
        (
            "cross join",
            s(
                "select count(*) from monthly_spending a, monthly_spending b, monthly_spending c where a.amount + b.amount + c.amount = 1",
            ),
            TOO_SLOW,
        ),
        ("series", s("select * from generate_series(1, 1000000000000)"), TOO_SLOW),
        ("distinct series", s("select count(distinct value) from generate_series(1, 1000000000000)"), EITHER),
        (
            "sorted cross join",
            s("select * from monthly_spending a, monthly_spending b order by a.amount + b.amount"),
            EITHER,
        ),
        (
            "groups",
            s(
                "select count(*) from (select a.user_id, b.user_id, count(*) from monthly_spending a, monthly_spending b group by 1, 2)",
            ),
            EITHER,
        ),
        (
            "window",
            s(
                "select sum(s) from (select sum(a.amount) over (order by b.amount) s from monthly_spending a, monthly_spending b)",
            ),
            EITHER,
        ),
        (
            "lists of lists",
            s(
                "select count(*) from information_schema.columns a, information_schema.columns b, information_schema.columns c, information_schema.columns d, information_schema.columns e, information_schema.columns f",
            ),
            &[0, 75],
        ),
        // Texts that are deep or long.
        ("explains", nested(1000, "explain ", "select 1", ""), TOO_MUCH),
        ("two explains", s("explain analyze explain select 1"), TOO_MUCH),
        (
            "values",
            format!(
                "select * from {}",
                joined(1500, |n| format!("(values ({n})) t{n}(c{n})"), " cross join ")
            ),
            TOO_MUCH,
        ),
        (
            "joins",
            format!(
                "select 1 from monthly_spending t {}",
                joined(700, |n| format!("join monthly_spending t{n} on t{n}.user_id = t.user_id"), " ")
            ),
            TOO_MUCH,
        ),
        (
            "joins before ON",
            format!("select 1 from t {} {}", "join t ".repeat(5000), "on true ".repeat(5000)),
            TOO_MUCH,
        ),
        (
            "commas",
            format!("select 1 from {}", joined(3000, |n| format!("monthly_spending t{n}"), ", ")),
            TOO_MUCH,
        ),
        ("brackets", format!("select {}", nested(5000, "(", "1", ")")), TOO_MUCH),
        ("subqueries", nested(300, "select * from (", "select 1", ") t"), TOO_MUCH),
        (
            "exists",
            format!("select 1 where {}", nested(300, "exists (select 1 where ", "true", ")")),
            TOO_MUCH,
        ),
        ("cases", format!("select {}", nested(2000, "case when true then ", "1", " end")), TOO_MUCH),
        ("signs", format!("select {} 1", "- ".repeat(5000)), TOO_MUCH),
        ("negations", format!("select {} true", "not ".repeat(5000)), TOO_MUCH),
        ("terms", format!("select {}", ["1"; 10_000].join(" + ")), TOO_MUCH),
        ("casts", format!("select 1{}", "::int".repeat(5000)), TOO_MUCH),
        ("tests", format!("select 1 {}", "is null ".repeat(5000)), TOO_MUCH),
        ("types in types", format!("select cast(null as {})", nested(3000, "array<", "int", ">")), TOO_MUCH),
        ("lists of types", format!("select null::int{}", "[]".repeat(5000)), TOO_MUCH),
        ("unions", ["select 1"; 3000].join(" union all "), TOO_MUCH),
        ("intersections", ["select 1"; 3000].join(" intersect "), TOO_MUCH),
        (
            "list",
            format!(
                "select count(*) from monthly_spending where user_id in ({})",
                joined(9000, |n| n.to_string(), ",")
            ),
            ANSWERED,
        ),
        ("tokens", format!("select 1 in ({})", ["1"; 50_000].join(",")), TOO_MUCH),
        ("comments", format!("select 1 {}", nested(20_000, "/*", "", "*/")), SMALL),
        ("name", format!("select 1 as {}", "a".repeat(100_000)), ANSWERED),
        ("text", format!("select length('{}')", "a".repeat(100_000)), ANSWERED),
        // Texts that are flat, and mean something deep or huge.
        ("chain", chain(1500, "select x + 1 as x from BEFORE", "count(*)"), EITHER),
        (
            "doubling tables",
            chain(40, "select l.x from BEFORE l join BEFORE r on l.x = r.x", "count(*)"),
            EITHER,
        ),
        ("doubling columns", chain(30, "select * from BEFORE l, BEFORE r", "count(*)"), EITHER),
        // Numbers that do not fit.
        ("power", s("select power(10, 400)::decimal(38, 0)"), &[65, 78]),
        (
            "product",
            s(
                "select sum(amount * amount * amount * amount * amount * amount * amount * amount) from monthly_spending",
            ),
            &[0, 65, 78],
        ),
    ]
}

#[test]
fn every_hostile_question_ends_with_its_code_and_within_its_memory() {
    let scratch = lake();
    let base = ask(&scratch, "select sum(amount) from monthly_spending", &[]);
    assert_eq!(base.code, 0, "{}", base.stderr);
    // What the allocator adds to what is asked of it, and the stacks.
    let most_mib = base.peak_mib + MEMORY_MIB * 5 / 4 + 64;
    let (questions, next) = (hostile(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((name, sql, codes)) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // What is to end by its size is given the time to become large, on any machine.
                    let time = if codes.contains(&75) { "2s" } else { "60s" };
                    let ended = ask(&scratch, sql, &["--timeout", time]);
                    let context = format!(
                        "{name}: {} in {:?}, {} MiB: {}",
                        ended.code, ended.took, ended.peak_mib, ended.stderr
                    );
                    assert!(codes.contains(&ended.code), "{context}");
                    assert!(ended.peak_mib <= most_mib, "{context}: the most is {most_mib} MiB");
                    let is_line =
                        ended.stderr.lines().count() == 1 && ended.stderr.starts_with("pennymill: ");
                    assert!(is_line || ended.code == 0, "{context}");
                }
            });
        }
    });
    assert_eq!(std::fs::read_dir(scratch.path("tmp")).unwrap().count(), 0, "something was left");
}

#[test]
fn a_question_ends_when_its_time_is_over() {
    let scratch = lake();
    let endless = "with recursive r as (select 1 as n union all select n + 1 from r) select count(*) from r";
    let ended = ask(&scratch, endless, &["--timeout", "1s"]);
    let said = "pennymill: query: the question took longer than 1 s; ask for less, or allow more with --timeout or \
                limits.timeout\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (75, said));
    // Planning does not yield: the process is ended from beside it.
    let columns = joined(6000, |n| format!("amount + {n}"), ", ");
    let planned = ask(&scratch, &format!("select {columns} from monthly_spending"), &["--timeout", "1s"]);
    assert_eq!((planned.code, planned.stderr.as_str()), (75, said));
    let job = job(&scratch, "endless", endless, "timeout = \"1s\"");
    let ran = end(start(&scratch, &["run", job.to_str().unwrap()]));
    assert_eq!((ran.code, ran.stderr.as_str()), (75, said));
    assert!(!scratch.path("lake/endless").exists());
}

/// More rows than memory, sorted.
const SORTED: &str = "select a.user_id, b.user_id, a.amount + b.amount as s from monthly_spending a, \
                      monthly_spending b order by s";

/// Waits until the process holds a file in the temporary folder, whether or not it has a name.
fn wait_for_spill(child: &Child, folder: &Path) {
    let started = Instant::now();
    let is_inside = |link: std::io::Result<PathBuf>| {
        link.is_ok_and(|link| link.to_string_lossy().starts_with(folder.to_str().unwrap()))
    };
    let holds = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        open.flatten().any(|entry| is_inside(std::fs::read_link(entry.path())))
    };
    while !holds() {
        assert!(started.elapsed() < LOST, "nothing was put aside");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[expect(unsafe_code, reason = "sends signals that the standard library cannot")]
fn what_is_put_aside_vanishes_however_the_process_ends() {
    let scratch = lake();
    let job = job(&scratch, "sorted", SORTED, "memory = \"64MiB\"\ntimeout = \"60s\"");
    let (lake, folder) = (scratch.lake(), scratch.path("tmp"));
    let started = |timeout: &str| {
        let query = ["query", "--lake", lake.to_str().unwrap(), SORTED, "--timeout", timeout];
        start(&scratch, &[&query[..], &["--job", job.to_str().unwrap()]].concat())
    };
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGABRT] {
        let child = started("60s");
        wait_for_spill(&child, &folder);
        // SAFETY: the process was started here and was not waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        assert_eq!(end(child).code, 128 + signal);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "after signal {signal}");
    }
    let child = started("3s");
    wait_for_spill(&child, &folder);
    assert_eq!(end(child).code, 75);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "after its time");
}

#[test]
fn what_is_put_aside_has_a_cap() {
    let scratch = lake();
    let job = job(&scratch, "sorted", SORTED, "memory = \"64MiB\"\nspill = \"64MiB\"\ntimeout = \"20s\"");
    let ended = end(start(&scratch, &["run", job.to_str().unwrap()]));
    let said = "pennymill: query: the query would put aside more than 64 MiB; ";
    assert!(ended.code == 78 && ended.stderr.starts_with(said), "{}: {}", ended.code, ended.stderr);
}

/// Ten million rows of noise: about 90 MiB as Parquet.
const NOISE: &str = "select value as n, random() as noise from generate_series(1, 10000000)";

#[test]
fn a_jobs_answer_is_published_whatever_its_size_and_within_its_bounds() {
    let scratch = lake();
    let small = "memory = \"64MiB\"";
    let bounded = job(&scratch, "noise", NOISE, &format!("{small}\nanswer = \"64MiB\""));
    let ended = end(start(&scratch, &["run", bounded.to_str().unwrap()]));
    let said = "pennymill: query: the answer is more than 64 MiB, as Parquet; nothing was published; ";
    assert!(ended.code == 78 && ended.stderr.starts_with(said), "{}: {}", ended.code, ended.stderr);
    let left = std::fs::read_dir(scratch.path("lake/noise"));
    assert!(left.is_err() || left.unwrap().count() == 0, "parts of a failed job stay");

    let published = job(&scratch, "noise", NOISE, small);
    let ended = end(start(&scratch, &["run", published.to_str().unwrap()]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let lake = scratch.lake();
    let sql = "select count(*) c, sum(n) s, count(distinct noise) > 9000000 d from noise";
    let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]);
    assert_eq!(said.stdout, "c,s,d\n10000000,50000005000000,true\n", "{}", said.stderr);
}
