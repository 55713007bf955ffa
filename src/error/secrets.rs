//! What lets its reader in, taken out of messages.
//!
//! In: text of libraries, which repeats the places and the keys that it was given. Out: the same
//! without passwords, signatures and keys.
//! Invariant: no URL in a message keeps its user, its query or its fragment, wherever in the text it
//! stands; and no value of a secret variable of the environment stands in one.

use crate::planted::Bug;
use std::borrow::Cow;

/// A message without secrets.
pub fn without_secrets(text: &str) -> String {
    let text = without_values(text, &secret_values());
    text.split(' ').map(discreet).collect::<Vec<_>>().join(" ")
}

/// What stands in place of a secret.
const CUT: &str = "…";

/// Behind these, whatever they are part of, a secret follows.
const NAMES: [&str; 10] = [
    "accountkey=",
    "sharedaccesssignature=",
    "sharedaccesskey=",
    "x-amz-signature=",
    "x-amz-credential=",
    "x-amz-security-token=",
    "x-goog-signature=",
    "sig=",
    "password=",
    "secret=",
];

/// What may stand around a URL in a sentence.
const AROUND: [char; 13] = ['(', ')', '[', ']', '{', '}', '"', '\'', '`', ',', ';', '.', ':'];

/// A word of a message, of which nothing is a secret any more.
fn discreet(word: &str) -> Cow<'_, str> {
    if Bug::EndpointPasswordKept.is_planted() {
        return word.into();
    }
    let lower = word.to_ascii_lowercase();
    if let Some(start) = lower.find("%3a%2f%2f") {
        // A URL within a URL: what of it is a secret cannot be told.
        return format!("{}{CUT}", &word[..start]).into();
    }
    let word: Cow<str> = match word.find("//") {
        Some(slashes) => without_user(word, slashes + 2).into(),
        None => match word.find(':').zip(word.rfind('@')) {
            // `user:password@host`, and no path before it.
            Some((colon, at)) if colon + 1 < at && !word[..colon].contains('/') => {
                let start = word.find(|c| !AROUND.contains(&c)).unwrap_or(0).min(colon);
                format!("{}{CUT}{}", &word[..start], &word[at..]).into()
            }
            _ => word.into(),
        },
    };
    let lower = word.to_ascii_lowercase();
    match NAMES.iter().filter_map(|name| Some(lower.find(name)? + name.len())).min() {
        Some(end) => format!("{}{CUT}", &word[..end]).into(),
        None => word,
    }
}

/// A word that holds a URL, whose host begins at `host` or behind a user.
fn without_user(word: &str, host: usize) -> String {
    let (scheme, rest) = word.split_at(host);
    let authority = &rest[..rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len())];
    // A password may hold what ends a host elsewhere: then what stands behind the colon is no port.
    let is_open = authority.contains(':');
    let at = if authority.contains('@') || is_open { rest.rfind('@') } else { None };
    let rest = at.map_or(rest, |at| &rest[at + 1..]);
    // Only a URL has a query; a path may well have a question mark.
    let end = if scheme.contains("://") { rest.find(['?', '#']) } else { None };
    match end {
        None => format!("{scheme}{rest}"),
        Some(end) => {
            let sentence = rest.trim_end_matches(AROUND).len().max(end);
            format!("{scheme}{}?{CUT}{}", &rest[..end], &rest[sentence..])
        }
    }
}

/// Shorter values stand in too many words.
const VALUE_BYTES_MIN: usize = 8;

/// The secrets of the environment, the longest first.
fn secret_values() -> Vec<String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?.to_ascii_uppercase(), value.into_string().ok()?))
    };
    let secret = |(name, value): (String, String)| is_secret(&name).then_some(value);
    let mut values: Vec<String> = std::env::vars_os().filter_map(text).filter_map(secret).collect();
    values.retain(|value| value.len() >= VALUE_BYTES_MIN);
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values
}

/// Whether a variable holds a secret, and not the name of a file that does.
fn is_secret(name: &str) -> bool {
    let ours = ["AWS_", "AZURE_", "GOOGLE_", "PENNYMILL_"].iter().any(|prefix| name.starts_with(prefix));
    let parts = ["KEY", "TOKEN", "SECRET", "PASSWORD", "SAS", "SIGNATURE"];
    let is_place = ["_FILE", "_PATH", "_URI", "_URL", "_ENDPOINT"].iter().any(|end| name.ends_with(end));
    ours && !is_place && parts.iter().any(|part| name.contains(part))
}

fn without_values(text: &str, values: &[String]) -> String {
    values.iter().fold(text.to_string(), |text, value| text.replace(value.as_str(), CUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_url_keeps_what_lets_its_reader_in() {
        for (text, shown) in [
            ("GET https://host/a?sig=secret failed", "GET https://host/a?… failed"),
            ("for url (http://user:secret@host:1/b/c)", "for url (http://host:1/b/c)"),
            ("(http://user:secret@host:1/b?X-Amz-Signature=secret):", "(http://host:1/b?…):"),
            ("\"https://user:sec/ret@host/x\",", "\"https://host/x\","),
            ("`s3://key:secret@bucket/a`", "`s3://bucket/a`"),
            ("https://user:sec@ret@host/#secret.", "https://host/?…."),
            ("//user:secret@host/a", "//host/a"),
            ("proxy user:secret@host:3128, refused", "proxy …@host:3128, refused"),
            ("http%3A%2F%2Fuser%3Asecret%40host", "http…"),
            ("AccountName=me;AccountKey=secret==;x=y", "AccountName=me;AccountKey=…"),
            ("SharedAccessSignature=sv=1&sig=secret", "SharedAccessSignature=…"),
            ("lies at s3://bucket/user@example.com/a.tsv", "lies at s3://bucket/user@example.com/a.tsv"),
            ("/data/12:30@home/a?b.tsv:3:7", "/data/12:30@home/a?b.tsv:3:7"),
            ("file:///data/a.tsv: is it there?", "file:///data/a.tsv: is it there?"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn values_of_secret_variables_are_cut() {
        for name in
            ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_SAS_KEY", "PENNYMILL_SMTP_PASSWORD"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["PATH", "AWS_REGION", "AWS_WEB_IDENTITY_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS"] {
            assert!(!is_secret(name), "{name}");
        }
        let values = ["hunter2hunter2".to_string()];
        assert_eq!(without_values("denied to hunter2hunter2!", &values), "denied to …!");
    }
}
