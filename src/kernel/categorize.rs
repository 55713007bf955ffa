//! Which category a transaction belongs to, and which layer said so.
//!
//! In: the seller dictionary and people's own choices, compiled once; then one transaction at a
//! time. Out: category and source. Order: choice for this transaction, choice for this seller by
//! this user, dictionary as printed, dictionary by normalised name, none.
//! Invariant: a manual choice is never undone by an automatic one; two dictionary entries of one
//! name that disagree decide nothing.

use super::normalize::normalize;
use crate::domain::category::{CategoryId, CategorySource, Choice};
use crate::domain::transaction::Transaction;
use crate::input::reference::Reference;
use crate::limits::SELLERS_REMEMBERED_MAX;
use ahash::RandomState;
use compact_str::CompactString;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

type Map<K, V> = HashMap<K, V, RandomState>;

/// The compiled rules of a job.
#[derive(Debug)]
pub struct Categorizer {
    uncategorized: CategoryId,
    printed: Map<String, Option<CategoryId>>,
    normalized: Map<String, Option<CategoryId>>,
    /// By user.
    choices: Map<u64, Vec<Choice>>,
}

impl Categorizer {
    fn new(uncategorized: CategoryId) -> Categorizer {
        let (printed, normalized, choices) = (Map::default(), Map::default(), Map::default());
        Categorizer { uncategorized, printed, normalized, choices }
    }

    /// The rules that a job's reference tables amount to.
    pub fn of(reference: &Reference) -> Categorizer {
        let mut categorizer = Categorizer::new(reference.categories.uncategorized());
        reference.sellers.iter().for_each(|(seller, category)| categorizer.add_seller(seller, *category));
        reference.choices.iter().for_each(|choice| categorizer.add_choice(choice.clone()));
        categorizer
    }

    /// Adds a dictionary entry. One that contradicts an earlier entry of the same name takes
    /// that name out of the dictionary.
    fn add_seller(&mut self, seller: &str, category: CategoryId) {
        let add = |map: &mut Map<String, Option<CategoryId>>, name: String| match map.entry(name) {
            Entry::Vacant(free) => drop(free.insert(Some(category))),
            Entry::Occupied(mut held) if *held.get() != Some(category) => drop(held.insert(None)),
            Entry::Occupied(_) => {}
        };
        add(&mut self.printed, seller.to_string());
        let name = normalize(seller);
        if !name.is_empty() {
            add(&mut self.normalized, name);
        }
    }

    /// Adds a manual choice; of several for the same thing the latest wins, and of equally late
    /// ones the first category in order of codes.
    fn add_choice(&mut self, choice: Choice) {
        let choice = Choice { seller: seller_name(&choice.seller), ..choice };
        let of_user = self.choices.entry(choice.user_id).or_default();
        let same = |c: &&mut Choice| c.seller == choice.seller && c.transaction == choice.transaction;
        match of_user.iter_mut().find(same) {
            Some(held) => {
                let rank = |c: &Choice| (c.set_at_micros, std::cmp::Reverse(c.category));
                if rank(&choice) > rank(held) {
                    *held = choice;
                }
            }
            None => of_user.push(choice),
        }
    }

    pub fn seller_count(&self) -> usize {
        self.printed.len()
    }

    /// The dictionary's word on a raw seller, without anybody's choices.
    fn look_up(&self, seller: &str, name: &str) -> (CategoryId, CategorySource) {
        let found = self.printed.get(seller).copied().flatten();
        let found = found.or_else(|| self.normalized.get(name).copied().flatten());
        match found {
            Some(category) => (category, CategorySource::Dictionary),
            None => (self.uncategorized, CategorySource::None),
        }
    }
}

/// The choice for this transaction, or else the one for its seller.
fn choice(of_user: &[Choice], transaction: &Transaction, name: &str) -> Option<CategoryId> {
    let this = Some((transaction.occurred_at_micros, transaction.amount_cents));
    let of_seller = || of_user.iter().filter(|c| c.seller == name);
    let found = of_seller().find(|c| c.transaction == this);
    found.or_else(|| of_seller().find(|c| c.transaction.is_none())).map(|c| c.category)
}

