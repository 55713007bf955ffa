//! Sessions with a mail server, over a line that is as private as the job asks for.
//!
//! In: the server, how the line is encrypted, a mail. Out: what the server answered.
//! Invariant: of a server's answers to one message a bounded number of bytes is read; a password goes
//! over an encrypted line or to this machine; a mail goes over an encrypted line, to this machine, or
//! into a network that the job names.

use super::limited::{Allowance, Limited};
use super::mail::PASSWORD;
use super::schedule::Tried;
use crate::error::{Error, Kind, Result};
use crate::job::networks::Network;
use crate::job::values::{Server, SmtpTls};
use crate::planted::Bug;
use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// A server needs less for its greeting, and for its answers to one message. The client reads an answer
/// of many lines anew with each line, so more would take its time.
const REPLIES_MAX: usize = 16 << 10;

/// What comes on top where a line is encrypted after it was opened: certificates.
const HANDSHAKE_MAX: usize = 32 << 10;

/// How a session is encrypted.
enum Privacy {
    Starttls(TlsParameters),
    Implicit(TlsConnector, ServerName<'static>),
    /// In clear, to these networks and this machine.
    None(Vec<Network>),
}

/// The way to a mail server.
pub struct Line {
    server: Server,
    port: u16,
    privacy: Privacy,
    pub credentials: Option<Credentials>,
    /// For one address of the server, where it has several.
    timeout: Duration,
}

type Failure = lettre::transport::smtp::Error;

impl Line {
    /// Errors: encryption that cannot be set up, none where there must be some.
    pub fn new(
        server: Server,
        tls: SmtpTls,
        has_password: bool,
        networks: &[Network],
        timeout: Duration,
    ) -> Result<Line> {
        let cannot = || Error::unfit("encryption cannot be set up").at(&server.host);
        let (privacy, usual_port) = match tls {
            SmtpTls::Starttls => {
                let parameters = TlsParameters::new_rustls(server.host.clone()).map_err(|_| cannot())?;
                (Privacy::Starttls(parameters), 587)
            }
            SmtpTls::Implicit => {
                let name = ServerName::try_from(server.host.clone()).map_err(|_| cannot())?;
                (Privacy::Implicit(connector().ok_or_else(cannot)?, name), 465)
            }
            SmtpTls::None => {
                let networks = if has_password { &[] } else { networks };
                if !may_be_in_clear(&server.host, networks) {
                    return Err(in_clear(&server, has_password));
                }
                (Privacy::None(networks.to_vec()), 25)
            }
        };
        let port = server.port.unwrap_or(usual_port);
        Ok(Line { server, port, privacy, credentials: None, timeout })
    }

    /// Opens a session, logged in. Errors: what that means for the message.
    pub async fn open(&self) -> Result<Session, Tried> {
        let allowance = Allowance::default();
        allowance.grant(REPLIES_MAX);
        let stream = self.connect().await?;
        let peer = stream.peer_addr().map_err(|_| Tried::NotNow(None))?;
        let hello = ClientId::default();
        let stream: Box<dyn AsyncTokioStream> = match &self.privacy {
            Privacy::Implicit(connector, name) => {
                let stream = connector.connect(name.clone(), stream).await;
                let stream = stream.map_err(|_| Tried::NotNow(None))?;
                Box::new(Limited { stream, peer, allowance: allowance.clone() })
            }
            _ => Box::new(Limited { stream, peer, allowance: allowance.clone() }),
        };
        let judged = |error: Failure| self.judged(&error);
        let mut connection =
            AsyncSmtpConnection::connect_with_transport(stream, &hello).await.map_err(judged)?;
        if let Privacy::Starttls(parameters) = &self.privacy {
            allowance.grant(HANDSHAKE_MAX);
            connection.starttls(parameters.clone(), &hello).await.map_err(judged)?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await.map_err(judged)?;
        }
        allowance.grant(REPLIES_MAX);
        Ok(Session { connection, allowance, is_usable: true })
    }

