//! What is one user's is told to that user alone, and what is secret to nobody.
//!
//! In: logs in which every user buys at a seller of their own, by amounts that give them away;
//! credentials in the environment and in URLs; hostile names. Out: pass, or what leaked and where.
//! Invariant: a user's rows are those of a run over that user's rows alone; no canary stands in
//! anything that is printed or kept, but in `transactions`, in rejects and in the sums that are asked for.

use crate::support::s3_server::{KEY, SECRET, serve};
use crate::support::{Numbers, Said, Scratch, parts, published, rounds, say, seed};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pennymill::engine::local::Tuning;
use pennymill::job::spec::Spec;
use pennymill::run::{Asked, publish};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

const CATEGORIES: [&str; 5] = ["groceries", "dining", "gas", "shopping", "travel"];
const TABLES: [&str; 3] = ["monthly_spending", "budget_alerts", "transactions"];
const LOGS: usize = 4;

/// The seller of the user of this number, in letters: digits might be taken for a reference.
fn canary(number: usize) -> String {
    let letter = |place: u32| char::from(b'A' + (number / 26usize.pow(place) % 26) as u8);
    format!("CANARY-Q{}", (0..4).map(letter).collect::<String>())
}

/// Ids next to each other, far apart, and such that share their low or their high bits.
fn id(number: usize) -> u64 {
    let number = number as u64;
    match number % 4 {
        0 => number,
        1 => number << 32,
        2 => number << 45 | 7,
        _ => i64::MAX as u64 - number,
    }
}

struct World {
    users: usize,
    /// (user's number, line) by log.
    logs: Vec<Vec<(usize, String)>>,
}

impl World {
    fn new(users: usize) -> World {
        let mut numbers = Numbers(seed());
        let mut logs: Vec<Vec<(usize, String)>> = vec![Vec::new(); LOGS];
        for row in 0..10 * users {
            let user = if row < users { row } else { numbers.below(users) };
            let (month, day, second) = (1 + numbers.below(3), 1 + numbers.below(28), numbers.below(86_400));
            let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
            // Some sellers are everybody's, so that people's choices for them can be mixed up.
            let seller = if numbers.below(3) == 0 { "Corner Shop".into() } else { canary(user) };
            let cents = numbers.below(20_000) as i64 - 2000;
            let (sign, amount) = (if cents < 0 { "-" } else { "" }, cents.abs());
            let amount = format!("{sign}{}.{:02}", amount / 100, amount % 100);
            let line = format!("{}\t2025-{month:02}-{day:02}T{time}Z\t{seller}\t{amount}\n", id(user));
            logs[numbers.below(LOGS)].push((user, line));
        }
        World { users, logs }
    }

    /// The job over the rows of some users, and over what the tables say of them; the lines of all
    /// others are empty.
    fn of(&self, is_in: impl Fn(usize) -> bool) -> Scratch {
        let table = |header: &str, row: &dyn Fn(usize) -> String| -> String {
            let users = (0..self.users).filter(|user| is_in(*user));
            format!("{header}\n") + &users.map(row).collect::<String>()
        };
        let own = |user: usize| CATEGORIES[user % 5];
        let other = |user: usize| CATEGORIES[user / 5 % 5];
        let sellers = table("seller,category", &|user| format!("{},{}\n", canary(user), own(user)));
        let choices = table("user_id,seller,category,set_at", &|user| match user % 2 {
            0 => String::new(),
            _ => format!("{},corner shop,{},2025-01-01\n", id(user), other(user)),
        });
        let users = table("user_id,monthly_income", &|user| format!("{},{}.00\n", id(user), 500 + user));
        let budgets = table("user_id,category,amount", &|user| match user % 3 {
            0 => String::new(),
            _ => format!("{},{},{}.{:02}\n", id(user), own(user), 100 + user / 100, user % 100),
        });
        let scratch = Scratch::new()
            .table("sellers.csv", &(sellers + "Corner Shop,health\n"))
            .table("category_overrides.csv", &choices)
            .table("users.csv", &users)
            .table("budget_overrides.csv", &budgets)
            .table(
                "budget_template.toml",
                "[[tier]]\nname='all'\nincome_from='0'\nshares={groceries=0.1, dining=0.1, gas=0.1, health=0.05}\n",
            )
            .rest("transactions = true\n[alerts]\nas_of = \"2025-03-20\"\npace_from_day = 10")
            .rest("[budgets]\nroll_over_from = \"2025-01\"");
        for (index, log) in self.logs.iter().enumerate() {
            let line = |(user, line): &(usize, String)| if is_in(*user) { line.clone() } else { "\n".into() };
            scratch.write(&format!("logs/{index}.tsv"), log.iter().map(line).collect::<String>());
        }
        scratch
    }
}

