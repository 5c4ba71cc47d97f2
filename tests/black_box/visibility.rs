//! Who may see avatars: `delivery.access`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::Value;

use crate::support::{TestService, caused_by, comparable, photos, run_program, send};

const AVATAR: &str = "/api/v1/users/42/avatar";
const SIGNED_IN: (&str, &str) = ("CAMEO_DELIVERY__ACCESS", "signed_in");
const PRIVATE: (&str, &str) = ("CAMEO_DELIVERY__ACCESS", "private");
const PUBLIC: (&str, &str) = ("CAMEO_DELIVERY__ACCESS", "public");
const SECRET: (&str, &str) = ("CAMEO_DELIVERY__URL_SECRET", "signs the URLs of the tests");

fn picture() -> Vec<u8> {
    photos::png(300, 300)
}

async fn add_viewer(service: &TestService, viewer: &str) {
    let path = format!("{AVATAR}/viewers/{viewer}");
    let added = send(service.service().request(Method::PUT, &path)).await;
    assert_eq!(added.status, 204);
}

/// Every URL in an avatar's JSON.
fn urls(avatar: &Value) -> Vec<String> {
    let images = avatar["images"].as_array().unwrap().iter();
    let mut urls: Vec<_> = images.map(|image| image["url"].clone()).collect();
    urls.extend(avatar["variants"].as_object().unwrap().values().cloned());
    urls.push(avatar["avatar_url"].clone());
    urls.iter()
        .map(|url| url.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_private_avatar_is_seen_by_its_owner_operators_and_viewers() {
    let service = TestService::start_with(&[PRIVATE]).await;
    let uploaded = service.owner("42").upload("42", picture()).await;
    assert_eq!(uploaded.header("cache-control"), "private, no-cache");
    assert_eq!(uploaded.header("etag"), "");
    uploaded.ok();
    add_viewer(&service, "43").await;
    let callers = [
        (service.owner("42"), 200),
        (service.service(), 200),
        (service.admin(), 200),
        (service.owner("43"), 200),
        (service.owner("44"), 404),
        (service.anonymous(), 401),
    ];
    for (number, (caller, status)) in callers.iter().enumerate() {
        for accept in ["application/json", "image/webp"] {
            let answer = caller.get_with(AVATAR, "accept", accept).await;
            assert_eq!(answer.status, *status, "caller {number}: {accept}");
            if *status == 200 {
                assert_eq!(answer.header("cache-control"), "private, no-cache");
                assert_eq!(answer.header("access-control-allow-origin"), "");
                assert_eq!(answer.header("cross-origin-resource-policy"), "");
                let has_tag = !answer.header("etag").is_empty();
                assert_eq!(has_tag, accept == "image/webp");
            }
        }
    }
    // A viewer that is removed sees nothing any more.
    let path = format!("{AVATAR}/viewers/43");
    send(service.admin().request(Method::DELETE, &path)).await;
    assert_eq!(service.owner("43").avatar("42").await.status, 404);
}

#[tokio::test]
async fn with_signed_in_every_valid_token_sees_an_avatar_and_nobody_else_does() {
    let service = TestService::start_with(&[SIGNED_IN]).await;
    service.owner("42").upload("42", picture()).await.ok();
    for caller in [service.owner("44"), service.owner("42"), service.service()] {
        let avatar = caller.avatar("42").await.ok();
        for url in urls(&avatar) {
            assert_eq!(service.anonymous().get(&url).await.status, 200, "{url}");
        }
    }
    for user in ["42", "nobody", "me"] {
        let answer = service.anonymous().avatar(user).await;
        assert_eq!(
            answer.problem(),
            (401, "unauthenticated".to_owned()),
            "{user}"
        );
    }
}

#[tokio::test]
async fn a_denied_avatar_and_a_missing_one_cannot_be_told_apart() {
    // The sweep would call the catalog too.
    let sweep = ("CAMEO_LIFECYCLE__SWEEP_EVERY", "1h");
    let service = TestService::start_with(&[PRIVATE, sweep]).await;
    service.owner("42").upload("42", picture()).await.ok();
    add_viewer(&service, "43").await;
    let stranger = service.owner("44");
    for method in [Method::GET, Method::HEAD] {
        for accept in ["application/json", "image/webp", "*/*"] {
            for query in ["", "?size=medium", "?size=no-such-size", "?size=0"] {
                let at = |user: &str| format!("/api/v1/users/{user}/avatar{query}");
                let read = async |user| {
                    let request = stranger.request(method.clone(), &at(user));
                    caused_by(&service, request.header("accept", accept)).await
                };
                let (denied, missing) = (read("42").await, read("46").await);
                let place = format!("{method} {accept} {query}");
                assert_eq!(comparable(&denied.0), comparable(&missing.0), "{place}");
                assert_eq!(denied.0.status, 404, "{place}");
                assert_eq!(denied.1, missing.1, "{place}");
                let of_store = |name: &String| name.contains("\"store\"");
                assert!(
                    !denied.1.is_empty() && !denied.1.keys().any(of_store),
                    "{:?}",
                    denied.1
                );
            }
        }
        // Without a token neither the catalog nor the store is asked.
        for user in ["42", "46"] {
            let path = format!("/api/v1/users/{user}/avatar");
            let request = service.anonymous().request(method.clone(), &path);
            let (answer, calls) = caused_by(&service, request).await;
            assert_eq!((answer.status.as_u16(), calls), (401, BTreeMap::new()));
        }
    }
    let conditions = [
        ("if-none-match", "*"),
        ("if-match", "\"x\""),
        ("range", "bytes=0-9"),
    ];
    for (name, value) in conditions {
        let denied = stranger.get_with(AVATAR, name, value).await;
        let missing = stranger
            .get_with("/api/v1/users/46/avatar", name, value)
            .await;
        assert_eq!(comparable(&denied), comparable(&missing), "{name}");
    }
}

#[tokio::test]
async fn only_the_unchanged_signed_url_shows_a_private_image() {
    let service = TestService::start_with(&[PRIVATE, SECRET]).await;
    let avatar = service.owner("42").upload("42", picture()).await.ok();
    let anyone = service.anonymous();
    let all = urls(&avatar);
    assert!(all.len() > 10, "{all:?}");
    for url in &all {
        let image = anyone.get(url).await;
        assert_eq!(image.status, 200, "{url}");
        assert!(image.header("content-type").starts_with("image/"), "{url}");
        let cache = image.header("cache-control");
        let (_, age) = cache.split_once("private, max-age=").unwrap();
        assert!(age.parse::<u64>().unwrap() <= 900, "{cache}");
        assert_eq!(image.header("access-control-allow-origin"), "");
        let (path, query) = url.split_once('?').unwrap();
        assert!(path.contains("/files/private/avatars/"), "{url}");
        let (expires, signature) = query.split_once("&signature=").unwrap();
        let later: u64 = expires.strip_prefix("expires=").unwrap().parse().unwrap();
        for wrong in [
            path.to_owned(),
            format!("{path}?{expires}"),
            format!("{path}?signature={signature}"),
            format!("{path}?expires={}&signature={signature}", later + 1),
            format!("{path}?{expires}&{expires}&signature={signature}"),
            format!("{path}?{expires}&signature=A{}", &signature[1..]).replace("=AA", "=BA"),
            url.replace("medium", "small")
                .replace("/small.webp", "/large.webp"),
        ] {
            if wrong == *url {
                continue;
            }
            let refused = anyone.get(&wrong).await;
            assert_eq!(refused.problem(), (404, "not_found".to_owned()), "{wrong}");
        }
    }
    // A range of a private image works too.
    let range = anyone.get_with(&all[0], "range", "bytes=0-9").await;
    assert_eq!((range.status.as_u16(), range.body.len()), (206, 10));
}

#[tokio::test]
async fn a_signed_url_ends() {
    let ttl = ("CAMEO_DELIVERY__URL_TTL", "10s");
    let service = TestService::start_with(&[PRIVATE, ttl]).await;
    let avatar = service.owner("42").upload("42", picture()).await.ok();
    let url = avatar["avatar_url"].as_str().unwrap();
    let begun = std::time::Instant::now();
    let ended = loop {
        let answer = service.anonymous().get(url).await;
        if answer.status != 200 {
            break answer;
        }
        assert!(begun.elapsed().as_secs() < 30);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    assert_eq!(ended.problem(), (403, "forbidden".to_owned()));
    assert!(begun.elapsed().as_secs() >= 8, "{:?}", begun.elapsed());
}

/// The independent implementation: Python's `hmac`.
#[tokio::test]
async fn a_signature_is_what_other_programs_compute() {
    let service = TestService::start_with(&[PRIVATE, SECRET]).await;
    let avatar = service.owner("42").upload("42", picture()).await.ok();
    let url = avatar["avatar_url"].as_str().unwrap();
    let path = url.strip_prefix(service.url()).unwrap();
    let (text, signature) = path.split_once("&signature=").unwrap();
    let program = "import base64, hmac, sys; print(base64.urlsafe_b64encode(hmac.digest(\
                   sys.argv[1].encode(), sys.argv[2].encode(), 'sha256')).decode().rstrip('='))";
    let python = std::process::Command::new("python3")
        .args(["-c", program, SECRET.1, text])
        .output()
        .unwrap();
    assert!(python.status.success(), "{python:?}");
    assert_eq!(String::from_utf8(python.stdout).unwrap().trim(), signature);
}

/// Checks that nobody without a token or a signature reads an object, or a list of the objects, from
/// the service or from the bucket.
async fn expect_that_nothing_is_readable(service: &TestService) {
    let anyone = service.anonymous();
    let objects = service.objects().await;
    assert!(objects.len() > 20, "{objects:?}");
    for key in &objects {
        let secret = service.read_object(key).await;
        assert!(!secret.is_empty(), "{key}");
        let path = format!("/files/{key}");
        for path in [
            path.clone(),
            path.replacen("/p", "//p", 1),
            format!("{path}?expires=1&signature=A"),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let request = anyone.request(method.clone(), &path);
                let answer = send(request.header("range", "bytes=0-")).await;
                assert_eq!(answer.status, 404, "{method} {path}");
                assert_ne!(answer.body, secret, "{path}");
            }
        }
        if let Some(url) = service.backend().object_url(key) {
            expect_refusal(&url, &secret).await;
        }
    }
    if let Some(bucket) = service.backend().object_url("") {
        for query in [
            "",
            "?list-type=2",
            "?prefix=public/",
            "?versions",
            "?uploads",
            "?policy",
        ] {
            expect_refusal(&format!("{bucket}{query}"), b"").await;
        }
    }
}

/// Checks that a request to the bucket without credentials is refused.
async fn expect_refusal(url: &str, secret: &[u8]) {
    let http = reqwest::Client::new();
    for method in [Method::GET, Method::HEAD] {
        let answer = http.request(method.clone(), url).send().await.unwrap();
        let status = answer.status();
        assert!(status.is_client_error(), "{method} {url}: {status}");
        let body = answer.bytes().await.unwrap();
        let reveals = !secret.is_empty() && body == secret;
        assert!(!reveals, "{method} {url}");
        let text = String::from_utf8_lossy(&body).into_owned();
        // An error about an object may repeat its key. A list would name others.
        let lists = secret.is_empty() && text.contains("<Key>private/");
        assert!(!lists, "{url}: {text}");
    }
}

/// Two avatars, one with viewers and a lock.
async fn fill(service: &TestService) {
    service.owner("42").upload("42", picture()).await.ok();
    service.owner("43").upload("43", picture()).await.ok();
    add_viewer(service, "43").await;
    let lock = service
        .admin()
        .request(Method::PUT, &format!("{AVATAR}/lock"));
    let lock = lock.header("content-type", "application/json").body("{}");
    assert_eq!(send(lock).await.status, 200);
}

#[tokio::test]
async fn no_object_is_readable_without_a_signature() {
    let original = ("CAMEO_IMAGES__ORIGINAL", "private");
    for access in [SIGNED_IN, PRIVATE] {
        let service = TestService::start_with(&[access, original]).await;
        fill(&service).await;
        for key in service.objects().await {
            assert!(key.starts_with("private/"), "{key}");
        }
        expect_that_nothing_is_readable(&service).await;
    }
}

#[tokio::test]
async fn no_object_stays_readable_when_public_avatars_become_private() {
    for access in [SIGNED_IN, PRIVATE] {
        let service = TestService::start_with(&[PUBLIC]).await;
        fill(&service).await;
        let objects = service.objects().await;
        let public = objects.iter().find(|key| key.starts_with("public/"));
        let path = format!("/files/{}", public.unwrap());
        assert_eq!(service.anonymous().get(&path).await.status, 200);
        let service = service.restart_with(&[access, SECRET]).await;
        // Each object lies where it lay.
        assert_eq!(service.objects().await, objects);
        expect_that_nothing_is_readable(&service).await;
    }
}

/// Tests that need a server with bucket policies.
mod by_policy {
    use super::*;

    const POLICY: (&str, &str) = ("CAMEO_STORAGE__S3__PUBLIC_ACCESS", "policy");

    #[tokio::test]
    async fn the_policy_of_the_bucket_is_withdrawn_and_made_again() {
        let service = TestService::start_fleet(&[POLICY]).await;
        let avatar = service.owner("42").upload("42", picture()).await.ok();
        let url = avatar["avatar_url"].as_str().unwrap().to_owned();
        let status = async |url: &str| reqwest::get(url).await.unwrap().status().as_u16();
        assert_eq!(status(&url).await, 200);
        let service = service.restart_with(&[POLICY, PRIVATE, SECRET]).await;
        assert_ne!(status(&url).await, 200, "{url}");
        // The image still lies under public/. It is shown by a signed URL, and by nothing else.
        let seen = service.owner("42").avatar("42").await.ok();
        for signed in urls(&seen) {
            assert!(signed.contains("/files/public/avatars/"), "{signed}");
            assert_eq!(status(&signed).await, 200, "{signed}");
            let (path, _) = signed.split_once('?').unwrap();
            assert_eq!(status(path).await, 404, "{path}");
        }
        assert_eq!(service.owner("44").avatar("42").await.status, 404);
        let hidden = service.owner("43").upload("43", picture()).await.ok();
        let service = service.restart_with(&[POLICY, PUBLIC]).await;
        assert_eq!(status(&url).await, 200);
        // The image under private/ is shown by the service, because everybody may see avatars now.
        let shown = service.anonymous().avatar("43").await.ok();
        assert_eq!(shown["avatar_id"], hidden["avatar_id"]);
        for url in urls(&shown) {
            assert!(
                url.contains("/files/private/avatars/") && !url.contains('?'),
                "{url}"
            );
            assert_eq!(status(&url).await, 200, "{url}");
        }
        let manifest = format!(
            "/files/private/avatars/{}/manifest.json",
            hidden["avatar_id"].as_str().unwrap()
        );
        assert_eq!(service.anonymous().get(&manifest).await.status, 404);
    }

    #[tokio::test]
    async fn no_object_of_a_public_bucket_stays_readable_when_avatars_become_private() {
        for access in [SIGNED_IN, PRIVATE] {
            let service = TestService::start_fleet(&[POLICY, PUBLIC]).await;
            fill(&service).await;
            let objects = service.objects().await;
            for key in &objects {
                let url = service.backend().object_url(key).unwrap();
                let answer = reqwest::get(&url).await.unwrap();
                let is_public = key.starts_with("public/");
                assert_eq!(answer.status().is_success(), is_public, "{url}");
            }
            let service = service.restart_with(&[POLICY, access, SECRET]).await;
            assert_eq!(service.objects().await, objects);
            expect_that_nothing_is_readable(&service).await;
        }
    }
}

#[tokio::test]
async fn reprocess_moves_images_to_where_the_setting_puts_them() {
    const SOON: [(&str, &str); 2] = [
        ("CAMEO_LIFECYCLE__RETIRE_AFTER", "0s"),
        ("CAMEO_LIFECYCLE__SWEEP_EVERY", "100ms"),
    ];
    let mut service = TestService::start_fleet(&[PUBLIC]).await;
    fill(&service).await;
    let before = service.service().avatar("42").await.ok();
    for (access, place) in [(PRIVATE, "private/"), (PUBLIC, "public/")] {
        let settings = [access, SECRET, SOON[0], SOON[1]];
        service = service.restart_with(&settings).await;
        let run = async |words: &[&str]| {
            let variables = settings.map(|(name, value)| (name, value.to_owned()));
            run_program(words, service.variables().into_iter().chain(variables)).await
        };
        let (code, said) = run(&["doctor"]).await;
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains("2 were uploaded under another delivery.access"),
            "{said}"
        );
        let (code, said) = run(&["reprocess", "--dry-run"]).await;
        assert_eq!(
            (code, said.contains("2 would be moved")),
            (0, true),
            "{said}"
        );
        // The service runs meanwhile.
        let (code, said) = run(&["reprocess"]).await;
        assert_eq!((code, said.contains("2 were moved")), (0, true), "{said}");
        let (_, said) = run(&["doctor"]).await;
        assert!(!said.contains("another delivery.access"), "{said}");
        let moved = service.service().avatar("42").await.ok();
        assert_ne!(moved["avatar_id"], before["avatar_id"]);
        assert_eq!(moved["metadata"], before["metadata"]);
        for url in urls(&moved) {
            assert!(url.contains(&format!("/{place}avatars/")), "{url}");
            let image = reqwest::get(&url).await.unwrap();
            assert_eq!(image.status(), 200, "{url}");
        }
        // The sweep removes the old images. Viewers and lock stay.
        let begun = std::time::Instant::now();
        loop {
            let objects = service.objects().await;
            let is_moved = |key: &String| {
                key.starts_with(place) || key.contains("/subjects/") || key.contains("/manifest")
            };
            if objects.iter().all(is_moved) {
                break;
            }
            assert!(begun.elapsed().as_secs() < 30, "{objects:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let viewers = send(
            service
                .admin()
                .request(Method::GET, &format!("{AVATAR}/viewers")),
        );
        assert_eq!(viewers.await.ok()["viewers"], serde_json::json!(["43"]));
        let lock = send(
            service
                .admin()
                .request(Method::GET, &format!("{AVATAR}/lock")),
        )
        .await;
        assert_eq!(lock.status, 200);
    }
}

#[tokio::test]
async fn the_bucket_signs_urls_with_redirects() {
    let redirect = ("CAMEO_DELIVERY__MODE", "redirect");
    let service = TestService::start_fleet(&[PRIVATE, redirect]).await;
    let avatar = service.owner("42").upload("42", picture()).await.ok();
    for url in urls(&avatar) {
        assert!(url.contains("X-Amz-Signature="), "{url}");
        let image = reqwest::get(&url).await.unwrap();
        assert_eq!(image.status(), 200, "{url}");
        assert!(
            image.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("image/")
        );
        let (path, _) = url.split_once('?').unwrap();
        assert!(
            !reqwest::get(path).await.unwrap().status().is_success(),
            "{path}"
        );
    }
    let image = service
        .owner("42")
        .get_with(AVATAR, "accept", "image/webp")
        .await;
    assert_eq!(
        (image.status.as_u16(), image.header("cache-control")),
        (302, "private, no-cache")
    );
    let location = image.header("location");
    assert_eq!(
        reqwest::get(location).await.unwrap().status(),
        200,
        "{location}"
    );
}

#[tokio::test]
async fn a_damaged_record_tells_a_denied_caller_nothing() {
    let service = TestService::start_fleet(&[PRIVATE]).await;
    service.owner("42").upload("42", picture()).await.ok();
    service.backend().damage("42");
    let stranger = service.owner("44");
    let (denied, missing) = (stranger.avatar("42").await, stranger.avatar("46").await);
    assert_eq!(comparable(&denied), comparable(&missing));
    assert_eq!(service.owner("42").avatar("42").await.status, 500);
}
