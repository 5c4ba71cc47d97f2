//! Keys that verify tokens, and the port of their sources.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jsonwebtoken::DecodingKey;

use crate::config::{Algorithm, ExposeSecret, SecretString};

/// The sizes of RSA keys that are used. Shorter ones are not safe (RFC 7518, section 3.3), and
/// longer ones take too long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A key that verifies the signatures of one algorithm.
///
/// The kind of the key decides the algorithm. So a public key is never used as a shared secret,
/// whatever the header of a token says.
pub struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, algorithm, .. } = self;
        write!(f, "Key({}, id {id:?})", algorithm.name())
    }
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The shared secret is empty. Anybody could sign with it.
    #[error("the secret is empty")]
    EmptySecret,
    /// The RSA key has a size that is not used.
    #[error("an RSA key of {bits} bits; 2048 to 4096 are accepted")]
    RsaSize {
        /// The size of the modulus.
        bits: usize,
    },
    /// The numbers are not an RSA key.
    #[error("an RSA key with a modulus or an exponent that is not valid")]
    Rsa,
    /// The point is not on the curve P-256.
    #[error("a point that is not on the curve P-256")]
    Point,
    /// The bytes are not a key of Ed25519.
    #[error("bytes that are not a key of Ed25519")]
    Edwards,
}

impl Key {
    /// A shared secret, for HS256. It has no id.
    ///
    /// # Errors
    /// [`InvalidKey::EmptySecret`]
    pub fn from_secret(secret: &SecretString) -> Result<Self, InvalidKey> {
        let secret = secret.expose_secret();
        if secret.trim().is_empty() {
            return Err(InvalidKey::EmptySecret);
        }
        let key = DecodingKey::from_secret(secret.as_bytes());
        Ok(Self::new(Algorithm::Hs256, key))
    }

    /// An RSA key, for RS256. The modulus and the exponent are big-endian.
    ///
    /// # Errors
    /// [`InvalidKey::RsaSize`], [`InvalidKey::Rsa`]
    pub(super) fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, InvalidKey> {
        let significant = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].to_vec()
        };
        let (modulus, exponent) = (significant(modulus), significant(exponent));
        let first = modulus.first().ok_or(InvalidKey::Rsa)?;
        let bits = modulus.len() * 8 - first.leading_zeros() as usize;
        if !RSA_BITS.contains(&bits) {
            return Err(InvalidKey::RsaSize { bits });
        }
        let is_odd = |bytes: &[u8]| bytes.last().is_some_and(|byte| byte % 2 == 1);
        let is_one = exponent == [1];
        if !is_odd(&modulus) || !is_odd(&exponent) || is_one || exponent.len() > 4 {
            return Err(InvalidKey::Rsa);
        }
        let key = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
        Ok(Self::new(Algorithm::Rs256, key))
    }

    /// A point on the curve P-256 in the form of SEC 1, for ES256.
    ///
    /// # Errors
    /// [`InvalidKey::Point`]
    pub(super) fn from_p256(point: &[u8]) -> Result<Self, InvalidKey> {
        let key = Self::new(Algorithm::Es256, DecodingKey::from_ec_der(point));
        if key.is_readable() {
            Ok(key)
        } else {
            Err(InvalidKey::Point)
        }
    }

    /// The 32 bytes of an Ed25519 key, for `EdDSA`.
    ///
    /// # Errors
    /// [`InvalidKey::Edwards`]
    pub(super) fn from_ed25519(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let key = Self::new(Algorithm::EdDsa, DecodingKey::from_ed_der(bytes));
        // The library panics at a shorter key and cuts a longer one.
        if bytes.len() == 32 && key.is_readable() {
            Ok(key)
        } else {
            Err(InvalidKey::Edwards)
        }
    }

    fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        Self {
            id: None,
            algorithm,
            key,
        }
    }

    /// The same key with an id (`kid`).
    #[must_use]
    pub(super) fn with_id(self, id: Option<String>) -> Self {
        Self { id, ..self }
    }

    /// The id of the key (RFC 7517, section 4.5), if it has one.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The one algorithm that the key is used with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature` is this key's signature of `message`. The signature is the last part of a
    /// token, still encoded.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.key, library_name(self.algorithm))
            .unwrap_or(false)
    }

    /// Whether the library can read the key.
    fn is_readable(&self) -> bool {
        // No signature is empty, so this only reads the key.
        jsonwebtoken::crypto::verify("", b"", &self.key, library_name(self.algorithm)).is_ok()
    }
}

/// The number of keys for each algorithm, such as `1 for HS256, 2 for RS256`; empty if there is none.
pub(super) fn counts(keys: &[Arc<Key>]) -> String {
    let of = |algorithm| keys.iter().filter(|key| key.algorithm == algorithm).count();
    let counted = Algorithm::ALL.map(|algorithm| (algorithm, of(algorithm)));
    let present = counted.iter().filter(|(_, count)| *count > 0);
    let parts: Vec<_> = present
        .map(|(algorithm, count)| format!("{count} for {}", algorithm.name()))
        .collect();
    parts.join(", ")
}

/// The library's name of an algorithm.
pub(super) const fn library_name(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}

/// A source of keys that verify the tokens of one issuer.
///
/// The source chooses the keys and nothing else: the [`Verifier`](super::Verifier) checks the
/// signature and all claims.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// The keys of this algorithm to verify a token with, in the order in which they are tried.
    ///
    /// `key_id` is the `kid` of the token's header (RFC 7515, section 4.1.4). It is not verified
    /// yet, and anybody may have written it.
    async fn keys(&self, algorithm: Algorithm, key_id: Option<&str>) -> Candidates;
}

/// The keys to verify a token with.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// The keys, in the order in which they are tried. If there is none, no key fits the token.
    pub keys: Vec<Arc<Key>>,
    /// Whether further keys exist that cannot be fetched now. A token that none of `keys` verifies
    /// may still be valid.
    pub is_incomplete: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_secret_is_refused() {
        for empty in ["", " ", "\n"] {
            let key = Key::from_secret(&SecretString::from(empty));
            assert_eq!(key.unwrap_err(), InvalidKey::EmptySecret);
        }
    }
}
