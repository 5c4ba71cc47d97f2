//! Verification of tokens.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::{KeySource, Principal};
use crate::config::Auth;

/// The largest token that is accepted. Tokens with many claims have 2 to 4 KiB.
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// The longest subject that is accepted (`OpenID` Connect Core, section 2). Rate limits use the
/// subject as a key.
const MAX_SUBJECT_BYTES: usize = 255;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token was valid until it expired.
    #[error("the token has expired")]
    Expired,
    /// The token is not valid for this service. The error does not say which check failed, because
    /// that would help an attacker who forges tokens.
    #[error("the token is not valid")]
    Invalid,
}

/// Verifies tokens. The signature algorithm comes from the configuration, never from the token.
pub struct Verifier {
    keys: Box<dyn KeySource>,
    validation: Validation,
}

impl Verifier {
    /// A verifier of HS256 tokens that `keys` verify and that meet the requirements of `auth`.
    pub fn new(auth: &Auth, keys: impl KeySource) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = auth.leeway.as_secs();
        validation.validate_nbf = true;
        // Without a configured audience, a token for any audience is valid.
        validation.validate_aud = auth.audience.is_some();
        let mut required = vec!["exp", "sub"];
        if let Some(audience) = &auth.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &auth.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Self {
            keys: Box::new(keys),
            validation,
        }
    }

    /// The bearer of a token.
    ///
    /// # Errors
    /// [`TokenError`] if the signature, the algorithm, the times, the issuer or the audience does
    /// not match the configuration, if the token is larger than 8 KiB, or if its header has the
    /// member `crit`.
    pub async fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let header = header_of(token).ok_or(TokenError::Invalid)?;
        // `crit` demands an extension (RFC 7515, section 4.1.11). This service supports none.
        if header.contains_key("crit") {
            return Err(TokenError::Invalid);
        }
        let key_id = header.get("kid").and_then(Value::as_str);
        for key in self.keys.keys(key_id).await.iter() {
            match self.verify_with(key, token) {
                Err(TokenError::Invalid) => {}
                verified_or_expired => return verified_or_expired,
            }
        }
        Err(TokenError::Invalid)
    }

    fn verify_with(&self, key: &DecodingKey, token: &str) -> Result<Principal, TokenError> {
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            })?
            .claims;
        if claims.sub.len() > MAX_SUBJECT_BYTES {
            return Err(TokenError::Invalid);
        }
        Ok(claims.principal())
    }
}

