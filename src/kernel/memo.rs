//! Caches of seller lookups, one per worker and one shared by all, so that each distinct seller is
//! looked up once.
//!
//! In: transactions. Out: decisions, and the number of cache hits.
//! Invariant: memory is bounded for any input; a cached decision equals a fresh one.

use super::categorize::{Categorizer, Decision, Seller};
use super::choices::ChosenName;
use super::fold::{REFERENCE_DIGITS_MIN, fold};
use super::rules::RuleId;
use super::short_text::ShortText;
use super::slots::SellerTable;
use crate::domain::transaction::Transaction;
use crate::limits::SELLERS_REMEMBERED_MAX;
use ahash::RandomState;
use compact_str::CompactString;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Upper bound of distinct sets of rules that match some seller; a job has a handful.
const RULE_SETS_MAX: usize = 65_536;

#[derive(Clone, Copy)]
struct CachedSeller {
    decision: Decision,
    choices: Option<ChosenName>,
    /// Index into the rule sets; 0 is the empty set.
    rules: u32,
}

/// A seller's text as cache key, with its hash.
#[derive(Clone, Copy)]
pub struct SellerKey {
    text: ShortText,
    hash: u64,
}

/// Rows by the cache that answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoCounts {
    /// Found by the printed text without reference numbers.
    pub by_text: u64,
    /// Found by the folded text, which also ignores case and punctuation.
    pub by_folded_text: u64,
    pub looked_up: u64,
}

impl MemoCounts {
    pub fn plus(self, other: MemoCounts) -> MemoCounts {
        MemoCounts {
            by_text: self.by_text + other.by_text,
            by_folded_text: self.by_folded_text + other.by_folded_text,
            looked_up: self.looked_up + other.looked_up,
        }
    }
}

/// The cache shared by all workers.
pub struct Known<'a> {
    categorizer: &'a Categorizer,
    /// By folded text; the hash selects the shard.
    shards: Vec<Mutex<TwoGenerationCache<Seller>>>,
    hasher: RandomState,
}

/// Enough that two workers rarely want the same shard.
const SHARDS: usize = 64;

impl<'a> Known<'a> {
    pub fn new(categorizer: &'a Categorizer) -> Known<'a> {
        Known::of_size(categorizer, SELLERS_REMEMBERED_MAX)
    }

    fn of_size(categorizer: &'a Categorizer, most: usize) -> Known<'a> {
        let shard = |_| Mutex::new(TwoGenerationCache::new(most / SHARDS));
        Known { categorizer, shards: (0..SHARDS).map(shard).collect(), hasher: RandomState::new() }
    }

    fn shard(&self, folded: &str) -> MutexGuard<'_, TwoGenerationCache<Seller>> {
        let shard = self.hasher.hash_one(folded) as usize % SHARDS;
        self.shards[shard].lock().expect("no thread panics while it holds this")
    }

    fn get(&self, folded: &str) -> Option<Seller> {
        self.shard(folded).get(folded)
    }

    /// Two workers may look up the same seller at once; both get the same result.
    fn look_up(&self, seller: &str, folded: &str) -> Seller {
        let found = self.categorizer.look_up_folded(seller, folded);
        self.shard(folded).insert(folded.into(), found.clone());
        found
    }
}

pub struct Memo<'a> {
    known: &'a Known<'a>,
    /// By printed text without reference numbers, if short: most rows.
    by_text: SellerTable<CachedSeller>,
    /// By printed text, if long.
    by_long_text: TwoGenerationCache<CachedSeller>,
    rule_sets: Vec<Box<[RuleId]>>,
    rule_set_ids: Map<Box<[RuleId]>, u32>,
    folded: String,
    pub counts: MemoCounts,
}

