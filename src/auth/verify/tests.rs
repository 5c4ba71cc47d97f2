use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use cameo_testing::tokens::{self, Signer};

use super::*;
use crate::auth::testing::{SECRET, settings};
use crate::auth::{Candidates, FixedKeys, Key, Role, issue};
use crate::config::{Auth, PemFile, SecretString};

fn verifier(settings: &TokenIssuer) -> Verifier {
    Verifier::new(settings, FixedKeys::of(settings, None).unwrap())
}

async fn verify(claims: Value) -> Result<Principal, TokenError> {
    let token = Signer::secret(SECRET).token(&claims);
    verifier(&settings()).verify(&token).await
}

fn in_seconds(seconds: i64) -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap() + seconds
}

#[tokio::test]
async fn an_issued_token_is_valid_and_carries_its_roles() {
    let mut main = settings();
    main.issuer = Some("cameo".to_owned());
    main.audience = Some("avatars".to_owned());
    // The roles are where the configuration expects them.
    main.claims.roles = vec!["realm_access.roles".to_owned()];
    main.claims.subject = "user.id".to_owned();
    let verifier = verifier(&main);
    let auth = Auth {
        cookie_name: "access_token".to_owned(),
        main,
        further: Vec::new(),
    };
    let (secret, roles) = (SecretString::from(SECRET), ["admin".to_owned()]);
    let token = issue(&auth, &secret, "42", &roles, Duration::from_mins(1)).unwrap();
    let principal = verifier.verify(&token).await.unwrap();
    assert_eq!(principal.subject.unwrap().as_str(), "42");
    assert_eq!(principal.role, Role::Admin);
}

#[tokio::test]
async fn times_are_checked_with_the_leeway_of_30_s() {
    for (claims, expected) in [
        (json!({"sub": "a", "exp": in_seconds(60)}), Ok(())),
        (json!({"sub": "a", "exp": in_seconds(-10)}), Ok(())),
        (
            json!({"sub": "a", "exp": in_seconds(-40)}),
            Err(TokenError::Expired),
        ),
        (json!({"sub": "a", "exp": 0}), Err(TokenError::Expired)),
        (json!({"sub": "a", "exp": -1.5}), Err(TokenError::Expired)),
        (json!({"sub": "a", "exp": 4_000_000_000.5}), Ok(())),
        (json!({"sub": "a", "exp": 1e300}), Ok(())),
        (
            json!({"sub": "a", "exp": "soon"}),
            Err(TokenError::Malformed),
        ),
        (json!({"sub": "a", "exp": null}), Err(TokenError::Malformed)),
        (json!({"sub": "a", "nbf": in_seconds(20)}), Ok(())),
        (
            json!({"sub": "a", "nbf": in_seconds(40)}),
            Err(TokenError::NotYetValid),
        ),
        (
            json!({"sub": "a", "nbf": "later"}),
            Err(TokenError::Malformed),
        ),
        // Only the expiry and `nbf` decide.
        (json!({"sub": "a", "iat": in_seconds(400)}), Ok(())),
    ] {
        let mut given = claims.clone();
        if given.get("exp").is_none() {
            given["exp"] = in_seconds(60).into();
        }
        let verdict = verify(given).await.map(|_| ());
        assert_eq!(verdict, expected, "{claims}");
    }
    let endless = verify(json!({"sub": "a"})).await;
    assert_eq!(endless, Err(TokenError::NoExpiry));
}

