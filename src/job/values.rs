//! The values of a job file: each of its own type, checked as it is read.
//!
//! In: TOML or JSON values. Out: the values, or what is wrong with them.
//! Invariant: a value is written as it was read, so that a job can be kept and read again.

use crate::domain::budget::{MILLION, exact_millionths, millionths};
use crate::domain::month::{Month, MonthRange};
use crate::domain::zone::Zone;
use crate::limits::{MONTHS_MAX, RUN_SECONDS_MAX, THRESHOLDS_MAX};
use chrono::Datelike;
use serde::{Deserialize, Serialize};

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

/// Shares of a budget, in exact millionths, strictly rising.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct Thresholds(pub Vec<i64>);

/// Ten times a budget.
const THRESHOLD_MAX: f64 = 10.0;

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds(vec![MILLION * 8 / 10, MILLION])
    }
}

impl TryFrom<Vec<f64>> for Thresholds {
    type Error = String;

    fn try_from(shares: Vec<f64>) -> Result<Thresholds, String> {
        let exact = |share: &f64| {
            let within = *share > 0.0 && *share <= THRESHOLD_MAX;
            // A share that is nothing but smaller than a millionth would read back as none.
            within.then(|| exact_millionths(*share)).flatten().filter(|millionths| *millionths > 0)
        };
        let thresholds: Option<Vec<i64>> = shares.iter().map(exact).collect();
        let rise = |list: &Vec<i64>| list.windows(2).all(|pair| pair[0] < pair[1]);
        let fit = thresholds.filter(|list| rise(list) && (1..=THRESHOLDS_MAX).contains(&list.len()));
        fit.map(Thresholds).ok_or_else(|| {
            format!(
                "expected 1 to {THRESHOLDS_MAX} rising shares of a budget, each above 0, at most 10, and \
                 of at most 6 decimals"
            )
        })
    }
}

impl From<Thresholds> for Vec<f64> {
    fn from(thresholds: Thresholds) -> Vec<f64> {
        thresholds.0.iter().map(|millionths| *millionths as f64 / 1e6).collect()
    }
}

/// One value, or a list of them in the order of their weight.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct OneOrMore<T>(pub Vec<T>);

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        OneOrMore(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Values<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Values<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("text, or a list of texts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                Ok(vec![T::deserialize(serde::de::value::StrDeserializer::new(text))?])
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(values)
            }
        }

        from.deserialize_any(Values(std::marker::PhantomData)).map(OneOrMore)
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
        known.map_err(|_| "not an IANA time zone, such as Europe/London".to_string())?;
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
            return Err("not a currency code, such as USD".into());
        }
        if OTHER_MINOR_UNITS.contains(&code) {
            return Err("a currency without hundredths; only those with two decimals are supported".into());
        }
        Ok(Currency(code.to_string()))
    }
}

/// A day, where a job counts days: in UTC for votes, in the job's zone for alerts.
#[derive(Clone, Copy, Debug)]
pub struct Day(chrono::NaiveDate);
text_value!(Day(chrono::NaiveDate), |day| day);

impl Day {
    pub fn month(self) -> Month {
        let year = u32::try_from(self.0.year()).expect("a day of 1970 or later");
        Month::new(year, self.0.month()).expect("a day lies in a month")
    }

    /// From 1.
    pub fn day_of_month(self) -> u32 {
        self.0.day()
    }

    /// The day of a month, from 1.
    pub fn of(month: Month, day: u32) -> Day {
        let date = chrono::NaiveDate::from_ymd_opt(month.year() as i32, month.month_of_year(), day);
        Day(date.expect("a day of the month"))
    }

    /// The first instant after it in a zone.
    pub fn end_micros_in(self, zone: &Zone) -> i64 {
        let day = self.month().first_day() + self.day_of_month() as i32;
        zone.first_instant_of(day) * 1_000_000
    }

    /// The first instant after it.
    pub fn end_micros(self) -> i64 {
        let day = self.0.and_time(chrono::NaiveTime::MIN).and_utc();
        (day + chrono::TimeDelta::days(1)).timestamp_micros()
    }
}

impl std::str::FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Day, String> {
        let day: Option<chrono::NaiveDate> = text.parse().ok();
        let day = day.filter(|day| (1970..=9999).contains(&day.year()));
        day.map(Day).ok_or_else(|| "not a day, such as 2025-03-31".into())
    }
}

/// The month that alerts are for.
#[derive(Clone, Copy, Debug)]
pub enum AsOf {
    /// The last month that holds a transaction.
    Latest,
    Month(Month),
    /// The month of this day, by which spending is known.
    Day(Day),
}

impl std::fmt::Display for AsOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AsOf::Latest => f.write_str("latest"),
            AsOf::Month(month) => write!(f, "{month}"),
            AsOf::Day(day) => write!(f, "{day}"),
        }
    }
}

impl std::str::FromStr for AsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<AsOf, String> {
        match text {
            "latest" => Ok(AsOf::Latest),
            day if day.matches('-').count() == 2 => Ok(AsOf::Day(day.parse()?)),
            month => Ok(AsOf::Month(month.parse().map_err(|e| format!("{e}, as a day, or `latest`"))?)),
        }
    }
}

/// A host, and perhaps a port: `mail.example.com:587`.
#[derive(Clone, Debug)]
pub struct Server {
    pub host: String,
    pub port: Option<u16>,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl std::str::FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Server, String> {
        let refuse = || "not a server, such as mail.example.com:587".to_string();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| refuse())?)),
            None => (text, None),
        };
        let is_host = !host.is_empty() && !host.contains(['/', '@', ':', ' ']);
        is_host.then(|| Server { host: host.to_string(), port }).ok_or_else(refuse)
    }
}

/// How the connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// From the first command on that the server knows of it; without it nothing is sent.
    #[default]
    Starttls,
    /// From the first byte on.
    Implicit,
    None,
}

/// How generated logs are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    Gz,
    Zst,
}

/// How long a question in SQL may take, in seconds; written as `90`, `90s`, `15m` or `6h`.
#[derive(Clone, Copy, Debug)]
pub struct Timeout(pub u64);
text_value!(Timeout(u64), |seconds| format_args!("{seconds}s"));

impl std::str::FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Timeout, String> {
        let units = [("h", 3600), ("m", 60), ("s", 1)];
        let unit = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
        let (number, unit_seconds) = unit.unwrap_or((text, 1));
        let seconds = number.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(unit_seconds));
        match seconds {
            Some(seconds) if (1..=RUN_SECONDS_MAX).contains(&seconds) => Ok(Timeout(seconds)),
            Some(_) => Err(format!("`{text}` is out of range: from 1s to {}h", RUN_SECONDS_MAX / 3600)),
            None => Err(format!("`{text}` is not a time, such as 90s, 15m or 6h")),
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
            Some(_) => Err("too little: the least is 64MiB".into()),
            None => Err("not an amount of memory, such as 512MiB or 4GiB".into()),
        }
    }
}
