//! The log of a table: which of its files make up a version.
//!
//! In: the names below `_delta_log/`. Out: the newest checkpoint that can be used and all commits after
//! it, without a gap, or an error that names the table and the commit.
//! Invariant: `_last_checkpoint` is a hint. A hint that is wrong costs a listing, and never decides what
//! is read; a version is read whole or refused.

mod bodies;
mod checkpoints;
mod view;

pub(super) use bodies::check_json;
pub(super) use view::{FILE_BYTES_MAX, LogView, TOO_LARGE};

use crate::error::{Error, Result};
use crate::planted::Bug;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest hint that is looked at: the hint of a large schema has some kilobytes.
const HINT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Digits of a version in the name of a file of the log.
const VERSION_DIGITS: usize = 20;

/// What to do about a log that is damaged.
pub(super) const RESTORE: &str = "restore the table from a copy";

/// The files of a log, by version.
#[derive(Debug, Default)]
pub(super) struct Log {
    table: String,
    commits: BTreeMap<u64, ObjectMeta>,
    /// Whole checkpoints: one file, or all parts.
    checkpoints: BTreeMap<u64, Vec<ObjectMeta>>,
}

/// The files that make up one version.
#[derive(Debug)]
pub(super) struct Segment {
    pub version: u64,
    /// The version of its checkpoint.
    pub checkpoint: Option<u64>,
    pub files: Vec<ObjectMeta>,
}

/// What the name of a file of the log means.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Commit,
    /// A checkpoint of this many parts.
    Checkpoint(u32),
}

impl Log {
    /// The log of the table `name`: from its last checkpoint on, where the hint leads to one that can
    /// serve for `version`, and all of it otherwise.
    pub async fn list(lake: &Arc<dyn ObjectStore>, name: &str, version: Option<u64>) -> Result<Log> {
        let hint = hint(lake, name).await?.filter(|hint| version.is_none_or(|version| *hint <= version));
        if let Some(hint) = hint {
            let log = Log::list_from(lake, name, hint).await?;
            let newest = version.or(log.newest());
            if newest.is_some_and(|newest| log.checkpoints.range(hint..=newest).next().is_some()) {
                return Ok(log);
            }
        }
        Log::list_from(lake, name, 0).await
    }

    /// The log from a version on.
    pub async fn list_from(lake: &Arc<dyn ObjectStore>, name: &str, version: u64) -> Result<Log> {
        let folder = folder(name);
        let offset = folder.clone().join(format!("{version:020}"));
        let listed = lake.list_with_offset(Some(&folder), &offset).try_collect::<Vec<_>>().await;
        let mut log = Log { table: name.to_string(), ..Log::default() };
        let mut parts: BTreeMap<(u64, u32), Vec<ObjectMeta>> = BTreeMap::new();
        for meta in listed.map_err(|e| Error::from(e).at(name))? {
            match meaning(&folder, &meta.location) {
                Some((version, Name::Commit)) => drop(log.commits.insert(version, meta)),
                Some((version, Name::Checkpoint(of))) => parts.entry((version, of)).or_default().push(meta),
                None => {}
            }
        }
        for ((version, of), mut files) in parts {
            files.sort_by(|a, b| a.location.cmp(&b.location));
            match of {
                // Several checkpoints of a version say the same: the library is shown one of them.
                1 => drop(log.checkpoints.insert(version, files.split_off(files.len() - 1))),
                of if files.len() == of as usize => drop(log.checkpoints.entry(version).or_insert(files)),
                _ => {}
            }
        }
        Ok(log)
    }

    fn oldest(&self) -> u64 {
        self.commits.keys().next().copied().unwrap_or(0)
    }

    fn newest(&self) -> Option<u64> {
        let newest = |versions: Option<&u64>| versions.copied();
        newest(self.commits.keys().next_back()).max(newest(self.checkpoints.keys().next_back()))
    }

    /// The files that make up `version`, or the newest, from the newest checkpoint that is older than
    /// `before`; none where there is no log. Errors when a commit is missing: what came after it cannot be
    /// known.
    pub async fn segment(
        &mut self,
        lake: &Arc<dyn ObjectStore>,
        version: Option<u64>,
        before: u64,
    ) -> Result<Option<Segment>> {
        let Some(version) = version.or(self.newest()) else { return Ok(None) };
        loop {
            let missing = match self.choose(version, before) {
                Ok(segment) => return Ok(Some(segment)),
                Err(missing) => missing,
            };
            // A listing can lack what the store holds.
            match lake.head(&folder(&self.table).join(format!("{missing:020}.json"))).await {
                Ok(meta) => drop(self.commits.insert(missing, meta)),
                Err(object_store::Error::NotFound { .. }) => return Err(self.gap(missing)),
                Err(error) => return Err(Error::from(error).at(&self.table)),
            }
        }
    }

