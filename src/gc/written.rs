//! Which names a run of this program can have given to what it writes.
//!
//! In: paths below a table, or below `_runs/`. Out: whether a run of ours may have written them.
//! Invariant: a name that no run gives is nobody's garbage but its owner's.

use crate::planted::Bug;
use chrono::NaiveDate;
use uuid::Uuid;

/// What a run writes beside the tables, but for its alerts.
const OF_RUN: [&str; 5] =
    ["manifest.json", "ledger.parquet", "rejects.parquet", "line_samples.parquet", "alerts.ndjson"];

/// Whether a path below a table is that of a part: `month=2025-01-01/part-00000-<run>.parquet` where the
/// table has months, `part-<run>.parquet` or with numbers where it has none.
pub fn is_part(path: &str, has_months: bool) -> bool {
    if Bug::GcTakesUnknown.is_planted() {
        return true;
    }
    let file = match (path.split_once('/'), has_months) {
        (Some((folder, file)), true) if is_month(folder) => file,
        (None, false) => path,
        _ => return false,
    };
    let name = file.strip_prefix("part-").and_then(|name| name.strip_suffix(".parquet"));
    let Some((numbers, run)) = name.and_then(|name| name.split_at_checked(name.len().checked_sub(ID_BYTES)?))
    else {
        return false;
    };
    let number = |text: &str| text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
    is_run(run) && (numbers.is_empty() || numbers.strip_suffix('-').is_some_and(|n| n.split('-').all(number)))
}

/// A run's id as text.
const ID_BYTES: usize = 36;

/// The run that a path below `_runs/` is of; none where no run writes a file of this name.
pub fn run_of(path: &str) -> Option<&str> {
    let (run, file) = path.split_once('/')?;
    let number = |name: &str| name.len() >= 5 && name.bytes().all(|b| b.is_ascii_digit());
    let alerts = file.strip_prefix("alerts-").and_then(|name| name.strip_suffix(".ndjson"));
    let is_known = OF_RUN.contains(&file) || alerts.is_some_and(number) || Bug::GcTakesUnknown.is_planted();
    (is_run(run) && is_known).then_some(run)
}

/// Whether a path below `_runs/` is that of something all runs share: the locks, the probe, the clock.
pub fn is_shared(path: &str) -> bool {
    ["_lock", "_deliver_lock", "_probe", CLOCK].contains(&path)
}

/// What cleaning up writes to learn the time of the store.
pub const CLOCK: &str = "_clock";

fn is_month(folder: &str) -> bool {
    let day = folder.strip_prefix("month=").filter(|day| day.len() == 10 && day.ends_with("-01"));
    day.is_some_and(|day| NaiveDate::parse_from_str(day, "%Y-%m-%d").is_ok())
}

/// Ids of runs are UUIDs of version 7, written one way.
fn is_run(text: &str) -> bool {
    let id = Uuid::parse_str(text).ok().filter(|id| id.get_version_num() == 7);
    id.is_some_and(|id| id.hyphenated().to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn parts_are_known_by_their_names() {
        for path in ["month=2025-01-01/part-00000-", "month=0987-12-01/part-123456-"] {
            assert!(is_part(&format!("{path}{RUN}.parquet"), true), "{path}");
            assert!(!is_part(&format!("{path}{RUN}.parquet"), false), "{path}");
        }
        for path in ["part-", "part-0000000012-00001-", "part-00000-"] {
            assert!(is_part(&format!("{path}{RUN}.parquet"), false), "{path}");
            assert!(!is_part(&format!("{path}{RUN}.parquet"), true), "{path}");
        }
        let upper = RUN.to_uppercase();
        let version_4 = "9bd8ebb8-3a53-4b43-8a4b-4e0e4f0d6a3e";
        for path in [
            format!("month=2025-01-02/part-00000-{RUN}.parquet"),
            format!("month=2025-13-01/part-00000-{RUN}.parquet"),
            format!("month=2025-1-01/part-00000-{RUN}.parquet"),
            format!("month=2025-01-01/deeper/part-00000-{RUN}.parquet"),
            format!("month=2025-01-01/part-{version_4}-c000.snappy.parquet"),
            format!("month=2025-01-01/part-00000-{version_4}.parquet"),
            format!("month=2025-01-01/part-00000-{upper}.parquet"),
            format!("month=2025-01-01/part-0000x-{RUN}.parquet"),
            format!("month=2025-01-01/part-00000-{RUN}.parquet.crc"),
            format!("month=2025-01-01/part-00000{RUN}.parquet"),
            "month=2025-01-01/part-ü.parquet".to_string(),
            "deletion_vector_9bd8ebb8-3a53-4b43-8a4b-4e0e4f0d6a3e.bin".to_string(),
        ] {
            assert!(!is_part(&path, true) && !is_part(&path, false), "{path}");
        }
    }

    #[test]
    fn files_of_runs_are_known_by_their_names() {
        for file in ["manifest.json", "ledger.parquet", "alerts-00000.ndjson"] {
            assert_eq!(run_of(&format!("{RUN}/{file}")), Some(RUN));
        }
        for path in ["notes.txt", "deeper/manifest.json", "alerts-1.ndjson", ""] {
            assert_eq!(run_of(&format!("{RUN}/{path}")), None, "{path}");
        }
        assert_eq!(run_of("backup/manifest.json"), None);
        assert!(is_shared("_lock") && !is_shared("_lock/a"));
    }
}
