//! The settings of tokens: `[auth]` and `[[auth.issuers]]`.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::reader::{Reader, shown};
use super::{Environment, secret};

/// The list of further issuers.
const ISSUERS: &str = "auth.issuers";

/// `[auth]`
#[derive(Clone, Debug)]
pub struct Auth {
    /// The name of the cookie that holds a token.
    pub cookie_name: String,
    /// The issuer that `[auth]` describes.
    pub main: TokenIssuer,
    /// The issuers in `[[auth.issuers]]`.
    pub further: Vec<TokenIssuer>,
}

impl Auth {
    /// All issuers. The one of `[auth]` is the first.
    pub fn issuers(&self) -> impl Iterator<Item = &TokenIssuer> {
        std::iter::once(&self.main).chain(&self.further)
    }
}

/// Where tokens come from, and how they are verified and read.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    /// The path of these settings: `auth`, or `auth.issuers[0]`.
    pub path: String,
    /// The accepted signature algorithms.
    pub algorithms: Vec<Algorithm>,
    /// The HS256 secret; `None` if there is none, or if the program generates one.
    pub jwt_secret: Option<SecretString>,
    /// Earlier secrets, which are still accepted.
    pub previous_jwt_secrets: Vec<SecretString>,
    /// A file of public keys.
    pub public_keys: Option<PemFile>,
    /// The address of a set of public keys.
    pub key_set: Option<KeySet>,
    /// The required value of `iss`. A further issuer always has one.
    pub issuer: Option<String>,
    /// A value that `aud` must contain.
    pub audience: Option<String>,
    /// Accepted difference between clocks.
    pub leeway: Duration,
    /// The meaning of the claims.
    pub claims: ClaimRules,
    /// The start of every subject of this issuer. It is empty for the main issuer and for no other.
    pub subject_prefix: String,
}

/// A signature algorithm of a token (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// HMAC with SHA-256 and a shared secret.
    Hs256,
    /// `RSASSA-PKCS1-v1_5` with SHA-256.
    Rs256,
    /// ECDSA on the curve P-256 with SHA-256.
    Es256,
    /// `EdDSA` on the curve Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in configurations and tokens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// A file of keys or certificates, read but not parsed.
#[derive(Clone, Debug)]
pub struct PemFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The content of the file.
    pub text: String,
}

/// A set of public keys that the issuer publishes.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// How the set is found.
    pub location: KeySetLocation,
    /// Certificate authorities to trust in addition to those of the system.
    pub ca: Option<PemFile>,
    /// The interval at which the set is fetched again.
    pub refresh: Duration,
    /// How long the keys of the last successful fetch are used while further fetches fail.
    pub max_stale: Duration,
}

/// How a set of public keys is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetLocation {
    /// At this URL.
    Url(String),
    /// At the URL that the `OpenID` Connect configuration of this issuer names.
    Discovery(String),
}

/// The meaning of claims. A path is the name of a claim, or names separated by dots that lead to a
/// member of a claim.
#[derive(Clone, Debug)]
pub struct ClaimRules {
    /// The path of the claim that holds the subject.
    pub subject: String,
    /// The path of the claim that holds the e-mail address; `None` if it is not read.
    pub email: Option<String>,
    /// Whether an address counts as verified without `email_verified`.
    pub email_trusted: bool,
    /// The paths of the claims that hold roles.
    pub roles: Vec<String>,
    /// The roles that make an admin.
    pub admin_roles: Vec<String>,
    /// The roles that make a service.
    pub service_roles: Vec<String>,
    /// The roles that may read statistics.
    pub stats_roles: Vec<String>,
}

