//! Alerts by HTTP: one POST for each, signed.
//!
//! In: a message. Out: whether its receiver took it. The signature is that of the Standard Webhooks
//! specification: HMAC-SHA256 over `id.timestamp.body`, in base64, behind `v1,`.
//! Invariant: a repeated message has the same `webhook-id`; redirects are not followed.

use super::message::Message;
use super::send::Tried;
use crate::error::{Error, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use sha2::Sha256;
use std::time::Duration;

/// The variable that holds the secret: `whsec_` and base64, of 24 to 64 bytes.
pub const SECRET: &str = "PENNYMILL_WEBHOOK_SECRET";

const PREFIX: &str = "whsec_";

pub struct Webhook {
    client: reqwest::Client,
    secret: Vec<u8>,
}

impl Webhook {
    /// Errors when there is no usable secret.
    pub fn from_environment(timeout: Duration) -> Result<Webhook> {
        let unfit = |what: &str| {
            let error = Error::unfit(format!("{SECRET} {what}"));
            Err(error.advise("set it to whsec_ and the base64 of 24 to 64 random bytes"))
        };
        let Ok(text) = std::env::var(SECRET) else { return unfit("is not set, and contacts use webhooks") };
        let secret = text.strip_prefix(PREFIX).and_then(|base64| BASE64_STANDARD.decode(base64).ok());
        let Some(secret) = secret.filter(|secret| (24..=64).contains(&secret.len())) else {
            return unfit("is not a secret as it should be");
        };
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("pennymill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| Error::unfit("the HTTP client cannot be set up"))?;
        Ok(Webhook { client, secret })
    }

    /// The host of an address; none of one that is no URL.
    pub fn host(address: &str) -> String {
        let url = url::Url::parse(address).ok();
        url.and_then(|url| url.host_str().map(String::from)).unwrap_or_default()
    }

    pub async fn send(&self, message: &Message<'_>) -> Tried {
        let url = url::Url::parse(message.contact.address).ok();
        let Some(url) = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()) else {
            return Tried::Never("not a URL of http or https".into());
        };
        let (id, body, timestamp) = (message.id_text(), message.webhook_body(), Utc::now().timestamp());
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signature(&self.secret, &id, timestamp, &body))
            .header("idempotency-key", &id)
            .body(body);
        match request.send().await {
            Ok(response) => judged(response.status(), response.headers()),
            // Whatever happened on the way may have happened after it was taken.
            Err(_) => Tried::NotNow(None),
        }
    }
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

fn signature(secret: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference libraries' tests.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let secret = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed =
            signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

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
