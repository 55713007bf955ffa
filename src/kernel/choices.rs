//! Users' own choices, which no automatic layer overrides.
//!
//! In: choices in any order. Out: the category that a user chose for a transaction or a seller.
//! Invariant: among several choices for the same target the latest wins; among equally late ones
//! the first category in code order.

use super::descriptor::normalize;
use crate::domain::category::{CategoryId, Choice};
use crate::domain::transaction::Transaction;
use crate::planted::Bug;
use ahash::RandomState;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::num::NonZeroU32;

type Map<K, V> = HashMap<K, V, RandomState>;

/// Index of a seller with at least one choice, from 1, so that `Option` needs no extra space.
pub type ChosenName = NonZeroU32;

#[derive(Debug, Default)]
pub struct Choices {
    names: Vec<Box<str>>,
    by_name: Map<Box<str>, ChosenName>,
    /// By user, sorted by target.
    by_user: Map<u64, Vec<Chosen>>,
    users: UserFilter,
}

/// A Bloom filter with one hash: rules out most users without choices, without a lookup in the
/// large map.
#[derive(Debug)]
struct UserFilter {
    /// The length is a power of two.
    bits: Vec<u64>,
}

impl Default for UserFilter {
    fn default() -> UserFilter {
        UserFilter::new(std::iter::empty())
    }
}

impl UserFilter {
    /// Sixteen bits per user: at most one in sixteen users without a choice passes the filter and
    /// costs a lookup.
    fn new(users: impl ExactSizeIterator<Item = u64>) -> UserFilter {
        let words = (users.len() * 16).div_ceil(64).next_power_of_two();
        let mut filter = UserFilter { bits: vec![0; words] };
        for user in users {
            let (word, bit) = filter.place(user);
            filter.bits[word] |= 1 << bit;
        }
        filter
    }

    #[inline]
    fn may_hold(&self, user_id: u64) -> bool {
        let (word, bit) = self.place(user_id);
        self.bits[word] >> bit & 1 == 1
    }

    /// Fibonacci hashing: the high bits of a product (Knuth, volume 3, 6.4).
    #[inline]
    fn place(&self, user_id: u64) -> (usize, u32) {
        let hash = user_id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash >> 38) as usize & (self.bits.len() - 1), (hash >> 32 & 63) as u32)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Chosen {
    name: ChosenName,
    /// The instant in microseconds and the cents of the one transaction meant; `None` for the
    /// seller.
    transaction: Option<(i64, i64)>,
    /// When it was set, and the category; the greatest wins.
    order: (i64, Reverse<CategoryId>),
}

impl Chosen {
    /// What the choice applies to.
    fn target(&self) -> (ChosenName, Option<(i64, i64)>) {
        (self.name, self.transaction)
    }
}

/// The name under which choices and votes file a seller: its normalised name, or the printed text
/// if nothing is left of it.
pub fn seller_name(seller: &str) -> String {
    let name = normalize(seller);
    if name.is_empty() { seller.to_string() } else { name }
}

impl Choices {
    pub fn new(choices: &[Choice]) -> Choices {
        let mut compiled = Choices::default();
        let mut all: Vec<(u64, Chosen)> = Vec::with_capacity(choices.len());
        for choice in choices {
            let Choice { user_id, category, set_at_micros, transaction, .. } = *choice;
            let (name, order) = (compiled.intern(&choice.seller), (set_at_micros, Reverse(category)));
            all.push((user_id, Chosen { name, transaction, order }));
        }
        all.sort_unstable();
        // The last one of each target wins.
        let same = |a: &(u64, Chosen), b: &(u64, Chosen)| (a.0, a.1.target()) == (b.0, b.1.target());
        for (user_id, chosen) in all.chunk_by(same).filter_map(|of_target| of_target.last()) {
            compiled.by_user.entry(*user_id).or_default().push(*chosen);
        }
        compiled.users = UserFilter::new(compiled.by_user.keys().copied());
        compiled
    }

    fn intern(&mut self, seller: &str) -> ChosenName {
        let next = NonZeroU32::MIN.saturating_add(self.names.len() as u32);
        let text: Box<str> = seller_name(seller).into();
        let name = *self.by_name.entry(text.clone()).or_insert(next);
        if name == next {
            self.names.push(text);
        }
        name
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn name(&self, name: ChosenName) -> &str {
        &self.names[name.get() as usize - 1]
    }

    /// The index of a name that has choices.
    pub fn find(&self, name: &str) -> Option<ChosenName> {
        self.by_name.get(name).copied()
    }

    /// The choice for this transaction, or else the one for its seller.
    #[inline]
    pub fn decide(&self, transaction: &Transaction, name: ChosenName) -> Option<CategoryId> {
        if Bug::ChoiceOfAnother.is_planted() {
            let mut all = self.by_user.values().flatten();
            return all.find(|chosen| chosen.name == name).map(|chosen| chosen.order.1.0);
        }
        if !self.users.may_hold(transaction.user_id) {
            return None;
        }
        let of_user = self.by_user.get(&transaction.user_id)?;
        let this = Some((transaction.occurred_at_micros, transaction.amount_cents));
        [this, None].into_iter().find_map(|meant| {
            let found = of_user.binary_search_by_key(&(name, meant), Chosen::target).ok()?;
            Some(of_user[found].order.1.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_choice_wins_and_one_for_the_transaction_takes_precedence() {
        let choice = |user_id, seller: &str, category, set_at_micros, transaction| Choice {
            user_id,
            seller: seller.into(),
            category: CategoryId(category),
            set_at_micros,
            transaction,
        };
        let choices = [
            choice(1, "CAFE ZOE #0012", 4, 5, None),
            choice(1, "Café Zoë", 5, 4, None),
            choice(1, "cafe zoe", 6, 1, Some((7, 250))),
            choice(2, "cafe zoe", 8, 3, None),
            choice(2, "cafe zoe", 7, 3, None),
        ];
        let reversed: Vec<Choice> = choices.iter().rev().cloned().collect();
        for choices in [Choices::new(&choices), Choices::new(&reversed)] {
            let name = choices.find("cafe zoe").unwrap();
            let decide = |user_id, amount_cents| {
                let month = "2025-01".parse().unwrap();
                let seller = "cafe zoe";
                let row = Transaction { user_id, occurred_at_micros: 7, month, seller, amount_cents };
                choices.decide(&row, name).map(|category| category.0)
            };
            assert_eq!((decide(1, 100), decide(1, 250)), (Some(4), Some(6)));
            assert_eq!(decide(2, 100), Some(7), "among equally late ones the first code wins");
            assert_eq!((decide(3, 100), choices.find("nobody")), (None, None));
        }
        assert_eq!(Choices::new(&[]).find("x"), None);
    }
}
