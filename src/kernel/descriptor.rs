//! Cleans a bank's descriptor: removes what was printed around the seller's name.
//!
//! In: a folded text. Out: the words matched by the layers, and the seller's normalised name.
//! Invariant: no step removes the last word with a letter; normalising a normalised name changes
//! nothing. In doubt a word stays: if too little is removed a user is asked twice, if too much two
//! sellers are merged.

mod steps;

use super::fold::{CUT, fold};
use smallvec::SmallVec;
use steps::{
    drop_bank_phrase, drop_payment_reference, drop_place, drop_processor, drop_references, drop_small_words,
    drop_web_address, end_at_number, is_word, names_nobody,
};

/// Up to 12 words need no heap memory; few sellers have more.
pub type Words<'f> = SmallVec<[&'f str; 12]>;

/// A descriptor being cleaned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor<'f> {
    pub words: Words<'f>,
    /// The last word may be truncated by the bank.
    pub cut: bool,
    /// It is the address of a web site, or contains one.
    pub web: bool,
}

/// The display name of a cleaning step, and its function.
type Step = (&'static str, fn(&mut Descriptor));

/// From the folded text to the words matched by the layers.
const TO_WORDS: [Step; 6] = [
    ("bank's phrase", drop_bank_phrase),
    ("payment processor", drop_processor),
    ("payment reference", drop_payment_reference),
    ("references", drop_references),
    ("web address", drop_web_address),
    ("legal form, small words", drop_small_words),
];

/// Index of the first step that also applies to names written by people in a table.
const ABOUT_NAMES: usize = 3;

/// From those words to the name.
const TO_NAME: [Step; 2] = [("store number, date", end_at_number), ("place", drop_place)];

impl<'f> Descriptor<'f> {
    fn of_folded(folded: &'f str) -> Descriptor<'f> {
        let mut words: Words = folded.split_ascii_whitespace().collect();
        let cut = words.last() == Some(&CUT);
        words.truncate(words.len() - usize::from(cut));
        Descriptor { words, cut, web: false }
    }

    /// The words matched by the layers.
    pub fn understand(folded: &'f str) -> Descriptor<'f> {
        let mut descriptor = Descriptor::of_folded(folded);
        TO_WORDS.iter().for_each(|step| descriptor.take(step));
        descriptor
    }

    /// The words of a name written by people in a table: steps for what banks add are left out.
    pub fn of_name(folded: &'f str) -> Descriptor<'f> {
        let mut descriptor = Descriptor::of_folded(folded);
        descriptor.cut = false;
        TO_WORDS[ABOUT_NAMES..].iter().for_each(|step| descriptor.take(step));
        descriptor
    }

    /// Applies a step, unless it would leave no word with a letter.
    fn take(&mut self, (_, step): &Step) {
        let has_letters = |words: &[&str]| words.iter().any(|word| is_word(word));
        let before = self.words.clone();
        step(self);
        if has_letters(&before) && !has_letters(&self.words) {
            self.words = before;
        }
    }

    /// Applies a step towards the name, unless it would leave only a trade (`hotel`) and no seller.
    fn take_to_name(&mut self, step: &Step) {
        let before = self.words.clone();
        self.take(step);
        if names_nobody(&self.words) {
            self.words = before;
        }
    }

    /// The words of the name.
    pub fn name(mut self) -> Words<'f> {
        TO_NAME.iter().for_each(|step| self.take_to_name(step));
        self.words
    }
}

/// The normalised name of a seller; empty if only punctuation was printed.
pub fn normalize(raw: &str) -> String {
    let mut folded = String::new();
    fold(raw, &mut folded);
    normalize_name(&Descriptor::understand(&folded).name())
}

/// Normalises a name until nothing changes, since one phrase may follow another. Terminates because
/// every pass removes words.
pub fn normalize_name(name: &[&str]) -> String {
    let (mut name, mut folded) = (name.join(" "), String::new());
    loop {
        fold(&name, &mut folded);
        let again = Descriptor::understand(&folded).name().join(" ");
        if again == name {
            return name;
        }
        name = again;
    }
}

/// The normalisation step by step: the name of each step that changed the text, and the result.
pub fn steps(raw: &str) -> Vec<(&'static str, String)> {
    let mut folded = String::new();
    fold(raw, &mut folded);
    let mut steps = vec![("case, accents, punctuation", folded.clone())];
    let mut descriptor = Descriptor::of_folded(&folded);
    let to_words = TO_WORDS.iter().map(|step| (step, false));
    for (step, to_name) in to_words.chain(TO_NAME.iter().map(|step| (step, true))) {
        let before = descriptor.words.clone();
        match to_name {
            false => descriptor.take(step),
            true => descriptor.take_to_name(step),
        }
        if descriptor.words != before {
            steps.push((step.0, descriptor.words.join(" ")));
        }
    }
    let name = normalize(raw);
    if descriptor.words.join(" ") != name {
        steps.push(("the same again", name));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::steps::{PHRASE_WORDS_MAX, PHRASES, PLACES, PROCESSORS};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bank_additions_are_removed() {
        for (raw, name) in [
            ("SQ *BLUE BOTTLE COFFEE 0123 OAKLAND CA", "blue bottle coffee"),
            ("SQ *BLUE BOTTLE COFFEE OAKLAND CA", "blue bottle coffee"),
            ("PAYPAL *STEAM GAMES 35314369001", "steam games"),
            ("SP PLUS PARKING", "sp plus parking"),
            ("PURCHASE AUTHORIZED ON 05/12 TRADER JOE'S #552 SEATTLE WA", "trader joes"),
            ("CARD PAYMENT TO SAINSBURYS S/MKTS ON 12 NOV", "sainsburys s mkts"),
            ("AMZN Mktp US*2K3AB4CD5", "amzn mktp"),
            ("www.amazon.co.uk", "amazon"),
            ("7-ELEVEN 34022 AUSTIN TX", "7 eleven"),
            ("Marks & Spencer plc", "marks spencer"),
            ("MARKS AND SPENCER", "marks spencer"),
            ("THE BODY SHOP", "body shop"),
            ("TRANSPORT FOR LONDON", "transport for london"),
            ("UNIVERSITY OF YORK", "university of york"),
            ("LONDON", "london"),
            ("AND", "and"),
            ("THE LTD", "the ltd"),
            ("12345 SHELL", "shell"),
            ("MOTEL 6 DALLAS TX", "motel 6"),
            ("FOREVER 21 #0123 MIAMI FL", "forever 21"),
            ("UBER   *TRIP HELP.UBER.COM CA", "uber trip"),
            ("JUST EAT.CO.UK", "just eat"),
            ("Møller Tandklinik", "moller tandklinik"),
            ("TO MCDONALD ROSS", "to mcdonald ross"),
            ("WILKO RETAIL LIMIT", "wilko retail"),
            ("***", ""),
            ("99", "99"),
            ("TOYS R US", "toys r us"),
            ("HOTEL BOSTON MA", "hotel boston ma"),
            ("CAFE 401 LEEDS", "cafe 401"),
            ("PURCHASE AUTHORIZED ON 05/12 24 HOUR FITNESS", "24 hour fitness"),
            ("STRAẞE", "strasse"),
            ("ガ", "カ\u{3099}"),
        ] {
            assert_eq!(normalize(raw), name, "{raw}");
        }
        assert_eq!(normalize(&"PAYPAL *SQ *VISA ".repeat(15)), "visa");
    }

    #[test]
    fn shipped_lists_are_folded() {
        let folded = |text: &str| {
            let mut folded = String::new();
            fold(text, &mut folded);
            folded.trim_end_matches(" ~").to_string()
        };
        for phrase in PHRASES.iter().chain(&PLACES.cities).chain(&PLACES.countries) {
            assert_eq!(folded(phrase), *phrase);
            assert!(phrase.split(' ').count() <= PHRASE_WORDS_MAX, "{phrase}");
        }
        assert!(PROCESSORS.keys().all(|name| folded(name) == *name));
        assert!(PLACES.states.len() + PLACES.doubtful_states.len() == 51 && PLACES.cities.len() > 250);
    }

    fn descriptor() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[A-Za-z]{1,8}",
            "[0-9]{1,7}",
            "[A-Z0-9*#&'./ -]{1,6}",
            "\\PC{0,4}",
            prop::sample::select(vec![
                "SQ *",
                "PAYPAL *",
                "POS DEBIT",
                "VISA",
                "LTD",
                "the",
                "and",
                "OAKLAND CA",
                "LONDON GB",
                "ON 12 NOV",
                "REF",
                ".co.uk",
                "www.",
                "limit",
                "SP ",
                "# ",
                "É",
                "xxxx",
            ])
            .prop_map(String::from),
        ];
        prop::collection::vec(part, 0..7).prop_map(|parts| parts.join(" "))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn normalising_twice_changes_nothing(raw in descriptor()) {
            let once = normalize(&raw);
            prop_assert_eq!(normalize(&once), once);
        }

        #[test]
        fn a_name_with_letters_keeps_a_letter(raw in descriptor()) {
            let mut folded = String::new();
            fold(&raw, &mut folded);
            if folded.split(' ').any(|word| word != CUT && is_word(word)) {
                prop_assert!(normalize(&raw).split(' ').any(is_word), "{}", raw);
            }
        }

        #[test]
        fn only_text_that_folds_to_nothing_has_no_name(raw in "([0-9]{1,7}|[ #*.-]|[a-cX]{0,2}){0,9}") {
            let mut folded = String::new();
            fold(&raw, &mut folded);
            prop_assert_eq!(normalize(&raw).is_empty(), folded.is_empty(), "{}: {}", raw, folded);
        }

        #[test]
        fn case_and_accents_are_ignored(raw in descriptor()) {
            let name = normalize(&raw);
            let (upper, lower) = (raw.to_uppercase(), raw.to_lowercase());
            // Some letters change in number when uppercased; then the text has another width and
            // may be read as cut.
            if upper.chars().count() == lower.chars().count() {
                prop_assert_eq!(&normalize(&upper), &normalize(&lower));
            }
            if raw.is_ascii() {
                prop_assert_eq!(&normalize(&raw.to_lowercase()), &name);
                let accented: String = raw.chars().flat_map(|c| [Some(c), c.is_alphabetic().then_some('\u{301}')]).flatten().collect();
                prop_assert_eq!(&normalize(&accented), &name);
            }
        }
    }
}
