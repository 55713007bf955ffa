//! Sellers: their names, their forms in logs, and their frequency.
//!
//! In: a number of sellers. Out: names for the dictionary and the logs, and draws by weight.
//! Invariant: all names differ after normalisation; every printed form of a seller normalises to
//! its name; no name exceeds the limit of logs.

use super::profile::{PARTS, PROFILES, UNLISTED};
use super::random::Weighted;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// First words. Their number is a prime that is coprime to every category's number of nouns, so
/// counting through both at once yields every pair before any pair repeats.
#[rustfmt::skip]
const FIRST_WORDS: [&str; 61] = [
    "Amber", "Harbor", "Maple", "Böhm", "Crown", "Élan", "Silver", "Northgate", "Río", "Juniper",
    "Castle", "Orchard", "Falcon", "Göran", "Meadow", "Granite", "Señora", "Willow", "Beacon", "Cedar",
    "Copper", "Delta", "Ember", "Foxglove", "Garnet", "Hazel", "Indigo", "Jasper", "Kestrel", "Lantern",
    "Marlow", "Nordal", "O'Hara", "Pinnacle", "Quarry", "Redwood", "Saffron", "Thistle", "Umbra",
    "Valmont", "Westbrook", "Yarrow", "Zéphyr", "Ashby", "Björk", "Calder", "Dacosta", "Eastgate",
    "Fénix", "Gallo", "Hollis", "Ivory", "Köhler", "Larkspur", "Mónica", "Nimbus", "Oakley", "Peralta",
    "St. Clair", "Rosewood", "Sterling",
];

/// Branches of a seller's name, with their countries.
#[rustfmt::skip]
const PLACES: [(&str, &str); 23] = [
    ("Austin", "US"), ("Boise", "US"), ("Tampa", "US"), ("Dayton", "US"), ("Leeds", "GB"),
    ("Bristol", "GB"), ("Dundee", "GB"), ("München", "DE"), ("Köln", "DE"), ("Málaga", "ES"),
    ("Bilbao", "ES"), ("Lyon", "FR"), ("Orléans", "FR"), ("Utrecht", "NL"), ("Zürich", "CH"),
    ("Québec", "CA"), ("Regina", "CA"), ("Porto", "PT"), ("Malmö", "SE"), ("Brno", "CZ"),
    ("Cork", "IE"), ("Torino", "IT"), ("Perth", "AU"),
];

/// The form in which a log prints a seller.
#[derive(Clone, Copy)]
pub enum Form {
    /// As in the dictionary.
    Plain,
    /// In capitals and without accents, as printed by card terminals.
    Loud,
    /// With additional spaces and punctuation.
    Untidy,
}

const FORMS: usize = 3;

/// Rows per 100 whose seller is missing from the dictionary.
const UNLISTED_ROWS: u64 = 3;

pub struct Market {
    /// All printed forms of all sellers, concatenated.
    text: Vec<u8>,
    /// The end of each form in `text`. 32 bits, since every row reads from it.
    ends: Vec<u32>,
    profiles: Vec<u8>,
    countries: Vec<&'static str>,
    listed: usize,
    by_weight: Weighted,
}

impl Market {
    /// `listed` sellers of the dictionary, and a sixteenth as many (at least one) missing from it.
    pub fn new(listed: u32) -> Market {
        let listed = listed as usize;
        let mut market = Market {
            text: Vec::new(),
            ends: Vec::new(),
            profiles: (0..listed).map(profile_of).collect(),
            countries: Vec::new(),
            listed,
            by_weight: Weighted::new(&[1]),
        };
        let unlisted = (listed / 16).max(1);
        market.profiles.extend(std::iter::repeat_n(UNLISTED as u8, unlisted));
        let mut met = [0usize; PROFILES.len()];
        let mut ranks = Vec::with_capacity(market.profiles.len());
        for seller in 0..market.profiles.len() {
            let rank = &mut met[market.profile(seller)];
            market.add_names(seller, *rank);
            ranks.push(*rank);
            *rank += 1;
        }
        market.by_weight = Weighted::new(&weights(&market.profiles, &ranks));
        market
    }

    fn add_names(&mut self, seller: usize, rank: usize) {
        let (name, country) = name(self.profile(seller), rank);
        let loud = loud(&name);
        let untidy = untidy(seller, &name, &loud);
        for form in [name, loud, untidy] {
            self.text.extend_from_slice(form.as_bytes());
            self.ends.push(self.text.len() as u32);
        }
        self.countries.push(country);
    }

    /// A random seller by weight, including those missing from the dictionary.
    pub fn draw(&self, bits: u64) -> usize {
        self.by_weight.draw(bits) as usize
    }

    /// The printed form as UTF-8 bytes, so that the hot loop needs no checks.
    pub fn printed(&self, seller: usize, form: Form) -> &[u8] {
        let index = seller * FORMS + form as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start as usize..self.ends[index] as usize]
    }

    pub fn profile(&self, seller: usize) -> usize {
        usize::from(self.profiles[seller])
    }

    /// The dictionary: seller, category, and country or empty.
    pub fn dictionary(&self) -> impl Iterator<Item = [&[u8]; 3]> {
        (0..self.listed).map(|seller| {
            let category = PROFILES[self.profile(seller)].code;
            [self.printed(seller, Form::Plain), category.as_bytes(), self.countries[seller].as_bytes()]
        })
    }
}

