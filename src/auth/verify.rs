//! Verification of tokens.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use super::{KeySource, Principal, claims, json};
use crate::config::{Algorithm, TokenIssuer};

/// The largest token that is accepted. Tokens with many claims have 2 to 4 KiB.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Why a token is refused. The text says which check failed, and not what would pass it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token has more than 8 KiB.
    #[error("the token is too large")]
    TooLarge,
    /// The text is not a signed JSON Web Token, or a claim that is checked has the wrong type.
    #[error("the token is malformed")]
    Malformed,
    /// The header demands an extension (`crit`). This service supports none.
    #[error("the token demands an extension that is not supported")]
    Extension,
    /// The issuer of the token is not configured.
    #[error("the token's issuer is not accepted")]
    Issuer,
    /// The algorithm is not configured for the issuer.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// No key fits the header of the token.
    #[error("the token's key is not known")]
    UnknownKey,
    /// No key verifies the signature.
    #[error("the token's signature is not valid")]
    Signature,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token is valid from a later time on.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The token does not say when it expires.
    #[error("the token has no expiry")]
    NoExpiry,
    /// The token is for another program.
    #[error("the token's audience is not accepted")]
    Audience,
    /// The token has no subject, or one that cannot be accepted.
    #[error("the token's subject is not accepted")]
    Subject,
    /// The keys of the issuer cannot be fetched now. The token may be valid.
    #[error("the keys that verify this token cannot be fetched now; try again later")]
    KeysUnavailable,
}

/// Verifies tokens. The signature algorithms come from the configuration, never from the token.
pub struct Verifier {
    main: Issuer,
    further: Vec<Issuer>,
}

/// An issuer, with the source of its keys.
struct Issuer {
    settings: TokenIssuer,
    keys: Box<dyn KeySource>,
}

impl Verifier {
    /// A verifier of the tokens of one issuer. If the settings name no issuer, the `iss` of its
    /// tokens does not matter.
    pub fn new(settings: &TokenIssuer, keys: impl KeySource) -> Self {
        Self {
            main: Issuer {
                settings: settings.clone(),
                keys: Box::new(keys),
            },
            further: Vec::new(),
        }
    }

    /// Accepts the tokens of a further issuer too. Its settings name the issuer.
    #[must_use]
    pub fn and(mut self, settings: &TokenIssuer, keys: impl KeySource) -> Self {
        self.further.push(Issuer {
            settings: settings.clone(),
            keys: Box::new(keys),
        });
        self
    }

    /// The bearer of a token.
    ///
    /// If the keys of the issuer have to be fetched, this waits for them.
    ///
    /// # Errors
    /// [`TokenError`] if the form, the issuer, the algorithm, the signature, the times, the audience
    /// or the subject of the token is not accepted, or if the keys cannot be fetched.
    pub async fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        let token = Token::read(token)?;
        let issuer = self.issuer_of(&token.claims)?;
        let accepted = &issuer.settings.algorithms;
        let algorithm = Algorithm::named(&token.algorithm).filter(|one| accepted.contains(one));
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        let candidates = issuer.keys.keys(algorithm, token.key_id.as_deref()).await;
        let mut keys = candidates.keys.iter();
        // The source names keys of this algorithm only. It is checked again, because a key of
        // another kind must never be tried.
        if !keys
            .any(|key| key.algorithm() == algorithm && key.verifies(token.message, token.signature))
        {
            return Err(if candidates.is_incomplete {
                TokenError::KeysUnavailable
            } else if candidates.keys.is_empty() {
                TokenError::UnknownKey
            } else {
                TokenError::Signature
            });
        }
        issuer.check_times(&token.claims, now())?;
        issuer.check_audience(&token.claims)?;
        let TokenIssuer {
            claims,
            subject_prefix,
            ..
        } = &issuer.settings;
        let principal = claims::principal(&token.claims, claims, subject_prefix);
        let principal = principal.ok_or(TokenError::Subject)?;
        // The main issuer must not name the users of another one.
        if subject_prefix.is_empty() && self.is_of_a_further_issuer(&principal.name) {
            return Err(TokenError::Subject);
        }
        Ok(principal)
    }

    /// The issuer that the claims name. They are not verified yet, so they only choose the keys.
    fn issuer_of(&self, claims: &Map<String, Value>) -> Result<&Issuer, TokenError> {
        let named = match claims.get("iss") {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => return Err(TokenError::Malformed),
        };
        let is_named =
            |issuer: &&Issuer| named.is_some() && issuer.settings.issuer.as_ref() == named;
        if let Some(issuer) = self.further.iter().find(is_named) {
            return Ok(issuer);
        }
        if self.main.settings.issuer.is_none() || is_named(&&self.main) {
            Ok(&self.main)
        } else {
            Err(TokenError::Issuer)
        }
    }

    fn is_of_a_further_issuer(&self, name: &str) -> bool {
        let mut issuers = self.further.iter();
        issuers.any(|issuer| name.starts_with(&issuer.settings.subject_prefix))
    }
}

impl Issuer {
    /// Checks that the token is valid at this time, in seconds since 1970.
    fn check_times(&self, claims: &Map<String, Value>, now: f64) -> Result<(), TokenError> {
        let leeway = self.settings.leeway.as_secs_f64();
        let expires = time(claims, "exp")?.ok_or(TokenError::NoExpiry)?;
        if expires + leeway <= now {
            return Err(TokenError::Expired);
        }
        match time(claims, "nbf")? {
            Some(begins) if begins - leeway > now => Err(TokenError::NotYetValid),
            _ => Ok(()),
        }
    }

    /// Checks that the token is for the configured audience, if there is one.
    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let Some(audience) = &self.settings.audience else {
            return Ok(());
        };
        let is_meant = match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        if is_meant {
            Ok(())
        } else {
            Err(TokenError::Audience)
        }
    }
}

/// A claim that is a time, in seconds since 1970 (RFC 7519, section 2).
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(TokenError::Malformed),
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs_f64()
}

/// The parts of a token. Nothing is verified.
struct Token<'a> {
    algorithm: String,
    key_id: Option<String>,
    claims: Map<String, Value>,
    /// The signed text.
    message: &'a [u8],
    /// The signature, still encoded.
    signature: &'a str,
}

impl<'a> Token<'a> {
    fn read(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let mut header = object(header)?;
        // `crit` demands an extension (RFC 7515, section 4.1.11).
        if header.contains_key("crit") {
            return Err(TokenError::Extension);
        }
        let mut text_of = |name: &str| match header.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(TokenError::Malformed),
        };
        Ok(Self {
            algorithm: text_of("alg")?.ok_or(TokenError::Malformed)?,
            key_id: text_of("kid")?,
            claims: object(payload)?,
            message: message.as_bytes(),
            signature,
        })
    }
}

/// Reads an encoded JSON object.
fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let json = BASE64URL_NOPAD.decode(part.as_bytes());
    let object = json.ok().and_then(|json| json::object(&json));
    object.ok_or(TokenError::Malformed)
}

#[cfg(test)]
mod tests;
