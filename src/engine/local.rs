//! The map on one machine: rayon workers over splits, and over the blocks of archives.
//!
//! In: the objects to read, the rules, the partitions. Out: an outcome per object, and the
//! shuffle full of movements.
//! Invariant: every piece is mapped once; bytes planned are bytes read, or the run stops; outcomes
//! and rejects do not depend on who took what.

use super::feed::{Feed, Given, PieceId, Task};
use super::read::scan;
use super::rejects::Rejects;
use super::shuffle::Shuffle;
use crate::error::{Error, Kind, Result};
use crate::input::fetch::Compression;
use crate::input::plan::{LogObject, Split, splits};
use crate::job::spec::Spec;
use crate::kernel::categorize::Categorizer;
use crate::kernel::fused::{MapRules, Mapper, Outcome, Recorder, Worker};
use crate::kernel::line_sample;
use crate::kernel::memo::{Known, MemoCounts};
use crate::kernel::partition::Partitioner;
use crate::kernel::scan::Block;
use crate::limits::{READ_BYTES, REJECT_BYTES_AT_ONCE, REJECT_BYTES_MAX, SPLIT_BYTES};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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

    /// As a job asks for it.
    pub fn of(spec: &Spec) -> Tuning {
        Tuning::new(spec.limits.threads, spec.limits.memory.0.0)
    }

    /// How many threads that is.
    pub fn workers(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    pub fn pool(&self) -> Result<rayon::ThreadPool> {
        pool(self.workers())
    }

    /// What movements may take of the memory; the rest is for the parts being written.
    fn shuffle_bytes(&self) -> u64 {
        self.memory_bytes / 2
    }

    /// What rejects may take of it.
    fn reject_bytes(&self) -> u64 {
        self.memory_bytes / 16
    }
}

/// So many threads.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| Error::new(Kind::Temporary, format!("cannot start threads: {e}")))
}

/// What an object came to: its counts, or why it cannot be read to its end.
pub type ObjectOutcome = Result<Outcome, String>;

pub struct Mapped {
    /// In the order of the objects.
    pub outcomes: Vec<ObjectOutcome>,
    pub rejects: Rejects,
    pub shuffle: Shuffle,
    pub partitioner: Partitioner,
    /// How often workers knew a seller. The only figure that depends on who took what.
    pub memo: MemoCounts,
}

/// Keeps what a worker recorded on a piece.
pub trait Record: Sync {
    type Recorder: Recorder;
    /// A recorder for one piece.
    fn start(&self) -> Self::Recorder;
    /// Called once per piece, in any order; `lines` are the lines of this one.
    fn finish(&self, split: Split, piece: PieceId, lines: u64, recorder: Self::Recorder) -> Result<()>;
    /// Called once per split, with the number of its pieces.
    fn end(&self, split: usize, pieces: usize) -> Result<()>;
}

impl Record for () {
    type Recorder = ();
    fn start(&self) {}
    fn finish(&self, _: Split, _: PieceId, _: u64, _: ()) -> Result<()> {
        Ok(())
    }
    fn end(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
}

struct Work<'a, R> {
    objects: &'a [LogObject],
    splits: &'a [Split],
    rules: &'a MapRules<'a>,
    known: &'a Known<'a>,
    partitioner: &'a Partitioner,
    shuffle: &'a Shuffle,
    tuning: &'a Tuning,
    record: &'a R,
    on_read: &'a OnRead<'a>,
    feed: Feed,
    /// By object: how closely its lines are remembered.
    levels: Vec<u32>,
    rejects: &'a Rejects,
    /// By object.
    reject_bytes: Vec<AtomicU64>,
    mapped: Mutex<BySplit>,
    memo: Mutex<MemoCounts>,
}

/// What the splits came to.
#[derive(Default)]
struct BySplit {
    outcomes: BTreeMap<PieceId, Outcome>,
    /// How many pieces each split had, or why it could not be read to its end.
    ends: BTreeMap<usize, Result<usize, String>>,
}

type MapWorker<'a> = Worker<'a, &'a Shuffle>;
type PieceMapper<'w, 'a, R> = Mapper<'w, 'a, &'a Shuffle, <R as Record>::Recorder>;

/// Hears of progress: bytes as they lie in the store, and lines.
pub type OnRead<'a> = dyn Fn(u64, u64) + Sync + 'a;

