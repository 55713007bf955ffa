//! A job file as written, with its defaults.
//!
//! In: TOML text and `--set key=value` overrides. Out: a [`Spec`].
//! Invariant: every key is known (an unknown one is an error that names the nearest), every value
//! is of its type and range; relative paths stay as written.

use crate::domain::budget::millionths;
use crate::domain::month::{Month, MonthRange};
use crate::error::{Error, Kind, Result};
use crate::limits::MONTHS_MAX;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Every key of a job file, dotted.
pub const KEYS: &[&str] = &[
    "name",
    "kind",
    "query",
    "input.logs",
    "input.sellers",
    "input.categories",
    "input.category_overrides",
    "input.users",
    "input.budget_template",
    "input.budget_overrides",
    "input.time_zone",
    "input.months",
    "input.currency",
    "output.lake",
    "output.table",
    "output.transactions",
    "alerts.approaching",
    "alerts.as_of",
    "limits.rejects_max_ratio",
    "limits.memory",
    "limits.threads",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    Spending,
    Sql,
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
    pub output: Output,
    #[serde(default)]
    pub alerts: Alerts,
    #[serde(default)]
    pub limits: Limits,
    /// The folder of the job file.
    #[serde(skip)]
    pub folder: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Input {
    pub logs: Option<String>,
    pub sellers: Option<String>,
    pub categories: Option<String>,
    pub category_overrides: Option<String>,
    pub users: Option<String>,
    pub budget_template: Option<String>,
    pub budget_overrides: Option<String>,
    pub time_zone: Text<TimeZone>,
    pub months: Text<Months>,
    pub currency: Text<Currency>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Output {
    pub lake: String,
    /// The table that a job of kind `sql` publishes; its name if not given.
    #[serde(default)]
    pub table: Option<String>,
    #[serde(default)]
    pub transactions: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Alerts {
    pub approaching: Share,
    pub as_of: Text<AsOf>,
}

impl Default for Alerts {
    fn default() -> Alerts {
        Alerts { approaching: Share(800_000), as_of: Text(AsOf::Latest) }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Limits {
    pub rejects_max_ratio: Share,
    pub memory: Text<Memory>,
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { rejects_max_ratio: Share(1000), memory: Text(Memory(4 << 30)), threads: 0 }
    }
}

/// A fraction of 0 to 1, in exact millionths.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(pub i64);

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(share: f64) -> Result<Share, String> {
        let share = millionths(share).map(Share);
        share.ok_or_else(|| "expected a fraction of 0 to 1 with at most 6 decimals".into())
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> f64 {
        share.0 as f64 / 1e6
    }
}

/// A value that is written as text.
#[derive(Clone, Debug, Default)]
pub struct Text<T>(pub T);

impl<'de, T: std::str::FromStr<Err = String>> Deserialize<'de> for Text<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Text).map_err(serde::de::Error::custom)
    }
}

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// Declares a checked text value with its printed form.
macro_rules! text_value {
    ($name:ident($inner:ty), |$value:ident| $show:expr) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $value = &self.0;
                write!(f, "{}", $show)
            }
        }
    };
}

/// An IANA zone name.
#[derive(Clone, Debug)]
pub struct TimeZone(pub String);
text_value!(TimeZone(String), |name| name);

impl Default for TimeZone {
    fn default() -> TimeZone {
        TimeZone("UTC".into())
    }
}

impl std::str::FromStr for TimeZone {
    type Err = String;

    fn from_str(name: &str) -> Result<TimeZone, String> {
        let known = name.parse::<chrono_tz::Tz>();
        known.map_err(|_| format!("`{name}` is not an IANA time zone, such as Europe/London"))?;
        Ok(TimeZone(name.to_string()))
    }
}

#[derive(Clone, Debug)]
pub struct Months(pub MonthRange);
text_value!(Months(MonthRange), |months| months);

impl Default for Months {
    fn default() -> Months {
        Months("2000-01..2099-12".parse().expect("a range"))
    }
}

impl std::str::FromStr for Months {
    type Err = String;

    fn from_str(text: &str) -> Result<Months, String> {
        let months: MonthRange = text.parse()?;
        match months.count() {
            count if count > MONTHS_MAX => Err(format!("{count} months; the most is {MONTHS_MAX}")),
            _ => Ok(Months(months)),
        }
    }
}

/// An ISO 4217 code of a currency with two decimals. One lake holds one currency.
#[derive(Clone, Debug)]
pub struct Currency(pub String);
text_value!(Currency(String), |code| code);

