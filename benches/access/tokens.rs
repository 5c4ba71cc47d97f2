//! The time to verify a token, and the part of it that the signature takes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cameo::auth::{FixedKeys, Verifier};
use cameo::config;
use cameo_testing::tokens::{Signer, der, text};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::json;

use crate::median;

const SECRET: &str = "a secret of the benchmark's own, 32 bytes";
/// How long one sample takes.
const SAMPLE: Duration = Duration::from_millis(100);

/// One algorithm.
struct Case {
    name: &'static str,
    token: String,
    verifier: Verifier,
    algorithm: Algorithm,
    key: DecodingKey,
}

pub(crate) fn run(rounds: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let cases = cases();
    let mut figures: Vec<_> = cases.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for _ in 0..rounds {
        for (case, (whole, signature)) in cases.iter().zip(&mut figures) {
            whole.push(microseconds(|| {
                let verified = runtime.block_on(case.verifier.verify(&case.token));
                assert!(black_box(verified).is_ok());
            }));
            let (message, signed) = case.token.rsplit_once('.').unwrap();
            signature.push(microseconds(|| {
                let key = &case.key;
                let valid =
                    jsonwebtoken::crypto::verify(signed, message.as_bytes(), key, case.algorithm);
                assert!(black_box(valid).unwrap());
            }));
        }
    }
    println!("**verifying a token**, {} bytes\n", cases[0].token.len());
    println!("| | verified in | its signature alone |\n| --- | --- | --- |");
    for (case, (whole, signature)) in cases.iter().zip(figures) {
        let (whole, signature) = (median(whole), median(signature));
        println!("| {} | {whole:.1} µs | {signature:.1} µs |", case.name);
    }
    println!();
}

/// The time of one call, as the mean of the calls in one sample.
fn microseconds(mut call: impl FnMut()) -> f64 {
    let (begun, mut calls) = (Instant::now(), 0_u32);
    while begun.elapsed() < SAMPLE {
        call();
        calls += 1;
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}

/// A verifier with one key of each algorithm, and a token of an identity provider's usual size.
fn cases() -> [Case; 4] {
    let claims = json!({
        "iss": "https://login.example.com", "aud": ["avatars", "account"], "sub": "auth0|5f7c8ec7",
        "iat": 1_700_000_000, "exp": 4_000_000_000_u64, "azp": "web", "scope": "openid profile email",
        "realm_access": {"roles": ["offline_access", "default-roles-main", "avatar-admin"]},
        "email": "ada@example.com", "email_verified": true, "preferred_username": "ada",
    });
    let case = |name, signer: &Signer, algorithm, settings: &[(&str, String)], key| {
        let fixed = [
            ("CAMEO_AUTH__ALGORITHMS", name),
            ("CAMEO_AUTH__ISSUER", "https://login.example.com"),
            ("CAMEO_AUTH__AUDIENCE", "avatars"),
            ("CAMEO_AUTH__ROLE_CLAIMS", "realm_access.roles"),
        ];
        let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
        let variables = fixed.into_iter().chain(settings);
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let settings = config::load(None, variables).unwrap().auth.main;
        let keys = FixedKeys::of(&settings, None).unwrap();
        Case {
            name,
            token: signer.token(&claims),
            verifier: Verifier::new(&settings, keys),
            algorithm,
            key,
        }
    };
    let pem = |name: &str| der(&text(name));
    let file = |name: &str| {
        let root = env!("CARGO_MANIFEST_DIR");
        let path = format!("{root}/tests/fixtures/tokens/{name}.public.pem");
        [("CAMEO_AUTH__PUBLIC_KEY_FILE", path)]
    };
    [
        case(
            "HS256",
            &Signer::secret(SECRET),
            Algorithm::HS256,
            &[("CAMEO_AUTH__JWT_SECRET", SECRET.to_owned())],
            DecodingKey::from_secret(SECRET.as_bytes()),
        ),
        case(
            "RS256",
            &Signer::of("rsa"),
            Algorithm::RS256,
            &file("rsa"),
            DecodingKey::from_rsa_der(&pem("rsa.pkcs1.pem")),
        ),
        case(
            "ES256",
            &Signer::of("p256"),
            Algorithm::ES256,
            &file("p256"),
            // The last 65 bytes of the file are the point.
            DecodingKey::from_ec_der(&last(&pem("p256.public.pem"), 65)),
        ),
        case(
            "EdDSA",
            &Signer::of("ed25519"),
            Algorithm::EdDSA,
            &file("ed25519"),
            // The last 32 bytes of the file are the key.
            DecodingKey::from_ed_der(&last(&pem("ed25519.public.pem"), 32)),
        ),
    ]
}

fn last(bytes: &[u8], count: usize) -> Vec<u8> {
    bytes[bytes.len() - count..].to_vec()
}
