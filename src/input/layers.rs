//! The layers of the categorizer that hold for everybody: dictionary, aliases, rules, crowd, words.
//!
//! In: the tables that a job names. Out: [`Layers`].
//! Invariant: every category code exists; the order of tables and of their lines is kept; a bad
//! row refuses its table, with its place.

use super::builtin;
use super::reference::{category, cents, seller};
use super::table_rows::{Refused, Source, for_each_row, optional, required};
use crate::domain::category::Categories;
use crate::domain::seller::{
    Country, CrowdEntry, Department, KeywordEntry, RuleEntry, SellerEntry, scope_rank,
};
use crate::error::Result;
use crate::job::sections::Input;
use crate::job::spec::BUILTIN;
use crate::limits::KEYWORD_WORDS_MAX;

/// What everybody's sellers are known by.
#[derive(Default)]
pub struct Layers {
    /// Where the sellers are, the weightiest country first; empty for anywhere.
    pub countries: Vec<Country>,
    pub rules: Vec<RuleEntry>,
    pub aliases: Vec<SellerEntry>,
    pub sellers: Vec<SellerEntry>,
    pub crowd: Vec<CrowdEntry>,
    pub keywords: Vec<KeywordEntry>,
    /// Words that say too little to name a seller by the beginning of a descriptor.
    pub generic_words: Vec<String>,
}

/// A compiled pattern may take so much memory.
const PATTERN_BYTES_MAX: usize = 1 << 20;

impl Layers {
    /// Loads what a job names; where it names nothing there is nothing to know.
    pub fn load(input: &Input, categories: &Categories) -> Result<Layers> {
        let countries: Vec<Country> = input.country.0.clone();
        Ok(Layers {
            rules: rules(&input.rules.0, categories, &countries)?,
            aliases: names(&input.aliases.0, "builtin aliases", builtin::ALIASES, categories)?,
            sellers: names(&input.sellers.0, "builtin sellers", builtin::SELLERS, categories)?,
            keywords: keywords(&input.keywords.0, categories)?,
            crowd: Vec::new(),
            generic_words: generic_words(),
            countries,
        })
    }
}

/// The shipped table where a job says so, or else the one it names.
fn source<'t>(table: &'t str, name: &'static str, text: &'static str) -> Source<'t> {
    match table {
        BUILTIN => Source::Shipped { name, text },
        _ => Source::Stored(table),
    }
}

fn generic_words() -> Vec<String> {
    let lines = builtin::GENERIC_WORDS.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(String::from).collect()
}

fn countries(text: &str, column: usize) -> Result<Vec<Country>, Refused> {
    let codes = text.split_whitespace().map(str::parse);
    codes.collect::<Result<_, String>>().map_err(|_| {
        Refused(column, "not countries of two letters with spaces between, such as `gb ie`".into())
    })
}

/// The rows of dictionaries or aliases.
fn names(
    tables: &[String],
    name: &'static str,
    shipped: &'static str,
    categories: &Categories,
) -> Result<Vec<SellerEntry>> {
    let columns = [required("seller"), required("category"), optional("country")];
    let mut names = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        for_each_row(&source(table, name, shipped), &columns, |row| {
            names.push(seller_entry(row, categories, index)?);
            Ok(())
        })?;
    }
    Ok(names)
}

fn keywords(tables: &[String], categories: &Categories) -> Result<Vec<KeywordEntry>> {
    let columns = [required("keyword"), required("category"), optional("country"), optional("department")];
    let mut keywords = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        for_each_row(&source(table, "builtin keywords", builtin::KEYWORDS), &columns, |row| {
            let words = row[0].split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            if words.count() > KEYWORD_WORDS_MAX {
                return Err(Refused(0, format!("more than {KEYWORD_WORDS_MAX} words")));
            }
            let department = match row[3] {
                "" => Department::No,
                "also" => Department::Also,
                "only" => Department::Only,
                _ => return Err(Refused(3, "not `also` or `only`".into())),
            };
            keywords.push(KeywordEntry { entry: seller_entry(row, categories, index)?, department });
            Ok(())
        })?;
    }
    Ok(keywords)
}

/// Name, category and countries, the first columns of a row.
fn seller_entry(row: &[&str], categories: &Categories, table: usize) -> Result<SellerEntry, Refused> {
    if !row[0].chars().any(char::is_alphanumeric) {
        return Err(Refused(0, "names nobody: it has neither letter nor digit".into()));
    }
    Ok(SellerEntry {
        name: seller(row[0], 0)?,
        category: category(row[1], 1, categories)?,
        countries: countries(row[2], 2)?,
        table,
    })
}

/// The rules in scope, in the order of their tables and lines.
fn rules(tables: &[String], categories: &Categories, job: &[Country]) -> Result<Vec<RuleEntry>> {
    let columns = [required("pattern"), required("category")];
    let more = ["amount_min", "amount_max", "sign", "country"].map(optional);
    let columns: Vec<_> = columns.into_iter().chain(more).collect();
    let mut rules = Vec::new();
    for table in tables {
        for_each_row(&Source::Stored(table), &columns, |row| {
            let compiled = regex::RegexBuilder::new(row[0]).size_limit(PATTERN_BYTES_MAX).build();
            if compiled.is_err() || row[0].is_empty() {
                let what = "not a regular expression, or too large a one; see the syntax of Rust's regex";
                return Err(Refused(0, what.into()));
            }
            let pattern = row[0].to_string();
            let rule =
                RuleEntry { pattern, category: category(row[1], 1, categories)?, cents: cents_range(row)? };
            if scope_rank(&countries(row[5], 5)?, job).is_some() {
                rules.push(rule);
            }
            Ok(())
        })?;
    }
    Ok(rules)
}

/// The least and the most cents that a rule asks for.
fn cents_range(row: &[&str]) -> Result<(i64, i64), Refused> {
    let bound = |column: usize, open: i64| match row[column] {
        "" => Ok(open),
        text => cents(text, column),
    };
    let (least, most) = (bound(2, i64::MIN)?, bound(3, i64::MAX)?);
    let (least, most) = match row[4] {
        "" => (least, most),
        "spent" => (least.max(1), most),
        "received" => (least, most.min(-1)),
        _ => return Err(Refused(4, "not `spent` or `received`".into())),
    };
    match least <= most {
        true => Ok((least, most)),
        false => Err(Refused(3, "no amount fits the rule: the most is less than the least".into())),
    }
}

/// Adds what the crowd says, from rows of `seller`, `category` and `decided`.
pub fn crowd(table: &str, categories: &Categories) -> Result<Vec<CrowdEntry>> {
    let mut crowd = Vec::new();
    let columns = [required("seller"), required("category"), optional("decided")];
    for_each_row(&Source::Stored(table), &columns, |row| {
        let decided = match row[2].to_ascii_lowercase().as_str() {
            "" | "true" => true,
            "false" => false,
            _ => return Err(Refused(2, "not `true` or `false`".into())),
        };
        if decided {
            crowd.push(CrowdEntry { name: seller(row[0], 0)?, category: category(row[1], 1, categories)? });
        }
        Ok(())
    })?;
    Ok(crowd)
}
