//! A job file as written, with its defaults.
//!
//! In: TOML text and `--set key=value` overrides. Out: a [`Spec`].
//! Invariant: every key is known (an unknown one is an error that names the nearest), every value
//! is of its type and range; relative paths stay as written.

use super::sections::{Alerts, Bench, BudgetRules, Deliver, Input, Limits, Output, Recommend, Smtp, Votes};
use super::values::OneOrMore;
use crate::error::{Error, Kind, Result, shown};
use crate::files;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a job writes to name a table that ships with the program.
pub const BUILTIN: &str = "builtin";

/// Every key of a job file, dotted.
pub const KEYS: &[&str] = &[
    "name",
    "kind",
    "query",
    "input.logs",
    "input.sellers",
    "input.aliases",
    "input.keywords",
    "input.rules",
    "input.votes",
    "input.country",
    "input.categories",
    "input.category_overrides",
    "input.users",
    "input.budget_template",
    "input.budget_overrides",
    "input.contacts",
    "input.time_zone",
    "input.months",
    "input.currency",
    "input.verify",
    "output.lake",
    "output.table",
    "output.transactions",
    "votes.minimum",
    "votes.margin",
    "votes.age_days_max",
    "votes.as_of",
    "alerts.thresholds",
    "alerts.as_of",
    "alerts.pace_from_day",
    "alerts.pace_margin",
    "budgets.roll_over_from",
    "recommend.as_of",
    "recommend.savings",
    "deliver.rate_per_second",
    "deliver.attempts",
    "deliver.timeout_seconds",
    "deliver.run_seconds_max",
    "deliver.age_days_max",
    "deliver.networks_allowed",
    "smtp.server",
    "smtp.tls",
    "smtp.from",
    "smtp.user",
    "limits.rejects_max_ratio",
    "limits.memory",
    "limits.threads",
    "limits.timeout",
    "limits.spill",
    "limits.answer",
    "bench.rows",
    "bench.users",
    "bench.sellers",
    "bench.months",
    "bench.files",
    "bench.seed",
    "bench.compress",
    "bench.runs",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    Spending,
    Recommend,
    Deliver,
    Votes,
    Sql,
    Bench,
}

impl JobKind {
    /// As a job file names it.
    pub fn name(self) -> &'static str {
        match self {
            JobKind::Spending => "spending",
            JobKind::Recommend => "recommend",
            JobKind::Deliver => "deliver",
            JobKind::Votes => "votes",
            JobKind::Sql => "sql",
            JobKind::Bench => "bench",
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Spec {
    pub name: String,
    pub kind: JobKind,
    /// The SQL file of a job of kind `sql`, beside the job file.
    #[serde(default)]
    pub query: Option<String>,
    #[serde(default)]
    pub input: Input,
    #[serde(default)]
    pub output: Output,
    #[serde(default)]
    pub votes: Votes,
    #[serde(default)]
    pub alerts: Alerts,
    #[serde(default)]
    pub budgets: BudgetRules,
    /// Jobs of these kinds leave no manifest that would have to say it.
    #[serde(default, skip_serializing)]
    pub recommend: Recommend,
    #[serde(default, skip_serializing)]
    pub deliver: Deliver,
    #[serde(default, skip_serializing)]
    pub smtp: Smtp,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default, skip_serializing)]
    pub bench: Bench,
    /// The folder of the job file.
    #[serde(skip)]
    pub folder: PathBuf,
}

impl Spec {
    /// A job that names no logs and every layer that ships with the program.
    pub fn shipped() -> Spec {
        let builtin = || OneOrMore(vec![BUILTIN.to_string()]);
        let input = Input { sellers: builtin(), aliases: builtin(), keywords: builtin(), ..Input::default() };
        Spec {
            name: "shipped".into(),
            kind: JobKind::Spending,
            query: None,
            input,
            output: Output::default(),
            votes: Votes::default(),
            alerts: Alerts::default(),
            budgets: BudgetRules::default(),
            recommend: Recommend::default(),
            deliver: Deliver::default(),
            smtp: Smtp::default(),
            limits: Limits::default(),
            bench: Bench::default(),
            folder: PathBuf::new(),
        }
    }

