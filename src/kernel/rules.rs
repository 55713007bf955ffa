//! A job's rules: patterns over the normalised name, optionally with a range of amounts.
//!
//! In: entries in order. Out: the first that matches a name and an amount in cents.
//! Invariant: the order of the table decides; matching a name takes at most O(length × size of all
//! patterns), since the `regex` crate never backtracks.

use crate::domain::seller::RuleEntry;
use crate::limits::{PATTERNS_BYTES_MAX, RULES_MAX};
use regex::{RegexSet, RegexSetBuilder};

#[derive(Debug, Default)]
pub struct Rules {
    entries: Vec<RuleEntry>,
    all: Option<RegexSet>,
}

/// Index of a rule.
pub type RuleId = u16;

impl Rules {
    /// Errors when there are too many rules, or too large ones.
    pub fn new(entries: Vec<RuleEntry>) -> Result<Rules, String> {
        if entries.len() > RULES_MAX {
            return Err(format!("{} rules; the most is {RULES_MAX}", entries.len()));
        }
        let patterns = entries.iter().map(|entry| &entry.pattern);
        let all = match entries.is_empty() {
            true => None,
            false => {
                let set = RegexSetBuilder::new(patterns).size_limit(PATTERNS_BYTES_MAX).build();
                Some(set.map_err(|_| "the patterns are too large together".to_string())?)
            }
        };
        Ok(Rules { entries, all })
    }

    pub fn count(&self) -> usize {
        self.entries.len()
    }

    pub fn entry(&self, rule: RuleId) -> &RuleEntry {
        &self.entries[usize::from(rule)]
    }

    /// Rules whose pattern matches a name, in order, up to the first unconditional one.
    pub fn of_name(&self, name: &str) -> Vec<RuleId> {
        let Some(all) = &self.all else { return Vec::new() };
        let mut fitting = Vec::new();
        for index in all.matches(name) {
            fitting.push(index as RuleId);
            if self.is_unconditional(index as RuleId) {
                break;
            }
        }
        fitting
    }

    /// True if a rule applies to any amount.
    pub fn is_unconditional(&self, rule: RuleId) -> bool {
        self.entry(rule).cents == (i64::MIN, i64::MAX)
    }

    /// The first of the rules that applies to an amount.
    #[inline]
    pub fn decide(&self, fitting: &[RuleId], cents: i64) -> Option<RuleId> {
        fitting.iter().copied().find(|rule| {
            let (least, most) = self.entry(*rule).cents;
            (least..=most).contains(&cents)
        })
    }
}
