//! The job's time zone: local times to instants, and instants to months.
//!
//! In: an IANA name and the job's months. Out: integer lookups, without calendar arithmetic in the
//! hot loop.
//! Invariant: month edges are instants computed once; a local time in a fold means the first of its
//! two instants; one in a gap has none.

use super::month::{Month, MonthRange, days_in_month};
use crate::planted::Bug;
use chrono::{Offset, TimeZone};

/// A change of the zone's offset, in seconds since 1970 and seconds east of UTC.
#[derive(Clone, Copy, Debug)]
struct Transition {
    at: i64,
    before: i64,
    after: i64,
}

impl Transition {
    /// The first local second that has only the new offset.
    fn settled_local(&self) -> i64 {
        if Bug::FoldTakesSecond.is_planted() {
            return self.at + self.after;
        }
        self.at + self.before.max(self.after)
    }
}

/// A zone, for the months of a job.
#[derive(Clone, Debug)]
pub struct Zone {
    first_offset: i64,
    transitions: Vec<Transition>,
    months: MonthRange,
    /// The instant at which each month begins, and finally the end of the last one.
    month_edges: Vec<i64>,
    /// The first day of each month, in days since 1970, and finally the day after the last month.
    first_days: Vec<i32>,
}

const DAY_SECONDS: i64 = 86_400;

/// Few steps, but short enough that no step contains two changes of a zone.
const STEP_SECONDS: i64 = 6 * 3600;

impl Zone {
    /// `None` if `name` is not in the IANA database.
    pub fn new(name: &str, months: MonthRange) -> Option<Zone> {
        let zone: chrono_tz::Tz = name.parse().ok()?;
        let offset = |at: i64| match zone.timestamp_opt(at, 0) {
            chrono::LocalResult::Single(time) => i64::from(time.offset().fix().local_minus_utc()),
            _ => 0,
        };
        let first = i64::from(months.first.first_day()) * DAY_SECONDS - 2 * DAY_SECONDS;
        let last = i64::from(end_day(months)) * DAY_SECONDS + 2 * DAY_SECONDS;
        let transitions = match zone {
            chrono_tz::UTC => Vec::new(),
            _ => transitions(first, last, offset),
        };
        let first_days: Vec<i32> = months.iter().map(|m| m.first_day()).chain([end_day(months)]).collect();
        let first_offset = offset(first);
        let mut this = Zone { first_offset, transitions, months, month_edges: Vec::new(), first_days };
        this.month_edges = this.first_days.iter().map(|day| this.first_instant_of(*day)).collect();
        Some(this)
    }

    pub fn months(&self) -> MonthRange {
        self.months
    }

    /// The index of the month that contains an instant, from the job's first month; `None` outside
    /// the job's months.
    pub fn month_index(&self, at_seconds: i64) -> Option<u32> {
        let edges = &self.month_edges;
        if at_seconds < edges[0] || at_seconds >= *edges.last()? {
            return None;
        }
        // An estimate by mean month length, off by at most one; the edges decide.
        let elapsed = at_seconds - edges[0];
        let mut index = ((elapsed / 2_629_746) as usize).min(edges.len() - 2);
        while at_seconds < edges[index] {
            index -= 1;
        }
        while at_seconds >= edges[index + 1] {
            index += 1;
        }
        Some(index as u32)
    }

    /// True if an instant is in the month of this index.
    #[inline]
    pub fn holds(&self, index: u32, at_seconds: i64) -> bool {
        let edges = &self.month_edges[index as usize..index as usize + 2];
        edges[0] <= at_seconds && at_seconds < edges[1]
    }

    /// The first day of the month of this index and of the next month, in days since 1970; `None`
    /// outside the job's months.
    #[inline]
    pub fn days_of(&self, index: u32) -> Option<(i32, i32)> {
        let index = index as usize;
        Some((*self.first_days.get(index)?, *self.first_days.get(index + 1)?))
    }

    /// The month of an index below `months().count()`.
    pub fn month(&self, index: u32) -> Month {
        self.months.first.plus(index).expect("an index within the job's months")
    }

