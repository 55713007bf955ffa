//! Sending: each attempt within its time, whatever the other end does.
//!
//! In: messages. Out: what became of each.
//! Invariant: an attempt takes no longer than its bound, from the look-up of the name to the answer;
//! no error quotes an address or a body.

use super::file::{self, Lines};
use super::mail::{self, Mail};
use super::message::Message;
use super::schedule::{Ended, Limits, Schedule, Step, Tried};
use super::webhook::{self, Request, Webhook};
use crate::error::{Error, Result};
use crate::input::contacts::Channel;
use crate::job::sections::Deliver;
use crate::planted::Bug;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Messages under way at once to one host.
pub const HOST_AT_ONCE: usize = 8;

/// Messages under way at once: each has a connection, and processes may often open 1,024 files.
const AT_ONCE_MAX: f64 = 512.0;

/// Messages in memory.
const ROOM: usize = 16 << 10;

/// A file is for many users and may be large, and its store tries again by itself.
pub const FILE_TIMEOUT: Duration = Duration::from_secs(300);

/// A turn in which no attempt ends is over after this.
const TURN_MAX: Duration = Duration::from_secs(1);

/// What keeps its order: messages of a user and channel; a file is alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    Of(u64, Channel),
    File(u128),
}

type Host = (Channel, String);

/// A message as it goes over the line.
enum Letter {
    Webhook(Request),
    Mail(mail::Letter),
    File(Lines),
}

pub struct Sender {
    pub webhook: Option<Webhook>,
    pub mail: Option<Mail>,
    /// That of the contacts, as messages may name it.
    pub table: String,
    /// For one attempt.
    pub timeout: Duration,
    /// For one attempt to write a file.
    pub file_timeout: Duration,
}

impl Sender {
    /// Errors: what came of an attempt that needs no line.
    fn letter(&self, message: &Message) -> Result<Letter, Tried> {
        let unfit = || Tried::Broken(Error::invariant("a channel without its sender"));
        match message.contact.channel {
            Channel::Webhook => {
                let webhook = self.webhook.as_ref().ok_or_else(unfit)?;
                webhook.request(message).map(Letter::Webhook).map_err(Tried::Never)
            }
            Channel::Smtp => {
                let mail = self.mail.as_ref().ok_or_else(unfit)?;
                mail.letter(message).map(Letter::Mail).map_err(Tried::Never)
            }
            Channel::File => Ok(Letter::File(file::lines(message, &self.table))),
        }
    }

    /// One attempt. What is not known in time may have been taken, and is sent again under its id.
    async fn attempt(&self, letter: Letter) -> Tried {
        let unfit = || Tried::Broken(Error::invariant("a channel without its sender"));
        let bound = match &letter {
            Letter::File(_) => self.file_timeout,
            _ if Bug::AttemptUnbounded.is_planted() => Duration::MAX,
            _ => self.timeout,
        };
        let sent = async {
            match (letter, &self.webhook, &self.mail) {
                (Letter::Webhook(request), Some(webhook), _) => webhook.send(request).await,
                (Letter::Mail(letter), _, Some(mail)) => mail.send(letter).await,
                (Letter::File(lines), ..) => file::write(lines).await,
                _ => unfit(),
            }
        };
        tokio::time::timeout(bound, sent).await.unwrap_or(Tried::NotNow(None))
    }
}

/// Takes messages, and has them sent as the schedule says.
pub struct Courier<'a> {
    sender: Arc<Sender>,
    schedule: Schedule<Lane, Host, Message<'a>>,
    under_way: JoinSet<(Lane, Tried)>,
    started: Instant,
}

impl<'a> Courier<'a> {
    pub fn new(sender: Sender, deliver: &Deliver) -> Courier<'a> {
        let at_once = deliver.rate_per_second * sender.timeout.as_secs_f64();
        let run_max = Duration::from_secs(deliver.run_seconds_max.into());
        let schedule = Schedule::new(Limits {
            interval: Duration::from_secs_f64(1.0 / deliver.rate_per_second),
            // As many as begin while one lasts: then nobody waits for a slot.
            slots: at_once.clamp(HOST_AT_ONCE as f64, AT_ONCE_MAX).ceil() as usize,
            attempts_max: deliver.attempts,
            deadline: if Bug::RunUnbounded.is_planted() { Duration::MAX } else { run_max },
            room: ROOM,
            patience: sender.timeout,
        });
        let (sender, under_way) = (Arc::new(sender), JoinSet::new());
        Courier { sender, schedule, under_way, started: Instant::now() }
    }

    /// Takes a message, or gives it back while there is no room for it.
    #[expect(clippy::result_large_err, reason = "what is given back is no error, and goes on being used")]
    pub fn offer(&mut self, message: Message<'a>) -> Result<(), Message<'a>> {
        let Message { contact, user_id, id, .. } = &message;
        let channel = contact.channel;
        let host = match channel {
            Channel::Webhook => webhook::host(contact.address),
            Channel::Smtp => String::new(),
            Channel::File => file::host(contact.address),
        };
        let lane = user_id.map_or(Lane::File(*id), |user| Lane::Of(user, channel));
        // The lines of many users are many bytes.
        let at_once = if channel == Channel::File { 1 } else { HOST_AT_ONCE };
        self.schedule.offer(self.started.elapsed(), lane, (channel, host), at_once, message)
    }

    /// Begins what may begin now. With `idle`, waits until an attempt ends or another may begin, but
    /// not long.
    pub async fn turn(&mut self, idle: bool) -> Result<()> {
        let until = loop {
            match self.schedule.next(self.started.elapsed()) {
                Step::Start(lane) => self.start(lane),
                Step::WaitUntil(until) => break until,
            }
        };
        if idle && !self.schedule.is_empty() {
            let most = self.started.elapsed() + TURN_MAX;
            let until = tokio::time::sleep_until(self.started + until.min(most));
            tokio::select! {
                Some(ended) = self.under_way.join_next() => self.done(ended)?,
                () = until => {}
            }
        }
        while let Some(ended) = self.under_way.try_join_next() {
            self.done(ended)?;
        }
        Ok(())
    }

    fn start(&mut self, lane: Lane) {
        match self.sender.letter(self.schedule.message(&lane)) {
            Ok(letter) => {
                let sender = self.sender.clone();
                self.under_way.spawn(async move { (lane, sender.attempt(letter).await) });
            }
            Err(tried) => self.schedule.done(self.started.elapsed(), &lane, tried, 0),
        }
    }

    fn done(&mut self, ended: Result<(Lane, Tried), tokio::task::JoinError>) -> Result<()> {
        let (lane, tried) = ended.map_err(|_| Error::invariant("an attempt did not come to its end"))?;
        let chance = getrandom::u64().unwrap_or(0);
        self.schedule.done(self.started.elapsed(), &lane, tried, chance);
        Ok(())
    }

    pub fn take_ended(&mut self) -> Vec<Ended<Message<'a>>> {
        self.schedule.take_ended()
    }

    /// Whether every message that was taken has ended.
    pub fn is_empty(&self) -> bool {
        self.schedule.is_empty()
    }

    pub async fn close(self) {
        if let Some(mail) = &self.sender.mail {
            mail.close().await;
        }
    }
}
