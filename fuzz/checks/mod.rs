//! What has to hold for any bytes at all, told once for the fuzzer and for the tests.
//!
//! In: bytes. Out: whether the program found anything good in them; a panic where something does
//! not hold. Invariant: a check depends on its bytes alone, and what it holds the program to is
//! found another way: by the plain oracle, by chrono, by reading back what was written.

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

/// By the names of their folders in the corpus.
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

/// Those of every job in here: not whole years, so that their edges lie in summer.
fn months() -> MonthRange {
    "2008-06..2027-06".parse().expect("a range of months")
}

/// The text of an amount: what it comes to when it is told by cutting strings, and when it is
/// printed and parsed again.
pub fn amount(text: &[u8]) -> bool {
    let parsed = parse_amount_cents(text);
    assert_eq!(parsed, amount_slowly(text));
    if let Ok(cents) = parsed {
        assert_eq!(
            parse_amount_cents(format_cents(cents.into()).as_bytes()),
            Ok(cents),
            "printed and parsed"
        );
    }
    parsed.is_ok()
}

fn amount_slowly(text: &[u8]) -> Result<i64, AmountError> {
    let text = std::str::from_utf8(text).map_err(|_| AmountError::Malformed)?;
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 2 {
        return Err(AmountError::Malformed);
    }
    // What no integer holds is out of range all the more.
    let cents: i128 = format!("{whole}{fraction:0<2}").parse().unwrap_or(i128::MAX);
    let cents = i64::try_from(cents).ok().filter(|cents| *cents <= AMOUNT_CENTS_MAX);
    cents.map(|cents| sign * cents).ok_or(AmountError::OutOfRange)
}

/// A manifest: what can be read can be kept and read again.
pub fn manifest(bytes: &[u8]) -> bool {
    let manifest = serde_json::from_slice::<Manifest>(bytes);
    if let Ok(manifest) = &manifest {
        let kept = serde_json::to_string(manifest).expect("a manifest is JSON");
        let again: Manifest = serde_json::from_str(&kept).expect("a manifest that was kept");
        assert_eq!(serde_json::to_string(&again).expect("a manifest is JSON"), kept);
        // Its statistics are text from outside, too.
        manifest.monthly_spending.iter().for_each(|part| _ = part.file().users());
    }
    manifest.is_ok()
}

/// The Parquet file of a ledger: what can be read can be kept and read again. The library panics on some
/// damage, so a ledger's checksum is looked at before its bytes are; that it can panic is no finding, and
/// this is replayed by the tests alone.
pub fn ledger(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(Ok(ledger)) = std::panic::catch_unwind(|| Ledger::from_parquet(bytes)) else { return false };
    let kept = ledger.to_parquet().expect("a ledger is Parquet");
    assert_eq!(Ledger::from_parquet(kept).expect("a ledger that was kept"), ledger);
    true
}

/// The text of a job file; `# --set key=value` is an override of the command line. What is wrong is
/// said in one line, and a job that is right can be kept and read again.
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
            let said = error.to_string();
            assert!(error.kind == Kind::Unfit && !said.contains(char::is_control), "{said:?}");
            false
        }
    }
}
