//! Logs by the fast path and by the oracle.
//!
//! In: the bytes of a log. Out: whether one of its rows was accepted.
//! Invariant: every line is accepted, rejected or blank, as by the oracle, regardless of splits and
//! read sizes.

use super::{BYTE_ORDER_MARK, months};
use pennymill::domain::category::{Categories, CategoryId, Choice};
use pennymill::domain::month::Month;
use pennymill::domain::seller::SellerEntry;
use pennymill::domain::transaction::RejectReason;
use pennymill::domain::zone::Zone;
use pennymill::input::layers::Layers;
use pennymill::kernel::categorize::Categorizer;
use pennymill::kernel::fused::{MapRules, Mapper, Outcome, Reject, Worker};
use pennymill::kernel::keyed::Key;
use pennymill::kernel::memo::Known;
use pennymill::kernel::movement::Chunk;
use pennymill::kernel::partition::{ChunkSink, Partitioner, Sample};
use pennymill::kernel::plain::{Plain, PlainChoice};
use pennymill::kernel::scan::Scanner;
use pennymill::kernel::table::{SortBuffers, sum_up};
use pennymill::limits::LINE_BYTES_MAX;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Names of fewer than nine letters: longer ones also match descriptors truncated by the bank,
/// which the oracle does not support.
const SELLERS: [(&str, &str); 5] = [
    ("Café Zoë", "dining"),
    ("Argos", "shopping"),
    ("Argos go", "gas"),
    ("tesco", "dining"),
    ("TESCO", "health"),
];

/// A user, a seller, a category, and for a choice for a single transaction its instant
/// (microseconds, a time in London) and cents.
type Choosing = (u64, &'static str, &'static str, Option<(i64, i64)>);

const CHOICES: [Choosing; 3] = [
    (1, "cafe zoe", "health", None),
    // 2025-01-15.
    (1, "TESCO 12", "travel", Some((1_736_899_200_000_000, 100))),
    (77, "***", "education", None),
];

/// A job in London time, ready to read logs.
struct Job {
    zone: Zone,
    categories: Categories,
    categorizer: Categorizer,
    partitioner: Partitioner,
    key: Key,
}

static JOB: LazyLock<Job> = LazyLock::new(|| {
    let categories = Categories::builtin();
    let id = |code: &str| -> CategoryId { categories.id(code).expect("a shipped category") };
    let entry = |(name, code): (&str, &str)| SellerEntry {
        name: name.to_string(),
        category: id(code),
        countries: Vec::new(),
        table: 0,
    };
    let choice = |(user_id, seller, code, transaction): (u64, &str, &str, _)| Choice {
        user_id,
        seller: seller.to_string(),
        category: id(code),
        set_at_micros: 0,
        transaction,
    };
    let layers = Layers { sellers: SELLERS.map(entry).to_vec(), ..Layers::default() };
    let categorizer = Categorizer::new(&categories, &layers, &CHOICES.map(choice));
    // A sample of few users, so that some rows of any log are packed and others are not.
    let (mut sample, first) = (Sample::default(), months().first);
    let middle = "2025-01".parse::<Month>().expect("a month").since(first).expect("a month of the job");
    (0..100).for_each(|user_id| sample.add(user_id, middle + user_id as u32 % 3, 1000));
    Job {
        zone: Zone::new("Europe/London", months()).expect("a zone"),
        categorizer: categorizer.expect("there are no rules that could be too large"),
        partitioner: Partitioner::from_sample(sample, 3, categories.count()),
        categories,
        key: Key::random(),
    }
});

/// (cents, transactions) by month, user and category.
type Groups = BTreeMap<(Month, u64, String), (i128, u64)>;

/// Keeps all chunks in memory, by partition.
struct Kept(Vec<Vec<Chunk>>);

impl ChunkSink for Kept {
    fn take(&mut self, partition: usize, chunk: Chunk) {
        self.0[partition].push(chunk);
    }
}