/// Maps all objects.
pub fn map<R: Record>(
    objects: &[LogObject],
    rules: &MapRules,
    categorizer: &Categorizer,
    partitioner: Partitioner,
    tuning: &Tuning,
    record: &R,
    on_read: &OnRead,
) -> Result<Mapped> {
    let splits = splits(objects, tuning.split_bytes);
    let shuffle = Shuffle::new(partitioner.count(), tuning.shuffle_bytes());
    let mut rejects = Rejects::new(tuning.reject_bytes());
    let pool = tuning.pool()?;
    let known = Known::new(categorizer);
    let work = Work {
        objects,
        splits: &splits,
        rules,
        known: &known,
        partitioner: &partitioner,
        shuffle: &shuffle,
        tuning,
        record,
        on_read,
        feed: Feed::new(splits.len(), pool.current_num_threads()),
        levels: levels(objects),
        rejects: &rejects,
        reject_bytes: objects.iter().map(|_| AtomicU64::new(0)).collect(),
        mapped: Mutex::default(),
        memo: Mutex::default(),
    };
    let workers = pool.current_num_threads();
    pool.in_place_scope(|scope| (0..workers).for_each(|_| scope.spawn(|_| work.run_worker())));
    work.feed.finish()?;
    let memo = work.memo.into_inner().expect("no thread panics while it holds this");
    let mapped = work.mapped.into_inner().expect("no thread panics while it holds this");
    // An object that changed underneath explains bytes that do not add up, so it is asked first.
    objects.iter().try_for_each(LogObject::still_as_planned)?;
    let reject_bytes = work.reject_bytes.into_iter().map(AtomicU64::into_inner).collect::<Vec<_>>();
    let outcomes = by_object(objects, &splits, mapped, &reject_bytes, &mut rejects)?;
    Ok(Mapped { outcomes, rejects, shuffle, partitioner, memo })
}

impl<'a, R: Record> Work<'a, R> {
    fn run_worker(&self) {
        let mut worker = Worker::new(self.known, self.partitioner, self.shuffle);
        while let Some(task) = self.feed.next() {
            let done = match task {
                Task::Split(index, _under_way) => self.map_split(index, &mut worker),
                Task::Piece(piece) => {
                    let done = self.map_piece(piece.id, piece.block(), &mut worker);
                    self.feed.take_back(piece);
                    done
                }
            };
            if let Err(error) = done {
                self.feed.fail(error);
            }
        }
        worker.scatter.finish();
        let mut sum = self.memo.lock().expect("no thread panics in here");
        *sum = sum.plus(worker.memo.counts);
    }

    fn map_split(&self, index: usize, worker: &mut MapWorker<'a>) -> Result<()> {
        let (pieces, read) = match self.objects[self.splits[index].object].compression {
            Compression::None => (1, self.map_stretch(index, worker)?),
            _ => self.map_archive(index, worker)?,
        };
        self.record.end(index, pieces)?;
        let mut mapped = self.mapped.lock().expect("no thread panics in here");
        mapped.ends.insert(index, read.map(|()| pieces));
        Ok(())
    }

    /// A stretch of a plain object is one piece.
    fn map_stretch(&self, index: usize, worker: &mut MapWorker<'a>) -> Result<Result<(), String>> {
        let (split, id) = (self.splits[index], PieceId { split: index, sequence: 0 });
        let (mut mapper, mut done) = (self.start(split.object, worker), Ok(()));
        let read = scan(&self.objects[split.object], split, self.tuning.read_bytes, |block, bytes| {
            done = self.map_block(id, &mut mapper, block, bytes);
            done.is_ok() && self.goes_on(split)
        })?;
        done?;
        self.keep(id, mapper)?;
        Ok(read)
    }

    /// An archive is read by one worker, block by block; each block is a piece for whoever has
    /// time. Out: how many there were.
    fn map_archive(&self, index: usize, worker: &mut MapWorker<'a>) -> Result<(usize, Result<(), String>)> {
        let split = self.splits[index];
        let (mut pieces, mut done) = (0, Ok(()));
        let read = scan(&self.objects[split.object], split, self.tuning.read_bytes, |block, bytes| {
            (self.on_read)(bytes, 0);
            let id = PieceId { split: index, sequence: pieces };
            pieces += 1;
            if let Given::Back(block) = self.feed.give(id, block) {
                done = self.map_piece(id, block, worker);
            }
            done.is_ok() && self.goes_on(split)
        })?;
        done.map(|()| (pieces, read))
    }

