//! `/avatars/{user_id}`: always an image, and images from memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Answer, Backend, Client, TestService, send, until_seen};

const SHOWN: &str = "/avatars/42";
const CACHED: &str = "public, max-age=300, stale-while-revalidate=60";
const SVG: &str = "image/svg+xml";
const PRIVATE: (&str, &str) = ("CAMEO_DELIVERY__ACCESS", "private");

async fn shown(client: &Client, query: &str, accept: &str) -> Answer {
    let answer = client
        .get_with(&format!("{SHOWN}{query}"), "accept", accept)
        .await;
    assert_eq!(answer.status, 200, "{query} {accept}");
    answer
}

#[tokio::test]
async fn an_avatar_is_shown_in_the_format_and_size_that_fit_best() {
    let service = TestService::start().await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    for (query, accept, kind, edge) in [
        ("", "*/*", "image/webp", 256),
        (
            "",
            "image/avif,image/webp,image/*,*/*;q=0.8",
            "image/webp",
            256,
        ),
        ("", "image/webp;q=0.4,image/jpeg;q=0.5", "image/jpeg", 256),
        // Neither is stored.
        ("", "image/png", "image/jpeg", 256),
        ("?format=png", "image/webp", "image/jpeg", 256),
        ("?format=jpeg", "image/webp", "image/jpeg", 256),
        // SVG concerns defaults only.
        ("?format=svg", "image/webp", "image/webp", 256),
        ("?size=small", "*/*", "image/webp", 128),
        ("?s=65", "*/*", "image/webp", 128),
        ("?size=1", "*/*", "image/webp", 64),
        ("?size=9999", "*/*", "image/webp", 496),
    ] {
        let answer = shown(&anyone, query, accept).await;
        assert_eq!(answer.header("content-type"), kind, "{query} {accept}");
        assert_eq!(photos::decoded(&answer.body).width(), edge, "{query}");
        assert_eq!(answer.header("cache-control"), CACHED);
        assert_eq!(answer.header("vary"), "Accept");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let tag = answer.header("etag").to_owned();
        let path = format!("{SHOWN}{query}");
        let request = anyone.request(Method::GET, &path).header("accept", accept);
        let known = send(request.header("if-none-match", tag)).await;
        assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
        assert_eq!(known.header("cache-control"), CACHED);
        assert_eq!(known.header("vary"), "Accept");
    }
    let part = anyone.get_with(SHOWN, "range", "bytes=0-9").await;
    assert_eq!((part.status.as_u16(), part.body.len()), (206, 10));
}

#[tokio::test]
async fn a_default_is_shown_where_there_is_no_avatar() {
    let service = TestService::start().await;
    let anyone = service.anonymous();
    for (query, accept, kind, edge) in [
        ("", "*/*", SVG, 0),
        (
            "",
            "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
            SVG,
            0,
        ),
        ("", "text/html", SVG, 0),
        ("?format=svg", "image/png", SVG, 0),
        ("", "image/png", "image/png", 256),
        ("", "image/webp, */*;q=0.1", "image/webp", 256),
        ("?format=jpeg&size=70", "*/*", "image/jpeg", 80),
        ("?format=png&s=9999", "*/*", "image/png", 1024),
        ("?format=webp&s=1", "*/*", "image/webp", 16),
        ("?format=png&size=small", "*/*", "image/png", 128),
    ] {
        let answer = shown(&anyone, query, accept).await;
        assert_eq!(answer.header("content-type"), kind, "{query} {accept}");
        assert_eq!(answer.header("cache-control"), CACHED);
        assert_eq!(answer.header("vary"), "Accept");
        if kind == SVG {
            assert!(answer.body.starts_with(b"<svg"), "{query} {accept}");
        } else {
            assert_eq!(photos::decoded(&answer.body).width(), edge, "{query}");
        }
        let path = format!("{SHOWN}{query}");
        let ask = |method| anyone.request(method, &path).header("accept", accept);
        let head = send(ask(Method::HEAD)).await;
        assert_eq!(head.header("content-length"), answer.body.len().to_string());
        assert_eq!(head.header("etag"), answer.header("etag"));
        let tag = answer.header("etag");
        let known = send(ask(Method::GET).header("if-none-match", tag)).await;
        assert_eq!(known.status, 304);
        let part = send(ask(Method::GET).header("range", "bytes=0-4")).await;
        assert_eq!(
            (part.status.as_u16(), part.body),
            (206, answer.body[..5].to_vec())
        );
    }
    let tag = async |query: &str| shown(&anyone, query, "*/*").await.header("etag").to_owned();
    let tags = [
        tag("").await,
        tag("?name=Ada").await,
        tag("?name=Bob").await,
        tag("?d=identicon").await,
        tag("?default=silhouette").await,
        tag("?format=png").await,
        tag("?format=png&size=16").await,
    ];
    for (at, one) in tags.iter().enumerate() {
        assert!(!tags[..at].contains(one), "{tags:?}");
    }
    let other = anyone.get("/avatars/43?d=identicon").await;
    assert_ne!(other.body, shown(&anyone, "?d=identicon", "*/*").await.body);
    let none = anyone.get("/avatars/42?d=404").await;
    assert_eq!(none.problem(), (404, "avatar_not_found".to_owned()));
    assert_eq!(none.header("cache-control"), CACHED);
    assert_eq!(none.header("vary"), "Accept");
}

