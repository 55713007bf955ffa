//! From the wish to the work: which objects are new, which are known, which are held.
//!
//! In: the listing of the job's logs, and the ledger. Out: a [`Plan`].
//! Invariant: every listed object is new, known, held or set aside by its name; objects come in
//! the order of their names, so nothing depends on the order of a listing.

use super::fetch::Compression;
use super::ledger::{Entry, Ledger, MonthEntry, Status};
use crate::domain::month::Month;
use crate::error::{Error, Kind, Result};
use crate::limits::{OBJECTS_MAX, REMOTE_SPLIT_BYTES};
use crate::planted::Bug;
use crate::store::Place;
use object_store::ObjectMeta;
use object_store::path::Path;
use std::collections::{BTreeSet, HashMap, HashSet};

/// A log object as it stood when the run was planned.
#[derive(Clone, Debug)]
pub struct LogObject {
    /// Its absolute path or URL: the object's name in the ledger and in reports, however the job
    /// writes its prefix.
    pub name: String,
    pub place: Place,
    /// The etag that reads are conditional on; some stores have none.
    pub etag: Option<String>,
    /// The etag that the ledger remembers.
    pub version: String,
    pub size_bytes: u64,
    pub compression: Compression,
}

impl LogObject {
    fn new(name: String, place: Place, meta: &ObjectMeta) -> LogObject {
        let compression = Compression::of(&name);
        let version = LogObject::etag_of(meta);
        LogObject { name, place, etag: meta.e_tag.clone(), version, size_bytes: meta.size, compression }
    }

    /// The etag, or the time of the last change for stores without etags.
    pub fn etag_of(meta: &ObjectMeta) -> String {
        meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339())
    }
}

/// An object of which nothing is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub name: String,
    pub reason: String,
}

#[derive(Debug, Default)]
pub struct Plan {
    /// All objects of the listing that are logs.
    pub listed: usize,
    /// Not in the ledger: to be read.
    pub new: Vec<LogObject>,
    /// In the ledger under another etag but with the same size: counted, if they say the same.
    pub touched: Vec<LogObject>,
    pub held: Vec<Held>,
    /// Names that no log has: they begin with `_` or `.`.
    pub set_aside: Vec<String>,
}

/// What lies under the job's logs.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub objects: Vec<LogObject>,
    /// Names that no log has: they begin with `_` or `.`.
    pub set_aside: Vec<String>,
    /// What lies there and is no object, with the reason.
    pub odd: Vec<Held>,
}

/// Lists the job's logs: all objects below a prefix, or the one object of that name.
/// Errors: nothing is there.
pub fn list(logs: &str) -> Result<Listing> {
    let root = Place::open(logs)?;
    let missing = || {
        let error = Error::new(Kind::NotFound, "there are no logs").at(&root.shown);
        error.advise("check `input.logs` of the job")
    };
    if !logs.ends_with('/')
        && let Some(meta) = root.head()?
    {
        let objects = vec![LogObject::new(root.identity(), root, &meta)];
        return Ok(Listing { objects, ..Listing::default() });
    }
    let (listed, odd) = root.survey().map_err(|e| if e.kind == Kind::NotFound { missing() } else { e })?;
    let prefix = root.path.as_ref().to_string();
    let identity = root.identity();
    let folders = placeholders(&listed, &prefix);
    let (mut objects, mut set_aside) = (Vec::new(), Vec::new());
    for mut meta in listed.into_iter().filter(|meta| !folders.contains(&meta.location)) {
        let below = meta.location.as_ref().strip_prefix(&prefix).unwrap_or(meta.location.as_ref());
        let below = below.trim_start_matches('/');
        let name = format!("{identity}/{below}");
        match below.split('/').any(|segment| segment.starts_with(['_', '.'])) {
            true => set_aside.push(name),
            false => {
                let place = Place { path: meta.location.clone(), shown: name.clone(), ..root.clone() };
                // Some stores tell an object's etag, but not in a listing.
                if meta.e_tag.is_none() {
                    meta = place.head()?.unwrap_or(meta);
                }
                objects.push(LogObject::new(name, place, &meta));
            }
        }
    }
    let is_set_aside = |name: &str| {
        let below = name.strip_prefix(&identity).unwrap_or(name);
        below.split('/').any(|segment| segment.starts_with(['_', '.']))
    };
    let odd = odd.into_iter().filter(|(name, _)| !is_set_aside(name));
    let odd: Vec<Held> = odd.map(|(name, reason)| Held { name, reason: reason.to_string() }).collect();
    if objects.is_empty() && odd.is_empty() {
        return Err(missing());
    }
    if objects.len() > OBJECTS_MAX {
        return Err(
            Error::unfit(format!("{} objects; the most is {OBJECTS_MAX}", objects.len())).at(&root.shown)
        );
    }
    Ok(Listing { objects, set_aside, odd })
}

