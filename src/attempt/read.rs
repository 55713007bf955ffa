//! The reading half of an attempt: all objects mapped, and judged.
//!
//! In: the objects to count or to count anew. Out: what those that are kept came to, and which are
//! held. Invariant: nothing of a held object is in the sums.

use super::{Attempt, Wish};
use crate::domain::month::Month;
use crate::engine::local::{Mapped, map};
use crate::engine::sample::partition_by_sample;
use crate::engine::settle::{Verdict, settle};
use crate::error::{Error, Result};
use crate::input::plan::LogObject;
use crate::kernel::categorize::Categorizer;
use crate::kernel::fused::{MapRules, Outcome};
use crate::kernel::partition::Partitioner;
use crate::output::lake::TRANSACTIONS;
use crate::output::part::WrittenPart;
use crate::output::transactions::TransactionWriter;
use crate::planted::Bug;
use std::sync::Mutex;

/// Everything that was read, and judged.
pub(super) struct Read {
    pub run_id: String,
    pub kept: Vec<(LogObject, Outcome)>,
    /// With what they came to, where they could be read to their end.
    pub held: Vec<(LogObject, Option<Outcome>, String)>,
    pub mapped: Mapped,
    pub sum: Outcome,
    pub transactions: Vec<(Month, WrittenPart)>,
}

/// What is to be read, and what is known to be held.
pub(super) struct Pending {
    pub objects: Vec<LogObject>,
    pub held: Vec<(LogObject, Option<Outcome>, String)>,
}

impl Pending {
    pub fn of(objects: &[LogObject]) -> Pending {
        Pending { objects: objects.to_vec(), held: Vec::new() }
    }
}

/// What reading goes by.
pub(super) type Prepared = (Categorizer, Partitioner);

impl Attempt<'_> {
    /// Reads all objects; where some have to be held, reads again without them, so that nothing
    /// of them is in the sums.
    pub(super) fn read(
        &self,
        wish: &Wish,
        pending: Pending,
        rules: &MapRules,
        (categorizer, partitioner): &Prepared,
    ) -> Result<Read> {
        let Pending { mut objects, mut held } = pending;
        loop {
            let run_id = uuid::Uuid::now_v7().to_string();
            let (mut mapped, transactions) = self.map(&run_id, &objects, rules, categorizer, partitioner)?;
            let verdicts = match wish {
                Wish::Count(_) => self.judge(&objects, &mapped),
                Wish::Recount(recount) => self.hold_to_ledger(recount, &mapped)?,
            };
            let outcomes = std::mem::take(&mut mapped.outcomes);
            let judged = objects.into_iter().zip(outcomes).zip(verdicts);
            let (held_before, mut kept) = (held.len(), Vec::new());
            for ((object, outcome), verdict) in judged {
                match (verdict, outcome) {
                    (Verdict::Kept, Ok(outcome)) => kept.push((object, outcome)),
                    (Verdict::Held(reason), outcome) => held.push((object, outcome.ok(), reason)),
                    (Verdict::Kept, Err(damage)) => return Err(Error::invariant(damage).at(&object.name)),
                }
            }
            if held.len() == held_before || kept.is_empty() || Bug::HeldRowsStay.is_planted() {
                let mut sum = Outcome::default();
                kept.iter().for_each(|(_, outcome)| sum.add_counts(outcome));
                return Ok(Read { run_id, kept, held, mapped, sum, transactions });
            }
            objects = kept.into_iter().map(|(object, _)| object).collect();
        }
    }

    /// Two things at once: one computes, the other waits for the store.
    pub(super) fn prepare(&self, wish: &Wish, rules: &MapRules) -> Result<Prepared> {
        let categories = self.reference.categories.count();
        let compile = || Categorizer::of(self.reference);
        let sample = || partition_by_sample(wish.objects(), rules.zone, categories);
        let (categorizer, partitioner) = self.tuning.pool()?.join(compile, sample);
        Ok((categorizer?, partitioner?))
    }

    fn map(
        &self,
        run_id: &str,
        objects: &[LogObject],
        rules: &MapRules,
        categorizer: &Categorizer,
        partitioner: &Partitioner,
    ) -> Result<(Mapped, Vec<(Month, WrittenPart)>)> {
        let on_read = |bytes, lines| self.progress.advance(bytes, lines);
        if !self.spec.output.transactions {
            let mapped = map(objects, rules, categorizer, partitioner.clone(), &self.tuning, &(), &on_read);
            return Ok((mapped?, Vec::new()));
        }
        let writer = TransactionWriter {
            table: self.lake.place.child(TRANSACTIONS),
            run_id,
            categories: &self.reference.categories,
            categorizer,
            objects,
            state: Mutex::default(),
        };
        let partitioner = partitioner.clone();
        let mapped = map(objects, rules, categorizer, partitioner, &self.tuning, &writer, &on_read)?;
        let recorded = mapped.outcomes.iter().flatten().map(|o| o.by_source.iter().sum::<u64>()).sum();
        // An archive that breaks off was recorded up to there; it will be held, and read no more.
        let parts =
            if mapped.outcomes.iter().all(Result::is_ok) { writer.close(recorded)? } else { Vec::new() };
        Ok((mapped, parts))
    }

    fn judge(&self, objects: &[LogObject], mapped: &Mapped) -> Vec<Verdict> {
        let limit = self.spec.limits.rejects_max_ratio.0;
        settle(objects, &mapped.outcomes, &self.head.ledger, limit, self.duplicates)
    }
}
