//! Which of the objects that were read are counted, and which are held.
//!
//! In: the outcomes of a map, the ledger, the job's limit, names that may say the same as others. Out: a verdict per object.
//! Invariant: the verdict on an object depends on it, the ledger, and the kept objects whose
//! names come before; never on the order of reading.

use super::local::ObjectOutcome;
use crate::domain::transaction::Refusal;
use crate::input::ledger::Ledger;
use crate::input::plan::{LogObject, above_limit, second_delivery, too_many_rejects};
use crate::kernel::fused::Outcome;
use crate::planted::Bug;
use std::collections::{BTreeSet, HashMap};

/// Nothing of a held object is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Kept,
    Held(String),
}

/// Judges the objects, which come in the order of their names. `duplicates` are the names of those
/// that are counted even if they say the same as another one.
pub fn settle(
    objects: &[LogObject],
    outcomes: &[ObjectOutcome],
    ledger: &Ledger,
    rejects_max_millionths: i64,
    duplicates: &BTreeSet<String>,
) -> Vec<Verdict> {
    let counted = ledger.counted().map(|(name, entry)| (entry.content_hash.clone(), name.as_str()));
    let mut said: HashMap<String, &str> = counted.collect();
    let mut verdicts = Vec::with_capacity(objects.len());
    for (object, outcome) in objects.iter().zip(outcomes) {
        let verdict = match outcome {
            Err(damage) => Verdict::Held(damage.clone()),
            Ok(outcome) => match judge(outcome, rejects_max_millionths, &said) {
                Judged::Duplicate(first) if !duplicates.contains(&object.name) => {
                    Verdict::Held(second_delivery(first))
                }
                Judged::Refused(reason) => Verdict::Held(reason),
                Judged::Duplicate(_) | Judged::New => Verdict::Kept,
            },
        };
        if let (Verdict::Kept, Ok(outcome)) = (&verdict, outcome) {
            said.insert(outcome.content.to_string(), &object.name);
        }
        verdicts.push(verdict);
    }
    verdicts
}

enum Judged<'s> {
    New,
    /// It says the same as this object.
    Duplicate(&'s str),
    Refused(String),
}

fn judge<'s>(outcome: &Outcome, limit: i64, said: &HashMap<String, &'s str>) -> Judged<'s> {
    let rejected = outcome.rejected_rows();
    if above_limit(rejected, outcome.lines, limit) {
        let mut reason = too_many_rejects(rejected, outcome.lines);
        if let Some((line, Refusal { reason: first, column })) = outcome.first_reject {
            reason += &format!("; the first is {} at line {}, column {column}", first.name(), line + 1);
        }
        return Judged::Refused(reason);
    }
    match said.get(&outcome.content.to_string()) {
        // Logs without a word in them are all the same, and no second delivery.
        Some(_) if Bug::SecondDeliveryCounted.is_planted() => Judged::New,
        Some(first) if outcome.lines > outcome.blank => Judged::Duplicate(first),
        _ => Judged::New,
    }
}
