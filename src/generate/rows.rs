//! Blocks of log lines: the hot loop of the generator.
//!
//! In: the range of rows of a block. Out: its text, its totals, and the rows picked for overrides.
//! Invariant: a block depends only on the seed and the number of its first row, so blocks can be
//! made in any order by any number of threads.

use super::calendar::Calendar;
use super::faults::{Faults, spoil};
use super::market::{Form, Market};
use super::profile::{Amounts, PROFILES};
use super::random::{Bits, Purpose, Random, mix};
use super::users::Users;
use crate::domain::transaction::RejectReason;
use std::ops::Range;

/// The inputs from which rows are made.
pub struct Recipe {
    pub seed: u64,
    pub users: Users,
    pub market: Market,
    pub amounts: Amounts,
    pub calendar: Calendar,
    pub faults: Faults,
    /// One in N rows is picked for a manual category.
    pub pick_every: u64,
    pub references: References,
}

/// Unique reference numbers after the names of sellers, as printed by some banks and marketplaces.
pub struct References {
    seed: u64,
    /// The share of rows with a reference, in units of 2⁻⁶⁴.
    below: u64,
}

impl References {
    pub fn new(seed: u64, ratio: f64) -> References {
        References { seed, below: (ratio * 2f64.powi(64)) as u64 }
    }

    /// Appends the reference of a row, if it has one; half of them as ` 73920174512`, half as
    /// `*7K2M4A9C1X`. Unique to the row.
    fn push(&self, row: u64, text: &mut Vec<u8>) {
        let bits = mix(mix(self.seed ^ mix(REFERENCES)) ^ row);
        if bits >= self.below {
            return;
        }
        if bits & 1 == 0 {
            text.push(b' ');
            push_number(text, 10_000_000_000 + row);
            return;
        }
        text.push(b'*');
        let mut rest = row;
        for _ in 0..5 {
            text.push(b'0' + (rest % 10) as u8);
            text.push(b'A' + (rest / 10 % 26) as u8);
            rest /= 260;
        }
    }
}

/// Selects the stream that decides which rows have a reference.
const REFERENCES: u64 = 6;

#[derive(Clone, Copy)]
struct Purchase {
    user_id: u64,
    day: u64,
    second: u64,
    seller: usize,
    form: Form,
    cents: i64,
}

/// A row of a log, the target of a manual category.
pub struct Picked {
    pub user_id: u64,
    pub day: u64,
    pub timestamp: String,
    pub seller: String,
    pub profile: usize,
    pub cents: i64,
}

/// Totals of rows.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub rows: u64,
    /// By the index of the reason in `RejectReason::ALL`.
    pub rejects: [u64; RejectReason::ALL.len()],
    pub positive_cents: i128,
    pub negative_cents: i128,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.rows += other.rows;
        for (mine, theirs) in self.rejects.iter_mut().zip(other.rejects) {
            *mine += theirs;
        }
        self.positive_cents += other.positive_cents;
        self.negative_cents += other.negative_cents;
    }

    fn add_amount(&mut self, cents: i64) {
        match cents > 0 {
            true => self.positive_cents += i128::from(cents),
            false => self.negative_cents += i128::from(cents),
        }
    }
}

/// The lines of one block. Its memory is reused for the next.
#[derive(Default)]
pub struct Block {
    pub text: Vec<u8>,
    pub tally: Tally,
    pub picked: Vec<Picked>,
}

/// Probabilities in units of a power of two, so that one draw serves several.
const REPEAT_BITS: u32 = 8; // 1 row in 256 repeats the previous row
const REFUND_BITS: u32 = 16;
const REFUNDS: u64 = 983; // 1.5 % of the rows that spend
const LATE_BITS: u32 = 16;
const LATE: u64 = 1311; // 2 %
const LARGE_BITS: u32 = 13; // 1 in 8,192 is 16 to 63 times as large
const FORM_BITS: u32 = 3;

impl Recipe {
    /// Replaces the contents of `block` by `rows`.
    pub fn fill(&self, rows: Range<u64>, block: &mut Block) {
        block.text.clear();
        block.picked.clear();
        block.tally = Tally { rows: rows.end - rows.start, ..Tally::default() };
        let mut random = Random::stream(self.seed, Purpose::Rows, rows.start);
        let mut bad_ordinal = self.faults.first_from(rows.start);
        let mut bad_row = self.faults.row(bad_ordinal);
        let mut purchase = self.purchase(rows.start, &mut random);
        for row in rows {
            if random.draw() >> (64 - REPEAT_BITS) != 0 {
                purchase = self.purchase(row, &mut random);
            }
            if bad_row == Some(row) {
                self.print_bad(row, &purchase, bad_ordinal, block);
                bad_ordinal += 1;
                bad_row = self.faults.row(bad_ordinal);
                continue;
            }
            self.print(row, &purchase, &mut block.text);
            block.tally.add_amount(purchase.cents);
            if row.is_multiple_of(self.pick_every) {
                block.picked.push(self.pick(&purchase));
            }
        }
    }