impl<'a> Memo<'a> {
    pub fn new(known: &'a Known<'a>) -> Memo<'a> {
        Memo::of_size(known, SELLERS_REMEMBERED_MAX)
    }

    fn of_size(known: &'a Known<'a>, most: usize) -> Memo<'a> {
        let mut memo = Memo {
            known,
            by_text: SellerTable::new(most.next_power_of_two()),
            by_long_text: TwoGenerationCache::new(most),
            rule_sets: Vec::new(),
            rule_set_ids: Map::default(),
            folded: String::new(),
            counts: MemoCounts::default(),
        };
        memo.rule_set(Vec::new());
        memo
    }

    pub fn categorize(&mut self, transaction: &Transaction) -> Decision {
        self.categorize_by_key(transaction, &self.seller_key(ShortText::of(transaction.seller)))
    }

    /// The cache key of a seller. Starts a prefetch of its slot: best called some rows before the
    /// lookup.
    #[inline]
    pub fn seller_key(&self, seller: ShortText) -> SellerKey {
        SellerKey { hash: self.by_text.hash(&seller), text: seller }
    }

    /// Starts a prefetch of the seller's entry, once its slot is in the cache.
    #[inline]
    pub fn prefetch_entry(&self, seller: &SellerKey) {
        self.by_text.prefetch_entry(seller.hash);
    }

    /// Categorizes a transaction by the cache key of its seller.
    #[inline]
    pub fn categorize_by_key(&mut self, transaction: &Transaction, key: &SellerKey) -> Decision {
        if let Some(known) = self.by_text.get(&key.text, key.hash) {
            self.counts.by_text += 1;
            return self.decide(transaction, known);
        }
        let known = self.find(transaction.seller, &key.text);
        self.decide(transaction, &known)
    }

    /// Finds a seller that is not in the table of short texts.
    fn find(&mut self, seller: &str, text: &ShortText) -> CachedSeller {
        let long = match !text.is_whole() && !may_refer(seller) {
            true => self.by_long_text.get(seller),
            false => None,
        };
        match long {
            Some(known) => {
                self.counts.by_text += 1;
                known
            }
            None => self.look_up(seller, text),
        }
    }

    #[inline]
    fn decide(&self, transaction: &Transaction, known: &CachedSeller) -> Decision {
        let rules = match known.rules {
            0 => &[],
            set => &*self.rule_sets[set as usize],
        };
        self.known.categorizer.decide(transaction, known.choices, rules, known.decision)
    }

    /// A text that still contains a reference number may never recur, but its folded form does. If
    /// folding leaves nothing, the text itself is the seller.
    fn look_up(&mut self, seller: &str, text: &ShortText) -> CachedSeller {
        let mut folded = std::mem::take(&mut self.folded);
        fold(seller, &mut folded);
        let found = match self.known.get(&folded) {
            Some(found) if !folded.is_empty() => {
                self.counts.by_folded_text += 1;
                found
            }
            _ => {
                self.counts.looked_up += 1;
                self.known.look_up(seller, &folded)
            }
        };
        let rules = self.rule_set(found.rules);
        let known = CachedSeller { decision: found.decision, choices: found.choices, rules };
        match text.is_whole() {
            true if text.may_recur() && !folded.is_empty() => self.by_text.insert(text, known),
            false if !may_refer(seller) => self.by_long_text.insert(seller.into(), known),
            _ => {}
        }
        self.folded = folded;
        known
    }

    fn rule_set(&mut self, rules: Vec<RuleId>) -> u32 {
        // The usual case needs no lookup.
        if rules.is_empty() && !self.rule_sets.is_empty() {
            return 0;
        }
        if self.rule_sets.len() > RULE_SETS_MAX {
            // Cached sellers refer to sets by index, so all caches are cleared together.
            *self = Memo { counts: self.counts, ..Memo::of_size(self.known, 2 * self.by_long_text.half) };
        }
        let next = self.rule_sets.len() as u32;
        let id = *self.rule_set_ids.entry(rules.as_slice().into()).or_insert(next);
        if id == next {
            self.rule_sets.push(rules.into());
        }
        id
    }
}

/// True if a text has enough digits for a reference.
fn may_refer(seller: &str) -> bool {
    seller.bytes().filter(u8::is_ascii_digit).count() >= REFERENCE_DIGITS_MIN
}

/// A cache of two generations: holds about `2 * half` texts, and evicts the older generation as a
/// whole.
struct TwoGenerationCache<V> {
    young: Map<CompactString, V>,
    /// Entries move to the young generation when used; the rest are dropped when that is full.
    old: Map<CompactString, V>,
    half: usize,
}

impl<V: Clone> TwoGenerationCache<V> {
    fn new(most: usize) -> TwoGenerationCache<V> {
        TwoGenerationCache { young: Map::default(), old: Map::default(), half: most / 2 }
    }

    #[inline]
    fn get(&mut self, text: &str) -> Option<V> {
        match self.young.get(text) {
            Some(known) => Some(known.clone()),
            None if self.old.is_empty() => None,
            None => {
                let (text, known) = self.old.remove_entry(text)?;
                self.insert(text, known.clone());
                Some(known)
            }
        }
    }