#[tokio::test]
async fn forged_tokens_are_refused_with_the_check_that_failed() {
    let claims = json!({"sub": "a", "exp": in_seconds(60)});
    let verifier = verifier(&settings());
    let good = Signer::secret(SECRET).token(&claims);
    let [header, payload, signature] = tokens::parts(&good);
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let with_header = |text: &str| format!("{}.{payload}.{signature}", encode(text));
    let with_payload = |text: &str| format!("{header}.{}.{signature}", encode(text));
    for (forged, expected) in [
        (
            Signer::secret("another secret").token(&claims),
            TokenError::Signature,
        ),
        (
            with_payload(r#"{"sub":"b","exp":4000000000}"#),
            TokenError::Signature,
        ),
        (format!("{header}.{payload}."), TokenError::Signature),
        (format!("{header}.{payload}.AAAA"), TokenError::Signature),
        (
            format!("{header}.{payload}.{signature}="),
            TokenError::Signature,
        ),
        (with_header(r#"{"alg":"HS512"}"#), TokenError::Algorithm),
        (with_header(r#"{"alg":"none"}"#), TokenError::Algorithm),
        (
            format!("{}.{payload}.", encode(r#"{"alg":"none"}"#)),
            TokenError::Algorithm,
        ),
        (with_header(r#"{"alg":"hs256"}"#), TokenError::Algorithm),
        (with_header(r#"{"alg":"RS256"}"#), TokenError::Algorithm),
        (with_header(r#"{"alg":["HS256"]}"#), TokenError::Malformed),
        (with_header(r#"{"typ":"JWT"}"#), TokenError::Malformed),
        (
            with_header(r#"{"alg":"HS256","kid":7}"#),
            TokenError::Malformed,
        ),
        (
            with_header(r#"{"alg":"none","alg":"HS256"}"#),
            TokenError::Malformed,
        ),
        (
            with_header(r#"{"alg":"HS256","crit":["b64"]}"#),
            TokenError::Extension,
        ),
        (
            with_header(r#"{"alg":"HS256","crit":[]}"#),
            TokenError::Extension,
        ),
        (
            with_payload(r#"{"sub":"a","sub":"b","exp":4000000000}"#),
            TokenError::Malformed,
        ),
        (with_payload("[]"), TokenError::Malformed),
        (format!("{good}.x"), TokenError::Malformed),
        ("x.y.z".to_owned(), TokenError::Malformed),
        ("x.y".to_owned(), TokenError::Malformed),
        (String::new(), TokenError::Malformed),
    ] {
        assert_eq!(verifier.verify(&forged).await, Err(expected), "{forged}");
    }
    assert!(verifier.verify(&good).await.is_ok());
}

#[tokio::test]
async fn repeated_claims_are_refused_even_if_they_are_signed() {
    let token = Signer::secret(SECRET).signed(
        r#"{"alg":"HS256"}"#,
        r#"{"sub":"a","exp":4000000000,"role":"user","role":"admin"}"#,
    );
    let verdict = verifier(&settings()).verify(&token).await;
    assert_eq!(verdict, Err(TokenError::Malformed));
}

#[tokio::test]
async fn oversized_tokens_and_subjects_are_refused() {
    let exp = in_seconds(60);
    let of_claims =
        |bytes: usize| verify(json!({"sub": "a", "exp": exp, "more": "x".repeat(bytes)}));
    assert!(of_claims(4 << 10).await.is_ok());
    assert_eq!(of_claims(8 << 10).await, Err(TokenError::TooLarge));
    let of_subject = |bytes: usize| verify(json!({"sub": "a".repeat(bytes), "exp": exp}));
    assert!(of_subject(255).await.is_ok());
    assert_eq!(of_subject(256).await, Err(TokenError::Subject));
    assert_eq!(of_subject(0).await, Err(TokenError::Subject));
}

#[tokio::test]
async fn a_configured_issuer_and_audience_are_required() {
    let mut settings = settings();
    settings.issuer = Some("us".to_owned());
    settings.audience = Some("avatars".to_owned());
    let verifier = verifier(&settings);
    for (mut claims, expected) in [
        (
            json!({"sub": "a", "iss": "us", "aud": ["other", "avatars"]}),
            Ok(()),
        ),
        (json!({"sub": "a", "iss": "us", "aud": "avatars"}), Ok(())),
        (json!({"sub": "a", "iss": "us"}), Err(TokenError::Audience)),
        (
            json!({"sub": "a", "iss": "us", "aud": "others"}),
            Err(TokenError::Audience),
        ),
        (
            json!({"sub": "a", "iss": "us", "aud": "avatars2"}),
            Err(TokenError::Audience),
        ),
        (
            json!({"sub": "a", "iss": "us", "aud": []}),
            Err(TokenError::Audience),
        ),
        (
            json!({"sub": "a", "iss": "us", "aud": {"avatars": 1}}),
            Err(TokenError::Audience),
        ),
        (
            json!({"sub": "a", "aud": "avatars"}),
            Err(TokenError::Issuer),
        ),
        (
            json!({"sub": "a", "iss": "them", "aud": "avatars"}),
            Err(TokenError::Issuer),
        ),
        (
            json!({"sub": "a", "iss": "us/", "aud": "avatars"}),
            Err(TokenError::Issuer),
        ),
        (
            json!({"sub": "a", "iss": ["us"], "aud": "avatars"}),
            Err(TokenError::Malformed),
        ),
        (
            json!({"iss": "us", "aud": "avatars"}),
            Err(TokenError::Subject),
        ),
    ] {
        claims["exp"] = in_seconds(60).into();
        let token = Signer::secret(SECRET).token(&claims);
        let verdict = verifier.verify(&token).await.map(|_| ());
        assert_eq!(verdict, expected, "{claims}");
    }
}

/// Settings that accept public keys of a fixture.
fn public(algorithms: &[Algorithm], pem: &str) -> TokenIssuer {
    let mut settings = settings();
    settings.algorithms = algorithms.to_vec();
    settings.jwt_secret = None;
    settings.public_keys = Some(PemFile {
        path: pem.into(),
        text: tokens::text(pem),
    });
    settings
}

#[tokio::test]
async fn tokens_of_another_implementation_are_verified_for_each_algorithm() {
    for (algorithm, pems) in [
        (
            Algorithm::Rs256,
            &["rsa.public.pem", "rsa.pkcs1.pem", "rsa.certificate.pem"][..],
        ),
        (
            Algorithm::Es256,
            &["p256.public.pem", "p256.certificate.pem"],
        ),
        (Algorithm::EdDsa, &["ed25519.public.pem"]),
    ] {
        let token = tokens::foreign(algorithm.name());
        for pem in pems {
            let verifier = verifier(&public(&[algorithm], pem));
            let principal = verifier.verify(&token).await.unwrap();
            assert_eq!(principal.name, "42", "{pem}");
            assert_eq!(principal.role, Role::Service, "{pem}");
            // The same token with one changed bit of its signature.
            let changed = tokens::with_changed_signature(&token);
            let verdict = verifier.verify(&changed).await;
            assert_eq!(verdict, Err(TokenError::Signature), "{pem}");
        }
    }
    let token = tokens::foreign("HS256");
    assert_eq!(
        verifier(&settings()).verify(&token).await.unwrap().name,
        "42"
    );
}

#[tokio::test]
async fn a_key_verifies_only_its_own_algorithm() {
    let all = Algorithm::ALL;
    let verifier = verifier(&public(&all, "rsa.public.pem"));
    let claims = json!({"sub": "a", "role": "admin", "exp": in_seconds(60)});
    // Known attack: the text of the public key as the shared secret.
    let pem = tokens::text("rsa.public.pem");
    let der = tokens::der(&pem);
    let point = tokens::der(&tokens::text("p256.public.pem"));
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), &der, &point, &[]] {
        let token = Signer::secret(secret).token(&claims);
        let verdict = verifier.verify(&token).await;
        assert_eq!(verdict, Err(TokenError::UnknownKey));
    }
    // Tokens of other keys.
    for (signer, expected) in [
        (Signer::of("p256"), TokenError::UnknownKey),
        (Signer::of("ed25519"), TokenError::UnknownKey),
        (Signer::of("rsa.other"), TokenError::Signature),
    ] {
        let verdict = verifier.verify(&signer.token(&claims)).await;
        assert_eq!(verdict, Err(expected));
    }
    let token = Signer::of("rsa").token(&claims);
    assert!(verifier.verify(&token).await.is_ok());
    // The same key, but the algorithm is not accepted.
    let settings = public(&[Algorithm::Rs256], "rsa.public.pem");
    let only_es = Verifier::new(
        &TokenIssuer {
            algorithms: vec![Algorithm::Es256],
            ..settings.clone()
        },
        FixedKeys::of(&settings, None).unwrap(),
    );
    assert_eq!(only_es.verify(&token).await, Err(TokenError::Algorithm));
}

/// A source that answers every question with one RSA key.
struct Confused(Arc<Key>);

#[async_trait]
impl KeySource for Confused {
    async fn keys(&self, _: Algorithm, _: Option<&str>) -> Candidates {
        Candidates {
            keys: vec![Arc::clone(&self.0)],
            is_incomplete: false,
        }
    }
}

#[tokio::test]
async fn a_key_of_another_algorithm_is_not_tried_even_if_a_source_names_it() {
    let pem = tokens::text("rsa.public.pem");
    let key = super::super::pem::keys(&pem).unwrap().remove(0);
    let mut settings = settings();
    settings.algorithms = Algorithm::ALL.to_vec();
    let verifier = Verifier::new(&settings, Confused(Arc::new(key)));
    let claims = json!({"sub": "a", "exp": in_seconds(60)});
    let rsa = Signer::of("rsa").token(&claims);
    assert!(verifier.verify(&rsa).await.is_ok());
    for secret in [pem.as_bytes(), &tokens::der(&pem)] {
        let forged = Signer::secret(secret).token(&claims);
        let verdict = verifier.verify(&forged).await;
        assert_eq!(verdict, Err(TokenError::Signature));
    }
}

#[tokio::test]
async fn several_keys_and_previous_secrets_are_valid_at_once() {
    let mut settings = settings();
    settings.previous_jwt_secrets = vec![SecretString::from("the secret of last year")];
    settings.algorithms = Algorithm::ALL.to_vec();
    let pems = ["rsa.public.pem", "p256.public.pem", "ed25519.public.pem"];
    settings.public_keys = Some(PemFile {
        path: "keys.pem".into(),
        text: pems.map(tokens::text).concat(),
    });
    let verifier = verifier(&settings);
    let claims = json!({"sub": "a", "exp": in_seconds(60)});
    for signer in [
        Signer::secret(SECRET),
        Signer::secret("the secret of last year"),
        Signer::of("rsa"),
        Signer::of("p256"),
        Signer::of("ed25519"),
    ] {
        // Fixed keys have no id, so the id of the token does not matter.
        for token in [signer.token(&claims), signer.token_with_id("any", &claims)] {
            assert!(verifier.verify(&token).await.is_ok(), "{token}");
        }
    }
    for signer in [
        Signer::secret("the secret of next year"),
        Signer::of("rsa.other"),
        Signer::of("p256.other"),
        Signer::of("ed25519.other"),
    ] {
        let verdict = verifier.verify(&signer.token(&claims)).await;
        assert_eq!(verdict, Err(TokenError::Signature));
    }
    // The key that verifies the signature decides, not the last one that is tried.
    let expired = json!({"sub": "a", "exp": in_seconds(-60)});
    let verdict = verifier
        .verify(&Signer::secret(SECRET).token(&expired))
        .await;
    assert_eq!(verdict, Err(TokenError::Expired));
}

/// The main issuer `us` and the further issuer `partner`, with a secret of its own.
fn two_issuers(main_issuer: Option<&str>) -> Verifier {
    let mut main = settings();
    main.issuer = main_issuer.map(str::to_owned);
    let mut partner = settings();
    partner.path = "auth.issuers[0]".to_owned();
    partner.jwt_secret = Some(SecretString::from("the secret of the partner"));
    partner.issuer = Some("partner".to_owned());
    partner.audience = Some("avatars".to_owned());
    partner.subject_prefix = "partner|".to_owned();
    partner.claims.admin_roles = Vec::new();
    partner.claims.service_roles = vec!["sync".to_owned()];
    let keys = |settings: &TokenIssuer| FixedKeys::of(settings, None).unwrap();
    let (of_main, of_partner) = (keys(&main), keys(&partner));
    Verifier::new(&main, of_main).and(&partner, of_partner)
}

#[tokio::test]
async fn each_issuer_has_its_own_keys_users_and_roles() {
    let verifier = two_issuers(Some("us"));
    let (ours, theirs) = (
        Signer::secret(SECRET),
        Signer::secret("the secret of the partner"),
    );
    let claims = |iss: &str, role: &str| json!({"sub": "42", "iss": iss, "aud": "avatars", "role": role, "exp": in_seconds(60)});
    let who = async |signer: &Signer, claims: Value| {
        let principal = verifier.verify(&signer.token(&claims)).await?;
        Ok((principal.name, principal.role))
    };
    let user = |name: &str, role| Ok((name.to_owned(), role));
    let ours_admin = who(&ours, claims("us", "admin")).await;
    assert_eq!(ours_admin, user("42", Role::Admin));
    // The roles of the main issuer mean nothing at the partner.
    for role in ["admin", "service"] {
        let found = who(&theirs, claims("partner", role)).await;
        assert_eq!(found, user("partner|42", Role::User));
    }
    let found = who(&theirs, claims("partner", "sync")).await;
    assert_eq!(found, user("partner|42", Role::Service));
    // The issuer that a token names chooses the keys, and no other keys are tried.
    let stolen = who(&theirs, claims("us", "admin")).await;
    assert_eq!(stolen, Err(TokenError::Signature));
    let stolen = who(&ours, claims("partner", "sync")).await;
    assert_eq!(stolen, Err(TokenError::Signature));
    let unknown = who(&theirs, claims("nobody", "admin")).await;
    assert_eq!(unknown, Err(TokenError::Issuer));
    let unnamed = json!({"sub": "42", "exp": in_seconds(60)});
    assert_eq!(who(&ours, unnamed).await, Err(TokenError::Issuer));
    // The audience of the partner holds for its tokens.
    let mut other = claims("partner", "sync");
    other["aud"] = json!("other");
    assert_eq!(who(&theirs, other).await, Err(TokenError::Audience));
}

#[tokio::test]
async fn the_main_issuer_cannot_name_the_users_of_a_further_one() {
    for main in [None, Some("us")] {
        let verifier = two_issuers(main);
        let claims = json!({"sub": "partner|42", "iss": "us", "exp": in_seconds(60)});
        let verdict = verifier
            .verify(&Signer::secret(SECRET).token(&claims))
            .await;
        assert_eq!(verdict, Err(TokenError::Subject));
    }
}

#[tokio::test]
async fn a_main_issuer_without_a_name_accepts_every_name_but_that_of_a_further_one() {
    let verifier = two_issuers(None);
    let ours = Signer::secret(SECRET);
    for iss in [json!("us"), json!("them"), json!(null)] {
        let mut claims = json!({"sub": "42", "exp": in_seconds(60)});
        if iss.is_string() {
            claims["iss"] = iss.clone();
        }
        assert!(verifier.verify(&ours.token(&claims)).await.is_ok(), "{iss}");
    }
    let claims = json!({"sub": "42", "iss": "partner", "exp": in_seconds(60)});
    let verdict = verifier.verify(&ours.token(&claims)).await;
    assert_eq!(verdict, Err(TokenError::Signature));
}
