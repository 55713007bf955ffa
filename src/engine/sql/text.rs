//! What is bounded of a question before it is parsed.
//!
//! In: the text of a query. Out: nothing, or an error.
//! Invariant: what passes is parsed, walked and dropped within the stack of the thread that plans:
//! only brackets, types, joins and EXPLAIN make the parser descend without a bound of its own.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{Error, Result};
use crate::limits::{SQL_BYTES_MAX, SQL_JOINS_MAX, SQL_NESTING_MAX, SQL_TOKENS_MAX};

/// Errors when the text is too long or too deep to be parsed.
pub fn refuse_beyond_bounds(sql: &str) -> Result<()> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(too_long(format!("{} bytes long; the most is {SQL_BYTES_MAX}", sql.len())));
    }
    // What is no token is the parser's to report, at its place.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let tokens: Vec<Token> =
        tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    if tokens.len() > SQL_TOKENS_MAX {
        return Err(too_long(format!("{} tokens long; the most is {SQL_TOKENS_MAX}", tokens.len())));
    }
    let counted = Counted::of(&tokens);
    let nested = [counted.brackets, counted.types, counted.explains];
    if nested.iter().any(|&count| count > SQL_NESTING_MAX) {
        return Err(Error::unfit(format!("it is nested more than {SQL_NESTING_MAX} deep")).at("query"));
    }
    if counted.joins > SQL_JOINS_MAX {
        let what = format!("it has {} joins; the most is {SQL_JOINS_MAX}", counted.joins);
        return Err(Error::unfit(what).at("query").advise("ask in several steps"));
    }
    Ok(())
}

fn too_long(what: String) -> Error {
    let advice = "join a table that holds the values, or ask in several steps";
    Error::unfit(format!("it is {what}")).at("query").advise(advice)
}

/// What makes the parser descend.
#[derive(Default)]
struct Counted {
    /// The deepest brackets within brackets.
    brackets: usize,
    /// Types that hold a type: `ARRAY<…`, `int[]`.
    types: usize,
    explains: usize,
    joins: usize,
}

impl Counted {
    fn of(tokens: &[Token]) -> Counted {
        let (mut counted, mut open) = (Counted::default(), 0_usize);
        for (place, token) in tokens.iter().enumerate() {
            let next = tokens.get(place + 1);
            match token {
                Token::LParen | Token::LBracket | Token::LBrace => {
                    open += 1;
                    counted.brackets = counted.brackets.max(open);
                    let is_type = *token == Token::LBracket && next == Some(&Token::RBracket);
                    counted.types += usize::from(is_type);
                }
                Token::RParen | Token::RBracket | Token::RBrace => open = open.saturating_sub(1),
                Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                    Keyword::JOIN => counted.joins += 1,
                    Keyword::EXPLAIN => counted.explains += 1,
                    Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP => {
                        counted.types += usize::from(next == Some(&Token::Lt));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        counted
    }
}
