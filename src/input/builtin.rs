//! The tables that ship with the program.
//!
//! In: nothing. Out: their text. Invariant: a test reads every one of them.

/// Names of shops, restaurants, stations, banks and the like, made by `scripts/sellers` from the
/// name-suggestion-index (see `NOTICE`).
pub const SELLERS: &str = include_str!("builtin/sellers.tsv");

/// How statements of US and GB banks print what no map shows, and short forms of what it does.
pub const ALIASES: &str = include_str!("builtin/aliases.tsv");

/// Words that tell the trade.
pub const KEYWORDS: &str = include_str!("builtin/keywords.tsv");

/// Words that are names of sellers and common words, first names or places as well.
pub const GENERIC_WORDS: &str = include_str!("builtin/generic_words.txt");