    /// Reads a job file and applies `--set` overrides, which win.
    pub fn load(file: &Path, sets: &[String]) -> Result<Spec> {
        let shown = file.display().to_string();
        let text = files::read_text(file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::NotFound, "there is no such job file").at(&shown)
            }
            _ => Error::unfit(format!("cannot read the job file: {error}")).at(&shown),
        })?;
        let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Spec { folder, ..Spec::parse(&text, &shown, sets)? })
    }

    /// A job from its text; `shown` is what errors call it.
    pub fn parse(text: &str, shown: &str, sets: &[String]) -> Result<Spec> {
        let at = |error: toml::de::Error| {
            let place = match error.span() {
                Some(span) => place_of(text, shown, span.start),
                None => shown.to_string(),
            };
            Error::unfit(error.message()).at(place)
        };
        refuse_unknown_keys(text, shown)?;
        let mut table: toml::Table = toml::from_str(text).map_err(at)?;
        if sets.is_empty() {
            return toml::from_str::<Spec>(text).map_err(at)?.checked(shown);
        }
        for set in sets {
            apply(set, &mut table)?;
        }
        let spec: Spec =
            table.try_into().map_err(|e: toml::de::Error| Error::unfit(e.message()).at(shown))?;
        spec.checked(shown)
    }

    /// The job as JSON for manifests, without what URLs let their reader in with.
    pub fn to_json(&self) -> String {
        fn without_secrets(value: &mut Value) {
            match value {
                Value::String(text) => *text = shown(text),
                Value::Array(list) => list.iter_mut().for_each(without_secrets),
                Value::Object(map) => map.values_mut().for_each(without_secrets),
                _ => {}
            }
        }
        let mut value = serde_json::to_value(self).expect("text and numbers are JSON");
        without_secrets(&mut value);
        value.to_string()
    }

    /// What no single value can show.
    fn checked(self, shown: &str) -> Result<Spec> {
        let unfit = |what: &str| Err(Error::unfit(what).at(shown));
        let named = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        if !named(&self.name) {
            return unfit("`name` must be of letters, digits, `-` and `_`");
        }
        // Names that begin with `_` are not listed as tables.
        if self.output.table.as_ref().is_some_and(|table| !named(table) || table.starts_with('_')) {
            return unfit("`output.table` must be of letters, digits, `-` and `_`, and not begin with `_`");
        }
        let kind = self.kind.name();
        let needs = |what: &str| unfit(&format!("a job of kind \"{kind}\" needs {what}"));
        if self.alerts.pace_from_day.is_some_and(|day| !(1..=31).contains(&day)) {
            return unfit("`alerts.pace_from_day` must be a day of a month, 1 to 31");
        }
        self.deliver.check().map_err(|what| Error::unfit(what).at(shown))?;
        match self.kind {
            JobKind::Bench if self.bench.runs == 0 => unfit("`bench.runs` must be at least 1"),
            JobKind::Bench => Ok(self),
            _ if self.output.lake.is_empty() => needs("`output.lake`"),
            JobKind::Spending if self.input.logs.is_none() => needs("`input.logs`"),
            JobKind::Deliver if self.input.contacts.is_none() => needs("`input.contacts`"),
            JobKind::Votes if self.input.category_overrides.is_none() => needs("`input.category_overrides`"),
            JobKind::Sql if self.query.is_none() => needs("`query`, an SQL file beside it"),
            _ => Ok(self),
        }
    }
}

fn refuse_unknown_keys(text: &str, shown: &str) -> Result<()> {
    let parsed = toml::de::DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        Error::unfit(error.message()).at(place_of(text, shown, start))
    })?;
    for (key, value) in parsed.get_ref() {
        let section = key.get_ref().as_ref();
        let inner = value.get_ref().as_table();
        let keys = inner
            .into_iter()
            .flat_map(|table| table.keys())
            .map(|inner| (format!("{section}.{}", inner.get_ref()), inner.span().start));
        let keys: Vec<(String, usize)> = match inner {
            Some(table) if !table.is_empty() => keys.collect(),
            Some(_) if KEYS.iter().any(|k| k.starts_with(&format!("{section}."))) => Vec::new(),
            _ => vec![(section.to_string(), key.span().start)],
        };
        for (dotted, start) in keys {
            if !KEYS.contains(&dotted.as_str()) {
                return Err(unknown_key(&dotted).at(place_of(text, shown, start)));
            }
        }
    }
    Ok(())
}

fn unknown_key(key: &str) -> Error {
    let nearest = KEYS.iter().min_by_key(|known| {
        let last = |k: &str| k.rsplit('.').next().unwrap_or(k).to_string();
        // The right word in the wrong section is nearer than any other word.
        strsim::damerau_levenshtein(key, known).min(1 + strsim::damerau_levenshtein(&last(key), &last(known)))
    });
    let nearest = nearest.expect("there are keys");
    Error::unfit(format!("unknown key `{key}`")).advise(format!("did you mean `{nearest}`?"))
}

