//! Folds a descriptor: case, accents, punctuation, spaces and reference numbers are removed.
//!
//! In: a raw seller. Out: words separated by single spaces, and three signs: `*` where the bank
//! printed one, `#` for a reference number, `~` at the end of a text that may be cut.
//! Invariant: later steps treat sellers with the same folded text as one seller, so it can be the
//! key of a cache, however many reference numbers occur.

use compact_str::CompactString;
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A star printed by the bank, behind a payment processor or a marketplace.
pub const STAR: &str = "*";
/// A reference, a card number, a phone number without gaps, a postcode of digits.
pub const REFERENCE: &str = "#";
/// The text is as wide as a field of a bank, so its last word may be truncated.
pub const CUT: &str = "~";

/// Widths of the merchant field in characters: of many banks, of Mastercard, of Visa.
const CUT_WIDTHS: [usize; 3] = [18, 22, 25];

/// Numbers of at least this many digits are references; shorter ones may be part of a name.
pub const REFERENCE_DIGITS_MIN: usize = 5;

/// Numbers of at least this many digits are store numbers; shorter ones may be part of a name.
pub const STORE_DIGITS_MIN: usize = 3;

/// Folds `raw` into `folded`, reusing its memory.
pub fn fold(raw: &str, folded: &mut String) {
    let mut out = std::mem::take(folded).into_bytes();
    out.clear();
    let raw = raw.trim();
    let width = match raw.is_ascii() {
        true => {
            split(raw.as_bytes(), &mut out);
            raw.len()
        }
        false => {
            split(letters(raw).as_bytes(), &mut out);
            raw.chars().filter(|c| !is_accent(*c)).count()
        }
    };
    // Signs describe what follows them, so they are dropped at the end. A cut reference is still a
    // reference, so `~` is left out behind one.
    let signs_end = trim_signs(&mut out);
    if CUT_WIDTHS.contains(&width) && !out.is_empty() && !signs_end {
        push(CUT, &mut out);
    }
    *folded = String::from_utf8(out).expect("whole characters were copied");
}

/// Removes accents and lowercases letters, except ASCII ones.
fn letters(raw: &str) -> String {
    let mut letters = String::with_capacity(raw.len());
    for c in raw.chars() {
        match LATIN.get((c as usize).wrapping_sub(LATIN_FIRST)) {
            Some(latin) => letters.push_str(latin),
            None if c.is_ascii() => letters.push(c),
            None if c == '’' => {}
            None => {
                letters.clear();
                push_letters(raw.chars(), &mut letters);
                return letters;
            }
        }
    }
    letters
}

/// Precomputed results of [`push_letters`] for the Latin letters after ASCII, each of which is
/// independent of its neighbours. Most names with accents contain no other letters.
static LATIN: LazyLock<Vec<CompactString>> = LazyLock::new(|| {
    let letters = |c: char| {
        let mut letters = String::new();
        push_letters(std::iter::once(c), &mut letters);
        letters.into()
    };
    ('\u{80}'..='\u{24F}').map(letters).collect()
});
const LATIN_FIRST: usize = 0x80;

/// As [`letters`] for any text, character by character.
fn push_letters(raw: impl Iterator<Item = char>, letters: &mut String) {
    // Upper, then lower case: `ß` becomes `ss` in either spelling. Both can produce combining
    // marks, so marks are dropped after both. The first uppercasing comes before the decomposition:
    // a mark that uppercases to a letter (the iota subscript) keeps its place.
    let upper = raw.flat_map(char::to_uppercase).nfkd();
    let plain = upper.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkd();
    let plain = plain.filter(|c| !is_accent(*c) && *c != '’');
    plain.for_each(|c| letters.push_str(plain_letters(c).unwrap_or(c.encode_utf8(&mut [0; 4]))));
}

/// Drops stars and references from the end. Returns whether there were any.
fn trim_signs(out: &mut Vec<u8>) -> bool {
    let end = out.iter().rposition(|b| !matches!(b, b'*' | b'#' | b' ')).map_or(0, |last| last + 1);
    let found = end < out.len();
    out.truncate(end);
    found
}

/// True for an accent over or under a letter. Marks of other scripts make different letters and
/// stay.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36F}')
}

/// The replacement of a letter without a decomposition, and a space for punctuation; `None` if the
/// character stays.
fn plain_letters(c: char) -> Option<&'static str> {
    match c {
        'ø' => Some("o"),
        'æ' => Some("ae"),
        'œ' => Some("oe"),
        'ł' => Some("l"),
        'đ' | 'ð' => Some("d"),
        'þ' => Some("th"),
        'ß' => Some("ss"),
        c if c.is_ascii() || c.is_alphanumeric() || is_combining_mark(c) => None,
        _ => Some(" "),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Letter,
    Digit,
    /// An apostrophe: the word continues behind it.
    Nothing,
    Star,
    /// The sign in front of a store number.
    Hash,
}

/// The kind of each byte; all bytes outside ASCII are parts of letters.
static KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Space; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => Kind::Letter,
            b'0'..=b'9' => Kind::Digit,
            b'\'' | b'`' => Kind::Nothing,
            b'*' => Kind::Star,
            b'#' => Kind::Hash,
            _ => Kind::Space,
        };
        byte += 1;
    }
    kinds
};