/// Reads `[auth]` and `[[auth.issuers]]`.
pub(super) fn auth(read: &mut Reader<'_>, environment: Environment) -> Auth {
    let cookie_name = read.filled("auth.cookie_name");
    if !cookie_name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        read.fault(
            "auth.cookie_name",
            format!("is {cookie_name:?}; give letters, digits, - _ ."),
        );
    }
    let main = issuer(read, "auth", environment);
    let mut further = Vec::new();
    for at in 0..read.items(ISSUERS) {
        let path = format!("{ISSUERS}[{at}]");
        let mut issuer = issuer(read, &path, environment);
        issuer.subject_prefix = subject_prefix(read, &path);
        if issuer.issuer.is_none() {
            let problem =
                "is not set; a token's \"iss\" claim selects the issuer, so give its value";
            read.fault(&format!("{path}.issuer"), problem);
        }
        further.push(issuer);
    }
    let auth = Auth {
        cookie_name,
        main,
        further,
    };
    expect_distinct(read, &auth);
    auth
}

/// Reads the settings of one issuer.
fn issuer(read: &mut Reader<'_>, at: &str, environment: Environment) -> TokenIssuer {
    let path = |key: &str| format!("{at}.{key}");
    let algorithms = read.list(&path("algorithms"), |text| {
        Algorithm::named(text).ok_or_else(|| {
            let names = Algorithm::ALL.map(Algorithm::name).join(", ");
            format!("holds {text:?}; give {names}")
        })
    });
    if algorithms.is_empty() {
        read.fault(
            &path("algorithms"),
            "is empty; give at least one, such as [\"RS256\"]",
        );
    }
    let issuer = TokenIssuer {
        path: at.to_owned(),
        algorithms,
        jwt_secret: read.secret(&path("jwt_secret")),
        previous_jwt_secrets: read.secrets(&path("previous_jwt_secrets")),
        public_keys: pem_file(read, &path("public_key_file")),
        key_set: key_set(read, at, environment),
        issuer: read.optional(&path("issuer")),
        audience: read.optional(&path("audience")),
        leeway: read.time(&path("leeway"), 0, 600),
        claims: ClaimRules {
            subject: read.filled(&path("subject_claim")),
            email: read.optional(&path("email_claim")),
            email_trusted: read.flag(&path("email_trusted")),
            roles: names(read, &path("role_claims")),
            admin_roles: names(read, &path("admin_roles")),
            service_roles: names(read, &path("service_roles")),
            stats_roles: names(read, &path("stats_roles")),
        },
        subject_prefix: String::new(),
    };
    expect_keys(read, &issuer, environment);
    if environment == Environment::Production {
        refuse_unsafe_settings(read, &issuer);
    }
    issuer
}

/// Reads a list of names that are not empty.
fn names(read: &mut Reader<'_>, path: &str) -> Vec<String> {
    read.list(path, |text| match text {
        "" => Err("holds an empty text".to_owned()),
        text => Ok(text.to_owned()),
    })
}

/// Reads the file that a key names, without parsing it.
fn pem_file(read: &mut Reader<'_>, path: &str) -> Option<PemFile> {
    let file = PathBuf::from(read.optional(path)?);
    match std::fs::read_to_string(&file) {
        Ok(text) => Some(PemFile { path: file, text }),
        Err(error) => {
            let problem = format!("is {}, which cannot be read: {error}", shown_path(&file));
            read.fault(path, problem);
            None
        }
    }
}

