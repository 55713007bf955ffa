//! Every bound of a spending run, in one place, asserted against each other.
//!
//! In: nothing. Out: constants. Invariant: the assertions below hold, or nothing compiles.

use crate::domain::money::AMOUNT_CENTS_MAX;

/// The longest line of a log, its end included. Longer ones are skipped without being held.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// How much of a log is read at once, into a buffer that is used again: it stays in a core's cache.
pub const READ_BYTES: usize = 256 * 1024;

/// How much of a remote object one request asks for; large enough that latency is hidden,
/// small enough for the client's 30 s body timeout.
pub const REMOTE_REQUEST_BYTES: u64 = 8 * 1024 * 1024;

/// The share of a plain object that one worker maps: at the end of the map the others wait for the
/// last one.
pub const SPLIT_BYTES: u64 = 16 * 1024 * 1024;

/// Of a remote object: while one request is mapped, others are on their way.
pub const REMOTE_SPLIT_BYTES: u64 = 4 * REMOTE_REQUEST_BYTES;

/// Log objects of one run.
pub const OBJECTS_MAX: usize = 1_000_000;

/// Months of one job: what 12 bits of a movement can hold.
pub const MONTHS_MAX: u32 = 4096;

/// Partitions of the shuffle.
pub const PARTITIONS_MAX: usize = 1024;

/// Movements a partition should hold: with 8 bytes each, most of them, and as much again for
/// sorting, they stay in a core's cache.
pub const PARTITION_ROWS_TARGET: u64 = 64 * 1024;

/// Movements of one partition that are added up at once, however many there are of a user who stands in
/// every row.
pub const MOVEMENTS_AT_ONCE: usize = 4 * 1024 * 1024;

/// What one chunk of a partition takes: somewhat less than a power of two, so that an allocator has
/// room beside a number of them.
pub const CHUNK_BYTES: usize = 7 * 1024;

/// Decompressed bytes per compressed byte, looked at after the first mebibyte.
pub const DECOMPRESSION_RATIO_MAX: u64 = 200;

/// What the rejects of one object may take; an object with more is held.
pub const REJECT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What the rejects of one worker may take before they are put aside, but for those of one block.
pub const REJECT_BYTES_AT_ONCE: u64 = 1024 * 1024;

/// Lines of one object that a run remembers to tell overlaps by, and lines of all that it reads.
pub const LINE_SAMPLE: u64 = 16 * 1024;
pub const LINE_SAMPLES: u64 = 256 * 1024;

/// Runs whose samples a run looks at.
pub const OVERLAP_RUNS_MAX: usize = 64;

/// Distinct sellers that one worker remembers the category of, as printed; and that all together
/// remember, folded.
pub const SELLERS_REMEMBERED_MAX: usize = 256 * 1024;

/// The footer of a Parquet file, one page of it once it is unpacked, and what is decoded of it at once.
pub const PARQUET_FOOTER_BYTES_MAX: usize = 16 * 1024 * 1024;
pub const PARQUET_PAGE_BYTES_MAX: u64 = 256 * 1024 * 1024;
pub const PARQUET_BATCH_BYTES: u64 = 256 * 1024 * 1024;

/// Rows of one published part, whoever wrote it: two gibibytes of groups.
pub const PART_ROWS_MAX: u64 = 64 * 1024 * 1024;

/// Rows of a ledger: one for each object that was ever counted or held.
pub const LEDGER_ROWS_MAX: u64 = 64 * 1024 * 1024;

/// An object that is read whole: a part, a ledger, a manifest. None that this program writes comes near it.
pub const OBJECT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A job file, its SQL, its categories and its budget template.
pub const TEXT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One cell of a reference table.
pub const CELL_BYTES_MAX: usize = 64 * 1024;

/// What a row of a reference table takes in memory beside its cells: at most, which is a choice, in the
/// list of all and in that of its user; of a user's income; and of a budget that somebody has set.
pub const ROW_BYTES_KEPT: u64 = 160;
pub const INCOME_BYTES_KEPT: u64 = 48;
pub const BUDGET_BYTES_KEPT: u64 = 64;

/// What the rows of a reference table may take where no job says it, and in any case: a job with a
/// small `limits.memory` still has users.
pub const TABLE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
pub const TABLE_BYTES_MIN: u64 = 512 * 1024 * 1024;