/// Publishes within this process, in as little memory as asked for.
fn run(scratch: &Scratch, memory_bytes: u64) {
    let spec = Spec::load(&scratch.job(), &[]).unwrap();
    let (report, _) = publish(&spec, &Asked::default(), &Tuning::new(2, memory_bytes)).unwrap();
    assert_eq!((report.inputs.held, report.rows.rejected), (0, 0));
}

/// The rows of a Parquet file as text; of an object only its last name, and nothing of the run.
fn texts(bytes: Vec<u8>) -> Vec<(Option<i64>, String)> {
    let mut texts = Vec::new();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
    for batch in reader.map(Result::unwrap) {
        let (schema, options) = (batch.schema(), FormatOptions::default());
        let users = batch.column_by_name("user_id").map(|column| column.as_primitive::<Int64Type>());
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let columns = names.zip(batch.columns()).filter(|(name, _)| *name != "run_id");
        let columns: Vec<(&str, ArrayFormatter)> = columns
            .map(|(name, column)| (name, ArrayFormatter::try_new(column.as_ref(), &options).unwrap()))
            .collect();
        for row in 0..batch.num_rows() {
            let cell = |(name, column): &(&str, ArrayFormatter)| match *name {
                "source_object" => column.value(row).to_string().rsplit('/').next().unwrap().to_string(),
                _ => column.value(row).to_string(),
            };
            let cells: Vec<String> = columns.iter().map(cell).collect();
            texts.push((users.map(|users| users.value(row)), cells.join(" | ")));
        }
    }
    texts
}

/// A table's rows by user, each with its month, in an order that does not depend on others.
fn rows(lake: &Path, table: &str) -> BTreeMap<u64, Vec<String>> {
    let mut rows = BTreeMap::<u64, Vec<String>>::new();
    for (path, bytes) in parts(lake, table) {
        let month = path.split('/').next().unwrap();
        for (user, text) in texts(bytes) {
            rows.entry(user.unwrap() as u64).or_default().push(format!("{month} | {text}"));
        }
    }
    rows.values_mut().for_each(|rows| rows.sort());
    rows
}

#[test]
fn a_users_slice_of_a_run_is_a_run_over_the_users_slice() {
    let (seed, sampled) = (seed(), rounds(20, 500));
    let world = World::new(rounds(4000, 20_000).clamp(100, 20_000));
    let everybody = world.of(|_| true);
    // In no memory: partitions wait on disk, where they could be mixed up as well.
    run(&everybody, 0);
    let lake = everybody.lake();
    let all = TABLES.map(|table| rows(&lake, table));
    let mut foreign = 0;
    for (number, user) in (0..world.users).map(|number| (number, id(number))) {
        let of_user = all[2].get(&user).into_iter().flatten();
        foreign += of_user.filter(|row| row.contains("CANARY") && !row.contains(&canary(number))).count();
    }
    assert_eq!((foreign, all[2].len()), (0, world.users), "seed {seed}: users with rows of others");
    // What an alert says is spent is what is published as spent by that very user.
    let spent: BTreeMap<(String, u64, String), (i64, u64)> = published(&lake);
    for (user, row) in all[1].iter().flat_map(|(user, rows)| rows.iter().map(move |row| (*user, row))) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let key = ("2025-03".to_string(), user, cells[3].to_string());
        let cents: i64 = cells[9].replace('.', "").parse().unwrap();
        assert_eq!(spent.get(&key).map_or(0, |(cents, _)| *cents), cents, "seed {seed}: {row}");
    }
    let (mut numbers, mut alerts) = (Numbers(seed), 0);
    for round in 0..sampled {
        let number = numbers.below(world.users);
        let alone = world.of(|user| user == number);
        run(&alone, 1 << 30);
        for (table, all) in TABLES.iter().zip(&all) {
            let own = rows(&alone.lake(), table);
            let slice = all.get(&id(number)).cloned().unwrap_or_default();
            let alone = own.get(&id(number)).cloned().unwrap_or_default();
            assert_eq!(alone, slice, "seed {seed}, round {round}: {table} of user {number}");
            assert!(own.len() <= 1, "seed {seed}, round {round}: {table} of others");
            alerts += if *table == "budget_alerts" { slice.len() } else { 0 };
        }
    }
    assert!(alerts > 0, "seed {seed}: no user of the sample was told anything");
    let users = world.users;
    say(&format!("{sampled} slices of {users} users, {alerts} alerts, 0 rows that differ or are another's"));
}

