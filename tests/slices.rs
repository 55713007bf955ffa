//! What is one user's is told to that user alone.
//!
//! In: logs in which every user buys at a seller of their own, beside one that is everybody's. Out:
//! pass, or the rows that are another's, with the seed that shows them again.
//! Invariant: a user's slice of a run is the run over the user's slice of logs and tables: spending,
//! alerts and transactions.

use crate::privacy::{canary, texts};
use crate::support::{Numbers, Scratch, parts, published, rounds, say, seed};
use pennymill::engine::local::Tuning;
use pennymill::job::spec::Spec;
use pennymill::run::{Asked, publish};
use std::collections::BTreeMap;
use std::path::Path;

const CATEGORIES: [&str; 5] = ["groceries", "dining", "gas", "shopping", "travel"];
const TABLES: [&str; 3] = ["monthly_spending", "budget_alerts", "transactions"];
const LOGS: usize = 4;

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

/// A table's rows by user, each with its month, in an order that does not depend on others.
fn rows(lake: &Path, table: &str) -> BTreeMap<u64, Vec<String>> {
    let mut rows = BTreeMap::<u64, Vec<String>>::new();
    let folder = lake.parent().unwrap().canonicalize().unwrap();
    for (path, bytes) in parts(lake, table) {
        let month = path.split('/').next().unwrap();
        for (user, text) in texts(bytes) {
            // The logs are the same, wherever they lie.
            let text = text.replace(folder.to_str().unwrap(), "");
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
    let spent = published(&lake);
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