    /// The instant of a local time, both in seconds. `None` in a gap, where clocks are put forward.
    pub fn instant_of_local(&self, local_seconds: i64) -> Option<i64> {
        let settled = self.transitions.partition_point(|t| t.settled_local() <= local_seconds);
        let offset = match settled.checked_sub(1) {
            Some(last) => self.transitions[last].after,
            None => self.first_offset,
        };
        let in_gap = self.transitions.get(settled).is_some_and(|next| {
            next.at + next.before <= local_seconds && local_seconds < next.at + next.after
        });
        (!in_gap || Bug::ClockGapAccepted.is_planted()).then_some(local_seconds - offset)
    }

    /// The day of the month, from 1, that contains an instant of this month.
    pub fn day_of_month(&self, month: Month, at_seconds: i64) -> u32 {
        let first = month.first_day();
        let days = days_in_month(month.year(), month.month_of_year());
        let has_begun = |day: &u32| self.first_instant_of(first + *day as i32 - 1) <= at_seconds;
        (1..=days).rev().find(has_begun).unwrap_or(1)
    }

    /// The start of a local day, in seconds; if its midnight is skipped, the instant of the change.
    pub fn first_instant_of(&self, day: i32) -> i64 {
        let midnight = i64::from(day) * DAY_SECONDS;
        self.instant_of_local(midnight).unwrap_or_else(|| {
            let gap = self.transitions.partition_point(|t| t.settled_local() <= midnight);
            self.transitions[gap].at
        })
    }
}

fn end_day(months: MonthRange) -> i32 {
    let (year, month) = (months.last.year() as i32, months.last.month_of_year());
    match month {
        12 => super::month::days_from_civil(year + 1, 1, 1),
        _ => super::month::days_from_civil(year, month + 1, 1),
    }
}

/// All offset changes between two instants, each found by bisection of its step.
fn transitions(first: i64, last: i64, offset: impl Fn(i64) -> i64) -> Vec<Transition> {
    let mut found = Vec::new();
    let mut from = first;
    while from < last {
        let to = from + STEP_SECONDS;
        let (before, after) = (offset(from), offset(to));
        if before != after {
            let (mut low, mut high) = (from, to);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if offset(middle) == before { low = middle } else { high = middle }
            }
            found.push(Transition { at: high, before, after });
        }
        from = to;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, LocalResult, NaiveDate};

    #[test]
    fn quarter_hours_around_each_change_agree_with_chrono() {
        let months: MonthRange = "1990-01..2037-12".parse().unwrap();
        for name in
            ["Europe/London", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Tehran"]
        {
            let zone = Zone::new(name, months).unwrap();
            let reference: chrono_tz::Tz = name.parse().unwrap();
            assert!(!zone.transitions.is_empty());
            let first = NaiveDate::from_ymd_opt(1990, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
            let last = NaiveDate::from_ymd_opt(2037, 12, 31).unwrap().and_hms_opt(0, 0, 0).unwrap();
            for change in &zone.transitions {
                for quarter in -20..20 {
                    let local = change.at + change.before + quarter * 900 + 7;
                    let naive = chrono::DateTime::from_timestamp(local, 0).unwrap().naive_utc();
                    if naive < first || naive >= last {
                        continue;
                    }
                    let expected = match reference.from_local_datetime(&naive) {
                        LocalResult::Single(time) => Some(time.timestamp()),
                        LocalResult::Ambiguous(earlier, _) => Some(earlier.timestamp()),
                        LocalResult::None => None,
                    };
                    assert_eq!(zone.instant_of_local(local), expected, "{name} {naive}");
                    if let Some(at) = expected {
                        let month = zone.month(zone.month_index(at).unwrap());
                        assert_eq!(
                            (month.year(), month.month_of_year()),
                            (naive.year() as u32, naive.month())
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn month_edges_are_exact() {
        let zone = Zone::new("UTC", "2000-01..2099-12".parse().unwrap()).unwrap();
        assert_eq!(zone.month_index(946_684_799), None);
        assert_eq!(zone.month_index(946_684_800), Some(0));
        assert_eq!(zone.month_index(4_102_444_799), Some(1199));
        assert_eq!(zone.month_index(4_102_444_800), None);
        assert!(Zone::new("Europe/Nowhere", zone.months()).is_none());
    }
}
