//! The settings of the check of pictures by another service: `[moderation]`.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretSlice};

use super::reader::{Reader, shown};
use super::{Environment, secret};

/// The advice in faults: how to make a secret.
const HOW_TO_MAKE: &str = "make one with: echo \"whsec_$(openssl rand -base64 32)\"";

/// `[moderation]`, if it is switched on.
#[derive(Clone, Debug)]
pub struct Moderation {
    /// The address that pictures are sent to.
    pub url: String,
    /// The secrets that sign the requests. Every one of them signs each request.
    pub secrets: Vec<SigningSecret>,
    /// How long one request may take, from the connection to the end of the answer.
    pub timeout: Duration,
    /// What happens to an upload without a verdict.
    pub when_down: WhenModerationIsDown,
}

/// What happens to an upload if the moderation service gives no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenModerationIsDown {
    /// It is refused.
    Deny,
    /// It is accepted.
    Allow,
}

/// A secret that signs messages as in Standard Webhooks: `whsec_` and base64.
#[derive(Clone)]
pub struct SigningSecret(SecretSlice<u8>);

impl SigningSecret {
    const PREFIX: &str = "whsec_";
    /// The lengths in bytes that the standard permits.
    const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

    /// Reads a secret.
    ///
    /// # Errors
    /// The problem. The text does not repeat the secret.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let base64 = text.trim().strip_prefix(Self::PREFIX);
        let Some(Ok(bytes)) = base64.map(|text| BASE64.decode(text.as_bytes())) else {
            let prefix = Self::PREFIX;
            return Err(format!(
                "holds a secret that is not {prefix} and base64; {HOW_TO_MAKE}"
            ));
        };
        if !Self::BYTES.contains(&bytes.len()) {
            return Err(format!(
                "holds a secret of {} bytes; give {} to {}: {HOW_TO_MAKE}",
                bytes.len(),
                Self::BYTES.start(),
                Self::BYTES.end()
            ));
        }
        Ok(Self(SecretSlice::from(bytes)))
    }

    /// The key of the signature.
    pub fn bytes(&self) -> &SecretSlice<u8> {
        &self.0
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret([REDACTED])")
    }
}

/// Reads `[moderation]`; `None` if it is switched off. Its settings are checked even then.
pub(super) fn moderation(read: &mut Reader<'_>, environment: Environment) -> Option<Moderation> {
    let secrets = secrets(read, environment);
    let timeout = read.time("moderation.timeout", 1, 60);
    let when_down = read.choice(
        "moderation.when_down",
        &[
            ("deny", WhenModerationIsDown::Deny),
            ("allow", WhenModerationIsDown::Allow),
        ],
    );
    let url = read.optional("moderation.url")?;
    if secrets.as_ref().is_some_and(Vec::is_empty) {
        let problem = format!(
            "is not set, so the moderation service cannot tell this service's requests from \
             others; {HOW_TO_MAKE}, or name a file that holds it in moderation.secrets_file"
        );
        match environment {
            Environment::Production => read.fault("moderation.secrets", problem),
            Environment::Development => read.warn("moderation.secrets", problem),
        }
    }
    Some(Moderation {
        url: checked_url(read, url, environment)?,
        secrets: secrets?,
        timeout,
        when_down,
    })
}

/// Reads the secrets; `None` if one of them is not valid.
fn secrets(read: &mut Reader<'_>, environment: Environment) -> Option<Vec<SigningSecret>> {
    const PATH: &str = "moderation.secrets";
    let mut secrets = Some(Vec::new());
    for text in read.secrets(PATH) {
        let text = text.expose_secret();
        let secret = SigningSecret::parse(text);
        let weakness = match environment {
            Environment::Production => secret::weakness(text.trim_start_matches("whsec_")),
            Environment::Development => None,
        };
        match (secret, weakness) {
            (Ok(secret), None) => secrets.iter_mut().for_each(|all| all.push(secret.clone())),
            (Ok(_), Some(weakness)) => {
                read.fault(
                    PATH,
                    format!("holds a secret that {weakness}; {HOW_TO_MAKE}"),
                );
                secrets = None;
            }
            (Err(problem), _) => {
                read.fault(PATH, problem);
                secrets = None;
            }
        }
    }
    secrets
}

/// Checks the address that pictures are sent to.
fn checked_url(read: &mut Reader<'_>, text: String, environment: Environment) -> Option<String> {
    const PATH: &str = "moderation.url";
    let uri = text.parse::<http::Uri>().ok();
    let authority = uri.as_ref().and_then(http::Uri::authority);
    if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        let problem = "holds a user name or a password; give the URL without them, and check the \
                       signature of the requests instead";
        read.fault(PATH, problem);
        return None;
    }
    let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
    let host = uri.as_ref().and_then(http::Uri::host);
    let (Some("http" | "https"), Some(host), false) = (scheme, host, text.contains('#')) else {
        let problem = format!(
            "is {}; give a URL such as \"https://moderation.internal/check\"",
            shown(&text)
        );
        read.fault(PATH, problem);
        return None;
    };
    let is_production = environment == Environment::Production;
    if is_production && scheme == Some("http") && !is_internal(host) {
        let problem = "does not use TLS, so anybody on the way can see the pictures and change the \
                       verdicts; give an https:// URL";
        read.warn(PATH, problem);
    }
    Some(text)
}

/// Whether a host is in a network of the operator: an address that is not public, a name without a
/// dot, or a name under a domain that the public name system does not have.
fn is_internal(host: &str) -> bool {
    const DOMAINS: [&str; 7] = [
        "cluster.local",
        "home.arpa",
        "internal",
        "lan",
        "local",
        "localhost",
        "svc",
    ];
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        Ok(IpAddr::V6(v6)) => {
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()
        }
        Err(_) => {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            let is_under = |domain: &&str| {
                host.strip_suffix(*domain)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            !host.contains('.') || DOMAINS.iter().any(is_under)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_the_operators_own_network_are_told_from_public_ones() {
        for internal in [
            "localhost",
            "moderation",
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.1.1",
            "[::1]",
            "[fd00::1]",
            "[fe80::1]",
            "moderation.default.svc",
            "moderation.default.svc.cluster.local",
            "Moderation.Internal",
            "nsfw.lan.",
        ] {
            assert!(is_internal(internal), "{internal}");
        }
        for public in [
            "moderation.example.com",
            "8.8.8.8",
            "172.32.0.1",
            "[2606:4700::1]",
            "internal.example.com",
            "notlocal.example",
            "mylocalhost.example",
            "evil-internal.com",
        ] {
            assert!(!is_internal(public), "{public}");
        }
    }

    #[test]
    fn a_secret_is_whsec_and_base64_of_24_to_64_bytes() {
        let encoded = |bytes: usize| format!("whsec_{}", BASE64.encode(&vec![7; bytes]));
        for bytes in [24, 32, 64] {
            let secret = SigningSecret::parse(&encoded(bytes)).unwrap();
            assert_eq!(secret.bytes().expose_secret(), vec![7; bytes]);
            assert_eq!(format!("{secret:?}"), "SigningSecret([REDACTED])");
        }
        for text in [
            "",
            "whsec_",
            "whsec_!!",
            &encoded(23),
            &encoded(65),
            &encoded(32)[6..],
        ] {
            let problem = SigningSecret::parse(text).unwrap_err();
            assert!(problem.contains("openssl rand"), "{problem}");
            assert!(text.len() < 10 || !problem.contains(text), "{problem}");
        }
    }
}