fn shown_path(path: &std::path::Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// Reads the address of a set of keys.
fn key_set(read: &mut Reader<'_>, at: &str, environment: Environment) -> Option<KeySet> {
    let path = |key: &str| format!("{at}.{key}");
    let ca = pem_file(read, &path("ca_file"));
    let refresh = read.time(&path("jwks_refresh"), 1, 24 * 3600);
    let max_stale = read.time(&path("jwks_max_stale"), 1, 7 * 24 * 3600);
    if max_stale < refresh {
        let problem = "is shorter than jwks_refresh, so keys would be dropped between two fetches";
        read.fault(&path("jwks_max_stale"), problem);
    }
    let url = read.optional(&path("jwks_url"));
    let issuer = read.optional(&path("issuer"));
    let location = match (url, read.flag(&path("discovery"))) {
        (None, false) => return None,
        (Some(_), true) => {
            let problem =
                "is given, and discovery is on, which finds the keys too; give one of them";
            read.fault(&path("jwks_url"), problem);
            return None;
        }
        (Some(url), false) => {
            let url = checked_url(read, &path("jwks_url"), url, environment)?;
            KeySetLocation::Url(url)
        }
        (None, true) => {
            let Some(issuer) = issuer else {
                let problem =
                    "is not set, but discovery asks the issuer for its keys; give its URL";
                read.fault(&path("issuer"), problem);
                return None;
            };
            let issuer = checked_url(read, &path("issuer"), issuer, environment)?;
            if issuer.contains('?') {
                let problem = "has a query; discovery needs the issuer's URL without one";
                read.fault(&path("issuer"), problem);
                return None;
            }
            KeySetLocation::Discovery(issuer)
        }
    };
    Some(KeySet {
        location,
        ca,
        refresh,
        max_stale,
    })
}

/// Checks the URL that keys come from. In production it must use TLS, because the keys decide which
/// tokens are valid.
fn checked_url(
    read: &mut Reader<'_>,
    path: &str,
    text: String,
    environment: Environment,
) -> Option<String> {
    let uri = text.parse::<http::Uri>().ok();
    let authority = uri.as_ref().and_then(http::Uri::authority);
    if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        let problem = "holds a user name or a password, which logs would repeat; give the URL \
                       without them";
        read.fault(path, problem);
        return None;
    }
    let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
    let host = uri.as_ref().and_then(http::Uri::host);
    let (Some("http" | "https"), Some(host), false) = (scheme, host, text.contains('#')) else {
        let problem = format!(
            "is {}; give a URL such as \"https://id.example.com\"",
            shown(&text)
        );
        read.fault(path, problem);
        return None;
    };
    if scheme == Some("http") && !is_loopback(host) {
        let problem = "does not use TLS, so anybody on the way to it could replace the keys; give \
                       an https:// URL";
        match environment {
            Environment::Production => {
                read.fault(path, problem);
                return None;
            }
            Environment::Development => read.warn(path, problem),
        }
    }
    Some(text)
}

/// Whether a host of a URL is this machine.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Checks that every accepted algorithm has a source of keys, and that every source is used.
fn expect_keys(read: &mut Reader<'_>, issuer: &TokenIssuer, environment: Environment) {
    let at = &issuer.path;
    let path = |key: &str| format!("{at}.{key}");
    let is_set = |key: &str| !read.layers.is_empty(&path(key));
    let has_secret = is_set("jwt_secret") || is_set("jwt_secret_file");
    let has_public_keys =
        is_set("public_key_file") || is_set("jwks_url") || read.flag(&path("discovery"));
    let accepts_secret = issuer.algorithms.contains(&Algorithm::Hs256);
    let public: Vec<_> = issuer
        .algorithms
        .iter()
        .filter(|one| **one != Algorithm::Hs256)
        .collect();
    // In development the program generates a secret for the main issuer.
    let is_generated = at == "auth" && environment == Environment::Development;
    if accepts_secret && !has_secret && !is_generated {
        let problem = if at == "auth" {
            format!(
                "is not set, and in production no secret is generated; {}, and name a file that \
                 holds it in auth.jwt_secret_file. Or verify the tokens of an identity provider: \
                 remove \"HS256\" from auth.algorithms, add the provider's algorithm, and set \
                 auth.discovery, auth.jwks_url or auth.public_key_file",
                secret::HOW_TO_MAKE
            )
        } else {
            format!(
                "is not set, but {at}.algorithms has \"HS256\"; give the secret, or list only the \
                 issuer's algorithms, such as [\"RS256\"]"
            )
        };
        read.fault(&path("jwt_secret"), problem);
    }
    if let ([first, ..], false) = (&public[..], has_public_keys) {
        let problem = format!(
            "has {:?}, but there is no key for it; set {at}.discovery, {at}.jwks_url or \
             {at}.public_key_file",
            first.name()
        );
        read.fault(&path("algorithms"), problem);
    }
    if public.is_empty() && has_public_keys && !issuer.algorithms.is_empty() {
        let problem = format!(
            "has only \"HS256\", so the public keys of {at} verify nothing; add their algorithm, \
             such as \"RS256\""
        );
        read.fault(&path("algorithms"), problem);
    }
    if has_secret && !accepts_secret {
        let problem = format!("is not used, because {at}.algorithms does not have \"HS256\"");
        read.warn(&path("jwt_secret"), problem);
    }
}

