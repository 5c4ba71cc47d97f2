//! Links: the URLs under which images are seen, and their signatures.
//!
//! Where avatars are public, a link is the URL of a public object and has no signature. Otherwise a
//! link ends after a while: the bucket signs it, or this program does.
//!
//! A signed link of this program is `/files/KEY?expires=SECONDS&signature=TEXT` below the public URL.
//! The signature is the HMAC-SHA256 of the text `/files/KEY?expires=SECONDS`, in base64url without
//! padding. So it is bound to one object and one end.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use crate::avatar::{ObjectKey, Timestamp};
use crate::config::{ExposeSecret, SecretString};

/// The path under which this program delivers objects.
pub(crate) const FILES_ROOT: &str = "/files";

/// Signs and verifies links. `Debug` hides the secrets.
#[derive(Clone)]
pub(crate) struct LinkSigner {
    key: hmac::Key,
    previous: Vec<hmac::Key>,
}

impl std::fmt::Debug for LinkSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkSigner(…)")
    }
}

/// The result of [`LinkSigner::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// The signature is right, and the link works for this long.
    Valid(Duration),
    /// The signature is right, and the link has ended.
    Expired,
    /// The signature belongs to another object or end, or is wrong.
    Forged,
}

impl LinkSigner {
    /// Signs with `secret`, and also accepts signatures of the `previous` secrets.
    pub(crate) fn new(secret: &SecretString, previous: &[SecretString]) -> Self {
        let key = |secret: &SecretString| {
            hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes())
        };
        Self {
            key: key(secret),
            previous: previous.iter().map(key).collect(),
        }
    }

    /// The path and query of a link to an object that ends at `expires`.
    fn sign(&self, key: &ObjectKey, expires: Timestamp) -> String {
        let text = signed_text(key, expires.unix_ms() / 1000);
        let signature = BASE64URL_NOPAD.encode(hmac::sign(&self.key, text.as_bytes()).as_ref());
        format!("{text}&signature={signature}")
    }

    /// Checks the two parameters of a link to an object. The comparison takes the same time for every
    /// wrong signature.
    fn verify(&self, key: &ObjectKey, expires: &str, signature: &str, now: Timestamp) -> LinkState {
        let Ok(signature) = BASE64URL_NOPAD.decode(signature.as_bytes()) else {
            return LinkState::Forged;
        };
        // Only the digits that this program writes are accepted.
        let seconds = expires.parse::<u64>().ok();
        let Some(seconds) = seconds.filter(|seconds| seconds.to_string() == expires) else {
            return LinkState::Forged;
        };
        let text = signed_text(key, seconds);
        let mut keys = std::iter::once(&self.key).chain(&self.previous);
        if !keys.any(|key| hmac::verify(key, text.as_bytes(), &signature).is_ok()) {
            return LinkState::Forged;
        }
        let end = Timestamp::from_unix_ms(seconds.saturating_mul(1000));
        if end <= now {
            return LinkState::Expired;
        }
        LinkState::Valid(end.since(now))
    }
}

fn signed_text(key: &ObjectKey, expires: u64) -> String {
    format!("{FILES_ROOT}/{key}?expires={expires}")
}

/// Makes the links to images.
#[derive(Clone, Debug)]
pub(crate) struct LinkMaker {
    /// The start of every public object's URL, without a closing slash.
    pub(crate) objects_url: String,
    /// The public URL of this program, without a closing slash.
    pub(crate) public_url: String,
    pub(crate) kind: LinkKind,
}

/// How links are made.
#[derive(Clone, Debug)]
pub(crate) enum LinkKind {
    /// They need no signature: anyone may see every avatar.
    Open,
    /// This program signs them, for this long.
    Signed(Box<LinkSigner>, Duration),
}

impl LinkMaker {
    /// The link to an image at `now`.
    pub(crate) fn link_to(&self, key: &ObjectKey, now: Timestamp) -> String {
        let own = &self.public_url;
        match &self.kind {
            LinkKind::Open if super::lies_in_public(key) => format!("{}/{key}", self.objects_url),
            // The bucket does not show it to everybody, but this program does.
            LinkKind::Open => format!("{own}{FILES_ROOT}/{key}"),
            LinkKind::Signed(signer, ttl) => {
                format!("{own}{}", signer.sign(key, now.plus(*ttl)))
            }
        }
    }

