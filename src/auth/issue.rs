//! New tokens, for development and for scripts. In production the identity provider issues them.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use crate::config::{Auth, ExposeSecret, SecretString};

/// Issues an HS256 token for `subject` that expires after `ttl`. Its claims are those that the main
/// issuer of `auth` requires.
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
    let issuer = &auth.main;
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
    set("sub", subject.into());
    // A path with dots is read as the name of a claim first.
    set(&issuer.claims.subject, subject.into());
    if let (Some(claim), false) = (issuer.claims.roles.last(), roles.is_empty()) {
        set(claim, roles.into());
    }
    set("iat", now.into());
    set("exp", now.saturating_add(ttl.as_secs()).into());
    if let Some(name) = &issuer.issuer {
        set("iss", name.as_str().into());
    }
    if let Some(audience) = &issuer.audience {
        set("aud", audience.as_str().into());
    }
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
}
