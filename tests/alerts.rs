//! Alerts over many nights, held to an obvious model.
//!
//! In: random histories of spending, refunds, late rows, changed budgets, re-runs, rebuilds and
//! crashes. Out: pass or fail, with the seed that repeats it.
//! Invariant: the model adds up everything anew every night and knows nothing of the product.

use crate::support::{Numbers, Scratch};
use std::collections::BTreeMap;

/// Each user is a history of its own: so many in each lake.
const USERS: u64 = 2500;
const NIGHTS: usize = 10;
const SHOPS: [&str; 2] = ["Shop", "Cafe"];
const CATEGORIES: [&str; 2] = ["dining", "groceries"];

/// A user, a month and a category.
type Key = (u64, u32, &'static str);

/// One line of the alert ledger: sequence, event, threshold in percent, reached, spent, budget.
type Said = (u64, &'static str, i64, Option<i64>, i64, i64);

struct Row {
    user: u64,
    month: u32,
    shop: usize,
    cents: i64,
    /// As it is published now; a rebuild may change it.
    category: &'static str,
}

/// All that a service knows, and what it must have said.
#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    /// What each shop is taken for.
    dictionary: [usize; 2],
    /// Manual budgets, from always.
    manual: BTreeMap<(u64, &'static str), i64>,
    thresholds: Vec<i64>,
    rolls_over: bool,
    said: BTreeMap<Key, Vec<Said>>,
}

fn reaches(percent: i64, spent: i64, budget: i64) -> bool {
    spent > 0 && if percent < 100 { spent * 100 >= budget * percent } else { spent * 100 > budget * percent }
}

impl Model {
    fn spent(&self) -> BTreeMap<Key, i64> {
        let mut spent = BTreeMap::new();
        self.rows
            .iter()
            .for_each(|row| *spent.entry((row.user, row.month, row.category)).or_default() += row.cents);
        spent
    }

    /// Users with an odd number earn 1000.00, of which the template gives a tenth.
    fn base(&self, user: u64, category: &'static str) -> Option<i64> {
        let template = (user % 2 == 1).then_some(100_00);
        self.manual.get(&(user, category)).copied().or(template)
    }

    fn budget(&self, (user, month, category): Key, spent: &BTreeMap<Key, i64>) -> Option<i64> {
        let base = self.base(user, category)?;
        if !self.rolls_over || month == 1 {
            return Some(base);
        }
        let before = (user, month - 1, category);
        let left = self.budget(before, spent)? - spent.get(&before).copied().unwrap_or(0);
        Some(base + left.max(0))
    }

    /// What a run says that has touched these months; `open` is the one that alerts are for. Out:
    /// how much that is.
    fn night(&mut self, touched: &[u32], open: Option<u32>) -> usize {
        let mut count = 0;
        let spent = self.spent();
        let keys = (0..USERS).flat_map(|user| CATEGORIES.map(|category| (user, category)));
        for ((user, category), month) in keys.flat_map(|key| touched.iter().map(move |month| (key, *month))) {
            let key = (user, month, category);
            let now = spent.get(&key).copied().unwrap_or(0);
            let last = self.said.get(&key).and_then(|said| said.last()).copied();
            let said = last.and_then(|(_, _, _, reached, ..)| reached);
            let highest = |budget| self.thresholds.iter().copied().filter(|t| reaches(*t, now, budget)).max();
            let budget = self.budget(key, &spent);
            let number = last.map_or(1, |(number, ..)| number + 1);
            let next: Option<Said> = if open == Some(month) {
                let reached = budget.and_then(highest);
                match (reached, said) {
                    (Some(reached), said) if said.is_none_or(|said| said < reached) => {
                        Some((number, "raised", reached, Some(reached), now, budget.unwrap()))
                    }
                    (_, Some(said)) if budget.is_none_or(|budget| !reaches(said, now, budget)) => {
                        Some((number, "cleared", said, reached, now, budget.unwrap_or(last.unwrap().5)))
                    }
                    _ => None,
                }
            } else {
                let of = last.map_or(0, |(.., budget)| budget);
                let wrong = said.filter(|said| !reaches(*said, now, of));
                wrong.map(|said| (number, "corrected", said, highest(of).filter(|t| *t < said), now, of))
            };
            count += usize::from(next.is_some());
            self.said.entry(key).or_default().extend(next);
        }
        count
    }
}

/// What the lake says.
fn published(scratch: &Scratch) -> BTreeMap<Key, Vec<Said>> {
    let lake = scratch.lake();
    let sql = "select user_id, month, category, sequence, event, cast(threshold * 100 as bigint) t, \
               cast(reached * 100 as bigint) r, cast(spent * 100 as bigint) s, cast(budget * 100 as bigint) b \
               from budget_alerts order by 1, 2, 3, 4";
    let said = scratch.pennymill(&["query", "--lake", lake.to_str().unwrap(), sql, "--format", "csv"]);
    let mut alerts = BTreeMap::<Key, Vec<Said>>::new();
    for line in said.stdout.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').map(|cell| cell.trim_start_matches('\'')).collect();
        let number = |index: usize| cells[index].parse::<i64>().unwrap();
        let category = CATEGORIES.into_iter().find(|category| *category == cells[2]).unwrap();
        let event = ["raised", "cleared", "corrected"].into_iter().find(|event| *event == cells[4]).unwrap();
        let month = cells[1][5..7].parse().unwrap();
        let reached = (!cells[6].is_empty()).then(|| number(6));
        let line = (number(3) as u64, event, number(5), reached, number(7), number(8));
        alerts.entry((number(0) as u64, month, category)).or_default().push(line);
    }
    alerts
}

