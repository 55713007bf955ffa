//! What the log of a table names: files that are not to be deleted.
//!
//! In: paths as logs write them. Out: paths below the lake, which are the same for the same file.
//! Invariant: of a file that a log names, whatever its spelling, the path is held; too many may be.

use super::table::{Table, from_delta};
use crate::error::Result;
use crate::planted::Bug;
use serde_json::Value;
use std::collections::BTreeSet;

impl Table {
    /// The paths of all files that make up this version.
    pub fn paths(&self) -> Result<Vec<String>> {
        let log = self.state.snapshot().try_log_data().map_err(|e| from_delta(e).at(&self.name))?;
        Ok(log.iter().map(|view| view.path().into_owned()).collect())
    }
}

/// Files of a lake that something names.
#[derive(Default)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// Adds a path as the log of a table, or a manifest, names it: below the table, or an absolute one.
    pub fn add(&mut self, table: &str, path: &str) {
        // Writers do not agree on how often a name is escaped: both spellings are held.
        let decoded = decoded(path);
        for path in [path, &decoded] {
            match is_absolute(path) {
                false => self.add_below(table, path),
                // The lake may be known under many names; each end of the path may be one below it.
                true => {
                    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
                    self.0.extend((0..names.len()).map(|start| names[start..].join("/")));
                }
            }
        }
    }

    fn add_below(&mut self, table: &str, path: &str) {
        let mut names = vec![table];
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        self.0.insert(names.join("/"));
    }

    /// Adds whatever a commit mentions, for a log that cannot be read as one: every text in it may be a path.
    pub fn add_mentioned(&mut self, table: &str, commit: &[u8]) {
        for line in commit.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(action) => self.add_texts(table, &action),
                // The text of a line that is damaged still stands between quotes.
                Err(_) => {
                    String::from_utf8_lossy(line).split('"').for_each(|text| self.add(table, text));
                }
            }
        }
    }

    fn add_texts(&mut self, table: &str, value: &Value) {
        match value {
            Value::String(text) => self.add(table, text),
            Value::Array(values) => values.iter().for_each(|value| self.add_texts(table, value)),
            Value::Object(fields) => fields.values().for_each(|value| self.add_texts(table, value)),
            _ => {}
        }
    }

    pub fn extend(&mut self, more: Names) {
        self.0.extend(more.0);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether something names the file with this path below the lake.
    pub fn hold(&self, path: &str) -> bool {
        self.0.contains(path) || self.0.contains(&decoded(path))
    }
}

/// Percent escapes undone, as often as they were made.
fn decoded(path: &str) -> String {
    let mut text = path.to_string();
    if Bug::GcNamesNotDecoded.is_planted() {
        return text;
    }
    loop {
        let next = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if next == text {
            return text;
        }
        text = next;
    }
}

/// `/a/b`, or `scheme:` and more.
fn is_absolute(path: &str) -> bool {
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    path.starts_with('/') || path.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// The file of a deletion vector, as a commit describes it; none of one that stands in the log itself.
pub fn vector_file(storage: &str, text: &str) -> Option<String> {
    match storage {
        "p" => Some(text.to_string()),
        "u" => {
            let (folder, id) = text.split_at_checked(text.len().checked_sub(ID_LETTERS)?)?;
            let id = uuid::Uuid::from_bytes(from_base85(id)?);
            let separator = if folder.is_empty() { "" } else { "/" };
            Some(format!("{folder}{separator}deletion_vector_{id}.bin"))
        }
        _ => None,
    }
}

/// An id of 16 bytes in base 85.
const ID_LETTERS: usize = 20;

/// The digits of ZeroMQ's base 85.
const DIGITS: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

fn from_base85(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let groups = text.as_bytes().chunks(5);
    for (group, four) in groups.zip(bytes.chunks_mut(4)) {
        let digit = |letter: &u8| DIGITS.iter().position(|digit| digit == letter);
        let number = group.iter().try_fold(0u64, |sum, letter| Some(sum * 85 + digit(letter)? as u64))?;
        four.copy_from_slice(&u32::try_from(number).ok()?.to_be_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_however_its_path_is_written() {
        let part = "spending/month=2025-01-01/part-1.parquet";
        for path in [
            "month=2025-01-01/part-1.parquet",
            "month%3D2025-01-01/part-1.parquet",
            "month%3d2025-01-01%2Fpart-1.parquet",
            "month%253D2025-01-01/part-1.parquet",
            "./month=2025-01-01//part-1.parquet",
            "../spending/month=2025-01-01/part-1.parquet",
            "/data/lake/spending/month=2025-01-01/part-1.parquet",
            "file:///data/lake/spending/month%3D2025-01-01/part-1.parquet",
            "s3://bucket/lake/spending/month=2025-01-01/part-1.parquet",
        ] {
            let mut names = Names::default();
            names.add("spending", path);
            assert!(names.hold(part), "{path}");
            assert!(!names.hold("spending/month=2025-02-01/part-1.parquet"), "{path}");
        }
        let mut names = Names::default();
        names.add("spending", "city=New%2520York/a.parquet");
        assert!(names.hold("spending/city=New%20York/a.parquet"));
        assert!(names.hold("spending/city=New York/a.parquet"));
        names.add("other", "month=2025-01-01/part-1.parquet");
        assert!(!names.hold(part), "it is one of another table");
    }

    #[test]
    fn vectors_lie_where_the_protocol_says() {
        // The example of the protocol.
        let file = vector_file("u", "ab^-aqEH.-t@S}K{vb[*k^");
        assert_eq!(file.unwrap(), "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin");
        assert_eq!(vector_file("p", "s3://b/dv.bin").unwrap(), "s3://b/dv.bin");
        assert_eq!(vector_file("i", "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"), None);
        assert_eq!(vector_file("u", "short"), None);
        assert_eq!(vector_file("u", "~~~~~~~~~~~~~~~~~~~~"), None);
    }
}