/// Refuses settings of an issuer that are safe only on a developer's machine.
fn refuse_unsafe_settings(read: &mut Reader<'_>, issuer: &TokenIssuer) {
    let path = |key: &str| format!("{}.{key}", issuer.path);
    if let Some(secret) = &issuer.jwt_secret
        && let Some(weakness) = secret::weakness(secret.expose_secret())
    {
        let problem = format!("{weakness}; {}", secret::HOW_TO_MAKE);
        read.fault(&path("jwt_secret"), problem);
    }
    for (at, secret) in issuer.previous_jwt_secrets.iter().enumerate() {
        if let Some(weakness) = secret::weakness(secret.expose_secret()) {
            let problem = format!(
                "its secret number {} {weakness}, so it must not be accepted any more; remove it",
                at + 1
            );
            read.fault(&path("previous_jwt_secrets"), problem);
        }
    }
    let fetches = !read.layers.is_empty(&path("jwks_url")) || read.flag(&path("discovery"));
    if fetches {
        for (key, value, claim) in [
            ("issuer", &issuer.issuer, "iss"),
            ("audience", &issuer.audience, "aud"),
        ] {
            if value.is_none() {
                let problem = format!(
                    "is not set; an identity provider signs tokens for many programs with the same \
                     keys, so in production give the value of \"{claim}\" that your tokens have"
                );
                read.fault(&path(key), problem);
            }
        }
    }
}

/// The longest prefix of subjects. User ids have at most 128 characters.
const MAX_PREFIX_BYTES: usize = 32;

/// Reads the prefix of a further issuer's subjects.
fn subject_prefix(read: &mut Reader<'_>, at: &str) -> String {
    let path = format!("{at}.subject_prefix");
    let prefix = read.text(&path);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._~@:+|-".contains(&byte);
    if prefix.is_empty() {
        let problem = "is not set; user 42 of this issuer needs another user id than user 42 of \
                       [auth], so give a prefix such as \"partner|\"";
        read.fault(&path, problem);
    } else if !prefix.bytes().all(legal) || prefix.len() > MAX_PREFIX_BYTES {
        let problem = format!(
            "is {prefix:?}; give at most {MAX_PREFIX_BYTES} of A-Z a-z 0-9 . _ ~ @ : + - |"
        );
        read.fault(&path, problem);
    } else if prefix.ends_with(|last: char| last.is_ascii_alphanumeric()) {
        let problem = format!(
            "is {prefix:?}, and users of [auth] whose ids begin with it are refused; end it with a \
             separator, such as \"{prefix}|\""
        );
        read.warn(&path, problem);
    }
    prefix
}

/// Checks that a token belongs to one issuer at most, and that no two issuers can give different
/// users the same user id.
fn expect_distinct(read: &mut Reader<'_>, auth: &Auth) {
    let issuers: Vec<_> = auth.issuers().collect();
    for (at, one) in issuers.iter().enumerate() {
        for earlier in &issuers[..at] {
            if one.issuer.is_some() && one.issuer == earlier.issuer {
                let problem = format!(
                    "is the issuer of {} too; give each issuer once",
                    earlier.path
                );
                read.fault(&format!("{}.issuer", one.path), problem);
            }
            let (prefix, other) = (&one.subject_prefix, &earlier.subject_prefix);
            let overlap = prefix.starts_with(other.as_str()) || other.starts_with(prefix.as_str());
            if !prefix.is_empty() && !other.is_empty() && overlap {
                let problem = format!(
                    "is {prefix:?}, and that of {} is {other:?}: one begins with the other, so two \
                     users could get the same user id",
                    earlier.path
                );
                read.fault(&format!("{}.subject_prefix", one.path), problem);
            }
        }
    }
}
