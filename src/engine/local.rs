//! The map on one machine: rayon workers over splits.
//!
//! In: the objects to read, the rules, the partitions. Out: an outcome per object, and the
//! shuffle full of movements.
//! Invariant: splits are taken front to back, each by one worker; bytes planned are bytes read,
//! or the run stops; outcomes do not depend on who took what.

use super::shuffle::Shuffle;
use crate::domain::month::Month;
use crate::domain::zone::Zone;
use crate::error::{Error, Result};
use crate::input::fetch;
use crate::input::plan::{LogObject, Split, splits};
use crate::kernel::categorize::Categorizer;
use crate::kernel::content::Content;
use crate::kernel::fused::{MapRules, Mapper, Outcome, Recorder};
use crate::kernel::memo::{Memo, MemoCounts};
use crate::kernel::parse::{Line, parse_line};
use crate::kernel::partition::{Partitioner, Scatter};
use crate::kernel::scan::{Block, Scanner};
use crate::limits::{PARTITION_ROWS_TARGET, PARTITIONS_MAX, READ_BYTES, REJECT_BYTES_MAX, SPLIT_BYTES};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How the work is cut and how much memory it may hold. Results never depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// 0 means one per core.
    pub threads: usize,
    pub split_bytes: u64,
    pub read_bytes: usize,
    pub memory_bytes: u64,
}

impl Tuning {
    pub fn new(threads: usize, memory_bytes: u64) -> Tuning {
        Tuning { threads, split_bytes: SPLIT_BYTES, read_bytes: READ_BYTES, memory_bytes }
    }

    pub fn pool(&self) -> Result<rayon::ThreadPool> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build();
        pool.map_err(|e| Error::new(crate::error::Kind::Temporary, format!("cannot start threads: {e}")))
    }

    /// What movements may take of the memory; the rest is for the parts being written.
    fn shuffle_bytes(&self) -> u64 {
        self.memory_bytes / 2
    }
}

/// What an object came to: its counts, or why it cannot be read to its end.
pub type ObjectOutcome = Result<Outcome, String>;

pub struct Mapped {
    /// In the order of the objects.
    pub outcomes: Vec<ObjectOutcome>,
    pub shuffle: Shuffle,
    pub partitioner: Partitioner,
    /// How often workers knew a seller. The only figure that depends on who took what.
    pub memo: MemoCounts,
}

/// Keeps what a worker recorded on a split.
pub trait Record: Sync {
    type Recorder: Recorder;
    /// A recorder for one split.
    fn start(&self) -> Self::Recorder;
    /// Called once per split, in any order; `index` counts splits front to back, `lines` are the
    /// lines of this one.
    fn finish(&self, split: Split, index: usize, lines: u64, recorder: Self::Recorder) -> Result<()>;
}

impl Record for () {
    type Recorder = ();
    fn start(&self) {}
    fn finish(&self, _: Split, _: usize, _: u64, _: ()) -> Result<()> {
        Ok(())
    }
}

struct Work<'a, R> {
    objects: &'a [LogObject],
    splits: &'a [Split],
    rules: &'a MapRules<'a>,
    categorizer: &'a Categorizer,
    partitioner: &'a Partitioner,
    shuffle: &'a Shuffle,
    tuning: &'a Tuning,
    record: &'a R,
    on_bytes: &'a (dyn Fn(u64) + Sync),
    next: AtomicUsize,
    /// By object.
    reject_bytes: Vec<AtomicU64>,
    outcomes: Mutex<Vec<Option<ObjectOutcome>>>,
    failure: Mutex<Option<Error>>,
    memo: Mutex<MemoCounts>,
}

