//! What became of messages, counted and written down.
//!
//! In: messages that ended. Out: `deliveries`, `dead_letters`, counts, the version up to which all is
//! settled.
//! Invariant: a message is written down only after its receiver took it, or will never take it; a
//! version is passed once nothing of it, and nothing before it, is open.

use super::message::Message;
use super::schedule::{Ended, Sent};
use crate::error::{Error, Result};
use crate::output::deliveries::{DeliveryLedger, Settled};
use crate::report::DeliveryCounts;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So many messages at most are settled before they are written down; a run that dies repeats them.
const UNWRITTEN_MAX: usize = 500;

/// Nor does one wait longer than this.
const UNWRITTEN_FOR: Duration = Duration::from_secs(30);

pub struct Books<'a> {
    ledger: DeliveryLedger<'a>,
    /// That of the contacts, as messages may name it.
    table: String,
    pub counts: DeliveryCounts,
    /// The first thing that is wrong with us, not with a receiver.
    pub failed: Option<Error>,
    /// Messages of each version that are not settled: open, or left for a later run.
    unsettled: BTreeMap<u64, u64>,
    /// Up to this version all is settled, and written down.
    passed: u64,
    unwritten: BTreeMap<u64, Vec<Settled>>,
    written: Instant,
}

impl<'a> Books<'a> {
    pub fn new(ledger: DeliveryLedger<'a>, table: String) -> Books<'a> {
        Books {
            ledger,
            table,
            counts: DeliveryCounts::default(),
            failed: None,
            unsettled: BTreeMap::new(),
            passed: 0,
            unwritten: BTreeMap::new(),
            written: Instant::now(),
        }
    }

    /// A message that is yet to end.
    pub fn open(&mut self, message: &Message) {
        *self.unsettled.entry(message.batch.version).or_default() += 1;
    }

    /// A message that was open has ended.
    pub fn end(&mut self, ended: Ended<Message>) {
        let Ended { message, sent, attempts } = ended;
        let open = self.unsettled.get_mut(&message.batch.version).expect("the version of an open message");
        let reason = match sent {
            Sent::Delivered => None,
            Sent::Refused(reason) => Some(format!("{}:{}: {reason}", self.table, message.contact.line)),
            Sent::Deferred | Sent::Failed(_) => {
                self.counts.deferred += 1;
                if let Sent::Failed(error) = sent {
                    self.failed.get_or_insert(error);
                }
                return;
            }
        };
        *if reason.is_some() { &mut self.counts.dead } else { &mut self.counts.delivered } += 1;
        *open -= 1;
        self.unwritten.entry(message.batch.version).or_default().push(Settled {
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

    /// Writes down what is settled, once there is enough of it. All messages up to version `read` were
    /// opened.
    pub fn write_down_if_due(&mut self, read: u64) -> Result<()> {
        let unwritten: usize = self.unwritten.values().map(Vec::len).sum();
        let is_due = self.written.elapsed() >= UNWRITTEN_FOR && unwritten > 0;
        if unwritten >= UNWRITTEN_MAX || is_due { self.write_down(read) } else { Ok(()) }
    }

    /// Writes down what is settled. All messages up to version `read` were opened.
    pub fn write_down(&mut self, read: u64) -> Result<()> {
        for (version, settled) in std::mem::take(&mut self.unwritten) {
            self.ledger.append(version, &settled)?;
        }
        self.written = Instant::now();
        self.unsettled.retain(|_, messages| *messages > 0);
        let first = self.unsettled.first_key_value().map_or(u64::MAX, |(version, _)| *version);
        let passed = read.min(first - 1);
        if passed > self.passed {
            self.ledger.settle(passed)?;
            self.passed = passed;
        }
        Ok(())
    }
}
