//! A descriptor folded: case, accents, punctuation, spaces and reference numbers do not count.
//!
//! In: a raw seller. Out: words with single spaces between, and three signs: `*` where the bank
//! printed one, `#` for a number that only refers, `~` at the end of a text that may be cut.
//! Invariant: sellers that fold to one text are one seller to every later step, so an answer can
//! be remembered by it however many reference numbers there are.

use compact_str::CompactString;
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Where a bank printed a star: behind a payment processor or a marketplace.
pub const STAR: &str = "*";
/// A reference, a card number, a phone number without gaps, a postcode of digits.
pub const REFERENCE: &str = "#";
/// The text fills one of the widths that banks cut at, so its last word may be a beginning.
pub const CUT: &str = "~";

/// The widths, in characters, of the merchant field: of many banks, of Mastercard, of Visa.
const CUT_WIDTHS: [usize; 3] = [18, 22, 25];

/// Numbers of this many digits refer to something; shorter ones may be part of a name.
pub const REFERENCE_DIGITS_MIN: usize = 5;

/// Numbers of this many digits are those of stores, shorter ones may be part of a name.
pub const STORE_DIGITS_MIN: usize = 3;

/// Folds `raw` into `folded`, whose memory is used again.
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
    // Signs say something of what comes behind them. A cut reference is a reference still.
    let signs_end = trim_signs(&mut out);
    if CUT_WIDTHS.contains(&width) && !out.is_empty() && !signs_end {
        push(CUT, &mut out);
    }
    *folded = String::from_utf8(out).expect("whole characters were copied");
}

/// A text without accents, in letters of one case but for ASCII.
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

/// What [`push_letters`] makes of the Latin letters behind ASCII. None of them depends on those
/// beside it, and most names with an accent have no others.
static LATIN: LazyLock<Vec<CompactString>> = LazyLock::new(|| {
    let letters = |c: char| {
        let mut letters = String::new();
        push_letters(std::iter::once(c), &mut letters);
        letters.into()
    };
    ('\u{80}'..='\u{24F}').map(letters).collect()
});
const LATIN_FIRST: usize = 0x80;

/// The same for any text, character by character.
fn push_letters(raw: impl Iterator<Item = char>, letters: &mut String) {
    // Up, then down: `ß` is `ss` however it is printed. Either can bring combining marks of
    // its own, so marks are dropped after both. Up once before letters and marks are taken
    // apart: a mark that is a letter in upper case (the iota subscript) stays in its place.
    let upper = raw.flat_map(char::to_uppercase).nfkd();
    let plain = upper.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkd();
    let plain = plain.filter(|c| !is_accent(*c) && *c != '’');
    plain.for_each(|c| letters.push_str(plain_letters(c).unwrap_or(c.encode_utf8(&mut [0; 4]))));
}

/// Drops stars and references from the end; whether there were any.
fn trim_signs(out: &mut Vec<u8>) -> bool {
    let end = out.iter().rposition(|b| !matches!(b, b'*' | b'#' | b' ')).map_or(0, |last| last + 1);
    let found = end < out.len();
    out.truncate(end);
    found
}

/// An accent over or under a letter. The marks of other scripts make other letters.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36F}')
}

/// What stands for a character that is no letter with a mark, or no letter at all.
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
    /// An apostrophe: the word goes on behind it.
    Nothing,
    Star,
    /// What stands in front of a store's number.
    Hash,
}

/// What a byte is, in a text in which whatever is not ASCII is part of a letter.
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

/// Cuts a text into words.
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

/// The word being read: where it starts in the folded text, and of what it is.
#[derive(Default)]
struct Word {
    start: usize,
    letters: usize,
    digits: usize,
    /// How often letters and digits take turns, and where they last did.
    turns: usize,
    turn: usize,
    last_is_digit: bool,
    /// It stands behind a `#`.
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

    /// Ends the word, if there is one.
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
            // `#12` is no part of a name, as `studio 54` is: it gets the length of a store's number.
            out.splice(start..start, std::iter::repeat_n(b'0', STORE_DIGITS_MIN - digits));
        }
        let refers = match (letters, digits) {
            // Banks mask the numbers of cards.
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

/// Whether a word of letters and digits is a name and a number: `stores2335`, `0123oakland`.
#[inline]
pub fn is_glued(letters: usize, digits: usize, turns: usize, last_is_digit: bool) -> bool {
    turns == 1 && (last_is_digit && letters >= 3 || letters >= 4) && digits >= 2
}

/// Whether a word of letters and digits that is not glued only refers.
#[inline]
pub fn is_code(letters: usize, digits: usize) -> bool {
    digits + letters >= 7 && digits >= 2 || digits + letters == 6 && digits >= 3
}

/// Parts a word where a name and a number meet; either may fall away.
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
        fn latin_letters_are_what_they_are_among_others(raw in "[ -~\u{80}-\u{24F}’\u{300}ͅΣ]{0,12}") {
            let mut slowly = String::new();
            push_letters(raw.chars(), &mut slowly);
            prop_assert_eq!(letters(&raw).to_ascii_lowercase(), slowly);
        }
    }

    #[test]
    fn what_does_not_count() {
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
