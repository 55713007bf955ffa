//! Sending: at a bounded rate, some users at once, each user's messages in order.
//!
//! In: messages by user. Out: of each what became of it.
//! Invariant: a message that may be sent again later holds up the later ones of its user and
//! channel; no error quotes an address or a body.

use super::mail::Mail;
use super::message::Message;
use super::webhook::Webhook;
use crate::error::Error;
use crate::input::contacts::Channel;
use futures::StreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// What became of a message.
#[derive(Debug)]
pub enum Sent {
    /// A receiver took it.
    Delivered,
    /// It will never be taken, for this reason.
    Refused(String),
    /// It may be taken later.
    Deferred,
    /// It may be taken once somebody has mended what is wrong with us.
    Failed(Error),
}

/// What became of one attempt.
pub enum Tried {
    Taken,
    Never(String),
    /// A receiver is slow or busy, or asks to wait for so long.
    NotNow(Option<Duration>),
    /// This address is not to be had now; its host is well.
    NotThisOne,
    Broken(Error),
}

/// Messages under way at once.
const CONCURRENT_MAX: usize = 8;

/// A host that failed so many messages in a row is left alone for the rest of the run.
const HOST_FAILURES_MAX: u32 = 20;

/// Longer than this nobody waits within a run.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub struct Sender {
    webhook: Option<Webhook>,
    mail: Option<Mail>,
    /// Of one message in a run.
    attempts_max: u32,
    interval: Duration,
    /// When the next attempt may begin.
    next: Mutex<Instant>,
    /// Messages that failed in a row, by channel and host.
    failures: Mutex<HashMap<(Channel, String), u32>>,
    /// Users whose later messages wait.
    held_up: Mutex<HashSet<(u64, Channel)>>,
}

impl Sender {
    pub fn new(webhook: Option<Webhook>, mail: Option<Mail>, attempts_max: u32, rate: f64) -> Sender {
        Sender {
            webhook,
            mail,
            attempts_max,
            interval: Duration::from_secs_f64(1.0 / rate),
            next: Mutex::new(Instant::now()),
            failures: Mutex::default(),
            held_up: Mutex::default(),
        }
    }

    /// Sends the messages of users, each user's in order. Out: for each user and message what became
    /// of it, and after how many attempts, in the same order.
    pub async fn send_all(&self, users: &[&Vec<Message<'_>>]) -> Vec<Vec<(Sent, u32)>> {
        let sending = users.iter().map(|messages| self.send_user(messages));
        futures::stream::iter(sending).buffered(CONCURRENT_MAX).collect().await
    }

    async fn send_user(&self, messages: &[Message<'_>]) -> Vec<(Sent, u32)> {
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            let key = message.user_id.map(|user| (user, message.contact.channel));
            let waits = key.is_some_and(|key| self.held_up.lock().expect("no panic in here").contains(&key));
            let (result, attempts) = if waits { (Sent::Deferred, 0) } else { self.send(message).await };
            if let (Sent::Deferred | Sent::Failed(_), Some(key)) = (&result, key) {
                self.held_up.lock().expect("no panic in here").insert(key);
            }
            sent.push((result, attempts));
        }
        sent
    }

    async fn send(&self, message: &Message<'_>) -> (Sent, u32) {
        let channel = message.contact.channel;
        let host = match channel {
            Channel::Webhook => Webhook::host(message.contact.address),
            _ => String::new(),
        };
        let key = (channel, host);
        let mut attempt = 0;
        loop {
            let failures = self.failures.lock().expect("no panic in here").get(&key).copied();
            if failures.unwrap_or(0) >= HOST_FAILURES_MAX {
                return (Sent::Deferred, attempt);
            }
            attempt += 1;
            self.wait_for_turn().await;
            let (asked, blames_host) = match self.attempt(message).await {
                Tried::Taken => {
                    self.host_is_well(&key);
                    return (Sent::Delivered, attempt);
                }
                Tried::Never(reason) => {
                    self.host_is_well(&key);
                    return (Sent::Refused(reason), attempt);
                }
                Tried::Broken(error) => {
                    self.host_failed(key);
                    return (Sent::Failed(error), attempt);
                }
                Tried::NotNow(asked) => (asked, true),
                Tried::NotThisOne => (None, false),
            };
            let wait = asked.unwrap_or_else(|| backoff(attempt));
            if attempt >= self.attempts_max || wait > WAIT_MAX {
                if blames_host {
                    self.host_failed(key);
                }
                return (Sent::Deferred, attempt);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn host_is_well(&self, key: &(Channel, String)) {
        self.failures.lock().expect("no panic in here").remove(key);
    }

    fn host_failed(&self, key: (Channel, String)) {
        *self.failures.lock().expect("no panic in here").entry(key).or_default() += 1;
    }

    async fn attempt(&self, message: &Message<'_>) -> Tried {
        let unfit = || Tried::Broken(Error::invariant("a channel without its sender"));
        match message.contact.channel {
            Channel::Webhook => match &self.webhook {
                Some(webhook) => webhook.send(message).await,
                None => unfit(),
            },
            Channel::Smtp => match &self.mail {
                Some(mail) => mail.send(message).await,
                None => unfit(),
            },
            Channel::File => unfit(),
        }
    }

    /// Attempts begin one after the other, at the rate of the job.
    async fn wait_for_turn(&self) {
        let turn = {
            let mut next = self.next.lock().expect("no panic in here");
            let turn = (*next).max(Instant::now());
            *next = turn + self.interval;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

/// 1, 2, 4 … seconds, of which the second half is chance, so that receivers who fell over are not
/// woken by everybody at once.
fn backoff(attempt: u32) -> Duration {
    let whole = 1000u64 << (attempt - 1).min(6);
    let chance = getrandom::u64().unwrap_or(0) % (whole / 2 + 1);
    Duration::from_millis(whole / 2 + chance)
}
