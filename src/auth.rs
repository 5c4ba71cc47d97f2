//! Who somebody is: JSON Web Tokens (RFC 7519), checked and, for development, made.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};

use crate::avatar::SubjectId;
use crate::config::{Auth, ExposeSecret, SecretString};

/// The largest token that is looked at. Tokens with many claims have 2 to 4 KiB.
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// The longest subject (`OpenID` Connect Core, section 2). It is a key of the rate limits.
const MAX_SUBJECT_BYTES: usize = 255;

/// Whoever made a request, as a valid token tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's subject, as it stands there.
    pub name: String,
    /// The same as a user id; `None` where it is none, as a service's may be.
    pub subject: Option<SubjectId>,
    /// What it may do beyond its own avatar.
    pub role: Role,
    /// Whether the token lets it change anything.
    pub may_write: bool,
}

/// What a principal may do beyond its own avatar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nothing.
    User,
    /// Another program: everything that its users may.
    Service,
    /// An operator: everything.
    Admin,
}

impl Principal {
    /// Whether it may change the avatar of `subject`: the owner, a service or an admin, with a
    /// token that is not restricted to reading.
    pub fn may_change(&self, subject: &SubjectId) -> bool {
        self.may_write && (self.role > Role::User || self.subject.as_ref() == Some(subject))
    }
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It did once.
    #[error("the token has expired")]
    Expired,
    /// It never did, or not here. Which of the checks failed is nobody's business.
    #[error("the token is not valid")]
    Invalid,
}

/// The secret that tokens are signed with is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret that tokens are signed with is empty")]
pub struct EmptySecret;

/// Checks tokens. The algorithm comes from the configuration, never from the token.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    /// Checks HS256 tokens signed with `secret`, and what else `auth` demands.
    ///
    /// # Errors
    /// [`EmptySecret`], because anybody could sign with it.
    pub fn new(auth: &Auth, secret: &SecretString) -> Result<Self, EmptySecret> {
        if secret.expose_secret().trim().is_empty() {
            return Err(EmptySecret);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = auth.leeway.as_secs();
        validation.validate_nbf = true;
        // A token that names an audience nobody asked about is good; a missing expiry never is.
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
        let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Ok(Self { key, validation })
    }

    /// Who the token's bearer is.
    ///
    /// # Errors
    /// [`TokenError`] if the signature, the algorithm, the times, the issuer or the audience is not
    /// as configured, if the token is larger than 8 KiB, or if its header demands an extension
    /// (`crit`): this service understands none.
    pub fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        if token.len() > MAX_TOKEN_BYTES || demands_extension(token) {
            return Err(TokenError::Invalid);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
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

/// Whether a token's header has the member `crit` (RFC 7515, section 4.1.11), or cannot be read.
fn demands_extension(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let header = BASE64URL_NOPAD.decode(header.as_bytes()).ok();
    let header = header.and_then(|json| {
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&json).ok()
    });
    header.is_none_or(|members| members.contains_key("crit"))
}

/// Makes an HS256 token for `subject` that is good for `ttl`.
///
/// # Errors
/// Where the claims cannot be signed, which HMAC always can.
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

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default, deserialize_with = "whole")]
    role: Vec<String>,
    #[serde(default, deserialize_with = "whole")]
    roles: Vec<String>,
    #[serde(default, deserialize_with = "spaced")]
    scope: Scopes,
    #[serde(default, deserialize_with = "spaced")]
    scp: Scopes,
}

impl Claims {
    /// Roles come from the role claims alone: a scope says what the user allowed a client to do,
    /// and never makes an admin or a service.
    fn principal(self) -> Principal {
        let has_role = |role: &str| self.role.iter().chain(&self.roles).any(|one| one == role);
        let role = if has_role("admin") {
            Role::Admin
        } else if has_role("service") {
            Role::Service
        } else {
            Role::User
        };
        let claims = [&self.scope, &self.scp];
        let scopes = || claims.iter().flat_map(|claim| &claim.names);
        // Identity providers put scopes of their own (`openid`) into every token. Only a token that
        // names one of this service's scopes is restricted to those that it names.
        let restricted = scopes().any(|scope| scope.starts_with("avatars:"));
        // A restriction that cannot be read may restrict the token to reading.
        let is_readable = claims.iter().all(|claim| claim.is_readable);
        let may_write =
            is_readable && (!restricted || scopes().any(|scope| scope == "avatars:write"));
        Principal {
            subject: SubjectId::new(self.sub.as_str()).ok(),
            role,
            may_write,
            name: self.sub,
        }
    }
}

/// The scopes that a claim names.
struct Scopes {
    names: Vec<String>,
    /// Whether the claim is absent, null, a text or a list of texts.
    is_readable: bool,
}

impl Default for Scopes {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            is_readable: true,
        }
    }
}

