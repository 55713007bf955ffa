//! The steps of cleaning a descriptor, each of which removes one kind of noise.
//!
//! In: the words of a descriptor. Out: fewer words.
//! Invariant: a step depends on the words alone; in doubt a word stays. The names of banks'
//! phrases, processors and places are lists beside this file.

use super::Descriptor;
use crate::kernel::fold::{REFERENCE, STAR, STORE_DIGITS_MIN};
use ahash::RandomState;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

pub(super) fn is_word(word: &str) -> bool {
    word.bytes().any(|b| !b.is_ascii_digit() && b != b'*' && b != b'#')
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_digit())
}

pub(super) type Set = HashSet<&'static str, RandomState>;

/// The entries of a shipped list: its lines without blanks and `#` comments.
fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

pub(super) static PHRASES: LazyLock<Set> = LazyLock::new(|| lines(include_str!("phrases.txt")).collect());
static PHRASE_STARTS: LazyLock<Set> =
    LazyLock::new(|| PHRASES.iter().map(|phrase| first_word(phrase)).collect());

pub(super) const PHRASE_WORDS_MAX: usize = 4;

fn first_word(phrase: &str) -> &str {
    phrase.split(' ').next().unwrap_or(phrase)
}

/// Length in words of the longest listed phrase at the front. `starts` holds the first word of
/// every phrase and rejects most texts early.
fn phrase_at_front(words: &[&str], starts: &Set, contains: impl Fn(&str) -> bool) -> Option<usize> {
    let longest = match words.first() {
        Some(first) if starts.contains(first) => PHRASE_WORDS_MAX.min(words.len()),
        _ => 0,
    };
    (1..=longest).rev().find(|count| contains(&words[..*count].join(" ")))
}

pub(super) fn drop_bank_phrase(Descriptor { words, .. }: &mut Descriptor) {
    // `1234 05MAR24 CD`: the card's last digits, the day, card or debit.
    if let [card, REFERENCE, "cd" | "d" | "c", ..] = words[..]
        && is_number(card)
    {
        words.drain(..3);
        return;
    }
    let Some(count) = phrase_at_front(words, &PHRASE_STARTS, |phrase| PHRASES.contains(phrase)) else {
        return;
    };
    let rest = &words[count..];
    let sign = |word: &&str| [STAR, REFERENCE].contains(word);
    let number = |word: &&str, digits| is_number(word) && word.len() == digits;
    let signs = rest.iter().take_while(|word| sign(word)).count();
    let rest = &rest[signs..];
    // A two-digit number may belong to the name (`24 hour fitness`); two of them are a date.
    let card = rest.iter().take(1).take_while(|word| number(word, 4)).count();
    let day = match rest[card..] {
        [month, day, ..] if number(&month, 2) && number(&day, 2) => 2,
        _ => 0,
    };
    let numbers = card + day;
    let more = rest[numbers..].iter().take_while(|word| sign(word)).count();
    words.drain(..count + signs + numbers + more);
}

pub(super) struct Processor {
    /// True if the name counts only when followed by a star in the raw text.
    star: bool,
    unless: Vec<&'static str>,
}

pub(super) static PROCESSORS: LazyLock<HashMap<&str, Processor, RandomState>> = LazyLock::new(|| {
    let parse = |line: &'static str| {
        let (line, unless) = line.split_once(" ! ").unwrap_or((line, ""));
        let name = line.strip_suffix(" ...");
        let processor = Processor { star: name.is_none(), unless: unless.split_whitespace().collect() };
        (name.unwrap_or(line), processor)
    };
    lines(include_str!("processors.txt")).map(parse).collect()
});
static PROCESSOR_STARTS: LazyLock<Set> =
    LazyLock::new(|| PROCESSORS.keys().map(|name| first_word(name)).collect());

pub(super) fn drop_processor(Descriptor { words, .. }: &mut Descriptor) {
    let count = phrase_at_front(words, &PROCESSOR_STARTS, |name| PROCESSORS.contains_key(name));
    let Some(count) = count else { return };
    let processor = &PROCESSORS[words[..count].join(" ").as_str()];
    let Some(next) = words.get(count) else { return };
    if *next == STAR || !processor.star && !processor.unless.contains(next) {
        words.drain(..count);
    }
}

/// A payment reference is written by the payer and does not identify the seller.
pub(super) fn drop_payment_reference(Descriptor { words, .. }: &mut Descriptor) {
    let reference = words.iter().skip(1).position(|word| ["ref", "reference", "mandate"].contains(word));
    words.truncate(reference.map_or(words.len(), |behind_first| behind_first + 1));
}

pub(super) fn drop_references(Descriptor { words, .. }: &mut Descriptor) {
    words.retain(|word| ![STAR, REFERENCE].contains(word));
}

/// Web sites of processors' support.
const PROCESSOR_SITES: [&str; 5] = ["gosq", "fastspring", "paypal", "stripe", "paddle"];

pub(super) fn drop_web_address(descriptor: &mut Descriptor) {
    let Descriptor { words, cut, web } = descriptor;
    let before = words.len();
    let at_front = words.iter().take_while(|word| ["https", "http", "www"].contains(word)).count();
    words.drain(..at_front);
    let mut index = 1;
    while index < words.len() {
        let of_domain = match (words[index], words.get(index + 1)) {
            ("co" | "org" | "gov" | "ac", Some(&"uk")) => 2,
            ("com" | "net" | "org", _) => 1,
            // Here `co u` is a truncated `co.uk`, not words of the name.
            ("co", Some(&"u")) if index + 2 == words.len() => 2,
            ("c" | "co", None) if at_front > 0 => 1,
            _ => 0,
        };
        if of_domain == 0 {
            index += 1;
            continue;
        }
        let is_last = index + of_domain == words.len();
        words.drain(index..index + of_domain);
        // A support address: the domain of the seller or of the processor, repeated.
        let label = words[index - 1];
        if index > 1 && (words[..index - 1].contains(&label) || PROCESSOR_SITES.contains(&label)) {
            let subdomain = usize::from(["help", "pay", "pending", "bill"].contains(&words[index - 2]));
            words.truncate((index - 1 - subdomain).max(1));
        }
        *cut &= !is_last;
    }
    *web |= words.len() < before;
}

