//! A small service over a store in memory: its logs, its runs within this process, and what its lake
//! has to say.
//!
//! In: purchases night by night, the fates of a store's operations. Out: exit codes; spending, alerts and
//! transactions as a reader sees them.
//! Invariant: what is expected is added up from the purchases themselves, never by the program.

use super::Numbers;
use super::faults::Faults;
use super::watch::{State, state};
use crate::privacy::texts;
use object_store::PutMode;
use object_store::path::Path;
use pennymill::audit;
use pennymill::engine::local::Tuning;
use pennymill::error::Kind;
use pennymill::gc;
use pennymill::job::cli::{AuditArgs, GcArgs, ScoreForm};
use pennymill::job::spec::Spec;
use pennymill::output::lake::Lake;
use pennymill::run::{Asked, publish};
use pennymill::store::{mount, wait};
use std::fmt::Write;
use std::sync::Arc;

pub const MONTHS: [&str; 3] = ["2025-01", "2025-02", "2025-03"];
const SELLERS: [(&str, &str); 3] = [("Corner Shop", "groceries"), ("Diner", "dining"), ("Pump", "gas")];
const USERS: usize = 12;

/// Where the program finds the store, and where a reader does that no fault befalls.
const LAKE: &str = "night://shop/lake";
pub const SEEN: &str = "seen://shop/lake";

const TABLES: &str = "sellers = \"night://shop/sellers.csv\"\nusers = \"night://shop/users.csv\"\n\
                      budget_template = \"night://shop/budget_template.toml\"\n";

/// What one log says.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// (user, month, seller, cents).
    pub purchases: Vec<(u64, usize, usize, i64)>,
    /// Lines that are none.
    pub rejects: usize,
}

impl Log {
    /// Of some of the months.
    pub fn random(numbers: &mut Numbers, months: &[usize]) -> Log {
        let count = 5 + numbers.below(25);
        let purchase = |_| {
            let (user, month) = (numbers.below(USERS) as u64, *numbers.one_of(months));
            (user, month, numbers.below(SELLERS.len()), numbers.below(30_000) as i64 - 3_000)
        };
        Log { purchases: (0..count).map(purchase).collect(), rejects: 0 }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (line, (user, month, seller, cents)) in self.purchases.iter().enumerate() {
            let (sign, cents, month) = (if *cents < 0 { "-" } else { "" }, cents.abs(), MONTHS[*month]);
            let (seller, units, cents) = (SELLERS[*seller].0, cents / 100, cents % 100);
            let minute = line % 60;
            writeln!(text, "{user}\t{month}-10T10:{minute:02}:00Z\t{seller}\t{sign}{units}.{cents:02}")
                .unwrap();
        }
        (0..self.rejects).for_each(|_| text.push_str("nobody\tnever\tnothing\n"));
        text
    }
}

/// What a lake says that has counted these logs once.
pub fn counted<'a>(logs: impl IntoIterator<Item = &'a Log>) -> State {
    let mut state = State::new();
    for (user, month, seller, cents) in logs.into_iter().flat_map(|log| &log.purchases) {
        let key = (MONTHS[*month].to_string(), *user, SELLERS[*seller].1.to_string());
        let group = state.entry(key).or_default();
        *group = (group.0 + cents, group.1 + 1);
    }
    state
}

/// Whether a run has ended because its probe read back as something else, as a store lets it that keeps half
/// of what it is given.
pub fn is_no_good(code: u8, said: &str) -> bool {
    code == 78 && said.contains("the store does not give back what was created first")
}

/// All that a lake says, without what names its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub spending: State,
    pub alerts: Vec<String>,
    pub transactions: Vec<String>,
}

/// The rows of a table as text, with their month, in an order that depends on nothing else.
fn rows(table: &str) -> Vec<String> {
    let lake = Lake::open(SEEN).unwrap();
    let Some(opened) = lake.table(table).unwrap() else { return Vec::new() };
    let read = |path: &str| lake.place.child(table).child(path).read().unwrap().to_vec();
    let of_part = |path: &str| {
        let month = path.split('/').next().unwrap();
        texts(read(path)).into_iter().map(|(_, text)| format!("{month} {text}")).collect::<Vec<_>>()
    };
    let mut rows: Vec<String> = opened.files().unwrap().iter().flat_map(|part| of_part(&part.path)).collect();
    rows.sort();
    rows
}

