//! The fast path: parses the lines of a block that have the common form.
//!
//! In: an indexed block. Out: each line with the same transaction as
//! [`parse_line`](super::parse::parse_line), or with `None` if it must be parsed by `parse_line`.
//! The common form: a user id of up to 16 digits; `2025-01-31T23:59:59Z`, at an instant within the
//! month it names; an amount with two decimals and up to eight digits before them.
//! Invariant: never differs from `parse_line`; every byte is checked, eight at a time.

use super::eight_bytes::{ONES, ZEROS, all_at_most};
use super::separators::Indexed;
use crate::domain::transaction::{SELLER_BYTES_MAX, Transaction};
use crate::domain::zone::Zone;
use crate::limits::LINE_BYTES_MAX;
use crate::planted::Bug;
use std::ops::Range;

/// Iterates over the lines of a block: the range of each line, including its end, and its
/// transaction if it has the common form.
pub struct Lines<'b, 's> {
    indexed: Indexed<'b, 's>,
    /// The separators not yet passed.
    positions: &'s [u32],
    start: usize,
    zone: &'s Zone,
}

impl<'b, 's> Lines<'b, 's> {
    pub fn new(indexed: Indexed<'b, 's>, zone: &'s Zone) -> Lines<'b, 's> {
        Lines { indexed, positions: indexed.positions(), start: 0, zone }
    }
}

impl<'b> Iterator for Lines<'b, '_> {
    type Item = (Range<usize>, Option<Transaction<'b>>);

    // Inlined, since a row returned through memory would stall its reader.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let (start, block) = (self.start, self.indexed.block());
        if start == block.len() {
            return None;
        }
        if let Some(fields) = Fields::of_line(block, start, self.positions)
            && let Some(transaction) = parse(&self.indexed, fields, self.zone)
        {
            self.positions = &self.positions[4..];
            self.start = fields.next;
            return Some((start..self.start, Some(transaction)));
        }
        let newline = self.positions.iter().position(|at| block[*at as usize] == b'\n');
        self.start = newline.map_or(block.len(), |index| self.positions[index] as usize + 1);
        self.positions = &self.positions[newline.map_or(self.positions.len(), |index| index + 1)..];
        Some((start..self.start, None))
    }
}

/// The positions of a line's fields in its block.
#[derive(Clone, Copy, Debug)]
struct Fields {
    start: usize,
    tabs: [usize; 3],
    /// Behind the last byte of the amount.
    end: usize,
    /// The start of the next line.
    next: usize,
}

impl Fields {
    /// The fields of the line that starts at `start`; `separators` begin with its first one. `None`
    /// unless it has exactly three tabs and a newline and is at most [`LINE_BYTES_MAX`] long.
    #[inline]
    fn of_line(block: &[u8], start: usize, separators: &[u32]) -> Option<Fields> {
        let [first, second, third, newline] = separators.first_chunk::<4>()?.map(|at| at as usize);
        let is_tab = |at: usize| block[at] == b'\t';
        let next = newline + 1;
        if !(is_tab(first) && is_tab(second) && is_tab(third)) || is_tab(newline) {
            return None;
        }
        if next - start > LINE_BYTES_MAX {
            return None;
        }
        let end = if block[newline - 1] == b'\r' { newline - 1 } else { newline };
        Some(Fields { start, tabs: [first, second, third], end, next })
    }
}

/// Parses a line; `None` if it does not have the common form.
#[inline(always)]
fn parse<'b>(indexed: &Indexed<'b, '_>, fields: Fields, zone: &Zone) -> Option<Transaction<'b>> {
    let block = indexed.block();
    let Fields { start, tabs: [first, second, third], end, .. } = fields;
    let user_id = user_id(block, start, first)?;
    let user_id = if Bug::UserIdCut.is_planted() { user_id & 0xffff_ffff } else { user_id };
    let (at_seconds, index) = time(block, first + 1, second, zone)?;
    let seller = &block[second + 1..third];
    if seller.is_empty() || seller.len() > SELLER_BYTES_MAX {
        return None;
    }
    let seller = match indexed.text(second + 1..third) {
        Some(text) => text,
        None if memchr::memchr(0, seller).is_some() => return None,
        None => std::str::from_utf8(seller).ok()?,
    };
    let amount_cents = amount_cents(block, third + 1, end)?;
    let (occurred_at_micros, month) = (at_seconds * 1_000_000, zone.month(index));
    Some(Transaction { user_id, occurred_at_micros, month, seller, amount_cents })
}

