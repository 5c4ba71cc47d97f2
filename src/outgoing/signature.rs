//! Signatures as in Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! The signature of a message is the HMAC-SHA256 of `<id>.<timestamp>.<body>`. The receiver has the same
//! secret, and accepts a message if one of its signatures is right and its time is recent. The crate
//! `standardwebhooks` refuses bodies that are not UTF-8, and a body may be a picture.

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;

use crate::avatar::Timestamp;
use crate::config::{ExposeSecret, SigningSecret};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Signs messages with every secret, so that a receiver accepts them while secrets are rotated.
#[derive(Clone)]
pub(crate) struct Signer(Vec<hmac::Key>);

/// The headers of one message.
pub(crate) struct Signature {
    id: String,
    timestamp: String,
    /// `v1,<base64>` for each secret, separated by spaces; empty if there is no secret.
    signatures: String,
}

impl Signer {
    /// A signer with these secrets. Without a secret, messages are not signed.
    pub(crate) fn new(secrets: &[SigningSecret]) -> Self {
        let key = |secret: &SigningSecret| {
            hmac::Key::new(hmac::HMAC_SHA256, secret.bytes().expose_secret())
        };
        Self(secrets.iter().map(key).collect())
    }

    /// Signs a message. A receiver treats messages with the same id as one message.
    pub(crate) fn sign(&self, id: String, at: Timestamp, body: &[u8]) -> Signature {
        let timestamp = (at.unix_ms() / 1000).to_string();
        let sign = |key| {
            let mut context = hmac::Context::with_key(key);
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                context.update(part);
            }
            format!("v1,{}", BASE64.encode(context.sign().as_ref()))
        };
        let signatures: Vec<_> = self.0.iter().map(sign).collect();
        Signature {
            signatures: signatures.join(" "),
            id,
            timestamp,
        }
    }
}

impl Signature {
    /// Adds the headers to a request.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        let fields = [
            (ID, &self.id),
            (TIMESTAMP, &self.timestamp),
            (SIGNATURE, &self.signatures),
        ];
        for (name, text) in fields {
            // Ids, digits and base64 are always valid values.
            if let Ok(value) = HeaderValue::from_str(text)
                && !text.is_empty()
            {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of a message whose body is no text.
    fn signed(secrets: &[&str]) -> HeaderMap {
        let secrets: Vec<_> = secrets
            .iter()
            .map(|secret| SigningSecret::parse(secret).unwrap())
            .collect();
        let at = Timestamp::from_unix_ms(1_700_000_000_999);
        let signature = Signer::new(&secrets).sign("msg_1".to_owned(), at, b"\xff\xd8\0body");
        let mut headers = HeaderMap::new();
        signature.add_to(&mut headers);
        headers
    }

    #[test]
    fn a_message_is_signed_with_every_secret_in_their_order() {
        // (printf 'msg_1.1700000000.\xff\xd8\0body') | openssl dgst -sha256 -mac HMAC
        //   -macopt hexkey:$(printf SECRET | base64 -d | xxd -p) -binary | base64
        let first = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let second = "whsec_dGhpcyBpcyBhIHNlY29uZCBzZWNyZXQsIHllcw==";
        let headers = signed(&[first, second]);
        assert_eq!(headers["webhook-id"], "msg_1");
        assert_eq!(headers["webhook-timestamp"], "1700000000");
        assert_eq!(
            headers["webhook-signature"],
            "v1,mzkqfTzxFqICFWr67KhSOwc86tnVtqMqt3hdR0j4TzE= \
             v1,Fzmh/gtVLXIJ2IgMiuDBDr8qMNMyYaOUKzAQa7HZSXc="
        );
    }

    #[test]
    fn without_a_secret_there_is_no_signature() {
        let headers = signed(&[]);
        assert_eq!(headers["webhook-id"], "msg_1");
        assert!(!headers.contains_key("webhook-signature"));
    }
}
