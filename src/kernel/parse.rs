//! Parses one line of a log into a transaction, or into the reason for its refusal.
//!
//! In: the bytes of a line without its newline. Out: [`Line`].
//! Invariant: fields are split at tabs; nothing is unquoted, trimmed or repaired; the leftmost
//! error is reported.

use crate::domain::money::{AmountError, parse_amount_cents};
use crate::domain::timestamp::{TimestampError, parse_timestamp};
use crate::domain::transaction::{Refusal, RejectReason, SELLER_BYTES_MAX, Transaction, USER_ID_MAX};
use crate::domain::zone::Zone;
use crate::planted::Bug;

/// The result of parsing a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Only tabs and spaces.
    Blank,
    Transaction(Transaction<'a>),
    Refused(Refusal),
}

/// Parses `user_id TAB timestamp TAB seller TAB amount`, with or without one final CR.
pub fn parse_line<'a>(line: &'a [u8], zone: &Zone) -> Line<'a> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let fields = match split_fields(line) {
        Ok(fields) => fields,
        Err(_) if is_blank(line) || Bug::WrongFieldsAreBlank.is_planted() => return Line::Blank,
        Err(column) => return refused(RejectReason::FieldCount, column),
    };
    let [user, time, seller, amount] = fields;
    let (time_column, seller_column) = (user.len() + 2, user.len() + time.len() + 3);
    let amount_column = seller_column + seller.len() + 1;
    let Some(user_id) = parse_user_id(user) else {
        return if is_blank(line) { Line::Blank } else { refused(RejectReason::BadUserId, 1) };
    };
    let (at, index) = match parse_time(time, zone) {
        Ok(found) => found,
        Err(reason) => return refused(reason, time_column),
    };
    let seller = match parse_seller(seller) {
        Ok(seller) => seller,
        Err((reason, at)) => return refused(reason, seller_column + at),
    };
    let amount_cents = match parse_amount_cents(amount) {
        Ok(cents) => cents,
        Err(AmountError::Malformed) => return refused(RejectReason::BadAmount, amount_column),
        Err(AmountError::OutOfRange) => return refused(RejectReason::AmountOutOfRange, amount_column),
    };
    let month = zone.month(index);
    Line::Transaction(Transaction { user_id, occurred_at_micros: at, month, seller, amount_cents })
}

fn refused<'a>(reason: RejectReason, column: usize) -> Line<'a> {
    Line::Refused(Refusal { reason, column: column as u32 })
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|b| matches!(b, b' ' | b'\t'))
}

/// The four fields. Error: the column (from 1) where the field count goes wrong.
fn split_fields(line: &[u8]) -> Result<[&[u8]; 4], usize> {
    let mut tabs = memchr::memchr_iter(b'\t', line);
    let (Some(a), Some(b), Some(c)) = (tabs.next(), tabs.next(), tabs.next()) else {
        return Err(line.len() + 1);
    };
    match tabs.next() {
        Some(extra) => Err(extra + 1),
        None => Ok([&line[..a], &line[a + 1..b], &line[b + 1..c], &line[c + 1..]]),
    }
}

/// Digits without leading zeros, at most [`USER_ID_MAX`]. Another spelling may be another user in
/// the source, so it is refused rather than converted.
fn parse_user_id(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || (text[0] == b'0' && text.len() > 1) {
        return None;
    }
    let mut id = 0u64;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        id = id * 10 + u64::from(byte - b'0');
    }
    (id <= USER_ID_MAX).then_some(id)
}

fn parse_seller(text: &[u8]) -> Result<&str, (RejectReason, usize)> {
    if text.is_empty() {
        return Err((RejectReason::BadSeller, 0));
    }
    if text.len() > SELLER_BYTES_MAX {
        return Err((RejectReason::BadSeller, SELLER_BYTES_MAX));
    }
    if let Some(at) = memchr::memchr(0, text) {
        return Err((RejectReason::BadSeller, at));
    }
    std::str::from_utf8(text).map_err(|e| (RejectReason::BadEncoding, e.valid_up_to()))
}

