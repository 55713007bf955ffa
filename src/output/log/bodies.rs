//! Bounds on what a commit may hold, before the library reads it.
//!
//! In: the body of a commit. Out: what is wrong with it.
//! Invariant: brackets nest to a depth that no parser's stack minds, in the text itself and in the JSON
//! that its strings hold; every line of a commit is a JSON object.

use crate::planted::Bug;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeSet;

/// As deep as JSON may nest: what serde_json takes.
const DEPTH_MAX: usize = 127;

/// The longest line of a commit: statistics of thousands of columns come to megabytes.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) const TOO_DEEP: &str = "it nests brackets deeper than any writer does";
const NO_JSON: &str = "it is cut short or is not JSON";

/// What a line of a commit says of a file, and by what the protocol knows it.
#[derive(Deserialize)]
struct Line {
    add: Option<FileKey>,
    remove: Option<FileKey>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
struct FileKey {
    path: String,
    deletion_vector: Option<VectorKey>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
struct VectorKey {
    storage_type: String,
    path_or_inline_dv: String,
    offset: Option<i64>,
}

/// Errors when a commit is not lines of JSON objects within their bounds, or adds and removes one file:
/// the protocol forbids it, since nobody knows which holds.
pub(in crate::output) fn check_json(body: &[u8]) -> Result<(), &'static str> {
    let mut is_empty = true;
    let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for line in body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        is_empty = false;
        if line.len() > LINE_BYTES_MAX {
            return Err("a line of it is longer than any writer's");
        }
        if is_too_deep(line) {
            return Err(TOO_DEEP);
        }
        if line[0] != b'{' || serde_json::from_slice::<IgnoredAny>(line).is_err() {
            return Err(NO_JSON);
        }
        let line: Line = serde_json::from_slice(line).map_err(|_| "it is not a commit")?;
        added.extend(line.add);
        removed.extend(line.remove);
    }
    if !added.is_disjoint(&removed) {
        return Err("it adds and removes the same file");
    }
    if is_empty { Err("it is empty") } else { Ok(()) }
}

/// Brackets that are open, and strings.
#[derive(Clone, Copy, Default)]
struct Nesting {
    depth: usize,
    is_text: bool,
    is_escaped: bool,
}

/// What a byte is to the nesting that it is read in.
enum Byte {
    /// Of the text's own structure.
    Structure,
    /// A byte of a string, its escapes undone.
    OfString(u8),
    /// A string begins.
    Begins,
}

impl Nesting {
    fn read(&mut self, byte: u8) -> Byte {
        if !self.is_text {
            match byte {
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                b'"' => {
                    self.is_text = true;
                    return Byte::Begins;
                }
                _ => {}
            }
            return Byte::Structure;
        }
        match byte {
            _ if self.is_escaped => {
                self.is_escaped = false;
                Byte::OfString(byte)
            }
            b'\\' => {
                self.is_escaped = true;
                Byte::Structure
            }
            b'"' => {
                self.is_text = false;
                Byte::Structure
            }
            _ => Byte::OfString(byte),
        }
    }
}

/// Whether brackets nest too deep, in the text or in JSON that one of its strings holds: statistics and
/// schemas are such.
pub(super) fn is_too_deep(text: &[u8]) -> bool {
    let (mut outer, mut inner) = (Nesting::default(), Nesting::default());
    for &byte in text {
        match outer.read(byte) {
            Byte::Structure => {}
            Byte::Begins => inner = Nesting::default(),
            Byte::OfString(byte) => drop(inner.read(byte)),
        }
        if outer.depth > DEPTH_MAX || inner.depth > DEPTH_MAX {
            return !Bug::NestingUnbounded.is_planted();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_counted_where_they_nest_and_nowhere_else() {
        let deep = |count: usize| "[".repeat(count) + &"]".repeat(count);
        assert!(is_too_deep(deep(DEPTH_MAX + 1).as_bytes()) && !is_too_deep(deep(DEPTH_MAX).as_bytes()));
        let text = |inner: &str| serde_json::to_string(&serde_json::json!({ "stats": inner })).unwrap();
        let stats = |inner: &str| format!(r#"{{"numRecords":1,"minValues":{{"a\"b":{inner}}}}}"#);
        assert!(is_too_deep(text(&stats(&deep(500))).as_bytes()), "in the JSON of a string");
        let words = serde_json::to_string(&"[".repeat(500)).unwrap();
        assert!(!is_too_deep(text(&stats(&words)).as_bytes()), "brackets in a string of that JSON are text");
        assert!(!is_too_deep(format!("[{}]", "[],".repeat(500)).as_bytes()), "one beside the other");
    }

    #[test]
    fn a_commit_is_lines_of_objects() {
        assert_eq!(check_json(b"{\"a\":1}\n\n{\"b\":[]}\r\n"), Ok(()));
        let vector = r#"{"storageType":"i","pathOrInlineDv":"x","sizeInBytes":1,"cardinality":1}"#;
        let again = format!(
            "{{\"remove\":{{\"path\":\"p\"}}}}\n{{\"add\":{{\"path\":\"p\",\"deletionVector\":{vector}}}}}"
        );
        assert_eq!(check_json(again.as_bytes()), Ok(()), "with a vector it is another file");
        for (body, what) in [
            ("", "it is empty"),
            ("\n \n", "it is empty"),
            ("{\"a\":1}\n{\"b\":", NO_JSON),
            ("[]", NO_JSON),
            ("{\"a\":1} {", NO_JSON),
            ("{\"add\":7}", "it is not a commit"),
            (
                "{\"add\":{\"path\":\"p\"}}\n{\"remove\":{\"path\":\"p\"}}",
                "it adds and removes the same file",
            ),
        ] {
            assert_eq!(check_json(body.as_bytes()), Err(what), "{body}");
        }
    }
}