    fn insert(&mut self, text: CompactString, known: V) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(text, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::category::{Categories, Choice};
    use crate::domain::seller::{RuleEntry, SellerEntry};
    use crate::input::layers::Layers;
    use proptest::prelude::*;

    fn categorizer() -> Categorizer {
        let categories = Categories::builtin();
        let id = |code| categories.id(code).unwrap();
        let name = |name: &str, code| SellerEntry {
            name: name.into(),
            category: id(code),
            countries: vec![],
            table: 0,
        };
        let rule = |pattern: &str, code, cents| RuleEntry {
            pattern: pattern.to_string(),
            category: id(code),
            cents,
        };
        let layers = Layers {
            sellers: vec![
                name("Acme", "shopping"),
                name("Acme Fuel", "gas"),
                name("Blue Bottle Coffee", "dining"),
            ],
            rules: vec![rule("^acme$", "travel", (500, i64::MAX)), rule("fuel", "auto", (i64::MIN, -1))],
            ..Layers::default()
        };
        let seller = "ACME 0001".to_string();
        let choice =
            Choice { user_id: 3, seller, category: id("health"), set_at_micros: 1, transaction: None };
        Categorizer::new(&categories, &layers, &[choice]).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_cached_decision_equals_a_fresh_one(
            rows in prop::collection::vec((0..4u64, 0..9usize, 0..40u32, -900..900i64), 1..200),
            most in 2..12usize,
        ) {
            let categorizer = categorizer();
            let known = Known::of_size(&categorizer, SHARDS * most);
            let mut memo = Memo::of_size(&known, most);
            for (user_id, form, number, amount_cents) in rows {
                let seller = match form {
                    0 => format!("ACME {number:04}"),
                    1 => format!("SQ *acme #{number}"),
                    2 => format!("ACME FUEL {}", 7_000_000 + number),
                    3 => format!("Blue Bottle*{number}A9X8C7"),
                    4 => format!("{}", 90_000_000 + number),
                    5 => "*".repeat(number as usize + 1),
                    6 => format!("ACME FUEL SHOP {}", "X".repeat(number as usize)),
                    7 => format!("Café {number}"),
                    _ => format!("PAYPAL *ACME {number}"),
                };
                let month = "2025-01".parse().unwrap();
                let transaction =
                    Transaction { user_id, occurred_at_micros: 7, month, seller: &seller, amount_cents };
                let fresh = categorizer.look_up(&seller, &mut String::new());
                let expected = categorizer.decide(&transaction, fresh.choices, &fresh.rules, fresh.decision);
                prop_assert_eq!(memo.categorize(&transaction), expected, "{}", seller);
                prop_assert!(memo.by_text.texts() <= 2 * most);
                let shard = known.shards.iter().map(|shard| shard.lock().unwrap());
                prop_assert!(shard.map(|s| s.young.len() + s.old.len()).all(|texts| texts <= most + 1));
                prop_assert!(memo.by_long_text.young.len() + memo.by_long_text.old.len() <= most + 1);
            }
        }
    }

    #[test]
    fn reference_numbers_are_looked_up_once() {
        let categorizer = categorizer();
        let known = Known::new(&categorizer);
        let mut memo = Memo::new(&known);
        let month = "2025-01".parse().unwrap();
        let mut count = |seller: &dyn Fn(u64) -> String| {
            let before = memo.counts;
            for number in 0..1000 {
                memo.categorize(&Transaction {
                    user_id: number,
                    occurred_at_micros: 7,
                    month,
                    seller: &seller(number),
                    amount_cents: 1,
                });
            }
            let MemoCounts { by_text, by_folded_text, looked_up } = memo.counts;
            let before = [before.by_text, before.by_folded_text, before.looked_up];
            let after = [by_text, by_folded_text, looked_up];
            std::array::from_fn::<_, 3, _>(|k| after[k] - before[k])
        };
        assert_eq!(count(&|number| format!("ACME {}", 70_000_000 + number)), [999, 0, 1]);
        assert_eq!(count(&|number| format!("ACME US*2K{number:04}CD5")), [999, 0, 1]);
        assert_eq!(
            count(&|number| format!("ACME O'2K{number:04}CD5")),
            [0, 1000, 0],
            "not a plain code, but folds like one"
        );
        assert_eq!(
            count(&|number| format!("{}", 70_000_000 + number)),
            [0, 0, 1000],
            "each is its own seller"
        );
        assert_eq!(memo.by_text.texts(), 2, "texts that never recur are not cached");
    }
}