/// Empty objects that only stand for a folder: consoles of object stores make them.
fn placeholders(listed: &[ObjectMeta], prefix: &str) -> HashSet<Path> {
    let parents = |meta: &ObjectMeta| {
        let path = meta.location.as_ref();
        path.match_indices('/').map(|(at, _)| path[..at].to_string()).collect::<Vec<_>>()
    };
    let folders: HashSet<String> = listed.iter().flat_map(parents).chain([prefix.to_string()]).collect();
    let empty = listed.iter().filter(|meta| meta.size == 0 && folders.contains(meta.location.as_ref()));
    empty.map(|meta| meta.location.clone()).collect()
}

impl Plan {
    /// Holds the listing against the ledger. `rejects_max_millionths` is the job's limit now, and
    /// `duplicates` the names of objects that may say the same as others: both may let in what an
    /// earlier run held.
    pub fn new(
        listing: Listing,
        ledger: &Ledger,
        rejects_max_millionths: i64,
        duplicates: &BTreeSet<String>,
    ) -> Plan {
        let (counted, touched) = (ledger.counted_contents(), ledger.newest_runs());
        let Listing { objects, set_aside, odd } = listing;
        let mut plan = Plan { listed: objects.len(), set_aside, ..Plan::default() };
        plan.held.extend(odd);
        for object in objects {
            let Some(entry) = ledger.entries.get(&object.name) else {
                plan.new.push(object);
                continue;
            };
            let same = entry.etag == object.version && entry.size_bytes == object.size_bytes;
            match &entry.status {
                Status::Counted if same => {}
                Status::Counted if entry.size_bytes == object.size_bytes => plan.touched.push(object),
                Status::Counted if Bug::ChangedCountedAgain.is_planted() => plan.new.push(object),
                Status::Counted => plan.held.push(Held { name: object.name, reason: CHANGED.into() }),
                Status::Held(reason)
                    if same
                        && !duplicates.contains(&object.name)
                        && still_held(entry, &counted, &touched, rejects_max_millionths) =>
                {
                    plan.held.push(Held { name: object.name, reason: reason.clone() });
                }
                // A held object that was delivered again, or that the job now lets in.
                Status::Held(_) => plan.new.push(object),
            }
        }
        plan
    }

    /// Leaves out objects that are counted and will be restated: they are neither held nor as they were.
    pub fn leave_out(&mut self, restated: &BTreeSet<String>) {
        self.touched.retain(|object| !restated.contains(&object.name));
        self.held.retain(|held| !restated.contains(&held.name));
    }

    pub fn new_bytes(&self) -> u64 {
        self.new.iter().map(|object| object.size_bytes).sum()
    }
}

/// Why an object is held that was counted with other content.
pub const CHANGED: &str = "its content changed after it was counted";

/// The reason for an object whose share of rejects is above the job's limit.
pub fn too_many_rejects(rejected: u64, lines: u64) -> String {
    format!("{rejected} of {lines} lines rejected, more than limits.rejects_max_ratio allows")
}

/// Whether `rejected` of `lines` is above the limit.
pub fn above_limit(rejected: u64, lines: u64, max_millionths: i64) -> bool {
    let is_above =
        u128::from(rejected) * 1_000_000 > u128::from(lines) * max_millionths.unsigned_abs() as u128;
    is_above && !Bug::RejectLimitIgnored.is_planted()
}

/// The reason for an object that says the same as another one.
pub fn second_delivery(first: &str) -> String {
    format!("it says the same as {first}, which is counted")
}

const TOO_LARGE: &str = "with it a sum would be more than DECIMAL(18,2) holds, of ";

/// The reason for an object with which a sum of this month could not be published.
pub fn too_large(month: Month) -> String {
    format!("{TOO_LARGE}{month}")
}

