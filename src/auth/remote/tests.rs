//! Keys of a real server. The tests advance the clock.

use cameo_testing::identity::{IdentityProvider, KEYS, Reply};
use cameo_testing::tokens::{Signer, key_set, parts, text};
use data_encoding::BASE64URL_NOPAD;
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{advance, pause, resume};

use super::super::testing::settings;
use super::super::{TokenError, Verifier};
use super::*;
use crate::config::PemFile;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

/// Settings that take the keys from this place.
fn issuer_at(location: KeySetLocation) -> TokenIssuer {
    let mut settings = settings();
    settings.algorithms = ALGORITHMS.to_vec();
    settings.jwt_secret = None;
    settings.key_set = Some(KeySet {
        location,
        ca: None,
        refresh: Duration::from_mins(5),
        max_stale: Duration::from_hours(1),
    });
    settings
}

fn keys_at(location: KeySetLocation) -> Arc<RemoteKeys> {
    let issuer = issuer_at(location);
    RemoteKeys::of(&issuer, &Metrics::new()).unwrap().unwrap()
}

fn url(address: impl Into<String>) -> KeySetLocation {
    KeySetLocation::Url(address.into())
}

/// A provider, a verifier of its tokens, and the task that fetches its keys.
struct Setup {
    provider: IdentityProvider,
    verifier: Arc<Verifier>,
    keys: Arc<RemoteKeys>,
    _task: JoinSet<()>,
}

impl Setup {
    /// Starts a provider with these keys.
    async fn with_keys(ids: &[&str]) -> Self {
        let provider = IdentityProvider::start().await;
        provider.publish(ids);
        Self::on(provider)
    }

    fn on(provider: IdentityProvider) -> Self {
        let issuer = issuer_at(url(provider.at(KEYS)));
        let keys = RemoteKeys::of(&issuer, &Metrics::new()).unwrap().unwrap();
        let source = IssuerKeys {
            fixed: FixedKeys::default(),
            remote: Some(Arc::clone(&keys)),
        };
        let mut task = JoinSet::new();
        let running = Arc::clone(&keys);
        task.spawn(async move { running.run().await });
        Self {
            provider,
            verifier: Arc::new(Verifier::new(&issuer, source)),
            keys,
            _task: task,
        }
    }

    /// Verifies a token of this key that names it by its id.
    async fn verify(&self, key: &str) -> Result<(), TokenError> {
        self.verify_as(key, Some(key)).await
    }

    /// Verifies a token of a key that names a key by this id.
    async fn verify_as(&self, key: &str, id: Option<&str>) -> Result<(), TokenError> {
        let claims = json!({"sub": "42", "exp": 4_000_000_000_u64});
        let signer = Signer::of(key);
        let token = match id {
            Some(id) => signer.token_with_id(id, &claims),
            None => signer.token(&claims),
        };
        self.verifier.verify(&token).await.map(drop)
    }

    fn fetches(&self) -> usize {
        self.provider.requests(KEYS)
    }

    /// Waits until this many fetches have finished.
    async fn finished(&self, fetches: u64) {
        self.keys.finished(fetches).await;
        assert!(self.keys.state.borrow().finished >= fetches);
    }
}

