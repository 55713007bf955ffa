//! Spending categories: codes, names and kinds.
//!
//! In: a TOML list of `[[category]]`. Out: a set in which each category is a small number.
//! Invariant: numbers follow the alphabetical order of codes, so sorting by number is sorting by
//! code; `uncategorized` always exists; at most 255 categories.

use crate::error::Misread;
use serde::Deserialize;

/// A category of one [`Categories`] set: its rank in the alphabetical order of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CategoryId(pub u8);

/// How a category counts: only `Spend` has budgets and alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CategoryKind {
    Spend,
    Income,
    Transfer,
    Ignore,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Category {
    code: String,
    name: String,
    kind: CategoryKind,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CategoryFile {
    category: Vec<Category>,
}

/// All categories of a job.
#[derive(Clone, Debug)]
pub struct Categories {
    sorted: Vec<Category>,
    uncategorized: CategoryId,
}

const UNCATEGORIZED: &str = "uncategorized";

/// Their numbers have 8 bits.
const CATEGORIES_MAX: usize = 255;
const CODE_BYTES_MAX: usize = 64;

/// Whether a text can be the code of a category.
pub fn is_code(text: &str) -> bool {
    (1..=CODE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl Categories {
    /// The set shipped with the program.
    pub fn builtin() -> Categories {
        Categories::parse(include_str!("categories.toml")).expect("the shipped set is valid")
    }

    /// Reads `[[category]] code, name, kind`. Errors: duplicate or malformed codes, no
    /// `uncategorized`, more than 255. A category is named by its place in the file.
    pub fn parse(text: &str) -> Result<Categories, String> {
        let file: CategoryFile = toml::from_str(text).map_err(|e| Misread::from(e).within(text))?;
        let mut sorted = file.category;
        if sorted.len() > CATEGORIES_MAX {
            return Err(format!("{} categories; the most is {CATEGORIES_MAX}", sorted.len()));
        }
        if let Some(bad) = sorted.iter().position(|c| !is_code(&c.code)) {
            let what = format!("is not of a-z, 0-9 and _, or longer than {CODE_BYTES_MAX}");
            return Err(format!("category {}: its code {what}", bad + 1));
        }
        if let Some(again) =
            (1..sorted.len()).find(|i| sorted[..*i].iter().any(|c| c.code == sorted[*i].code))
        {
            return Err(format!("category {}: its code stands twice", again + 1));
        }
        sorted.sort_by(|a, b| a.code.cmp(&b.code));
        let uncategorized = sorted.iter().position(|c| c.code == UNCATEGORIZED);
        let uncategorized = CategoryId(uncategorized.ok_or("category `uncategorized` is missing")? as u8);
        Ok(Categories { sorted, uncategorized })
    }

    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    pub fn id(&self, code: &str) -> Option<CategoryId> {
        let found = self.sorted.binary_search_by(|c| c.code.as_str().cmp(code));
        found.ok().map(|rank| CategoryId(rank as u8))
    }

    /// The display name.
    pub fn name(&self, id: CategoryId) -> &str {
        &self.sorted[usize::from(id.0)].name
    }

    pub fn code(&self, id: CategoryId) -> &str {
        &self.sorted[usize::from(id.0)].code
    }

    pub fn kind(&self, id: CategoryId) -> CategoryKind {
        self.sorted[usize::from(id.0)].kind
    }

    pub fn uncategorized(&self) -> CategoryId {
        self.uncategorized
    }

    /// What to tell somebody who names a category that is none.
    pub fn unknown(&self) -> String {
        format!("not a category; the categories are: {}", self.codes().collect::<Vec<_>>().join(", "))
    }

    /// All codes, in the order of their ids.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        self.sorted.iter().map(|c| c.code.as_str())
    }
}

/// A user's manual choice of a category.
#[derive(Clone, Debug)]
pub struct Choice {
    pub user_id: u64,
    pub seller: String,
    pub category: CategoryId,
    /// In microseconds since 1970. Later choices win over earlier ones.
    pub set_at_micros: i64,
    /// For a choice for a single transaction: its instant (microseconds) and cents.
    pub transaction: Option<(i64, i64)>,
}

/// The layer that decided a category, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CategorySource {
    Override,
    Rule,
    Alias,
    Dictionary,
    Crowd,
    Keyword,
    None,
}

impl CategorySource {
    pub const ALL: [CategorySource; 7] = [
        CategorySource::Override,
        CategorySource::Rule,
        CategorySource::Alias,
        CategorySource::Dictionary,
        CategorySource::Crowd,
        CategorySource::Keyword,
        CategorySource::None,
    ];

    pub fn name(self) -> &'static str {
        match self {
            CategorySource::Override => "override",
            CategorySource::Rule => "rule",
            CategorySource::Alias => "alias",
            CategorySource::Dictionary => "dictionary",
            CategorySource::Crowd => "crowd",
            CategorySource::Keyword => "keyword",
            CategorySource::None => "none",
        }
    }
}