/// The job's tables, and what a night adds to its logs.
struct Service {
    scratch: Scratch,
    numbers: Numbers,
    model: Model,
}

impl Service {
    fn new(seed: u64) -> Service {
        let numbers = Numbers(seed);
        let shares: Vec<i64> = if seed <= 2 { vec![80, 100] } else { vec![50, 80, 90, 100, 120] };
        let thresholds: Vec<String> =
            shares.iter().map(|percent| format!("{:.2}", *percent as f64 / 100.0)).collect();
        let model = Model {
            thresholds: shares,
            rolls_over: seed.is_multiple_of(2),
            dictionary: [1, 0],
            ..Model::default()
        };
        let roll_over = if model.rolls_over { "[budgets]\nroll_over_from = \"2025-01\"\n" } else { "" };
        let incomes: String =
            (0..USERS).filter(|user| user % 2 == 1).map(|user| format!("{user},1000.00\n")).collect();
        let scratch = Scratch::new()
            .table("sellers.csv", "seller,category\n")
            .table("users.csv", &format!("user_id,monthly_income\n{incomes}"))
            .table(
                "budget_template.toml",
                "[[tier]]\nname = \"all\"\nincome_from = \"0.00\"\nshares = { groceries = 0.1, dining = 0.1 }\n",
            )
            .table("budget_overrides.csv", "user_id,category,amount\n")
            .rest(&format!("[alerts]\nthresholds = [{}]\n{roll_over}", thresholds.join(", ")));
        Service { scratch, numbers, model }
    }

    fn write_tables(&self) {
        let mut sellers = "seller,category\n".to_string();
        for (shop, category) in SHOPS.iter().zip(self.model.dictionary) {
            sellers += &format!("{shop},{}\n", CATEGORIES[category]);
        }
        self.scratch.write("sellers.csv", sellers);
        let mut manual = "user_id,category,amount\n".to_string();
        for ((user, category), cents) in &self.model.manual {
            manual += &format!("{user},{category},{}.{:02}\n", cents / 100, cents % 100);
        }
        self.scratch.write("budget_overrides.csv", manual);
    }

    /// People change their minds, and shops their trade.
    fn change_tables(&mut self) {
        for user in 0..USERS {
            if self.numbers.below(10) == 0 {
                let category = *self.numbers.one_of(&CATEGORIES);
                match *self.numbers.one_of(&[-1, 0, 50_00, 100_00, 200_00]) {
                    -1 => drop(self.model.manual.remove(&(user, category))),
                    cents => drop(self.model.manual.insert((user, category), cents)),
                }
            }
        }
        if self.numbers.below(4) == 0 {
            self.model.dictionary.swap(0, 1);
        }
    }