/// Rules of a job: their numbers have 16 bits.
pub const RULES_MAX: usize = u16::MAX as usize;

/// What the compiled patterns of one rule, and of all rules together, may take.
pub const PATTERN_BYTES_MAX: usize = 1024 * 1024;
pub const PATTERNS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How often a run that has to hold objects whose sums are too large adds up again.
pub const OVERFLOW_ROUNDS_MAX: u32 = 8;

/// Words of one keyword.
pub const KEYWORD_WORDS_MAX: usize = 4;

/// Groups in one published part, and in one row group of it.
pub const PART_GROUPS: usize = 1024 * 1024;
pub const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Groups in one page of a published part, which stay in a core's cache while they are encoded.
pub const PAGE_GROUPS: usize = 16 * 1024;

/// Transactions in one published part.
pub const PART_TRANSACTIONS: usize = 2 * 1024 * 1024;

/// Alerts in one published part: a part ends with the users that pass this.
pub const PART_ALERTS: usize = 256 * 1024;

/// Thresholds of one job's alerts.
pub const THRESHOLDS_MAX: usize = 16;

/// How often a run that lost the race for a version plans again.
pub const COMMIT_ATTEMPTS_MAX: u32 = 5;

/// A run older than this gives up before its commit, so that cleaning up can know it is dead.
pub const RUN_SECONDS_MAX: u64 = 24 * 3600;

/// Cleaning up keeps what versions of so many days name, and what is younger than so many.
pub const GC_KEEP_DAYS: i64 = 35;
pub const GC_AGE_DAYS: i64 = 7;

/// The text of a question in SQL: its bytes, and its tokens without space and comments.
pub const SQL_BYTES_MAX: usize = 256 * 1024;
pub const SQL_TOKENS_MAX: usize = 50_000;

/// Brackets within brackets of a question, types within types, and tables that one FROM joins.
pub const SQL_NESTING_MAX: usize = 100;
pub const SQL_JOINED_MAX: usize = 100;

/// Joins of a question, in all its parts.
pub const SQL_JOINS_MAX: usize = 500;

/// How deep the plan of a question and the expressions in it may be, and how many steps it may have.
pub const SQL_PLAN_DEPTH_MAX: usize = 500;
pub const SQL_PLAN_STEPS_MAX: usize = 20_000;

/// The stacks of the thread that plans a question and of those that answer it. They are only reserved: a
/// question that is not deep touches some kilobytes of them. What the bounds above let through fits.
pub const PLANNING_STACK_BYTES: usize = 256 * 1024 * 1024;
pub const ANSWERING_STACK_BYTES: usize = 64 * 1024 * 1024;

/// The least of `limits.memory` that one thread of a question needs.
pub const THREAD_MEMORY_BYTES: usize = 32 * 1024 * 1024;

/// What a question is given to end by itself when its time is over, before the process ends.
pub const GRACE_SECONDS: u64 = 1;

/// Rows that a job of kind `sql` may publish.
pub const ANSWER_ROWS_MAX: u64 = 1_000_000_000;

/// A part of such a table: its bytes as they are encoded, less where `limits.memory` is small, and its
/// rows.
pub const ANSWER_PART_BYTES: usize = 64 * 1024 * 1024;
pub const ANSWER_PART_ROWS: u64 = 16 * 1024 * 1024;

/// A line of an audit's sample of old inputs: this share of them, unless another is asked for.
pub const AUDIT_SHARE: f64 = 0.02;

const _: () = {
    // A run gives up long before what it wrote can be taken for garbage.
    assert!(RUN_SECONDS_MAX < GC_AGE_DAYS as u64 * 24 * 3600);
    assert!(GC_AGE_DAYS < GC_KEEP_DAYS);
    assert!(LINE_BYTES_MAX < READ_BYTES);
    assert!((READ_BYTES as u64) < SPLIT_BYTES);
    // A partitioner counts them in 16 bits.
    assert!(PARTITIONS_MAX <= 1 << 16);
    // A movement packs 12 bits of month, 8 of category and 44 of biased cents.
    assert!(MONTHS_MAX == 1 << 12);
    assert!(AMOUNT_CENTS_MAX < 1 << 43);
    assert!(PART_GROUPS.is_multiple_of(ROW_GROUP_ROWS));
    assert!(ROW_GROUP_ROWS.is_multiple_of(PAGE_GROUPS));
};
