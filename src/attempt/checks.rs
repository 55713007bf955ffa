//! What has to hold before an attempt commits.
//!
//! In: what was read, what was written and read back, the ledger. Out: leave to go on.
//! Invariant: opening + parsed = closing as read back = what the ledger counts for each month, and a
//! recount reads what was counted.

use super::records::month_entry;
use super::{Attempt, Closing, Read, Recount};
use crate::domain::month::Month;
use crate::engine::local::Mapped;
use crate::engine::settle::{Verdict, settle};
use crate::error::{Error, Kind, Result};
use crate::input::ledger::{Entry, Ledger};
use crate::kernel::fused::Outcome;
use crate::kernel::keyed::GroupTotals;
use crate::output::monthly::MonthPart;
use std::collections::{BTreeMap, BTreeSet};

impl Attempt<'_> {
    /// A recount reads what was counted, all of it and nothing else; objects that are restated are
    /// read like new ones.
    pub(super) fn hold_to_ledger(&self, recount: &Recount, mapped: &Mapped) -> Result<Vec<Verdict>> {
        let mut others = self.head.ledger.clone();
        others.entries.retain(|name, _| !recount.restated.contains(name));
        let limit = self.spec.limits.rejects_max_ratio.0;
        for (object, outcome) in recount.objects.iter().zip(&mapped.outcomes) {
            let refuse = |what: &str| Error::new(Kind::InputRefused, what.to_string()).at(&object.name);
            if recount.restated.contains(&object.name) {
                let (object, outcome) = (std::slice::from_ref(object), std::slice::from_ref(outcome));
                if let [Verdict::Held(reason)] = &settle(object, outcome, &others, limit, self.duplicates)[..]
                {
                    return Err(refuse(reason));
                }
                continue;
            }
            let outcome = outcome.as_ref().map_err(|damage| refuse(damage))?;
            let entry = &self.head.ledger.entries[&object.name];
            if outcome.content.to_string() != entry.content_hash {
                let error = refuse("its content is not what was counted");
                return Err(error.advise("restore the object as it was, or count it as it is with --restate"));
            }
            if recounted(entry, outcome, &recount.months).is_none() {
                let error = refuse("its rows of the month are not those that were counted");
                return Err(error.advise("use the months and the time zone it was counted with"));
            }
        }
        Ok(vec![Verdict::Kept; recount.objects.len()])
    }
}

/// What the ledger says of an object after a recount of `months`: what it said before, and the rows
/// of months that the job lets in only now. None where it says something else.
pub(super) fn recounted(entry: &Entry, outcome: &Outcome, months: &BTreeSet<Month>) -> Option<Entry> {
    let mut next = entry.clone();
    for month in months {
        let share = outcome.by_month.get(month).copied().unwrap_or_default();
        match entry.months.iter().find(|m| m.month == *month) {
            Some(counted) if (counted.rows, counted.net_cents) == (share.rows, share.net_cents()) => {}
            None if share.rows == 0 => {}
            None if share.rows <= next.rows_outside => {
                next.rows_outside -= share.rows;
                next.rows_rejected -= share.rows;
                next.rows_accepted += share.rows;
                next.positive_cents += share.positive_cents;
                next.negative_cents += share.negative_cents;
                next.months.push(month_entry(*month, &share));
            }
            _ => return None,
        }
    }
    next.months.sort_by_key(|of_month| of_month.month);
    Some(next)
}

/// What is published has to be what the ledger counted, or somebody has laid hands on it.
fn hold_opening(closing: &Closing, ledger: Option<&Ledger>) -> Result<()> {
    let Some(ledger) = ledger else { return Ok(()) };
    let months = ledger.months();
    let counted = closing.touched.iter().filter_map(|month| months.get(month));
    let counted = counted.fold((0, 0), |sum, month| (sum.0 + month.0, sum.1 + month.1));
    let opening = &closing.reduced.opening;
    match (opening.transactions, opening.net_cents) == counted {
        true => Ok(()),
        false => {
            let what =
                "the published parts of a touched month are not what the ledger counted: the lake is damaged";
            Err(Error::unfit(what).advise("`pennymill audit` says where; --rebuild computes a month anew"))
        }
    }
}

/// The checks that stand between what was written and its commit.
/// `opening` is the ledger before, of a run that builds on what is published.
pub(super) fn verify(
    read: &Read,
    closing: &Closing,
    opening: Option<&Ledger>,
    ledger: &Ledger,
) -> Result<()> {
    let (sum, reduced) = (&read.sum, &closing.reduced);
    let counted: u64 = sum.by_source.iter().sum();
    let closed = closing.parts.iter().fold(GroupTotals::default(), |sum, part| sum.plus(part.totals));
    let mut months: BTreeMap<Month, (u64, i128)> = BTreeMap::new();
    for part in &closing.parts {
        let sum = months.entry(part.month).or_default();
        *sum = (sum.0 + part.totals.transactions, sum.1 + part.totals.net_cents);
    }
    let counted_months = ledger.months();
    hold_opening(closing, opening)?;
    let is_counted = |month: &Month| months.get(month) == counted_months.get(month);
    let follows = |pair: &[MonthPart]| pair[0].month != pair[1].month || pair[0].users.1 < pair[1].users.0;
    let checks = [
        ("users rise from part to part", closing.parts.windows(2).all(follows)),
        ("rows parsed and reduced", reduced.rows == counted),
        ("positive cents parsed and reduced", reduced.positive_cents == sum.positive_cents),
        ("negative cents parsed and reduced", reduced.negative_cents == sum.negative_cents),
        ("transactions", closed.transactions == reduced.opening.transactions + counted),
        ("cents", closed.net_cents == reduced.opening.net_cents + sum.net_cents()),
        ("the keyed total", closed.keyed == reduced.opening.keyed.plus(sum.keyed)),
        ("rows and cents of a month, as the ledger counts them", closing.touched.iter().all(is_counted)),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        Some((name, _)) => Err(Error::invariant(format!("opening + movements is not closing: {name}"))),
        None => Ok(()),
    }
}
