//! What may be repeated of a file that is not what it should be: where, and nothing of what it holds.
//!
//! In: what a reader of TOML says of a text. Out: the same without the text.
//! Invariant: a file that somebody names by mistake or by malice, such as one of passwords, stays its
//! reader's; a mistyped key can still be understood.

use crate::planted::Bug;

/// A mistake in a TOML text, and the byte where it stands.
pub struct Misread {
    pub what: String,
    pub byte: Option<usize>,
}

impl From<toml::de::Error> for Misread {
    fn from(error: toml::de::Error) -> Misread {
        let byte = error.span().map(|span| span.start);
        Misread { what: without_quotes(error.message()), byte }
    }
}

impl Misread {
    /// `line 3, column 7: …` of a text.
    pub fn within(&self, text: &str) -> String {
        match self.byte {
            None => self.what.clone(),
            Some(byte) => {
                let (line, column) = line_and_column(text, byte);
                format!("line {line}, column {column}: {}", self.what)
            }
        }
    }
}

/// The line and the column of a byte, both from 1.
pub fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}

/// What serde quotes comes from the text until it says what it expected, which comes from us.
fn without_quotes(message: &str) -> String {
    if Bug::UnknownKeyEchoed.is_planted() {
        return message.to_string();
    }
    const OURS: [&str; 2] = [", expected", "missing field"];
    let ours = OURS.iter().filter_map(|words| message.find(words)).min().unwrap_or(message.len());
    let (theirs, ours) = message.split_at(ours);
    let mut kept = String::with_capacity(message.len());
    let mut rest = theirs;
    while let Some(open) = rest.find(['`', '"']) {
        kept.push_str(rest[..open].trim_end());
        let quote = &rest[open..=open];
        rest = rest[open + 1..].rsplit_once(quote).map_or("", |(_, behind)| behind);
    }
    kept + rest + ours
}

/// With more letters that differ, two words have little in common.
const MISTAKES_MAX: usize = 2;

/// Whether a word is a key, a column or the like, mistyped: close enough to a known one that it tells
/// nothing else.
pub fn near(word: &str, known: &str) -> bool {
    let is_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    let most = known.len().div_ceil(5).min(MISTAKES_MAX);
    word.len() <= known.len() + most
        && word.chars().all(is_key)
        && strsim::damerau_levenshtein(word, known) <= most
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[allow(dead_code, reason = "read, not used")]
        number: u32,
        #[allow(dead_code, reason = "read, not used")]
        kind: Kind,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
        Two,
    }

    #[test]
    fn nothing_of_a_text_is_repeated() {
        for text in [
            "canary",
            "canary = 1",
            "\"canary\" = 1\n",
            "root:canary:0:0",
            "[canary",
            "canary = canary",
            "number = \"canary `with` \\\"quotes\\\", expected\"\nkind = \"one\"",
            "number = 1\nkind = \"canary\"",
            "number = 1\nkind = \"one\"\ncanary = 2",
            "number = 1\nnumber = 2",
            "number = canary\n",
            "number = 0xcanary",
            "number = \"\"\"canary",
            "number = [1, canary]",
            "number = 2020-canary",
        ] {
            let misread = Misread::from(toml::from_str::<File>(text).unwrap_err());
            let shown = misread.within(text);
            assert!(!shown.contains("canary") && !shown.is_empty(), "{text}: {shown}");
        }
        let unknown = Misread::from(toml::from_str::<File>("number = 1\nkind = \"three\"").unwrap_err());
        assert_eq!(
            unknown.within("number = 1\nkind = \"three\""),
            "line 2, column 8: unknown variant, expected `one` or `two`"
        );
    }

    #[test]
    fn mistyped_words_are_near_and_others_are_not() {
        for (word, known) in
            [("output.lakes", "output.lake"), ("limit.threads", "limits.threads"), ("nane", "name")]
        {
            assert!(near(word, known), "{word}");
        }
        for (word, known) in [("hunter2", "smtp.user"), ("root", "name"), ("Name", "name"), ("", "name")] {
            assert!(!near(word, known), "{word}");
        }
    }
}