/// Steps through the thousand parts by 617, which is coprime to 1,000, so that any range of sellers
/// has the categories in about the right proportions.
fn profile_of(seller: usize) -> u8 {
    let mut part = (seller as u64 * 617) % PARTS;
    let found = PROFILES.iter().position(|profile| match part.checked_sub(profile.sellers) {
        Some(rest) => {
            part = rest;
            false
        }
        None => true,
    });
    found.unwrap_or(UNLISTED) as u8
}

/// Within a category, the seller of rank r (from 0) has a weight proportional to 1 ÷ (r + 5): the
/// Zipf-Mandelbrot law, in which the first seller does not dominate.
fn weights(profiles: &[u8], ranks: &[usize]) -> Vec<u64> {
    let pull = |rank: usize| (1u64 << 30) / (rank as u64 + 5);
    let mut pulls = [0u64; PROFILES.len()];
    for (&profile, &rank) in profiles.iter().zip(ranks) {
        pulls[usize::from(profile)] += pull(rank);
    }
    let present = (0..PROFILES.len()).filter(|&profile| pulls[profile] > 0);
    let listed_parts: u64 = present.map(|profile| PROFILES[profile].rows).sum();
    let parts = |profile: usize| match profile {
        UNLISTED => UNLISTED_ROWS * listed_parts,
        _ => (100 - UNLISTED_ROWS) * PROFILES[profile].rows,
    };
    let weight = |(&profile, &rank): (&u8, &usize)| {
        let profile = usize::from(profile);
        let share = (u128::from(pull(rank)) << 32) / u128::from(pulls[profile]);
        share as u64 * parts(profile)
    };
    profiles.iter().zip(ranks).map(weight).collect()
}

/// First word and noun; once all pairs are used, with a place; once all places are used, with a
/// number.
fn name(profile: usize, rank: usize) -> (String, &'static str) {
    let nouns = PROFILES[profile].nouns;
    let first_word = FIRST_WORDS[(rank + 7 * profile) % FIRST_WORDS.len()];
    let pair = format!("{first_word} {}", nouns[rank % nouns.len()]);
    let Some(branch) = (rank / (FIRST_WORDS.len() * nouns.len())).checked_sub(1) else {
        return (pair, if rank.is_multiple_of(3) { "" } else { "US" });
    };
    let (place, country) = PLACES[branch % PLACES.len()];
    match branch / PLACES.len() {
        0 => (format!("{pair} {place}"), country),
        number => (format!("{pair} {place} {}", number + 1), country),
    }
}

fn loud(name: &str) -> String {
    name.to_uppercase().nfd().filter(|&c| !is_combining_mark(c)).collect()
}

fn untidy(seller: usize, name: &str, loud: &str) -> String {
    match seller % 4 {
        0 => name.replace(' ', "  "),
        1 => format!("{loud}."),
        2 => loud.replacen(' ', ", ", 1),
        _ => format!("** {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::transaction::SELLER_BYTES_MAX;
    use crate::kernel::descriptor::Descriptor;
    use crate::kernel::fold::fold;
    use std::collections::BTreeSet;

    /// The normalised text that the dictionary compares.
    fn normalize(printed: &str) -> String {
        let mut folded = String::new();
        fold(printed, &mut folded);
        Descriptor::understand(&folded).words.concat()
    }

    #[test]
    fn names_differ_and_every_form_normalises_to_its_name() {
        let market = Market::new(50_000);
        let sellers = market.profiles.len();
        let printed = |seller, form| str::from_utf8(market.printed(seller, form)).unwrap();
        let names: BTreeSet<String> =
            (0..sellers).map(|seller| normalize(printed(seller, Form::Plain))).collect();
        assert_eq!(names.len(), sellers);
        for seller in 0..sellers {
            let name = normalize(printed(seller, Form::Plain));
            for form in [Form::Loud, Form::Untidy] {
                let printed = printed(seller, form);
                assert_eq!(normalize(printed), name, "{printed}");
                assert!(printed.len() <= SELLER_BYTES_MAX && printed.trim() == printed);
            }
        }
    }

    #[test]
    fn rows_are_distributed_among_categories_by_profile() {
        let market = Market::new(2000);
        let mut random = super::super::random::Random::new(3);
        let mut rows = [0u64; PROFILES.len()];
        for _ in 0..1_000_000 {
            rows[market.profile(market.draw(random.draw()))] += 1;
        }
        assert!(rows[UNLISTED].abs_diff(30_000) < 1000);
        for (profile, count) in PROFILES.iter().zip(rows).take(UNLISTED) {
            assert!(count.abs_diff(profile.rows * 970) < 2000, "{}: {count}", profile.code);
        }
    }

    #[test]
    fn one_seller_is_enough() {
        let market = Market::new(1);
        assert_eq!(market.dictionary().count(), 1);
        assert_eq!(market.profiles.len(), 2);
    }
}