/// The instant in microseconds and the index of its month within the job's months.
fn parse_time(text: &[u8], zone: &Zone) -> Result<(i64, u32), RejectReason> {
    let at = parse_timestamp(text, zone).map_err(|error| match error {
        TimestampError::Malformed => RejectReason::BadTimestamp,
        TimestampError::Nonexistent => RejectReason::NonexistentLocalTime,
    })?;
    let index = zone.month_index(at.seconds).ok_or(RejectReason::OutOfWindow)?;
    Ok((at.micros(), index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, zone: &str) -> Result<(i64, String), (RejectReason, u32)> {
        let zone = Zone::new(zone, "2000-01..2099-12".parse().unwrap()).unwrap();
        match parse_line(line.as_bytes(), &zone) {
            Line::Transaction(t) => Ok((t.occurred_at_micros, t.month.to_string())),
            Line::Refused(refusal) => Err((refusal.reason, refusal.column)),
            Line::Blank => panic!("blank"),
        }
    }

    #[test]
    fn timestamps_are_accepted_in_every_form_and_others_refused() {
        let at = |time: &str, zone: &str| parsed(&format!("1\t{time}\tx\t1"), zone);
        let noon = 1_735_732_800_000_000; // 2025-01-01T12:00:00Z
        for (time, zone) in [
            ("2025-01-01T12:00:00Z", "UTC"),
            ("2025-01-01t12:00:00z", "Asia/Tokyo"),
            ("2025-01-01T13:00:00+01:00", "UTC"),
            ("2025-01-01 07:00:00", "America/New_York"),
            ("2025-01-01T12:00:00.000000999Z", "UTC"),
            ("1735732800", "UTC"),
        ] {
            assert_eq!(at(time, zone), Ok((noon, "2025-01".into())), "{time}");
        }
        assert_eq!(at("2025-01-01", "UTC").unwrap().0, noon - 12 * 3600 * 1_000_000);
        assert_eq!(at("2025-01-31T23:59:59Z", "Asia/Tokyo").unwrap().1, "2025-02");
        let bad = Err((RejectReason::BadTimestamp, 3));
        for time in [
            "2025-02-29",
            "2025-13-01",
            "2025-01-01T24:00:00Z",
            "2025-01-01T23:59:60Z",
            "2025-01-01T12:00Z",
            "2025-01-01T12:00:00.Z",
            "2025-01-01T12:00:00+0100",
            "2025-01-01T12:00:00+24:00",
            "",
            "x",
            "1e9",
            "2025-1-1",
            "2025-01-01T12:00:00Zx",
            "1234567890123",
        ] {
            assert_eq!(at(time, "UTC"), bad, "{time}");
        }
        assert_eq!(at("9999-12-31", "UTC"), Err((RejectReason::OutOfWindow, 3)));
        assert_eq!(at("0000-01-01", "UTC"), Err((RejectReason::OutOfWindow, 3)));
        let gap = at("2025-03-09T02:30:00", "America/New_York");
        assert_eq!(gap, Err((RejectReason::NonexistentLocalTime, 3)));
        assert!(at("2018-11-04", "America/Sao_Paulo").is_ok(), "a date without a midnight is valid");
    }

    #[test]
    fn the_leftmost_error_is_reported_with_its_column() {
        let reason = |line: &str| parsed(line, "UTC").unwrap_err();
        assert_eq!(reason("1\t2025-01-01\tx"), (RejectReason::FieldCount, 15));
        assert_eq!(reason("1\t2025-01-01\tx\t1\t2"), (RejectReason::FieldCount, 17));
        assert_eq!(reason("x\ty\tz\tw"), (RejectReason::BadUserId, 1));
        assert_eq!(reason("9223372036854775808\t2025-01-01\tx\t1"), (RejectReason::BadUserId, 1));
        assert_eq!(reason("01\t2025-01-01\tx\t1"), (RejectReason::BadUserId, 1));
        assert_eq!(reason("1\t2025-01-01\t\t1"), (RejectReason::BadSeller, 14));
        assert_eq!(reason("1\t2025-01-01\ta\0b\t1"), (RejectReason::BadSeller, 15));
        assert_eq!(reason("1\t2025-01-01\tx\t1,5"), (RejectReason::BadAmount, 16));
        assert_eq!(reason("1\t2025-01-01\tx\t1\r\r"), (RejectReason::BadAmount, 16));
        assert_eq!(reason("1\t2025-01-01\tx\t99999999999"), (RejectReason::AmountOutOfRange, 16));
    }

    #[test]
    fn quotes_are_kept_and_one_final_cr_is_removed() {
        let zone = Zone::new("UTC", "2025-01".parse().unwrap()).unwrap();
        let Line::Transaction(t) = parse_line(b"7\t2025-01-02\t\"Joe's \"\t-3.5\r", &zone) else {
            panic!("accepted")
        };
        assert_eq!((t.seller, t.amount_cents), ("\"Joe's \"", -350));
        for blank in ["", "\r", "\t\t\t", " \t\t\t\r", "   "] {
            assert_eq!(parse_line(blank.as_bytes(), &zone), Line::Blank);
        }
    }
}
