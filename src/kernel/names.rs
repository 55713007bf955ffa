//! Names of sellers, and the longest name at the start of a descriptor.
//!
//! In: entries in the scope of a job, compiled once; then the words of a descriptor. Out: the
//! matching entry.
//! Invariant: spaces between words are ignored (`wh smith` is `whsmith`), but only whole words
//! match; conflicting entries of one name and rank decide nothing; a weak name matches only a
//! seller whose whole name it is.

use super::descriptor::Descriptor;
use super::fold::fold;
use crate::domain::category::CategoryId;
use crate::domain::seller::{Country, Rank, SellerEntry};
use ahash::RandomState;
use rayon::prelude::*;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

/// One name in scope.
#[derive(Debug)]
pub struct Name {
    /// As the table spells it.
    pub text: String,
    /// `None` if two entries disagree.
    pub category: Option<CategoryId>,
    weak: bool,
    /// The address of a web site with a one-word label (`booking.com`): matches only web addresses.
    site: bool,
    words: usize,
    rank: Rank,
}

/// A matching name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub index: u32,
    pub category: CategoryId,
    pub fit: Fit,
    /// The number of words of the descriptor covered by the name.
    pub words: usize,
}

/// How a name matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The name is the whole descriptor, except for a place or number behind it.
    Whole,
    /// The descriptor starts with the name.
    Begins,
    /// The descriptor, cut off by the bank, is the beginning of the name.
    Cut,
    /// The descriptor is the name without its last word.
    Short,
}

#[derive(Debug, Default)]
pub struct Names {
    names: Vec<Name>,
    by_key: HashMap<Box<str>, u32, RandomState>,
    /// Keys sorted, to find all that start with a text.
    sorted: Vec<(Box<str>, u32)>,
    key_bytes_max: usize,
}

/// A shorter text is the beginning of too many names.
const LONGER_BYTES_MIN: usize = 9;

impl Names {
    /// Compiles the names that apply in the countries of a job. `is_weak` is called with the words
    /// of a name.
    pub fn new(
        entries: &[SellerEntry],
        countries: &[Country],
        is_weak: impl Fn(&[&str]) -> bool + Sync,
    ) -> Names {
        let understand = |folded: &mut String, entry: &SellerEntry| {
            let rank = entry.rank(countries)?;
            fold(&entry.name, folded);
            let Descriptor { words, web, .. } = Descriptor::of_name(folded);
            let (text, category) = (entry.name.clone(), Some(entry.category));
            let (weak, site) = (is_weak(&words), web && words.len() == 1);
            let name = Name { text, category, weak, site, words: words.len(), rank };
            (!words.is_empty()).then(|| (words.concat(), name))
        };
        let understood = entries.par_iter().map_init(String::new, understand);
        let understood: Vec<Option<(String, Name)>> = understood.collect();
        let mut names = Names::default();
        understood.into_iter().flatten().for_each(|(key, name)| names.add(key, name));
        names.sorted = names.by_key.iter().map(|(key, index)| (key.clone(), *index)).collect();
        names.sorted.par_sort_unstable();
        names.key_bytes_max = names.sorted.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        names
    }

    /// Among entries of one name the best rank wins: the earlier table, then the narrower scope.
    /// Entries of the same rank must agree.
    fn add(&mut self, key: String, name: Name) {
        let next = self.names.len() as u32;
        match self.by_key.entry(key.into()) {
            Slot::Vacant(free) => {
                free.insert(next);
                self.names.push(name);
            }
            Slot::Occupied(held) => {
                let held = &mut self.names[*held.get() as usize];
                if name.rank < held.rank {
                    *held = name;
                } else if name.rank == held.rank {
                    held.category = held.category.filter(|held| name.category == Some(*held));
                    held.site &= name.site;
                }
            }
        }
    }

    pub fn count(&self) -> usize {
        self.names.len()
    }

    pub fn name(&self, index: u32) -> &Name {
        &self.names[index as usize]
    }

    /// The longest name that matches; `None` if its entries disagree. `text` is the words joined
    /// without spaces; the first `name_words` words are the descriptor's name.
    pub fn find(&self, seller: &Descriptor, text: &str, name_words: usize) -> Option<Found> {
        if self.names.is_empty() {
            return None;
        }
        let mut end = text.len();
        for (before, word) in seller.words.iter().enumerate().rev() {
            if end <= self.key_bytes_max
                && let Some(&index) = self.by_key.get(&text[..end])
            {
                let found = self.name(index);
                let words = before + 1;
                let fit = if words >= name_words { Fit::Whole } else { Fit::Begins };
                let is_meant = if found.site { seller.web } else { fit == Fit::Whole || !found.weak };
                if is_meant {
                    return found.category.map(|category| Found { index, category, fit, words });
                }
            }
            end -= word.len();
        }
        None
    }

    /// The name whose beginning is the descriptor, cut off by the bank. Weaker evidence than
    /// [`Names::find`]. `text` is the words joined without spaces.
    pub fn find_cut(&self, seller: &Descriptor, text: &str) -> Option<Found> {
        let longer = if seller.cut { self.longer(text, |_| true) } else { None };
        let (index, category) = longer?;
        Some(Found { index, category, fit: Fit::Cut, words: seller.words.len() })
    }

    /// The name that has one more word than `name`.
    pub fn find_shortened(&self, seller: &Descriptor, name: &[&str]) -> Option<Found> {
        let (index, category) = self.longer_by_a_word(name)?;
        Some(Found { index, category, fit: Fit::Short, words: seller.words.len() })
    }

    /// The name that has one more word than a name of at least two words.
    fn longer_by_a_word(&self, name: &[&str]) -> Option<(u32, CategoryId)> {
        let by_a_word = |index: u32| self.name(index).words == name.len() + 1;
        if name.len() > 1 { self.longer(&name.concat(), by_a_word) } else { None }
    }

    /// The name that starts with a text, if all names that start with it fit and agree.
    fn longer(&self, text: &str, fits: impl Fn(u32) -> bool) -> Option<(u32, CategoryId)> {
        if text.len() < LONGER_BYTES_MIN {
            return None;
        }
        let from = self.sorted.partition_point(|(key, _)| &**key < text);
        let mut begin_so = self.sorted[from..].iter().take_while(|(key, _)| key.starts_with(text));
        let category = self.name(begin_so.clone().next()?.1).category?;
        let agreed = begin_so.all(|(_, index)| fits(*index) && self.name(*index).category == Some(category));
        agreed.then(|| (self.sorted[from].1, category))
    }
}
