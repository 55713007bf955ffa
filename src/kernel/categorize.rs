//! Decides the category of a transaction, and records the layer and the entry that decided.
//!
//! In: the layers of a job, compiled once; then one transaction at a time. Out: a decision.
//! Order of precedence: the user's choice for this transaction, the user's choice for this seller,
//! rules, aliases, the seller dictionary, the crowd, keywords, none.
//! Invariant: an automatic layer never overrides a manual choice; a decision depends only on the
//! transaction and the layers, not on earlier lookups.

use super::choices::{Choices, ChosenName, seller_name};
use super::descriptor::{Descriptor, normalize_name};
use super::fold::fold;
use super::keywords::Keywords;
use super::names::{Fit, Found, Names};
use super::rules::{RuleId, Rules};
use crate::domain::category::{Categories, CategoryId, CategorySource, Choice};
use crate::domain::transaction::Transaction;
use crate::error::{Error, Kind, Result};
use crate::input::layers::Layers;
use crate::input::reference::Reference;
use ahash::RandomState;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

/// A category, and the layer and entry that decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub category: CategoryId,
    pub source: CategorySource,
    /// Index of the entry within its layer; see [`Categorizer::matched`].
    entry: u32,
}

/// The result of looking up a seller, independent of user and amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seller {
    pub choices: Option<ChosenName>,
    /// Rules that match the name but apply only to some amounts, in order.
    pub rules: Vec<RuleId>,
    /// The decision if neither a choice nor one of those rules applies.
    pub decision: Decision,
}

/// One layer's answer for a seller, for `explain`.
#[derive(Debug)]
pub struct Candidate {
    pub source: CategorySource,
    pub category: CategoryId,
    pub entry: String,
    pub how: &'static str,
    /// True if it applies only to some amounts.
    pub conditional: bool,
}

/// The compiled layers of a job.
#[derive(Debug)]
pub struct Categorizer {
    uncategorized: CategoryId,
    /// The category of petrol stations, if the job's categories include it.
    fuel: Option<CategoryId>,
    choices: Choices,
    rules: Rules,
    aliases: Names,
    dictionary: Names,
    crowd: Vec<(Box<str>, CategoryId)>,
    /// `None` if two entries disagree.
    crowd_by_name: HashMap<Box<str>, Option<u32>, RandomState>,
    keywords: Keywords,
}

/// Dictionary names of at most this many bytes are weak: too many unrelated descriptors start with
/// them.
const WEAK_BYTES_MAX: usize = 3;

const FUEL: &str = "gas";

impl Categorizer {
    /// Compiles the layers of a job's reference tables. Errors: the rules are too many or too
    /// large.
    pub fn of(reference: &Reference) -> Result<Categorizer> {
        Categorizer::new(&reference.categories, &reference.layers, &reference.choices)
    }

    pub fn new(categories: &Categories, layers: &Layers, choices: &[Choice]) -> Result<Categorizer> {
        let generic: HashSet<&str, RandomState> = layers.generic_words.iter().map(String::as_str).collect();
        let is_weak = |words: &[&str]| {
            let bytes: usize = words.iter().map(|word| word.len()).sum();
            bytes <= WEAK_BYTES_MAX || matches!(words, [word] if generic.contains(word))
        };
        let rules = Rules::new(layers.rules.clone());
        let rules = rules.map_err(|what| Error::new(Kind::InputRefused, what).at("input.rules"))?;
        let crowd: Vec<(Box<str>, CategoryId)> =
            layers.crowd.iter().map(|entry| (seller_name(&entry.name).into(), entry.category)).collect();
        Ok(Categorizer {
            uncategorized: categories.uncategorized(),
            fuel: categories.id(FUEL),
            choices: Choices::new(choices),
            rules,
            aliases: Names::new(&layers.aliases, &layers.countries, |_| false),
            dictionary: Names::new(&layers.sellers, &layers.countries, is_weak),
            crowd_by_name: by_name(&crowd),
            crowd,
            keywords: Keywords::new(&layers.keywords, &layers.countries),
        })
    }

