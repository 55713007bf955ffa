//! A straightforward implementation of a spending run: the test oracle of the fast path.
//!
//! In: logs as byte strings, and the rules. Out: groups, rejects and blanks.
//! Invariant: shares with the fast path only the types of `domain/` and the cleaning of
//! descriptors; dates are parsed by chrono, numbers by the standard library. Only two layers are
//! supported: choices, and a dictionary without weak names.

use super::choices::seller_name;
use super::descriptor::Descriptor;
use super::fold::fold;
use crate::domain::month::{Month, MonthRange};
use crate::domain::transaction::RejectReason;
use chrono::{DateTime, Datelike, LocalResult, NaiveDate, NaiveDateTime, TimeZone};
use chrono_tz::Tz;
use std::collections::{BTreeMap, BTreeSet};

/// A manual choice: user, seller, category, and for a single transaction its instant (micros) and
/// cents.
pub type PlainChoice = (u64, String, String, Option<(i64, i64)>);

pub struct Plain {
    pub zone: Tz,
    pub months: MonthRange,
    pub line_bytes_max: usize,
    pub sellers: Vec<(String, String)>,
    pub choices: Vec<PlainChoice>,
    /// (cents, transactions) by month, user and category.
    pub groups: BTreeMap<(Month, u64, String), (i128, u64)>,
    /// (line from 1, byte offset, reason), in order.
    pub rejects: Vec<(u64, u64, RejectReason)>,
    pub blank: u64,
}

impl Plain {
    /// Processes a whole log.
    pub fn read(&mut self, log: &[u8]) {
        let mut offset = if log.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        for (number, raw) in log[offset..].split_inclusive(|b| *b == b'\n').enumerate() {
            let line = raw.strip_suffix(b"\n").unwrap_or(raw);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if raw.len() > self.line_bytes_max {
                self.rejects.push((number as u64 + 1, offset as u64, RejectReason::LineTooLong));
            } else if line.iter().all(|b| b" \t".contains(b)) {
                self.blank += 1;
            } else if let Err(reason) = self.read_line(line) {
                self.rejects.push((number as u64 + 1, offset as u64, reason));
            }
            offset += raw.len();
        }
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), RejectReason> {
        let fields: Vec<&[u8]> = line.split(|b| *b == b'\t').collect();
        let [user, time, seller, amount] = fields[..] else { return Err(RejectReason::FieldCount) };
        let user_id = user_id(user).ok_or(RejectReason::BadUserId)?;
        let (micros, month) = self.time(time)?;
        if !(1..=255).contains(&seller.len()) || seller.contains(&0) {
            return Err(RejectReason::BadSeller);
        }
        let seller = std::str::from_utf8(seller).map_err(|_| RejectReason::BadEncoding)?;
        let cents = cents(amount).ok_or(RejectReason::BadAmount)?;
        let cents = i64::try_from(cents)
            .ok()
            .filter(|c| c.unsigned_abs() <= 10u64.pow(12))
            .ok_or(RejectReason::AmountOutOfRange)?;
        let category = self.category(user_id, seller, micros, cents);
        let group = self.groups.entry((month, user_id, category)).or_default();
        *group = (group.0 + i128::from(cents), group.1 + 1);
        Ok(())
    }

    fn category(&self, user_id: u64, seller: &str, micros: i64, cents: i64) -> String {
        let chosen = |transaction| {
            let same = |c: &&PlainChoice| {
                c.0 == user_id && seller_name(&c.1) == seller_name(seller) && c.3 == transaction
            };
            self.choices.iter().find(same).map(|c| c.2.clone())
        };
        let found = chosen(Some((micros, cents))).or_else(|| chosen(None));
        found.or_else(|| self.by_name(seller)).unwrap_or_else(|| "uncategorized".into())
    }

    /// The longest name at the start of the seller, if its entries agree.
    fn by_name(&self, seller: &str) -> Option<String> {
        let (mut folded, mut entry) = (String::new(), String::new());
        fold(seller, &mut folded);
        let words = Descriptor::understand(&folded).words;
        for count in (1..=words.len()).rev() {
            let called_so = self.sellers.iter().filter(|(name, _)| {
                fold(name, &mut entry);
                Descriptor::of_name(&entry).words.concat() == words[..count].concat()
            });
            let categories: BTreeSet<&String> = called_so.map(|(_, category)| category).collect();
            if !categories.is_empty() {
                return categories.first().filter(|_| categories.len() == 1).map(|c| c.to_string());
            }
        }
        None
    }

    fn time(&self, text: &[u8]) -> Result<(i64, Month), RejectReason> {
        let text = std::str::from_utf8(text).map_err(|_| RejectReason::BadTimestamp)?;
        let at = self.instant(text)?;
        let local = self.zone.from_utc_datetime(&at.naive_utc()).date_naive();
        let year = u32::try_from(local.year()).map_err(|_| RejectReason::OutOfWindow)?;
        let month = Month::new(year, local.month()).filter(|m| self.months.contains(*m));
        Ok((at.timestamp_micros(), month.ok_or(RejectReason::OutOfWindow)?))
    }

    fn instant(&self, text: &str) -> Result<DateTime<chrono::Utc>, RejectReason> {
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        let digits = shape.trim_start_matches('-');
        if shape.len() - digits.len() <= 1
            && (1..=12).contains(&digits.len())
            && digits.chars().all(|c| c == '9')
        {
            let seconds = text.parse().map_err(|_| RejectReason::BadTimestamp)?;
            return DateTime::from_timestamp(seconds, 0).ok_or(RejectReason::OutOfWindow);
        }
        if shape == "9999-99-99" {
            let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| RejectReason::BadTimestamp)?;
            let quarters =
                (0..=96).map(|n| day.and_time(chrono::NaiveTime::MIN) + chrono::TimeDelta::minutes(15 * n));
            let first = quarters.filter_map(|t| self.zone.from_local_datetime(&t).earliest()).next();
            return Ok(first.ok_or(RejectReason::NonexistentLocalTime)?.to_utc());
        }
        // Chrono would also accept spaces, single digits and fractions of any length.
        let has_form = shape.replacen(['t', ' '], "T", 1).starts_with("9999-99-99T99:99:99");
        if !has_form || &text[17..19] == "60" || shape.contains(".9999999999") {
            return Err(RejectReason::BadTimestamp);
        }
        if !shape.contains(['Z', 'z', '+']) && !shape[10..].contains('-') {
            let local =
                NaiveDateTime::parse_from_str(&text.replacen(['T', 't'], " ", 1), "%Y-%m-%d %H:%M:%S%.f");
            return match self.zone.from_local_datetime(&local.map_err(|_| RejectReason::BadTimestamp)?) {
                LocalResult::None => Err(RejectReason::NonexistentLocalTime),
                found => Ok(found.earliest().ok_or(RejectReason::BadTimestamp)?.to_utc()),
            };
        }
        DateTime::parse_from_rfc3339(text).map(|t| t.to_utc()).map_err(|_| RejectReason::BadTimestamp)
    }
}

fn user_id(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let id: i64 = text.parse().ok()?;
    (id.to_string() == text && id >= 0).then_some(id as u64)
}

/// Cents of `-?digits(.d{1,2})?` of any size; `None` if the text has another form.
fn cents(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let numeric = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !numeric(whole) || !numeric(fraction) || fraction.len() > 2 {
        return None;
    }
    let cents: i128 = format!("{whole}{fraction:0<2}").parse().unwrap_or(i128::MAX);
    Some(if text.starts_with('-') { -cents } else { cents })
}
