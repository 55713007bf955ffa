//! Timestamps by the program and by chrono.
//!
//! In: a byte that selects the zone, and the text of a timestamp. Out: whether it is within the
//! job's months.
//! Invariant: only strict parsers of chrono are used, after a check of the text's shape.

use super::months;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use pennymill::domain::month::Month;
use pennymill::domain::timestamp::{Instant, TimestampError, parse_timestamp};
use pennymill::domain::zone::Zone;
use std::sync::LazyLock;

/// Zones whose gaps are one hour or half an hour, at night or at midnight, and one that skipped a
/// day.
const ZONES: [Tz; 6] = [
    chrono_tz::UTC,
    chrono_tz::Europe::London,
    chrono_tz::America::Sao_Paulo,
    chrono_tz::Australia::Lord_Howe,
    chrono_tz::Pacific::Apia,
    chrono_tz::America::New_York,
];

static ZONES_AT_WORK: LazyLock<Vec<Zone>> = LazyLock::new(|| {
    ZONES.iter().map(|zone| Zone::new(zone.name(), months()).expect("a zone of the database")).collect()
});

/// The result of parsing a timestamp in a job.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    Malformed,
    Nonexistent,
    /// Not in the job's months.
    Outside,
    At(Instant),
}

/// Input: a byte that selects the zone, and the text of a timestamp. The result must be chrono's.
pub fn timestamp(bytes: &[u8]) -> bool {
    let Some((choice, text)) = bytes.split_first() else { return false };
    let choice = usize::from(*choice) % ZONES.len();
    let zone = &ZONES_AT_WORK[choice];
    let meant = match parse_timestamp(text, zone) {
        Err(TimestampError::Malformed) => Meant::Malformed,
        Err(TimestampError::Nonexistent) => Meant::Nonexistent,
        Ok(at) if zone.month_index(at.seconds).is_none() => Meant::Outside,
        Ok(at) => Meant::At(at),
    };
    let expected = std::str::from_utf8(text).ok().and_then(|text| by_chrono(text, ZONES[choice]));
    assert_eq!(meant, expected.unwrap_or(Meant::Malformed), "in {}", ZONES[choice]);
    matches!(meant, Meant::At(_))
}

/// `None` if the text is malformed.
fn by_chrono(text: &str, zone: Tz) -> Option<Meant> {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let digits = shape.strip_prefix('-').unwrap_or(&shape);
    if (1..=12).contains(&digits.len()) && digits.chars().all(|c| c == '9') {
        return Some(placed(DateTime::from_timestamp(text.parse().ok()?, 0)?, zone));
    }
    let day = text.get(..10).filter(|_| shape.starts_with("9999-99-99"))?;
    let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
    if text.len() == 10 {
        let quarter = |n: i64| day.and_time(NaiveTime::MIN) + TimeDelta::minutes(15 * n);
        let first = (0..=96).find_map(|n| zone.from_local_datetime(&quarter(n)).earliest())?;
        return Some(placed(first.to_utc(), zone));
    }
    let time =
        text.get(11..19).filter(|time| shape[11..].starts_with("99:99:99") && !time.ends_with("60"))?;
    let time =
        NaiveTime::parse_from_str(time, "%H:%M:%S").ok().filter(|_| b"Tt ".contains(&text.as_bytes()[10]))?;
    let (micros, rest) = fraction_by_chrono(&text[19..])?;
    let local = day.and_time(time) + TimeDelta::microseconds(micros);
    match rest {
        "" => Some(local_by_chrono(local, zone)),
        "Z" | "z" => Some(placed(local.and_utc(), zone)),
        offset => Some(placed(local.and_utc() - offset_by_chrono(offset)?, zone)),
    }
}

/// `.` and up to nine digits, truncated to six; and the rest.
fn fraction_by_chrono(text: &str) -> Option<(i64, &str)> {
    let Some(text) = text.strip_prefix('.') else { return Some((0, text)) };
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let nanos = (1..=9).contains(&digits.len()).then(|| format!("{digits:0<9}").parse::<i64>())?;
    Some((nanos.ok()? / 1000, rest))
}

fn offset_by_chrono(text: &str) -> Option<TimeDelta> {
    let sign = match text.as_bytes() {
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return None,
    };
    let is_time = text[1..].bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    let time = NaiveTime::parse_from_str(&text[1..], "%H:%M").ok().filter(|_| is_time)?;
    Some(TimeDelta::seconds(sign * i64::from(time.num_seconds_from_midnight())))
}

fn local_by_chrono(local: NaiveDateTime, zone: Tz) -> Meant {
    match zone.from_local_datetime(&local).earliest() {
        Some(at) => placed(at.to_utc(), zone),
        None if is_in_months(local.date()) => Meant::Nonexistent,
        None => Meant::Outside,
    }
}

fn placed(at: DateTime<Utc>, zone: Tz) -> Meant {
    let (seconds, fraction_micros) = (at.timestamp(), i64::from(at.timestamp_subsec_micros()));
    match is_in_months(at.with_timezone(&zone).date_naive()) {
        true => Meant::At(Instant { seconds, fraction_micros }),
        false => Meant::Outside,
    }
}

fn is_in_months(date: NaiveDate) -> bool {
    let year = u32::try_from(date.year()).ok();
    year.and_then(|year| Month::new(year, date.month())).is_some_and(|month| months().contains(month))
}
