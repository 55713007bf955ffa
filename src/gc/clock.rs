//! By which clock things in a lake are old.
//!
//! In: a lake. Out: now, by the clock that stamps what is written there.
//! Invariant: two clocks that are more than a day apart delete nothing; nothing is old that was written
//! shortly before the newest of all that was written, whatever a clock says today.

use super::written::CLOCK;
use crate::error::{Error, Result, talk};
use crate::limits::GC_KEEP_DAYS;
use crate::planted::Bug;
use crate::store::Place;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// How far the clocks of this machine and of the store may be apart: before a warning, and at all.
const APART_WARNED: TimeDelta = TimeDelta::hours(1);
const APART_MAX: TimeDelta = TimeDelta::days(1);

/// Writes that are no further apart are of one night, and one clock.
const NIGHT: TimeDelta = TimeDelta::days(1);

/// Now, by the clock of the store: an object is written to learn it. Errors where this machine's clock,
/// by which other writers may stamp their commits, is another by more than a day.
pub fn now_of_store(lake: &Place) -> Result<DateTime<Utc>> {
    let clock = lake.child("_runs").child(CLOCK);
    let before = Utc::now();
    let store = clock.store_time()?;
    let after = Utc::now();
    if Bug::GcBelievesProcess.is_planted() {
        return Ok(after);
    }
    let apart = (before - store).max(store - after);
    let what = format!("the store's clock shows {}, and this machine's {}", shown(store), shown(after));
    if apart > APART_MAX {
        let error = Error::unfit(what).at(&lake.shown);
        return Err(error.advise("nothing was deleted: set the clock that is wrong, then run again"));
    }
    if apart > APART_WARNED {
        talk(format_args!("pennymill: {}: {what}; ages are counted by the store's", lake.shown));
    }
    Ok(store)
}

/// What age is counted back from: now, or the newest write where now is later. A clock that runs years
/// ahead cannot be told from a lake that nobody has written to for years; in neither is anything of its
/// last weeks old.
pub fn reference(now: DateTime<Utc>, newest_write: DateTime<Utc>) -> DateTime<Utc> {
    if Bug::GcBelievesProcess.is_planted() { now } else { now.min(newest_write) }
}

/// Errors when the newest write is of today and weeks younger than all others: one night's clock that runs
/// ahead looks the same, and what it leaves must not make everything else old. A day later, other writes
/// or another reading of the clock have confirmed it.
pub fn expect_confirmed(now: DateTime<Utc>, writes: &[DateTime<Utc>]) -> Result<()> {
    let Some(newest) = writes.iter().max().copied() else { return Ok(()) };
    let before = writes.iter().filter(|time| newest - **time > NIGHT).max().copied();
    let Some(before) = before.filter(|before| newest - *before > TimeDelta::days(GC_KEEP_DAYS)) else {
        return Ok(());
    };
    if (now - newest).abs() > NIGHT || Bug::GcBelievesProcess.is_planted() {
        return Ok(());
    }
    let what = format!(
        "the newest write is of {}, and the one before of {}: the clock may be wrong",
        shown(newest),
        shown(before)
    );
    Err(Error::unfit(what).advise("nothing was deleted: check the clock, and run again a day later"))
}

/// To the second, in UTC.
pub fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