    /// Connects to the first of the server's addresses that lets us.
    async fn connect(&self) -> Result<TcpStream, Tried> {
        let found = tokio::net::lookup_host((self.server.host.as_str(), self.port)).await;
        let addresses: Vec<_> = found.map_err(|_| Tried::NotNow(None))?.collect();
        let may = |address: IpAddr| match &self.privacy {
            Privacy::None(networks) => address_may_be_in_clear(address, networks),
            _ => true,
        };
        if !addresses.iter().all(|address| may(address.ip())) {
            return Err(Tried::Broken(in_clear(&self.server, self.credentials.is_some())));
        }
        let each = self.timeout / addresses.len().max(1) as u32;
        for address in addresses {
            if let Ok(Ok(stream)) = tokio::time::timeout(each, TcpStream::connect(address)).await {
                return Ok(stream);
            }
        }
        Err(Tried::NotNow(None))
    }

    /// RFC 5321: 5yz is for good, 4yz is not; RFC 4954: 530, 534, 535 and 538 speak of us.
    pub fn judged(&self, error: &Failure) -> Tried {
        let host = &self.server.host;
        match code(error).as_deref() {
            Some("530" | "534" | "535" | "538") => {
                let error = Error::new(Kind::Credentials, "the mail server does not let us in").at(host);
                Tried::Broken(error.advise(format!("look at `smtp.user` and {PASSWORD}")))
            }
            Some(code) if error.is_permanent() => Tried::Never(format!("answered {code}")),
            // A full mailbox, say; 421 is the server on its way down.
            Some(code) if code != "421" => Tried::NotThisOne,
            None if error.is_client() => {
                let what = "the mail server lacks the encryption or the login that the job asks for";
                Tried::Broken(Error::unfit(what).at(host))
            }
            _ => Tried::NotNow(None),
        }
    }
}

fn code(error: &Failure) -> Option<String> {
    error.status().map(|code| code.to_string())
}

/// TLS with the roots of this machine.
fn connector() -> Option<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()).into())
}

/// Whether a host may be sent to in clear, as far as it can be known before its name is looked up.
fn may_be_in_clear(host: &str, networks: &[Network]) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    match name.parse::<IpAddr>() {
        Ok(address) => address_may_be_in_clear(address, networks),
        Err(_) => {
            name.eq_ignore_ascii_case("localhost")
                || !networks.is_empty()
                || Bug::PasswordInClear.is_planted()
        }
    }
}

fn address_may_be_in_clear(address: IpAddr, networks: &[Network]) -> bool {
    let address = address.to_canonical();
    let is_ours = address.is_loopback() || networks.iter().any(|network| network.contains(address));
    is_ours || Bug::PasswordInClear.is_planted()
}

fn in_clear(server: &Server, has_password: bool) -> Error {
    let (what, advice) = match has_password {
        true => (
            "`smtp.user` and `smtp.tls = \"none\"` would send the password in clear over the network",
            "set `smtp.tls` to \"starttls\" or \"implicit\", or use a server on this machine",
        ),
        false => (
            "`smtp.tls = \"none\"` would send mail in clear over the network",
            "set `smtp.tls` to \"starttls\" or \"implicit\", or name the server's network in `deliver.networks_allowed`",
        ),
    };
    Error::unfit(what).at(&server.host).advise(advice)
}

/// A session with a mail server.
pub struct Session {
    connection: AsyncSmtpConnection,
    allowance: Allowance,
    is_usable: bool,
}

impl Session {
    /// Makes a session that was used ready for another message. Out: whether it is.
    pub async fn begin_anew(&mut self) -> bool {
        self.allowance.grant(REPLIES_MAX);
        self.connection.command(Rset).await.is_ok()
    }

    /// Sends a mail. Once the server took it, nothing is asked of it any more.
    pub async fn send(&mut self, from: &Address, to: &Address, bytes: &[u8]) -> Result<(), Failure> {
        let sent = self.dialogue(from, to, bytes).await;
        // An answer leaves the session as it is, unless the server goes down with it.
        self.is_usable =
            sent.as_ref().err().is_none_or(|error| code(error).is_some_and(|code| code != "421"));
        sent
    }

    async fn dialogue(&mut self, from: &Address, to: &Address, bytes: &[u8]) -> Result<(), Failure> {
        self.connection.command(Mail::new(Some(from.clone()), Vec::new())).await?;
        self.connection.command(Rcpt::new(to.clone(), Vec::new())).await?;
        self.connection.command(Data).await?;
        self.connection.message(bytes).await.map(drop)
    }

    pub fn is_usable(&self) -> bool {
        self.is_usable
    }

    pub async fn quit(mut self) {
        self.allowance.grant(REPLIES_MAX);
        // Nothing depends on the answer.
        let _ = self.connection.quit().await;
    }
}
