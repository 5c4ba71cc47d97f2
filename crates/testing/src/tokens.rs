//! Signs tokens with the keys in `tests/fixtures/tokens`, which `PyJWT` and OpenSSL made.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::fixture;

/// The text of a file in `tests/fixtures/tokens`. The `README.md` there describes each.
#[track_caller]
pub fn text(name: &str) -> String {
    String::from_utf8(fixture(&format!("tokens/{name}"))).unwrap()
}

/// A token of `PyJWT` with this algorithm. It expires in 2100; its subject is `42`, its role `service`.
pub fn foreign(algorithm: &str) -> String {
    let tokens: Value = serde_json::from_str(&text("tokens.json")).unwrap();
    tokens[algorithm].as_str().unwrap().to_owned()
}

/// The public key with this id, as a member of a key set.
pub fn public_key(id: &str) -> Value {
    let set: Value = serde_json::from_str(&text("jwks.json")).unwrap();
    let mut keys = set["keys"].as_array().unwrap().iter();
    keys.find(|key| key["kid"] == id).unwrap().clone()
}

/// A key set of the public keys with these ids.
pub fn key_set(ids: &[&str]) -> Value {
    let keys: Vec<_> = ids.iter().map(|id| public_key(id)).collect();
    json!({ "keys": keys })
}

/// The bytes of the one block of a PEM text.
pub fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    BASE64.decode(lines.collect::<String>().as_bytes()).unwrap()
}

/// The three parts of a token.
pub fn parts(token: &str) -> [&str; 3] {
    let parts: Vec<_> = token.split('.').collect();
    parts.try_into().unwrap()
}

/// The same token with one changed bit of its signature.
pub fn with_changed_signature(token: &str) -> String {
    let [header, payload, signature] = parts(token);
    let mut bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    bytes[10] ^= 1;
    format!("{header}.{payload}.{}", BASE64URL_NOPAD.encode(&bytes))
}

/// Signs tokens.
pub struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    /// Signs with a shared secret (HS256).
    pub fn secret(secret: impl AsRef<[u8]>) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            key: EncodingKey::from_secret(secret.as_ref()),
        }
    }

    /// Signs with the key of this name in the fixtures: `rsa`, `p256` or `ed25519`, or with
    /// `.other` behind it.
    pub fn of(name: &str) -> Self {
        let key = der(&text(&format!("{name}.key.pem")));
        let (algorithm, key) = match name.split('.').next() {
            Some("rsa") => (Algorithm::RS256, EncodingKey::from_rsa_der(&key)),
            Some("p256") => (Algorithm::ES256, EncodingKey::from_ec_der(&key)),
            _ => (Algorithm::EdDSA, EncodingKey::from_ed_der(&key)),
        };
        Self { algorithm, key }
    }

    /// A token with these claims and without a key id.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm, "typ": "JWT"});
        self.signed(&header.to_string(), &claims.to_string())
    }

    /// A token with these claims that names the key with this id.
    pub fn token_with_id(&self, id: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm, "kid": id});
        self.signed(&header.to_string(), &claims.to_string())
    }

    /// A token of these two texts, whatever they are.
    pub fn signed(&self, header: &str, payload: &str) -> String {
        let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let message = format!("{}.{}", encode(header), encode(payload));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm);
        format!("{message}.{}", signature.unwrap())
    }
}
