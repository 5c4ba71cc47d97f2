//! Tokens of identity providers.

use std::time::Duration;

use cameo_testing::identity::{IdentityProvider, KEYS, Reply};
use cameo_testing::tokens::{Signer, text};
use serde_json::{Value, json};

use crate::support::photos::PORTRAIT;
use crate::support::{Answer, Client, TestService, run_program};

/// The settings for a provider. Its keys are fetched every second and used for at most 3 s.
fn variables(provider: &IdentityProvider) -> Vec<(&'static str, String)> {
    let fixed = [
        ("CAMEO_AUTH__ALGORITHMS", "RS256,ES256,EdDSA"),
        ("CAMEO_AUTH__DISCOVERY", "true"),
        ("CAMEO_AUTH__AUDIENCE", "avatars"),
        ("CAMEO_AUTH__JWKS_REFRESH", "1s"),
        ("CAMEO_AUTH__JWKS_MAX_STALE", "3s"),
    ];
    let mut variables: Vec<_> = fixed.map(|(name, value)| (name, value.to_owned())).to_vec();
    variables.push(("CAMEO_AUTH__ISSUER", provider.url()));
    variables
}

async fn service_of(provider: &IdentityProvider) -> TestService {
    let variables = variables(provider);
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    TestService::start_with(&variables).await
}

fn claims(provider: &IdentityProvider, subject: &str) -> Value {
    json!({"iss": provider.url(), "aud": "avatars", "sub": subject, "exp": 4_000_000_000_u64})
}

/// The answer to a request that any valid token may make: 404, because there is no avatar.
async fn asked_with(service: &TestService, token: String) -> Answer {
    Client::new(service.url(), Some(token)).avatar("me").await
}

/// The status for a token of this key that names it.
async fn status(service: &TestService, provider: &IdentityProvider, key: &str) -> u16 {
    let token = Signer::of(key).token_with_id(key, &claims(provider, "42"));
    asked_with(service, token).await.status.as_u16()
}

/// Waits until the status for a token of this key is the expected one.
async fn expect_soon(service: &TestService, provider: &IdentityProvider, key: &str, expected: u16) {
    for _ in 0..400 {
        if status(service, provider, key).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{key} is not answered {expected}");
}

#[tokio::test]
async fn keys_of_a_provider_rotate_without_a_restart() {
    let provider = IdentityProvider::start().await;
    provider.publish(&["rsa", "ed25519"]);
    let service = service_of(&provider).await;
    let token = Signer::of("rsa").token_with_id("rsa", &claims(&provider, "42"));
    let owner = Client::new(service.url(), Some(token));
    let avatar = owner.upload("me", PORTRAIT).await.ok();
    assert_eq!(avatar["user_id"], "42");
    assert_eq!(status(&service, &provider, "ed25519").await, 200);
    assert_eq!(status(&service, &provider, "p256").await, 401);
    // The provider replaces one of its keys.
    provider.publish(&["ed25519", "p256"]);
    expect_soon(&service, &provider, "p256", 200).await;
    expect_soon(&service, &provider, "rsa", 401).await;
    let refused = owner.avatar("me").await;
    assert_eq!(refused.problem(), (401, "unauthenticated".into()));
    let challenge = "Bearer realm=\"cameo\", error=\"invalid_token\", \
                     error_description=\"the token's key is not known\"";
    assert_eq!(refused.header("www-authenticate"), challenge);
}

#[tokio::test]
async fn an_outage_of_the_provider_is_bridged_for_a_bounded_time() {
    let provider = IdentityProvider::start().await;
    provider.publish(&["p256"]);
    let service = service_of(&provider).await;
    assert_eq!(status(&service, &provider, "p256").await, 404);
    let before = provider.requests(KEYS);
    provider.set(KEYS, Reply::Status(503));
    while provider.requests(KEYS) == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status(&service, &provider, "p256").await, 404);
    expect_soon(&service, &provider, "p256", 503).await;
    let token = Signer::of("p256").token_with_id("p256", &claims(&provider, "42"));
    let refused = asked_with(&service, token).await;
    assert_eq!(refused.problem(), (503, "identity_unavailable".into()));
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(refused.header("www-authenticate"), "");
    // Requests that need no token are answered.
    let read = service.anonymous().avatar("42").await;
    assert_eq!(read.problem(), (404, "avatar_not_found".into()));
    provider.publish(&["p256"]);
    expect_soon(&service, &provider, "p256", 404).await;
}