/// Maps all objects. `on_bytes` hears of progress.
pub fn map<R: Record>(
    objects: &[LogObject],
    rules: &MapRules,
    categorizer: &Categorizer,
    tuning: &Tuning,
    record: &R,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Mapped> {
    let splits = splits(objects, tuning.split_bytes);
    let partitioner = partition_by_sample(objects, rules)?;
    let shuffle = Shuffle::new(partitioner.count(), tuning.shuffle_bytes());
    let pool = tuning.pool()?;
    let work = Work {
        objects,
        splits: &splits,
        rules,
        categorizer,
        partitioner: &partitioner,
        shuffle: &shuffle,
        tuning,
        record,
        on_bytes,
        next: AtomicUsize::new(0),
        reject_bytes: objects.iter().map(|_| AtomicU64::new(0)).collect(),
        outcomes: Mutex::new(vec![None; splits.len()]),
        failure: Mutex::new(None),
        memo: Mutex::default(),
    };
    let workers = pool.current_num_threads().min(splits.len().max(1));
    pool.in_place_scope(|scope| (0..workers).for_each(|_| scope.spawn(|_| work.run_worker())));
    if let Some(failure) = work.failure.into_inner().expect("no thread panics while it holds this") {
        return Err(failure);
    }
    let memo = work.memo.into_inner().expect("no thread panics while it holds this");
    let by_split = work.outcomes.into_inner().expect("no thread panics while it holds this");
    // An object that changed underneath explains bytes that do not add up, so it is asked first.
    objects.iter().try_for_each(LogObject::still_as_planned)?;
    let outcomes = by_object(objects, &splits, by_split)?;
    Ok(Mapped { outcomes, shuffle, partitioner, memo })
}

impl<'a, R: Record> Work<'a, R> {
    fn run_worker(&self) {
        let mut memo = Memo::new(self.categorizer);
        let mut scatter = Scatter::new(self.partitioner, self.shuffle);
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.splits.len() || self.failure.lock().is_ok_and(|f| f.is_some()) {
                break;
            }
            match self.map_split(index, &mut memo, &mut scatter) {
                Ok(outcome) => {
                    self.outcomes.lock().expect("no thread panics in here")[index] = Some(outcome);
                }
                Err(error) => {
                    self.failure.lock().expect("no thread panics in here").get_or_insert(error);
                }
            }
        }
        scatter.finish();
        let mut sum = self.memo.lock().expect("no thread panics in here");
        *sum = sum.plus(memo.counts);
    }

    fn map_split<'w>(
        &self,
        index: usize,
        memo: &'w mut Memo<'a>,
        scatter: &'w mut Scatter<'a, &'a Shuffle>,
    ) -> Result<ObjectOutcome> {
        let split = self.splits[index];
        let object = &self.objects[split.object];
        let mut mapper = Mapper::new(self.rules, memo, scatter, self.record.start());
        let rejected = &self.reject_bytes[split.object];
        let read = scan(object, split, self.tuning.read_bytes, |block, bytes| {
            let before = mapper.reject_bytes();
            mapper.map(block);
            (self.on_bytes)(bytes);
            let more = mapper.reject_bytes() - before;
            rejected.fetch_add(more, Ordering::Relaxed) + more <= REJECT_BYTES_MAX
        })?;
        let (outcome, recorder) = mapper.finish();
        self.record.finish(split, index, outcome.lines, recorder)?;
        if rejected.load(Ordering::Relaxed) > REJECT_BYTES_MAX {
            let most = REJECT_BYTES_MAX >> 20;
            return Ok(Err(format!(
                "its rejected lines take more than {most} MiB; it may be no transaction log"
            )));
        }
        Ok(read.map(|()| outcome))
    }
}

