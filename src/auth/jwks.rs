//! Sets of public keys (RFC 7517, RFC 8037), and the address of a set in an `OpenID` Connect
//! configuration.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use super::keys::Key;
use crate::config::Algorithm;
use crate::outgoing;

/// The largest number of keys that are used.
const MAX_KEYS: usize = 64;

/// Why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAnswer {
    /// The answer is not a key set.
    #[error("the answer of {address} is not a key set: {problem}")]
    KeySet {
        /// The address of the set.
        address: String,
        /// The problem.
        problem: String,
    },
    /// The answer is not an `OpenID` Connect configuration.
    #[error("the answer of {address} is not an OpenID Connect configuration: {problem}")]
    Discovery {
        /// The address of the configuration.
        address: String,
        /// The problem.
        problem: String,
    },
}

/// The keys of a set.
pub(super) struct ParsedSet {
    /// The keys that can be used.
    pub(super) keys: Vec<Arc<Key>>,
    /// Each other key: its id or its place, and why it is not used.
    pub(super) skipped: Vec<String>,
}

/// Reads a key set. Keys that are not for verification or not for one of `algorithms` are skipped.
pub(super) fn parse(
    address: &str,
    body: &[u8],
    algorithms: &[Algorithm],
) -> Result<ParsedSet, InvalidAnswer> {
    let invalid = |problem: String| InvalidAnswer::KeySet {
        address: address.to_owned(),
        problem,
    };
    let set: Value = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    let members = set.get("keys").and_then(Value::as_array);
    let members = members.ok_or_else(|| invalid("it has no list \"keys\"".to_owned()))?;
    let (mut keys, mut skipped) = (Vec::new(), Vec::new());
    for (at, member) in members.iter().enumerate() {
        let read = match member.as_object() {
            _ if keys.len() == MAX_KEYS => Err(format!("the set has more than {MAX_KEYS} keys")),
            Some(members) => key(members, algorithms),
            None => Err("it is not an object".to_owned()),
        };
        match read {
            Ok(key) => keys.push(Arc::new(key)),
            Err(why) => {
                let id = member.get("kid").and_then(Value::as_str);
                let name = id.map_or_else(|| format!("number {}", at + 1), |id| format!("{id:?}"));
                skipped.push(format!("{name}: {why}"));
            }
        }
    }
    Ok(ParsedSet { keys, skipped })
}

/// Reads a key, or says why it is not used.
fn key(members: &Map<String, Value>, algorithms: &[Algorithm]) -> Result<Key, String> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let decoded = text(name).and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
        decoded.ok_or_else(|| format!("its member {name:?} is missing or is not base64url"))
    };
    if members.get("use").is_some_and(|purpose| purpose != "sig") {
        return Err("it is not for signatures".to_owned());
    }
    let verifies = |operations: &Value| match operations.as_array() {
        Some(list) => list.iter().any(|operation| operation == "verify"),
        None => false,
    };
    if members
        .get("key_ops")
        .is_some_and(|operations| !verifies(operations))
    {
        return Err("it is not for verification".to_owned());
    }
    // The set is public, so everybody could sign with such a key.
    if members.contains_key("d") || text("kty") == Some("oct") {
        return Err("it is a private key or a shared secret".to_owned());
    }
    let key = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => Key::from_rsa(&bytes("n")?, &bytes("e")?),
        (Some("EC"), Some("P-256")) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            Key::from_p256(&[&[4][..], &x, &y].concat())
        }
        (Some("OKP"), Some("Ed25519")) => Key::from_ed25519(&bytes("x")?),
        _ => return Err("its kind is not supported".to_owned()),
    };
    let key = key.map_err(|problem| format!("it is {problem}"))?;
    let algorithm = key.algorithm();
    if members
        .get("alg")
        .is_some_and(|named| named != algorithm.name())
    {
        return Err("its algorithm is not supported".to_owned());
    }
    if !algorithms.contains(&algorithm) {
        return Err(format!("{} is not accepted", algorithm.name()));
    }
    let id = match members.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err("its id is not a text".to_owned()),
    };
    Ok(key.with_id(id))
}