/// Applies `key=value`; the value is TOML, or else text.
fn apply(set: &str, table: &mut toml::Table) -> Result<()> {
    let at = |error: Error| error.at(format!("--set {}", set.split('=').next().unwrap_or(set)));
    let (key, value) = set.split_once('=').ok_or_else(|| at(Error::unfit("not of the form key=value")))?;
    let key = key.trim();
    if !KEYS.contains(&key) {
        return Err(at(unknown_key(key)));
    }
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let parsed =
        parsed.and_then(|mut t| t.remove("value")).filter(|v| !matches!(v, toml::Value::Datetime(_)));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_string()));
    match key.split_once('.') {
        None => drop(table.insert(key.to_string(), value)),
        Some((section, key)) => {
            let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
            let section =
                section.as_table_mut().ok_or_else(|| at(Error::unfit("the section is not a table")))?;
            section.insert(key.to_string(), value);
        }
    }
    Ok(())
}

/// `file:line:column` of a byte of the text.
fn place_of(text: &str, shown: &str, byte: usize) -> String {
    let before = &text[..byte.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    format!("{shown}:{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::values::{AsOf, Compress};

    const JOB: &str =
        "name = \"nightly\"\nkind = \"spending\"\n[input]\nlogs = \"logs/\"\n[output]\nlake = \"lake/\"\n";

    fn refusal(text: &str, sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
        Spec::parse(text, "a.toml", &sets).unwrap_err().to_string()
    }

    #[test]
    fn defaults_and_overrides() {
        let spec = Spec::parse(JOB, "a.toml", &[]).unwrap();
        assert_eq!(spec.alerts.thresholds.0, [800_000, 1_000_000]);
        assert_eq!(spec.limits.memory.0.0, 4 << 30);
        let sets = [
            "input.months=2025-01..2025-03",
            "limits.threads=7",
            "alerts.as_of=2025-02",
            "output.transactions=true",
        ];
        let spec = Spec::parse(JOB, "a.toml", &sets.map(String::from)).unwrap();
        assert_eq!(spec.input.months.0.0.count(), 3);
        assert_eq!(spec.limits.threads, 7);
        assert!(spec.output.transactions && matches!(spec.alerts.as_of.0, AsOf::Month(_)));
    }

    #[test]
    fn a_bench_job_needs_nothing_and_may_ask_for_anything() {
        const BENCH: &str = "name = \"bench\"\nkind = \"bench\"\n";
        let spec = Spec::parse(BENCH, "a.toml", &[]).unwrap();
        assert_eq!((spec.bench.rows, spec.bench.runs, spec.bench.compress), (1_000_000, 5, None));
        let sets = ["bench.rows=10", "bench.months=2025-01", "bench.compress=zst"];
        let bench = Spec::parse(BENCH, "a.toml", &sets.map(String::from)).unwrap().bench;
        assert_eq!((bench.rows, bench.months.0.0.count()), (10, 1));
        assert_eq!(bench.compress, Some(Compress::Zst));
        assert_eq!(refusal(BENCH, &["bench.runs=0"]), "a.toml: `bench.runs` must be at least 1");
        assert!(refusal(BENCH, &["bench.row=1"]).contains("did you mean `bench.rows`?"));
        assert!(refusal(BENCH, &["bench.compress=xz"]).contains("expected `gz` or `zst`"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_the_nearest_key() {
        let with = |line: &str| format!("{JOB}{line}\n");
        assert_eq!(
            refusal(&with("lakes = 1"), &[]),
            "a.toml:7:1: unknown key `output.lakes`; did you mean `output.lake`?"
        );
        assert_eq!(
            refusal(&with("[limit]\nthreads = 1"), &[]),
            "a.toml:8:1: unknown key `limit.threads`; did you mean `limits.threads`?"
        );
        assert_eq!(
            refusal(&with("memory = '1GiB'"), &[]),
            "a.toml:7:1: unknown key `output.memory`; did you mean `limits.memory`?"
        );
        assert!(
            refusal(&with("[limits]\nmemory = \"lots\""), &[])
                .starts_with("a.toml:8:10: `lots` is not an amount of memory")
        );
        assert!(
            refusal(&with("[alerts]\npace_margin = 1.5"), &[])
                .starts_with("a.toml:8:15: expected a fraction")
        );
        assert!(refusal(JOB, &["limits.thread=1"]).contains("did you mean `limits.threads`?"));
        assert!(refusal(JOB, &["limits.threads"]).contains("key=value"));
        assert!(refusal(&JOB.replace("spending", "sql"), &[]).contains("needs `query`"));
        let without_lake = JOB.replace("lake = \"lake/\"\n", "");
        for text in [without_lake.as_str(), &without_lake.replace("[output]\n", "")] {
            assert_eq!(refusal(text, &[]), "a.toml: a job of kind \"spending\" needs `output.lake`");
        }
        assert!(refusal("name = ", &[]).starts_with("a.toml:1:8: "));
        assert!(
            refusal(&JOB.replace("logs/\"", "logs/\"\ntime_zone = \"Mars/Base\""), &[]).contains("Mars/Base")
        );
    }
}