/// What nobody is to see: part of sellers, single amounts, keys, passwords and signatures.
const CANARIES: [&str; 4] = ["canary", "31337.42", "3133742", "31,337.42"];

/// A place with secrets in every corner.
const URL: &str = "s3://canary-user:canary-password@bucket/logs/?sig=canary-signature#canary-fragment";

fn assert_silent(what: &str, text: &str) {
    let lower = text.to_lowercase();
    for canary in CANARIES {
        assert!(!lower.contains(canary), "{what} tells {canary}: {text}");
    }
}

/// What a run says is free of canaries, and what went wrong is one line of plain text.
fn assert_discreet(what: &str, said: &Said) {
    let Said { code, stdout, stderr } = said;
    assert_silent(&format!("{what}: stdout"), stdout);
    assert_silent(&format!("{what}: stderr"), stderr);
    assert_plain(what, said);
    // Nothing went wrong, or the report says what did.
    let is_told = matches!(code, 0 | 3 | 65) && stderr.is_empty();
    assert!(is_told || (stderr.lines().count() == 1 && ![0, 3, 70].contains(code)), "{what}: {code} {stderr}");
}

fn assert_plain(what: &str, said: &Said) {
    let lines: Vec<&str> = said.stderr.lines().collect();
    let is_ours = lines.len() <= 1 && lines.iter().all(|line| line.starts_with("pennymill: "));
    let has_control = said.stderr.trim_end_matches('\n').chars().any(char::is_control);
    assert!(is_ours && !has_control, "{what}: {:?}", said.stderr);
}

/// Whatever a lake keeps beside the tables: manifests, ledgers, alerts, the tables' logs.
fn assert_lake_is_silent(what: &str, lake: &Path) {
    let (mut folders, mut files) = (vec![lake.to_path_buf()], 0);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Rejects are kept as they stood, and transactions are what they are.
            if name == "rejects.parquet" || path.starts_with(lake.join("transactions/month=2025-01-01")) {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let text = match name.ends_with(".parquet") {
                true => texts(bytes).into_iter().map(|(_, text)| text + "\n").collect(),
                false => String::from_utf8(bytes).unwrap(),
            };
            assert_silent(&format!("{what}: {}", path.display()), &text);
            files += 1;
        }
    }
    assert!(files > 0, "{what}: there is no lake");
}

/// A shop where every user buys thrice for the same amount, so that it stands in no sum.
fn shop() -> Scratch {
    let line = |row: usize| {
        let (user, day) = (1 + row / 3, 1 + row % 3);
        format!("{user}\t2025-01-{day:02}T10:00:00Z\t{}\t31337.42\n", canary(user))
    };
    let sellers = (1..=20).map(|user| format!("{},groceries\n", canary(user))).collect::<String>();
    let budgets = (1..=20).map(|user| format!("{user},groceries,100.00\n")).collect::<String>();
    let scratch = Scratch::new()
        .table("sellers.csv", &format!("seller,category\n{sellers}"))
        .table("budget_overrides.csv", &format!("user_id,category,amount\n{budgets}"))
        .rest("transactions = true")
        .environment("AWS_ACCESS_KEY_ID", "canary-key")
        .environment("AWS_SECRET_ACCESS_KEY", "canary-secret")
        .environment("AWS_ALLOW_HTTP", "true");
    scratch.write("logs/a.tsv", (0..60).map(line).collect::<String>());
    scratch
}