#[tokio::test]
async fn the_setting_decides_which_default_is_shown() {
    let service = TestService::start_with(&[("CAMEO_DELIVERY__DEFAULT", "404")]).await;
    let anyone = service.anonymous();
    assert_eq!(anyone.get(SHOWN).await.status, 404);
    shown(&anyone, "?default=silhouette", "*/*").await;
}

#[tokio::test]
async fn the_whole_last_segment_is_the_user() {
    let service = TestService::start().await;
    let user = "jane.doe.png";
    service.owner(user).upload(user, PORTRAIT).await.ok();
    let anyone = service.anonymous();
    let answer = anyone.get("/avatars/jane.doe.png").await;
    assert_eq!(answer.header("content-type"), "image/webp");
    let other = anyone.get("/avatars/jane.doe").await;
    assert_eq!(other.header("content-type"), SVG);
    let me = service.owner(user).get("/avatars/me").await;
    assert_eq!(me.body, answer.body);
    assert_eq!(me.header("cache-control"), "private, no-cache");
    let nobody = anyone.get("/avatars/me").await;
    assert_eq!(
        (nobody.status.as_u16(), nobody.header("content-type")),
        (200, SVG)
    );
    assert_eq!(nobody.header("cache-control"), "private, no-cache");
}

#[tokio::test]
async fn parameters_that_make_no_sense_are_refused() {
    let service = TestService::start().await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    let long = format!("name={}", "x".repeat(65));
    for query in [
        "size=0",
        "size=-1",
        "size=1.5",
        "size=huge",
        "size=1&s=1",
        "format=gif",
        "default=retro",
        "d=identicon&default=identicon",
        &long,
    ] {
        for user in ["42", "43"] {
            let answer = anyone.get(&format!("/avatars/{user}?{query}")).await;
            let refused = (400, "malformed_request".to_owned());
            assert_eq!(answer.problem(), refused, "{query}");
        }
    }
    let answer = anyone.get("/avatars/a%20b").await;
    assert_eq!(answer.problem(), (400, "invalid_user_id".to_owned()));
}

/// Status, headers and body of an answer, without what differs between any two answers.
fn comparable(answer: &Answer) -> (u16, BTreeMap<String, String>, Vec<u8>) {
    let headers = answer.headers.iter();
    let headers = headers.filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
    let headers = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let body = match String::from_utf8(answer.body.clone()) {
        Ok(text) => text
            .replace(answer.header("x-request-id"), "ID")
            .into_bytes(),
        Err(image) => image.into_bytes(),
    };
    (answer.status.as_u16(), headers, body)
}

#[tokio::test]
async fn a_caller_who_may_not_see_an_avatar_is_answered_as_if_there_were_none() {
    let service = TestService::start_with(&[PRIVATE]).await;
    let forged = Client::new(service.url(), Some("not.a.token".to_owned()));
    let strangers = [service.anonymous(), forged, service.owner("44")];
    let queries = ["", "?format=png&size=64", "?default=404", "?name=Ada"];
    let mut before = Vec::new();
    for stranger in &strangers {
        for query in queries {
            let answer = stranger.get(&format!("{SHOWN}{query}")).await;
            assert_ne!(answer.status, 401);
            assert_eq!(answer.header("cache-control"), "private, no-cache");
            before.push(comparable(&answer));
        }
    }
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let mut after = Vec::new();
    for stranger in &strangers {
        for query in queries {
            after.push(comparable(&stranger.get(&format!("{SHOWN}{query}")).await));
        }
    }
    assert_eq!(before, after);
    for friend in [service.owner("42"), service.service(), service.admin()] {
        let answer = friend.get(SHOWN).await;
        assert_eq!(answer.header("content-type"), "image/webp");
        assert_eq!(answer.header("cache-control"), "private, no-cache");
    }
}

#[tokio::test]
async fn an_avatar_whose_object_is_lost_is_shown_as_a_default_and_counted() {
    let service = TestService::start().await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let id = avatar["avatar_id"].as_str().unwrap();
    service
        .remove_object(&format!("public/avatars/{id}/medium.webp"))
        .await;
    let anyone = service.anonymous();
    assert_eq!(shown(&anyone, "", "*/*").await.header("content-type"), SVG);
    assert_eq!(anyone.get("/avatars/42?d=404").await.status, 404);
    let metrics = anyone.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(
        metrics.contains("cameo_missing_objects_total 2\n"),
        "{metrics}"
    );
    // The other images exist.
    let small = shown(&anyone, "?size=small", "*/*").await;
    assert_eq!(small.header("content-type"), "image/webp");
}

