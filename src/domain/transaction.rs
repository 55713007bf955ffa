//! One transaction as stated by a log line, and the reasons for refusing a line.
//!
//! In: nothing. Out: the types `Transaction` and `RejectReason`.
//! Invariant: a `Transaction` has passed every check of its line; reasons have fixed names.

use super::month::Month;

/// User ids are 0 to 2^63 − 1, so that every reader can hold them in a BIGINT.
pub const USER_ID_MAX: u64 = i64::MAX as u64;

/// The longest seller, in bytes of UTF-8.
pub const SELLER_BYTES_MAX: usize = 255;

/// A transaction read from one line; the seller is the raw text of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    pub user_id: u64,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub occurred_at_micros: i64,
    /// The month of that instant in the job's time zone.
    pub month: Month,
    pub seller: &'a str,
    /// Positive for spending, negative for a refund.
    pub amount_cents: i64,
}

/// Why a line was rejected. The names are part of the contract of the `rejects` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    FieldCount,
    BadUserId,
    BadTimestamp,
    NonexistentLocalTime,
    BadSeller,
    BadAmount,
    AmountOutOfRange,
    BadEncoding,
    LineTooLong,
    OutOfWindow,
}

impl RejectReason {
    pub const ALL: [RejectReason; 10] = [
        RejectReason::FieldCount,
        RejectReason::BadUserId,
        RejectReason::BadTimestamp,
        RejectReason::NonexistentLocalTime,
        RejectReason::BadSeller,
        RejectReason::BadAmount,
        RejectReason::AmountOutOfRange,
        RejectReason::BadEncoding,
        RejectReason::LineTooLong,
        RejectReason::OutOfWindow,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RejectReason::FieldCount => "field_count",
            RejectReason::BadUserId => "bad_user_id",
            RejectReason::BadTimestamp => "bad_timestamp",
            RejectReason::NonexistentLocalTime => "nonexistent_local_time",
            RejectReason::BadSeller => "bad_seller",
            RejectReason::BadAmount => "bad_amount",
            RejectReason::AmountOutOfRange => "amount_out_of_range",
            RejectReason::BadEncoding => "bad_encoding",
            RejectReason::LineTooLong => "line_too_long",
            RejectReason::OutOfWindow => "out_of_window",
        }
    }
}

/// A refused line: the reason, and the byte of the line (from 1) where the error starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: RejectReason,
    pub column: u32,
}