/// The name by which choices find their seller: normalised, or as printed where nothing is left.
fn seller_name(seller: &str) -> String {
    let name = normalize(seller);
    if name.is_empty() { seller.to_string() } else { name }
}

#[derive(Clone, Copy)]
struct Remembered {
    category: CategoryId,
    source: CategorySource,
    /// Index of the seller's name.
    name: u32,
}

/// A worker's view of the categorizer: the clever path runs once per distinct raw seller, its
/// answer is remembered up to a bound.
pub struct Memo<'a> {
    categorizer: &'a Categorizer,
    /// Most sellers are short: with their text inside the entry a look-up misses the cache once.
    remembered: Map<CompactString, Remembered>,
    /// Looked at only for users who have made choices.
    names: Vec<String>,
}

impl<'a> Memo<'a> {
    pub fn new(categorizer: &'a Categorizer) -> Memo<'a> {
        Memo { categorizer, remembered: Map::default(), names: Vec::new() }
    }

    #[inline]
    pub fn categorize(&mut self, transaction: &Transaction) -> (CategoryId, CategorySource) {
        let of_user = self.categorizer.choices.get(&transaction.user_id);
        if let Some(known) = self.remembered.get(transaction.seller) {
            return decide(of_user, transaction, *known, &self.names[known.name as usize]);
        }
        let name = seller_name(transaction.seller);
        let (category, source) = self.categorizer.look_up(transaction.seller, &name);
        let found = Remembered { category, source, name: self.names.len() as u32 };
        let decision = decide(of_user, transaction, found, &name);
        if self.names.len() < SELLERS_REMEMBERED_MAX {
            self.remembered.insert(transaction.seller.into(), found);
            self.names.push(name);
        }
        decision
    }
}

#[inline]
fn decide(
    of_user: Option<&Vec<Choice>>,
    transaction: &Transaction,
    known: Remembered,
    name: &str,
) -> (CategoryId, CategorySource) {
    let chosen = of_user.and_then(|choices| choice(choices, transaction, name));
    match chosen {
        Some(category) => (category, CategorySource::Override),
        None => (known.category, known.source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::category::Categories;

    fn transaction(user_id: u64, seller: &str, cents: i64) -> Transaction<'_> {
        let month = "2025-01".parse().unwrap();
        Transaction { user_id, occurred_at_micros: 7, month, seller, amount_cents: cents }
    }

    #[test]
    fn the_order_of_layers() {
        let categories = Categories::builtin();
        let id = |code| categories.id(code).unwrap();
        let mut rules = Categorizer::new(categories.uncategorized());
        rules.add_seller("Café Zoë", id("dining"));
        rules.add_seller("ARGOS", id("gas"));
        rules.add_seller("Argos", id("shopping"));
        let choice = |category, set_at_micros, transaction| Choice {
            user_id: 1,
            seller: "CAFE ZOE".into(),
            category: id(category),
            set_at_micros,
            transaction,
        };
        rules.add_choice(choice("health", 5, None));
        rules.add_choice(choice("travel", 4, None));
        rules.add_choice(choice("education", 1, Some((7, 250))));
        let mut memo = Memo::new(&rules);
        let mut decide = |user, seller, cents| {
            let (category, source) = memo.categorize(&transaction(user, seller, cents));
            (categories.code(category).to_string(), source.name())
        };
        assert_eq!(decide(2, "cafe  zoe", 100), ("dining".into(), "dictionary"));
        assert_eq!(decide(1, "cafe  zoe", 100), ("health".into(), "override"), "the latest choice");
        assert_eq!(decide(1, "cafe  zoe", 250), ("education".into(), "override"), "for one transaction");
        assert_eq!(decide(1, "ARGOS", 1), ("gas".into(), "dictionary"), "as printed");
        assert_eq!(decide(1, "argos", 1), ("uncategorized".into(), "none"), "two that disagree");
        assert_eq!(decide(1, "nobody", 1), ("uncategorized".into(), "none"));
    }
}
