//! One attempt of a run: read, add up, write, verify, commit.
//!
//! In: a head, the objects to count or the months to recount. Out: the next version, or the news
//! that another run took it. Invariant: opening + parsed = closing as read back, in rows, in
//! cents and by the keyed total, and closing is what the ledger counts, or nothing is committed.

mod alerts;
mod beyond;
mod checks;
mod overlaps;
mod read;
mod records;

use crate::domain::month::Month;
use crate::engine::local::{Tuning, pool};
use crate::engine::reduce::{Reduced, Reduction, Stopped, reduce};
use crate::error::{Error, Kind, Result};
use crate::input::gaps::gaps;
use crate::input::ledger::{Entry, Ledger, Status};
use crate::input::plan::{Held, LogObject};
use crate::input::published::{PartFile, PublishedPart};
use crate::input::reference::{Reference, zone};
use crate::job::spec::Spec;
use crate::kernel::fused::MapRules;
use crate::kernel::keyed::Key;
use crate::kernel::line_sample::LineSample;
use crate::limits::RUN_SECONDS_MAX;
use crate::output::commit;
use crate::output::lake::{Head, Lake, MONTHLY_SPENDING};
use crate::output::line_samples;
use crate::output::manifest::{Manifest, PartRecord};
use crate::output::monthly::{Cutter, MonthPart, PageQueue, PartWriter, QueueState};
use crate::output::part::{sha256, write_file};
use crate::output::rejects;
use crate::planted::Bug;
use crate::progress::Progress;
use crate::report::{Report, RunOutcome};
use alerts::Said;
use checks::{recounted, verify};
use read::{Pending, Read};
use records::{entry, fill, inputs, months};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What an attempt is to do.
pub enum Wish<'a> {
    /// Count these objects; some may have to be held once they are read.
    Count(&'a [LogObject]),
    /// Recompute months from the objects that were counted for them.
    Recount(&'a Recount),
}

/// Months to be computed anew.
pub struct Recount {
    pub months: BTreeSet<Month>,
    /// All that was counted for one of the months, and all that is restated.
    pub objects: Vec<LogObject>,
    /// The names of objects that say something else now, and are counted as they are now.
    pub restated: BTreeSet<String>,
}

impl<'a> Wish<'a> {
    pub fn objects(&self) -> &'a [LogObject] {
        match self {
            Wish::Count(objects) => objects,
            Wish::Recount(recount) => &recount.objects,
        }
    }

    fn recount(&self) -> Option<&'a Recount> {
        match self {
            Wish::Count(_) => None,
            Wish::Recount(recount) => Some(recount),
        }
    }

    /// Whether the rejects of an object are new.
    fn is_news(&self, name: &str) -> bool {
        self.recount().is_none_or(|recount| recount.restated.contains(name))
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
    /// Names of objects that may say the same as others.
    pub duplicates: &'a BTreeSet<String>,
    pub progress: &'a Progress,
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
        let rules =
            MapRules { zone: &zone, key: Key::random(), only_months: wish.recount().map(|r| &r.months) };
        let (read, closing) = self.read_and_close(wish, &rules, report)?;
        report.hold(&self.all_held(&read));
        let Some(closing) = closing else {
            report.outcome = RunOutcome::Held;
            return Ok(Ended::AllHeld);
        };
        let since = Instant::now();
        let ledger = self.next_ledger(wish, &read)?;
        let opening = wish.recount().is_none().then_some(&self.head.ledger);
        verify(&read, &closing, opening, &ledger)?;
        report.seconds.reduce += since.elapsed().as_secs_f64();
        let since = Instant::now();
        self.progress.begin("alerts");
        // What is said follows from what is right.
        let said = self.say(wish, &read, &closing)?;
        let overlaps = self.overlaps(wish, &read)?;
        report.seconds.alerts += since.elapsed().as_secs_f64();
        let since = Instant::now();
        self.progress.begin("publish");
        let manifest = self.write_records(wish, &read, &closing, &said, &ledger)?;
        let committed = self.commit(&closing, &manifest)?;
        report.seconds.publish += since.elapsed().as_secs_f64();
        let commit::Outcome::Committed { version } = committed else { return Ok(Ended::Lost) };
        fill(report, &read, &said, manifest, version);
        report.overlaps = overlaps;
        let rows = |entry: &Entry| (entry.status == Status::Counted).then_some(entry.rows_accepted);
        let objects = ledger.entries.iter().map(|(name, entry)| (name.as_str(), rows(entry)));
        report.gaps = gaps(objects, &read.kept.iter().map(|(object, _)| object.name.as_str()).collect());
        Ok(Ended::Published)
    }

    /// Reads and adds up; again without those objects with which a sum would be too large. No closing
    /// groups where nothing is left to count.
    fn read_and_close(
        &self,
        wish: &Wish,
        rules: &MapRules,
        report: &mut Report,
    ) -> Result<(Read, Option<Closing>)> {
        let since = Instant::now();
        let prepared = self.prepare(wish, rules)?;
        report.seconds.map += since.elapsed().as_secs_f64();
        let mut pending = Pending::of(wish.objects());
        for round in 0.. {
            let since = Instant::now();
            let read = self.read(wish, pending, rules, &prepared)?;
            report.seconds.map += since.elapsed().as_secs_f64();
            if read.kept.is_empty() {
                return Ok((read, None));
            }
            let since = Instant::now();
            let mut too_large = self.months_beyond(wish, &read)?;
            if too_large.is_empty() {
                self.progress.begin("reduce");
                too_large = match self.close(wish, &read, rules) {
                    Ok(closing) => {
                        report.seconds.reduce += since.elapsed().as_secs_f64();
                        return Ok((read, Some(closing)));
                    }
                    Err(Stopped::Failed(error)) => return Err(error),
                    Err(Stopped::Beyond(groups)) => {
                        self.groups_beyond(wish, &read, groups, rules, &prepared, round)?
                    }
                };
            }
            report.seconds.reduce += since.elapsed().as_secs_f64();
            pending = self.without(wish, read, &too_large, round)?;
        }
        unreachable!("the rounds are counted in `without`")
    }

    fn all_held(&self, read: &Read) -> Vec<Held> {
        let now =
            read.held.iter().map(|(o, _, reason)| Held { name: o.name.clone(), reason: reason.clone() });
        let mut held: Vec<Held> = self.held.iter().cloned().chain(now).collect();
        held.sort_by(|a, b| a.name.cmp(&b.name));
        held
    }

    /// Reduces into the parts of the touched months.
    fn close(&self, wish: &Wish, read: &Read, rules: &MapRules) -> Result<Closing, Stopped> {
        let touched: Vec<Month> = match wish {
            Wish::Count(_) => read.sum.by_month.keys().copied().collect(),
            Wish::Recount(recount) => recount.months.iter().copied().collect(),
        };
        let replaced: Vec<PartFile> = touched.iter().flat_map(|month| self.head.parts_of(*month)).collect();
        let mut openings: Vec<PublishedPart> = touched.iter().flat_map(|m| self.opening(wish, *m)).collect();
        openings.sort_by_key(|part| (*part.users.start(), part.month));
        let table = self.lake.place.child(MONTHLY_SPENDING);
        let writer = PartWriter::new(table, &read.run_id, &self.reference.categories, rules.key)?;
        let (reduced, parts) = self.reduce_and_write(read, &openings, rules, &writer)?;
        Ok(Closing { parts, replaced, reduced, touched })
    }

    /// A month as it is published; a month that is counted anew starts from nothing.
    fn opening(&self, wish: &Wish, month: Month) -> Vec<PublishedPart> {
        match wish {
            Wish::Count(_) => self.head.month(month, self.lake),
            Wish::Recount(_) if Bug::RecountOnTop.is_planted() => self.head.month(month, self.lake),
            Wish::Recount(_) => Vec::new(),
        }
    }

    fn reduce_and_write(
        &self,
        read: &Read,
        openings: &[PublishedPart],
        rules: &MapRules,
        writer: &PartWriter,
    ) -> Result<(Reduced, Vec<MonthPart>), Stopped> {
        let (state, mut cutter) = (QueueState::default(), Cutter::default());
        let months = rules.zone.months();
        let threads = self.tuning.workers();
        let pool = pool(threads)?;
        let reduced = pool.in_place_scope(|scope| {
            let queue = PageQueue::new(scope, writer, &state, threads);
            let mut write = |month, groups| {
                cutter.add(month, groups, |page| queue.push(page));
                state.check()
            };
            let categories = &self.reference.categories;
            let reduction = Reduction { mapped: &read.mapped, openings, months, categories, key: rules.key };
            let reduced = reduce(&reduction, &pool, &mut write);
            if reduced.is_ok() {
                cutter.finish().into_iter().for_each(|page| queue.push(page));
            }
            queue.settle();
            reduced
        })?;
        Ok((reduced, state.finish()?))
    }

    /// Writes alerts, rejects and the ledger; what the manifest says of them.
    fn write_records(
        &self,
        wish: &Wish,
        read: &Read,
        closing: &Closing,
        said: &Said,
        ledger: &Ledger,
    ) -> Result<Manifest> {
        let run_id = &read.run_id;
        let news = read.kept.iter().filter(|(object, _)| wish.is_news(&object.name));
        let rejected: u64 = news.clone().map(|(_, outcome)| outcome.rejected_rows()).sum();
        let names = news.clone().map(|(object, _)| object.name.as_str());
        let rejects = names.flat_map(|name| read.mapped.rejects.of(name).map(move |some| (name, some)));
        let samples: Vec<(&str, &LineSample)> =
            news.map(|(object, outcome)| (object.name.as_str(), &outcome.sample)).collect();
        let record = |name: &str, bytes, rows: u64| {
            write_file(&self.lake.place, format!("_runs/{run_id}/{name}"), bytes, rows)
        };
        let recounted = |recount: &Recount| recount.months.iter().map(Month::to_string).collect();
        let spec = self.spec.to_json();
        let months = months(&closing.parts)?;
        Ok(Manifest {
            run_id: run_id.clone(),
            job: self.spec.name.clone(),
            job_sha256: sha256(spec.as_bytes()),
            job_spec: spec,
            currency: self.spec.input.currency.0.to_string(),
            time_zone: self.spec.input.time_zone.0.to_string(),
            opening_version: self.head.table.version(),
            rebuilt_months: wish.recount().map(recounted).unwrap_or_default(),
            inputs: inputs(read, ledger),
            months,
            monthly_spending: closing.parts.iter().map(|p| PartRecord::new(p.month, &p.written)).collect(),
            budget_alerts: said.written.parts.iter().map(|(m, part)| PartRecord::new(*m, part)).collect(),
            transactions: read.transactions.iter().map(|(m, part)| PartRecord::new(*m, part)).collect(),
            ledger: record("ledger.parquet", ledger.to_parquet()?, ledger.entries.len() as u64)?,
            rejects: match rejected {
                0 => None,
                _ if Bug::RejectsNotWritten.is_planted() => None,
                _ => Some(record("rejects.parquet", rejects::to_parquet(rejects, rejected)?, rejected)?),
            },
            line_samples: match samples.is_empty() {
                true => None,
                false => Some(line_samples::write(&samples, &record)?),
            },
            alert_files: Some(said.written.files.clone()),
            ..Manifest::default()
        })
    }

    /// Old + added = new. A recount adds no object.
    fn next_ledger(&self, wish: &Wish, read: &Read) -> Result<Ledger> {
        let mut next = self.head.ledger.clone();
        next.entries.extend(self.refreshed.entries.clone());
        for (object, outcome) in &read.kept {
            let name = &object.name;
            if !wish.is_news(name) {
                let entry = wish.recount().and_then(|r| recounted(&next.entries[name], outcome, &r.months));
                let entry =
                    entry.ok_or_else(|| Error::invariant("a recount counts something else").at(name))?;
                next.entries.insert(name.clone(), entry);
                continue;
            }
            if next.is_counted(name) && wish.recount().is_none() {
                return Err(Error::invariant("an object is counted twice").at(name));
            }
            let mut counted = entry(object, Some(outcome), &read.run_id, Status::Counted);
            let before = next.entries.get(name).is_some_and(|entry| entry.duplicate_allowed);
            counted.duplicate_allowed = before || self.duplicates.contains(name);
            next.entries.insert(name.clone(), counted);
        }
        for (object, outcome, reason) in &read.held {
            let held = entry(object, outcome.as_ref(), &read.run_id, Status::Held(reason.clone()));
            next.entries.insert(object.name.clone(), held);
        }
        let mut contents = BTreeMap::new();
        // Logs without a word in them are all the same, and no second delivery.
        let may_not_repeat = |entry: &Entry| entry.rows_read > entry.rows_blank && !entry.duplicate_allowed;
        for (name, entry) in next.counted().filter(|(_, entry)| may_not_repeat(entry)) {
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
        let committed = self.lake.commit(self.head, &closing.replaced, manifest);
        if committed.is_err() && Bug::PartsDeletedOnError.is_planted() {
            let table = self.lake.place.child(MONTHLY_SPENDING);
            closing.parts.iter().try_for_each(|part| table.child(&part.written.path).delete())?;
        }
        committed
    }
}
