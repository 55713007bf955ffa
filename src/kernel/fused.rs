//! The mapper: lines to movements, with all counts taken on the way.
//!
//! In: blocks of whole lines of one split. Out: movements scattered by user, and an [`Outcome`].
//! Invariant: lines = accepted + rejected + blank, where lines are counted independently of
//! parsing; the outcomes of splits add up to the outcome of their object.

use super::categorize::Decision;
use super::content::Content;
use super::keyed::{Key, KeyedChecksum, KeyedSum};
use super::line_sample::LineSample;
use super::memo::{Known, Memo, SellerKey};
use super::movement::Movement;
use super::parse::{Line, parse_line};
use super::partition::{ChunkSink, Partitioner, Scatter};
use super::quick::Lines;
use super::scan::Block;
use super::separators::Separators;
use super::short_text::ShortText;
use crate::domain::category::CategorySource;
use crate::domain::month::Month;
use crate::domain::transaction::{Refusal, RejectReason, Transaction};
use crate::domain::zone::Zone;
use crate::limits::LINE_BYTES_MAX;
use crate::planted::Bug;
use std::collections::{BTreeMap, BTreeSet};

/// A refused line and its place; `line` counts from 0, first within its split, later within its
/// object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub line: u64,
    pub byte_offset: u64,
    pub refusal: Refusal,
    /// The line with its end, unchanged; for an over-long line only its beginning.
    pub raw: Vec<u8>,
}

impl Reject {
    pub fn held_bytes(&self) -> u64 {
        (self.raw.len() + size_of::<Reject>()) as u64
    }
}

/// Accepted rows of one month and their cents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthShare {
    pub rows: u64,
    pub positive_cents: i128,
    pub negative_cents: i128,
    /// Time of the latest row, in microseconds since 1970; `i64::MIN` if there is none.
    pub last_micros: i64,
}

impl Default for MonthShare {
    fn default() -> Self {
        MonthShare { rows: 0, positive_cents: 0, negative_cents: 0, last_micros: i64::MIN }
    }
}

impl MonthShare {
    pub fn net_cents(&self) -> i128 {
        self.positive_cents + self.negative_cents
    }

    fn plus(self, other: MonthShare) -> MonthShare {
        MonthShare {
            rows: self.rows + other.rows,
            positive_cents: self.positive_cents + other.positive_cents,
            negative_cents: self.negative_cents + other.negative_cents,
            last_micros: self.last_micros.max(other.last_micros),
        }
    }
}

/// The result of mapping a split, or all splits of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Counted by a pass over newlines, independently of parsing.
    pub lines: u64,
    pub line_bytes: u64,
    pub accepted: u64,
    pub blank: u64,
    pub rejected: [u64; RejectReason::ALL.len()],
    pub positive_cents: i128,
    pub negative_cents: i128,
    pub keyed: KeyedChecksum,
    pub content: Content,
    pub sample: LineSample,
    pub by_source: [u64; CategorySource::ALL.len()],
    pub by_month: BTreeMap<Month, MonthShare>,
    /// The first rejected line, counted from 0, and the reason.
    pub first_reject: Option<(u64, Refusal)>,
}

impl Outcome {
    pub fn rejected_rows(&self) -> u64 {
        self.rejected.iter().sum()
    }

    pub fn net_cents(&self) -> i128 {
        self.positive_cents + self.negative_cents
    }

    /// Adds the outcome of the split that follows this one in the same object.
    pub fn append(&mut self, next: Outcome) {
        let lines_before = self.lines;
        self.add_counts(&next);
        self.sample.append(next.sample);
        let first = next.first_reject.map(|(line, refusal)| (line + lines_before, refusal));
        self.first_reject = self.first_reject.or(first);
    }

    /// Adds everything that is a sum: all but the line sample and the first reject.
    pub fn add_counts(&mut self, other: &Outcome) {
        self.lines += other.lines;
        self.line_bytes += other.line_bytes;
        self.accepted += other.accepted;
        self.blank += other.blank;
        self.positive_cents += other.positive_cents;
        self.negative_cents += other.negative_cents;
        self.keyed = self.keyed.plus(other.keyed);
        self.content = self.content.plus(other.content);
        self.rejected.iter_mut().zip(other.rejected).for_each(|(sum, n)| *sum += n);
        self.by_source.iter_mut().zip(other.by_source).for_each(|(sum, n)| *sum += n);
        for (month, share) in &other.by_month {
            let sum = self.by_month.entry(*month).or_default();
            *sum = sum.plus(*share);
        }
    }
}

/// Receives every accepted transaction in order; `()` ignores them.
pub trait Recorder {
    /// `line` counts from 0 within the split.
    fn record(&mut self, transaction: &Transaction, decision: Decision, line: u64);
}

