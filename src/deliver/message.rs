//! A message: which records go to one address at once, and in which words.
//!
//! In: the records about a user, a contact. Out: an id, and a body in the form of the channel.
//! Invariant: the same records for the same address have the same id and the same words, however
//! often they are sent.

use crate::domain::alert::{AlertEvent, AlertLevel, AlertRecord};
use crate::domain::budget::BudgetSource;
use crate::domain::category::Categories;
use crate::domain::money::format_cents;
use crate::domain::month::Month;
use crate::input::contacts::{Channel, Contact};
use crate::output::alerts::{AlertLine, share, to_ndjson};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A message's identity: 16 bytes, printed as 32 hexadecimal digits.
pub type MessageId = u128;

/// Records of one run and month.
#[derive(Clone)]
pub struct Batch<'a> {
    /// Of `monthly_spending`, which the run published.
    pub version: u64,
    /// The run that made them.
    pub run_id: Arc<str>,
    pub month: Month,
    pub categories: &'a Categories,
}

/// What goes to one address at once.
pub struct Message<'a> {
    pub id: MessageId,
    /// None of a file, which is for many.
    pub user_id: Option<u64>,
    pub contact: Contact<'a>,
    pub batch: Batch<'a>,
    /// In their order.
    pub records: Vec<AlertRecord>,
}

impl<'a> Message<'a> {
    /// The id is the first 16 bytes of SHA-256 over `channel address run_id` and the ids of the
    /// records.
    pub fn new(
        user_id: Option<u64>,
        contact: Contact<'a>,
        batch: Batch<'a>,
        records: Vec<AlertRecord>,
    ) -> Message<'a> {
        let mut digest = Sha256::new();
        digest.update(format!("{} {} {}", contact.channel.name(), contact.address, batch.run_id));
        for record in &records {
            digest.update(record.id(batch.month, batch.categories.code(record.category)).to_be_bytes());
        }
        let id = u128::from_be_bytes(digest.finalize()[..16].try_into().expect("a digest has 32 bytes"));
        Message { id, user_id, contact, batch, records }
    }

    pub fn id_text(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// The payload that the Standard Webhooks specification recommends: type, timestamp, data. The
    /// timestamp is that of the run.
    pub fn webhook_body(&self) -> String {
        let Batch { run_id, month, categories, .. } = &self.batch;
        let record = &self.records[0];
        let body = serde_json::json!({
            "type": format!("budget_alert.{}", record.event.name()),
            "timestamp": run_time(run_id),
            "data": AlertLine::new(record, *month, categories, run_id),
        });
        body.to_string()
    }

    /// Lines of JSON.
    pub fn lines(&self) -> Bytes {
        let Batch { run_id, month, categories, .. } = &self.batch;
        to_ndjson(&self.records, *month, categories, run_id)
    }

    pub fn subject(&self) -> String {
        let raised = |level| {
            let of = |r: &&AlertRecord| r.event == AlertEvent::Raised && r.level == level;
            self.records.iter().filter(of).count()
        };
        let counts = [
            (raised(AlertLevel::Exceeded), "exceeded"),
            (raised(AlertLevel::Approaching), "approaching"),
            (raised(AlertLevel::Pace), "at risk"),
        ];
        let said: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        match said.is_empty() {
            true => format!("Your budgets for {}: an update", self.batch.month),
            false => format!("Your budgets for {}: {}", self.batch.month, said.join(", ")),
        }
    }

    pub fn text(&self) -> String {
        let lines: String =
            self.lines_for_people().map(|(category, said)| format!("{category}: {said}\n")).collect();
        format!("Your budgets for {}\n\n{lines}\n{FOOTER}\n", self.batch.month)
    }

    pub fn html(&self) -> String {
        let row = |(category, said): (String, String)| {
            format!("<tr><td><b>{}</b></td><td>{}</td></tr>\n", escaped(&category), escaped(&said))
        };
        let rows: String = self.lines_for_people().map(row).collect();
        let month = self.batch.month;
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Your budgets for {month}</title></head>\n\
             <body><h1>Your budgets for {month}</h1>\n<table cellpadding=\"6\">\n{rows}</table>\n<p>{FOOTER}</p></body></html>\n"
        )
    }

    /// The category's name, and what is said of it.
    fn lines_for_people(&self) -> impl Iterator<Item = (String, String)> {
        let categories = self.batch.categories;
        self.records.iter().map(|record| (categories.name(record.category).to_string(), sentence(record)))
    }
}

const FOOTER: &str = "Amounts are net of refunds, as of the last nightly run.";

