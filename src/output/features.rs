//! What a table demands of who reads or writes it, beyond what this program does.
//!
//! In: the protocol, the metadata and the files of a version. Out: demands that are not met, by name.
//! Invariant: a feature is met only if it is known here; what no one has heard of is not met.
//!
//! The Delta protocol (delta-io/delta, PROTOCOL.md) gives each table a reader and a writer version. From
//! reader version 3 and writer version 7 on, the table lists its features, and "reading or writing a
//! table must be refused" by whom a listed feature is unknown ("Table Features"). Below that, a version
//! implies features, used or not ("Valid Feature Names in Table Features", "Legacy"):
//!
//! | version | implies | in use where |
//! |---|---|---|
//! | reader 2, writer 5 | columnMapping | `delta.columnMapping.mode` is not `none` |
//! | writer 2 | appendOnly | `delta.appendOnly` is `true` |
//! | writer 2 | invariants | a field has `delta.invariants` |
//! | writer 3 | checkConstraints | a property begins with `delta.constraints.` |
//! | writer 4 | changeDataFeed | `delta.enableChangeDataFeed` is `true` |
//! | writer 4 | generatedColumns | a field has `delta.generationExpression` |
//! | writer 6 | identityColumns | a field has a key that begins with `delta.identity.` |
//!
//! For these the protocol says where their use shows, so a version that implies them, or a list with
//! them, is met where none is used; use is a demand whatever the versions say. A writer's demand does
//! not bind readers: such a table may be read, and nothing is committed to it.

use crate::planted::Bug;
use deltalake_core::kernel::{LogicalFileView, Metadata};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// Features that show where they are used.
const SHOWN_BY_USE: [&str; 7] = [
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "columnMapping",
    "generatedColumns",
    "identityColumns",
    "invariants",
];

/// What readers have to know and this program does: a type that it has, checkpoints that the library
/// reads, and a check before files are deleted, which cleaning up makes since it commits first.
const READ_AND_WRITTEN: [&str; 3] = ["timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"];

/// What is no feature, and demands as much of a reader.
pub(super) const OUTSIDE: &str = "some of its files lie outside the table, as in a shallow clone";

/// The versions that list their features; there are none above.
const LISTING_READER: i32 = 3;
const LISTING_WRITER: i32 = 7;

/// The protocol of a table, as its log has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Versions {
    min_reader_version: i32,
    min_writer_version: i32,
    reader_features: Option<Vec<String>>,
    writer_features: Option<Vec<String>>,
}

/// The metadata of a table, as its log has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Noted {
    #[serde(default)]
    configuration: HashMap<String, Option<String>>,
    #[serde(default)]
    schema_string: String,
}

impl Noted {
    pub fn of(metadata: &Metadata) -> Noted {
        let property = |(name, value): (&String, &String)| (name.clone(), Some(value.clone()));
        Noted {
            configuration: metadata.configuration().iter().map(property).collect(),
            schema_string: metadata.schema_string().clone(),
        }
    }
}

/// Demands that this program does not meet, in words for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Demands {
    pub of_readers: BTreeSet<String>,
    /// Those of readers bind writers too and are not repeated here.
    pub of_writers: BTreeSet<String>,
}

impl Demands {
    /// Of a protocol alone.
    pub fn of_protocol(versions: Versions) -> Demands {
        let mut demands = Demands::default();
        if Bug::FeaturesIgnored.is_planted() {
            return demands;
        }
        let is_unmet =
            |name: &String| ![&SHOWN_BY_USE[..], &READ_AND_WRITTEN].concat().contains(&name.as_str());
        demands.of_readers.extend(versions.reader_features.into_iter().flatten().filter(is_unmet));
        if versions.min_reader_version > LISTING_READER {
            demands.of_readers.insert(format!("reader version {}", versions.min_reader_version));
        }
        demands.of_writers.extend(versions.writer_features.into_iter().flatten().filter(is_unmet));
        demands.of_writers.retain(|name| !demands.of_readers.contains(name));
        if versions.min_writer_version > LISTING_WRITER {
            demands.of_writers.insert(format!("writer version {}", versions.min_writer_version));
        }
        demands
    }