/// Eight bytes, the first one lowest.
#[inline]
fn load(block: &[u8], at: usize) -> Option<u64> {
    block.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

/// The number of the `count` digits (1 to 8) before `end`. `None` if one of them is not a digit, or
/// fewer than eight bytes precede `end`.
#[inline]
fn digits(block: &[u8], end: usize, count: usize) -> Option<u64> {
    let word = load(block, end.checked_sub(8)?)? ^ ZEROS;
    // Shifts out what precedes the digits; zeros take its place.
    let digits = word >> (8 * (8 - count)) << (8 * (8 - count));
    all_at_most(digits, 9 * ONES).then(|| {
        let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
        let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
        fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff
    })
}

#[inline]
fn user_id(block: &[u8], start: usize, end: usize) -> Option<u64> {
    let count = end - start;
    if count > 1 && block[start] == b'0' {
        return None;
    }
    match count {
        1..=8 => digits(block, end, count),
        9..=16 => Some(digits(block, end - 8, count - 8)? * 100_000_000 + digits(block, end, 8)?),
        _ => None,
    }
}

/// A pattern for eight bytes of a timestamp: `0` stands for any digit, other bytes for themselves.
#[derive(Clone, Copy)]
struct Pattern {
    bytes: u64,
    /// The maximum difference of each byte from the pattern: 9 for digits, otherwise 0.
    limits: u64,
}

impl Pattern {
    const fn new(text: &[u8; 8]) -> Pattern {
        let (mut limits, mut at) = (0, 0);
        while at < 8 {
            if text[at] == b'0' {
                limits |= 9 << (8 * at);
            }
            at += 1;
        }
        Pattern { bytes: u64::from_le_bytes(*text), limits }
    }

    /// For each two adjacent digits, ten times the first plus the second, at the place of the
    /// first.
    #[inline]
    fn pairs(self, word: u64) -> Option<u64> {
        let digits = word ^ self.bytes;
        all_at_most(digits, self.limits).then(|| digits.wrapping_mul(10).wrapping_add(digits >> 8))
    }
}

const DATE: Pattern = Pattern::new(b"0000-00-");
const HOUR: Pattern = Pattern::new(b"00T00:00");
const SECOND: Pattern = Pattern::new(b":00:00Z\t");

/// The instant in seconds, and the index of its month.
#[inline]
fn time(block: &[u8], start: usize, end: usize, zone: &Zone) -> Option<(i64, u32)> {
    if end - start != 20 {
        return None;
    }
    let date = DATE.pairs(load(block, start)?)?;
    let hour = HOUR.pairs(load(block, start + 8)?)?;
    let second = SECOND.pairs(load(block, start + 13)?)?;
    let pair = |word: u64, at: u32| (word >> (8 * at) & 0xff) as u32;
    let (year, month) = (pair(date, 0) * 100 + pair(date, 2), pair(date, 5));
    let (day, hour, minute, second) = (pair(hour, 0), pair(hour, 3), pair(hour, 6), pair(second, 4));
    if hour > 23 || minute > 59 || second > 59 || month.wrapping_sub(1) > 11 {
        return None;
    }
    let index = (year * 12 + month - 1).checked_sub(zone.months().first.number())?;
    let (first_day, next_month) = zone.days_of(index)?;
    let day = first_day + day as i32 - 1;
    if day < first_day || day >= next_month {
        return None;
    }
    let at = i64::from(day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    // Near the edges of a month, the local month may be another one.
    zone.holds(index, at).then_some((at, index))
}

#[inline]
fn amount_cents(block: &[u8], start: usize, end: usize) -> Option<i64> {
    let is_negative = block.get(start) == Some(&b'-');
    let start = start + usize::from(is_negative);
    let point = end.checked_sub(3)?;
    let count = point.checked_sub(start)?;
    let [b'.', tens, ones] = block[point..end] else { return None };
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if count.wrapping_sub(1) > 7 || tens > 9 || ones > 9 {
        return None;
    }
    let whole = digits(block, point, count)? as i64;
    let cents = whole * 100 + i64::from(tens * 10 + ones);
    Some(if is_negative && !Bug::SignLost.is_planted() { -cents } else { cents })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::parse::{Line, parse_line};
    use crate::kernel::separators::Separators;
    use proptest::prelude::*;

    /// The result of the fast path for a line after `before`, followed by `\n`.
    fn fast_path<'a>(
        block: &'a mut Vec<u8>,
        separators: &'a mut Separators,
        before: &[u8],
        line: &[u8],
        zone: &'a Zone,
    ) -> Option<Transaction<'a>> {
        block.clear();
        block.extend([before, line, b"\n"].concat());
        let mut lines = Lines::new(separators.index(block), zone);
        lines.find(|(range, _)| *range == (before.len()..block.len())).and_then(|(_, quick)| quick)
    }

    fn zone(name: &str) -> Zone {
        Zone::new(name, "2024-01..2025-12".parse().unwrap()).unwrap()
    }

    #[test]
    fn one_byte_changes_of_the_common_form_parse_as_by_parse_line() {
        let common = b"12345678\t2025-02-28T23:59:59Z\tCAFE 12\t-1234.05";
        let (mut block, mut separators) = (Vec::new(), Separators::default());
        for name in ["UTC", "America/New_York"] {
            let zone = zone(name);
            let found = fast_path(&mut block, &mut separators, b"1\n", common, &zone)
                .expect("it has the common form");
            assert_eq!((found.user_id, found.seller, found.amount_cents), (12_345_678, "CAFE 12", -123_405));
            for at in 0..common.len() {
                for byte in 0..=255u8 {
                    let mut line = common.to_vec();
                    line[at] = byte;
                    let expected = parse_line(&line, &zone);
                    if let Some(quick) = fast_path(&mut block, &mut separators, b"xxxxxxx1\n", &line, &zone) {
                        assert_eq!(expected, Line::Transaction(quick), "{at} {byte}");
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn parsed_lines_equal_those_of_parse_line(
            user in "[0-9]{1,20}|[0-9x]{1,9}",
            time in "20[012][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z|2024-02-(28|29|30)T23:59:59Z|2025-0[12]-01T0[0-9]:00:00Z|[0-9]{10}",
            seller in "[a-z ]{0,12}|é\0?|[A-Z]{250,257}",
            amount in "-?[0-9]{1,10}(\\.[0-9]{2})?|-?[0-9.-]{0,6}",
            before in "|[0-9\t\n]{0,12}\n",
            in_utc in any::<bool>(),
        ) {
            let zone = zone(if in_utc { "UTC" } else { "Asia/Tokyo" });
            let line = format!("{user}\t{time}\t{seller}\t{amount}");
            let (mut block, mut separators) = (Vec::new(), Separators::default());
            let quick = fast_path(&mut block, &mut separators, before.as_bytes(), line.as_bytes(), &zone);
            if let Some(quick) = quick {
                prop_assert_eq!(parse_line(line.as_bytes(), &zone), Line::Transaction(quick));
            }
        }

        #[test]
        fn lines_are_split_at_newlines(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("7\t2025-01-02T03:04:05Z\tCAFE\t1.00".to_string()),
                    Just("\r".to_string()),
                    "[\t\n]{1,3}",
                    "[a-z]{0,70}",
                ],
                0..40,
            ),
        ) {
            let block = parts.concat().into_bytes();
            let (mut separators, zone) = (Separators::default(), zone("UTC"));
            let mut lines = Lines::new(separators.index(&block), &zone);
            for expected in block.split_inclusive(|byte| *byte == b'\n') {
                let (range, quick) = lines.next().expect("as many lines");
                prop_assert_eq!(&block[range], expected);
                if let Some(quick) = quick {
                    let line = expected.strip_suffix(b"\n").unwrap_or(expected);
                    prop_assert_eq!(parse_line(line, &zone), Line::Transaction(quick));
                }
            }
            prop_assert!(lines.next().is_none());
        }
    }
}