    fn map_piece(&self, id: PieceId, block: Block, worker: &mut MapWorker<'a>) -> Result<()> {
        let mut mapper = self.start(self.splits[id.split].object, worker);
        // Its bytes were told when they were read.
        self.map_block(id, &mut mapper, block, 0)?;
        self.keep(id, mapper)
    }

    fn start<'w>(&self, object: usize, worker: &'w mut MapWorker<'a>) -> PieceMapper<'w, 'a, R> {
        Mapper::new(self.rules, worker, self.record.start(), self.levels[object])
    }

    fn map_block(
        &self,
        id: PieceId,
        mapper: &mut PieceMapper<'_, 'a, R>,
        block: Block,
        bytes: u64,
    ) -> Result<()> {
        let (reject_bytes, lines) = (mapper.reject_bytes(), mapper.lines());
        mapper.map(block);
        (self.on_read)(bytes, mapper.lines() - lines);
        let more = mapper.reject_bytes() - reject_bytes;
        self.reject_bytes[self.splits[id.split].object].fetch_add(more, Ordering::Relaxed);
        self.shuffle.check()?;
        match mapper.reject_bytes() > REJECT_BYTES_AT_ONCE {
            true => self.rejects.keep(id, mapper.take_rejects()),
            false => Ok(()),
        }
    }

    fn keep(&self, id: PieceId, mapper: PieceMapper<'_, 'a, R>) -> Result<()> {
        let (outcome, rejects, recorder) = mapper.finish();
        self.rejects.keep(id, rejects)?;
        self.record.finish(self.splits[id.split], id, outcome.lines, recorder)?;
        self.mapped.lock().expect("no thread panics in here").outcomes.insert(id, outcome);
        Ok(())
    }

    /// Whether there is any use in reading on.
    fn goes_on(&self, split: Split) -> bool {
        !self.rejects_too_much(split) && !self.feed.has_failed()
    }

    fn rejects_too_much(&self, split: Split) -> bool {
        self.reject_bytes[split.object].load(Ordering::Relaxed) > REJECT_BYTES_MAX
    }
}

/// How many times its size an archive of transactions may well hold.
const PACKED: u64 = 8;

fn levels(objects: &[LogObject]) -> Vec<u32> {
    let bytes = |object: &LogObject| match object.compression {
        Compression::None => object.size_bytes,
        _ => object.size_bytes.saturating_mul(PACKED),
    };
    let all_bytes = objects.iter().map(bytes).fold(0, u64::saturating_add);
    objects.iter().map(|object| line_sample::level(bytes(object), all_bytes)).collect()
}

/// Adds up the pieces of each object in their order.
fn by_object(
    objects: &[LogObject],
    splits: &[Split],
    mapped: BySplit,
    reject_bytes: &[u64],
    rejects: &mut Rejects,
) -> Result<Vec<ObjectOutcome>> {
    let mut outcomes: Vec<ObjectOutcome> = vec![Ok(Outcome::default()); objects.len()];
    let (mut ends, mut pieces) = (mapped.ends, mapped.outcomes.into_iter().peekable());
    for (index, split) in splits.iter().enumerate() {
        let sum = &mut outcomes[split.object];
        let mut count = 0;
        while let Some((id, outcome)) = pieces.next_if(|(id, _)| id.split == index) {
            if id.sequence != count {
                return Err(Error::invariant("a piece was not mapped").at(&objects[split.object].name));
            }
            count += 1;
            if let Ok(sum) = sum {
                rejects.place(&objects[split.object].name, id, sum.lines);
                sum.append(outcome);
            }
        }
        match ends.remove(&index) {
            Some(Ok(pieces)) if pieces == count => {}
            Some(Err(damage)) => *sum = Err(damage),
            _ => return Err(Error::invariant("a split was not mapped").at(&objects[split.object].name)),
        }
    }
    for ((object, outcome), reject_bytes) in objects.iter().zip(&mut outcomes).zip(reject_bytes) {
        if *reject_bytes > REJECT_BYTES_MAX {
            let most = REJECT_BYTES_MAX >> 20;
            let what = format!("its rejected lines take more than {most} MiB; it may be no transaction log");
            *outcome = Err(what);
        }
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
    let whole = object.compression != Compression::None || matches!(skipped, Some(0 | 3));
    match whole {
        true => Ok(()),
        false => {
            let what = format!("{} of {} bytes lie in a line", outcome.line_bytes, object.size_bytes);
            Err(Error::invariant(what).at(&object.name))
        }
    }
}
