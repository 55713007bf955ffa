//! The layers of the categorizer that hold for everybody: dictionary, aliases, rules, crowd, words.
//!
//! In: the tables that a job names. Out: [`Layers`].
//! Invariant: every category code exists; the order of tables and of their lines is kept; a bad
//! row refuses its table, with its place.

use super::builtin;
use super::reference::{category, cents, seller};
use super::table_rows::{Refused, Source, for_each_line, for_each_row, optional, refused_line, required};
use crate::domain::category::Categories;
use crate::domain::seller::{
    Country, CrowdEntry, Department, KeywordEntry, RuleEntry, SellerEntry, scope_rank,
};
use crate::error::{Result, shown};
use crate::job::spec::{BUILTIN, Spec};
use crate::limits::{KEYWORD_WORDS_MAX, PATTERN_BYTES_MAX, PATTERNS_BYTES_MAX, ROW_BYTES_KEPT, RULES_MAX};
use crate::planted::Bug;
use regex_automata::nfa::thompson::{Compiler, Config};

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

impl Layers {
    /// Loads what a job names; where it names nothing there is nothing to know.
    pub fn load(spec: &Spec, categories: &Categories) -> Result<Layers> {
        let (input, most) = (&spec.input, spec.table_bytes_max());
        let countries: Vec<Country> = input.country.0.clone();
        Ok(Layers {
            rules: rules(&input.rules.0, categories, &countries)?,
            aliases: names(&input.aliases.0, "builtin aliases", builtin::ALIASES, most, categories)?,
            sellers: names(&input.sellers.0, "builtin sellers", builtin::SELLERS, most, categories)?,
            keywords: keywords(&input.keywords.0, most, categories)?,
            crowd: Vec::new(),
            generic_words: generic_words(),
            countries,
        })
    }
}

/// The shipped table where a job says so, or else the one it names.
fn source<'t>(table: &'t str, name: &'static str, text: &'static str, bytes_max: u64) -> Source<'t> {
    match table {
        BUILTIN => Source::Shipped { name, text },
        _ => Source::Bounded { table, row_bytes: ROW_BYTES_KEPT, bytes_max },
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
    bytes_max: u64,
    categories: &Categories,
) -> Result<Vec<SellerEntry>> {
    let columns = [required("seller"), required("category"), optional("country")];
    let mut names = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        for_each_row(&source(table, name, shipped, bytes_max), &columns, |row| {
            names.push(seller_entry(row, categories, index)?);
            Ok(())
        })?;
    }
    Ok(names)
}

fn keywords(tables: &[String], bytes_max: u64, categories: &Categories) -> Result<Vec<KeywordEntry>> {
    let columns = [required("keyword"), required("category"), optional("country"), optional("department")];
    let mut keywords = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let source = source(table, "builtin keywords", builtin::KEYWORDS, bytes_max);
        for_each_row(&source, &columns, |row| {
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

/// The rules in scope, in the order of their tables and lines. They are counted before one of them is
/// compiled, which takes long.
fn rules(tables: &[String], categories: &Categories, job: &[Country]) -> Result<Vec<RuleEntry>> {
    let columns = [required("pattern"), required("category")];
    let more = ["amount_min", "amount_max", "sign", "country"].map(optional);
    let columns: Vec<_> = columns.into_iter().chain(more).collect();
    let (mut rules, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (table, name) in tables.iter().enumerate() {
        for_each_line(&Source::Stored(name), &columns, |line, row| {
            if Bug::RulesCompiledFirst.is_planted() {
                bytes += pattern_bytes(row[0])?;
            }
            if places.len() == RULES_MAX {
                return Err(Refused(
                    0,
                    format!("more than {RULES_MAX} rules, which is the most of all tables"),
                ));
            }
            places.push((table, line));
            let category = category(row[1], 1, categories)?;
            let in_scope = scope_rank(&countries(row[5], 5)?, job).is_some();
            rules.push((
                RuleEntry { pattern: row[0].to_string(), category, cents: cents_range(row)? },
                in_scope,
            ));
            Ok(())
        })?;
    }
    for ((rule, _), (table, line)) in rules.iter().zip(places) {
        let compiled = pattern_bytes(&rule.pattern).and_then(|more| {
            bytes += more;
            let fit = (bytes <= PATTERNS_BYTES_MAX).then_some(());
            fit.ok_or_else(|| Refused(0, "the patterns up to this one are too large together".into()))
        });
        compiled.map_err(|Refused(_, what)| {
            refused_line(&shown(&tables[table]), line, format!("column `pattern`: {what}"))
        })?;
    }
    Ok(rules.into_iter().filter(|(_, in_scope)| *in_scope).map(|(rule, _)| rule).collect())
}

/// What a pattern takes once it is compiled. The automaton alone tells it: what else a regex is made of
/// takes much longer to build.
fn pattern_bytes(pattern: &str) -> Result<usize, Refused> {
    let config = Config::new().nfa_size_limit(Some(PATTERN_BYTES_MAX));
    let compiled = Compiler::new().configure(config).build(pattern);
    match compiled {
        Ok(automaton) if !pattern.is_empty() => Ok(automaton.memory_usage()),
        _ => {
            let what = "not a regular expression, or too large a one; see the syntax of Rust's regex";
            Err(Refused(0, what.into()))
        }
    }
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
