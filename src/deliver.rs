//! Jobs that deliver alerts: the alerts of committed runs, in order, to whom they concern.
//!
//! In: a job, contacts, the alerts that were not delivered yet. Out: messages; what became of them.
//! Invariant: a message is written down as settled only after its receiver took it, or will never
//! take it. So a run that dies sends some again, under the same ids, and none is lost.

mod mail;
mod message;
mod send;
mod webhook;

use crate::domain::alert::AlertRecord;
use crate::domain::category::Categories;
use crate::error::{EXIT_NEEDS_A_LOOK, Error, Kind, Result, talk};
use crate::input::alerts::read_records;
use crate::input::contacts::{Channel, Contact, Contacts};
use crate::input::published::EVERYBODY;
use crate::input::reference;
use crate::job::spec::Spec;
use crate::output::deliveries::{DeliveryLedger, Settled};
use crate::output::lake::{BUDGET_ALERTS, Lake, MONTHLY_SPENDING};
use crate::output::manifest::{Manifest, PartRecord};
use crate::output::part::sha256;
use crate::output::table::Table;
use crate::report::{DeliveryCounts, Report, RunOutcome, grouped, peak_memory_bytes};
use crate::store::{Place, wait};
use mail::Mail;
use message::{Batch, Message, masked};
use send::{Sender, Sent};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use webhook::Webhook;

/// Messages of so many users are sent before they are written down.
const USERS_AT_ONCE: usize = 500;

/// Lines of a plan that are printed.
const PLAN_LINES_MAX: usize = 1000;

/// Delivers what was not delivered yet. Out: a report, and the exit code.
pub fn publish(spec: &Spec) -> Result<(Report, u8)> {
    let started = Instant::now();
    let lake = Lake::open(&spec.output.lake)?;
    let contacts = Contacts::read(spec.input.contacts.as_deref().unwrap_or_default())?;
    let categories = reference::categories(&spec.input)?;
    let sender = sender(spec, &contacts)?;
    let spending = spending(&lake)?;
    lake.probe()?;
    let _lock = lake.lock("_deliver_lock")?;
    let run_id = uuid::Uuid::now_v7().to_string();
    let mut delivery = Delivery {
        spec,
        lake: &lake,
        contacts: &contacts,
        categories: &categories,
        ledger: DeliveryLedger::new(&lake, run_id.clone()),
        counts: DeliveryCounts::default(),
        failed: None,
    };
    let mut report = Report { job: spec.name.clone(), run_id, ..Report::default() };
    delivery.deliver(&spending, &sender)?;
    let counts = delivery.counts;
    report.outcome = if counts.messages() == 0 { RunOutcome::NothingToDo } else { RunOutcome::Published };
    report.deliveries = Some(counts);
    report.seconds.total = started.elapsed().as_secs_f64();
    report.peak_memory_bytes = peak_memory_bytes();
    let code = match counts {
        // What is wrong with us has kept nobody else's messages.
        _ if let Some(error) = &delivery.failed => {
            talk(format_args!("pennymill: {error}"));
            error.kind.exit_code()
        }
        DeliveryCounts { deferred: 1.., .. } => Kind::Temporary.exit_code(),
        DeliveryCounts { dead: 1.., .. } => EXIT_NEEDS_A_LOOK,
        _ => 0,
    };
    Ok((report, code))
}

/// What would go to whom, addresses masked.
pub fn plan(spec: &Spec) -> Result<String> {
    let lake = Lake::open(&spec.output.lake)?;
    let contacts = Contacts::read(spec.input.contacts.as_deref().unwrap_or_default())?;
    let categories = reference::categories(&spec.input)?;
    let ledger = DeliveryLedger::new(&lake, String::new());
    let mut delivery = Delivery {
        spec,
        lake: &lake,
        contacts: &contacts,
        categories: &categories,
        ledger,
        counts: DeliveryCounts::default(),
        failed: None,
    };
    let spending = spending(&lake)?;
    let mut page = format!("{}: plan; nothing was sent\n", spec.name);
    let mut messages = 0;
    for version in delivery.pending(&spending)? {
        let Some(manifest) = delivery.manifest(&spending, version)? else { continue };
        let settled = delivery.ledger.settled(version)?;
        for part in manifest.alert_parts() {
            let records = delivery.records(part)?;
            let all = delivery.messages(part, &manifest.run_id, &records, &settled)?;
            for message in all.iter().flatten() {
                messages += 1;
                if messages <= PLAN_LINES_MAX {
                    let _ = write_planned(&mut page, message);
                }
            }
        }
    }
    if messages > PLAN_LINES_MAX {
        let _ = writeln!(page, "  … and {} more", grouped((messages - PLAN_LINES_MAX) as u64));
    }
    let without = grouped(delivery.counts.without_contact);
    let _ = writeln!(
        page,
        "  {} messages; {without} alerts concern users without a contact",
        grouped(messages as u64)
    );
    Ok(page)
}

