//! Jobs that deliver alerts: the alerts of committed runs, in order, to whom they concern.
//!
//! In: a job, contacts, the alerts that were not delivered yet. Out: messages; what became of them.
//! Invariant: a message is written down as settled only after its receiver took it, or will never
//! take it. So a run that dies sends some again, under the same ids, and none is lost.

mod addresses;
mod books;
mod feed;
mod file;
mod limited;
mod mail;
mod message;
mod schedule;
mod send;
mod smtp;
mod webhook;

use crate::domain::category::Categories;
use crate::error::{EXIT_NEEDS_A_LOOK, Error, Kind, Result, shown, talk};
use crate::input::contacts::{Channel, Contacts};
use crate::input::reference;
use crate::job::spec::Spec;
use crate::output::deliveries::DeliveryLedger;
use crate::output::lake::{Lake, MONTHLY_SPENDING};
use crate::output::table::Table;
use crate::report::{DeliveryCounts, Report, RunOutcome, grouped, peak_memory_bytes};
use crate::store::wait;
use books::Books;
use feed::Feed;
use mail::Mail;
use message::{Message, masked};
use schedule::{Ended, Sent};
use send::{Courier, FILE_TIMEOUT, HOST_AT_ONCE, Sender};
use std::fmt::Write;
use std::time::{Duration, Instant};
use webhook::Webhook;

/// Messages are offered this many at a time, and attempts that ended are looked after in between.
const OFFERED_AT_ONCE: usize = 256;

/// Lines of a plan that are printed.
const PLAN_LINES_MAX: usize = 1000;

/// What a job of this kind stands on.
struct Ground {
    lake: Lake,
    contacts: Contacts,
    categories: Categories,
}

impl Ground {
    fn open(spec: &Spec) -> Result<Ground> {
        let lake = Lake::open(&spec.output.lake)?;
        let contacts = Contacts::read(spec.input.contacts.as_deref().unwrap_or_default())?;
        let categories = reference::categories(&spec.input)?;
        Ok(Ground { lake, contacts, categories })
    }

    fn spending(&self) -> Result<Table> {
        self.lake.table(MONTHLY_SPENDING)?.ok_or_else(|| {
            let error = Error::new(Kind::NotFound, "there is no lake, or nothing was published to it");
            error.at(&self.lake.place.shown)
        })
    }

    fn feed<'a>(&'a self, spending: &'a Table) -> Result<Feed<'a>> {
        Feed::new(&self.lake, &self.contacts, &self.categories, spending)
    }
}

