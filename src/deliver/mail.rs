//! Alerts by mail: one digest for each user and run, as plain text and HTML.
//!
//! In: a message. Out: whether the server took it.
//! Invariant: encrypted unless the job says otherwise; a repeated message has the same Message-ID;
//! what a server says about an address is not passed on.

use super::message::Message;
use super::schedule::Tried;
use super::smtp::{Line, Session};
use crate::error::{Error, Kind, Result};
use crate::job::networks::Network;
use crate::job::sections::Smtp;
use futures::future::join_all;
use lettre::Address;
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The variable that holds the password of `smtp.user`.
pub const PASSWORD: &str = "PENNYMILL_SMTP_PASSWORD";

/// To part with a server politely takes no longer than this.
const PARTING_MAX: Duration = Duration::from_secs(1);

/// What is to be sent.
pub struct Letter {
    to: Address,
    bytes: Vec<u8>,
}

pub struct Mail {
    line: Line,
    from: Mailbox,
    /// Sessions that wait for the next message.
    idle: Mutex<Vec<Session>>,
}

impl Mail {
    /// Errors when the job does not say how mail is sent, when it would be sent in clear over a
    /// network, or when the password is missing.
    pub fn new(smtp: &Smtp, networks: &[Network], timeout: Duration) -> Result<Mail> {
        let needs = |key: &str| {
            let error = Error::unfit(format!("`smtp.{key}` is not set, and contacts use smtp"));
            error.advise("name it in the job file")
        };
        let server = smtp.server.as_ref().ok_or_else(|| needs("server"))?.0.clone();
        let from = smtp.from.as_ref().ok_or_else(|| needs("from"))?;
        let from: Option<Mailbox> = from.parse().ok().filter(|from: &Mailbox| is_ascii(&from.email));
        let from = from.ok_or_else(|| Error::unfit("`smtp.from` is not a mail address"))?;
        let mut line = Line::new(server, smtp.tls, smtp.user.is_some(), networks, timeout)?;
        let credentials = smtp.user.as_ref().map(|user| {
            let password = std::env::var(PASSWORD).map_err(|_| {
                let error = Error::new(
                    Kind::Credentials,
                    format!("{PASSWORD} is not set, and the job has `smtp.user`"),
                );
                error.advise("set it to the password of that user")
            });
            password.map(|password| Credentials::new(user.clone(), password))
        });
        line.credentials = credentials.transpose()?;
        Ok(Mail { line, from, idle: Mutex::default() })
    }

    /// What is to be sent. Errors: why it will never be taken.
    pub fn letter(&self, message: &Message) -> Result<Letter, String> {
        let Ok(to) = message.contact.address.parse::<Mailbox>() else {
            return Err("not a mail address".into());
        };
        // Few servers take such addresses, and one that does not must not look like a broken one.
        if !is_ascii(&to.email) {
            return Err("a mail address that is not of ASCII".into());
        }
        let domain = self.from.email.domain();
        let mail = lettre::Message::builder()
            .from(self.from.clone())
            .to(to.clone())
            .subject(message.subject())
            .message_id(Some(format!("<{}@{domain}>", message.id_text())))
            .multipart(MultiPart::alternative_plain_html(message.text(), message.html()));
        let bytes = mail.map(|mail| mail.formatted()).ok().filter(|bytes| bytes.is_ascii());
        bytes.map(|bytes| Letter { to: to.email, bytes }).ok_or_else(|| "it makes no mail".into())
    }

    /// A session that fails is not used again; one in which the server refused a message is.
    pub async fn send(&self, letter: Letter) -> Tried {
        let used = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // The server may have closed it meanwhile.
        let open = match used {
            Some(mut session) => session.begin_anew().await.then_some(session),
            None => None,
        };
        let mut session = match open {
            Some(session) => session,
            None => match self.line.open().await {
                Ok(session) => session,
                Err(tried) => return tried,
            },
        };
        let sent = session.send(&self.from.email, &letter.to, &letter.bytes).await;
        if session.is_usable() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
        match sent {
            Ok(()) => Tried::Taken,
            Err(error) => self.line.judged(&error),
        }
    }

    /// Parts with the server, which need not answer.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        let parting = join_all(idle.into_iter().map(Session::quit));
        // One that does not answer is left.
        let _ = tokio::time::timeout(PARTING_MAX, parting).await;
    }
}

fn is_ascii(address: &Address) -> bool {
    let text: &str = address.as_ref();
    text.is_ascii()
}