/// Splits a text into words.
fn split(text: &[u8], out: &mut Vec<u8>) {
    let mut word = Word::default();
    for &byte in text {
        let kind = KINDS[byte as usize];
        match kind {
            Kind::Letter | Kind::Digit => word.push(byte, kind == Kind::Digit, out),
            Kind::Nothing => {}
            Kind::Space => word.end(out),
            Kind::Star => {
                word.end(out);
                push_once(STAR, out);
            }
            Kind::Hash => {
                word.end(out);
                word.numbered = true;
            }
        }
    }
    word.end(out);
}

/// The word being read: its start in the folded text, and counts of its characters.
#[derive(Default)]
struct Word {
    start: usize,
    letters: usize,
    digits: usize,
    /// The number of changes between letters and digits, and the position of the last one.
    turns: usize,
    turn: usize,
    last_is_digit: bool,
    /// It follows a `#`.
    numbered: bool,
}

impl Word {
    #[inline]
    fn push(&mut self, byte: u8, is_digit: bool, out: &mut Vec<u8>) {
        if self.letters + self.digits == 0 {
            if !out.is_empty() {
                out.push(b' ');
            }
            self.start = out.len();
        } else if self.last_is_digit != is_digit {
            self.turns += 1;
            self.turn = out.len();
        }
        self.last_is_digit = is_digit;
        self.letters += usize::from(!is_digit);
        self.digits += usize::from(is_digit);
        out.push(byte.to_ascii_lowercase());
    }

    /// Ends the word, if any.
    #[inline]
    fn end(&mut self, out: &mut Vec<u8>) {
        match (self.letters, self.digits) {
            (0, 0) => self.numbered = false,
            (1..4, 0) => *self = Word::default(),
            _ => std::mem::take(self).judge(out),
        }
    }

    fn judge(self, out: &mut Vec<u8>) {
        let Word { start, letters, digits, turns, turn, last_is_digit, numbered } = self;
        if numbered && letters == 0 && digits < STORE_DIGITS_MIN {
            // Unlike `studio 54`, `#12` is not part of a name: it is padded to the length of a
            // store number.
            out.splice(start..start, std::iter::repeat_n(b'0', STORE_DIGITS_MIN - digits));
        }
        let refers = match (letters, digits) {
            // Banks mask card numbers with `x`.
            (_, 0) => out[start..].iter().all(|b| *b == b'x'),
            (0, _) => digits >= REFERENCE_DIGITS_MIN,
            _ if is_glued(letters, digits, turns, last_is_digit) => return unglue(turn, start, out),
            _ => is_code(letters, digits),
        };
        if refers {
            out.truncate(start.saturating_sub(1));
            push_once(REFERENCE, out);
        }
    }
}

/// True if a word of letters and digits is a name joined to a number: `stores2335`, `0123oakland`.
#[inline]
pub fn is_glued(letters: usize, digits: usize, turns: usize, last_is_digit: bool) -> bool {
    turns == 1 && (last_is_digit && letters >= 3 || letters >= 4) && digits >= 2
}

/// True if a word of letters and digits that is not glued is a reference code.
#[inline]
pub fn is_code(letters: usize, digits: usize) -> bool {
    digits + letters >= 7 && digits >= 2 || digits + letters == 6 && digits >= 3
}

/// Splits a word where name and number meet; each half is judged on its own.
fn unglue(turn: usize, start: usize, out: &mut Vec<u8>) {
    let second = out.split_off(turn);
    let first = out.split_off(start);
    out.truncate(start.saturating_sub(1));
    for half in [first, second] {
        let mut word = Word::default();
        half.iter().for_each(|byte| word.push(*byte, byte.is_ascii_digit(), out));
        word.end(out);
    }
}

fn push(sign: &str, out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b' ');
    }
    out.extend_from_slice(sign.as_bytes());
}

fn push_once(sign: &str, out: &mut Vec<u8>) {
    if !out.ends_with(sign.as_bytes()) {
        push(sign, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_latin_table_matches_the_general_conversion(raw in "[ -~\u{80}-\u{24F}’\u{300}ͅΣ]{0,12}") {
            let mut expected = String::new();
            push_letters(raw.chars(), &mut expected);
            prop_assert_eq!(letters(&raw).to_ascii_lowercase(), expected);
        }
    }

    #[test]
    fn case_accents_punctuation_and_references_are_folded() {
        for (raw, expected) in [
            ("  Café  \"Zoë\" #12 ", "cafe zoe 012"),
            ("Motel 6 # 7", "motel 6 7"),
            ("McDONALD'S", "mcdonalds"),
            ("7-ELEVEN", "7 eleven"),
            ("ŠKODA\tAuto", "skoda auto"),
            ("İstanbul", "istanbul"),
            ("SQ *BLUE BOTTLE 0123 OAKLAND CA", "sq * blue bottle 0123 oakland ca"),
            ("AMZN Mktp US*2K3AB4CD5", "amzn mktp us"),
            ("TESCO STORES2335", "tesco stores 2335"),
            ("POS 0123456OAKLAND", "pos # oakland ~"),
            ("CARD XXXX1234", "card # 1234"),
            ("8005551234 000123456789", ""),
            ("O2 B2B 3M MP3 24HR FOREVER21", "o2 b2b 3m mp3 24hr forever 21"),
            ("THE PLASTIC BOX COMPAN", "the plastic box compan ~"),
            ("***", ""),
            ("’’", ""),
        ] {
            let mut folded = String::new();
            fold(raw, &mut folded);
            assert_eq!(folded, expected, "{raw}");
        }
    }
}