impl Recorder for () {
    #[inline]
    fn record(&mut self, _: &Transaction, _: Decision, _: u64) {}
}

/// Settings shared by all workers of a run.
pub struct MapRules<'a> {
    pub zone: &'a Zone,
    pub key: Key,
    /// Restricts a recount to these months: accepted rows of other months are only counted, in
    /// `accepted` and `by_month`.
    pub only_months: Option<&'a BTreeSet<Month>>,
}

impl MapRules<'_> {
    #[inline]
    fn counts(&self, month: Month) -> bool {
        self.only_months.is_none_or(|only| only.contains(&month))
    }
}

/// State that a worker keeps from split to split.
pub struct Worker<'a, S> {
    pub memo: Memo<'a>,
    pub scatter: Scatter<'a, S>,
    separators: Separators,
    /// By month index, for the current split.
    shares: Vec<MonthShare>,
}

impl<'a, S: ChunkSink> Worker<'a, S> {
    pub fn new(known: &'a Known<'a>, partitioner: &'a Partitioner, sink: S) -> Worker<'a, S> {
        let (memo, scatter) = (Memo::new(known), Scatter::new(partitioner, sink));
        Worker { memo, scatter, separators: Separators::default(), shares: Vec::new() }
    }
}

/// One worker on one split.
pub struct Mapper<'w, 'a, S, R> {
    rules: &'a MapRules<'a>,
    worker: &'w mut Worker<'a, S>,
    recorder: R,
    outcome: Outcome,
    keyed: KeyedSum,
    /// Rejects since the last [`Mapper::take_rejects`].
    rejects: Vec<Reject>,
    reject_bytes: u64,
}

/// While one batch of rows is categorized the next one is already parsed, and its slots in the
/// seller table are being prefetched.
const BATCH_ROWS: usize = 32;

/// Prefetch distance in rows for seller entries, some hundred nanoseconds. At a much larger
/// distance the line is evicted before its use.
const AHEAD_ROWS: usize = 8;

/// A parsed row that is not yet categorized.
struct PendingRow<'b> {
    transaction: Transaction<'b>,
    line: u64,
    seller: SellerKey,
}

impl<'w, 'a, S: ChunkSink, R: Recorder> Mapper<'w, 'a, S, R> {
    /// `level` is the level of the line sample.
    pub fn new(rules: &'a MapRules<'a>, worker: &'w mut Worker<'a, S>, recorder: R, level: u32) -> Self {
        worker.shares.clear();
        worker.shares.resize(rules.zone.months().count() as usize, MonthShare::default());
        let outcome = Outcome { sample: LineSample::new(level), ..Outcome::default() };
        let keyed = KeyedSum::default();
        Mapper { rules, worker, recorder, outcome, keyed, rejects: Vec::new(), reject_bytes: 0 }
    }

    /// The number of lines so far.
    pub fn lines(&self) -> u64 {
        self.outcome.lines
    }

    /// Memory of the rejects since the last [`Mapper::take_rejects`], in bytes.
    pub fn reject_bytes(&self) -> u64 {
        self.reject_bytes
    }

    /// Takes the rejects collected since the last call.
    pub fn take_rejects(&mut self) -> Vec<Reject> {
        self.reject_bytes = 0;
        std::mem::take(&mut self.rejects)
    }

    pub fn map(&mut self, block: Block) {
        match block {
            Block::Lines { offset, bytes } => self.map_lines(offset, bytes),
            Block::Overlong { offset, line_bytes, head } => {
                self.outcome.content.add(head);
                self.reject(offset, too_long(), head);
                self.outcome.lines += 1;
                self.outcome.line_bytes += line_bytes;
            }
        }
    }

    fn map_lines(&mut self, offset: u64, bytes: &[u8]) {
        let mut separators = std::mem::take(&mut self.worker.separators);
        let indexed = separators.index(bytes);
        let mut batches = [(); 2].map(|()| Vec::with_capacity(BATCH_ROWS));
        for ((range, quick), line) in Lines::new(indexed, self.rules.zone).zip(self.outcome.lines..) {
            let (raw, start) = (&bytes[range.clone()], offset + range.start as u64);
            let Some(transaction) = quick else {
                // Rows are recorded in order, so pending ones come first.
                self.accept_all(&mut batches);
                self.map_line(line, start, raw);
                continue;
            };
            let hash = self.outcome.content.add(raw);
            self.outcome.sample.add(hash);
            let seller = self.worker.memo.seller_key(ShortText::within(bytes, transaction.seller));
            batches[1].push(PendingRow { transaction, line, seller });
            if batches[1].len() == BATCH_ROWS {
                self.accept_batch(&batches[0], &batches[1]);
                batches[0].clear();
                batches.swap(0, 1);
            }
        }
        self.accept_all(&mut batches);
        let unended = u64::from(bytes.last().is_some_and(|&b| b != b'\n'));
        self.outcome.lines += indexed.newlines() + unended;
        self.outcome.line_bytes += bytes.len() as u64;
        self.worker.separators = separators;
    }

