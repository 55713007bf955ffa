//! What is known of sellers before any transaction is seen: entries, rules and where they hold.
//!
//! In: cells of reference tables. Out: entries in the scope of a job.
//! Invariant: a country is two small letters; an entry without countries holds anywhere.

use super::category::CategoryId;
use serde::{Deserialize, Serialize};

/// An ISO 3166-1 alpha-2 code, in small letters.
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
            _ => Err(format!("`{text}` is not a country of two letters, such as gb")),
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

/// A name and what is bought there: a line of a dictionary or of aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SellerEntry {
    pub name: String,
    pub category: CategoryId,
    /// Where the name has this meaning; empty for anywhere.
    pub countries: Vec<Country>,
    /// The place of its table in the job's list: the entry of an earlier table holds.
    pub table: usize,
}

/// How well an entry holds: the less the better.
pub type Rank = (usize, usize);

impl SellerEntry {
    /// None out of the scope of a job's countries.
    pub fn rank(&self, countries: &[Country]) -> Option<Rank> {
        Some((self.table, scope_rank(&self.countries, countries)?))
    }
}

/// Whether a keyword names a department of the seller in front of it: the petrol of a supermarket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Department {
    No,
    Also,
    /// It tells the trade of nobody else.
    Only,
}

/// A word or a few that tell the trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeywordEntry {
    pub entry: SellerEntry,
    pub department: Department,
}

/// How well an entry fits a job's countries, which are in the order of their weight: the rank of
/// its best country, the last rank for an entry that holds anywhere, none out of scope. A job
/// without countries takes all entries alike.
pub fn scope_rank(entry: &[Country], job: &[Country]) -> Option<usize> {
    match (entry, job) {
        ([], _) => Some(job.len()),
        (_, []) => Some(0),
        (entry, job) => job.iter().position(|country| entry.contains(country)),
    }
}

/// A line of a table of rules: a pattern over the normalised name, and cents it may ask for.
#[derive(Clone, Debug)]
pub struct RuleEntry {
    /// In the syntax of the `regex` crate.
    pub pattern: String,
    pub category: CategoryId,
    /// The least and the most cents, both included.
    pub cents: (i64, i64),
}

/// What the crowd says of a normalised name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrowdEntry {
    pub name: String,
    pub category: CategoryId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope() {
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
