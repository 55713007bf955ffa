//! Which of the objects that were read are counted, and which are held.
//!
//! In: the outcomes of a map, the ledger, the job's limit. Out: a verdict per object.
//! Invariant: the verdict on an object depends on it, the ledger, and the kept objects whose
//! names come before; never on the order of reading.

use super::local::ObjectOutcome;
use crate::input::ledger::Ledger;
use crate::input::plan::{LogObject, above_limit, second_delivery, too_many_rejects};
use crate::kernel::fused::Outcome;
use std::collections::BTreeMap;

/// Nothing of a held object is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Kept,
    Held(String),
}

/// Judges the objects, which come in the order of their names.
pub fn settle(
    objects: &[LogObject],
    outcomes: &[ObjectOutcome],
    ledger: &Ledger,
    rejects_max_millionths: i64,
) -> Vec<Verdict> {
    let mut said: BTreeMap<String, &str> = BTreeMap::new();
    let mut verdicts = Vec::with_capacity(objects.len());
    for (object, outcome) in objects.iter().zip(outcomes) {
        let verdict = match outcome {
            Err(damage) => Verdict::Held(damage.clone()),
            Ok(outcome) => judge(outcome, ledger, rejects_max_millionths, &said),
        };
        if let (Verdict::Kept, Ok(outcome)) = (&verdict, outcome) {
            said.insert(outcome.content.to_string(), &object.name);
        }
        verdicts.push(verdict);
    }
    verdicts
}

fn judge(outcome: &Outcome, ledger: &Ledger, limit: i64, said: &BTreeMap<String, &str>) -> Verdict {
    let rejected = outcome.rejected_rows();
    if above_limit(rejected, outcome.lines, limit) {
        let mut reason = too_many_rejects(rejected, outcome.lines);
        if let Some(first) = outcome.rejects.first() {
            let (line, column) = (first.line + 1, first.refusal.column);
            reason +=
                &format!("; the first is {} at line {line}, column {column}", first.refusal.reason.name());
        }
        return Verdict::Held(reason);
    }
    let content = outcome.content.to_string();
    let first = said.get(&content).copied().or_else(|| ledger.counted_with(&content));
    match first {
        Some(first) if !outcome.content.is_empty() => Verdict::Held(second_delivery(first)),
        _ => Verdict::Kept,
    }
}
