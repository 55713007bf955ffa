//! Calendar months and ranges of months.
//!
//! In: `2025-01`, `2025-01..2025-03`. Out: values to compare, count and print.
//! Invariant: a `Month` is in the years 0000 to 9999; a `MonthRange` is not empty.

use std::fmt;
use std::str::FromStr;

/// A calendar month, counted from January of year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(u32);

impl Month {
    /// `month` is 1 to 12, `year` 0 to 9999; otherwise `None`.
    pub fn new(year: u32, month: u32) -> Option<Month> {
        (year <= 9999 && (1..=12).contains(&month)).then(|| Month(year * 12 + month - 1))
    }

    /// Months from January of year 0.
    pub fn number(self) -> u32 {
        self.0
    }

    pub fn year(self) -> u32 {
        self.0 / 12
    }

    /// 1 to 12.
    pub fn month_of_year(self) -> u32 {
        self.0 % 12 + 1
    }

    /// The month `count` months later; `None` after year 9999.
    pub fn plus(self, count: u32) -> Option<Month> {
        self.0.checked_add(count).filter(|&m| m < 120_000).map(Month)
    }

    /// The month `count` months earlier; `None` before year 0.
    pub fn minus(self, count: u32) -> Option<Month> {
        self.0.checked_sub(count).map(Month)
    }

    /// Months from `earlier` to this one; `None` if `earlier` is later.
    pub fn since(self, earlier: Month) -> Option<u32> {
        self.0.checked_sub(earlier.0)
    }

    /// Days from 1970-01-01 to the first day of this month: the value of an Arrow `Date32`.
    pub fn first_day(self) -> i32 {
        days_from_civil(self.year() as i32, self.month_of_year(), 1)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year(), self.month_of_year())
    }
}

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Month, String> {
        let refuse = || "not a month: write it as 2025-01".to_string();
        let (year, month) = text.split_once('-').ok_or_else(refuse)?;
        let digits = |s: &str, n| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(refuse());
        }
        let number = |s: &str| s.parse().expect("four digits fit");
        Month::new(number(year), number(month)).ok_or_else(refuse)
    }
}

/// Months from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthRange {
    pub first: Month,
    pub last: Month,
}

impl MonthRange {
    pub fn contains(self, month: Month) -> bool {
        self.first <= month && month <= self.last
    }

    /// The number of months, at least 1.
    pub fn count(self) -> u32 {
        self.last.0 - self.first.0 + 1
    }

    pub fn iter(self) -> impl Iterator<Item = Month> {
        (self.first.0..=self.last.0).map(Month)
    }
}

impl fmt::Display for MonthRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.last)
    }
}

impl FromStr for MonthRange {
    type Err = String;

    /// Parses `2025-01..2025-03`, or a single month.
    fn from_str(text: &str) -> Result<MonthRange, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let (first, last): (Month, Month) = (first.trim().parse()?, last.trim().parse()?);
        if first > last {
            return Err("no months: the first is after the last".into());
        }
        Ok(MonthRange { first, last })
    }
}

/// Days from 1970-01-01 to a civil date of the proleptic Gregorian calendar.
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
pub fn days_from_civil(year: i32, month: u32, day: u32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year as i32;
    era * 146_097 + day_of_era - 719_468
}

/// The civil date (year, month, day) of a day number; the inverse of [`days_from_civil`].
pub fn civil_from_days(days: i32) -> (i32, u32, u32) {
    let shifted = i64::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_shifted + 2) / 5 + 1) as u32;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as i32, month, day)
}

/// Days in a month of the Gregorian calendar.
pub fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn month_ranges_are_parsed_printed_and_refused() {
        let range: MonthRange = "2025-11..2026-02".parse().unwrap();
        let all: Vec<String> = range.iter().map(|m| m.to_string()).collect();
        assert_eq!(all, ["2025-11", "2025-12", "2026-01", "2026-02"]);
        assert_eq!(range.count(), 4);
        for bad in ["2025", "2025-13", "2025-00", "25-01", "2025-1", "2025-02..2025-01", ""] {
            assert!(bad.parse::<MonthRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn days_agree_with_chrono_over_ten_thousand_years() {
        for days in (-719_528..2_932_896).step_by(17) {
            let (year, month, day) = civil_from_days(days);
            let date = chrono::NaiveDate::from_ymd_opt(year, month, day).unwrap();
            let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
            assert_eq!((date - epoch).num_days(), i64::from(days));
            assert_eq!(days_from_civil(year, month, day), days);
            let next = date.with_day0(0).unwrap() + chrono::Months::new(1);
            use chrono::Datelike;
            assert_eq!(
                (next - date.with_day0(0).unwrap()).num_days() as u32,
                days_in_month(year as u32, month)
            );
        }
    }
}