    /// The number of names of each layer in the scope of the job.
    pub fn counts(&self) -> [(CategorySource, usize); 5] {
        [
            (CategorySource::Rule, self.rules.count()),
            (CategorySource::Alias, self.aliases.count()),
            (CategorySource::Dictionary, self.dictionary.count()),
            (CategorySource::Crowd, self.crowd.len()),
            (CategorySource::Keyword, self.keywords.count()),
        ]
    }

    /// Looks up a raw seller in all layers. `folded` is scratch memory.
    pub fn look_up(&self, seller: &str, folded: &mut String) -> Seller {
        fold(seller, folded);
        self.look_up_folded(seller, folded)
    }

    /// As [`Categorizer::look_up`], for a seller that is already folded. The raw seller is used
    /// only if its name normalises to nothing.
    pub fn look_up_folded(&self, seller: &str, folded: &str) -> Seller {
        let descriptor = Descriptor::understand(folded);
        let name = descriptor.clone().name();
        let by_name = self.by_name(&descriptor, &name).next().map(|(found, source)| {
            let Found { index: entry, category, .. } = found;
            self.department(&descriptor, &found).unwrap_or(Decision { category, source, entry })
        });
        let keyword = if by_name.is_none() { self.by_keyword(&descriptor) } else { None };
        // Normalising is expensive, and only choices, rules and the crowd need the name.
        let is_wanted = !self.choices.is_empty() || self.rules.count() > 0 || !self.crowd.is_empty();
        let name = if is_wanted { normalize_name(&name) } else { String::new() };
        let name = if name.is_empty() { seller } else { &name };
        let decision = by_name.or_else(|| self.by_crowd(name)).or(keyword);
        let none = Decision { category: self.uncategorized, source: CategorySource::None, entry: 0 };
        let mut seller = Seller {
            choices: self.choices.find(name),
            rules: self.rules.of_name(name),
            decision: decision.unwrap_or(none),
        };
        if let Some(rule) = seller.rules.pop_if(|rule| self.rules.is_unconditional(*rule)) {
            seller.decision = self.rule(rule);
        }
        seller
    }

    fn rule(&self, rule: RuleId) -> Decision {
        let category = self.rules.entry(rule).category;
        Decision { category, source: CategorySource::Rule, entry: rule.into() }
    }

    /// Matches of aliases and of the dictionary, best first. An alias is as short as its author
    /// wanted it, so only dictionary names also match a descriptor that lacks their last word.
    fn by_name(
        &self,
        descriptor: &Descriptor,
        name: &[&str],
    ) -> impl Iterator<Item = (Found, CategorySource)> + use<> {
        let text = descriptor.words.concat();
        let alias = |found| (found, CategorySource::Alias);
        let listed = |found| (found, CategorySource::Dictionary);
        let by_alias = self.aliases.find(descriptor, &text, name.len()).map(alias);
        let by_listed = self.dictionary.find(descriptor, &text, name.len()).map(listed);
        let guessed = || {
            // A cut text may be the beginning of a name in both: if they disagree, neither matches.
            let cut = [
                self.aliases.find_cut(descriptor, &text).map(alias),
                self.dictionary.find_cut(descriptor, &text).map(listed),
            ];
            match cut {
                [Some(alias), Some(listed)] if alias.0.category != listed.0.category => None,
                [alias, listed] => alias.or(listed),
            }
            .or_else(|| self.dictionary.find_shortened(descriptor, name).map(listed))
        };
        let guess = if by_alias.is_none() && by_listed.is_none() { guessed() } else { None };
        by_alias.into_iter().chain(by_listed).chain(guess)
    }

    /// The decision of a department keyword behind the name: a supermarket's petrol is fuel, but
    /// the café of a petrol station is part of the fuel stop.
    fn department(&self, descriptor: &Descriptor, found: &Found) -> Option<Decision> {
        if found.words == descriptor.words.len() || Some(found.category) == self.fuel {
            return None;
        }
        let (entry, category) = self.keywords.find_department(descriptor, found.words)?;
        Some(Decision { category, source: CategorySource::Keyword, entry })
    }

    fn by_keyword(&self, descriptor: &Descriptor) -> Option<Decision> {
        let (entry, category) = self.keywords.find(descriptor)?;
        Some(Decision { category, source: CategorySource::Keyword, entry })
    }

