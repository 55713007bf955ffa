//! Secrets that sign webhooks: how they are written, and one for each endpoint.
//!
//! In: a secret as text; the address of an endpoint. Out: keys, signatures.
//! Invariant: an endpoint's secret tells nothing of another one's, nor of the job's; a secret appears
//! in no error and is shown by `shown` alone.

use crate::planted::Bug;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use url::Url;

/// How a secret begins, as Standard Webhooks writes it.
const PREFIX: &str = "whsec_";

/// What a derived secret is for: the same job secret may derive others for other ends.
const PURPOSE: &str = "pennymill webhook v1 ";

/// The key of signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// `whsec_` and the base64 of 24 to 64 bytes; none if it is anything else.
    pub fn parse(text: &str) -> Option<Secret> {
        let bytes = BASE64_STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Secret(bytes))
    }

    /// The endpoint's own secret: HKDF-SHA256 (RFC 5869) without salt from this one, 32 bytes. `info`
    /// is the purpose and the canonical address.
    pub fn of_endpoint(&self, url: &Url) -> Secret {
        if Bug::OneSecretForAll.is_planted() {
            return self.clone();
        }
        Secret(derived(&[], &self.0, format!("{PURPOSE}{}", canonical(url)).as_bytes()).to_vec())
    }

    pub fn shown(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.0))
    }

    /// The signature of Standard Webhooks: `v1,` and the base64 of HMAC-SHA256 over
    /// `id.timestamp.body`.
    pub fn signature(&self, id: &str, timestamp: i64, body: &str) -> String {
        let signed = hmac(&self.0, &[format!("{id}.{timestamp}.{body}").as_bytes()]);
        format!("v1,{}", BASE64_STANDARD.encode(signed))
    }
}

/// The address that a secret is derived for: as the URL standard writes it (scheme and host in lower
/// case, the usual port left out, dots in the path resolved), without user, password and fragment.
pub fn canonical(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    // These fail only where there is no host, and thus nothing to take away.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// HKDF-SHA256 for as many bytes as one block has: extract, and the first step of expand.
fn derived(salt: &[u8], secret: &[u8], info: &[u8]) -> [u8; 32] {
    let extracted = hmac(salt, &[secret]);
    hmac(&extracted, &[info, &[1]])
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Test cases 1 and 3 of RFC 5869: the first 32 bytes of each.
    #[test]
    fn derivation_is_that_of_the_rfc() {
        let first =
            derived(&bytes("000102030405060708090a0b0c"), &[0x0b; 22], &bytes("f0f1f2f3f4f5f6f7f8f9"));
        assert_eq!(first[..], bytes("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"));
        let third = derived(&[], &[0x0b; 22], &[]);
        assert_eq!(third[..], bytes("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"));
    }

    /// The example of the reference libraries' tests.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed =
            secret.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_endpoint_has_a_secret_of_its_own_however_it_is_written() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let of = |address: &str| secret.of_endpoint(&address.parse().unwrap()).shown();
        let same = [
            "https://host.example/a?b=1",
            "HTTPS://HOST.example:443/x/../a?b=1#c",
            "https://u:p@host.example/a?b=1",
        ];
        for address in same {
            assert_eq!(of(address), of(same[0]), "{address}");
        }
        let others = [
            "http://host.example/a?b=1",
            "https://host.example/a",
            "https://host.example/a?b=2",
            "https://host.example:8443/a?b=1",
            "https://other.example/a?b=1",
            "https://host.example./a?b=1",
        ];
        for address in others {
            assert_ne!(of(address), of(same[0]), "{address}");
        }
        assert_eq!(Secret::parse(&of(same[0])).unwrap().shown(), of(same[0]));
    }

    #[test]
    fn what_is_no_secret_is_none() {
        let short = format!("{PREFIX}{}", BASE64_STANDARD.encode([7; 23]));
        let long = format!("{PREFIX}{}", BASE64_STANDARD.encode([7; 65]));
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_ä", short.as_str(), &long] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
    }
}
