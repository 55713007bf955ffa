//! Alerts by mail: one digest for each user and run, as plain text and HTML.
//!
//! In: a message. Out: whether the server took it.
//! Invariant: encrypted unless the job says otherwise; a repeated message has the same Message-ID;
//! what a server says about an address is not passed on.

use super::message::Message;
use super::send::Tried;
use crate::error::{Error, Kind, Result};
use crate::job::sections::Smtp;
use crate::job::values::SmtpTls;
use crate::store::wait;
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use std::time::Duration;

/// The variable that holds the password of `smtp.user`.
pub const PASSWORD: &str = "PENNYMILL_SMTP_PASSWORD";

pub struct Mail {
    /// There until it is dropped.
    transport: Option<AsyncSmtpTransport<Tokio1Executor>>,
    from: Mailbox,
    server: String,
}

impl Mail {
    /// Errors when the job does not say how mail is sent, or the password is missing.
    pub fn new(smtp: &Smtp, timeout: Duration) -> Result<Mail> {
        let needs = |key: &str| {
            let error = Error::unfit(format!("`smtp.{key}` is not set, and contacts use smtp"));
            error.advise("name it in the job file")
        };
        let server = smtp.server.as_ref().ok_or_else(|| needs("server"))?.0.clone();
        let from = smtp.from.as_ref().ok_or_else(|| needs("from"))?;
        let from: Mailbox = from.parse().map_err(|_| Error::unfit("`smtp.from` is not a mail address"))?;
        let cannot = |_| Error::unfit("encryption cannot be set up").at(&server.host);
        let host = server.host.as_str();
        let (builder, usual_port) = match smtp.tls {
            SmtpTls::Starttls => {
                (AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(host).map_err(cannot)?, 587)
            }
            SmtpTls::Implicit => (AsyncSmtpTransport::<Tokio1Executor>::relay(host).map_err(cannot)?, 465),
            SmtpTls::None => (AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host), 25),
        };
        let mut builder = builder.port(server.port.unwrap_or(usual_port)).timeout(Some(timeout));
        if let Some(user) = &smtp.user {
            let password = std::env::var(PASSWORD).map_err(|_| {
                let error = Error::new(
                    Kind::Credentials,
                    format!("{PASSWORD} is not set, and the job has `smtp.user`"),
                );
                error.advise("set it to the password of that user")
            })?;
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        let transport = Some(builder.build());
        Ok(Mail { transport, from, server: server.host })
    }

    pub async fn send(&self, message: &Message<'_>) -> Tried {
        let Ok(to) = message.contact.address.parse::<Mailbox>() else {
            return Tried::Never("not a mail address".into());
        };
        // Few servers take such addresses, and one that does not must not look like a broken one.
        if !to.email.to_string().is_ascii() {
            return Tried::Never("a mail address that is not of ASCII".into());
        }
        let domain = self.from.email.domain();
        let mail = lettre::Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(message.subject())
            .message_id(Some(format!("<{}@{domain}>", message.id_text())))
            .multipart(MultiPart::alternative_plain_html(message.text(), message.html()));
        let Ok(mail) = mail else { return Tried::Never("it makes no mail".into()) };
        let transport = self.transport.as_ref().expect("it is there until it is dropped");
        match transport.send(mail).await {
            Ok(_) => Tried::Taken,
            Err(error) => self.judged(&error),
        }
    }

    /// RFC 5321: 5yz is for good, 4yz is not; RFC 4954: 530, 534, 535 and 538 speak of us.
    fn judged(&self, error: &lettre::transport::smtp::Error) -> Tried {
        match error.status().map(|code| code.to_string()).as_deref() {
            Some("530" | "534" | "535" | "538") => {
                let error = Error::new(Kind::Credentials, "the mail server does not let us in");
                Tried::Broken(error.at(&self.server).advise(format!("look at `smtp.user` and {PASSWORD}")))
            }
            Some(code) if error.is_permanent() => Tried::Never(format!("answered {code}")),
            // A full mailbox, say; 421 is the server on its way down.
            Some(code) if code != "421" => Tried::NotThisOne,
            None if error.is_client() => {
                let error =
                    Error::unfit("the mail server lacks the encryption or the login that the job asks for");
                Tried::Broken(error.at(&self.server))
            }
            _ => Tried::NotNow(None),
        }
    }
}

impl Drop for Mail {
    /// Closing connections takes a runtime.
    fn drop(&mut self) {
        let transport = self.transport.take();
        wait(async { drop(transport) });
    }
}
