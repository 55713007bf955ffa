//! One attempt of a run: read, add up, write, verify, commit.
//!
//! In: a head, the objects to count or the month to rebuild. Out: the next version, or the news
//! that another run took it. Invariant: opening + parsed = closing as read back, in rows, in
//! cents and by the keyed total, or nothing is committed.

mod alerts;
mod checks;
mod records;

use crate::domain::month::Month;
use crate::engine::local::{Mapped, Tuning, map};
use crate::engine::reduce::{Reduced, Reduction, reduce};
use crate::engine::settle::{Verdict, settle};
use crate::error::{Error, Kind, Result};
use crate::input::ledger::{Ledger, Status};
use crate::input::plan::{Held, LogObject};
use crate::input::published::{PartFile, PublishedPart};
use crate::input::reference::{Reference, zone};
use crate::job::spec::Spec;
use crate::kernel::categorize::Categorizer;
use crate::kernel::fused::{MapRules, Outcome};
use crate::kernel::keyed::Key;
use crate::limits::RUN_SECONDS_MAX;
use crate::output::commit;
use crate::output::lake::{Head, Lake, MONTHLY_SPENDING, TRANSACTIONS};
use crate::output::manifest::{Manifest, PartRecord};
use crate::output::monthly::{MonthPart, PartCutter, PartQueue, PartWriter, QueueState};
use crate::output::part::{WrittenPart, sha256, write_file};
use crate::output::rejects;
use crate::output::transactions::TransactionWriter;
use crate::progress::Progress;
use crate::report::{Report, RunOutcome};
use alerts::Said;
use checks::{hold_to_ledger, verify};
use records::{entry, fill, inputs, months};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

/// What an attempt is to do.
pub enum Wish<'a> {
    /// Count these objects; some may have to be held once they are read.
    Count(&'a [LogObject]),
    /// Recompute a month from the objects that were counted for it.
    Rebuild(Month, &'a [LogObject]),
}

impl Wish<'_> {
    pub fn objects(&self) -> &[LogObject] {
        match self {
            Wish::Count(objects) | Wish::Rebuild(_, objects) => objects,
        }
    }

    fn rebuilt_month(&self) -> Option<Month> {
        match self {
            Wish::Count(_) => None,
            Wish::Rebuild(month, _) => Some(*month),
        }
    }
}

/// What became of an attempt.
pub enum Ended {
    Published,
    /// Everything that was new is held.
    AllHeld,
    /// Another run took the version.
    Lost,
}

pub struct Attempt<'a> {
    pub spec: &'a Spec,
    pub lake: &'a Lake,
    pub head: &'a Head,
    pub reference: &'a Reference,
    pub tuning: Tuning,
    pub started: Instant,
    /// Held before anything was read.
    pub held: &'a [Held],
    /// Entries whose object was touched but says the same.
    pub refreshed: &'a Ledger,
    pub progress: &'a Progress,
}

/// Everything that was read, and judged.
struct Read {
    run_id: String,
    kept: Vec<(LogObject, Outcome)>,
    /// With what they came to, where they could be read to their end.
    held: Vec<(LogObject, Option<Outcome>, String)>,
    mapped: Mapped,
    sum: Outcome,
    transactions: Vec<(Month, WrittenPart)>,
}

/// What was written for the touched months, as read back.
struct Closing {
    parts: Vec<MonthPart>,
    replaced: Vec<PartFile>,
    reduced: Reduced,
    /// The months that this is about.
    touched: Vec<Month>,
}

