//! Timestamps in all forms accepted in logs and tables.
//!
//! In: RFC 3339; or, in the job's zone, its date and time without an offset, or its date; or epoch
//! seconds. Out: an instant.
//! Invariant: the grammar is strict ASCII; a leap second (`:60`) and `24:00` are refused; a date
//! means the first instant of its day.

use super::month::{days_from_civil, days_in_month};
use super::zone::Zone;
use crate::planted::Bug;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 to 999,999.
    pub fraction_micros: i64,
}

impl Instant {
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn micros(self) -> i64 {
        self.seconds * 1_000_000 + self.fraction_micros
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampError {
    Malformed,
    /// The zone's clocks were put forward over this local time.
    Nonexistent,
}

/// Parses a timestamp. A local time that occurs twice means its first occurrence.
pub fn parse_timestamp(text: &[u8], zone: &Zone) -> Result<Instant, TimestampError> {
    let at = |seconds, fraction_micros| Instant { seconds, fraction_micros };
    match parse_written_time(text).ok_or(TimestampError::Malformed)? {
        WrittenTime::Instant { seconds, micros } => Ok(at(seconds, micros)),
        WrittenTime::Date { day } => Ok(at(zone.first_instant_of(day), 0)),
        WrittenTime::Local { seconds, micros } => {
            let instant = zone.instant_of_local(seconds).ok_or(TimestampError::Nonexistent)?;
            Ok(at(instant, micros))
        }
    }
}

/// A timestamp as written, before the job's zone is applied.
enum WrittenTime {
    Instant {
        seconds: i64,
        micros: i64,
    },
    /// Seconds since 1970 as if the local clock were UTC.
    Local {
        seconds: i64,
        micros: i64,
    },
    /// Days since 1970.
    Date {
        day: i32,
    },
}

fn parse_written_time(text: &[u8]) -> Option<WrittenTime> {
    if text.len() < 10 || text[4] != b'-' {
        return parse_epoch(text).map(|seconds| WrittenTime::Instant { seconds, micros: 0 });
    }
    let day = parse_date(&text[..10])?;
    if text.len() == 10 {
        return Some(WrittenTime::Date { day });
    }
    let time = text.get(11..19)?;
    if !matches!(text[10], b'T' | b't' | b' ') || time[2] != b':' || time[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (two(&time[..2])?, two(&time[3..5])?, two(&time[6..])?);
    let second_max = if Bug::LeapSecondAccepted.is_planted() { 60 } else { 59 };
    if hour > 23 || minute > 59 || second > second_max {
        return None;
    }
    let seconds = i64::from(day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    let (micros, rest) = parse_fraction(&text[19..])?;
    match rest {
        [] => Some(WrittenTime::Local { seconds, micros }),
        [b'Z' | b'z'] => Some(WrittenTime::Instant { seconds, micros }),
        _ => Some(WrittenTime::Instant { seconds: seconds - parse_offset(rest)?, micros }),
    }
}

fn parse_epoch(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || digits.len() > 12 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits.iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0'));
    Some(if digits.len() < text.len() { -seconds } else { seconds })
}

fn parse_date(text: &[u8]) -> Option<i32> {
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let year = two(&text[..2])? * 100 + two(&text[2..4])?;
    let (month, day) = (two(&text[5..7])?, two(&text[8..10])?);
    let valid = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    valid.then(|| days_from_civil(year as i32, month, day))
}

fn two(digits: &[u8]) -> Option<u32> {
    match digits {
        [tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit() => {
            Some(u32::from(tens - b'0') * 10 + u32::from(ones - b'0'))
        }
        _ => None,
    }
}

/// Parses `.d{1,9}` as microseconds, truncated. Returns them and the rest of the text.
fn parse_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let count = digits.iter().take_while(|d| d.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let padded = digits[..count].iter().copied().chain(std::iter::repeat(b'0')).take(6);
    Some((padded.fold(0, |n, d| n * 10 + i64::from(d - b'0')), &digits[count..]))
}

/// Parses `±hh:mm` as seconds east of UTC.
fn parse_offset(text: &[u8]) -> Option<i64> {
    let [sign @ (b'+' | b'-'), hour @ .., b':', _, _] = text else {
        return None;
    };
    let (hour, minute) = (two(hour)?, two(&text[4..])?);
    let seconds = i64::from(hour * 3600 + minute * 60);
    (hour <= 23 && minute <= 59).then_some(if *sign == b'-' { -seconds } else { seconds })
}
