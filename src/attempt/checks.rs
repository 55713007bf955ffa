//! What has to hold before an attempt commits.
//!
//! In: what was read, what was written and read back, the ledger. Out: leave to go on.
//! Invariant: opening + parsed = closing as read back, and a rebuild reads what was counted.

use super::{Closing, Read};
use crate::domain::month::Month;
use crate::engine::local::Mapped;
use crate::engine::settle::Verdict;
use crate::error::{Error, Kind, Result};
use crate::input::ledger::Ledger;
use crate::input::plan::LogObject;
use crate::kernel::keyed::GroupTotals;
use crate::output::monthly::MonthPart;

/// A rebuild reads what was counted, all of it and nothing else.
pub(super) fn hold_to_ledger(
    month: Month,
    objects: &[LogObject],
    mapped: &Mapped,
    ledger: &Ledger,
) -> Result<Vec<Verdict>> {
    for (object, outcome) in objects.iter().zip(&mapped.outcomes) {
        let refuse = |what: &str| Error::new(Kind::InputRefused, what.to_string()).at(&object.name);
        let outcome = outcome.as_ref().map_err(|damage| refuse(damage))?;
        let entry = &ledger.entries[&object.name];
        if outcome.content.to_string() != entry.content_hash {
            return Err(refuse("its content is not what was counted").advise("restore the object as it was"));
        }
        let share = outcome.by_month.get(&month).copied().unwrap_or_default();
        let counted = entry.months.iter().find(|m| m.month == month);
        if counted.map(|m| (m.rows, m.net_cents)) != Some((share.rows, share.net_cents)) {
            let error = refuse("its rows of the month are not those that were counted");
            return Err(error.advise("use the months and the time zone it was counted with"));
        }
    }
    Ok(vec![Verdict::Kept; objects.len()])
}

/// The checks that stand between what was written and its commit.
pub(super) fn verify(read: &Read, closing: &Closing) -> Result<()> {
    let (sum, reduced) = (&read.sum, &closing.reduced);
    let counted: u64 = sum.by_source.iter().sum();
    let closed = closing.parts.iter().fold(GroupTotals::default(), |sum, part| sum.plus(part.totals));
    let follows = |pair: &[MonthPart]| pair[0].month != pair[1].month || pair[0].users.1 < pair[1].users.0;
    let checks = [
        ("users rise from part to part", closing.parts.windows(2).all(follows)),
        ("rows parsed and reduced", reduced.rows == counted),
        ("positive cents parsed and reduced", reduced.positive_cents == sum.positive_cents),
        ("negative cents parsed and reduced", reduced.negative_cents == sum.negative_cents),
        ("transactions", closed.transactions == reduced.opening.transactions + counted),
        ("cents", closed.net_cents == reduced.opening.net_cents + sum.net_cents()),
        ("the keyed total", closed.keyed == reduced.opening.keyed.plus(sum.keyed)),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        Some((name, _)) => Err(Error::invariant(format!("opening + movements is not closing: {name}"))),
        None => Ok(()),
    }
}