/// Advances the clock. Nothing waits for the network meanwhile.
async fn pass(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

#[tokio::test]
async fn a_token_of_each_algorithm_is_verified_by_the_key_that_it_names() {
    let setup = Setup::with_keys(&["rsa", "p256", "ed25519", "p256.other"]).await;
    for key in ["rsa", "p256", "ed25519", "p256.other"] {
        assert_eq!(setup.verify(key).await, Ok(()), "{key}");
        // Without an id every key of the algorithm is tried.
        assert_eq!(setup.verify_as(key, None).await, Ok(()), "{key}");
    }
    let unknown = setup.verify_as("ed25519.other", None).await;
    assert_eq!(unknown, Err(TokenError::Signature));
    // The id of another key: only that key is tried.
    let confused = setup.verify_as("p256", Some("p256.other")).await;
    assert_eq!(confused, Err(TokenError::Signature));
    // The named key has another kind.
    let confused = setup.verify_as("p256", Some("rsa")).await;
    assert_eq!(confused, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn many_first_requests_wait_for_one_fetch() {
    let provider = IdentityProvider::start().await;
    let late = Duration::from_millis(300);
    let keys = Reply::Json(key_set(&["p256"]));
    provider.set(KEYS, Reply::Late(late, Box::new(keys)));
    let setup = Setup::on(provider);
    let verdicts = join_all((0..50).map(|_| setup.verify("p256"))).await;
    assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");
    assert_eq!(setup.fetches(), 1);
}

#[tokio::test]
async fn a_new_key_is_accepted_at_once_and_a_removed_one_is_refused_after_the_refresh() {
    let setup = Setup::with_keys(&["p256"]).await;
    assert_eq!(setup.verify("p256").await, Ok(()));
    setup.provider.publish(&["p256", "p256.other"]);
    assert_eq!(setup.verify("p256.other").await, Ok(()));
    assert_eq!(setup.fetches(), 2);
    setup.provider.publish(&["p256.other"]);
    // The set is younger than 5 min.
    assert_eq!(setup.verify("p256").await, Ok(()));
    pass(Duration::from_mins(5)).await;
    setup.finished(3).await;
    assert_eq!(setup.verify("p256").await, Err(TokenError::UnknownKey));
    assert_eq!(setup.verify("p256.other").await, Ok(()));
}

#[tokio::test]
async fn an_emptied_set_makes_every_token_invalid() {
    let setup = Setup::with_keys(&["p256"]).await;
    assert_eq!(setup.verify("p256").await, Ok(()));
    setup.provider.publish(&[]);
    pass(Duration::from_mins(5)).await;
    setup.finished(2).await;
    assert_eq!(setup.verify("p256").await, Err(TokenError::UnknownKey));
    assert_eq!(
        setup.verify_as("p256", None).await,
        Err(TokenError::UnknownKey)
    );
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_causes_one_fetch_in_10_s() {
    let setup = Setup::with_keys(&["p256"]).await;
    setup.finished(1).await;
    // No key is known, so nothing looks at the signature.
    let claims = json!({"sub": "42", "exp": 4_000_000_000_u64});
    let signed = Signer::of("p256").token(&claims);
    let [_, payload, signature] = parts(&signed);
    let flood = async || {
        let verify = async |number: u32| {
            let header = format!("{{\"alg\":\"ES256\",\"kid\":\"made up {number}\"}}");
            let header = BASE64URL_NOPAD.encode(header.as_bytes());
            let token = format!("{header}.{payload}.{signature}");
            setup.verifier.verify(&token).await.err()
        };
        let verdicts = join_all((0..1000).map(verify)).await;
        let unknown = Some(TokenError::UnknownKey);
        assert!(verdicts.iter().all(|verdict| *verdict == unknown));
    };
    flood().await;
    flood().await;
    assert_eq!(setup.fetches(), 2);
    pass(Duration::from_secs(5)).await;
    flood().await;
    assert_eq!(setup.fetches(), 2);
    pass(Duration::from_secs(5)).await;
    flood().await;
    assert_eq!(setup.fetches(), 3);
    // Known keys are not affected, and no token without an asymmetric algorithm causes a fetch.
    assert_eq!(setup.verify("p256").await, Ok(()));
    pass(Duration::from_secs(10)).await;
    let hmac =
        Signer::secret("any").token_with_id("x", &json!({"sub": "a", "exp": 4_000_000_000_u64}));
    assert_eq!(
        setup.verifier.verify(&hmac).await.err(),
        Some(TokenError::Algorithm)
    );
    assert_eq!(setup.fetches(), 3);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_the_fetch() {
    let setup = Setup::with_keys(&["p256"]).await;
    setup.finished(1).await;
    let late = Duration::from_millis(200);
    let keys = Reply::Json(key_set(&["p256.other"]));
    setup.provider.set(KEYS, Reply::Late(late, Box::new(keys)));
    let patient = setup.verify("p256.other");
    let impatient = timeout(Duration::from_millis(50), setup.verify("p256.other"));
    let (impatient, patient) = tokio::join!(impatient, patient);
    assert!(impatient.is_err());
    assert_eq!(patient, Ok(()));
    assert_eq!(setup.fetches(), 2);
}

#[tokio::test]
async fn stale_keys_are_used_for_a_bounded_time_and_fetching_recovers() {
    let setup = Setup::with_keys(&["p256"]).await;
    assert_eq!(setup.verify("p256").await, Ok(()));
    setup.provider.set(KEYS, Reply::Status(500));
    pass(Duration::from_mins(5)).await;
    setup.finished(2).await;
    assert_eq!(setup.verify("p256").await, Ok(()));
    // A token of another key is refused, because the provider said an hour ago that it has no such
    // key.
    assert_eq!(
        setup.verify("p256.other").await,
        Err(TokenError::UnknownKey)
    );
    pass(Duration::from_mins(54)).await;
    assert_eq!(setup.verify("p256").await, Ok(()));
    pass(Duration::from_mins(2)).await;
    assert_eq!(setup.verify("p256").await, Err(TokenError::KeysUnavailable));
    setup.provider.publish(&["p256"]);
    let failed = setup.keys.state.borrow().finished;
    // The task may be in a fetch that began before the provider recovered.
    for fetch in 1..=2 {
        pass(MAX_PAUSE).await;
        setup.finished(failed + fetch).await;
    }
    assert_eq!(setup.verify("p256").await, Ok(()));
}

#[tokio::test]
async fn before_the_first_set_tokens_are_answered_with_keys_unavailable_and_not_kept_waiting() {
    let provider = IdentityProvider::start().await;
    let setup = Setup::on(provider);
    assert_eq!(setup.verify("p256").await, Err(TokenError::KeysUnavailable));
    let fetches = setup.fetches();
    for _ in 0..20 {
        assert_eq!(setup.verify("p256").await, Err(TokenError::KeysUnavailable));
    }
    // The requests caused no fetch. The task may have repeated its own.
    assert!(setup.fetches() <= fetches + 1);
}

#[tokio::test]
async fn keys_without_an_id_verify_tokens_with_any_id() {
    let provider = IdentityProvider::start().await;
    let mut set = key_set(&["p256"]);
    set["keys"][0].as_object_mut().unwrap().remove("kid");
    provider.set(KEYS, Reply::Json(set));
    let setup = Setup::on(provider);
    assert_eq!(setup.verify_as("p256", Some("any")).await, Ok(()));
    assert_eq!(setup.verify_as("p256", None).await, Ok(()));
    let other = setup.verify_as("p256.other", Some("any")).await;
    assert_eq!(other, Err(TokenError::Signature));
}

#[tokio::test]
async fn a_set_that_lies_about_its_keys_verifies_nothing() {
    let provider = IdentityProvider::start().await;
    // The set names another key by the id of the token's key.
    let mut set = key_set(&["p256.other", "rsa"]);
    set["keys"][0]["kid"] = json!("p256");
    // The RSA key claims to be a shared secret.
    set["keys"][1]["alg"] = json!("HS256");
    provider.set(KEYS, Reply::Json(set));
    let setup = Setup::on(provider);
    assert_eq!(setup.verify("p256").await, Err(TokenError::Signature));
    assert_eq!(setup.verify("rsa").await, Err(TokenError::UnknownKey));
    let public = text("rsa.public.pem");
    let forged = Signer::secret(public)
        .token_with_id("rsa", &json!({"sub": "42", "exp": 4_000_000_000_u64}));
    let verdict = setup.verifier.verify(&forged).await.err();
    assert_eq!(verdict, Some(TokenError::Algorithm));
}

#[tokio::test]
async fn discovery_finds_the_keys_of_the_configured_issuer_only() {
    let provider = IdentityProvider::start().await;
    provider.publish(&["rsa", "p256"]);
    let discover = || KeySetLocation::Discovery(provider.url());
    let set = keys_at(discover()).fetch().await.unwrap();
    assert_eq!(set.to_string(), "1 for RS256, 1 for ES256");
    assert_eq!(set.address, provider.at(KEYS));
    let path = "/.well-known/openid-configuration";
    let lie = json!({"issuer": "http://127.0.0.1:1", "jwks_uri": provider.at(KEYS)});
    provider.set(path, Reply::Json(lie));
    let refused = keys_at(discover()).fetch().await.err().unwrap().to_string();
    assert!(refused.contains("its issuer is"), "{refused}");
}

/// The error of fetching the path `/a`.
async fn error_of(provider: &IdentityProvider) -> FetchError {
    let keys = keys_at(url(provider.at("/a")));
    match keys.fetch().await {
        Err(KeySetError::Fetch(error)) => error,
        other => panic!("{:?}", other.map(|set| set.to_string())),
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_origin_a_few_times() {
    let provider = IdentityProvider::start().await;
    provider.publish(&["p256"]);
    for target in [KEYS.to_owned(), provider.at(KEYS), "keys".to_owned()] {
        provider.set("/a", Reply::Redirect(target.clone()));
        let set = keys_at(url(provider.at("/a"))).fetch().await;
        assert_eq!(set.unwrap().to_string(), "1 for ES256", "{target}");
    }
    for (from, to) in [("/a", "/b"), ("/b", "/c"), ("/c", KEYS)] {
        provider.set(from, Reply::Redirect(to.to_owned()));
    }
    assert!(keys_at(url(provider.at("/a"))).fetch().await.is_ok());
    provider.set("/c", Reply::Redirect("/d".to_owned()));
    provider.set("/d", Reply::Redirect(KEYS.to_owned()));
    let error = error_of(&provider).await;
    assert!(
        matches!(error, FetchError::TooManyRedirects { .. }),
        "{error}"
    );
    // A loop ends too.
    provider.set("/b", Reply::Redirect("/a".to_owned()));
    let error = error_of(&provider).await;
    assert!(
        matches!(error, FetchError::TooManyRedirects { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn redirects_to_another_origin_are_not_followed() {
    let (provider, other) = tokio::join!(IdentityProvider::start(), IdentityProvider::start());
    other.publish(&["p256"]);
    let authority = other.url().replace("http:", "");
    let here = provider.url().replace("http:", "https:");
    for target in [other.at(KEYS), format!("{authority}{KEYS}"), here] {
        provider.set("/a", Reply::Redirect(target.clone()));
        let error = error_of(&provider).await;
        assert!(
            matches!(error, FetchError::ForeignRedirect { .. }),
            "{target}: {error}"
        );
    }
    assert_eq!(other.requests(KEYS), 0);
    for target in [
        "file:///etc/passwd",
        "http://user@127.0.0.1/",
        "http://",
        "//",
    ] {
        provider.set("/a", Reply::Redirect(target.to_owned()));
        let error = error_of(&provider).await;
        assert!(
            matches!(error, FetchError::BadRedirect { .. }),
            "{target}: {error}"
        );
    }
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time_and_must_be_200() {
    let provider = IdentityProvider::start().await;
    let mut padded = key_set(&["p256"]).to_string().into_bytes();
    padded.resize(256 << 10, b' ');
    provider.set("/a", Reply::Bytes(padded.clone()));
    assert!(keys_at(url(provider.at("/a"))).fetch().await.is_ok());
    padded.push(b' ');
    provider.set("/a", Reply::Bytes(padded));
    let error = error_of(&provider).await;
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
    for status in [204, 206, 304, 404, 500] {
        provider.set("/a", Reply::Status(status));
        let error = error_of(&provider).await;
        assert!(
            matches!(
                error,
                FetchError::Status { .. } | FetchError::BadRedirect { .. }
            ),
            "{error}"
        );
    }
    let never = Duration::from_hours(1);
    provider.set("/a", Reply::Late(never, Box::new(Reply::Status(200))));
    let begun = std::time::Instant::now();
    let error = error_of(&provider).await;
    assert!(matches!(error, FetchError::Timeout { .. }), "{error}");
    assert!(begun.elapsed() >= Duration::from_secs(5));
    provider.set("/a", Reply::Stalled(b"{\"keys\": [".to_vec()));
    let error = error_of(&provider).await;
    assert!(matches!(error, FetchError::Timeout { .. }), "{error}");
    // A body without an end is refused at the size limit, long before the time is over.
    provider.set("/a", Reply::Endless);
    let begun = std::time::Instant::now();
    let error = error_of(&provider).await;
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    for not_a_set in ["<html>", "{\"keys\": 1}"] {
        provider.set("/a", Reply::Bytes(not_a_set.into()));
        let fetched = keys_at(url(provider.at("/a"))).fetch().await;
        assert!(
            matches!(fetched, Err(KeySetError::Answer(_))),
            "{not_a_set}"
        );
    }
}

#[tokio::test]
async fn a_certificate_must_be_trusted_by_the_system_or_by_the_configured_file() {
    let provider = IdentityProvider::start_with_tls().await;
    provider.publish(&["p256"]);
    let mut issuer = issuer_at(KeySetLocation::Discovery(provider.url()));
    let fetch = async |issuer: &TokenIssuer| {
        let keys = RemoteKeys::of(issuer, &Metrics::new()).unwrap().unwrap();
        keys.fetch().await
    };
    let untrusted = fetch(&issuer).await.err().unwrap();
    let said = chain(&untrusted).to_string();
    assert!(
        said.contains("certificate") && said.contains("UnknownIssuer"),
        "{said}"
    );
    let ca = |text: String| {
        let path = "ca.pem".into();
        Some(PemFile { path, text })
    };
    issuer.key_set.as_mut().unwrap().ca = ca(text("tls.ca.pem"));
    let set = fetch(&issuer).await.unwrap();
    assert_eq!(set.to_string(), "1 for ES256");
    assert!(
        set.clock_skew_s.unwrap().abs() <= 5,
        "{:?}",
        set.clock_skew_s
    );
    // The address of the set must be protected too.
    let configuration = json!({"issuer": provider.url(), "jwks_uri": "http://127.0.0.1:1/keys"});
    provider.set(
        "/.well-known/openid-configuration",
        Reply::Json(configuration),
    );
    assert!(fetch(&issuer).await.is_err());
    for wrong in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        issuer.key_set.as_mut().unwrap().ca = ca(wrong.to_owned());
        let refused = RemoteKeys::of(&issuer, &Metrics::new()).err().unwrap();
        assert_eq!(refused.place, "auth.ca_file");
    }
}
