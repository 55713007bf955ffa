//! Alerts by HTTP: one POST for each, signed.
//!
//! In: a message. Out: whether its receiver took it. The signature is that of the Standard Webhooks
//! specification, with a secret of the endpoint's own.
//! Invariant: a repeated message has the same `webhook-id`; redirects and proxies are not followed;
//! of an answer the status and `Retry-After` are read, and no body.

use super::addresses::{Guard, NotAllowed};
use super::message::Message;
use super::schedule::Tried;
use crate::error::{Error, Result};
use crate::input::secrets::Secret;
use crate::job::networks::Network;
use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The variable that holds the secret from which those of the endpoints are derived.
pub const SECRET: &str = "PENNYMILL_WEBHOOK_SECRET";

/// The variable that holds the one before, while receivers take over the new one.
pub const PREVIOUS: &str = "PENNYMILL_WEBHOOK_SECRET_PREVIOUS";

/// Bytes of an address.
const ADDRESS_MAX: usize = 2048;

/// A connection that nobody uses is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// What endpoints' secrets are derived from, the current one first.
pub type JobSecrets = Vec<Secret>;

/// The job's secrets. Errors when there is none, or one that is unusable.
pub fn secrets_from_environment() -> Result<JobSecrets> {
    let read = |name: &str| -> Result<Option<Secret>> {
        let Some(text) = std::env::var_os(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        match text.to_str().and_then(Secret::parse) {
            Some(secret) => Ok(Some(secret)),
            None => Err(unfit(name, "is not a secret as it should be")),
        }
    };
    let current = read(SECRET)?.ok_or_else(|| unfit(SECRET, "is not set"))?;
    Ok(std::iter::once(current).chain(read(PREVIOUS)?).collect())
}

fn unfit(name: &str, what: &str) -> Error {
    Error::unfit(format!("{name} {what}")).advise("set it to whsec_ and the base64 of 24 to 64 random bytes")
}

/// What is to be sent.
pub struct Request {
    url: Url,
    id: String,
    body: String,
    /// Of the endpoint: all of them sign.
    secrets: Vec<Secret>,
}

pub struct Webhook {
    /// For https, to public addresses and the job's networks.
    client: reqwest::Client,
    guard: Guard,
    /// For plain http, to the job's networks.
    plain_client: reqwest::Client,
    plain_guard: Guard,
    secrets: JobSecrets,
}

impl Webhook {
    /// `at_once` is how many requests one host gets at once.
    pub fn new(
        secrets: JobSecrets,
        networks: &[Network],
        timeout: Duration,
        at_once: usize,
    ) -> Result<Webhook> {
        let client = |guard: &Guard| {
            let client = reqwest::Client::builder()
                .timeout(timeout)
                .redirect(reqwest::redirect::Policy::none())
                // A proxy would look up the names, and nobody would judge their addresses.
                .no_proxy()
                .dns_resolver(Arc::new(guard.clone()))
                // The head of an answer is bounded there, to some hundred kilobytes.
                .http1_only()
                .pool_idle_timeout(IDLE_MAX)
                .pool_max_idle_per_host(at_once)
                .user_agent(concat!("pennymill/", env!("CARGO_PKG_VERSION")));
            client.build().map_err(|_| Error::unfit("the HTTP client cannot be set up"))
        };
        let (guard, plain_guard) = (Guard::new(networks, true), Guard::new(networks, false));
        let (client, plain_client) = (client(&guard)?, client(&plain_guard)?);
        Ok(Webhook { client, guard, plain_client, plain_guard, secrets })
    }

    /// What is to be sent. Errors: why it will never be taken.
    pub fn request(&self, message: &Message) -> Result<Request, String> {
        let contact = &message.contact;
        if contact.address.len() > ADDRESS_MAX {
            return Err(format!("an address of more than {ADDRESS_MAX} bytes"));
        }
        let url = Url::parse(contact.address).ok();
        let Some(url) = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()) else {
            return Err("not a URL of http or https".into());
        };
        if !self.ways(&url).1.allows_host(url.host()) {
            return Err(NotAllowed.to_string());
        }
        let own: Vec<Secret> = contact.secrets.split_whitespace().filter_map(Secret::parse).collect();
        let secrets = match own.is_empty() {
            true => self.secrets.iter().map(|secret| secret.of_endpoint(&url)).collect(),
            false => own,
        };
        Ok(Request { url, id: message.id_text(), body: message.webhook_body(), secrets })
    }

    pub async fn send(&self, request: Request) -> Tried {
        let Request { url, id, body, secrets } = request;
        let timestamp = Utc::now().timestamp();
        let signatures: Vec<String> =
            secrets.iter().map(|secret| secret.signature(&id, timestamp, &body)).collect();
        let request = self
            .ways(&url)
            .0
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signatures.join(" "))
            .header("idempotency-key", &id)
            .body(body);
        match request.send().await {
            Ok(response) => judged(response.status(), response.headers()),
            Err(error) if is_not_allowed(&error) => Tried::Never(NotAllowed.to_string()),
            // Whatever happened on the way may have happened after it was taken.
            Err(_) => Tried::NotNow(None),
        }
    }

    fn ways(&self, url: &Url) -> (&reqwest::Client, &Guard) {
        match url.scheme() {
            "https" => (&self.client, &self.guard),
            _ => (&self.plain_client, &self.plain_guard),
        }
    }
}

/// The host and port of an address; nothing of one that is no URL.
pub fn host(address: &str) -> String {
    let host = |url: Url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?));
    Url::parse(address).ok().and_then(host).unwrap_or_default()
}

fn is_not_allowed(error: &reqwest::Error) -> bool {
    let first: &dyn std::error::Error = error;
    std::iter::successors(Some(first), |error| error.source()).any(|error| error.is::<NotAllowed>())
}

/// What an answer means. A receiver that is gone, or refuses this message, will do so again; one
/// that is slow, busy or broken may not.
fn judged(status: StatusCode, headers: &HeaderMap) -> Tried {
    match status.as_u16() {
        200..=299 => Tried::Taken,
        408 | 425 | 429 | 500..=599 => Tried::NotNow(retry_after(headers, Utc::now())),
        code => Tried::Never(format!("answered {code}")),
    }
}

/// Seconds, or the time of day, as RFC 9110 has it.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::parse_from_rfc2822(text).ok()?;
    Some((at.to_utc() - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let judge = |code: u16, after: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().unwrap());
            match judged(StatusCode::from_u16(code).unwrap(), &headers) {
                Tried::Taken => "taken".to_string(),
                Tried::Never(reason) => reason,
                Tried::NotNow(wait) => format!("{:?}", wait.map(|wait| wait.as_secs())),
                Tried::NotThisOne | Tried::Broken(_) => "something else".to_string(),
            }
        };
        assert_eq!(judge(204, ""), "taken");
        assert_eq!(judge(410, ""), "answered 410");
        assert_eq!(judge(302, ""), "answered 302");
        assert_eq!(judge(503, "7"), "Some(7)");
        assert_eq!(judge(429, "Fri, 31 Dec 1999 23:59:59 GMT"), "Some(0)");
        assert_eq!(judge(500, "soon"), "None");
    }
}
