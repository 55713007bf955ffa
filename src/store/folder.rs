//! What lies in a local folder: objects, and what only looks like one.
//!
//! In: a place. Out: its objects; odd entries with their reason; files under way to their name.
//! Invariant: no link is followed, and no name is passed over in silence.

use super::local::{description, is_staged_by_us};
use super::{Place, for_reading, wait};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::planted::Bug;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use std::fs::DirEntry;
use std::path::PathBuf;
use url::Url;

/// An entry of a folder that is no object, and why.
pub type Odd = (String, &'static str);

const LINK: &str = "it is a link, which could lead anywhere; deliver the file itself";
const NOT_FOLLOWED: &str = "it is a link, and was not followed: put the file or folder itself there";
const NO_FILE: &str = "it is no plain file";
const ODD_NAME: &str = "its name has control characters or is no text; rename it";
const UNDER_WAY: &str = "its name ends in # and digits, which is kept for files under way; rename it";
const UNREADABLE: &str = "it cannot be read; let this program read it, or move it away";

/// Files of a local folder that are asked about at once.
const HEADS_AT_ONCE: usize = 16;

/// What an entry of a folder is that is no folder to look into.
enum Found {
    Object(Path),
    /// A put of this program has made it, on the way to its name.
    Staged,
    Odd(&'static str),
    Unreadable(std::io::Error),
}

/// What lies below a place.
#[derive(Default)]
pub struct Contents {
    pub objects: Vec<ObjectMeta>,
    pub staged: Vec<Staged>,
    pub odd: Vec<Odd>,
}

/// A local file that a put of this program has left on the way to its name.
pub struct Staged {
    path: PathBuf,
    pub last_modified: DateTime<Utc>,
}

/// What lies right below a place.
#[derive(Default)]
pub struct Children {
    /// By their names, as they stand there.
    pub folders: Vec<(String, Place)>,
    pub objects: Vec<ObjectMeta>,
    pub odd: Vec<Odd>,
}

impl Found {
    /// None of a folder.
    fn of(entry: &DirEntry) -> std::io::Result<Option<Found>> {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_text = path.to_str().is_some_and(|text| !text.contains(char::is_control));
        Ok(Some(match Path::from_absolute_path(&path).ok().filter(|_| is_text) {
            Some(object) if kind.is_symlink() && Bug::LinksFollowed.is_planted() => Found::Object(object),
            _ if kind.is_symlink() => Found::Odd(LINK),
            None => Found::Odd(ODD_NAME),
            Some(_) if kind.is_dir() => return Ok(None),
            Some(_) if !kind.is_file() => Found::Odd(NO_FILE),
            Some(_) if is_staged_by_us(&entry.file_name().to_string_lossy()) => Found::Staged,
            Some(_) if is_staged(&entry.file_name().to_string_lossy()) => Found::Odd(UNDER_WAY),
            Some(object) => Found::Object(object),
        }))
    }
}

/// Listings of the inner store skip names that end in `#` and digits.
pub(super) fn is_staged(name: &str) -> bool {
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
        for (path, found) in self.walk(root)? {
            let why = match found {
                Found::Object(object) => {
                    objects.push(object);
                    continue;
                }
                Found::Unreadable(error) => return Err(for_reading(error.into()).at(path.display())),
                Found::Odd(why) => why,
                Found::Staged => UNDER_WAY,
            };
            if !Bug::OddNamesPassedOver.is_planted() {
                odd.push((path.to_string_lossy().into_owned(), why));
            }
        }
        objects.sort();
        odd.sort();
        let heads = futures::stream::iter(&objects).map(|object| self.store.head(object));
        let heads = wait(heads.buffered(HEADS_AT_ONCE).try_collect());
        Ok((heads.or_else(|e| self.fail(e))?, odd))
    }

    /// All that lies below. What cannot be read is odd, too; an error only where the place itself is.
    pub fn contents(&self) -> Result<Contents> {
        let Ok(root) = self.url.to_file_path() else {
            return Ok(Contents { objects: self.list()?, ..Contents::default() });
        };
        if Bug::GcFollowsLinks.is_planted() {
            return Ok(Contents { objects: self.list()?, ..Contents::default() });
        }
        let mut contents = Contents::default();
        for (path, found) in self.walk(root)? {
            let mut odd = |why| contents.odd.push((path.to_string_lossy().into_owned(), why));
            match found {
                Found::Odd(LINK) => odd(NOT_FOLLOWED),
                Found::Odd(why) => odd(why),
                Found::Unreadable(_) => odd(UNREADABLE),
                Found::Object(location) => match described(&path, location) {
                    Ok(object) => contents.objects.extend(object),
                    Err(_) => odd(UNREADABLE),
                },
                Found::Staged => {
                    if let Ok(last_modified) = path.symlink_metadata().and_then(|found| found.modified()) {
                        contents.staged.push(Staged { path, last_modified: last_modified.into() });
                    }
                }
            }
        }
        contents.objects.sort_by(|a, b| a.location.cmp(&b.location));
        contents.odd.sort();
        Ok(contents)
    }

    /// What lies right below, whatever lies further down.
    pub fn children(&self) -> Result<Children> {
        let mut children = Children::default();
        let Ok(root) = self.url.to_file_path() else {
            let listed = wait(self.store.list_with_delimiter(Some(&self.path))).or_else(|e| self.fail(e))?;
            children.objects = listed.objects;
            let named = |path: Path| Some((path.filename()?.to_string(), self.at_path(path)));
            children.folders = listed.common_prefixes.into_iter().filter_map(named).collect();
            return Ok(children);
        };
        let at = |e: std::io::Error| for_reading(e.into()).at(&self.shown);
        for entry in std::fs::read_dir(&root).map_err(at)? {
            let entry = entry.map_err(at)?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let mut odd = |why| children.odd.push((path.to_string_lossy().into_owned(), why));
            match Found::of(&entry).map_err(at)? {
                None => children.folders.push((name, self.folder(&path)?)),
                Some(Found::Object(location)) => {
                    children.objects.extend(described(&path, location).map_err(at)?)
                }
                Some(Found::Odd(LINK)) => odd(NOT_FOLLOWED),
                Some(Found::Odd(why)) => odd(why),
                Some(Found::Staged | Found::Unreadable(_)) => odd(UNDER_WAY),
            }
        }
        children.folders.sort_by(|a, b| a.0.cmp(&b.0));
        children.odd.sort();
        Ok(children)
    }

    /// The place of a local folder below, whatever its name.
    fn folder(&self, path: &std::path::Path) -> Result<Place> {
        let unfit = |what: &str| Error::unfit(what).at(path.display());
        let location = Path::from_absolute_path(path).map_err(|_| unfit(ODD_NAME))?;
        let url = Url::from_directory_path(path).map_err(|()| unfit(ODD_NAME))?;
        Ok(Place { url, ..self.at_path(location) })
    }

    /// Deletes what a put has left below.
    pub fn remove_staged(&self, staged: &Staged) -> Result<()> {
        let Ok(root) = self.url.to_file_path() else { return Ok(()) };
        let below = staged.path.strip_prefix(&root).unwrap_or(&staged.path);
        files::remove(&root, below).map_err(|e| files::failure(e).at(staged.path.display()))
    }

    /// Everything below but folders that can be read.
    fn walk(&self, root: PathBuf) -> Result<Vec<(PathBuf, Found)>> {
        let at = |e: std::io::Error| for_reading(e.into()).at(&self.shown);
        let (mut folders, mut entries) = (vec![root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            let opened = match std::fs::read_dir(&folder) {
                Ok(opened) => opened,
                Err(error) if folder == root => return Err(at(error)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    entries.push((folder, Found::Unreadable(error)));
                    continue;
                }
            };
            for entry in opened {
                let entry = entry.map_err(at)?;
                match Found::of(&entry).map_err(at)? {
                    Some(found) => entries.push((entry.path(), found)),
                    None => folders.push(entry.path()),
                }
            }
        }
        Ok(entries)
    }
}

/// The file as an object; none where it has gone in the meantime.
fn described(path: &std::path::Path, location: Path) -> std::io::Result<Option<ObjectMeta>> {
    match path.symlink_metadata().and_then(|found| description(&found, location)) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
