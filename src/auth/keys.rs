//! The sources of the keys that verify tokens.

use std::sync::Arc;

use async_trait::async_trait;
use jsonwebtoken::DecodingKey;

use crate::config::{ExposeSecret, SecretString};

/// A source of keys that verify tokens.
///
/// The source chooses the keys and nothing else: the [`Verifier`](super::Verifier) checks the
/// signature and all claims.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// The keys to verify a token with, in the order in which they are tried.
    ///
    /// `key_id` is the `kid` of the token's header (RFC 7515, section 4.1.4). It is not verified
    /// yet, and anybody may have written it. An empty answer means that no key fits; the token is
    /// then refused.
    async fn keys(&self, key_id: Option<&str>) -> Arc<[DecodingKey]>;
}

/// The secret of an HMAC signature is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret that signs tokens is empty")]
pub struct EmptySecret;

/// One secret, which this service shares with the issuer of the tokens.
pub struct SharedSecret(Arc<[DecodingKey]>);

impl SharedSecret {
    /// The source of the one key that `secret` is.
    ///
    /// # Errors
    /// [`EmptySecret`], because anybody could sign with it.
    pub fn new(secret: &SecretString) -> Result<Self, EmptySecret> {
        let secret = secret.expose_secret();
        if secret.trim().is_empty() {
            return Err(EmptySecret);
        }
        let key = DecodingKey::from_secret(secret.as_bytes());
        Ok(Self(Arc::new([key])))
    }
}

#[async_trait]
impl KeySource for SharedSecret {
    /// The secret, whatever the key id: a shared secret has no id.
    async fn keys(&self, _key_id: Option<&str>) -> Arc<[DecodingKey]> {
        Arc::clone(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_secret_is_refused() {
        for empty in ["", " ", "\n"] {
            let source = SharedSecret::new(&SecretString::from(empty));
            assert_eq!(source.err(), Some(EmptySecret));
        }
    }

    #[tokio::test]
    async fn a_shared_secret_is_the_key_for_every_key_id() {
        let source = SharedSecret::new(&SecretString::from("a secret")).unwrap();
        for key_id in [None, Some(""), Some("2026-01")] {
            assert_eq!(source.keys(key_id).await.len(), 1, "{key_id:?}");
        }
    }
}