    fn purchase(&self, row: u64, random: &mut Random) -> Purchase {
        let slot = self.users.draw_slot(random.draw());
        let seller = self.market.draw(random.draw());
        let mut bits = Bits(random.draw());
        let profile = self.market.profile(seller);
        let mut cents = self.amounts.draw(profile, &mut bits);
        let second = self.calendar.second_of_day(&mut bits);
        let mut chances = Bits(random.draw());
        if chances.take(LARGE_BITS) == 0 {
            cents *= 16 + random.below(48) as i64;
        }
        let is_refund = chances.take(REFUND_BITS) < REFUNDS;
        if PROFILES[profile].pays_in || is_refund {
            cents = -cents;
        }
        let mut day = self.calendar.day_of_row(row);
        if chances.take(LATE_BITS) < LATE {
            day = self.calendar.late(day, random);
        }
        let form = match chances.take(FORM_BITS) {
            0..=4 => Form::Plain,
            5..=6 => Form::Loud,
            _ => Form::Untidy,
        };
        Purchase { user_id: self.users.id(slot), day, second, seller, form, cents }
    }

    fn print(&self, row: u64, purchase: &Purchase, text: &mut Vec<u8>) {
        push_number(text, purchase.user_id);
        text.push(b'\t');
        text.extend_from_slice(self.calendar.date(purchase.day));
        let second = purchase.second as usize;
        let [hour, minute, second] = [second / 3600, second / 60 % 60, second % 60].map(|two| PAIRS[two]);
        let time = [hour[0], hour[1], b':', minute[0], minute[1], b':', second[0], second[1], b'Z', b'\t'];
        text.extend_from_slice(&time);
        text.extend_from_slice(self.market.printed(purchase.seller, purchase.form));
        self.references.push(row, text);
        text.push(b'\t');
        push_amount(text, purchase.cents);
        text.push(b'\n');
    }

    fn print_bad(&self, row: u64, purchase: &Purchase, ordinal: u64, block: &mut Block) {
        let mut line = Vec::new();
        self.print(row, purchase, &mut line);
        line.pop();
        let (reason, line) = spoil(&line, ordinal);
        block.text.extend_from_slice(&line);
        block.text.push(b'\n');
        block.tally.rejects[reason as usize] += 1;
    }

    fn pick(&self, purchase: &Purchase) -> Picked {
        Picked {
            user_id: purchase.user_id,
            day: purchase.day,
            timestamp: self.calendar.timestamp(purchase.day, purchase.second),
            seller: String::from_utf8_lossy(self.market.printed(purchase.seller, purchase.form)).into_owned(),
            profile: self.market.profile(purchase.seller),
            cents: purchase.cents,
        }
    }
}

/// The numbers 00 to 99 as two digits.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + number as u8 / 10, b'0' + number as u8 % 10];
        number += 1;
    }
    pairs
};

fn push_number(text: &mut Vec<u8>, number: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = number;
    while rest >= 10 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    if rest > 0 || number == 0 {
        start -= 1;
        digits[start] = b'0' + rest as u8;
    }
    text.extend_from_slice(&digits[start..]);
}

/// Appends cents as units with two decimals: `-12.30`.
pub fn push_amount(text: &mut Vec<u8>, cents: i64) {
    if cents < 0 {
        text.push(b'-');
    }
    let magnitude = cents.unsigned_abs();
    push_number(text, magnitude / 100);
    text.push(b'.');
    text.extend_from_slice(&PAIRS[(magnitude % 100) as usize]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_amounts_are_formatted_as_by_the_library() {
        for number in [0, 7, 10, 99, 100, 101, 1_234_567, 10_000_000, u64::MAX] {
            let mut text = Vec::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string().into_bytes());
        }
        for (cents, expected) in [(0, "0.00"), (5, "0.05"), (-500, "-5.00"), (-7, "-0.07")] {
            let mut text = Vec::new();
            push_amount(&mut text, cents);
            assert_eq!(text, expected.as_bytes());
        }
    }

    #[test]
    fn reasons_are_numbered_by_their_position() {
        for (position, &reason) in RejectReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, position);
        }
    }
}