/// The address of an issuer's configuration (`OpenID` Connect Discovery 1.0, section 4).
pub(super) fn configuration_of(issuer: &str) -> String {
    let issuer = issuer.trim_end_matches('/');
    format!("{issuer}/.well-known/openid-configuration")
}

/// Reads the address of the key set from the configuration of an issuer.
///
/// The configuration must name the same issuer. The set may be on another host, as it is at Google,
/// but it must be protected by TLS if the issuer is.
pub(super) fn key_set_address(
    issuer: &str,
    address: &str,
    body: &[u8],
) -> Result<String, InvalidAnswer> {
    let invalid = |problem: String| InvalidAnswer::Discovery {
        address: address.to_owned(),
        problem,
    };
    let read: Value = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    let text = |name: &str| {
        let value = read.get(name).and_then(Value::as_str);
        value.ok_or_else(|| invalid(format!("it has no text {name:?}")))
    };
    let named = text("issuer")?;
    if named != issuer {
        let problem = format!("its issuer is {named:?}, and the configured one is {issuer:?}");
        return Err(invalid(problem));
    }
    let found = text("jwks_uri")?;
    let scheme_of = |address| outgoing::parse(address).and_then(|uri| uri.scheme().cloned());
    let has_tls = |scheme| scheme == http::uri::Scheme::HTTPS;
    match scheme_of(found) {
        None => Err(invalid(format!("its jwks_uri {found:?} is not an address"))),
        Some(scheme) if scheme_of(issuer).is_some_and(has_tls) && !has_tls(scheme.clone()) => {
            Err(invalid(format!("its jwks_uri {found:?} does not use TLS")))
        }
        Some(_) => Ok(found.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use cameo_testing::tokens::{public_key as fixture_key, text as fixture};
    use serde_json::json;

    use super::*;

    const ADDRESS: &str = "https://id.example.com/keys";

    fn parsed(keys: &[Value], algorithms: &[Algorithm]) -> ParsedSet {
        let body = json!({"keys": keys, "more": 1}).to_string();
        parse(ADDRESS, body.as_bytes(), algorithms).unwrap()
    }

    #[test]
    fn every_accepted_key_of_a_set_is_read_with_its_id() {
        let body = fixture("jwks.json");
        let of = |algorithms: &[Algorithm]| {
            let set = parse(ADDRESS, body.as_bytes(), algorithms).unwrap();
            let keys: Vec<_> = set
                .keys
                .iter()
                .map(|key| (key.id().unwrap().to_owned(), key.algorithm()))
                .collect();
            (keys, set.skipped.len())
        };
        let named = |name: &str, algorithm| (name.to_owned(), algorithm);
        let (keys, skipped) = of(&Algorithm::ALL);
        let expected = [
            named("rsa", Algorithm::Rs256),
            named("rsa.other", Algorithm::Rs256),
            named("p256", Algorithm::Es256),
            named("p256.other", Algorithm::Es256),
            named("ed25519", Algorithm::EdDsa),
            named("ed25519.other", Algorithm::EdDsa),
        ];
        assert_eq!((&keys[..], skipped), (&expected[..], 0));
        let (keys, skipped) = of(&[Algorithm::Es256]);
        assert_eq!((&keys[..], skipped), (&expected[2..4], 4));
    }

    #[test]
    fn a_key_that_cannot_be_used_is_skipped_and_the_others_are_used() {
        let good = fixture_key("p256");
        for (member, value, why) in [
            ("use", json!("enc"), "it is not for signatures"),
            ("use", json!(["sig"]), "it is not for signatures"),
            ("key_ops", json!(["sign"]), "it is not for verification"),
            ("key_ops", json!("verify"), "it is not for verification"),
            ("alg", json!("ES384"), "its algorithm is not supported"),
            ("alg", json!("HS256"), "its algorithm is not supported"),
            ("alg", json!("ECDH-ES"), "its algorithm is not supported"),
            ("alg", json!(7), "its algorithm is not supported"),
            ("d", json!("AAAA"), "it is a private key or a shared secret"),
            (
                "kty",
                json!("oct"),
                "it is a private key or a shared secret",
            ),
            (
                "kty",
                json!("RSA"),
                "its member \"n\" is missing or is not base64url",
            ),
            ("kty", json!(1), "its kind is not supported"),
            ("crv", json!("P-384"), "its kind is not supported"),
            (
                "x",
                json!("!"),
                "its member \"x\" is missing or is not base64url",
            ),
            (
                "x",
                json!("AAAA"),
                "it is a point that is not on the curve P-256",
            ),
            ("kid", json!(7), "its id is not a text"),
        ] {
            let mut bad = good.clone();
            bad[member] = value.clone();
            if member != "kid" {
                bad["kid"] = json!("bad");
            }
            let name = if member == "kid" {
                "number 1"
            } else {
                "\"bad\""
            };
            let set = parsed(&[bad, good.clone()], &Algorithm::ALL);
            assert_eq!(set.keys.len(), 1, "{member} = {value}");
            assert_eq!(set.keys[0].id(), Some("p256"));
            assert_eq!(set.skipped, [format!("{name}: {why}")]);
        }
        for plain in ["use", "key_ops", "alg", "kid"] {
            let mut key = good.clone();
            key.as_object_mut().unwrap().remove(plain);
            assert_eq!(parsed(&[key], &[Algorithm::Es256]).keys.len(), 1, "{plain}");
        }
        let mut verifies = good.clone();
        verifies["key_ops"] = json!(["sign", "verify"]);
        assert_eq!(parsed(&[verifies], &[Algorithm::Es256]).keys.len(), 1);
        let set = parsed(&[json!("text"), good], &Algorithm::ALL);
        assert_eq!(set.skipped, ["number 1: it is not an object"]);
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let good = fixture_key("ed25519");
        let set = parsed(&vec![good; 66], &Algorithm::ALL);
        assert_eq!((set.keys.len(), set.skipped.len()), (64, 2));
    }

    #[test]
    fn an_answer_that_is_no_key_set_is_refused_and_an_empty_set_is_not() {
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            "{\"keys\": {}}",
            "{\"keys\": null}",
            "null",
        ] {
            assert!(
                parse(ADDRESS, body.as_bytes(), &Algorithm::ALL).is_err(),
                "{body}"
            );
        }
        assert!(parsed(&[], &Algorithm::ALL).keys.is_empty());
    }

    #[test]
    fn a_configuration_must_name_the_configured_issuer_and_a_safe_address() {
        let issuer = "https://id.example.com/realm/";
        let address = configuration_of(issuer);
        assert_eq!(
            address,
            "https://id.example.com/realm/.well-known/openid-configuration"
        );
        let read = |body: Value| key_set_address(issuer, &address, body.to_string().as_bytes());
        let other_host = "https://keys.example.org/certs?v=1";
        let found = read(json!({"issuer": issuer, "jwks_uri": other_host}));
        assert_eq!(found.as_deref(), Ok(other_host));
        for body in [
            json!({"issuer": "https://id.example.com/realm", "jwks_uri": other_host}),
            json!({"issuer": "https://evil.example.com/", "jwks_uri": other_host}),
            json!({"issuer": [issuer], "jwks_uri": other_host}),
            json!({"jwks_uri": other_host}),
            json!({"issuer": issuer}),
            json!({"issuer": issuer, "jwks_uri": "/keys"}),
            json!({"issuer": issuer, "jwks_uri": "file:///etc/passwd"}),
            json!({"issuer": issuer, "jwks_uri": "http://id.example.com/keys"}),
            json!({"issuer": issuer, "jwks_uri": "https://user@id.example.com/keys"}),
            json!({"issuer": issuer, "jwks_uri": 7}),
            json!([]),
        ] {
            assert!(read(body.clone()).is_err(), "{body}");
        }
        let capitals = "HTTPS://id.example.com";
        let body = json!({"issuer": capitals, "jwks_uri": "http://id.example.com/keys"});
        assert!(key_set_address(capitals, "", body.to_string().as_bytes()).is_err());
        // An issuer on this machine may have no TLS.
        let local = "http://127.0.0.1:8000";
        let body = json!({"issuer": local, "jwks_uri": "http://127.0.0.1:8000/keys"});
        let found = key_set_address(local, "", body.to_string().as_bytes());
        assert_eq!(found.as_deref(), Ok("http://127.0.0.1:8000/keys"));
    }
}