#[tokio::test]
async fn an_avatar_is_redirected_to_and_a_default_is_not_if_that_is_configured() {
    for access in ["public", "private"] {
        let mode = ("CAMEO_DELIVERY__MODE", "redirect");
        let service = TestService::start_with(&[mode, ("CAMEO_DELIVERY__ACCESS", access)]).await;
        let owner = service.owner("42");
        owner.upload("42", PORTRAIT).await.ok();
        let answer = owner.get("/avatars/42?format=jpeg&size=small").await;
        assert_eq!(answer.status, 302);
        let kept = if access == "public" {
            CACHED
        } else {
            "private, no-cache"
        };
        assert_eq!(answer.header("cache-control"), kept);
        assert_eq!(answer.header("vary"), "Accept");
        let location = answer.header("location").to_owned();
        let image = reqwest::get(&location).await.unwrap();
        assert_eq!(image.status(), 200, "{location}");
        let image = image.bytes().await.unwrap();
        assert_eq!(photos::decoded(&image).width(), 128);
        let other = owner.get("/avatars/43").await;
        assert_eq!(other.header("content-type"), SVG);
    }
}

/// Uploads in a loop while others read, and compares what a read shows with the upload that was
/// answered before it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_never_shows_an_avatar_that_was_replaced_before_it_began() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let readers: Vec<_> = (0..4).map(|_| service.anonymous()).collect();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let noise = readers.iter().map(|reader| {
        let (reader, mut stopped) = (reader.clone(), stopped.clone());
        tokio::spawn(async move {
            while !*stopped.borrow_and_update() {
                reader.get(SHOWN).await;
                reader.avatar("42").await;
            }
        })
    });
    let noise: Vec<_> = noise.collect();
    for edge in (100..200).step_by(10) {
        let uploaded = owner.upload("42", photos::png(edge, edge)).await.ok();
        let id = uploaded["avatar_id"].as_str().unwrap();
        let seen = join_all(readers.iter().map(|reader| reader.avatar("42"))).await;
        for answer in seen {
            assert_eq!(answer.ok()["avatar_id"], id);
        }
        let shown = shown(&readers[0], "?size=1024", "*/*").await;
        assert_eq!(photos::decoded(&shown.body).width(), edge);
    }
    owner.delete("42").await.ok();
    assert_eq!(readers[0].avatar("42").await.status, 404);
    assert_eq!(readers[0].get(SHOWN).await.header("content-type"), SVG);
    stop.send(true).unwrap();
    for reader in noise {
        reader.await.unwrap();
    }
}

