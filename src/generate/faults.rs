//! Bad rows: their positions and their errors.
//!
//! In: the number of rows and the share of bad ones. Out: lines that must be rejected, each with
//! its reason.
//! Invariant: exactly the requested share is bad; the kinds of errors take turns; a bad line has
//! exactly one error.

use super::random::{Purpose, Random};
use crate::domain::transaction::{RejectReason, SELLER_BYTES_MAX};
use crate::limits::LINE_BYTES_MAX;

/// Selects the bad rows: one at a random place in each of as many equal ranges.
pub struct Faults {
    seed: u64,
    rows: u64,
    bad: u64,
}

impl Faults {
    pub fn new(seed: u64, rows: u64, ratio: f64) -> Faults {
        let bad = ((rows as f64 * ratio).round() as u64).min(rows);
        Faults { seed, rows, bad }
    }

    /// The row of the bad row number `ordinal`; `None` after the last.
    pub fn row(&self, ordinal: u64) -> Option<u64> {
        if ordinal >= self.bad {
            return None;
        }
        let start_of =
            |ordinal: u64| (u128::from(ordinal) * u128::from(self.rows) / u128::from(self.bad)) as u64;
        let (start, end) = (start_of(ordinal), start_of(ordinal + 1));
        let mut random = Random::stream(self.seed, Purpose::BadRows, ordinal);
        Some(start + random.below(end - start))
    }

    /// The ordinal of the first bad row at or after `row`.
    pub fn first_from(&self, row: u64) -> u64 {
        let stretch = (u128::from(row) * u128::from(self.bad) / u128::from(self.rows)) as u64;
        let passed = |&ordinal: &u64| self.row(ordinal).is_some_and(|bad| bad < row);
        stretch + (stretch..).take_while(passed).count() as u64
    }
}

/// The fields of a line to be corrupted, without tabs and line end.
type Fields = Vec<Vec<u8>>;

const USER: usize = 0;
const TIME: usize = 1;
const SELLER: usize = 2;
const AMOUNT: usize = 3;

type Kind = (RejectReason, fn(&mut Fields));

/// The kinds of errors, ordered so that even a few bad rows have most of the reasons.
const KINDS: [Kind; 19] = [
    (RejectReason::FieldCount, |fields| fields.truncate(3)),
    (RejectReason::BadUserId, |fields| fields[USER].insert(0, b'u')),
    (RejectReason::BadTimestamp, |fields| fields[TIME] = b"17/01/2025 12:34".to_vec()),
    (RejectReason::BadSeller, |fields| fields[SELLER].clear()),
    (RejectReason::BadAmount, |fields| fields[AMOUNT] = b"12.345".to_vec()),
    (RejectReason::AmountOutOfRange, |fields| fields[AMOUNT] = b"10000000000.01".to_vec()),
    (RejectReason::BadEncoding, |fields| fields[SELLER].extend(b" \xc3\x28")),
    (RejectReason::OutOfWindow, |fields| fields[TIME] = b"1999-12-31T23:59:59Z".to_vec()),
    (RejectReason::LineTooLong, |fields| fields[SELLER] = long(LINE_BYTES_MAX + 6 * 1024)),
    (RejectReason::FieldCount, |fields| fields.push(b"USD".to_vec())),
    (RejectReason::BadUserId, |fields| fields[USER].insert(0, b'-')),
    (RejectReason::BadTimestamp, |fields| fields[TIME][8..10].copy_from_slice(b"32")),
    (RejectReason::BadSeller, |fields| fields[SELLER] = long(SELLER_BYTES_MAX + 1)),
    (RejectReason::BadAmount, |fields| fields[AMOUNT] = b"1e5".to_vec()),
    (RejectReason::BadAmount, |fields| fields[AMOUNT] = b"1,234.00".to_vec()),
    (RejectReason::BadUserId, |fields| fields[USER] = b"9223372036854775808".to_vec()),
    (RejectReason::BadAmount, |fields| fields[AMOUNT].clear()),
    (RejectReason::OutOfWindow, |fields| fields[TIME] = b"2100-01-01T00:00:00Z".to_vec()),
    (RejectReason::BadAmount, |fields| fields[AMOUNT] = b"NaN".to_vec()),
];

/// Over-long lines are most of the bytes of bad rows, so they occur only in one of this many turns;
/// in the other turns the next kind occurs twice.
const TURNS_PER_LONG_LINE: u64 = 16;

fn long(bytes: usize) -> Vec<u8> {
    b"VERY LONG SELLER ".iter().copied().cycle().take(bytes).collect()
}

/// Corrupts the valid line `line`, which has no line end, as bad row number `ordinal`.
pub fn spoil(line: &[u8], ordinal: u64) -> (RejectReason, Vec<u8>) {
    let (turn, index) = (ordinal / KINDS.len() as u64, ordinal as usize % KINDS.len());
    let (mut reason, mut change) = KINDS[index];
    if reason == RejectReason::LineTooLong && !turn.is_multiple_of(TURNS_PER_LONG_LINE) {
        (reason, change) = KINDS[index + 1];
    }
    let mut fields: Fields = line.split(|&byte| byte == b'\t').map(<[u8]>::to_vec).collect();
    change(&mut fields);
    (reason, fields.join(&b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_rows_ascend_in_the_requested_number() {
        for (rows, ratio) in [(1000, 0.013), (1000, 1.0), (7, 0.5), (10, 0.0)] {
            let faults = Faults::new(7, rows, ratio);
            let bad: Vec<u64> = (0..).map_while(|ordinal| faults.row(ordinal)).collect();
            assert_eq!(bad.len() as f64, (rows as f64 * ratio).round());
            assert!(bad.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(bad.iter().all(|&row| row < rows));
            for row in 0..rows {
                let first = faults.first_from(row);
                assert_eq!(first, bad.iter().filter(|&&bad| bad < row).count() as u64, "{row}");
            }
        }
    }

    #[test]
    fn over_long_lines_are_rare() {
        let good = b"42\t2025-01-17T12:34:56Z\tAmber Foods\t12.30";
        let longest =
            |range: std::ops::Range<u64>| range.map(|ordinal| spoil(good, ordinal).1.len()).max().unwrap();
        assert!(longest(0..19) > LINE_BYTES_MAX);
        assert!(longest(19..16 * 19) < 400);
    }
}
