//! What lies in a local folder: objects, and what only looks like one.
//!
//! In: a place. Out: its objects; odd entries with their reason; files under way to their name.
//! Invariant: no link is followed, and no name is passed over in silence.

use super::{Place, for_reading, wait};
use crate::error::{Error, Kind, Result};
use crate::planted::Bug;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use std::fs::DirEntry;
use std::path::PathBuf;
use std::time::Duration;

/// An entry of a folder that is no object, and why.
pub type Odd = (String, &'static str);

const LINK: &str = "it is a link, which could lead anywhere; deliver the file itself";
const NO_FILE: &str = "it is no plain file";
const ODD_NAME: &str = "its name has control characters or is no text; rename it";
const UNDER_WAY: &str = "its name ends in # and digits, which is kept for files under way; rename it";

/// Files of a local folder that are asked about at once.
const HEADS_AT_ONCE: usize = 16;

/// What an entry of a folder is.
enum Found {
    Folder,
    Object(Path),
    Odd(&'static str),
}

impl Found {
    fn of(entry: &DirEntry) -> std::io::Result<Found> {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_text = path.to_str().is_some_and(|text| !text.contains(char::is_control));
        Ok(match Path::from_absolute_path(&path).ok().filter(|_| is_text) {
            Some(object) if kind.is_symlink() && Bug::LinksFollowed.is_planted() => Found::Object(object),
            _ if kind.is_symlink() => Found::Odd(LINK),
            None => Found::Odd(ODD_NAME),
            Some(_) if kind.is_dir() => Found::Folder,
            Some(_) if !kind.is_file() => Found::Odd(NO_FILE),
            Some(_) if is_staged(&entry.file_name().to_string_lossy()) => Found::Odd(UNDER_WAY),
            Some(object) => Found::Object(object),
        })
    }
}

/// Listings of the inner store skip names that end in `#` and digits.
fn is_staged(name: &str) -> bool {
    let suffix = name.split_once('#').map_or("", |(_, suffix)| suffix);
    !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_digit())
}

impl Place {
    /// All objects below, sorted by path, and entries of a local folder that are no objects, with the
    /// reason: a listing would follow links wherever they lead, or fail for the sake of one name.
    pub fn survey(&self) -> Result<(Vec<ObjectMeta>, Vec<Odd>)> {
        let Ok(root) = self.url.to_file_path() else { return Ok((self.list()?, Vec::new())) };
        if !root.exists() {
            return Err(Error::new(Kind::NotFound, "there is nothing").at(&self.shown));
        }
        let (mut objects, mut odd) = (Vec::new(), Vec::new());
        for (path, entry) in self.walk(root)? {
            match entry {
                Ok(object) => objects.push(object),
                Err(_) if Bug::OddNamesPassedOver.is_planted() => {}
                Err(why) => odd.push((path.to_string_lossy().into_owned(), why)),
            }
        }
        objects.sort();
        odd.sort();
        let heads = futures::stream::iter(&objects).map(|object| self.store.head(object));
        let heads = wait(heads.buffered(HEADS_AT_ONCE).try_collect());
        Ok((heads.or_else(|e| self.fail(e))?, odd))
    }

    /// Deletes local files below that are older than this and still under way to their name: their
    /// writer was killed. Out: how many.
    pub fn clear_staged(&self, age: Duration) -> Result<usize> {
        let Ok(root) = self.url.to_file_path() else { return Ok(0) };
        let mut cleared = 0;
        for (path, entry) in self.walk(root)? {
            let is_old = || path.metadata()?.modified().map(|at| at.elapsed().is_ok_and(|gone| gone > age));
            if entry == Err(UNDER_WAY) && is_old()? {
                std::fs::remove_file(&path)?;
                cleared += 1;
            }
        }
        Ok(cleared)
    }

    /// Everything below but folders: objects, or why it is none.
    fn walk(&self, root: PathBuf) -> Result<Vec<(PathBuf, Result<Path, &'static str>)>> {
        let at = |e: std::io::Error| for_reading(e.into()).at(&self.shown);
        let (mut folders, mut entries) = (vec![root], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(at)? {
                let entry = entry.map_err(at)?;
                match Found::of(&entry).map_err(at)? {
                    Found::Folder => folders.push(entry.path()),
                    Found::Object(object) => entries.push((entry.path(), Ok(object))),
                    Found::Odd(why) => entries.push((entry.path(), Err(why))),
                }
            }
        }
        Ok(entries)
    }
}
