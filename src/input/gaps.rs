//! Periods for which no log was delivered, by what the names of the others lead to expect.
//!
//! In: names of objects, such as `logs/2025-01-31.tsv`, and their rows. Out: gaps.
//! Invariant: objects whose names differ in nothing but a date are one series. A day is expected if
//! most of its weekdays between the first and the last of its series are there, a month if it lies
//! between the first and the last; names without a date are never missed.

use crate::planted::Bug;
use chrono::{Datelike, NaiveDate, Weekday};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Days or months before the end of a series that are looked at.
const PERIODS: usize = 62;

/// A series has at least so many objects: a few names are no habit.
const SERIES_MIN: usize = 4;

/// An object of a series with less than this share of its usual rows looks cut off: one in so many.
const ROWS_SHARE: u64 = 4;

/// A period that looks as if something were missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Gap {
    /// The names of the series, with the date as `*`.
    pub series: String,
    /// `2025-01-31`, or `2025-01`.
    pub period: String,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Period {
    Month(i32, u32),
    Day(NaiveDate),
}

impl Period {
    fn text(self) -> String {
        match self {
            Period::Month(year, month) => format!("{year:04}-{month:02}"),
            Period::Day(day) => day.format("%Y-%m-%d").to_string(),
        }
    }

    fn next(self) -> Option<Period> {
        match self {
            Period::Day(day) => day.succ_opt().map(Period::Day),
            Period::Month(year, 12) => Some(Period::Month(year + 1, 1)),
            Period::Month(year, month) => Some(Period::Month(year, month + 1)),
        }
    }

    fn weekday(self) -> Option<Weekday> {
        match self {
            Period::Day(day) => Some(day.weekday()),
            Period::Month(..) => None,
        }
    }
}

/// The gaps that end with one of the `new` objects' series, oldest first. `rows` is what every counted
/// or listed object holds, where that is known.
pub fn gaps<'n>(objects: impl Iterator<Item = (&'n str, Option<u64>)>, new: &BTreeSet<&str>) -> Vec<Gap> {
    let mut series: BTreeMap<String, BTreeMap<Period, Found>> = BTreeMap::new();
    for (name, rows) in objects {
        let Some((pattern, period)) = dated(name) else { continue };
        let found = series.entry(pattern).or_default().entry(period).or_default();
        found.rows = found.rows.zip(rows).map(|(sum, rows)| sum + rows);
        found.is_new |= new.contains(name);
    }
    let mut gaps = Vec::new();
    for (name, periods) in series.into_iter().filter(|(_, periods)| periods.len() >= SERIES_MIN) {
        let gap =
            |period: Period, reason: String| Gap { series: name.clone(), period: period.text(), reason };
        gaps.extend(
            missing(&periods).into_iter().map(|period| gap(period, "there is no object for it".into())),
        );
        gaps.extend(
            scanty(&periods)
                .map(|(period, rows, usual)| gap(period, format!("{rows} rows, where {usual} are usual"))),
        );
    }
    gaps.sort();
    gaps
}

/// What was found of a period.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// None where one of its objects' is unknown.
    rows: Option<u64>,
    is_new: bool,
}

impl Default for Found {
    fn default() -> Found {
        Found { rows: Some(0), is_new: false }
    }
}

fn missing(periods: &BTreeMap<Period, Found>) -> Vec<Period> {
    if Bug::GapNotTold.is_planted() {
        return Vec::new();
    }
    let first = *periods.keys().next().expect("a series has objects");
    let last = *periods.keys().next_back().expect("a series has objects");
    let all = std::iter::successors(Some(first), |period| period.next()).take_while(|period| *period <= last);
    let all: Vec<Period> = all.collect();
    let all = all[all.len().saturating_sub(PERIODS)..].to_vec();
    let (mut there, mut of_weekday): (BTreeMap<Option<u32>, usize>, BTreeMap<Option<u32>, usize>) =
        Default::default();
    let weekday = |period: &Period| period.weekday().map(|day| day.num_days_from_monday());
    for period in &all {
        *of_weekday.entry(weekday(period)).or_default() += 1;
        *there.entry(weekday(period)).or_default() += usize::from(periods.contains_key(period));
    }
    let is_expected = |period: &Period| {
        let (there, of_weekday) = (there.get(&weekday(period)), of_weekday[&weekday(period)]);
        match of_weekday {
            // One week says nothing about its days.
            1 => 2 * periods.len() > all.len(),
            _ => 2 * there.copied().unwrap_or(0) > of_weekday,
        }
    };
    let gaps = all.iter().filter(|period| !periods.contains_key(period));
    gaps.filter(|period| is_expected(period)).copied().collect()
}

/// New periods with far fewer rows than the others of their series: (period, rows, usual rows).
fn scanty(periods: &BTreeMap<Period, Found>) -> impl Iterator<Item = (Period, u64, u64)> {
    let mut counts: Vec<u64> =
        periods.values().filter(|found| !found.is_new).filter_map(|f| f.rows).collect();
    counts.sort_unstable();
    let usual = counts.get(counts.len() / 2).copied().filter(|_| counts.len() >= SERIES_MIN).unwrap_or(0);
    let new = periods.iter().filter(|(_, found)| found.is_new);
    new.filter_map(move |(period, found)| {
        let rows = found.rows?;
        (rows < usual / ROWS_SHARE).then_some((*period, rows, usual))
    })
}