    fn by_crowd(&self, name: &str) -> Option<Decision> {
        let entry = (*self.crowd_by_name.get(name)?)?;
        let category = self.crowd[entry as usize].1;
        Some(Decision { category, source: CategorySource::Crowd, entry })
    }

    /// Decides for a transaction whose seller is looked up.
    #[inline]
    pub fn decide(
        &self,
        transaction: &Transaction,
        choices: Option<ChosenName>,
        rules: &[RuleId],
        otherwise: Decision,
    ) -> Decision {
        let chosen = choices.and_then(|name| Some((self.choices.decide(transaction, name)?, name)));
        if let Some((category, name)) = chosen {
            return Decision { category, source: CategorySource::Override, entry: name.get() };
        }
        match self.rules.decide(rules, transaction.amount_cents) {
            Some(rule) => self.rule(rule),
            None => otherwise,
        }
    }

    /// The entry that decided: the name, pattern or keyword as its table spells it.
    pub fn matched(&self, decision: &Decision) -> Option<&str> {
        match decision.source {
            CategorySource::Override => NonZeroU32::new(decision.entry).map(|name| self.choices.name(name)),
            CategorySource::Rule => Some(&self.rules.entry(decision.entry as RuleId).pattern),
            CategorySource::Alias => Some(&self.aliases.name(decision.entry).text),
            CategorySource::Dictionary => Some(&self.dictionary.name(decision.entry).text),
            CategorySource::Crowd => Some(&self.crowd[decision.entry as usize].0),
            CategorySource::Keyword => Some(&self.keywords.keyword(decision.entry).text),
            CategorySource::None => None,
        }
    }

    /// The answers of all layers for a seller, in order of precedence. The first unconditional one
    /// decides, except for amounts matched by a conditional one before it.
    pub fn candidates(&self, seller: &str) -> Vec<Candidate> {
        let mut folded = String::new();
        fold(seller, &mut folded);
        let descriptor = Descriptor::understand(&folded);
        let name = seller_name(seller);
        let rules = self.rules.of_name(&name);
        let mut candidates: Vec<Candidate> = rules.iter().map(|rule| self.rule_candidate(*rule)).collect();
        let first_name = descriptor.clone().name();
        let by_name: Vec<_> = self.by_name(&descriptor, &first_name).collect();
        let department = by_name.first().and_then(|(found, _)| self.department(&descriptor, found));
        candidates.extend(department.map(|d| self.candidate(d, "a department behind the name")));
        candidates.extend(by_name.iter().map(|(found, source)| {
            let decision = Decision { category: found.category, source: *source, entry: found.index };
            self.candidate(decision, how(found.fit))
        }));
        let by_crowd = self.by_crowd(&name);
        candidates.extend(by_crowd.map(|d| self.candidate(d, "users chose so for this name")));
        let by_keyword = self.by_keyword(&descriptor).filter(|_| department.is_none());
        candidates.extend(by_keyword.map(|d| self.candidate(d, "the word tells the trade")));
        candidates
    }

    fn candidate(&self, decision: Decision, how: &'static str) -> Candidate {
        let entry = self.matched(&decision).unwrap_or_default().to_string();
        Candidate { source: decision.source, category: decision.category, entry, how, conditional: false }
    }

    fn rule_candidate(&self, rule: RuleId) -> Candidate {
        let conditional = !self.rules.is_unconditional(rule);
        let how = if conditional { "for the amounts it asks for" } else { "its pattern fits" };
        Candidate { conditional, ..self.candidate(self.rule(rule), how) }
    }
}

fn by_name(crowd: &[(Box<str>, CategoryId)]) -> HashMap<Box<str>, Option<u32>, RandomState> {
    let mut by_name = HashMap::default();
    for ((name, category), index) in crowd.iter().zip(0u32..) {
        let held = by_name.entry(name.clone()).or_insert(Some(index));
        *held = held.filter(|held| crowd[*held as usize].1 == *category);
    }
    by_name
}

fn how(fit: Fit) -> &'static str {
    match fit {
        Fit::Whole => "the seller is called so",
        Fit::Begins => "the descriptor begins so",
        Fit::Cut => "the descriptor is the beginning of it, cut off",
        Fit::Short => "the seller is called so but for the last word",
    }
}
