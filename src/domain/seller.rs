//! Reference data about sellers: entries, rules and their scope.
//!
//! In: cells of reference tables. Out: entries in the scope of a job.
//! Invariant: a country is two lowercase letters; an entry without countries applies everywhere.

use super::category::CategoryId;
use serde::{Deserialize, Serialize};

/// An ISO 3166-1 alpha-2 code, in lowercase letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country([u8; 2]);

impl std::str::FromStr for Country {
    type Err = String;

    fn from_str(text: &str) -> Result<Country, String> {
        match text.to_ascii_lowercase().as_bytes() {
            &[first, second] if first.is_ascii_lowercase() && second.is_ascii_lowercase() => {
                Ok(Country([first, second]))
            }
            _ => Err("not a country of two letters, such as gb".into()),
        }
    }
}

impl TryFrom<String> for Country {
    type Error = String;

    fn try_from(text: String) -> Result<Country, String> {
        text.parse()
    }
}

impl From<Country> for String {
    fn from(country: Country) -> String {
        country.to_string()
    }
}

impl std::fmt::Display for Country {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(str::from_utf8(&self.0).expect("two small letters"))
    }
}

/// A name and its category: a row of a dictionary or of aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SellerEntry {
    pub name: String,
    pub category: CategoryId,
    /// Where the name has this category; empty for everywhere.
    pub countries: Vec<Country>,
    /// The index of its table in the job's list: entries of an earlier table win.
    pub table: usize,
}

/// The precedence of an entry: the table, then the scope; lower wins.
pub type Rank = (usize, usize);

impl SellerEntry {
    /// `None` outside the scope of a job's countries.
    pub fn rank(&self, countries: &[Country]) -> Option<Rank> {
        Some((self.table, scope_rank(&self.countries, countries)?))
    }
}

/// Whether a keyword names a department of the seller in front of it (a supermarket's petrol).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Department {
    No,
    Also,
    /// It names only departments, never the trade of a seller.
    Only,
}

/// One or more words that name a trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeywordEntry {
    pub entry: SellerEntry,
    pub department: Department,
}

/// The precedence of an entry by scope. A job's countries are in order of weight; the rank is that
/// of the entry's best country, and the last rank for an entry without countries. `None` out of
/// scope. A job without countries treats all entries alike.
pub fn scope_rank(entry: &[Country], job: &[Country]) -> Option<usize> {
    match (entry, job) {
        ([], _) => Some(job.len()),
        (_, []) => Some(0),
        (entry, job) => job.iter().position(|country| entry.contains(country)),
    }
}

/// A row of a table of rules: a pattern over the normalised name, and a range of cents.
#[derive(Clone, Debug)]
pub struct RuleEntry {
    /// In the syntax of the `regex` crate.
    pub pattern: String,
    pub category: CategoryId,
    /// Minimum and maximum, both inclusive.
    pub cents: (i64, i64),
}

/// The crowd's category for a normalised name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrowdEntry {
    pub name: String,
    pub category: CategoryId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_follows_the_order_of_the_jobs_countries() {
        let countries = |text: &str| -> Vec<Country> {
            text.split_whitespace().map(|code| code.parse().unwrap()).collect()
        };
        let rank = |entry: &str, job: &str| scope_rank(&countries(entry), &countries(job));
        assert_eq!(rank("gb ie", "US GB"), Some(1));
        assert_eq!(rank("nl", "us gb"), None);
        assert_eq!(rank("", "us gb"), Some(2));
        assert_eq!((rank("nl", ""), rank("", "")), (Some(0), Some(0)));
        assert!("gbr".parse::<Country>().is_err() && "g1".parse::<Country>().is_err());
    }
}