    /// The files of a version, or the first commit that is missing among them.
    fn choose(&self, version: u64, before: u64) -> std::result::Result<Segment, u64> {
        // A writer commits before it writes a checkpoint of its commit.
        let last = self.commits.get(&version).ok_or(version)?;
        let checkpoint = self.checkpoints.range(..=version).rfind(|(checkpoint, _)| **checkpoint < before);
        let first = checkpoint.map_or(0, |(checkpoint, _)| checkpoint + 1);
        let first = if Bug::GapOverlooked.is_planted() { first.max(self.oldest()) } else { first };
        let mut files: Vec<ObjectMeta> = checkpoint.map_or(Vec::new(), |(_, files)| files.clone());
        for expected in first..version {
            files.push(self.commits.get(&expected).ok_or(expected)?.clone());
        }
        // The library reads times from the commit of a checkpoint as well.
        files.push(last.clone());
        files.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(Segment { version, checkpoint: checkpoint.map(|(version, _)| *version), files })
    }

    fn gap(&self, version: u64) -> Error {
        let error = Error::unfit(format!("commit {version} is missing from its log"));
        error.at(&self.table).advise(RESTORE)
    }
}

/// Where the log of a table lies in its lake.
fn folder(table: &str) -> Path {
    Path::from(table).join("_delta_log")
}

/// The version that `_last_checkpoint` names, where it is one. Errors: the store cannot be read.
async fn hint(lake: &Arc<dyn ObjectStore>, name: &str) -> Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Hint {
        version: u64,
    }
    let read = async {
        let found = lake.get(&folder(name).join("_last_checkpoint")).await?;
        match found.meta.size <= HINT_BYTES_MAX {
            true => found.bytes().await.map(Some),
            false => Ok(None),
        }
    };
    match read.await {
        Ok(bytes) => Ok(bytes.and_then(|b| serde_json::from_slice::<Hint>(&b).ok()).map(|hint| hint.version)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(Error::from(error).at(name)),
    }
}

/// The version of a file of the log, and what it is; none of files that are no part of a version.
fn meaning(folder: &Path, location: &Path) -> Option<(u64, Name)> {
    let name = location.as_ref().strip_prefix(folder.as_ref())?.strip_prefix('/')?;
    let (version, rest) = name.split_once('.')?;
    if version.len() != VERSION_DIGITS || !version.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let version = version.parse().ok()?;
    let words: Vec<&str> = rest.split('.').collect();
    match words[..] {
        ["json"] => Some((version, Name::Commit)),
        ["checkpoint", "parquet"] => Some((version, Name::Checkpoint(1))),
        ["checkpoint", id, "json" | "parquet"] if uuid::Uuid::parse_str(id).is_ok() => {
            Some((version, Name::Checkpoint(1)))
        }
        ["checkpoint", part, of, "parquet"] if part.len() == 10 && of.len() == 10 => {
            part.parse::<u32>().ok()?;
            Some((version, Name::Checkpoint(of.parse().ok()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_log_mean_what_the_protocol_says() {
        let folder = Path::from("t/_delta_log");
        let meaning = |name: &str| meaning(&folder, &Path::from(format!("t/_delta_log/{name}")));
        let version = format!("{:020}", 7);
        assert_eq!(meaning(&format!("{version}.json")), Some((7, Name::Commit)));
        let uuid = "80a083e8-7026-4e79-81be-64bd76c43a11";
        for name in ["checkpoint.parquet".into(), format!("checkpoint.{uuid}.json")] {
            assert_eq!(meaning(&format!("{version}.{name}")), Some((7, Name::Checkpoint(1))));
        }
        let part = format!("{version}.checkpoint.0000000001.0000000003.parquet");
        assert_eq!(meaning(&part), Some((7, Name::Checkpoint(3))));
        for name in ["7.json".into(), format!("{version}.crc"), format!("{version}.0.compacted.json")] {
            assert_eq!(meaning(&name), None, "{name}");
        }
    }
}
