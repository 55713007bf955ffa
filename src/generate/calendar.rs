//! The times of rows: the day follows from the row's position in the logs, the time of day is
//! random.
//!
//! In: a row's number, random bits. Out: days, seconds of the day, and their text.
//! Invariant: every day is within the requested months.

use super::random::{Bits, Random, scale};
use crate::domain::month::{Month, MonthRange, civil_from_days, days_in_month};

/// The relative activity of each hour of the day.
const HOUR_WEIGHTS: [usize; 24] =
    [8, 5, 3, 2, 3, 8, 20, 40, 60, 55, 55, 65, 85, 75, 60, 60, 65, 80, 95, 85, 60, 40, 25, 15];
const HOUR_BITS: u32 = 10;
const HOUR_SHARES: usize = 1 << HOUR_BITS;

/// The maximum delay of a late row, in days.
const DAYS_LATE_MAX: u64 = 35;

pub struct Calendar {
    months: MonthRange,
    rows: u64,
    /// For each month: its first day (counted from the first day of all) and its number of days.
    month_days: Vec<(u64, u64)>,
    /// `2025-01-17T` for each day.
    dates: Vec<[u8; 11]>,
    /// The hours, each as often as its share of the activity.
    hours: [u8; HOUR_SHARES],
}

impl Calendar {
    /// Spreads `rows` rows evenly over the months, and within each month over its days.
    pub fn new(months: MonthRange, rows: u64) -> Calendar {
        let first_day = months.first.first_day();
        let of_month = |month: Month| {
            let days = days_in_month(month.year(), month.month_of_year());
            ((month.first_day() - first_day) as u64, u64::from(days))
        };
        let month_days: Vec<(u64, u64)> = months.iter().map(of_month).collect();
        let days: u64 = month_days.iter().map(|month| month.1).sum();
        let dates = (0..days as i32).map(|day| date_text(first_day + day)).collect();
        Calendar { months, rows, month_days, dates, hours: hours() }
    }

    /// The month in which row number `row` is logged.
    pub fn month_of_row(&self, row: u64) -> Month {
        let index = row * self.month_days.len() as u64 / self.rows;
        self.months.first.plus(index as u32).unwrap_or(self.months.last)
    }

    /// The day (counted from the first day of all) on which row number `row` is logged.
    pub fn day_of_row(&self, row: u64) -> u64 {
        let place = row * self.month_days.len() as u64;
        let (start, days) = self.month_days[(place / self.rows) as usize];
        start + place % self.rows * days / self.rows
    }

    /// A day up to 35 days before `day`; `day` itself if that would be before the first day.
    pub fn late(&self, day: u64, random: &mut Random) -> u64 {
        day.checked_sub(1 + random.below(DAYS_LATE_MAX)).unwrap_or(day)
    }

    pub fn second_of_day(&self, bits: &mut Bits) -> u64 {
        let hour = self.hours[bits.take(HOUR_BITS) as usize];
        u64::from(hour) * 3600 + scale(bits.take(28) << 36, 3600)
    }

    /// `2025-01-17T`.
    pub fn date(&self, day: u64) -> &[u8; 11] {
        &self.dates[day as usize]
    }

    pub fn days(&self) -> u64 {
        self.dates.len() as u64
    }

    /// `2025-01-17T12:34:56Z`.
    pub fn timestamp(&self, day: u64, second: u64) -> String {
        let date = String::from_utf8_lossy(self.date(day));
        format!("{date}{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

fn date_text(day: i32) -> [u8; 11] {
    let (year, month, day) = civil_from_days(day);
    let mut text = [0; 11];
    text.copy_from_slice(format!("{year:04}-{month:02}-{day:02}T").as_bytes());
    text
}

/// Entry e is the hour at which the share e / 1024 of a day's activity has passed.
fn hours() -> [u8; HOUR_SHARES] {
    let total: usize = HOUR_WEIGHTS.iter().sum();
    let (mut hour, mut passed) = (0, HOUR_WEIGHTS[0]);
    std::array::from_fn(|entry| {
        while entry * total >= passed * HOUR_SHARES {
            hour += 1;
            passed += HOUR_WEIGHTS[hour];
        }
        hour as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_cover_all_days_in_order() {
        let calendar = Calendar::new("2024-02..2024-04".parse().unwrap(), 9000);
        let days: Vec<u64> = (0..9000).map(|row| calendar.day_of_row(row)).collect();
        assert!(days.is_sorted());
        assert_eq!((days[0], days[8999]), (0, 29 + 31 + 30 - 1));
        assert_eq!(calendar.timestamp(days[3000], 0), "2024-03-01T00:00:00Z");
        assert_eq!(calendar.month_of_row(2999).to_string(), "2024-02");
        assert_eq!(calendar.month_of_row(3000).to_string(), "2024-03");
    }

    #[test]
    fn late_rows_stay_within_the_months() {
        let calendar = Calendar::new("2025-01".parse().unwrap(), 10);
        let mut random = Random::new(1);
        let late: Vec<u64> = (0..1000).map(|_| calendar.late(20, &mut random)).collect();
        assert!(late.iter().all(|&day| day <= 20) && late.contains(&0) && late.contains(&19));
    }

    #[test]
    fn every_hour_occurs_and_seconds_stay_in_the_day() {
        let calendar = Calendar::new("2025-01".parse().unwrap(), 10);
        for hour in 0..24 {
            assert!(calendar.hours.contains(&hour));
        }
        assert_eq!(calendar.second_of_day(&mut Bits(0)), 0);
        assert_eq!(calendar.second_of_day(&mut Bits(u64::MAX)), 86_399);
    }
}
