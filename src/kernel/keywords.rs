//! Keywords that name a trade anywhere in a descriptor: the weakest evidence.
//!
//! In: entries in the scope of a job; then the words of a descriptor. Out: the matching entry.
//! Invariant: a keyword within a longer one is ignored (`pet food` is not food); the others must
//! all agree, otherwise nothing is decided (`garden centre café`).

use super::descriptor::Descriptor;
use super::fold::fold;
use crate::domain::category::CategoryId;
use crate::domain::seller::{Country, Department, KeywordEntry, Rank};
use crate::limits::KEYWORD_WORDS_MAX;
use ahash::RandomState;
use smallvec::{SmallVec, smallvec};
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};

/// A shorter truncated text matches the beginning of too many words.
const CUT_BYTES_MIN: usize = 6;

/// A one-word seller of at least this length is treated as a web address without its ending.
const GLUED_SELLER_BYTES_MIN: usize = 14;

/// Shorter keywords end too many unrelated words, and something must precede them.
const GLUED_BYTES_MIN: usize = 5;
const GLUED_BYTES_BEFORE_MIN: usize = 2;

/// One keyword in scope.
#[derive(Debug)]
pub struct Keyword {
    /// As the table spells it.
    pub text: String,
    /// `None` if two entries disagree.
    category: Option<CategoryId>,
    department: Department,
    rank: Rank,
}

impl Keyword {
    fn tells_trade(&self) -> bool {
        self.department != Department::Only
    }
}

/// True if the first word may consist of several, as in a web address.
fn is_glued(seller: &Descriptor) -> bool {
    seller.web || matches!(seller.words[..], [word] if word.len() >= GLUED_SELLER_BYTES_MIN)
}

#[derive(Debug, Default)]
pub struct Keywords {
    keywords: Vec<Keyword>,
    /// By words joined with single spaces.
    by_words: HashMap<Box<str>, u32, RandomState>,
    /// The first word of each keyword: rules out most words early.
    starts: HashSet<Box<str>, RandomState>,
    /// Sorted, to find all keywords that start with a text.
    sorted: Vec<(Box<str>, u32)>,
}

impl Keywords {
    pub fn new(entries: &[KeywordEntry], countries: &[Country]) -> Keywords {
        let mut keywords = Keywords::default();
        let mut folded = String::new();
        for KeywordEntry { entry, department } in entries {
            let Some(rank) = entry.rank(countries) else { continue };
            fold(&entry.name, &mut folded);
            let words = Descriptor::of_name(&folded).words.join(" ");
            let (text, category) = (entry.name.clone(), Some(entry.category));
            keywords.add(words, Keyword { text, category, department: *department, rank });
        }
        let starts = keywords.by_words.keys().map(|words| words.split(' ').next().unwrap_or(words).into());
        keywords.starts = starts.collect();
        keywords.sorted = keywords.by_words.iter().map(|(words, index)| (words.clone(), *index)).collect();
        keywords.sorted.sort_unstable();
        keywords
    }

    /// Among entries of one keyword the best rank wins: the earlier table, then the narrower scope.
    /// Entries of the same rank must agree.
    fn add(&mut self, words: String, keyword: Keyword) {
        match self.by_words.entry(words.into()) {
            Slot::Vacant(free) => {
                free.insert(self.keywords.len() as u32);
                self.keywords.push(keyword);
            }
            Slot::Occupied(held) => {
                let held = &mut self.keywords[*held.get() as usize];
                if keyword.rank < held.rank {
                    *held = keyword;
                } else if keyword.rank == held.rank && keyword.category != held.category {
                    held.category = None;
                }
            }
        }
    }

    pub fn count(&self) -> usize {
        self.keywords.len()
    }

    pub fn keyword(&self, index: u32) -> &Keyword {
        &self.keywords[index as usize]
    }

    /// The keyword that names the trade.
    pub fn find(&self, seller: &Descriptor) -> Option<(u32, CategoryId)> {
        let found = self.find_among(&seller.words, seller.cut, Keyword::tells_trade);
        let glued = || if is_glued(seller) { self.find_glued(&seller.words) } else { None };
        found.or_else(glued)
    }

    /// The keyword that names a department, after the first `name_words` words of the seller.
    pub fn find_department(&self, seller: &Descriptor, name_words: usize) -> Option<(u32, CategoryId)> {
        self.find_among(&seller.words[name_words..], seller.cut, |keyword| {
            keyword.department != Department::No
        })
    }

    fn find_among(
        &self,
        words: &[&str],
        cut: bool,
        counts: impl Fn(&Keyword) -> bool,
    ) -> Option<(u32, CategoryId)> {
        let mut first = None;
        let mut taken: SmallVec<[bool; 12]> = smallvec![false; words.len()];
        for length in (1..=KEYWORD_WORDS_MAX.min(words.len())).rev() {
            for start in 0..=words.len() - length {
                let span = start..start + length;
                let may_be_cut = cut && span.end == words.len();
                if taken[span.clone()].contains(&true) || !may_be_cut && !self.starts.contains(words[start]) {
                    continue;
                }
                let text = words[span.clone()].join(" ");
                let whole = self.by_words.get(text.as_str()).copied();
                let found = match whole {
                    None if may_be_cut => self.complete(&text),
                    whole => whole,
                };
                let Some(index) = found.filter(|index| counts(self.keyword(*index))) else { continue };
                taken[span].fill(true);
                let category = self.keyword(index).category?;
                match first {
                    None => first = Some((index, category)),
                    Some((_, before)) if before != category => return None,
                    Some(_) => {}
                }
            }
        }
        first
    }

    /// The keyword that a cut text starts, if all keywords that start with it agree.
    fn complete(&self, text: &str) -> Option<u32> {
        if text.len() < CUT_BYTES_MIN {
            return None;
        }
        let from = self.sorted.partition_point(|(words, _)| &**words < text);
        let begin_so = self.sorted[from..].iter().take_while(|(words, _)| words.starts_with(text));
        // Only the last word is cut, so the keyword has no further words.
        let spaces = |text: &str| text.matches(' ').count();
        let mut begin_so = begin_so.filter(|(words, _)| spaces(words) == spaces(text));
        let &(_, first) = begin_so.next()?;
        let category = self.keyword(first).category;
        begin_so.all(|(_, index)| self.keyword(*index).category == category).then_some(first)
    }

    /// The longest keyword that ends a web address, whose words are joined without spaces.
    fn find_glued(&self, words: &[&str]) -> Option<(u32, CategoryId)> {
        let site = words.first()?;
        let mut ends = site.char_indices().map(|(start, _)| &site[start..]).skip(GLUED_BYTES_BEFORE_MIN);
        let index = ends.find_map(|end| {
            let found = self.by_words.get(end).filter(|_| end.len() >= GLUED_BYTES_MIN);
            found.filter(|index| self.keyword(**index).tells_trade())
        })?;
        self.keyword(*index).category.map(|category| (*index, category))
    }
}