    /// Adds what the properties and the fields of a table show.
    pub fn add_metadata(&mut self, metadata: &Noted) {
        if !Bug::FeaturesIgnored.is_planted() {
            self.add_properties(metadata);
            self.add_fields(metadata);
        }
    }

    fn add_properties(&mut self, metadata: &Noted) {
        let properties = &metadata.configuration;
        let value = |name: &str| properties.get(name).and_then(Option::as_deref);
        let is_on = |name: &str| value(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let mapping = value("delta.columnMapping.mode");
        if mapping.is_some_and(|mode| !mode.eq_ignore_ascii_case("none")) {
            self.of_readers.insert("columnMapping".into());
        }
        if is_on("delta.appendOnly") {
            self.of_writers.insert("appendOnly".into());
        }
        if is_on("delta.enableChangeDataFeed") {
            self.of_writers.insert("changeDataFeed".into());
        }
        if properties.keys().any(|name| name.starts_with("delta.constraints.")) {
            self.of_writers.insert("checkConstraints".into());
        }
    }

    /// What the metadata of fields shows, however deep they lie. Whoever wrote it: names and types alone
    /// make a schema, so notes of other programs are no demand.
    fn add_fields(&mut self, metadata: &Noted) {
        let Ok(schema) = serde_json::from_str::<Value>(&metadata.schema_string) else { return };
        let mut waiting = vec![&schema];
        while let Some(value) = waiting.pop() {
            let Value::Object(object) = value else {
                waiting.extend(value.as_array().into_iter().flatten());
                continue;
            };
            waiting.extend(object.values());
            let Some(Value::Object(notes)) = object.get("metadata") else { continue };
            for name in notes.keys() {
                match name.as_str() {
                    "delta.invariants" => drop(self.of_writers.insert("invariants".into())),
                    "delta.generationExpression" => drop(self.of_writers.insert("generatedColumns".into())),
                    "delta.typeChanges" => drop(self.of_readers.insert("typeWidening".into())),
                    name if name.starts_with("delta.identity.") => {
                        self.of_writers.insert("identityColumns".into());
                    }
                    _ => {}
                }
            }
        }
    }

    /// What a file of the table demands, whatever the protocol lists: a vector of rows that are deleted,
    /// or to be looked for outside the table, as files of a shallow clone are.
    pub fn add_file(&mut self, file: &LogicalFileView) {
        if Bug::FeaturesIgnored.is_planted() {
            return;
        }
        if file.deletion_vector_descriptor().is_some() {
            self.of_readers.insert("deletionVectors".into());
        }
        let path = file.path();
        let is_outside = path.starts_with('/')
            || path.contains("://")
            || path.starts_with("file:")
            || path.split('/').any(|segment| segment == "..");
        if is_outside {
            self.of_readers.insert(OUTSIDE.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demands(reader: i32, writer: i32, features: &[&str]) -> Demands {
        let names: Vec<String> = features.iter().map(ToString::to_string).collect();
        Demands::of_protocol(Versions {
            min_reader_version: reader,
            min_writer_version: writer,
            reader_features: (reader == LISTING_READER).then(|| names.clone()),
            writer_features: (writer == LISTING_WRITER).then_some(names),
        })
    }

    #[test]
    fn a_feature_is_met_only_if_it_is_known() {
        for writer in 1..=6 {
            assert_eq!(demands(1 + i32::from(writer > 4), writer, &[]), Demands::default());
        }
        assert_eq!(demands(3, 7, &["timestampNtz", "v2Checkpoint", "columnMapping"]), Demands::default());
        for name in ["deletionVectors", "typeWidening", "catalogManaged", "tomorrow'sFeature"] {
            let both = demands(3, 7, &[name]);
            assert_eq!((both.of_readers.len(), both.of_writers.len()), (1, 0), "{name}");
            let of_writers = demands(1, 7, &[name]);
            assert_eq!((of_writers.of_readers.len(), of_writers.of_writers.len()), (0, 1), "{name}");
        }
        let newer = demands(4, 8, &[]);
        assert!(
            newer.of_readers.contains("reader version 4") && newer.of_writers.contains("writer version 8")
        );
    }
}