#[tokio::test]
async fn a_service_starts_without_its_provider_and_recovers() {
    let provider = IdentityProvider::start().await;
    let service = service_of(&provider).await;
    assert_eq!(status(&service, &provider, "p256").await, 503);
    let ready = service.anonymous().get("/health/ready").await;
    assert_eq!(ready.status, 200);
    provider.publish(&["p256"]);
    expect_soon(&service, &provider, "p256", 404).await;
    let metrics = service.anonymous().get("/metrics").await.body;
    let metrics = String::from_utf8(metrics).unwrap();
    let issuer = provider.url();
    let value = |metric: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(metric));
        line.unwrap_or_else(|| panic!("{metric}: {metrics}"))
            .trim()
            .parse()
            .unwrap()
    };
    let fetches = |outcome| {
        value(&format!(
            "cameo_auth_key_fetches_total{{issuer=\"{issuer}\",outcome=\"{outcome}\"}}"
        ))
    };
    assert!(fetches("ok") >= 1.0 && fetches("error") >= 1.0);
    assert!(value(&format!("cameo_auth_keys{{issuer=\"{issuer}\"}}")) > 0.5);
    let at = format!("cameo_auth_keys_last_success_timestamp_seconds{{issuer=\"{issuer}\"}}");
    assert!(value(&at) > 1.7e9);
}

#[tokio::test]
async fn users_of_two_issuers_with_the_same_subject_are_two_users() {
    let provider = IdentityProvider::start().await;
    provider.publish(&["p256"]);
    let issuers = format!(
        "[{{ issuer = \"{0}\", discovery = true, algorithms = [\"ES256\"], audience = \"avatars\", \
         subject_prefix = \"partner|\" }}]",
        provider.url()
    );
    let service = TestService::start_with(&[("CAMEO_AUTH__ISSUERS", &issuers)]).await;
    let ours = service.owner("42").upload("me", PORTRAIT).await.ok();
    assert_eq!(ours["user_id"], "42");
    let mut of_partner = claims(&provider, "42");
    // No role of a further issuer counts unless it is configured.
    of_partner["roles"] = json!(["admin", "service"]);
    let token = Signer::of("p256").token_with_id("p256", &of_partner);
    let partner = Client::new(service.url(), Some(token));
    let theirs = partner.upload("me", PORTRAIT).await.ok();
    assert_eq!(theirs["user_id"], "partner|42");
    assert_eq!(
        partner.delete("42").await.problem(),
        (403, "forbidden".into())
    );
    // The main issuer cannot name the partner's users.
    let forged = service.owner("partner|42").avatar("me").await;
    assert_eq!(forged.problem(), (401, "unauthenticated".into()));
    // Its services may act for them.
    service.service().delete("partner%7C42").await.ok();
}

/// Runs a command with these settings. Returns its exit code and its output.
async fn cameo(words: &[&str], variables: &[(&'static str, String)]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let data = ("CAMEO_DATA_DIR", folder.path().display().to_string());
    run_program(words, variables.iter().cloned().chain([data])).await
}

#[tokio::test]
async fn doctor_fetches_the_keys_and_says_what_is_wrong_and_check_config_fetches_nothing() {
    let provider = IdentityProvider::start_with_tls().await;
    provider.publish(&["rsa", "p256"]);
    let mut settings = variables(&provider);
    let (code, said) = cameo(&["check-config"], &settings).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = cameo(&["doctor"], &settings).await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("wrong    auth: the keys cannot be fetched"),
        "{said}"
    );
    assert!(said.contains("UnknownIssuer"), "{said}");
    assert_eq!(provider.requests(KEYS), 0);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, text("tls.ca.pem")).unwrap();
    settings.push(("CAMEO_AUTH__CA_FILE", ca.display().to_string()));
    let (code, said) = cameo(&["doctor"], &settings).await;
    assert_eq!(code, 0, "{said}");
    let expected = format!(
        "good     auth: tokens of {0} are verified with 1 for RS256, 1 for ES256 from {0}{KEYS}",
        provider.url()
    );
    assert!(said.contains(&expected), "{said}");
    // A key that cannot be used is named.
    let mut set = cameo_testing::tokens::key_set(&["rsa", "p256"]);
    set["keys"][0]["use"] = json!("enc");
    provider.set(KEYS, Reply::Json(set));
    let (_, said) = cameo(&["doctor"], &settings).await;
    assert!(
        said.contains("warning  a key of the set is not used: \"rsa\""),
        "{said}"
    );
}

#[tokio::test]
async fn a_file_of_keys_is_checked_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.pem");
    let settings = [
        ("CAMEO_AUTH__ALGORITHMS", "ES256".to_owned()),
        ("CAMEO_AUTH__PUBLIC_KEY_FILE", file.display().to_string()),
        ("CAMEO_HTTP__BIND", "127.0.0.1:0".to_owned()),
    ];
    std::fs::write(&file, text("p256.key.pem")).unwrap();
    for command in ["check-config", "serve", "doctor"] {
        let (code, said) = cameo(&[command], &settings).await;
        assert_eq!(code, 2, "{command}: {said}");
        assert!(
            said.contains("block 1 is a private key"),
            "{command}: {said}"
        );
    }
    std::fs::write(&file, text("p256.certificate.pem")).unwrap();
    let (code, said) = cameo(&["check-config"], &settings).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = cameo(&["token", "--sub", "42"], &settings).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the identity provider issues them"), "{said}");
}