/// The name with its last date as `*`, and that date: `YYYY-MM-DD`, `YYYYMMDD` or `YYYY-MM`.
fn dated(name: &str) -> Option<(String, Period)> {
    let bytes = name.as_bytes();
    let digits = |at: usize, count: usize| -> Option<u32> {
        let text = name.get(at..at + count)?;
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    let is_dash = |at: usize| matches!(bytes.get(at), Some(b'-' | b'_' | b'/'));
    let stands_alone = |at: usize, end: usize| {
        let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        !(is_digit(end) || at > 0 && is_digit(at - 1))
    };
    let day = |at: usize, month: usize, day: usize| {
        let date = NaiveDate::from_ymd_opt(digits(at, 4)? as i32, digits(month, 2)?, digits(day, 2)?);
        date.filter(|date| (1970..2200).contains(&date.year())).map(Period::Day)
    };
    let found = (0..bytes.len()).rev().find_map(|at| {
        let dashed = || (is_dash(at + 4) && is_dash(at + 7)).then(|| day(at, at + 5, at + 8)).flatten();
        let plain = || day(at, at + 4, at + 6);
        let month = || {
            let (year, month) = (digits(at, 4)?, is_dash(at + 4).then(|| digits(at + 5, 2)).flatten()?);
            let is_month = (1970..2200).contains(&year) && (1..=12).contains(&month);
            is_month.then_some(Period::Month(year as i32, month))
        };
        let forms: [(usize, Option<Period>); 3] = [(10, dashed()), (8, plain()), (7, month())];
        forms.into_iter().find_map(|(length, period)| {
            period.filter(|_| stands_alone(at, at + length)).map(|period| (at, length, period))
        })
    });
    let (at, length, period) = found?;
    Some((format!("{}*{}", &name[..at], &name[at + length..]), period))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[String]) -> Vec<String> {
        let objects = names.iter().map(|name| (name.as_str(), Some(100)));
        gaps(objects, &BTreeSet::new()).into_iter().map(|gap| gap.period).collect()
    }

    #[test]
    fn names_tell_their_dates() {
        let text = |name| dated(name).map(|(series, period)| (series, period.text()));
        let pair = |series: &str, period: &str| Some((series.to_string(), period.to_string()));
        assert_eq!(text("a/2025-01-31.tsv.gz"), pair("a/*.tsv.gz", "2025-01-31"));
        assert_eq!(text("2025/01/31/part-1.tsv"), pair("*/part-1.tsv", "2025-01-31"));
        assert_eq!(text("a-20250131-1.tsv"), pair("a-*-1.tsv", "2025-01-31"));
        assert_eq!(text("2014-05-upload.tsv"), pair("*-upload.tsv", "2014-05"));
        for name in ["a.tsv", "part-00001.tsv", "123456789.tsv", "2025-13.tsv", "é2025"] {
            assert_eq!(text(name), None, "{name}");
        }
    }

    #[test]
    fn a_missing_day_and_month_are_told_and_weekends_are_not() {
        let days = |range: std::ops::Range<u32>| range.map(|day| format!("logs/2025-01-{day:02}.tsv"));
        let but = |missing: u32| days(1..29).filter(move |name| !name.contains(&format!("-{missing:02}.")));
        assert_eq!(found(&days(1..29).collect::<Vec<_>>()), [""; 0]);
        assert_eq!(found(&but(15).collect::<Vec<_>>()), ["2025-01-15"]);
        // 4 January 2025 is a Saturday.
        let workdays =
            |name: &String| !["04", "05", "11", "12", "18", "19", "25", "26"].contains(&&name[13..15]);
        assert_eq!(found(&but(15).filter(workdays).collect::<Vec<_>>()), ["2025-01-15"]);
        let months = [1, 2, 3, 5, 6].map(|month| format!("2025-{month:02}.tsv"));
        assert_eq!(found(&months), ["2025-04"]);
        assert_eq!(found(&months[..3]), [""; 0], "three are no habit");
        let twelve = ["2024-11.tsv", "2024-12.tsv", "2025-01.tsv", "2025-02.tsv"].map(String::from);
        assert_eq!(found(&twelve), [""; 0]);
    }

    #[test]
    fn a_new_object_with_few_rows_is_told() {
        let names: Vec<String> = (1..8).map(|day| format!("2025-01-{day:02}.tsv")).collect();
        let objects =
            names.iter().map(|name| (name.as_str(), Some(if name.contains("-07") { 10 } else { 100 })));
        let told = gaps(objects, &BTreeSet::from([names[6].as_str()]));
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].period.as_str(), told[0].reason.as_str()),
            ("2025-01-07", "10 rows, where 100 are usual")
        );
    }
}