/// Whether the job's contacts, secrets and servers are what a run needs; nothing is sent.
pub fn check(spec: &Spec) -> Result<String> {
    let lake = Lake::open(&spec.output.lake)?;
    let contacts = Contacts::read(spec.input.contacts.as_deref().unwrap_or_default())?;
    reference::categories(&spec.input)?;
    sender(spec, &contacts)?;
    let [own, everybody] = contacts.counts().map(|count| grouped(count as u64));
    Ok(format!(
        "{}: fit to run\n  lake       {}\n  contacts   {own} of users, {everybody} of everybody\n",
        spec.name, lake.place.shown
    ))
}

fn write_planned(page: &mut String, message: &Message) -> std::fmt::Result {
    let user = message.user_id.map_or("many users".to_string(), |user| format!("user {user}"));
    let (channel, address) = (message.contact.channel.name(), masked(&message.contact));
    let (alerts, month) = (message.records.len(), message.batch.month);
    writeln!(page, "  {channel:<8} {address} for {user}: {alerts} of {month}")
}

fn spending(lake: &Lake) -> Result<Table> {
    lake.table(MONTHLY_SPENDING)?.ok_or_else(|| {
        let error = Error::new(Kind::NotFound, "there is no lake, or nothing was published to it");
        error.at(&lake.place.shown)
    })
}

fn sender(spec: &Spec, contacts: &Contacts) -> Result<Sender> {
    let deliver = &spec.deliver;
    let timeout = Duration::from_secs(deliver.timeout_seconds.into());
    let webhook = contacts.uses(Channel::Webhook).then(|| Webhook::from_environment(timeout)).transpose()?;
    // Connections of the pool belong to the runtime.
    let mail =
        contacts.uses(Channel::Smtp).then(|| wait(async { Mail::new(&spec.smtp, timeout) })).transpose()?;
    Ok(Sender::new(webhook, mail, deliver.attempts, deliver.rate_per_second))
}

struct Delivery<'a> {
    spec: &'a Spec,
    lake: &'a Lake,
    contacts: &'a Contacts,
    categories: &'a Categories,
    ledger: DeliveryLedger<'a>,
    counts: DeliveryCounts,
    /// The first thing that is wrong with us, not with a receiver.
    failed: Option<Error>,
}

impl<'a> Delivery<'a> {
    fn deliver(&mut self, spending: &Table, sender: &Sender) -> Result<()> {
        let mut everything_before = true;
        for version in self.pending(spending)? {
            let Some(manifest) = self.manifest(spending, version)? else { continue };
            let settled = self.ledger.settled(version)?;
            let deferred = self.counts.deferred;
            for part in manifest.alert_parts() {
                let records = self.records(part)?;
                let messages = self.messages(part, &manifest.run_id, &records, &settled)?;
                self.send(version, &messages, sender)?;
            }
            everything_before &= self.counts.deferred == deferred;
            if everything_before {
                self.ledger.settle(version)?;
            }
        }
        Ok(())
    }

    /// The versions that are not settled, oldest first.
    fn pending(&self, spending: &Table) -> Result<RangeInclusive<u64>> {
        Ok(self.ledger.settled_version()? + 1..=spending.version())
    }

    /// What the run of a version has written, if it has said anything.
    fn manifest(&self, spending: &Table, version: u64) -> Result<Option<Manifest>> {
        let manifest = wait(self.lake.manifest(spending, version))?;
        Ok(manifest.filter(|manifest| !manifest.alert_parts().is_empty()))
    }

    /// The records of a part, held to its checksum.
    fn records(&self, part: &PartRecord) -> Result<Vec<AlertRecord>> {
        let place = self.lake.place.child(BUDGET_ALERTS).child(&part.path);
        let bytes = place.read()?;
        if sha256(&bytes) != part.sha256 {
            return Err(Error::unfit("it is not what was written: the lake is damaged").at(&place.shown));
        }
        let mut records = Vec::new();
        read_records(bytes, &EVERYBODY, self.categories, |record| records.push(record))
            .map_err(|e| e.at(&place.shown))?;
        Ok(records)
    }