/// When a run began, by its id.
fn run_time(run_id: &str) -> String {
    let time = uuid::Uuid::parse_str(run_id).ok().and_then(|id| id.get_timestamp());
    let (seconds, nanos) = time.map_or((0, 0), |time| time.to_unix());
    let time = DateTime::from_timestamp(seconds as i64, nanos).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn sentence(record: &AlertRecord) -> String {
    let amount = |cents: i64| format_cents(i128::from(cents));
    let budget = record.budget;
    let source = match budget.source {
        BudgetSource::Manual => "which you set",
        BudgetSource::Template => "by your income",
    };
    let rolled_over = match budget.rolled_over_cents {
        0 => String::new(),
        cents => format!(", {} of it left over from before", amount(cents)),
    };
    let of =
        format!("{} of {} ({source}{rolled_over})", amount(record.spent_cents), amount(budget.amount_cents));
    match (record.event, record.level) {
        (AlertEvent::Raised, AlertLevel::Pace) => {
            format!("at this rate the month ends above the budget: {of} so far")
        }
        (AlertEvent::Raised, AlertLevel::Approaching) => {
            format!("{of}, {} % of the budget reached", share(record.threshold_millionths * 100))
        }
        (AlertEvent::Raised, AlertLevel::Exceeded) => format!("{of}, above the budget"),
        (AlertEvent::Cleared, _) => {
            format!("{of}, below {} % of the budget again", share(record.threshold_millionths * 100))
        }
        (AlertEvent::Corrected, _) => {
            let percent = share(record.threshold_millionths * 100);
            format!("{of}; that {percent} % of the budget was reached is taken back")
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// An address for whoever looks on: `a***@example.com`, `https://example.com/***`.
pub fn masked(contact: &Contact) -> String {
    let address = contact.address;
    match contact.channel {
        Channel::Smtp => match address.rsplit_once('@') {
            Some((name, domain)) => {
                let first: String = name.chars().take(1).collect();
                format!("{first}***@{domain}")
            }
            None => "***".into(),
        },
        Channel::Webhook | Channel::File => match url::Url::parse(address) {
            Ok(url) if url.has_host() => {
                format!("{}://{}/***", url.scheme(), url.host_str().unwrap_or_default())
            }
            _ => "***".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::Budget;

    fn record(event: AlertEvent, level: AlertLevel, threshold: i64) -> AlertRecord {
        let budget = Budget { amount_cents: 100_00, rolled_over_cents: 20_00, source: BudgetSource::Manual };
        AlertRecord {
            user_id: 7,
            category: Categories::builtin().id("dining").unwrap(),
            sequence: 1,
            event,
            level,
            threshold_millionths: threshold,
            reached_millionths: None,
            spent_cents: 85_00,
            budget,
        }
    }

    #[test]
    fn a_digest_in_words() {
        let categories = Categories::builtin();
        let batch = Batch {
            version: 3,
            run_id: "0190163d-8694-739b-aea5-966c26f8ad91".into(),
            month: "2025-01".parse().unwrap(),
            categories: &categories,
        };
        let contact = Contact { channel: Channel::Smtp, address: "ann@example.com", secrets: "", line: 2 };
        let records = vec![
            record(AlertEvent::Raised, AlertLevel::Approaching, 800_000),
            record(AlertEvent::Raised, AlertLevel::Exceeded, 1_000_000),
            record(AlertEvent::Cleared, AlertLevel::Approaching, 850_000),
            record(AlertEvent::Corrected, AlertLevel::Exceeded, 1_000_000),
            record(AlertEvent::Raised, AlertLevel::Pace, 1_100_000),
        ];
        let message = Message::new(Some(7), contact, batch.clone(), records.clone());
        assert_eq!(message.subject(), "Your budgets for 2025-01: 1 exceeded, 1 approaching, 1 at risk");
        let of = "85.00 of 100.00 (which you set, 20.00 of it left over from before)";
        let expected = format!(
            "Your budgets for 2025-01\n\nDining: {of}, 80 % of the budget reached\nDining: {of}, above the budget\n\
             Dining: {of}, below 85 % of the budget again\n\
             Dining: {of}; that 100 % of the budget was reached is taken back\n\
             Dining: at this rate the month ends above the budget: {of} so far\n\n{FOOTER}\n"
        );
        assert_eq!(message.text(), expected);
        assert!(message.html().contains("<td><b>Dining</b></td><td>85.00 of 100.00"));
        let again = Message::new(Some(7), Contact { line: 9, ..contact }, batch.clone(), records.clone());
        assert_eq!(message.id, again.id);
        let elsewhere = Contact { address: "bob@example.com", ..contact };
        assert_ne!(message.id, Message::new(Some(7), elsewhere, batch, records.clone()).id);
        let body: serde_json::Value = serde_json::from_str(&message.webhook_body()).unwrap();
        assert_eq!((&body["type"], &body["data"]["user_id"]), (&"budget_alert.raised".into(), &7.into()));
        assert_eq!(body["timestamp"], "2024-06-14T10:14:09.300Z");
    }

    #[test]
    fn addresses_are_masked() {
        let masked = |channel, address| masked(&Contact { channel, address, secrets: "", line: 1 });
        assert_eq!(masked(Channel::Smtp, "ann@example.com"), "a***@example.com");
        assert_eq!(masked(Channel::Smtp, "nonsense"), "***");
        assert_eq!(
            masked(Channel::Webhook, "https://u:p@host.example/secret?token=1"),
            "https://host.example/***"
        );
        assert_eq!(masked(Channel::File, "/var/spool/ann"), "***");
    }
}