/// A claim that is one text or a list of texts. A claim of another shape grants nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    List(Vec<String>),
    One(String),
    Null(()),
    Other(serde::de::IgnoredAny),
}

/// Reads roles: a text is one role, whole.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match Texts::deserialize(deserializer)? {
        Texts::List(list) => list,
        Texts::One(text) => vec![text],
        Texts::Null(()) | Texts::Other(_) => Vec::new(),
    })
}

/// Reads scopes: single spaces, and nothing else, separate them (RFC 6749, section 3.3). The texts
/// of a list are split too, because some identity providers put several scopes into one text.
fn spaced<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scopes, D::Error> {
    let texts = match Texts::deserialize(deserializer)? {
        Texts::List(list) => list,
        Texts::One(text) => vec![text],
        Texts::Null(()) => Vec::new(),
        Texts::Other(_) => {
            return Ok(Scopes {
                names: Vec::new(),
                is_readable: false,
            });
        }
    };
    let names = texts.iter().flat_map(|text| text.split(' '));
    Ok(Scopes {
        names: names.map(str::to_owned).collect(),
        is_readable: true,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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

    fn verify(claims: Value) -> Result<Principal, TokenError> {
        Verifier::new(&auth(), &secret())
            .unwrap()
            .verify(&token(claims))
    }

    #[test]
    fn an_issued_token_is_good_and_carries_its_roles() {
        let (mut auth, secret) = (auth(), secret());
        auth.issuer = Some("cameo".to_owned());
        auth.audience = Some("avatars".to_owned());
        let roles = ["admin".to_owned()];
        let token = issue(&auth, &secret, "42", &roles, Duration::from_mins(1)).unwrap();
        let principal = Verifier::new(&auth, &secret)
            .unwrap()
            .verify(&token)
            .unwrap();
        assert_eq!(principal.subject.unwrap().as_str(), "42");
        assert_eq!(principal.role, Role::Admin);
    }

    #[test]
    fn a_role_is_a_whole_text_and_no_scope_makes_one() {
        for (claims, role) in [
            (json!({"sub": "a"}), Role::User),
            (json!({"sub": "a", "role": "admin"}), Role::Admin),
            (json!({"sub": "a", "roles": "service"}), Role::Service),
            (
                json!({"sub": "a", "roles": ["x", "service"]}),
                Role::Service,
            ),
            (json!({"sub": "a", "role": "Site admin"}), Role::User),
            (json!({"sub": "a", "role": "site\u{a0}admin"}), Role::User),
            (json!({"sub": "a", "role": "admin service"}), Role::User),
            (json!({"sub": "a", "role": " admin"}), Role::User),
            (json!({"sub": "a", "role": "Admin"}), Role::User),
            (json!({"sub": "a", "roles": ["Site admin"]}), Role::User),
            (json!({"sub": "a", "roles": [["admin"]]}), Role::User),
            (json!({"sub": "a", "scope": "openid service"}), Role::User),
            (json!({"sub": "a", "scope": "admin"}), Role::User),
            (json!({"sub": "a", "scp": ["admin"]}), Role::User),
            (json!({"sub": "a", "role": 7, "roles": null}), Role::User),
            (json!({"sub": "a", "role": "administrator"}), Role::User),
        ] {
            assert_eq!(verify(claims.clone()).unwrap().role, role, "{claims}");
        }
    }

    #[test]
    fn only_a_token_with_this_services_scopes_can_be_without_writing() {
        let may_write = |scope: &str| {
            verify(json!({"sub": "a", "scope": scope}))
                .unwrap()
                .may_write
        };
        assert!(may_write("openid profile"));
        assert!(may_write("avatars:read avatars:write"));
        assert!(!may_write("openid avatars:read"));
        // Only single spaces separate scopes.
        assert!(!may_write("avatars:read\u{a0}avatars:write"));
        assert!(!may_write("avatars:read\tavatars:write"));
    }

    #[test]
    fn scopes_come_from_scp_too_as_text_or_list() {
        let may_write = |scp: Value| verify(json!({"sub": "a", "scp": scp})).unwrap().may_write;
        assert!(!may_write(json!("avatars:read")));
        assert!(!may_write(json!(["avatars:read"])));
        assert!(may_write(json!(["avatars:read", "avatars:write"])));
        assert!(may_write(json!("openid")));
        // A role is no scope.
        let claims = json!({"sub": "a", "scope": "avatars:read", "role": "avatars:write"});
        assert!(!verify(claims).unwrap().may_write);
    }

    #[test]
    fn scopes_that_cannot_be_read_take_writing_away() {
        let may_write = |claim: &str, value: &Value| {
            let claims = json!({"sub": "a", claim: value});
            verify(claims).unwrap().may_write
        };
        for claim in ["scope", "scp"] {
            for restricted in [
                json!(["avatars:read", 7]),
                json!(["openid avatars:read"]),
                json!(["openid", "profile avatars:read"]),
                json!({"a": "avatars:read"}),
                json!([["avatars:read"]]),
                json!(7),
                json!(false),
            ] {
                assert!(!may_write(claim, &restricted), "{claim}: {restricted}");
            }
            for free in [
                json!(null),
                json!(""),
                json!([]),
                json!(["openid profile"]),
                json!(["openid avatars:read avatars:write"]),
            ] {
                assert!(may_write(claim, &free), "{claim}: {free}");
            }
        }
        // A scope beside it that permits writing does not help.
        let claims = json!({"sub": "a", "scope": "avatars:write", "scp": {"a": "avatars:read"}});
        assert!(!verify(claims).unwrap().may_write);
    }

    #[test]
    fn a_subject_that_is_no_user_id_owns_nothing_but_may_serve() {
        let principal = verify(json!({"sub": "svc|main app", "role": "service"})).unwrap();
        assert_eq!(principal.subject, None);
        assert!(principal.may_change(&SubjectId::new("42").unwrap()));
        let nobody = verify(json!({"sub": "svc|main app"})).unwrap();
        assert!(!nobody.may_change(&SubjectId::new("42").unwrap()));
    }

    #[test]
    fn tokens_out_of_their_time_are_refused_beyond_the_leeway() {
        let now = jsonwebtoken::get_current_timestamp();
        assert!(verify(json!({"sub": "a", "exp": now - 10})).is_ok());
        assert_eq!(
            verify(json!({"sub": "a", "exp": now - 40})),
            Err(TokenError::Expired)
        );
        assert_eq!(
            verify(json!({"sub": "a", "nbf": now + 40})),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn forged_tokens_are_refused() {
        let claims = json!({"sub": "a", "exp": jsonwebtoken::get_current_timestamp() + 60});
        let verifier = Verifier::new(&auth(), &secret()).unwrap();
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
            assert_eq!(
                verifier.verify(&forged),
                Err(TokenError::Invalid),
                "{forged}"
            );
        }
    }

    #[test]
    fn a_token_that_demands_an_extension_is_refused() {
        let mut header = Header::new(Algorithm::HS256);
        let claims = json!({"sub": "a", "exp": jsonwebtoken::get_current_timestamp() + 60});
        let verifier = Verifier::new(&auth(), &secret()).unwrap();
        let plain = signed(&header, &claims, secret().expose_secret());
        assert!(verifier.verify(&plain).is_ok());
        for crit in [vec!["b64".to_owned()], Vec::new()] {
            header.crit = Some(crit);
            let token = signed(&header, &claims, secret().expose_secret());
            assert_eq!(verifier.verify(&token), Err(TokenError::Invalid), "{token}");
        }
    }

    #[test]
    fn oversized_tokens_and_subjects_are_refused() {
        let of_claims = |bytes: usize| verify(json!({"sub": "a", "more": "x".repeat(bytes)}));
        assert!(of_claims(4 << 10).is_ok());
        assert_eq!(of_claims(8 << 10), Err(TokenError::Invalid));
        assert!(verify(json!({"sub": "a".repeat(255)})).is_ok());
        assert_eq!(
            verify(json!({"sub": "a".repeat(256)})),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn an_empty_secret_verifies_nothing() {
        for empty in ["", " ", "\n"] {
            let made = Verifier::new(&auth(), &SecretString::from(empty));
            assert_eq!(made.err(), Some(EmptySecret));
        }
    }

    #[test]
    fn what_is_configured_is_required() {
        let mut auth = auth();
        auth.issuer = Some("us".to_owned());
        auth.audience = Some("avatars".to_owned());
        let verifier = Verifier::new(&auth, &secret()).unwrap();
        let good = json!({"sub": "a", "iss": "us", "aud": ["other", "avatars"]});
        assert!(verifier.verify(&token(good)).is_ok());
        for claims in [
            json!({"sub": "a", "iss": "us"}),
            json!({"sub": "a", "aud": "avatars"}),
            json!({"sub": "a", "iss": "them", "aud": "avatars"}),
            json!({"sub": "a", "iss": "us", "aud": "others"}),
            json!({"iss": "us", "aud": "avatars"}),
        ] {
            assert_eq!(
                verifier.verify(&token(claims.clone())),
                Err(TokenError::Invalid),
                "{claims}"
            );
        }
        let endless = signed(
            &Header::new(Algorithm::HS256),
            &json!({"sub": "a"}),
            secret().expose_secret(),
        );
        assert_eq!(
            Verifier::new(&self::auth(), &secret())
                .unwrap()
                .verify(&endless),
            Err(TokenError::Invalid)
        );
    }
}
