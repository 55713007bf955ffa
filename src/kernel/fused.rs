//! The map: lines to movements, with all that must be counted on the way.
//!
//! In: blocks of whole lines of one split. Out: movements scattered by user, and an [`Outcome`].
//! Invariant: lines = accepted + rejected + blank, where lines are counted apart from parsing;
//! outcomes of splits add up to the outcome of the object.

use super::categorize::Decision;
use super::content::Content;
use super::keyed::{Key, KeyedSum, KeyedTotal};
use super::line_sample::LineSample;
use super::memo::{Known, Memo, SoughtSeller};
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

/// A refused line and its place; `line` counts from 0 in its split, then in its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub line: u64,
    pub byte_offset: u64,
    pub refusal: Refusal,
    /// The line with its end, as it stood; of an over-long line its beginning.
    pub raw: Vec<u8>,
}

impl Reject {
    pub fn held_bytes(&self) -> u64 {
        (self.raw.len() + size_of::<Reject>()) as u64
    }
}

/// Accepted rows and their cents in one month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthShare {
    pub rows: u64,
    pub positive_cents: i128,
    pub negative_cents: i128,
    /// Of the latest of them, since 1970.
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

/// What mapping a split, or all splits of an object, came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Counted by a pass over newlines, apart from parsing.
    pub lines: u64,
    pub line_bytes: u64,
    pub accepted: u64,
    pub blank: u64,
    pub rejected: [u64; RejectReason::ALL.len()],
    pub positive_cents: i128,
    pub negative_cents: i128,
    pub keyed: KeyedTotal,
    pub content: Content,
    pub sample: LineSample,
    pub by_source: [u64; CategorySource::ALL.len()],
    pub by_month: BTreeMap<Month, MonthShare>,
    /// The line of the first reject, and why it is one.
    pub first_reject: Option<(u64, Refusal)>,
}

impl Outcome {
    pub fn rejected_rows(&self) -> u64 {
        self.rejected.iter().sum()
    }

    pub fn net_cents(&self) -> i128 {
        self.positive_cents + self.negative_cents
    }

    /// Adds the split that follows this one in the same object.
    pub fn append(&mut self, next: Outcome) {
        let lines_before = self.lines;
        self.add_counts(&next);
        self.sample.append(next.sample);
        let first = next.first_reject.map(|(line, refusal)| (line + lines_before, refusal));
        self.first_reject = self.first_reject.or(first);
    }

    /// Adds all that can be added up: everything but lines themselves, rejected or remembered.
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

/// Gets to see every accepted transaction; `()` looks away.
pub trait Recorder {
    /// `line` counts from 0 in the split.
    fn record(&mut self, transaction: &Transaction, decision: Decision, line: u64);
}

impl Recorder for () {
    #[inline]
    fn record(&mut self, _: &Transaction, _: Decision, _: u64) {}
}

/// What all workers of a run share.
pub struct MapRules<'a> {
    pub zone: &'a Zone,
    pub key: Key,
    /// Only these months count; other accepted rows are left aside. For recounting them.
    pub only_months: Option<&'a BTreeSet<Month>>,
}

impl MapRules<'_> {
    #[inline]
    fn counts(&self, month: Month) -> bool {
        self.only_months.is_none_or(|only| only.contains(&month))
    }
}

/// What a worker keeps from piece to piece.
pub struct Worker<'a, S> {
    pub memo: Memo<'a>,
    pub scatter: Scatter<'a, S>,
    separators: Separators,
    /// By month index, of the piece at hand.
    shares: Vec<MonthShare>,
}

