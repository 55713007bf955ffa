//! A job file as written, with its defaults.
//!
//! In: TOML text and `--set key=value` overrides. Out: a [`Spec`].
//! Invariant: every key is known (an unknown one is an error that names the nearest), every value
//! is of its type and range; relative paths stay as written.

use super::sections::{Alerts, Bench, BudgetRules, Deliver, Input, Limits, Output, Recommend, Smtp, Votes};
use super::text::read_text;
use super::values::OneOrMore;
use crate::error::{Error, Misread, Result, line_and_column, near, shown};
use crate::limits::TABLE_BYTES_MIN;
use crate::planted::Bug;
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

    /// What the rows of one reference table may take in memory.
    pub fn table_bytes_max(&self) -> u64 {
        self.limits.memory.0.0.max(TABLE_BYTES_MIN)
    }

    /// Reads a job file and applies `--set` overrides, which win.
    pub fn load(file: &Path, sets: &[String]) -> Result<Spec> {
        let shown = file.display().to_string();
        let text = read_text(file, "job file")?;
        let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Spec { folder, ..Spec::parse(&text, &shown, sets)? })
    }

    /// A job from its text; `shown` is what errors call it.
    pub fn parse(text: &str, shown: &str, sets: &[String]) -> Result<Spec> {
        let at = |error| misread(error, text, shown);
        refuse_unknown_keys(text, shown)?;
        let mut table: toml::Table = toml::from_str(text).map_err(at)?;
        if sets.is_empty() {
            return toml::from_str::<Spec>(text).map_err(at)?.checked(shown);
        }
        for set in sets {
            apply(set, &mut table)?;
        }
        let spec: Spec = match table.clone().try_into() {
            Ok(spec) => spec,
            Err(error) => {
                let set = culprit(&toml::from_str(text).map_err(at)?, sets, &error);
                return Err(misread(error, text, &set.unwrap_or(shown.to_string())));
            }
        };
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
    let parsed = toml::de::DeTable::parse(text).map_err(|error| misread(error, text, shown))?;
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

/// A mistake in the text of a job, with its place.
fn misread(error: toml::de::Error, text: &str, shown: &str) -> Error {
    let Misread { what, byte } = error.into();
    Error::unfit(what).at(byte.map_or(shown.to_string(), |byte| place_of(text, shown, byte)))
}

/// The override without which the job would not have this error.
fn culprit(table: &toml::Table, sets: &[String], error: &toml::de::Error) -> Option<String> {
    let message = |skipped: usize| {
        let mut table = table.clone();
        let others = sets.iter().enumerate().filter(|(index, _)| *index != skipped);
        others.for_each(|(_, set)| drop(apply(set, &mut table)));
        table.try_into::<Spec>().err().map(|error| error.message().to_string())
    };
    let index = (0..sets.len()).find(|index| message(*index).as_deref() != Some(error.message()))?;
    Some(format!("--set {}", sets[index].split('=').next().unwrap_or_default().trim()))
}

/// A key that is mistyped is repeated; any other word may be part of a file that is no job.
fn unknown_key(key: &str) -> Error {
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_string();
    let sections = || KEYS.iter().filter_map(|known| known.split_once('.')).map(|(section, _)| section);
    let is_section = |key: &str| key.split_once('.').is_some_and(|(name, _)| sections().any(|s| s == name));
    let distance = |known: &&&str| {
        // The right word in the wrong section is nearer than any other word.
        strsim::damerau_levenshtein(key, known).min(1 + strsim::damerau_levenshtein(&last(key), &last(known)))
    };
    let is_near = |known: &&&str| near(key, known) || is_section(key) && near(&last(key), &last(known));
    if Bug::UnknownKeyEchoed.is_planted() {
        return Error::unfit(format!("unknown key `{key}`"));
    }
    match KEYS.iter().filter(is_near).min_by_key(distance) {
        Some(nearest) => {
            Error::unfit(format!("unknown key `{key}`")).advise(format!("did you mean `{nearest}`?"))
        }
        None => Error::unfit("an unknown key").advise("is it a job file? `jobs/` has one of each kind"),
    }
}

/// Applies `key=value`; the value is TOML, or else text.
fn apply(set: &str, table: &mut toml::Table) -> Result<()> {
    let (key, value) =
        set.split_once('=').ok_or_else(|| Error::unfit("not of the form key=value").at("--set"))?;
    let key = key.trim();
    if !KEYS.contains(&key) {
        return Err(unknown_key(key).at("--set"));
    }
    let at = |error: Error| error.at(format!("--set {key}"));
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
    let (line, column) = line_and_column(text, byte);
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
                .starts_with("a.toml:8:10: not an amount of memory")
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
            refusal(&JOB.replace("logs/\"", "logs/\"\ntime_zone = \"Mars/Base\""), &[])
                .starts_with("a.toml:5:13: not an IANA time zone")
        );
        assert!(
            refusal(JOB, &["limits.threads=1", "limits.memory=lots"])
                .starts_with("--set limits.memory: not an amount of memory")
        );
    }
}
