//! Who may see avatars: `delivery.access`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::Value;

use crate::support::{Answer, Client, TestService, photos, send};

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

/// Status, headers and body of an answer, without what differs between any two answers.
fn comparable(answer: &Answer) -> (u16, BTreeMap<String, String>, String) {
    let id = answer.header("x-request-id").to_owned();
    let body = String::from_utf8(answer.body.clone())
        .unwrap()
        .replace(&id, "ID");
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
    let headers = headers.map(|(name, value)| {
        let value = value.to_str().unwrap().replace(&id, "ID");
        (name.to_string(), value)
    });
    (answer.status.as_u16(), headers.collect(), body)
}

/// The number of calls of each operation of the catalog and the store.
async fn calls(service: &TestService) -> BTreeMap<String, u64> {
    let metrics = service.anonymous().get("/metrics").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    let lines = metrics.lines().filter_map(|line| {
        let (name, count) = line.rsplit_once(' ')?;
        let counts = name.starts_with("cameo_backend_operations_total{");
        // Tasks in the background do these by themselves.
        let by_tasks = ["\"claim\"", "\"check\""];
        let counts = counts && !by_tasks.iter().any(|task| name.contains(task));
        counts.then(|| (name.to_owned(), count.parse().unwrap()))
    });
    let found: BTreeMap<_, _> = lines.collect();
    assert!(!found.is_empty(), "{metrics}");
    found
}

/// The calls that one request causes.
async fn caused_by(
    service: &TestService,
    caller: &Client,
    method: &Method,
    path: &str,
    accept: &str,
) -> (Answer, BTreeMap<String, u64>) {
    let before = calls(service).await;
    let answer = send(
        caller
            .request(method.clone(), path)
            .header("accept", accept),
    )
    .await;
    let after = calls(service).await;
    let caused = after.into_iter().filter_map(|(name, count)| {
        let more = count - before.get(&name).copied().unwrap_or_default();
        (more > 0).then_some((name, more))
    });
    (answer, caused.collect())
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
                let denied = caused_by(&service, &stranger, &method, &at("42"), accept).await;
                let missing = caused_by(&service, &stranger, &method, &at("46"), accept).await;
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
            let anyone = service.anonymous();
            let (answer, calls) = caused_by(&service, &anyone, &method, &path, "*/*").await;
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

#[tokio::test]
async fn no_object_of_private_avatars_is_readable_without_a_signature() {
    let service = TestService::start_with(&[PRIVATE]).await;
    service.owner("42").upload("42", picture()).await.ok();
    service.owner("43").upload("43", picture()).await.ok();
    add_viewer(&service, "43").await;
    let objects = service.objects().await;
    assert!(objects.len() > 20, "{objects:?}");
    for key in &objects {
        assert!(key.starts_with("private/"), "{key}");
        let answer = service.anonymous().get(&format!("/files/{key}")).await;
        assert_eq!(answer.status, 404, "{key}");
        if let Some(url) = service.backend().object_url(key) {
            let answer = reqwest::get(&url).await.unwrap();
            assert!(!answer.status().is_success(), "{url}");
        }
    }
}

#[tokio::test]
async fn the_policy_of_the_bucket_is_withdrawn_and_made_again() {
    let policy = ("CAMEO_STORAGE__S3__PUBLIC_ACCESS", "policy");
    let service = TestService::start_fleet(&[policy]).await;
    let avatar = service.owner("42").upload("42", picture()).await.ok();
    let url = avatar["avatar_url"].as_str().unwrap().to_owned();
    let status = async |url: &str| reqwest::get(url).await.unwrap().status().as_u16();
    assert_eq!(status(&url).await, 200);
    let service = service.restart_with(&[policy, PRIVATE, SECRET]).await;
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
    let service = service.restart_with(&[policy, PUBLIC]).await;
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
