//! Settings for tests.

use crate::config::{self, ClaimRules, SecretString, TokenIssuer};

/// The shared secret of [`settings`].
pub(crate) const SECRET: &str = "a secret that the tests share";

/// The default settings of an issuer, with a shared secret.
pub(crate) fn settings() -> TokenIssuer {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    TokenIssuer {
        path: "auth".to_owned(),
        algorithms: vec![config::Algorithm::Hs256],
        jwt_secret: Some(SecretString::from(SECRET)),
        previous_jwt_secrets: Vec::new(),
        public_keys: None,
        key_set: None,
        issuer: None,
        audience: None,
        leeway: std::time::Duration::from_secs(30),
        claims: ClaimRules {
            subject: "sub".to_owned(),
            email: None,
            email_trusted: false,
            roles: names(&["role", "roles"]),
            admin_roles: names(&["admin"]),
            service_roles: names(&["service"]),
            stats_roles: Vec::new(),
        },
        subject_prefix: String::new(),
    }
}
