//! The permissions of callers.

use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Client, TestService, form, send, shape};

const AVATAR: &str = "/api/v1/users/42/avatar";

#[tokio::test]
async fn only_owner_service_and_admin_may_change_an_avatar() {
    let service = TestService::start().await;
    let picture = photos::png(100, 100);
    for client in [service.owner("42"), service.service(), service.admin()] {
        client.upload("42", picture.clone()).await.ok();
        client.delete("42").await.ok();
    }
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let before = service.anonymous().avatar("42").await;
    let stranger = service.owner("43");
    assert_eq!(
        stranger.upload("42", picture.clone()).await.problem(),
        (403, "forbidden".into())
    );
    assert_eq!(
        stranger.delete("42").await.problem(),
        (403, "forbidden".into())
    );
    let anonymous = service.anonymous();
    let refused = anonymous.upload("42", picture).await;
    assert_eq!(refused.problem(), (401, "unauthenticated".into()));
    insta::assert_snapshot!(shape(&anonymous.delete("42").await, service.url()));
    assert_eq!(
        service.anonymous().avatar("42").await.body,
        before.body,
        "nothing changed"
    );
}

#[tokio::test]
async fn me_is_the_subject_of_the_token() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    assert_eq!(owner.upload("me", PORTRAIT).await.ok()["user_id"], "42");
    let read = owner.avatar("me").await;
    assert_eq!(read.header("cache-control"), "private, no-cache");
    assert_eq!(read.ok()["user_id"], "42");
    assert_eq!(service.anonymous().avatar("me").await.problem().0, 401);
    owner.delete("me").await.ok();
    assert_eq!(owner.avatar("me").await.problem().0, 404);
}

#[tokio::test]
async fn me_is_not_a_valid_user_id() {
    let service = TestService::start().await;
    // A token whose subject is `me` has no avatar.
    let client = service.owner("me");
    let refused = client.upload("me", photos::png(100, 100)).await;
    assert_eq!(refused.problem(), (400, "invalid_user_id".into()));
    assert_eq!(client.avatar("me").await.problem().0, 400);
    assert_eq!(service.objects().await, [""; 0]);
}