    /// The messages of a part that are not settled, by user; those for many come first.
    fn messages<'m>(
        &mut self,
        part: &PartRecord,
        run_id: &'m str,
        records: &[AlertRecord],
        settled: &HashSet<u128>,
    ) -> Result<Vec<Vec<Message<'m>>>>
    where
        'a: 'm,
    {
        let month = part.month.parse().map_err(|_| Error::invariant("a part without a month"))?;
        let batch = Batch { run_id, month, categories: self.categories };
        let mut of_many: BTreeMap<&str, (Contact, Vec<AlertRecord>)> = BTreeMap::new();
        let mut by_user = Vec::new();
        for records in records.chunk_by(|one, other| one.user_id == other.user_id) {
            let user_id = records[0].user_id;
            let contacts = self.contacts.of(user_id);
            if contacts.is_empty() {
                self.counts.without_contact += records.len() as u64;
            }
            let mut messages = Vec::new();
            for contact in contacts {
                let message =
                    |records: &[AlertRecord]| Message::new(Some(user_id), contact, batch, records.to_vec());
                match contact.channel {
                    Channel::Webhook => messages.extend(records.chunks(1).map(message)),
                    Channel::Smtp => messages.push(message(records)),
                    Channel::File => {
                        of_many.entry(contact.address).or_insert((contact, Vec::new())).1.extend(records);
                    }
                }
            }
            by_user.push(messages);
        }
        let of_many =
            of_many.into_values().map(|(contact, records)| vec![Message::new(None, contact, batch, records)]);
        let mut all: Vec<Vec<Message>> = of_many.chain(by_user).collect();
        all.iter_mut().for_each(|messages| messages.retain(|message| !settled.contains(&message.id)));
        all.retain(|messages| !messages.is_empty());
        Ok(all)
    }

    /// Sends the messages of some users at a time, and writes down what is settled.
    fn send(&mut self, version: u64, messages: &[Vec<Message>], sender: &Sender) -> Result<()> {
        for now in messages.chunks(USERS_AT_ONCE) {
            let results = match self.is_expired(now[0][0].batch.run_id) {
                true => now.iter().flatten().map(|message| (message, too_old(), 0)).collect(),
                false => self.attempt(now, sender),
            };
            self.write_down(version, results)?;
        }
        Ok(())
    }

    /// What became of messages, and after how many attempts.
    fn attempt<'n, 'm>(
        &self,
        now: &'n [Vec<Message<'m>>],
        sender: &Sender,
    ) -> Vec<(&'n Message<'m>, Sent, u32)> {
        let is_file = |messages: &&Vec<Message>| messages[0].contact.channel == Channel::File;
        let (files, people): (Vec<_>, Vec<_>) = now.iter().partition(is_file);
        let table = self.spec.input.contacts.as_deref().unwrap_or_default();
        let written = files.into_iter().flatten().map(|message| (message, write_file(message, table), 1));
        let mut results: Vec<_> = written.collect();
        let sent = wait(sender.send_all(&people));
        for (messages, sent) in people.iter().zip(sent) {
            let sent = messages.iter().zip(sent);
            results.extend(sent.map(|(message, (sent, attempts))| (message, sent, attempts)));
        }
        results
    }

    /// What a run has said so long ago would only confuse.
    fn is_expired(&self, run_id: &str) -> bool {
        let made = uuid::Uuid::parse_str(run_id).ok().and_then(|id| id.get_timestamp());
        let made_seconds = made.map_or(0, |time| time.to_unix().0 as i64);
        let age_seconds = chrono::Utc::now().timestamp() - made_seconds;
        age_seconds > i64::from(self.spec.deliver.age_days_max) * 24 * 3600
    }

    fn write_down(&mut self, version: u64, results: Vec<(&Message, Sent, u32)>) -> Result<()> {
        let mut settled = Vec::new();
        let table = self.spec.input.contacts.as_deref().unwrap_or_default();
        for (message, sent, attempts) in results {
            let reason = match sent {
                Sent::Delivered => None,
                Sent::Refused(reason) => Some(format!("{table}:{}: {reason}", message.contact.line)),
                Sent::Deferred => {
                    self.counts.deferred += 1;
                    continue;
                }
                Sent::Failed(error) => {
                    self.counts.deferred += 1;
                    self.failed = self.failed.take().or(Some(error));
                    continue;
                }
            };
            *if reason.is_some() { &mut self.counts.dead } else { &mut self.counts.delivered } += 1;
            settled.push(Settled {
                message_id: message.id,
                channel: message.contact.channel,
                user_id: message.user_id,
                alerts_run_id: message.batch.run_id.to_string(),
                alerts: message.records.len() as u64,
                attempts,
                at_micros: chrono::Utc::now().timestamp_micros(),
                reason,
            });
        }
        self.ledger.append(version, &settled)
    }
}

fn too_old() -> Sent {
    Sent::Refused("it is older than `deliver.age_days_max`".into())
}

/// Writes the lines of many users under a name that follows from the message alone. `table` is that
/// of the contacts.
fn write_file(message: &Message, table: &str) -> Sent {
    let name = format!("alerts-{}-{}.ndjson", message.batch.run_id, message.id_text());
    let written =
        Place::open(message.contact.address).and_then(|place| place.child(&name).create(message.lines()));
    match written {
        Ok(()) => Sent::Delivered,
        Err(error) if error.kind == Kind::Temporary => Sent::Deferred,
        Err(error) if error.kind == Kind::Unfit => Sent::Refused("not a place of an object store".into()),
        // The address is somebody's, so the contact's place stands for it.
        Err(error) => {
            let error = Error::new(error.kind, "alerts cannot be written to the place of this contact");
            Sent::Failed(error.at(format!("{table}:{}", message.contact.line)))
        }
    }
}
