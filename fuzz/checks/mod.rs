//! Properties that must hold for arbitrary bytes, shared by the fuzzer and the tests.
//!
//! In: bytes. Out: whether they contain anything valid; panics if a property is violated.
//! Invariant: a check depends on its bytes alone. Expected results come from independent sources:
//! the oracle, chrono, or reading back the output.

mod archive;
mod line;
mod timestamp;

pub use archive::archive;
pub use line::line;
pub use timestamp::timestamp;

use bytes::Bytes;
use pennymill::domain::money::{AMOUNT_CENTS_MAX, AmountError, format_cents, parse_amount_cents};
use pennymill::domain::month::MonthRange;
use pennymill::error::Kind;
use pennymill::input::ledger::Ledger;
use pennymill::job::spec::Spec;
use pennymill::output::manifest::Manifest;

pub type Check = fn(&[u8]) -> bool;

/// By the name of the folder in the corpus.
pub const CHECKS: [(&str, Check); 7] = [
    ("line", line),
    ("amount", amount),
    ("timestamp", timestamp),
    ("archive", archive),
    ("manifest", manifest),
    ("ledger", ledger),
    ("job", job),
];

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The months of every job here. They start and end in summer time rather than at a year's end.
fn months() -> MonthRange {
    "2008-06..2027-06".parse().expect("a range of months")
}

/// The text of an amount: parses as by an independent implementation, and equally after formatting.
pub fn amount(text: &[u8]) -> bool {
    let parsed = parse_amount_cents(text);
    assert_eq!(parsed, amount_by_strings(text));
    if let Ok(cents) = parsed {
        assert_eq!(
            parse_amount_cents(format_cents(cents.into()).as_bytes()),
            Ok(cents),
            "formatted and parsed"
        );
    }
    parsed.is_ok()
}

fn amount_by_strings(text: &[u8]) -> Result<i64, AmountError> {
    let text = std::str::from_utf8(text).map_err(|_| AmountError::Malformed)?;
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 2 {
        return Err(AmountError::Malformed);
    }
    // A number beyond any integer is also out of range.
    let cents: i128 = format!("{whole}{fraction:0<2}").parse().unwrap_or(i128::MAX);
    let cents = i64::try_from(cents).ok().filter(|cents| *cents <= AMOUNT_CENTS_MAX);
    cents.map(|cents| sign * cents).ok_or(AmountError::OutOfRange)
}

/// A manifest: serialising and parsing it again gives the same manifest.
pub fn manifest(bytes: &[u8]) -> bool {
    let manifest = serde_json::from_slice::<Manifest>(bytes);
    if let Ok(manifest) = &manifest {
        let kept = serde_json::to_string(manifest).expect("a manifest is JSON");
        let again: Manifest = serde_json::from_str(&kept).expect("a manifest that was kept");
        assert_eq!(serde_json::to_string(&again).expect("a manifest is JSON"), kept);
        // Its statistics are text from outside as well.
        manifest.monthly_spending.iter().for_each(|part| _ = part.file().users());
    }
    manifest.is_ok()
}

/// The Parquet file of a ledger: writing and reading it again gives the same ledger. The library
/// panics on some damage, which is why the program verifies a ledger's checksum before parsing.
/// Such panics are not findings, so only the tests run this check.
pub fn ledger(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(Ok(ledger)) = std::panic::catch_unwind(|| Ledger::from_parquet(bytes)) else { return false };
    let kept = ledger.to_parquet().expect("a ledger is Parquet");
    assert_eq!(Ledger::from_parquet(kept).expect("a ledger that was kept"), ledger);
    true
}

/// The text of a job file; a line `# --set key=value` is an override from the command line. An
/// invalid job gives an error of one line; a valid one is unchanged by serialising and parsing.
pub fn job(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let sets = text.lines().filter_map(|line| line.strip_prefix("# --set ")).map(String::from);
    match Spec::parse(text, "job.toml", &sets.collect::<Vec<String>>()) {
        Ok(spec) => {
            let kept = serde_json::to_string(&spec).expect("a job is JSON");
            let again: Spec = serde_json::from_str(&kept).expect("a job that was kept");
            assert_eq!(serde_json::to_string(&again).expect("a job is JSON"), kept);
            true
        }
        Err(error) => {
            let message = error.to_string();
            assert!(error.kind == Kind::Unfit && !message.contains(char::is_control), "{message:?}");
            false
        }
    }
}
