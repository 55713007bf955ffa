//! One attempt of a run: read, add up, write, verify, commit.
//!
//! In: a head, the objects to count or the month to rebuild. Out: the next version, or the news
//! that another run took it. Invariant: opening + parsed = closing as read back, in rows, in
//! cents and by the keyed total, or nothing is committed.

mod checks;
mod records;

use crate::domain::alert::Alert;
use crate::domain::month::Month;
use crate::engine::local::{Mapped, Tuning, map};
use crate::engine::reduce::{Reduced, Reduction, reduce};
use crate::engine::settle::{Verdict, settle};
use crate::error::{Error, Kind, Result};
use crate::input::ledger::{Ledger, Status};
use crate::input::plan::{Held, LogObject};
use crate::input::published::{OpeningPart, PartFile};
use crate::input::reference::{Reference, zone};
use crate::job::spec::Spec;
use crate::job::values::AsOf;
use crate::kernel::categorize::Categorizer;
use crate::kernel::fused::{MapRules, Outcome};
use crate::kernel::keyed::Key;
use crate::limits::RUN_SECONDS_MAX;
use crate::output::alerts::{not_yet_emitted, to_ndjson, to_parquet};
use crate::output::commit;
use crate::output::lake::{BUDGET_ALERTS, Head, Lake, MONTHLY_SPENDING, TRANSACTIONS};
use crate::output::manifest::{FileRecord, Manifest, PartRecord};
use crate::output::monthly::{AlertRule, MonthPart, PartCutter, PartQueue, PartWriter, QueueState};
use crate::output::part::{self, WrittenPart, sha256};
use crate::output::rejects;
use crate::output::transactions::TransactionWriter;
use crate::progress::Progress;
use crate::report::{Report, RunOutcome};
use bytes::Bytes;
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
    alerts: Vec<Alert>,
    as_of: Option<Month>,
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
        self.progress.begin("publish");
        let manifest = self.write_records(wish, &read, &closing)?;
        let committed = self.commit(&closing, &manifest)?;
        report.seconds.publish += since.elapsed().as_secs_f64();
        let commit::Outcome::Committed { version } = committed else { return Ok(Ended::Lost) };
        fill(report, &read, &closing, manifest, version);
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
        let mut openings: Vec<OpeningPart> = touched.iter().flat_map(|m| self.opening(wish, *m)).collect();
        openings.sort_by_key(|part| (part.first_user, part.month));
        let as_of = self.alert_month(wish, &touched);
        let emitted = as_of.map_or(Ok(Default::default()), |month| self.lake.emitted_alerts(month))?;
        let writer = PartWriter {
            table: self.lake.place.child(MONTHLY_SPENDING),
            run_id: &read.run_id,
            categories: &self.reference.categories,
            key: rules.key,
            alert_rule: as_of.map(|month| AlertRule {
                month,
                budgets: &self.reference.budgets,
                approaching_millionths: self.spec.alerts.approaching.0,
            }),
        };
        let (reduced, mut parts) = self.reduce_and_write(read, &openings, rules, &writer)?;
        let alerts = parts.iter_mut().flat_map(|part| std::mem::take(&mut part.alerts)).collect();
        let alerts = not_yet_emitted(alerts, &emitted);
        Ok(Closing { parts, replaced, reduced, alerts, as_of })
    }

    /// A month as it is published; a month that is rebuilt starts from nothing.
    fn opening(&self, wish: &Wish, month: Month) -> Vec<OpeningPart> {
        let table = self.lake.place.child(MONTHLY_SPENDING);
        let parts = match wish {
            Wish::Count(_) => self.head.parts_of(month),
            Wish::Rebuild(..) => Vec::new(),
        };
        let opening = |part: &PartFile| {
            let (first_user, place) = (part.first_user(), table.child(&part.path));
            OpeningPart { month, first_user, place }
        };
        parts.iter().map(opening).collect()
    }

    /// Alerts are for one month, only when it is touched, and never from a rebuild.
    fn alert_month(&self, wish: &Wish, touched: &[Month]) -> Option<Month> {
        let as_of = match self.spec.alerts.as_of.0 {
            AsOf::Month(month) => Some(month),
            AsOf::Latest => touched.iter().copied().max().max(self.head.last_month()),
        };
        let wanted = wish.rebuilt_month().is_none() && !self.reference.budgets.is_empty();
        as_of.filter(|month| wanted && touched.contains(month))
    }

    fn reduce_and_write(
        &self,
        read: &Read,
        openings: &[OpeningPart],
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
    fn write_records(&self, wish: &Wish, read: &Read, closing: &Closing) -> Result<Manifest> {
        let run_id = &read.run_id;
        let ledger = self.next_ledger(wish, read)?;
        let rejects: Vec<(&str, &[_])> =
            read.kept.iter().map(|(object, outcome)| (object.name.as_str(), &outcome.rejects[..])).collect();
        let rejected: u64 = rejects.iter().map(|(_, rejects)| rejects.len() as u64).sum();
        let publish_rejects = rejected > 0 && wish.rebuilt_month().is_none();
        let alerts = closing.alerts.len() as u64;
        let record = |name: &str, bytes: Bytes, rows: u64| self.write_record(run_id, name, bytes, rows);
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
            budget_alerts: self.write_alert_part(run_id, closing)?,
            transactions: read.transactions.iter().map(|(m, part)| PartRecord::new(*m, part)).collect(),
            ledger: record("ledger.parquet", ledger.to_parquet()?, ledger.entries.len() as u64)?,
            rejects: match publish_rejects {
                true => Some(record("rejects.parquet", rejects::to_parquet(&rejects)?, rejected)?),
                false => None,
            },
            alerts: match alerts {
                0 => None,
                _ => Some(record("alerts.ndjson", to_ndjson(&closing.alerts, run_id), alerts)?),
            },
        })
    }

    fn write_record(&self, run_id: &str, name: &str, bytes: Bytes, rows: u64) -> Result<FileRecord> {
        let path = format!("_runs/{run_id}/{name}");
        let (place, checksum, size_bytes) =
            (self.lake.place.child(&path), sha256(&bytes), bytes.len() as u64);
        place.create(bytes)?;
        match sha256(&place.read()?) == checksum {
            true => Ok(FileRecord { path, size_bytes, rows, sha256: checksum }),
            false => Err(Error::invariant("an object reads back with other bytes").at(&place.shown)),
        }
    }

    fn write_alert_part(&self, run_id: &str, closing: &Closing) -> Result<Vec<PartRecord>> {
        let (Some(month), false) = (closing.as_of, closing.alerts.is_empty()) else { return Ok(Vec::new()) };
        let table = self.lake.place.child(BUDGET_ALERTS);
        let path = format!("month={month}-01/part-{run_id}.parquet");
        let bytes = to_parquet(&closing.alerts, run_id)?;
        let written = part::write(&table, &path, bytes, closing.alerts.len() as u64)?;
        part::read_back(&table.child(&path), &written)?;
        Ok(vec![PartRecord::new(month, &written)])
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
            next.entries
                .insert(object.name.clone(), entry(object, Some(outcome), &read.run_id, Status::Counted));
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
