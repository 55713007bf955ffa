//! A short text as words of eight bytes, in which numbers that only refer read 0.
//!
//! In: a text, best as part of a longer block. Out: words that can be hashed and compared whatever the
//! text's length: a branch that depends on it would be guessed wrong every other time.
//! Invariant: texts with the same words fold to the same text, so what is known of one seller holds
//! for all of them.

use super::eight_bytes::{HIGHS, ONES, ZEROS, between, bits};
use super::fold::{REFERENCE_DIGITS_MIN, is_code, is_glued};
use crate::planted::Bug;
use std::array;

/// Longer texts do not fit into a line of the cache beside what is known of them.
const TEXT_BYTES_MAX: usize = 48;

const WORD_BYTES: usize = 8;
pub type Words = [u64; TEXT_BYTES_MAX / WORD_BYTES];

/// Padded with NUL, the first byte lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortText(Words);

/// What stands for all longer texts, and is none.
const TOO_LONG: ShortText = ShortText([u64::MAX; TEXT_BYTES_MAX / WORD_BYTES]);

/// All bits of the bytes that a text has, behind which there is room for so many more.
#[inline]
fn kept(behind: usize) -> &'static [u8; TEXT_BYTES_MAX] {
    static KEPT_THEN_NOT: [u8; 2 * TEXT_BYTES_MAX] = {
        let mut bytes = [0; 2 * TEXT_BYTES_MAX];
        let (kept, _) = bytes.split_at_mut(TEXT_BYTES_MAX);
        kept.copy_from_slice(&[0xff; TEXT_BYTES_MAX]);
        bytes
    };
    KEPT_THEN_NOT[behind..].first_chunk().expect("twice as long")
}

impl ShortText {
    /// Of a text that lies within a block: it is read together with what stands behind it, which is
    /// faster than to look where it ends. The same as [`ShortText::of`].
    #[inline]
    pub fn within(block: &[u8], text: &str) -> ShortText {
        let start = text.as_ptr().addr().wrapping_sub(block.as_ptr().addr());
        let window = block.get(start..).and_then(|rest| rest.first_chunk());
        let (Some(window), Some(behind)) = (window, TEXT_BYTES_MAX.checked_sub(text.len())) else {
            return ShortText::of(text);
        };
        let (window, kept) = (words(window), words(kept(behind)));
        ShortText(array::from_fn(|k| window[k] & kept[k])).read()
    }

    pub fn of(text: &str) -> ShortText {
        let mut padded = [0; TEXT_BYTES_MAX];
        match padded.get_mut(..text.len()) {
            Some(bytes) => bytes.copy_from_slice(text.as_bytes()),
            None => return TOO_LONG,
        }
        ShortText(words(&padded)).read()
    }

    #[inline]
    fn read(self) -> ShortText {
        match self.0.iter().fold(0, |any, word| any | digits(*word)) {
            0 => self,
            _ => self.without_references(),
        }
    }

    #[inline]
    pub fn words(&self) -> &Words {
        &self.0
    }

    /// Whether these are the words of one text, and not of all that are too long.
    pub fn is_whole(&self) -> bool {
        *self != TOO_LONG
    }

    /// Whether it has less digits than a reference beside those that read 0: others may change from row
    /// to row as well, so that the text never comes again.
    pub fn may_recur(&self) -> bool {
        let zeros = self.bytes_that(|word| between(word, b'0', b'0'));
        let digits = self.bytes_that(digits) & !long_runs(zeros);
        (digits.count_ones() as usize) < REFERENCE_DIGITS_MIN
    }

    /// Lets the digits of long numbers read 0, and all that stands in a code.
    #[inline(never)]
    fn without_references(mut self) -> ShortText {
        let digits = self.bytes_that(digits);
        let gone = match Bug::NumbersAreAlike.is_planted() {
            true => digits,
            false => long_runs(digits) | self.codes(digits),
        };
        for (k, word) in self.0.iter_mut().enumerate() {
            let gone = whole_bytes(gone >> (WORD_BYTES * k) & 0xff);
            *word = *word & !gone | ZEROS & gone;
        }
        self
    }

    /// The bytes of all words in which letters and digits take turns, and which only refer.
    fn codes(&self, digits: u64) -> u64 {
        let letters = self.bytes_that(letters);
        let turns = digits & letters << 1 | letters & digits << 1;
        let (mut codes, mut untold) = (0, turns);
        while untold != 0 {
            let joins = self.bytes_that(joins);
            let word = run_around(digits | letters | joins, untold.trailing_zeros());
            untold &= !word;
            let [letters, digits_of, turns] =
                [letters, digits, turns].map(|ones| (ones & word).count_ones() as usize);
            let ends_with_digit = word & digits & !(word >> 1) != 0;
            // What is no ASCII may fold to anything.
            let is_plain = joins & word == 0;
            if is_plain
                && !is_glued(letters, digits_of, turns, ends_with_digit)
                && is_code(letters, digits_of)
            {
                codes |= word;
            }
        }
        codes
    }

