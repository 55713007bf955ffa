//! The normalised name of a seller: case, accents, punctuation and spaces do not count.
//!
//! In: a raw seller. Out: words of lower-case letters and digits with single spaces between.
//! Invariant: normalising twice changes nothing.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// `  Café  "Zoë" #12 ` becomes `cafe zoe 12`, `McDonald's` becomes `mcdonalds`.
pub fn normalize(seller: &str) -> String {
    let mut name = String::with_capacity(seller.len());
    let mut word_ended = false;
    // Lower-casing can bring combining marks of its own, so it comes before they are dropped.
    for c in seller.nfkd().flat_map(char::to_lowercase).nfkd() {
        if is_combining_mark(c) || matches!(c, '\'' | '’' | '`') {
            continue;
        }
        if !c.is_alphanumeric() {
            word_ended = true;
            continue;
        }
        if word_ended && !name.is_empty() {
            name.push(' ');
        }
        word_ended = false;
        name.push(c);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_count() {
        for (raw, name) in [
            ("  Café  \"Zoë\" #12 ", "cafe zoe 12"),
            ("McDONALD'S", "mcdonalds"),
            ("7-ELEVEN", "7 eleven"),
            ("ŠKODA\tAuto", "skoda auto"),
            ("İstanbul", "istanbul"),
            ("***", ""),
        ] {
            assert_eq!(normalize(raw), name);
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(raw in "\\PC{0,40}") {
            let once = normalize(&raw);
            prop_assert_eq!(normalize(&once), once);
        }
    }
}
