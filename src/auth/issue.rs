//! New tokens, for development and for scripts. In production the identity provider issues them.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::config::{Auth, ExposeSecret, SecretString};

/// Issues an HS256 token for `subject` that expires after `ttl`. Its issuer and audience are those
/// that `auth` requires.
///
/// # Errors
/// If the claims cannot be signed. HMAC can sign all claims.
pub fn issue(
    auth: &Auth,
    secret: &SecretString,
    subject: &str,
    roles: &[String],
    ttl: Duration,
) -> Result<String, jsonwebtoken::errors::Error> {
    let now = jsonwebtoken::get_current_timestamp();
    let claims = NewClaims {
        sub: subject,
        roles,
        iat: now,
        exp: now.saturating_add(ttl.as_secs()),
        iss: auth.issuer.as_deref(),
        aud: auth.audience.as_deref(),
    };
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [String],
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}