/// Reads the lines of a split until `on_block`, which hears how many bytes the block took, has
/// seen enough. The inner error is damage: the object cannot be read to its end.
pub fn scan(
    object: &LogObject,
    split: Split,
    read_bytes: usize,
    mut on_block: impl FnMut(Block, u64) -> bool,
) -> Result<Result<(), String>> {
    let reader = fetch::open(object, split.start.saturating_sub(1), split.end)?;
    let mut scanner = match Scanner::new(reader, split.start, split.end, read_bytes) {
        Ok(scanner) => scanner,
        Err(error) => return fetch::failure(error).map(Err),
    };
    loop {
        match scanner.next_block() {
            Ok(Some(block)) => {
                let bytes = block.line_bytes();
                if !on_block(block, bytes) {
                    return Ok(Ok(()));
                }
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => return fetch::failure(error).map(Err),
        }
    }
}

/// What an object says, read for nothing but that. The inner error is damage.
pub fn content(object: &LogObject) -> Result<Result<Content, String>> {
    let mut content = Content::default();
    let whole = Split { object: 0, start: 0, end: u64::MAX };
    let read = scan(object, whole, READ_BYTES, |block, _| {
        match block {
            Block::Overlong { head, .. } => content.add(head),
            Block::Lines { bytes, .. } => {
                bytes.split_inclusive(|b| *b == b'\n').for_each(|line| content.add(line));
            }
        }
        true
    })?;
    Ok(read.map(|()| content))
}

/// The months that the objects touch, read for nothing but that.
pub fn months_of(objects: &[LogObject], zone: &Zone, tuning: &Tuning) -> Result<BTreeSet<Month>> {
    let of_split = |split: Split| {
        let mut months = BTreeSet::new();
        let damage = scan(&objects[split.object], split, tuning.read_bytes, |block, _| {
            let Block::Lines { bytes, .. } = block else { return true };
            for line in bytes.split(|b| *b == b'\n') {
                if let Line::Transaction(transaction) = parse_line(line, zone) {
                    months.insert(transaction.month);
                }
            }
            true
        })?;
        // What a damaged object says does not count.
        Ok(if damage.is_ok() { months } else { BTreeSet::new() })
    };
    let splits = splits(objects, tuning.split_bytes).into_par_iter();
    let union = |mut all: BTreeSet<Month>, more| {
        all.extend(more);
        Ok(all)
    };
    tuning.pool()?.install(|| splits.map(of_split).try_reduce(BTreeSet::new, union))
}

/// Adds up the splits of each object in their order.
fn by_object(
    objects: &[LogObject],
    splits: &[Split],
    by_split: Vec<Option<ObjectOutcome>>,
) -> Result<Vec<ObjectOutcome>> {
    let mut outcomes: Vec<ObjectOutcome> = vec![Ok(Outcome::default()); objects.len()];
    for (split, outcome) in splits.iter().zip(by_split) {
        let outcome = outcome.ok_or_else(|| Error::invariant("a split was not mapped"))?;
        let sum = &mut outcomes[split.object];
        match (sum.as_mut(), outcome) {
            (Ok(sum), Ok(next)) => sum.append(next),
            (Ok(_), Err(damage)) => *sum = Err(damage),
            (Err(_), _) => {}
        }
    }
    for (object, outcome) in objects.iter().zip(&outcomes) {
        if let Ok(outcome) = outcome {
            check_bytes(object, outcome)?;
        }
    }
    Ok(outcomes)
}

/// Every byte of a plain object lies in exactly one line of one split, but for a byte order mark.
fn check_bytes(object: &LogObject, outcome: &Outcome) -> Result<()> {
    let lines = outcome.accepted + outcome.rejected_rows() + outcome.blank;
    if lines != outcome.lines {
        let what = format!("{} lines were counted and {lines} parsed", outcome.lines);
        return Err(Error::invariant(what).at(&object.name));
    }
    let skipped = object.size_bytes.checked_sub(outcome.line_bytes);
    let whole = object.compression != fetch::Compression::None || matches!(skipped, Some(0 | 3));
    match whole {
        true => Ok(()),
        false => {
            let what = format!("{} of {} bytes lie in a line", outcome.line_bytes, object.size_bytes);
            Err(Error::invariant(what).at(&object.name))
        }
    }
}

/// Objects that are looked at, and bytes of each, for a sample of users.
const SAMPLE_OBJECTS: usize = 64;
/// Of all plain objects together: logs sorted by user must be looked at in many places.
const SAMPLE_STRETCHES: u64 = 256;
const SAMPLE_BYTES: usize = 16 * 1024;
/// What an archive holds per byte, about: enough to choose a number of partitions.
const ARCHIVE_RATIO: u64 = 5;

/// Chooses partitions by the users in a sample of lines. A bad sample costs time, never a cent.
fn partition_by_sample(objects: &[LogObject], rules: &MapRules) -> Result<Partitioner> {
    let (mut users, mut bytes) = (Vec::new(), 0u64);
    for object in objects.iter().step_by(objects.len().div_ceil(SAMPLE_OBJECTS).max(1)) {
        let stretches = match object.compression {
            fetch::Compression::None => (SAMPLE_STRETCHES / objects.len() as u64).max(1),
            _ => 1,
        };
        for stretch in 0..stretches {
            let start = object.size_bytes / stretches * stretch;
            bytes += sample(object, start, rules, &mut users)?;
        }
    }
    let content = |object: &LogObject| match object.compression {
        fetch::Compression::None => object.size_bytes,
        _ => object.size_bytes * ARCHIVE_RATIO,
    };
    let total: u64 = objects.iter().map(content).sum();
    let line_bytes = bytes / (users.len() as u64).max(1);
    let count = (total / line_bytes.max(1)).div_ceil(PARTITION_ROWS_TARGET) as usize;
    Ok(Partitioner::from_sample(users, count.clamp(1, PARTITIONS_MAX)))
}

/// Adds the users of some lines from `start` on; the bytes of those lines.
fn sample(object: &LogObject, start: u64, rules: &MapRules, users: &mut Vec<u64>) -> Result<u64> {
    let end = start + SAMPLE_BYTES as u64;
    let reader = std::io::Read::take(fetch::open(object, start.saturating_sub(1), end)?, SAMPLE_BYTES as u64);
    let scanner = Scanner::new(reader, start, u64::MAX, SAMPLE_BYTES);
    // Damage is found, and told, by the map.
    let Ok(mut scanner) = scanner else { return Ok(0) };
    let mut bytes = 0;
    while let Ok(Some(Block::Lines { bytes: lines, .. })) = scanner.next_block() {
        bytes += lines.len() as u64;
        for line in lines.split(|b| *b == b'\n') {
            if let Line::Transaction(transaction) = parse_line(line, rules.zone) {
                users.push(transaction.user_id);
            }
        }
    }
    Ok(bytes)
}