const LEGAL_FORMS: [&str; 15] = [
    "ltd",
    "limited",
    "plc",
    "inc",
    "incorporated",
    "llc",
    "llp",
    "corp",
    "corporation",
    "gmbh",
    "pty",
    "sarl",
    "srl",
    "ltda",
    "bv",
];

pub(super) fn drop_small_words(Descriptor { words, cut, .. }: &mut Descriptor) {
    let last = words.len().saturating_sub(1);
    let small = |index: usize, word: &str| match word {
        "and" => true,
        "the" => index == 0,
        // Truncated forms of `limited` that are not words of their own.
        "limi" | "limit" | "limite" => *cut && index == last,
        "co" => index > 0 && index == last,
        word => index > 0 && LEGAL_FORMS.contains(&word),
    };
    let mut index = 0;
    words.retain(|word| {
        index += 1;
        !small(index - 1, word)
    });
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// A date such as `05mar`, with or without a year.
fn is_day(word: &str) -> bool {
    let month = word.trim_matches(|c: char| c.is_ascii_digit());
    MONTHS.contains(&month) && word.starts_with(|c: char| c.is_ascii_digit())
}

/// Ends the name at a store number, since the store's place follows it, and at a date or an
/// announced reference. A number of one or two digits may be part of the name.
pub(super) fn end_at_number(Descriptor { words, .. }: &mut Descriptor) {
    let Some(first) = words.iter().position(|word| is_word(word)) else { return };
    let ends = |index: usize| {
        let next = words.get(index + 1);
        let number_follows = next.is_some_and(|word| is_number(word));
        match words[index] {
            "on" => number_follows,
            "card" => number_follows || next == Some(&"ending"),
            "ppd" | "ccd" => true,
            "web" => next == Some(&"id"),
            day if is_day(day) => true,
            month if MONTHS.contains(&month) => {
                number_follows && is_number(words[index - 1]) || next.is_none() && is_number(words[index - 1])
            }
            word if is_number(word) => {
                word.len() >= STORE_DIGITS_MIN || next.is_some_and(|next| is_number(next) && next.len() < 3)
            }
            _ => false,
        }
    };
    let end = (first + 1..words.len()).find(|index| ends(*index));
    words.truncate(end.unwrap_or(words.len()));
}

#[derive(Default)]
pub(super) struct Places {
    pub(super) countries: Set,
    pub(super) states: Set,
    /// State codes that are also words of names: they count only behind a city.
    pub(super) doubtful_states: Set,
    pub(super) cities: Set,
    /// The last word of each city.
    city_ends: Set,
}

/// The longest name of a city, in words.
const CITY_WORDS_MAX: usize = 4;

pub(super) static PLACES: LazyLock<Places> = LazyLock::new(|| {
    let (mut places, mut kind) = (Places::default(), "");
    for line in lines(include_str!("places.txt")) {
        match (line, kind) {
            ("[countries]" | "[states]" | "[cities]", _) => {
                kind = line;
                continue;
            }
            (country, "[countries]") => places.countries.insert(country),
            (state, "[states]") => match state.strip_prefix('?') {
                Some(state) => places.doubtful_states.insert(state),
                None => places.states.insert(state),
            },
            (city, _) => {
                places.city_ends.insert(city.rsplit(' ').next().unwrap_or(city));
                places.cities.insert(city)
            }
        };
    }
    places
});

/// A city behind one of these words belongs to the name: `university of york`, `new york`.
const BINDING_WORDS: [&str; 14] =
    ["of", "for", "in", "at", "to", "from", "de", "la", "new", "visit", "royal", "port", "fort", "the"];

/// Drops city, state and country from the end, unless nothing else would be left.
pub(super) fn drop_place(Descriptor { words, .. }: &mut Descriptor) {
    let places = &*PLACES;
    let mut end = words.len();
    // A country code behind a single letter stays: `toys r us`.
    if end > 1 && places.countries.contains(words[end - 1]) && words[end - 2].len() > 1 {
        end -= 1;
    }
    let is_state = |word: &str| places.states.contains(word);
    let may_be_state = |word: &str| places.doubtful_states.contains(word);
    let before_state = match words[..end].last() {
        Some(last) if end > 1 && (is_state(last) || may_be_state(last)) => end - 1,
        _ => end,
    };
    let city = |end: usize| {
        let longest = match words[..end].last() {
            Some(last) if places.city_ends.contains(last) => CITY_WORDS_MAX.min(end - 1),
            _ => 0,
        };
        let found =
            (1..=longest).rev().find(|n| places.cities.contains(words[end - n..end].join(" ").as_str()));
        found.map(|n| end - n).filter(|start| !BINDING_WORDS.contains(&words[start - 1]))
    };
    end = match city(before_state) {
        Some(start) => start,
        None if before_state > 1 && before_state < end && is_state(words[before_state]) => before_state,
        None => end,
    };
    words.truncate(end);
}

static TRADES: LazyLock<Set> = LazyLock::new(|| lines(include_str!("trades.txt")).collect());

/// True if the only word is a trade: two hotels are not the same seller.
pub(super) fn names_nobody(words: &[&str]) -> bool {
    matches!(words, [word] if TRADES.contains(word))
}