#[tokio::test]
async fn user_ids_of_identity_providers_are_accepted() {
    let service = TestService::start().await;
    let id = "auth0|5f7c:a+b~c_d-e.f@g";
    let owner = service.owner(id);
    let escaped = "auth0%7C5f7c%3Aa%2Bb~c_d-e.f%40g";
    let picture = photos::png(100, 100);
    assert_eq!(
        owner.upload(escaped, picture.clone()).await.ok()["user_id"],
        id
    );
    assert_eq!(owner.upload("me", picture.clone()).await.ok()["version"], 2);
    assert_eq!(
        service.anonymous().avatar(escaped).await.ok()["user_id"],
        id
    );
    // Some clients do not percent-encode the id.
    let address = service.url().trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!("GET /api/v1/users/{id}/avatar HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    // A delete does not affect another user whose id is a prefix of this one.
    service
        .owner("auth0|5f7")
        .upload("auth0|5f7", picture)
        .await
        .ok();
    owner.delete("me").await.ok();
    assert_eq!(service.anonymous().avatar(escaped).await.problem().0, 404);
    service.anonymous().avatar("auth0%7C5f7").await.ok();
    for key in service.objects().await {
        assert!(!key.contains("auth0") && !key.contains('|'), "{key}");
    }
}

#[tokio::test]
async fn invalid_tokens_are_refused() {
    let service = TestService::start().await;
    let anonymous = service.anonymous();
    let with = |token: &str| Client::new(service.url(), Some(token.to_owned()));
    let good = service.token("42", &[]);
    let (body, signature) = good.rsplit_once('.').unwrap();
    let tampered = format!("{}!.{signature}", &body[..body.len() - 1]);
    let unsigned = format!("{body}.");
    for (token, failed) in [
        ("", None),
        ("nonsense", Some("the token is malformed")),
        ("a.b.c", Some("the token is malformed")),
        (&tampered, Some("the token is malformed")),
        (&unsigned, Some("the token's signature is not valid")),
    ] {
        let answer = with(token).upload("42", PORTRAIT).await;
        assert_eq!(answer.problem(), (401, "unauthenticated".into()), "{token}");
        // RFC 6750, section 3.1: the challenge names an error only if a token was sent.
        let challenge = match failed {
            None => "Bearer realm=\"cameo\"".to_owned(),
            Some(failed) => format!(
                "Bearer realm=\"cameo\", error=\"invalid_token\", error_description=\"{failed}\""
            ),
        };
        assert_eq!(answer.header("www-authenticate"), challenge, "{token}");
    }
    let none = anonymous.upload("42", PORTRAIT).await;
    assert_eq!(none.header("www-authenticate"), "Bearer realm=\"cameo\"");
    // Anyone may read, also with an invalid token.
    service.owner("42").upload("42", PORTRAIT).await.ok();
    with("nonsense").avatar("42").await.ok();
    anonymous.avatar("42").await.ok();
}

#[tokio::test]
async fn an_expired_token_is_answered_token_expired() {
    let service = TestService::start().await;
    // This token is signed with the secret of the tests and expired in 2001.
    let claims = serde_json::json!({ "sub": "42", "exp": 1_000_000_000 });
    let key =
        jsonwebtoken::EncodingKey::from_secret(b"a secret that only the tests know, 32 bytes");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let answer = Client::new(service.url(), Some(token))
        .upload("42", PORTRAIT)
        .await;
    assert_eq!(answer.problem(), (401, "token_expired".into()));
    assert_eq!(
        answer.header("www-authenticate"),
        "Bearer realm=\"cameo\", error=\"invalid_token\", error_description=\"the token has expired\""
    );
}

/// A token with these claims, signed with the secret of the tests.
fn token(claims: &serde_json::Value) -> String {
    let key =
        jsonwebtoken::EncodingKey::from_secret(b"a secret that only the tests know, 32 bytes");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

#[tokio::test]
async fn a_token_without_the_scope_is_answered_with_the_missing_scope() {
    let service = TestService::start().await;
    let exp = 4_000_000_000_u64;
    let reading = serde_json::json!({ "sub": "42", "exp": exp, "scope": "avatars:read" });
    let client = Client::new(service.url(), Some(token(&reading)));
    let answer = client.upload("42", PORTRAIT).await;
    assert_eq!(answer.problem(), (403, "forbidden".into()));
    assert_eq!(
        answer.header("www-authenticate"),
        "Bearer realm=\"cameo\", error=\"insufficient_scope\", scope=\"avatars:write\""
    );
    // For another user the answer names no scope, because no scope would allow the upload.
    let stranger = service.owner("43").upload("42", PORTRAIT).await;
    assert_eq!(stranger.problem(), (403, "forbidden".into()));
    assert_eq!(stranger.header("www-authenticate"), "");
}

#[tokio::test]
async fn a_role_that_only_contains_the_word_admin_is_not_the_admin_role() {
    let service = TestService::start().await;
    for claim in [
        serde_json::json!({ "role": "Site admin" }),
        serde_json::json!({ "role": "site\u{a0}admin" }),
        serde_json::json!({ "roles": ["Site admin"] }),
        serde_json::json!({ "scope": "openid admin" }),
    ] {
        let mut claims = claim.clone();
        claims["sub"] = "43".into();
        claims["exp"] = 4_000_000_000_u64.into();
        let client = Client::new(service.url(), Some(token(&claims)));
        let answer = client.upload("42", PORTRAIT).await;
        assert_eq!(answer.problem(), (403, "forbidden".into()), "{claim}");
    }
}

#[tokio::test]
async fn invalid_user_ids_are_refused() {
    let service = TestService::start().await;
    for path in ["a%2fb", "a%20b", "%ff", "%00", &"x".repeat(129)] {
        let path = format!("/api/v1/users/{path}/avatar");
        let answer = service.anonymous().get(&path).await;
        assert_eq!(answer.problem(), (400, "invalid_user_id".into()), "{path}");
        let request = service
            .admin()
            .request(Method::POST, &path)
            .multipart(form(PORTRAIT));
        assert_eq!(
            send(request).await.problem(),
            (400, "invalid_user_id".into()),
            "{path}"
        );
    }
    assert_eq!(service.objects().await, [""; 0]);
}

#[tokio::test]
async fn cookie_writes_are_accepted_from_trusted_origins_only() {
    let origin = ("CAMEO_HTTP__TRUSTED_ORIGINS", "https://app.example.com");
    let service = TestService::start_with(&[origin]).await;
    let cookie = format!("theme=dark; access_token={}", service.token("42", &[]));
    let upload = || {
        let request = service.anonymous().request(Method::POST, AVATAR);
        request
            .header("cookie", &cookie)
            .multipart(form(photos::png(100, 100)))
    };
    let rejected = async |request: RequestBuilder| {
        assert_eq!(send(request).await.problem(), (403, "csrf_rejected".into()));
    };
    let not_text = || HeaderValue::from_bytes(b"https://app.example.com\xff").unwrap();
    rejected(upload().header("origin", not_text())).await;
    rejected(upload().header("sec-fetch-site", not_text())).await;
    rejected(upload().header("origin", "null")).await;
    rejected(upload().header("sec-fetch-site", "none")).await;
    rejected(upload().header("origin", "https://evil.example.com")).await;
    rejected(upload().header("origin", "https://app.example.com.evil.example.com")).await;
    rejected(upload().header("sec-fetch-site", "cross-site")).await;
    rejected(upload().header("sec-fetch-site", "same-site")).await;
    assert_eq!(service.objects().await, [""; 0]);

    // A browser always sends one of the two headers, so a request without them is not from a page.
    send(upload()).await.ok();
    send(upload().header("origin", "https://app.example.com"))
        .await
        .ok();
    send(upload().header("origin", service.url())).await.ok();
    send(upload().header("sec-fetch-site", "same-origin"))
        .await
        .ok();
    // Another site's page cannot set the Authorization header, so the origin does not matter.
    let stranger = service.owner("42").request(Method::POST, AVATAR);
    let stranger = stranger.header("origin", "https://evil.example.com");
    send(stranger.multipart(form(photos::png(100, 100))))
        .await
        .ok();
}

#[tokio::test]
async fn cors_allows_trusted_origins() {
    let origin = ("CAMEO_HTTP__TRUSTED_ORIGINS", "https://app.example.com");
    let service = TestService::start_with(&[origin]).await;
    let preflight = |origin: &str| {
        let request = service
            .anonymous()
            .request(Method::OPTIONS, AVATAR)
            .header("origin", origin);
        let request = request.header("access-control-request-method", "PUT");
        request.header("access-control-request-headers", "authorization")
    };
    let allowed = preflight("https://app.example.com").send().await.unwrap();
    assert_eq!(
        allowed.headers()["access-control-allow-origin"],
        "https://app.example.com"
    );
    assert_eq!(
        allowed.headers()["access-control-allow-credentials"],
        "true"
    );
    assert!(allowed.headers().contains_key("x-request-id"));
    let refused = preflight("https://evil.example.com").send().await.unwrap();
    assert!(
        !refused
            .headers()
            .contains_key("access-control-allow-origin")
    );
}
