//! The keys that the configuration holds: shared secrets, and files of public keys.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::keys::{Candidates, Key, KeySource, counts};
use super::pem::{self, InvalidPem};
use crate::config::{Algorithm, SecretString, TokenIssuer};

/// The keys that the configuration holds: secrets and public keys. None of them has an id.
#[derive(Clone, Debug, Default)]
pub struct FixedKeys(Vec<Arc<Key>>);

/// A key of the configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct InvalidKeys {
    /// The setting.
    pub place: String,
    /// The problem of its value.
    pub problem: String,
}

impl FixedKeys {
    /// The keys that the settings of an issuer hold. `generated` is the secret that the program
    /// generated, if the settings have none.
    ///
    /// # Errors
    /// [`InvalidKeys`] if a secret is empty, if the file of public keys cannot be read, or if a key
    /// belongs to an algorithm that the issuer does not accept.
    pub fn of(issuer: &TokenIssuer, generated: Option<&SecretString>) -> Result<Self, InvalidKeys> {
        let invalid = |key: &str, problem: String| InvalidKeys {
            place: format!("{}.{key}", issuer.path),
            problem,
        };
        let mut keys = Vec::new();
        if issuer.algorithms.contains(&Algorithm::Hs256) {
            let current = issuer.jwt_secret.as_ref().or(generated);
            let secrets = current.into_iter().chain(&issuer.previous_jwt_secrets);
            for secret in secrets {
                let key = Key::from_secret(secret);
                keys.push(key.map_err(|error| invalid("jwt_secret", error.to_string()))?);
            }
        }
        if let Some(file) = &issuer.public_keys {
            let wrong = |problem: String| {
                let problem = format!("is \"{}\": {problem}", file.path.display());
                invalid("public_key_file", problem)
            };
            let found =
                pem::keys(&file.text).map_err(|error: InvalidPem| wrong(error.to_string()))?;
            for key in found {
                let name = key.algorithm().name();
                if !issuer.algorithms.contains(&key.algorithm()) {
                    let path = &issuer.path;
                    let problem =
                        format!("it holds a key for {name}, which {path}.algorithms does not have");
                    return Err(wrong(problem));
                }
                keys.push(key);
            }
        }
        Ok(Self(keys.into_iter().map(Arc::new).collect()))
    }

    pub(super) fn of_algorithm(&self, algorithm: Algorithm) -> impl Iterator<Item = &Arc<Key>> {
        self.0
            .iter()
            .filter(move |key| key.algorithm() == algorithm)
    }
}

impl fmt::Display for FixedKeys {
    /// The number of keys for each algorithm, such as `1 for HS256, 2 for RS256`; empty if there is
    /// none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counts(&self.0))
    }
}

#[async_trait]
impl KeySource for FixedKeys {
    /// All keys of the algorithm, whatever the key id.
    async fn keys(&self, algorithm: Algorithm, _key_id: Option<&str>) -> Candidates {
        Candidates {
            keys: self.of_algorithm(algorithm).cloned().collect(),
            is_incomplete: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use cameo_testing::tokens::{Signer, text as fixture};

    use super::super::testing::settings;
    use super::*;
    use crate::config::PemFile;

    #[tokio::test]
    async fn a_generated_secret_is_used_only_if_none_is_configured() {
        let generated = SecretString::from("generated");
        let mut settings = settings();
        let verifies = async |settings: &TokenIssuer, secret: &str| {
            let keys = FixedKeys::of(settings, Some(&generated)).unwrap();
            let token = Signer::secret(secret);
            let token = token.token(&serde_json::json!({}));
            let (message, signature) = token.rsplit_once('.').unwrap();
            let keys = keys.keys(Algorithm::Hs256, Some("any")).await.keys;
            keys.iter()
                .any(|key| key.verifies(message.as_bytes(), signature))
        };
        assert!(!verifies(&settings, "generated").await);
        settings.jwt_secret = None;
        assert!(verifies(&settings, "generated").await);
        // Without HS256 there is no secret.
        settings.algorithms = vec![Algorithm::Rs256];
        assert!(!verifies(&settings, "generated").await);
    }

    #[test]
    fn a_file_of_keys_is_refused_with_its_setting_and_its_name() {
        let mut settings = settings();
        settings.algorithms = vec![Algorithm::Es256];
        settings.path = "auth.issuers[1]".to_owned();
        let mut refused = |text: String| {
            settings.public_keys = Some(PemFile {
                path: "/etc/keys.pem".into(),
                text,
            });
            FixedKeys::of(&settings, None).unwrap_err().to_string()
        };
        assert_eq!(
            refused(fixture("rsa.public.pem")),
            "auth.issuers[1].public_key_file: is \"/etc/keys.pem\": it holds a key for RS256, which \
             auth.issuers[1].algorithms does not have"
        );
        assert_eq!(
            refused("nothing".to_owned()),
            "auth.issuers[1].public_key_file: is \"/etc/keys.pem\": it has no block such as \
             -----BEGIN PUBLIC KEY-----"
        );
    }
}