    /// Accepts the rows of two consecutive batches.
    fn accept_all(&mut self, batches: &mut [Vec<PendingRow>; 2]) {
        self.accept_batch(&batches[0], &batches[1]);
        self.accept_batch(&batches[1], &[]);
        batches.iter_mut().for_each(Vec::clear);
    }

    /// Accepts the rows of a batch; `next` holds the rows after it, for prefetching.
    fn accept_batch(&mut self, rows: &[PendingRow], next: &[PendingRow]) {
        let mut later = rows.iter().chain(next).skip(AHEAD_ROWS);
        for PendingRow { transaction, line, seller } in rows {
            later.next().into_iter().for_each(|later| self.worker.memo.prefetch_entry(&later.seller));
            self.accept(*line, transaction, seller);
        }
    }

    /// Maps a line of any form, by the general parser.
    fn map_line(&mut self, number: u64, offset: u64, raw: &[u8]) {
        let line = raw.strip_suffix(b"\n").unwrap_or(raw);
        let hash = self.outcome.content.add(raw);
        if raw.len() > LINE_BYTES_MAX {
            return self.reject_at(number, offset, too_long(), &raw[..LINE_BYTES_MAX]);
        }
        match parse_line(line, self.rules.zone) {
            Line::Transaction(transaction) => {
                self.outcome.sample.add(hash);
                let seller = self.worker.memo.seller_key(ShortText::of(transaction.seller));
                self.accept(number, &transaction, &seller);
            }
            Line::Blank => self.outcome.blank += 1,
            Line::Refused(refusal) => {
                let kept = if Bug::RejectLosesItsEnd.is_planted() { line } else { raw };
                self.reject_at(number, offset, refusal, kept);
            }
        }
    }

    #[inline]
    fn accept(&mut self, number: u64, transaction: &Transaction, seller: &SellerKey) {
        let cents = transaction.amount_cents;
        let months = self.rules.zone.months();
        let index = transaction.month.since(months.first).expect("parsing checked the month");
        let share = &mut self.worker.shares[index as usize];
        share.rows += 1;
        *if cents > 0 { &mut share.positive_cents } else { &mut share.negative_cents } += i128::from(cents);
        share.last_micros = share.last_micros.max(transaction.occurred_at_micros);
        if !self.rules.counts(transaction.month) {
            return;
        }
        let decision = self.worker.memo.categorize_by_key(transaction, seller);
        let category = decision.category;
        self.outcome.by_source[decision.source as usize] += 1;
        self.keyed.add(self.rules.key, transaction.user_id, transaction.month, category, cents);
        let user_id = transaction.user_id + u64::from(Bug::CentsToNextUser.is_planted());
        self.worker.scatter.push(Movement::new(user_id, index, category, cents));
        self.recorder.record(transaction, decision, number);
    }

    fn reject(&mut self, offset: u64, refusal: Refusal, raw: &[u8]) {
        self.reject_at(self.outcome.lines, offset, refusal, raw);
    }

    fn reject_at(&mut self, line: u64, byte_offset: u64, refusal: Refusal, raw: &[u8]) {
        self.outcome.rejected[refusal.reason as usize] += 1;
        let reject = Reject { line, byte_offset, refusal, raw: raw.to_vec() };
        self.reject_bytes += reject.held_bytes();
        self.outcome.first_reject.get_or_insert((line, refusal));
        self.rejects.push(reject);
    }

    /// The outcome, the rejects not yet taken, and the recorder.
    pub fn finish(mut self) -> (Outcome, Vec<Reject>, R) {
        let shares = self.rules.zone.months().iter().zip(&self.worker.shares);
        for (month, share) in shares.filter(|(_, share)| share.rows > 0) {
            self.outcome.by_month.insert(month, *share);
            self.outcome.accepted += share.rows;
            if self.rules.counts(month) {
                self.outcome.positive_cents += share.positive_cents;
                self.outcome.negative_cents += share.negative_cents;
            }
        }
        self.outcome.keyed = self.keyed.total();
        (self.outcome, self.rejects, self.recorder)
    }
}

fn too_long() -> Refusal {
    Refusal { reason: RejectReason::LineTooLong, column: LINE_BYTES_MAX as u32 + 1 }
}