/// The members of a token's header, not verified; `None` if the header cannot be read.
fn header_of(token: &str) -> Option<Map<String, Value>> {
    let header = token.split('.').next()?;
    let json = BASE64URL_NOPAD.decode(header.as_bytes()).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;
    use crate::auth::{Role, SharedSecret, issue};
    use crate::config::{ExposeSecret, SecretString};

    fn auth() -> Auth {
        Auth {
            jwt_secret: None,
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(30),
            cookie_name: "access_token".to_owned(),
        }
    }

    fn secret() -> SecretString {
        SecretString::from("a secret that the tests share".to_owned())
    }

    fn verifier(auth: &Auth) -> Verifier {
        Verifier::new(auth, SharedSecret::new(&secret()).unwrap())
    }

    fn signed(header: &Header, claims: &Value, secret: &str) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(header, claims, &key).unwrap()
    }

    fn token(mut claims: Value) -> String {
        if claims.get("exp").is_none() {
            claims["exp"] = json!(jsonwebtoken::get_current_timestamp() + 60);
        }
        signed(
            &Header::new(Algorithm::HS256),
            &claims,
            secret().expose_secret(),
        )
    }

    async fn verify(claims: Value) -> Result<Principal, TokenError> {
        verifier(&auth()).verify(&token(claims)).await
    }

    #[tokio::test]
    async fn an_issued_token_is_valid_and_carries_its_roles() {
        let (mut auth, secret) = (auth(), secret());
        auth.issuer = Some("cameo".to_owned());
        auth.audience = Some("avatars".to_owned());
        let roles = ["admin".to_owned()];
        let token = issue(&auth, &secret, "42", &roles, Duration::from_mins(1)).unwrap();
        let principal = verifier(&auth).verify(&token).await.unwrap();
        assert_eq!(principal.subject.unwrap().as_str(), "42");
        assert_eq!(principal.role, Role::Admin);
    }

    #[tokio::test]
    async fn times_are_checked_with_the_leeway() {
        let now = jsonwebtoken::get_current_timestamp();
        assert!(verify(json!({"sub": "a", "exp": now - 10})).await.is_ok());
        let expired = verify(json!({"sub": "a", "exp": now - 40})).await;
        assert_eq!(expired, Err(TokenError::Expired));
        let early = verify(json!({"sub": "a", "nbf": now + 40})).await;
        assert_eq!(early, Err(TokenError::Invalid));
    }

    #[tokio::test]
    async fn forged_tokens_are_refused() {
        let claims = json!({"sub": "a", "exp": jsonwebtoken::get_current_timestamp() + 60});
        let verifier = verifier(&auth());
        let other_key = signed(&Header::new(Algorithm::HS256), &claims, "another secret");
        let other_algorithm = signed(
            &Header::new(Algorithm::HS512),
            &claims,
            secret().expose_secret(),
        );
        let good = token(claims.clone());
        let payload = good.split('.').nth(1).unwrap();
        // {"alg":"none"}
        let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
        for forged in [
            other_key,
            other_algorithm,
            unsigned,
            "x.y.z".to_owned(),
            String::new(),
        ] {
            let outcome = verifier.verify(&forged).await;
            assert_eq!(outcome, Err(TokenError::Invalid), "{forged}");
        }
    }

    #[tokio::test]
    async fn a_token_that_demands_an_extension_is_refused() {
        let mut header = Header::new(Algorithm::HS256);
        let claims = json!({"sub": "a", "exp": jsonwebtoken::get_current_timestamp() + 60});
        let verifier = verifier(&auth());
        let plain = signed(&header, &claims, secret().expose_secret());
        assert!(verifier.verify(&plain).await.is_ok());
        for crit in [vec!["b64".to_owned()], Vec::new()] {
            header.crit = Some(crit);
            let token = signed(&header, &claims, secret().expose_secret());
            let outcome = verifier.verify(&token).await;
            assert_eq!(outcome, Err(TokenError::Invalid), "{token}");
        }
    }

    #[tokio::test]
    async fn oversized_tokens_and_subjects_are_refused() {
        let of_claims = |bytes: usize| verify(json!({"sub": "a", "more": "x".repeat(bytes)}));
        assert!(of_claims(4 << 10).await.is_ok());
        assert_eq!(of_claims(8 << 10).await, Err(TokenError::Invalid));
        assert!(verify(json!({"sub": "a".repeat(255)})).await.is_ok());
        let long = verify(json!({"sub": "a".repeat(256)})).await;
        assert_eq!(long, Err(TokenError::Invalid));
    }

    #[tokio::test]
    async fn a_configured_issuer_and_audience_are_required() {
        let mut auth = auth();
        auth.issuer = Some("us".to_owned());
        auth.audience = Some("avatars".to_owned());
        let verifier = verifier(&auth);
        let good = json!({"sub": "a", "iss": "us", "aud": ["other", "avatars"]});
        assert!(verifier.verify(&token(good)).await.is_ok());
        for claims in [
            json!({"sub": "a", "iss": "us"}),
            json!({"sub": "a", "aud": "avatars"}),
            json!({"sub": "a", "iss": "them", "aud": "avatars"}),
            json!({"sub": "a", "iss": "us", "aud": "others"}),
            json!({"iss": "us", "aud": "avatars"}),
        ] {
            let outcome = verifier.verify(&token(claims.clone())).await;
            assert_eq!(outcome, Err(TokenError::Invalid), "{claims}");
        }
    }

    #[tokio::test]
    async fn a_token_without_an_expiry_is_refused() {
        let endless = signed(
            &Header::new(Algorithm::HS256),
            &json!({"sub": "a"}),
            secret().expose_secret(),
        );
        let outcome = verifier(&auth()).verify(&endless).await;
        assert_eq!(outcome, Err(TokenError::Invalid));
    }

    /// Two keys for tokens without a key id, and the second one alone for the key id `second`.
    struct TwoKeys;

    #[async_trait]
    impl KeySource for TwoKeys {
        async fn keys(&self, key_id: Option<&str>) -> Arc<[DecodingKey]> {
            let [first, second] =
                ["first", "second"].map(|secret| DecodingKey::from_secret(secret.as_bytes()));
            match key_id {
                None => Arc::new([first, second]),
                Some("second") => Arc::new([second]),
                Some(_) => Arc::new([]),
            }
        }
    }

    #[tokio::test]
    async fn every_key_that_the_source_names_is_tried_and_no_other() {
        let now = jsonwebtoken::get_current_timestamp();
        let verifier = Verifier::new(&auth(), TwoKeys);
        let verdict = async |key_id: Option<&str>, secret, exp| {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = key_id.map(str::to_owned);
            let token = signed(&header, &json!({"sub": "a", "exp": exp}), secret);
            verifier
                .verify(&token)
                .await
                .map(|principal| principal.name)
        };
        let good = now + 60;
        assert!(verdict(None, "first", good).await.is_ok());
        assert!(verdict(None, "second", good).await.is_ok());
        assert!(verdict(Some("second"), "second", good).await.is_ok());
        let invalid = Err(TokenError::Invalid);
        assert_eq!(verdict(Some("second"), "first", good).await, invalid);
        assert_eq!(verdict(Some("unknown"), "first", good).await, invalid);
        assert_eq!(verdict(None, "third", good).await, invalid);
        // The key that verifies the signature decides, not the last one that is tried.
        let expired = Err(TokenError::Expired);
        assert_eq!(verdict(None, "first", now - 60).await, expired);
    }
}