impl<'a, S: ChunkSink> Worker<'a, S> {
    pub fn new(known: &'a Known<'a>, partitioner: &'a Partitioner, sink: S) -> Worker<'a, S> {
        let (memo, scatter) = (Memo::new(known), Scatter::new(partitioner, sink));
        Worker { memo, scatter, separators: Separators::default(), shares: Vec::new() }
    }
}

/// One worker on one piece.
pub struct Mapper<'w, 'a, S, R> {
    rules: &'a MapRules<'a>,
    worker: &'w mut Worker<'a, S>,
    recorder: R,
    outcome: Outcome,
    keyed: KeyedSum,
    /// Since they were last taken.
    rejects: Vec<Reject>,
    reject_bytes: u64,
}

/// While a batch of rows is categorized, the next is parsed already, and where the memo has their
/// sellers is on its way from memory.
const BATCH_ROWS: usize = 32;

/// So many rows before it is needed, what the memo knows of a seller is asked for: some hundred
/// nanoseconds. Much earlier, and it is gone from the cache again.
const AHEAD_ROWS: usize = 8;

/// A parsed row that waits for its category.
struct Waiting<'b> {
    transaction: Transaction<'b>,
    line: u64,
    seller: SoughtSeller,
}

impl<'w, 'a, S: ChunkSink, R: Recorder> Mapper<'w, 'a, S, R> {
    /// `level` is that of the sample of lines.
    pub fn new(rules: &'a MapRules<'a>, worker: &'w mut Worker<'a, S>, recorder: R, level: u32) -> Self {
        worker.shares.clear();
        worker.shares.resize(rules.zone.months().count() as usize, MonthShare::default());
        let outcome = Outcome { sample: LineSample::new(level), ..Outcome::default() };
        let keyed = KeyedSum::default();
        Mapper { rules, worker, recorder, outcome, keyed, rejects: Vec::new(), reject_bytes: 0 }
    }

    /// All lines so far.
    pub fn lines(&self) -> u64 {
        self.outcome.lines
    }

    /// What the rejects since they were last taken take in memory.
    pub fn reject_bytes(&self) -> u64 {
        self.reject_bytes
    }

    /// The rejects since they were last taken.
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
                // Rows are recorded in their order.
                self.accept_all(&mut batches);
                self.map_line(line, start, raw);
                continue;
            };
            let hash = self.outcome.content.add(raw);
            self.outcome.sample.add(hash);
            let seller = self.worker.memo.seek(ShortText::within(bytes, transaction.seller));
            batches[1].push(Waiting { transaction, line, seller });
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

    /// Accepts the rows of two batches, one behind the other.
    fn accept_all(&mut self, batches: &mut [Vec<Waiting>; 2]) {
        self.accept_batch(&batches[0], &batches[1]);
        self.accept_batch(&batches[1], &[]);
        batches.iter_mut().for_each(Vec::clear);
    }

    /// Accepts the rows of a batch; `next` come behind them.
    fn accept_batch(&mut self, rows: &[Waiting], next: &[Waiting]) {
        let mut later = rows.iter().chain(next).skip(AHEAD_ROWS);
        for Waiting { transaction, line, seller } in rows {
            later.next().into_iter().for_each(|later| self.worker.memo.approach(&later.seller));
            self.accept(*line, transaction, seller);
        }
    }

    /// Any line, told the whole way.
    fn map_line(&mut self, number: u64, offset: u64, raw: &[u8]) {
        let line = raw.strip_suffix(b"\n").unwrap_or(raw);
        let hash = self.outcome.content.add(raw);
        if raw.len() > LINE_BYTES_MAX {
            return self.reject_at(number, offset, too_long(), &raw[..LINE_BYTES_MAX]);
        }
        match parse_line(line, self.rules.zone) {
            Line::Transaction(transaction) => {
                self.outcome.sample.add(hash);
                let seller = self.worker.memo.seek(ShortText::of(transaction.seller));
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
    fn accept(&mut self, number: u64, transaction: &Transaction, seller: &SoughtSeller) {
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
        let decision = self.worker.memo.categorize_sought(transaction, seller);
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

    /// The counts, the rejects that were not taken, and what the recorder saw.
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