impl Attempt<'_> {
    /// The whole attempt. Fills in the report as it goes.
    pub fn run(&self, wish: &Wish, report: &mut Report) -> Result<Ended> {
        let zone = zone(self.spec);
        let rules = MapRules { zone: &zone, key: Key::random(), only_month: wish.rebuilt_month() };
        let since = Instant::now();
        let read = self.read(wish, &rules)?;
        report.seconds.map += since.elapsed().as_secs_f64();
        report.hold(&self.all_held(&read));
        if read.kept.is_empty() {
            report.outcome = RunOutcome::Held;
            return Ok(Ended::AllHeld);
        }
        let since = Instant::now();
        self.progress.begin("reduce");
        let closing = self.close(wish, &read, &rules)?;
        verify(&read, &closing)?;
        report.seconds.reduce += since.elapsed().as_secs_f64();
        let since = Instant::now();
        self.progress.begin("alerts");
        // What is said follows from what is right.
        let said = self.say(wish, &read, &closing)?;
        report.seconds.alerts += since.elapsed().as_secs_f64();
        let since = Instant::now();
        self.progress.begin("publish");
        let manifest = self.write_records(wish, &read, &closing, &said)?;
        let committed = self.commit(&closing, &manifest)?;
        report.seconds.publish += since.elapsed().as_secs_f64();
        let commit::Outcome::Committed { version } = committed else { return Ok(Ended::Lost) };
        fill(report, &read, &said, manifest, version);
        Ok(Ended::Published)
    }

    /// Reads all objects; where some have to be held, reads again without them, so that nothing
    /// of them is in the sums.
    fn read(&self, wish: &Wish, rules: &MapRules) -> Result<Read> {
        let categorizer = Categorizer::of(self.reference)?;
        let mut objects = wish.objects().to_vec();
        let mut held = Vec::new();
        loop {
            let run_id = uuid::Uuid::now_v7().to_string();
            let (mut mapped, transactions) = self.map(&run_id, &objects, rules, &categorizer)?;
            let verdicts = match wish {
                Wish::Count(_) => self.judge(&objects, &mapped),
                Wish::Rebuild(month, _) => hold_to_ledger(*month, &objects, &mapped, &self.head.ledger)?,
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
            if held.len() == held_before || kept.is_empty() {
                let mut sum = Outcome::default();
                kept.iter().for_each(|(_, outcome)| sum.add_counts(outcome));
                return Ok(Read { run_id, kept, held, mapped, sum, transactions });
            }
            objects = kept.into_iter().map(|(object, _)| object).collect();
        }
    }

    fn map(
        &self,
        run_id: &str,
        objects: &[LogObject],
        rules: &MapRules,
        categorizer: &Categorizer,
    ) -> Result<(Mapped, Vec<(Month, WrittenPart)>)> {
        let on_read = |bytes, lines| self.progress.advance(bytes, lines);
        if !self.spec.output.transactions {
            return Ok((map(objects, rules, categorizer, &self.tuning, &(), &on_read)?, Vec::new()));
        }
        let writer = TransactionWriter {
            table: self.lake.place.child(TRANSACTIONS),
            run_id,
            categories: &self.reference.categories,
            categorizer,
            objects,
            state: Mutex::default(),
        };
        let mapped = map(objects, rules, categorizer, &self.tuning, &writer, &on_read)?;
        let recorded = mapped.outcomes.iter().flatten().map(|o| o.by_source.iter().sum::<u64>()).sum();
        // An archive that breaks off was recorded up to there; it will be held, and read no more.
        let parts =
            if mapped.outcomes.iter().all(Result::is_ok) { writer.close(recorded)? } else { Vec::new() };
        Ok((mapped, parts))
    }

    fn judge(&self, objects: &[LogObject], mapped: &Mapped) -> Vec<Verdict> {
        let limit = self.spec.limits.rejects_max_ratio.0;
        settle(objects, &mapped.outcomes, &self.head.ledger, limit)
    }

    fn all_held(&self, read: &Read) -> Vec<Held> {
        let now =
            read.held.iter().map(|(o, _, reason)| Held { name: o.name.clone(), reason: reason.clone() });
        let mut held: Vec<Held> = self.held.iter().cloned().chain(now).collect();
        held.sort_by(|a, b| a.name.cmp(&b.name));
        held
    }

    /// Reduces into the parts of the touched months.
    fn close(&self, wish: &Wish, read: &Read, rules: &MapRules) -> Result<Closing> {
        let touched: Vec<Month> = match wish {
            Wish::Count(_) => read.sum.by_month.keys().copied().collect(),
            Wish::Rebuild(month, _) => vec![*month],
        };
        let replaced: Vec<PartFile> = touched.iter().flat_map(|month| self.head.parts_of(*month)).collect();
        let mut openings: Vec<PublishedPart> = touched.iter().flat_map(|m| self.opening(wish, *m)).collect();
        openings.sort_by_key(|part| (*part.users.start(), part.month));
        let writer = PartWriter {
            table: self.lake.place.child(MONTHLY_SPENDING),
            run_id: &read.run_id,
            categories: &self.reference.categories,
            key: rules.key,
        };
        let (reduced, parts) = self.reduce_and_write(read, &openings, rules, &writer)?;
        Ok(Closing { parts, replaced, reduced, touched })
    }

    /// A month as it is published; a month that is rebuilt starts from nothing.
    fn opening(&self, wish: &Wish, month: Month) -> Vec<PublishedPart> {
        match wish {
            Wish::Count(_) => self.head.month(month, self.lake),
            Wish::Rebuild(..) => Vec::new(),
        }
    }

    fn reduce_and_write(
        &self,
        read: &Read,
        openings: &[PublishedPart],
        rules: &MapRules,
        writer: &PartWriter,
    ) -> Result<(Reduced, Vec<MonthPart>)> {
        let (state, mut cutter) = (QueueState::default(), PartCutter::default());
        let months = rules.zone.months();
        let pool = self.tuning.pool()?;
        let reduced = pool.in_place_scope(|scope| {
            let queue = PartQueue::new(scope, writer, &state, pool.current_num_threads());
            let mut write = |month, groups: Vec<_>| {
                cutter.add(month, &groups, |part| queue.push(part));
                Ok(())
            };
            let categories = &self.reference.categories;
            let reduction = Reduction { mapped: &read.mapped, openings, months, categories, key: rules.key };
            let reduced = reduce(&reduction, &pool, &mut write);
            cutter.finish().into_iter().for_each(|part| drop(queue.push(part)));
            reduced
        })?;
        Ok((reduced, state.finish()?))
    }

    /// Writes alerts, rejects and the ledger; what the manifest says of them.
    fn write_records(&self, wish: &Wish, read: &Read, closing: &Closing, said: &Said) -> Result<Manifest> {
        let run_id = &read.run_id;
        let ledger = self.next_ledger(wish, read)?;
        let rejects: Vec<(&str, &[_])> =
            read.kept.iter().map(|(object, outcome)| (object.name.as_str(), &outcome.rejects[..])).collect();
        let rejected: u64 = rejects.iter().map(|(_, rejects)| rejects.len() as u64).sum();
        let publish_rejects = rejected > 0 && wish.rebuilt_month().is_none();
        let record = |name: &str, bytes, rows: u64| {
            write_file(&self.lake.place, format!("_runs/{run_id}/{name}"), bytes, rows)
        };
        let spec = serde_json::to_string(self.spec).map_err(|e| Error::invariant(e.to_string()))?;
        let months = months(&closing.parts)?;
        Ok(Manifest {
            run_id: run_id.clone(),
            job: self.spec.name.clone(),
            job_sha256: sha256(spec.as_bytes()),
            job_spec: spec,
            currency: self.spec.input.currency.0.to_string(),
            time_zone: self.spec.input.time_zone.0.to_string(),
            opening_version: self.head.table.version(),
            rebuilt_month: wish.rebuilt_month().map(|month| month.to_string()),
            inputs: inputs(read),
            months,
            monthly_spending: closing.parts.iter().map(|p| PartRecord::new(p.month, &p.written)).collect(),
            budget_alerts: said.written.parts.iter().map(|(m, part)| PartRecord::new(*m, part)).collect(),
            transactions: read.transactions.iter().map(|(m, part)| PartRecord::new(*m, part)).collect(),
            ledger: record("ledger.parquet", ledger.to_parquet()?, ledger.entries.len() as u64)?,
            rejects: match publish_rejects {
                true => Some(record("rejects.parquet", rejects::to_parquet(&rejects)?, rejected)?),
                false => None,
            },
            alert_files: Some(said.written.files.clone()),
        })
    }

    /// Old + added = new. A rebuild adds nothing.
    fn next_ledger(&self, wish: &Wish, read: &Read) -> Result<Ledger> {
        let mut next = self.head.ledger.clone();
        next.entries.extend(self.refreshed.entries.clone());
        if wish.rebuilt_month().is_some() {
            return Ok(next);
        }
        for (object, outcome) in &read.kept {
            if next.is_counted(&object.name) {
                return Err(Error::invariant("an object is counted twice").at(&object.name));
            }
            let counted = entry(object, Some(outcome), &read.run_id, Status::Counted);
            next.entries.insert(object.name.clone(), counted);
        }
        for (object, outcome, reason) in &read.held {
            let held = entry(object, outcome.as_ref(), &read.run_id, Status::Held(reason.clone()));
            next.entries.insert(object.name.clone(), held);
        }
        let mut contents = BTreeMap::new();
        // Logs without a word in them are all the same, and no second delivery.
        for (name, entry) in next.counted().filter(|(_, entry)| entry.rows_read > entry.rows_blank) {
            if contents.insert(&entry.content_hash, name).is_some() {
                return Err(Error::invariant("a content is counted twice").at(name));
            }
        }
        Ok(next)
    }

    fn commit(&self, closing: &Closing, manifest: &Manifest) -> Result<commit::Outcome> {
        if self.started.elapsed().as_secs() > RUN_SECONDS_MAX {
            let error =
                Error::new(Kind::Temporary, "the run is older than a day and gave up before its commit");
            return Err(error.advise("run again"));
        }
        self.lake.commit(self.head, &closing.replaced, manifest)
    }
}
