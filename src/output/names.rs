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

/// Segments of a path below the lake that this program may delete: `table/month/part` at most, and one
/// more for what is only counted.
const SEGMENTS_MAX: usize = 4;

/// A longer path is that of no file: neither local systems nor object stores take one.
const PATH_BYTES_MAX: usize = 4096;

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
                    let mut end: Vec<&str> = Vec::new();
                    for name in path.rsplit('/').filter(|name| !name.is_empty()).take(SEGMENTS_MAX) {
                        end.insert(0, name);
                        self.insert(end.join("/"));
                    }
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
        self.insert(names.join("/"));
    }

    fn insert(&mut self, path: String) {
        if path.len() <= PATH_BYTES_MAX {
            self.0.insert(path);
        }
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

/// Percent escapes undone, as often as they were made: in one pass, since a byte that an escape stands for
/// may end another escape, and no two escapes overlap.
fn decoded(path: &str) -> String {
    if Bug::GcNamesNotDecoded.is_planted() {
        return path.to_string();
    }
    let mut bytes = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        bytes.push(byte);
        while let [.., b'%', high, low] = bytes[..]
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            bytes.truncate(bytes.len() - 3);
            bytes.push(high * 16 + low);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
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
    fn a_path_costs_what_its_length_does() {
        let part = "spending/month=2025-01-01/part-1.parquet";
        let started = std::time::Instant::now();
        let deep = format!("file:///{}{part}", "a/".repeat(500_000));
        let climbing = format!("{}../{part}", "a/../".repeat(200_000));
        let escaped = part.replace('=', &format!("%{}3D", "25".repeat(500_000)));
        for (path, table) in [(deep, "spending"), (climbing, "other"), (format!("../{escaped}"), "other")] {
            let mut names = Names::default();
            names.add(table, &path);
            assert!(names.hold(part), "{path:.40}");
            assert!(names.0.iter().map(String::len).sum::<usize>() < 4 * PATH_BYTES_MAX, "{path:.40}");
        }
        assert!(started.elapsed().as_secs() < 20, "it took {:?}", started.elapsed());
        // As if undone round by round.
        for path in ["%%3235", "%%32355a%2x%", "%2%35%34%31", "%%%%", "%e4%bx"] {
            let mut rounds = path.to_string();
            for _ in 0..path.len() {
                rounds = percent_encoding::percent_decode_str(&rounds).decode_utf8_lossy().into_owned();
            }
            assert_eq!(decoded(path), rounds, "{path}");
        }
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