/// The value of a counter of the store or the catalog.
async fn operations(client: &Client, backend: &str, operation: &str) -> u64 {
    let metrics = client.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    let name = format!(
        "cameo_backend_operations_total{{backend=\"{backend}\",operation=\"{operation}\",outcome=\"ok\"}} "
    );
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn concurrent_cold_reads_cause_one_read_of_the_store_and_hot_reads_none() {
    let service = TestService::start().await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    let (gets, records) = (
        operations(&anyone, "store", "get").await,
        operations(&anyone, "catalog", "get").await,
    );
    for _ in 0..2 {
        let reads = join_all((0..30).map(|_| shown(&anyone, "", "*/*"))).await;
        assert!(reads.iter().all(|answer| answer.body == reads[0].body));
    }
    join_all((0..30).map(|_| anyone.avatar("42"))).await;
    assert_eq!(operations(&anyone, "store", "get").await, gets + 1);
    // The events may have been followed for the first time meanwhile, so the record may be read again.
    let read = operations(&anyone, "catalog", "get").await - records;
    assert!((1..=2).contains(&read), "{read} reads of the catalog");
}

#[tokio::test]
async fn a_replaced_avatar_is_soon_shown_by_every_replica() {
    let one = TestService::start_fleet(&[]).await;
    let other = one.replica(&[]).await;
    let anyone = other.anonymous();
    assert_eq!(shown(&anyone, "", "*/*").await.header("content-type"), SVG);
    for edge in [100, 120, 140] {
        one.owner("42")
            .upload("42", photos::png(edge, edge))
            .await
            .ok();
        until_seen(async || {
            let answer = shown(&anyone, "", "*/*").await;
            answer.header("content-type") == "image/webp"
                && photos::decoded(&answer.body).width() == edge
        })
        .await;
    }
    one.owner("42").delete("42").await.ok();
    until_seen(async || shown(&anyone, "", "*/*").await.header("content-type") == SVG).await;
}

#[tokio::test]
async fn while_redis_is_down_hot_avatars_are_shown_and_others_as_defaults() {
    let stale = ("CAMEO_DELIVERY__CACHE_MAX_STALE", "1s");
    let service = TestService::start_on(Backend::fleet().await, &[stale]).await;
    for user in ["42", "43"] {
        service.owner(user).upload(user, PORTRAIT).await.ok();
    }
    let anyone = service.anonymous();
    let hot = shown(&anyone, "", "*/*").await;
    let json = anyone.avatar("42").await.ok();
    service.backend().stop_redis();
    for pause in [0, 1500, 100] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let answer = shown(&anyone, "", "*/*").await;
        assert_eq!(answer.body, hot.body);
        assert_eq!(answer.header("cache-control"), CACHED);
        assert_eq!(anyone.avatar("42").await.ok(), json);
    }
    let cold = anyone.get("/avatars/43").await;
    assert_eq!(
        (cold.status.as_u16(), cold.header("content-type")),
        (200, SVG)
    );
    assert_eq!(cold.header("cache-control"), "no-store");
    let refused = anyone.avatar("43").await;
    assert_eq!(refused.problem(), (503, "catalog_unavailable".to_owned()));
    let refused = anyone.get("/avatars/43?d=404").await;
    assert_eq!(refused.problem(), (503, "catalog_unavailable".to_owned()));
    service.backend().start_redis();
    let begun = Instant::now();
    while anyone.get("/avatars/43").await.header("content-type") == SVG {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let replaced = service
        .owner("42")
        .upload("42", photos::png(100, 100))
        .await;
    assert_eq!(
        anyone.avatar("42").await.ok()["avatar_id"],
        replaced.ok()["avatar_id"]
    );
}

#[tokio::test]
async fn while_redis_is_down_a_private_avatar_is_shown_only_within_the_limit() {
    let stale = ("CAMEO_DELIVERY__CACHE_MAX_STALE", "1s");
    let service = TestService::start_on(Backend::fleet().await, &[stale, PRIVATE]).await;
    let owner = service.owner("42");
    owner.upload("42", PORTRAIT).await.ok();
    owner.avatar("42").await.ok();
    // From now on events are followed, so the entry stays up to date.
    tokio::time::sleep(Duration::from_secs(2)).await;
    owner.avatar("42").await.ok();
    service.backend().stop_redis();
    owner.avatar("42").await.ok();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let refused = owner.avatar("42").await;
    assert_eq!(refused.problem(), (503, "catalog_unavailable".to_owned()));
    let default = owner.get(SHOWN).await;
    assert_eq!(
        (default.status.as_u16(), default.header("content-type")),
        (200, SVG)
    );
    assert_eq!(default.header("cache-control"), "no-store");
}

#[tokio::test]
async fn while_the_bucket_is_down_hot_images_are_shown_and_others_as_defaults() {
    let service = TestService::start_on(Backend::fleet_with_faults().await, &[]).await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    let hot = shown(&anyone, "", "*/*").await;
    service.backend().fail();
    let answer = shown(&anyone, "", "*/*").await;
    assert_eq!(answer.body, hot.body);
    let cold = shown(&anyone, "?size=small", "*/*").await;
    assert_eq!(cold.header("content-type"), SVG);
    assert_eq!(cold.header("cache-control"), "no-store");
    service.backend().release();
}

/// A page of 1,000 users, of whom 300 have no avatar and 10 have lost their images. The 690 others
/// share 23 uploads' worth of work: 23 users are shown 30 times.
#[tokio::test]
async fn every_image_of_a_page_of_a_thousand_is_shown() {
    let service = TestService::start().await;
    let client = service.service();
    let mut avatars = Vec::new();
    for user in 0..33 {
        let picture = photos::png(100, 100);
        avatars.push(client.upload(&format!("u{user}"), picture).await.ok());
    }
    for avatar in &avatars[..10] {
        for image in avatar["images"].as_array().unwrap() {
            let url = image["url"].as_str().unwrap();
            let (_, key) = url.split_once("/public/").unwrap();
            service.remove_object(&format!("public/{key}")).await;
        }
    }
    let page = (0..1000).map(|place| match place {
        0..10 => (format!("/avatars/u{place}"), SVG),
        10..310 => (format!("/avatars/none{place}"), SVG),
        _ => (format!("/avatars/u{}", 10 + place % 23), "image/webp"),
    });
    let page: Vec<_> = page.collect();
    let anyone = service.anonymous();
    for some in page.chunks(50) {
        let answers = join_all(some.iter().map(|(path, _)| anyone.get(path))).await;
        for ((path, kind), answer) in some.iter().zip(answers) {
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.header("content-type"), *kind, "{path}");
            assert!(!answer.body.is_empty(), "{path}");
        }
    }
}