/// What to ask the program for.
#[derive(Clone, Debug)]
pub enum Wish {
    Run(Asked),
    CleanUp,
}

/// The service, all in one store.
pub struct Shop {
    pub store: Faults,
    spec: Spec,
}

impl Shop {
    /// Over a store. There is one shop at a time in a process.
    pub fn over(store: Faults) -> Shop {
        mount("night://shop", Arc::new(store.clone())).unwrap();
        mount("seen://shop", Arc::new(store.for_reading())).unwrap();
        let job = format!(
            "name = \"nightly\"\nkind = \"spending\"\n[input]\nlogs = \"night://shop/logs/\"\n{TABLES}\
             [output]\nlake = \"{LAKE}\"\ntransactions = true\n[limits]\nrejects_max_ratio = 0.5\n"
        );
        Shop { store, spec: Spec::parse(&job, "job.toml", &[]).unwrap() }
    }

    /// With tables and no logs.
    pub fn open() -> Shop {
        let shop = Shop::over(Faults::new());
        let sellers = SELLERS.map(|(seller, category)| format!("{seller},{category}\n")).concat();
        shop.put("sellers.csv", format!("seller,category\n{sellers}"));
        let incomes: String = (0..USERS).map(|user| format!("{user},1000.00\n")).collect();
        shop.put("users.csv", format!("user_id,monthly_income\n{incomes}"));
        let shares = "shares = { groceries = 0.2, dining = 0.1 }";
        shop.put(
            "budget_template.toml",
            format!("[[tier]]\nname = \"all\"\nincome_from = \"0\"\n{shares}\n"),
        );
        shop
    }

    /// Puts an object into the store, whatever befalls the program.
    pub fn put(&self, path: &str, body: impl Into<bytes::Bytes>) {
        let payload: bytes::Bytes = body.into();
        wait(self.store.write(&Path::from(path), payload.into(), PutMode::Overwrite)).unwrap();
    }

    pub fn deliver(&self, name: &str, log: &Log) {
        self.put(&format!("logs/{name}"), log.text());
    }

    /// Runs within this process, with one thread, so that operations come in the same order each time.
    /// Out: its exit code as a shell sees it, and what it says of a failure.
    pub fn run(&self, wish: &Wish) -> (u8, String) {
        let code = match wish {
            Wish::Run(asked) => publish(&self.spec, asked, &Tuning::new(1, 1 << 28)).map(|(_, code)| code),
            Wish::CleanUp => gc::run(&GcArgs { lake: LAKE.into(), dry_run: false }).map(|(_, code)| code),
        };
        code.map_or_else(|error| (error.kind.exit_code(), error.to_string()), |code| (code, String::new()))
    }

    /// Another writer, who runs on a thread of its own. Out: its exit code.
    pub fn starter(&self, wish: &Wish) -> impl Fn() -> u8 + Clone + Send + Sync + 'static {
        let (shop, wish) = (Shop { store: self.store.clone(), spec: self.spec.clone() }, wish.clone());
        let shop = Arc::new(shop);
        move || shop.code(&wish)
    }

    pub fn code(&self, wish: &Wish) -> u8 {
        self.run(wish).0
    }

    pub fn state(&self) -> State {
        state(SEEN)
    }

    pub fn whole(&self) -> Whole {
        Whole { spending: state(SEEN), alerts: rows("budget_alerts"), transactions: rows("transactions") }
    }

    /// Walks all commits and all that they name; what is broken, if something is. That a log was written
    /// anew is told too, and is no fault.
    pub fn audit(&self) -> Option<String> {
        let args = AuditArgs { lake: SEEN.into(), share: 0.0, seed: 1, report: ScoreForm::Human };
        match audit::run(&args) {
            Ok((text, code)) => (code == Kind::Invariant.exit_code()).then_some(text),
            Err(error) => Some(error.to_string()),
        }
    }
}
