//! Who somebody is: JSON Web Tokens (RFC 7519), checked and, for development, made.

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};

use crate::avatar::SubjectId;
use crate::config::{Auth, ExposeSecret, SecretString};

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

/// Checks tokens. The algorithm comes from the configuration, never from the token.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    /// Checks HS256 tokens signed with `secret`, and what else `auth` demands.
    pub fn new(auth: &Auth, secret: &SecretString) -> Self {
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
        Self { key, validation }
    }

    /// Who the token's bearer is.
    ///
    /// # Errors
    /// [`TokenError`] where the signature, the algorithm, the times, the issuer or the audience is
    /// not as configured.
    pub fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            })?
            .claims;
        Ok(claims.principal())
    }
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
    #[serde(default, deserialize_with = "words")]
    role: Vec<String>,
    #[serde(default, deserialize_with = "words")]
    roles: Vec<String>,
    #[serde(default, deserialize_with = "words")]
    scope: Vec<String>,
}

impl Claims {
    fn principal(self) -> Principal {
        let granted = |word: &str| {
            [&self.role, &self.roles, &self.scope]
                .into_iter()
                .flatten()
                .any(|grant| grant == word)
        };
        let role = if granted("admin") {
            Role::Admin
        } else if granted("service") {
            Role::Service
        } else {
            Role::User
        };
        // Identity providers put scopes of their own (`openid`) into every token. Only one that
        // names this service's scopes says that the others of them were withheld.
        let scoped = self.scope.iter().any(|scope| scope.starts_with("avatars:"));
        Principal {
            subject: SubjectId::new(self.sub.as_str()).ok(),
            role,
            may_write: !scoped || granted("avatars:write"),
            name: self.sub,
        }
    }
}

/// Takes a list of texts, or one text with blanks between the words (RFC 8693, section 4.2).
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        List(Vec<String>),
        Text(String),
        // A claim of another shape grants nothing.
        Other(serde::de::IgnoredAny),
    }
    Ok(match Words::deserialize(deserializer)? {
        Words::List(list) => list,
        Words::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
        Words::Other(_) => Vec::new(),
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
        Verifier::new(&auth(), &secret()).verify(&token(claims))
    }

    #[test]
    fn an_issued_token_is_good_and_carries_its_roles() {
        let (mut auth, secret) = (auth(), secret());
        auth.issuer = Some("cameo".to_owned());
        auth.audience = Some("avatars".to_owned());
        let roles = ["admin".to_owned()];
        let token = issue(&auth, &secret, "42", &roles, Duration::from_mins(1)).unwrap();
        let principal = Verifier::new(&auth, &secret).verify(&token).unwrap();
        assert_eq!(principal.subject.unwrap().as_str(), "42");
        assert_eq!(principal.role, Role::Admin);
    }

    #[test]
    fn roles_come_as_text_or_list_and_from_the_scope() {
        for (claims, role) in [
            (json!({"sub": "a"}), Role::User),
            (json!({"sub": "a", "role": "admin"}), Role::Admin),
            (
                json!({"sub": "a", "roles": ["x", "service"]}),
                Role::Service,
            ),
            (
                json!({"sub": "a", "scope": "openid service"}),
                Role::Service,
            ),
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
        let verifier = Verifier::new(&auth(), &secret());
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
    fn what_is_configured_is_required() {
        let mut auth = auth();
        auth.issuer = Some("us".to_owned());
        auth.audience = Some("avatars".to_owned());
        let verifier = Verifier::new(&auth, &secret());
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
            Verifier::new(&self::auth(), &secret()).verify(&endless),
            Err(TokenError::Invalid)
        );
    }
}