/// Whether nothing that speaks against a held object has changed. `counted` are the contents that are
/// counted, `touched` the newest run that has counted something for each month.
fn still_held(
    entry: &Entry,
    counted: &HashSet<&str>,
    touched: &HashMap<Month, &str>,
    rejects_max_millionths: i64,
) -> bool {
    let twin = counted.contains(entry.content_hash.as_str());
    let damaged = entry.content_hash.is_empty();
    // Ids of runs rise with time. What was counted since may have made room.
    let is_newer =
        |month: &MonthEntry| touched.get(&month.month).is_some_and(|run| *run > entry.run_id.as_str());
    let too_large = matches!(&entry.status, Status::Held(reason) if reason.starts_with(TOO_LARGE))
        && !entry.months.iter().any(is_newer);
    twin || damaged || too_large || above_limit(entry.rows_rejected, entry.rows_read, rejects_max_millionths)
}

/// A stretch of one object that one worker maps: the lines that start in `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Index of the object in the plan.
    pub object: usize,
    pub start: u64,
    pub end: u64,
}

/// Cuts plain objects into stretches of `split_bytes`, or longer ones where they are remote; a
/// compressed object is one split.
pub fn splits(objects: &[LogObject], split_bytes: u64) -> Vec<Split> {
    let mut splits = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        if object.compression != Compression::None {
            splits.push(Split { object: index, start: 0, end: u64::MAX });
            continue;
        }
        let least = if object.place.is_local() { 0 } else { REMOTE_SPLIT_BYTES };
        let (split_bytes, mut start) = (split_bytes.max(least), 0);
        while start < object.size_bytes {
            let end = (start + split_bytes).min(object.size_bytes);
            splits.push(Split { object: index, start, end });
            start = end;
        }
    }
    splits
}

/// The objects that a month was counted from. Errors when there are none, or one is gone.
pub fn counted_for(month: Month, ledger: &Ledger, listed: &[LogObject]) -> Result<Vec<LogObject>> {
    let objects = counted(ledger, listed, |_, entry| entry.months.iter().any(|m| m.month == month))?;
    match objects.is_empty() {
        true => Err(Error::new(Kind::NotFound, format!("nothing was counted for {month}"))),
        false => Ok(objects),
    }
}

/// The objects that a recount of months takes: those that were counted for one of them, those with
/// rows outside the job's months of then, and `restated` ones. Errors when one is gone.
pub fn recounted_for(
    months: &BTreeSet<Month>,
    restated: &BTreeSet<String>,
    ledger: &Ledger,
    listed: &[LogObject],
) -> Result<Vec<LogObject>> {
    let objects = counted(ledger, listed, |name, entry| {
        let is_counted_for = entry.months.iter().any(|m| months.contains(&m.month));
        is_counted_for || entry.rows_outside > 0 || restated.contains(name)
    })?;
    match objects.is_empty() {
        true => Err(Error::new(Kind::NotFound, "nothing was counted that could be counted anew")),
        false => Ok(objects),
    }
}

fn counted(
    ledger: &Ledger,
    listed: &[LogObject],
    is_wanted: impl Fn(&String, &Entry) -> bool,
) -> Result<Vec<LogObject>> {
    let names = ledger.counted().filter(|(name, entry)| is_wanted(name, entry)).map(|(name, _)| name);
    let by_name: HashMap<&str, &LogObject> =
        listed.iter().map(|object| (object.name.as_str(), object)).collect();
    let find = |name: &String| {
        by_name.get(name.as_str()).copied().cloned().ok_or_else(|| {
            let error = Error::new(Kind::NotFound, "a raw log that was counted is gone").at(name);
            error.advise("restore it, or run with `input.logs` where it lies")
        })
    };
    names.map(find).collect()
}

/// The objects that are meant by names, whole ones or their ends behind a `/`.
/// Errors: a name means none of the listed objects, or several.
pub fn named(names: &[String], listed: &[LogObject]) -> Result<BTreeSet<String>> {
    let one = |name: &String| {
        let means = |object: &&LogObject| {
            let before = object.name.strip_suffix(name.as_str());
            before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        let mut meant = listed.iter().filter(means);
        match (meant.next(), meant.next()) {
            (Some(object), None) => Ok(object.name.clone()),
            (None, _) => Err(Error::new(Kind::NotFound, "no log of the job has this name").at(name)),
            (Some(_), Some(_)) => {
                let error = Error::unfit("several logs of the job have this name").at(name);
                Err(error.advise("give the whole name, as reports write it"))
            }
        }
    };
    names.iter().map(one).collect()
}