    /// A file of new rows, some of them late. Out: the months that it touches.
    fn deliver(&mut self, night: usize, open: u32) -> Vec<u32> {
        const AMOUNTS: [i64; 14] = [
            1, 10_00, 20_00, 30_00, 50_00, 80_00, 99_99, 100_00, 150_00, -1, -10_00, -30_00, -50_00, -100_00,
        ];
        let (mut text, mut touched) = (String::new(), std::collections::BTreeSet::new());
        for user in 0..USERS {
            for _ in 0..self.numbers.below(4).saturating_sub(1) {
                let is_late = self.numbers.below(6) == 0;
                let month = if is_late { 1 + self.numbers.below(open as usize) as u32 } else { open };
                let (shop, cents) = (self.numbers.below(2), *self.numbers.one_of(&AMOUNTS));
                let sign = if cents < 0 { "-" } else { "" };
                text += &format!(
                    "{user}\t2025-{month:02}-{:02}T10:00:00Z\t{}\t{sign}{}.{:02}\n",
                    1 + self.numbers.below(28),
                    SHOPS[shop],
                    cents.abs() / 100,
                    cents.abs() % 100
                );
                touched.insert(month);
                let category = CATEGORIES[self.model.dictionary[shop]];
                self.model.rows.push(Row { user, month, shop, cents, category });
            }
        }
        self.scratch.write(&format!("logs/{night:02}.tsv"), text);
        touched.into_iter().collect()
    }

    fn run(&self, more: &[&str]) {
        let said = self.scratch.run(more);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }

    /// As if the last run had died between its commit and the alerts' own.
    fn forget_last_alerts(&self) {
        let log = self.scratch.path("lake/budget_alerts/_delta_log");
        let commits = std::fs::read_dir(&log).into_iter().flatten().map(|entry| entry.unwrap().path());
        let last = commits.filter(|path| path.extension().is_some_and(|e| e == "json")).max();
        if let Some(last) = last.filter(|last| !last.ends_with("00000000000000000000.json")) {
            std::fs::remove_file(last).unwrap();
        }
    }
}

fn histories(seed: u64) {
    let mut service = Service::new(seed);
    for night in 0..NIGHTS {
        let open = 1 + (night * 3 / NIGHTS) as u32;
        let as_of = format!("alerts.as_of=2025-{open:02}");
        service.change_tables();
        service.write_tables();
        let touched = service.deliver(night, open);
        service.run(&["--set", &as_of]);
        let count = service.model.night(&touched, Some(open));
        if count > 0 && service.numbers.below(2) == 0 {
            service.forget_last_alerts();
        }
        match service.numbers.below(3) {
            0 => service.run(&["--set", &as_of]),
            1 => {
                let month = 1 + service.numbers.below(open as usize) as u32;
                service.run(&["--set", &as_of, "--rebuild", &format!("2025-{month:02}")]);
                let dictionary = service.model.dictionary;
                let of_month = service.model.rows.iter_mut().filter(|row| row.month == month);
                of_month.for_each(|row| row.category = CATEGORIES[dictionary[row.shop]]);
                service.model.night(&[month], None);
            }
            // The next night catches up.
            _ => continue,
        }
        let mut expected = service.model.said.clone();
        expected.retain(|_, said| !said.is_empty());
        let found = published(&service.scratch);
        for key in expected.keys().chain(found.keys()) {
            assert_eq!(found.get(key), expected.get(key), "seed {seed}, night {night}, {key:?}");
        }
    }
}

/// 2,500 histories each, so 10,000 in all.
#[test]
fn what_was_said_is_what_must_have_been_said() {
    std::thread::scope(|scope| {
        for seeds in [[1, 2], [3, 4]] {
            scope.spawn(move || seeds.into_iter().for_each(histories));
        }
    });
}