    /// A bit for each byte, of the high bits that tell which are meant.
    fn bytes_that(&self, highs: impl Fn(u64) -> u64) -> u64 {
        let bits = |(k, word): (usize, &u64)| bits(highs(*word)) << (WORD_BYTES * k);
        self.0.iter().enumerate().map(bits).fold(0, |all, bits| all | bits)
    }
}

fn words(bytes: &[u8; TEXT_BYTES_MAX]) -> Words {
    let words = bytes.as_chunks::<WORD_BYTES>().0;
    array::from_fn(|k| u64::from_le_bytes(words[k]))
}

/// The high bits of digits.
#[inline]
fn digits(word: u64) -> u64 {
    between(word, b'0', b'9')
}

/// The high bits of letters.
fn letters(word: u64) -> u64 {
    between(word | (ONES * u64::from(b'a' ^ b'A')), b'a', b'z')
}

/// The high bits of what does not end a word, and is no letter or digit of ASCII.
fn joins(word: u64) -> u64 {
    between(word, b'\'', b'\'') | between(word, b'`', b'`') | word & HIGHS
}

/// Eight bytes, all bits of which are those of eight bits.
fn whole_bytes(bits: u64) -> u64 {
    let one_each = bits.wrapping_mul(ONES) & 0x8040_2010_0804_0201;
    ((one_each + !HIGHS) >> 7 & ONES) * 0xff
}

/// The runs of ones that are as long as a reference.
fn long_runs(ones: u64) -> u64 {
    let shifts = 1..REFERENCE_DIGITS_MIN;
    let starts = shifts.clone().fold(ones, |starts, shift| starts & ones >> shift);
    shifts.fold(starts, |runs, shift| runs | starts << shift)
}

/// The run of ones that holds the one at `at`.
fn run_around(ones: u64, at: u32) -> u64 {
    let below = |end: u32| (1 << end) - 1;
    let end = at + (!ones >> at).trailing_zeros();
    let start = u64::BITS - (!ones & below(at)).leading_zeros();
    below(end) & !below(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fold::fold;
    use proptest::prelude::*;

    fn read(text: &ShortText) -> String {
        let bytes = text.0.iter().flat_map(|word| word.to_le_bytes());
        String::from_utf8(bytes.take_while(|byte| *byte != 0).collect()).unwrap()
    }

    fn folded(text: &str) -> String {
        let mut folded = String::new();
        fold(text, &mut folded);
        folded
    }

    #[test]
    fn what_only_refers_reads_0() {
        for (text, expected) in [
            ("PAYPAL *ACME 4029357733", "PAYPAL *ACME 0000000000"),
            ("AMZN Mktp US*2K3AB4CD5", "AMZN Mktp US*000000000"),
            ("TESCO STORES 2335 0121-496-0000", "TESCO STORES 2335 0121-496-0000"),
            ("TESCO STORES23355 7-ELEVEN", "TESCO STORES00000 7-ELEVEN"),
            ("ABCD1234 ABC12D", "ABCD1234 ABC12D"),
            ("AB1234 AB123D A1", "000000 000000 A1"),
            ("Zoë12345 2K3AB4é O'2K3AB4", "Zoë00000 2K3AB4é O'2K3AB4"),
            ("", ""),
        ] {
            assert_eq!(read(&ShortText::of(text)), expected);
            assert_eq!(folded(text), folded(expected), "{text}");
        }
        let recurs = |text: &str| ShortText::of(text).may_recur();
        assert!(recurs("ACME 12345678 9123") && !recurs("ACME 12345678 9123 7"));
    }

    const SELLER: &str = "([a-cA-Xx]{1,4}|[0-9]{1,6}|[ '`*#.-]|[éß²’１]){0,14}";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn what_reads_the_same_folds_to_the_same(text in SELLER) {
            let short = ShortText::of(&text);
            if short.is_whole() {
                prop_assert_eq!(folded(&read(&short)), folded(&text), "{}", read(&short));
            }
        }

        #[test]
        fn in_a_block_it_is_the_same(before in ".{0,9}", text in SELLER, behind in ".{0,60}") {
            let block = [before.as_str(), &text, &behind].concat();
            let within = &block[before.len()..][..text.len()];
            prop_assert_eq!(ShortText::within(block.as_bytes(), within), ShortText::of(&text));
            prop_assert_eq!(ShortText::within(behind.as_bytes(), &text), ShortText::of(&text));
        }
    }
}