    /// Checks the parameters of a link at `now`. Without a signature a link works only if anyone may
    /// see every avatar.
    pub(crate) fn check(
        &self,
        key: &ObjectKey,
        parameters: Option<(&str, &str)>,
        now: Timestamp,
    ) -> LinkState {
        match (&self.kind, parameters) {
            (LinkKind::Open, _) => LinkState::Valid(Duration::MAX),
            (LinkKind::Signed(..), None) => LinkState::Forged,
            (LinkKind::Signed(signer, _), Some((expires, signature))) => {
                signer.verify(key, expires, signature, now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avatar::{Audience, AvatarId, Format, VariantName};

    const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_500);
    const TTL: Duration = Duration::from_mins(15);

    fn key(number: u8, audience: Audience) -> ObjectKey {
        ObjectKey::Rendition {
            audience,
            avatar: AvatarId::from_bytes([number; 16]),
            variant: VariantName::new("medium").unwrap(),
            format: Format::Webp,
            animated: false,
        }
    }

    fn signed(secret: &str, previous: &[&str]) -> LinkMaker {
        let previous: Vec<_> = previous
            .iter()
            .map(|one| SecretString::from(*one))
            .collect();
        let signer = LinkSigner::new(&SecretString::from(secret), &previous);
        LinkMaker {
            objects_url: "https://cdn.example.com".to_owned(),
            public_url: "https://avatars.example.com".to_owned(),
            kind: LinkKind::Signed(Box::new(signer), TTL),
        }
    }

    /// The end and the signature of a link.
    fn parameters(link: &str) -> (&str, &str) {
        let (_, query) = link.split_once("?expires=").unwrap();
        query.split_once("&signature=").unwrap()
    }

    #[test]
    fn a_signature_is_the_hmac_of_path_and_end() {
        // python3 -c 'import hmac, base64; print(base64.urlsafe_b64encode(hmac.digest(b"the secret",
        //   b"/files/private/avatars/a4dqobyha4dqobyha4dqobyha4/medium.webp?expires=1800000900",
        //   "sha256")))'
        let link = signed("the secret", &[]).link_to(&key(7, Audience::Private), NOW);
        let (expires, signature) = parameters(&link);
        assert_eq!(expires, "1800000900");
        assert_eq!(signature, "qHPGbWug4Q9ngHAyE4Yf642ueepiy7urFJsUHuOD1fc");
        let base = "https://avatars.example.com/files/private/avatars/";
        assert!(link.starts_with(base), "{link}");
    }

    #[test]
    fn a_link_is_valid_for_its_object_until_its_end_and_for_nothing_else() {
        let links = signed("the secret", &[]);
        let object = key(7, Audience::Private);
        let link = links.link_to(&object, NOW);
        let (expires, signature) = parameters(&link);
        let check = |key: &ObjectKey, expires: &str, signature: &str, now| {
            links.check(key, Some((expires, signature)), now)
        };
        let LinkState::Valid(left) = check(&object, expires, signature, NOW) else {
            panic!("{link} is not valid")
        };
        assert!(
            left <= TTL && left + Duration::from_secs(1) > TTL,
            "{left:?}"
        );
        let end = Timestamp::from_unix_ms(1_800_000_900_000);
        let last = Timestamp::from_unix_ms(end.unix_ms() - 1);
        assert!(matches!(
            check(&object, expires, signature, last),
            LinkState::Valid(_)
        ));
        assert_eq!(check(&object, expires, signature, end), LinkState::Expired);
        for other in [key(8, Audience::Private), key(7, Audience::Public)] {
            assert_eq!(
                check(&other, expires, signature, NOW),
                LinkState::Forged,
                "{other}"
            );
        }
        let mut turned = signature.to_owned();
        let first = if turned.starts_with('A') { "B" } else { "A" };
        turned.replace_range(0..1, first);
        for (expires, signature) in [
            ("1800000901", signature),
            ("01800000900", signature),
            ("+1800000900", signature),
            ("", signature),
            (expires, ""),
            (expires, &turned),
            (expires, &signature[1..]),
            (expires, "no base64!"),
        ] {
            let state = check(&object, expires, signature, NOW);
            assert_eq!(state, LinkState::Forged, "{expires} {signature}");
        }
        assert_eq!(links.check(&object, None, NOW), LinkState::Forged);
    }

    #[test]
    fn a_previous_secret_is_accepted_and_another_one_is_not() {
        let object = key(7, Audience::Public);
        let link = signed("old", &[]).link_to(&object, NOW);
        let parameters = Some(parameters(&link));
        let state = |links: LinkMaker| links.check(&object, parameters, NOW);
        assert!(matches!(
            state(signed("new", &["older", "old"])),
            LinkState::Valid(_)
        ));
        assert_eq!(state(signed("new", &["older"])), LinkState::Forged);
        assert!(!format!("{:?}", signed("visible", &[])).contains("visible"));
    }

    #[test]
    fn a_public_link_has_no_signature() {
        let links = LinkMaker {
            kind: LinkKind::Open,
            ..signed("the secret", &[])
        };
        let public = links.link_to(&key(7, Audience::Public), NOW);
        assert!(
            public.starts_with("https://cdn.example.com/public/avatars/"),
            "{public}"
        );
        // An image that was uploaded while avatars were private.
        let private = links.link_to(&key(7, Audience::Private), NOW);
        let start = "https://avatars.example.com/files/private/avatars/";
        assert!(
            private.starts_with(start) && !private.contains('?'),
            "{private}"
        );
    }
}