/// Maps a log by the fast path; a hash of the log selects the split and the read size.
fn by_fast_path(log: &[u8]) -> (Outcome, Vec<Reject>, Groups) {
    let mixed =
        log.iter().fold(7u64, |mixed, byte| (mixed ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let cut = (mixed >> 8) as usize % (log.len() + 1);
    let read_bytes = [1, 9, 100, 4096][(mixed >> 4) as usize % 4];
    let rules = MapRules { zone: &JOB.zone, key: JOB.key, only_months: None };
    let known = Known::new(&JOB.categorizer);
    let kept = Kept(vec![Vec::new(); JOB.partitioner.count()]);
    let mut worker = Worker::new(&known, &JOB.partitioner, kept);
    let (mut outcome, mut rejects) = (Outcome::default(), Vec::new());
    for (start, end) in [(0, cut), (cut, log.len())].into_iter().filter(|(start, end)| start < end) {
        let reader = &log[start.saturating_sub(1)..];
        let mut scanner =
            Scanner::new(reader, start as u64, end as u64, read_bytes).expect("bytes in memory");
        let mut mapper = Mapper::new(&rules, &mut worker, (), 0);
        while let Some(block) = scanner.next_block().expect("bytes in memory") {
            mapper.map(block);
        }
        let (split, of_split, ()) = mapper.finish();
        let in_log = |reject: Reject| Reject { line: outcome.lines + reject.line, ..reject };
        rejects.extend(of_split.into_iter().map(in_log));
        outcome.append(split);
    }
    let mut groups = Groups::new();
    for (partition, chunks) in worker.scatter.finish().0.into_iter().enumerate() {
        let sums = sum_up(chunks, JOB.partitioner.packing(partition), &mut SortBuffers::default());
        for (month, spends) in sums.into_months() {
            for spend in spends.iter() {
                let category = JOB.categories.code(spend.category).to_string();
                let sum = (spend.amount_cents.into(), spend.transaction_count);
                let before = groups.insert((JOB.zone.month(month), spend.user_id, category), sum);
                assert!(before.is_none(), "a group occurs twice");
            }
        }
    }
    (outcome, rejects, groups)
}

fn by_oracle(log: &[u8]) -> Plain {
    let choice = |(user_id, seller, code, transaction): (u64, &str, &str, _)| -> PlainChoice {
        (user_id, seller.to_string(), code.to_string(), transaction)
    };
    let mut plain = Plain {
        zone: chrono_tz::Europe::London,
        months: months(),
        line_bytes_max: LINE_BYTES_MAX,
        sellers: SELLERS.map(|(name, code)| (name.to_string(), code.to_string())).to_vec(),
        choices: CHOICES.map(choice).to_vec(),
        groups: BTreeMap::new(),
        rejects: Vec::new(),
        blank: 0,
    };
    plain.read(log);
    plain
}

/// Checks a log: every line is accounted for, with the oracle's result.
pub fn line(log: &[u8]) -> bool {
    let (outcome, rejects, groups) = by_fast_path(log);
    let plain = by_oracle(log);
    let content = log.strip_prefix(BYTE_ORDER_MARK).unwrap_or(log);
    let lines = content.split_inclusive(|byte| *byte == b'\n').count() as u64;
    assert_eq!((outcome.lines, outcome.line_bytes), (lines, content.len() as u64), "lines and their bytes");
    let accounted = outcome.accepted + outcome.rejected_rows() + outcome.blank;
    assert_eq!(accounted, lines, "accepted + rejected + blank = lines");
    assert_eq!(rejects.len() as u64, outcome.rejected_rows(), "every reject is kept");
    let first = rejects.first().map(|reject| (reject.line, reject.refusal));
    assert_eq!(outcome.first_reject, first, "the first reject");
    assert_eq!(outcome.blank, plain.blank, "blank lines");
    assert_eq!(groups, plain.groups, "groups");
    let sum = groups.values().fold((0i128, 0u64), |sum, group| (sum.0 + group.0, sum.1 + group.1));
    assert_eq!(sum, (outcome.net_cents(), outcome.accepted), "cents and rows of the groups");
    assert_eq!(rejects.len(), plain.rejects.len(), "rejects: {:?}", plain.rejects);
    for (reject, expected) in rejects.iter().zip(&plain.rejects) {
        check_reject(log, reject, *expected);
    }
    outcome.accepted > 0
}

fn check_reject(log: &[u8], reject: &Reject, (line, offset, reason): (u64, u64, RejectReason)) {
    let found = reject.refusal.reason;
    assert_eq!((reject.line + 1, reject.byte_offset), (line, offset), "the place of a reject: {reject:?}");
    // Outside the job's months a zone has no transitions, so it does not know gaps there.
    let is_gap_outside = (reason, found) == (RejectReason::NonexistentLocalTime, RejectReason::OutOfWindow);
    assert!(
        found == reason || is_gap_outside,
        "line {line} is {}, the oracle has {}",
        found.name(),
        reason.name()
    );
    let rest = &log[offset as usize..];
    let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
    assert_eq!(&reject.raw[..], &rest[..end.min(LINE_BYTES_MAX)], "the stored bytes of line {line}");
}