/// Delivers what was not delivered yet. Out: a report, and the exit code.
pub fn publish(spec: &Spec) -> Result<(Report, u8)> {
    let started = Instant::now();
    let ground = Ground::open(spec)?;
    let sender = sender(spec, &ground.contacts)?;
    let spending = ground.spending()?;
    ground.lake.probe()?;
    let _lock = ground.lake.lock("_deliver_lock")?;
    let run_id = uuid::Uuid::now_v7().to_string();
    let books = Books::new(DeliveryLedger::new(&ground.lake, run_id.clone()), table(spec));
    let courier = Courier::new(sender, &spec.deliver);
    let age_max = Duration::from_secs(u64::from(spec.deliver.age_days_max) * 24 * 3600);
    let feed = ground.feed(&spending)?;
    let (counts, failed) = Delivery { feed, books, courier, age_max }.deliver()?;
    let mut report = Report { job: spec.name.clone(), run_id, ..Report::default() };
    report.outcome = if counts.messages() == 0 { RunOutcome::NothingToDo } else { RunOutcome::Published };
    report.deliveries = Some(counts);
    report.seconds.total = started.elapsed().as_secs_f64();
    report.peak_memory_bytes = peak_memory_bytes();
    let code = match counts {
        // What is wrong with us has kept nobody else's messages.
        _ if let Some(error) = &failed => {
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
    let ground = Ground::open(spec)?;
    let spending = ground.spending()?;
    let mut feed = ground.feed(&spending)?;
    let mut page = format!("{}: plan; nothing was sent\n", spec.name);
    let mut messages = 0;
    while let Some(message) = feed.next()? {
        messages += 1;
        if messages <= PLAN_LINES_MAX {
            let _ = write_planned(&mut page, &message);
        }
    }
    if messages > PLAN_LINES_MAX {
        let _ = writeln!(page, "  … and {} more", grouped((messages - PLAN_LINES_MAX) as u64));
    }
    let without = grouped(feed.without_contact);
    let _ = writeln!(
        page,
        "  {} messages; {without} alerts concern users without a contact",
        grouped(messages as u64)
    );
    Ok(page)
}

/// Whether the job's contacts, secrets and servers are what a run needs; nothing is sent.
pub fn check(spec: &Spec) -> Result<String> {
    let ground = Ground::open(spec)?;
    sender(spec, &ground.contacts)?;
    let [own, everybody] = ground.contacts.counts().map(|count| grouped(count as u64));
    Ok(format!(
        "{}: fit to run\n  lake       {}\n  contacts   {own} of users, {everybody} of everybody\n",
        spec.name, ground.lake.place.shown
    ))
}

/// The secret that signs for an endpoint, for whoever runs it.
pub fn webhook_secret(address: &str) -> Result<String> {
    let url = url::Url::parse(address).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    let url = url.ok_or_else(|| Error::unfit("the address is not a URL of http or https"))?;
    let secrets = webhook::secrets_from_environment()?;
    Ok(format!("{}\n", secrets[0].of_endpoint(&url).shown()))
}

fn write_planned(page: &mut String, message: &Message) -> std::fmt::Result {
    let user = message.user_id.map_or("many users".to_string(), |user| format!("user {user}"));
    let (channel, address) = (message.contact.channel.name(), masked(&message.contact));
    let (alerts, month) = (message.records.len(), message.batch.month);
    writeln!(page, "  {channel:<8} {address} for {user}: {alerts} of {month}")
}

/// The table of contacts, as messages may name it.
fn table(spec: &Spec) -> String {
    shown(spec.input.contacts.as_deref().unwrap_or_default())
}

fn sender(spec: &Spec, contacts: &Contacts) -> Result<Sender> {
    let deliver = &spec.deliver;
    let (networks, timeout) = (deliver.networks(), Duration::from_secs(deliver.timeout_seconds.into()));
    let secrets = match contacts.derive_secrets() {
        true => webhook::secrets_from_environment()?,
        false => Vec::new(),
    };
    let webhook = contacts.uses(Channel::Webhook);
    let webhook = webhook.then(|| Webhook::new(secrets, &networks, timeout, HOST_AT_ONCE)).transpose()?;
    let mail = contacts.uses(Channel::Smtp).then(|| Mail::new(&spec.smtp, &networks, timeout)).transpose()?;
    let file_timeout = FILE_TIMEOUT.min(Duration::from_secs(deliver.run_seconds_max.into()));
    Ok(Sender { webhook, mail, table: table(spec), timeout, file_timeout })
}

/// Whether there is more to offer.
enum Offering {
    More,
    NoRoom,
    Done,
}

struct Delivery<'a> {
    feed: Feed<'a>,
    books: Books<'a>,
    courier: Courier<'a>,
    /// What a run said longer ago would only confuse.
    age_max: Duration,
}

impl<'a> Delivery<'a> {
    /// Sends what there is. What could be read before an error is sent before it is told.
    fn deliver(mut self) -> Result<(DeliveryCounts, Option<Error>)> {
        let (mut kept, mut broken) = (None, None);
        loop {
            let offering = match broken {
                None => self.offer(&mut kept).unwrap_or_else(|error| {
                    broken = Some(error);
                    Offering::Done
                }),
                Some(_) => Offering::Done,
            };
            wait(self.courier.turn(!matches!(offering, Offering::More)))?;
            self.courier.take_ended().into_iter().for_each(|ended| self.books.end(ended));
            if matches!(offering, Offering::Done) && self.courier.is_empty() {
                break;
            }
            self.books.write_down_if_due(self.feed.version().saturating_sub(1))?;
        }
        let is_read = u64::from(broken.is_none());
        self.books.write_down((self.feed.version() + is_read).saturating_sub(1))?;
        wait(self.courier.close());
        self.books.counts.without_contact = self.feed.without_contact;
        broken.map_or(Ok((self.books.counts, self.books.failed)), Err)
    }

    /// Offers some messages; `kept` is the one that found no room.
    fn offer(&mut self, kept: &mut Option<Message<'a>>) -> Result<Offering> {
        for _ in 0..OFFERED_AT_ONCE {
            let message = match kept.take() {
                Some(message) => message,
                None => {
                    let Some(message) = self.feed.next()? else { return Ok(Offering::Done) };
                    self.books.open(&message);
                    message
                }
            };
            if self.is_expired(&message.batch.run_id) {
                let sent = Sent::Refused("it is older than `deliver.age_days_max`".into());
                self.books.end(Ended { message, sent, attempts: 0 });
            } else if let Err(message) = self.courier.offer(message) {
                *kept = Some(message);
                return Ok(Offering::NoRoom);
            }
        }
        Ok(Offering::More)
    }

    fn is_expired(&self, run_id: &str) -> bool {
        let made = uuid::Uuid::parse_str(run_id).ok().and_then(|id| id.get_timestamp());
        let made_seconds = made.map_or(0, |time| time.to_unix().0 as i64);
        let age_seconds = chrono::Utc::now().timestamp() - made_seconds;
        age_seconds > self.age_max.as_secs() as i64
    }
}