impl Default for Currency {
    fn default() -> Currency {
        Currency("USD".into())
    }
}

/// Currencies whose minor unit is not a hundredth (ISO 4217 list one).
const OTHER_MINOR_UNITS: &[&str] = &[
    "BHD", "BIF", "CLF", "CLP", "DJF", "GNF", "IQD", "ISK", "JOD", "JPY", "KMF", "KRW", "KWD", "LYD", "OMR",
    "PYG", "RWF", "TND", "UGX", "UYI", "UYW", "VND", "VUV", "XAF", "XOF", "XPF",
];

impl std::str::FromStr for Currency {
    type Err = String;

    fn from_str(code: &str) -> Result<Currency, String> {
        if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(format!("`{code}` is not a currency code, such as USD"));
        }
        if OTHER_MINOR_UNITS.contains(&code) {
            return Err(format!(
                "`{code}` has no hundredths; only currencies with two decimals are supported"
            ));
        }
        Ok(Currency(code.to_string()))
    }
}

/// The month that alerts are for.
#[derive(Clone, Copy, Debug)]
pub enum AsOf {
    /// The last month that holds a transaction.
    Latest,
    Month(Month),
}

impl std::fmt::Display for AsOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AsOf::Latest => f.write_str("latest"),
            AsOf::Month(month) => write!(f, "{month}"),
        }
    }
}

impl std::str::FromStr for AsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<AsOf, String> {
        match text {
            "latest" => Ok(AsOf::Latest),
            month => Ok(AsOf::Month(month.parse().map_err(|e| format!("{e}, or `latest`"))?)),
        }
    }
}

/// Bytes, written as `512MiB` or `4GiB`.
#[derive(Clone, Copy, Debug)]
pub struct Memory(pub u64);
text_value!(Memory(u64), |bytes| format_args!("{}MiB", bytes >> 20));

impl std::str::FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Memory, String> {
        let units = [("GiB", 30), ("MiB", 20)];
        let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
        let parsed = unit.and_then(|(n, shift)| n.trim().parse::<u64>().ok()?.checked_mul(1 << shift));
        match parsed {
            Some(bytes) if bytes >= 64 << 20 => Ok(Memory(bytes)),
            Some(_) => Err(format!("`{text}` is too little: the least is 64MiB")),
            None => Err(format!("`{text}` is not an amount of memory, such as 512MiB or 4GiB")),
        }
    }
}

impl Spec {
    /// Reads a job file and applies `--set` overrides, which win.
    pub fn load(file: &Path, sets: &[String]) -> Result<Spec> {
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::NotFound, "there is no such job file").at(&shown)
            }
            _ => Error::unfit(format!("cannot read the job file: {error}")).at(&shown),
        })?;
        let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Spec { folder, ..Spec::parse(&text, &shown, sets)? })
    }

    fn parse(text: &str, shown: &str, sets: &[String]) -> Result<Spec> {
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
        match self.kind {
            JobKind::Spending if self.input.logs.is_none() => {
                unfit("a job of kind \"spending\" needs `input.logs`")
            }
            JobKind::Sql if self.query.is_none() => {
                unfit("a job of kind \"sql\" needs `query`, an SQL file beside it")
            }
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

    const JOB: &str =
        "name = \"nightly\"\nkind = \"spending\"\n[input]\nlogs = \"logs/\"\n[output]\nlake = \"lake/\"\n";

    fn refusal(text: &str, sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
        Spec::parse(text, "a.toml", &sets).unwrap_err().to_string()
    }

    #[test]
    fn defaults_and_overrides() {
        let spec = Spec::parse(JOB, "a.toml", &[]).unwrap();
        assert_eq!((spec.alerts.approaching.0, spec.limits.memory.0.0), (800_000, 4 << 30));
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
            refusal(&with("[alerts]\napproaching = 1.5"), &[])
                .starts_with("a.toml:8:15: expected a fraction")
        );
        assert!(refusal(JOB, &["limits.thread=1"]).contains("did you mean `limits.threads`?"));
        assert!(refusal(JOB, &["limits.threads"]).contains("key=value"));
        assert!(refusal(&JOB.replace("spending", "sql"), &[]).contains("needs `query`"));
        assert!(refusal("name = ", &[]).starts_with("a.toml:1:8: "));
        assert!(
            refusal(&JOB.replace("logs/\"", "logs/\"\ntime_zone = \"Mars/Base\""), &[]).contains("Mars/Base")
        );
    }
}
