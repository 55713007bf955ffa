//! Bounds on what a file of a log may hold, before the library reads it.
//!
//! In: the body of a commit or a checkpoint. Out: what is wrong with it.
//! Invariant: brackets nest to a depth that no parser's stack minds, in the text itself and in the JSON
//! that its strings hold; every line of a commit is a JSON object.

use crate::planted::Bug;
use arrow::array::AsArray;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeSet;

/// As deep as JSON may nest: what serde_json takes.
const DEPTH_MAX: usize = 127;

/// The longest line of a commit: statistics of thousands of columns come to megabytes.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a checkpoint may claim before it is decoded.
const ROWS_MAX: i64 = 20_000_000;
const UNPACKED_BYTES_MAX: i64 = 8 * 1024 * 1024 * 1024;

const TOO_DEEP: &str = "it nests brackets deeper than any writer does";
const NO_JSON: &str = "it is cut short or is not JSON";
const NO_PARQUET: &str = "it is no Parquet";

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

/// Errors when a checkpoint in Parquet claims too much, or its statistics nest too deep.
pub(super) fn check_parquet(body: &Bytes) -> Result<(), &'static str> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(body.clone(), options);
    let builder = builder.map_err(|_| NO_PARQUET)?;
    let metadata = builder.metadata();
    let unpacked: i64 = metadata.row_groups().iter().map(|group| group.total_byte_size().max(0)).sum();
    if metadata.file_metadata().num_rows() > ROWS_MAX || unpacked > UNPACKED_BYTES_MAX {
        return Err("it claims more rows or bytes than any writer's");
    }
    let schema = metadata.file_metadata().schema_descr();
    let is_statistics =
        |column: &parquet::schema::types::ColumnDescPtr| column.path().string() == "add.stats";
    let Some(leaf) = schema.columns().iter().position(is_statistics) else { return Ok(()) };
    let mask = ProjectionMask::leaves(schema, [leaf]);
    let reader = builder.with_projection(mask).build().map_err(|_| NO_PARQUET)?;
    for batch in reader {
        let batch = batch.map_err(|_| NO_PARQUET)?;
        let add = batch.column_by_name("add").and_then(|column| column.as_struct_opt());
        let stats = add.and_then(|add| add.column_by_name("stats")).and_then(|s| s.as_string_opt::<i32>());
        let stats = stats.ok_or(NO_PARQUET)?;
        if stats.iter().flatten().any(|stats| is_too_deep(stats.as_bytes())) {
            return Err(TOO_DEEP);
        }
    }
    Ok(())
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
fn is_too_deep(text: &[u8]) -> bool {
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
    fn statistics_in_a_checkpoint_nest_to_the_same_bound() {
        use arrow::array::{ArrayRef, RecordBatch, StringArray, StructArray};
        use std::sync::Arc;
        let checkpoint = |stats: &str| {
            let stats: ArrayRef = Arc::new(StringArray::from(vec![Some("{}"), None, Some(stats)]));
            let field = Arc::new(arrow::datatypes::Field::new("stats", stats.data_type().clone(), true));
            let add: ArrayRef = Arc::new(StructArray::from(vec![(field, stats)]));
            let batch = RecordBatch::try_from_iter([("add", add)]).unwrap();
            let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            Bytes::from(writer.into_inner().unwrap())
        };
        let deep = format!("{{\"minValues\":{}", "[".repeat(100_000));
        assert_eq!(check_parquet(&checkpoint(&deep)), Err(TOO_DEEP));
        assert_eq!(check_parquet(&checkpoint("{\"numRecords\":1}")), Ok(()));
        assert_eq!(check_parquet(&Bytes::from_static(b"no Parquet")), Err(NO_PARQUET));
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
