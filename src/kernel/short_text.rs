//! A short text as a fixed number of eight-byte words, with reference numbers replaced by zeros.
//!
//! In: a text, preferably as part of a longer block. Out: words that are hashed and compared
//! without branches on the text's length, which would be mispredicted about half of the time.
//! Invariant: texts with the same words fold to the same text, so they can share a cache entry.

use super::eight_bytes::{HIGHS, ONES, ZEROS, between, bits};
use super::fold::{REFERENCE_DIGITS_MIN, is_code, is_glued};
use crate::planted::Bug;
use std::array;

/// The longest text that fits a cache line together with the cached value.
const TEXT_BYTES_MAX: usize = 48;

const WORD_BYTES: usize = 8;
pub type Words = [u64; TEXT_BYTES_MAX / WORD_BYTES];

/// Padded with NUL; the first byte of a word is its lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortText(Words);

/// Replaces every longer text; not itself a text.
const TOO_LONG: ShortText = ShortText([u64::MAX; TEXT_BYTES_MAX / WORD_BYTES]);

/// A mask of the first bytes of the words: all but the last `behind`.
#[inline]
fn text_mask(behind: usize) -> &'static [u8; TEXT_BYTES_MAX] {
    static KEPT_THEN_NOT: [u8; 2 * TEXT_BYTES_MAX] = {
        let mut bytes = [0; 2 * TEXT_BYTES_MAX];
        let (text_mask, _) = bytes.split_at_mut(TEXT_BYTES_MAX);
        text_mask.copy_from_slice(&[0xff; TEXT_BYTES_MAX]);
        bytes
    };
    KEPT_THEN_NOT[behind..].first_chunk().expect("twice as long")
}

impl ShortText {
    /// [`ShortText::of`] for a text within `block`: reads a fixed number of bytes including those
    /// behind the text and masks them, which is faster than copying a variable number. Falls back
    /// to it near the end of the block.
    #[inline]
    pub fn within(block: &[u8], text: &str) -> ShortText {
        let start = text.as_ptr().addr().wrapping_sub(block.as_ptr().addr());
        let window = block.get(start..).and_then(|rest| rest.first_chunk());
        let (Some(window), Some(behind)) = (window, TEXT_BYTES_MAX.checked_sub(text.len())) else {
            return ShortText::of(text);
        };
        let (window, text_mask) = (words(window), words(text_mask(behind)));
        ShortText(array::from_fn(|k| window[k] & text_mask[k])).normalized()
    }

    pub fn of(text: &str) -> ShortText {
        let mut padded = [0; TEXT_BYTES_MAX];
        match padded.get_mut(..text.len()) {
            Some(bytes) => bytes.copy_from_slice(text.as_bytes()),
            None => return TOO_LONG,
        }
        ShortText(words(&padded)).normalized()
    }

    #[inline]
    fn normalized(self) -> ShortText {
        match self.0.iter().fold(0, |any, word| any | digits(*word)) {
            0 => self,
            _ => self.without_references(),
        }
    }

    #[inline]
    pub fn words(&self) -> &Words {
        &self.0
    }

    /// False if the text was too long.
    pub fn is_whole(&self) -> bool {
        *self != TOO_LONG
    }

    /// True if few digits remain after zeroing; texts with many remaining digits are probably
    /// unique and not worth caching.
    pub fn may_recur(&self) -> bool {
        let zeros = self.byte_mask(|word| between(word, b'0', b'0'));
        let digits = self.byte_mask(digits) & !long_runs(zeros);
        (digits.count_ones() as usize) < REFERENCE_DIGITS_MIN
    }

    /// Zeroes the digits of long numbers, and all characters of reference codes.
    #[inline(never)]
    fn without_references(mut self) -> ShortText {
        let digits = self.byte_mask(digits);
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

    /// The bytes of all words that mix letters and digits and are reference codes.
    fn codes(&self, digits: u64) -> u64 {
        let letters = self.byte_mask(letters);
        let turns = digits & letters << 1 | letters & digits << 1;
        let (mut codes, mut remaining) = (0, turns);
        while remaining != 0 {
            let joins = self.byte_mask(joins);
            let word = run_around(digits | letters | joins, remaining.trailing_zeros());
            remaining &= !word;
            let [letters, digits_of, turns] =
                [letters, digits, turns].map(|ones| (ones & word).count_ones() as usize);
            let ends_with_digit = word & digits & !(word >> 1) != 0;
            // Characters outside ASCII may fold to anything.
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

    /// A bit for each byte of the text whose high bit is set by `highs`.
    fn byte_mask(&self, highs: impl Fn(u64) -> u64) -> u64 {
        let bits = |(k, word): (usize, &u64)| bits(highs(*word)) << (WORD_BYTES * k);
        self.0.iter().enumerate().map(bits).fold(0, |all, bits| all | bits)
    }
}

fn words(bytes: &[u8; TEXT_BYTES_MAX]) -> Words {
    let words = bytes.as_chunks::<WORD_BYTES>().0;
    array::from_fn(|k| u64::from_le_bytes(words[k]))
}

/// The high bit of each digit.
#[inline]
fn digits(word: u64) -> u64 {
    between(word, b'0', b'9')
}

/// The high bit of each letter.
fn letters(word: u64) -> u64 {
    between(word | (ONES * u64::from(b'a' ^ b'A')), b'a', b'z')
}

/// The high bit of each byte that continues a word and is neither a letter nor a digit of ASCII.
fn joins(word: u64) -> u64 {
    between(word, b'\'', b'\'') | between(word, b'`', b'`') | word & HIGHS
}

/// Expands each of eight bits to a whole byte.
fn whole_bytes(bits: u64) -> u64 {
    let one_each = bits.wrapping_mul(ONES) & 0x8040_2010_0804_0201;
    ((one_each + !HIGHS) >> 7 & ONES) * 0xff
}

/// The runs of ones at least as long as a reference.
fn long_runs(ones: u64) -> u64 {
    let shifts = 1..REFERENCE_DIGITS_MIN;
    let starts = shifts.clone().fold(ones, |starts, shift| starts & ones >> shift);
    shifts.fold(starts, |runs, shift| runs | starts << shift)
}

/// The run of ones that contains bit `at`.
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
    fn references_are_zeroed() {
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
        fn zeroing_does_not_change_the_folded_text(text in SELLER) {
            let short = ShortText::of(&text);
            if short.is_whole() {
                prop_assert_eq!(folded(&read(&short)), folded(&text), "{}", read(&short));
            }
        }

        #[test]
        fn the_surrounding_block_does_not_matter(before in ".{0,9}", text in SELLER, behind in ".{0,60}") {
            let block = [before.as_str(), &text, &behind].concat();
            let within = &block[before.len()..][..text.len()];
            prop_assert_eq!(ShortText::within(block.as_bytes(), within), ShortText::of(&text));
            prop_assert_eq!(ShortText::within(behind.as_bytes(), &text), ShortText::of(&text));
        }
    }
}
