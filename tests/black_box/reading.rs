//! Reading avatars and images.

use reqwest::Method;

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Answer, Client, TestService, send, shape};

const AVATAR: &str = "/api/v1/users/42/avatar";

#[tokio::test]
async fn accept_chooses_between_json_and_the_image() {
    let service = TestService::start().await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    for (accept, kind) in [
        ("application/json", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("*/*", "image/webp"),
        ("image/avif,image/webp,image/*,*/*;q=0.8", "image/webp"),
        ("image/jpeg", "image/jpeg"),
        ("image/webp;q=0, image/*", "image/jpeg"),
        ("image/tiff", "image/webp"),
    ] {
        let answer = anyone.get_with(AVATAR, "accept", accept).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), kind, "{accept}");
        assert!(
            answer
                .headers
                .get_all("vary")
                .iter()
                .any(|vary| vary == "Accept")
        );
    }
    let image = anyone.get(AVATAR).await;
    assert_eq!(photos::decoded(&image.body).width(), 256);
    insta::assert_snapshot!(shape(&image, service.url()).replace(image.header("etag"), "[etag]"));
}

#[tokio::test]
async fn size_chooses_a_variant_by_name_or_by_pixels() {
    let service = TestService::start().await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    for (size, edge) in [
        ("small", 128),
        ("64", 64),
        ("65", 128),
        ("300", 496),
        ("9999", 496),
        ("99999999999", 496),
    ] {
        let image = anyone.get(&format!("{AVATAR}?size={size}")).await;
        assert_eq!(photos::decoded(&image.body).width(), edge, "{size}");
        let path = format!("{AVATAR}?size={size}");
        let json = anyone
            .get_with(&path, "accept", "application/json")
            .await
            .ok();
        let url = json["avatar_url"].as_str().unwrap().to_owned();
        assert_eq!(
            photos::decoded(&anyone.get(&url).await.body).width(),
            edge,
            "{size}"
        );
    }
    let unknown = anyone.get(&format!("{AVATAR}?size=huge")).await;
    assert_eq!(unknown.problem(), (400, "malformed_request".to_owned()));
    for none in ["0", "00", "-1", "1.5", ""] {
        for accept in ["image/*", "application/json"] {
            let path = format!("{AVATAR}?size={none}");
            let answer = anyone.get_with(&path, "accept", accept).await;
            assert_eq!(
                answer.problem(),
                (400, "malformed_request".to_owned()),
                "{none:?}"
            );
        }
    }
    let twice = anyone.get(&format!("{AVATAR}?size=1&size=2")).await;
    assert_eq!(twice.problem(), (400, "malformed_request".to_owned()));
    assert!(
        unknown.json()["detail"]
            .as_str()
            .unwrap()
            .contains("thumbnail")
    );
}

/// Reads a representation and returns its entity tag.
async fn tag_of(client: &Client, path: &str, accept: &str) -> String {
    let answer = client.get_with(path, "accept", accept).await;
    assert_eq!(answer.status, 200, "{path}");
    answer.header("etag").to_owned()
}

#[tokio::test]
async fn every_representation_has_an_entity_tag_of_its_own() {
    let service = TestService::start().await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await;
    let id = avatar.ok()["avatar_id"].as_str().unwrap().to_owned();
    assert_eq!(avatar.header("etag"), format!("\"{id}\""));
    let anyone = service.anonymous();
    let small = format!("{AVATAR}?size=small");
    let pixels = format!("{AVATAR}?size=300");
    let file = format!("/files/public/avatars/{id}/large.jpg");
    for (path, accept, suffix) in [
        (AVATAR, "application/json", ""),
        (&small, "application/json", "-small"),
        (&pixels, "application/json", "-300"),
        (AVATAR, "image/webp", "-medium.webp"),
        (AVATAR, "image/jpeg", "-medium.jpg"),
        (&small, "image/jpeg", "-small.jpg"),
        (&file, "*/*", "-large.jpg"),
    ] {
        let expected = format!("\"{id}{suffix}\"");
        assert_eq!(tag_of(&anyone, path, accept).await, expected, "{path}");
    }
}

#[tokio::test]
async fn the_tag_of_one_representation_does_not_match_another() {
    let service = TestService::start().await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    let json = tag_of(&anyone, AVATAR, "application/json").await;
    let webp = tag_of(&anyone, AVATAR, "image/webp").await;
    let jpeg = tag_of(&anyone, AVATAR, "image/jpeg").await;
    let tags = [
        ("application/json", json),
        ("image/webp", webp),
        ("image/jpeg", jpeg),
    ];
    for (accept, own) in &tags {
        for (_, known) in &tags {
            let request = anyone
                .request(Method::GET, AVATAR)
                .header("accept", *accept);
            let answer = send(request.header("if-none-match", known)).await;
            let expected = if known == own { 304 } else { 200 };
            assert_eq!(answer.status, expected, "{accept} {known}");
        }
    }
}

#[tokio::test]
async fn conditional_reads_accept_every_form_of_the_headers() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    owner.upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    let tag = tag_of(&anyone, AVATAR, "*/*").await;
    let known = async |value: &str| anyone.get_with(AVATAR, "if-none-match", value).await;
    for value in [
        tag.clone(),
        format!("\"other,with-a-comma\", W/{tag}"),
        "*".to_owned(),
    ] {
        let answer = known(&value).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0));
        assert_eq!(answer.header("etag"), tag);
        assert_eq!(
            answer.header("cache-control"),
            "public, max-age=300, stale-while-revalidate=60"
        );
        assert_eq!(answer.header("vary"), "Accept");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    let unquoted = tag.trim_matches('"');
    for value in ["\"other\"", &format!("\"x,{unquoted}\""), unquoted] {
        assert_eq!(known(value).await.status, 200, "{value}");
    }
    let matching = async |value: &str| anyone.get_with(AVATAR, "if-match", value).await;
    assert_eq!(matching(&tag).await.status, 200);
    assert_eq!(matching("*").await.status, 200);
    for value in ["\"other\"", &format!("W/{tag}")] {
        let failed = (412, "precondition_failed".to_owned());
        assert_eq!(matching(value).await.problem(), failed);
    }
    owner.upload("42", photos::png(100, 100)).await.ok();
    assert_eq!(known(&tag).await.status, 200);
}

#[tokio::test]
async fn head_answers_with_the_headers_of_get_and_no_body() {
    let service = TestService::start().await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    let file = avatar["avatar_url"].as_str().unwrap();
    for (path, accept) in [
        (AVATAR, "*/*"),
        (AVATAR, "image/jpeg"),
        (AVATAR, "application/json"),
        (file, "*/*"),
        ("/api/v1/users/43/avatar", "*/*"),
        ("/files/public/avatars/none/medium.webp", "*/*"),
    ] {
        let ask = async |method, range| {
            let request = anyone.request(method, path).header("accept", accept);
            let request = request.header("x-request-id", "the-same");
            send(match range {
                Some(range) => request.header("range", range),
                None => request,
            })
            .await
        };
        let get = ask(Method::GET, None).await;
        for range in [None, Some("bytes=0-9"), Some("bytes=999999-")] {
            let head = ask(Method::HEAD, range).await;
            assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
            let of = |answer: &Answer| {
                let mut headers = answer.headers.clone();
                headers.remove("date");
                headers
            };
            assert_eq!(of(&head), of(&get), "{path} {accept}");
        }
        assert_eq!(get.header("content-length"), get.body.len().to_string());
    }
}

#[tokio::test]
async fn a_single_range_of_an_image_is_answered_206() {
    let service = TestService::start().await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    for path in [AVATAR, avatar["avatar_url"].as_str().unwrap()] {
        let whole = anyone.get(path).await;
        let (bytes, total) = (&whole.body, whole.body.len());
        assert_eq!(whole.header("accept-ranges"), "bytes");
        let tag = whole.header("etag").to_owned();
        for (range, expected) in [
            ("bytes=0-0".to_owned(), 0..1),
            ("bytes=5-99".to_owned(), 5..100),
            ("bytes=100-".to_owned(), 100..total),
            ("bytes=100-999999999".to_owned(), 100..total),
            ("bytes=-7".to_owned(), total - 7..total),
            ("bytes=-999999999".to_owned(), 0..total),
            (format!("bytes={}-", total - 1), total - 1..total),
        ] {
            let part = anyone.get_with(path, "range", &range).await;
            assert_eq!(part.status, 206, "{range}");
            assert!(part.body == bytes[expected.clone()], "{range}");
            let described = format!("bytes {}-{}/{total}", expected.start, expected.end - 1);
            assert_eq!(part.header("content-range"), described);
            assert_eq!(part.header("content-length"), expected.len().to_string());
            assert_eq!(part.header("etag"), tag);
            assert_eq!(part.header("content-type"), "image/webp");
            assert_eq!(part.header("cache-control"), whole.header("cache-control"));
        }
        for range in ["bytes=0-1,5-6", "bytes=9-5", "bytes=x", "lines=0-1"] {
            let answer = anyone.get_with(path, "range", range).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, total));
        }
        for range in [format!("bytes={total}-"), "bytes=-0".to_owned()] {
            let refused = anyone.get_with(path, "range", &range).await;
            let code = "range_not_satisfiable".to_owned();
            assert_eq!(refused.problem(), (416, code), "{range}");
            assert_eq!(refused.header("content-range"), format!("bytes */{total}"));
        }
        for (known, status) in [
            (tag.clone(), 206),
            (format!("W/{tag}"), 200),
            ("\"other\"".to_owned(), 200),
            ("Sat, 31 Jan 2026 09:30:00 GMT".to_owned(), 200),
        ] {
            let request = anyone
                .request(Method::GET, path)
                .header("range", "bytes=0-9");
            let answer = send(request.header("if-range", &known)).await;
            assert_eq!(answer.status, status, "{known}");
        }
        let request = anyone
            .request(Method::GET, path)
            .header("range", "bytes=0-9");
        let known = send(request.header("if-none-match", &tag)).await;
        assert_eq!(known.status, 304);
    }
    let missing = "/files/public/avatars/aaaaaaaaaaaaaaaaaaaaaaaaaa/medium.webp";
    let missing = anyone.get_with(missing, "range", "bytes=0-9").await;
    assert_eq!(missing.problem().0, 404);
}

#[tokio::test]
async fn ranges_are_ignored_for_json() {
    let service = TestService::start().await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    for range in ["bytes=0-9", "bytes=999999999-", "bytes=-0", "bytes=x", "x"] {
        let request = anyone.request(Method::GET, AVATAR);
        let request = request
            .header("accept", "application/json")
            .header("range", range);
        assert_eq!(send(request).await.ok()["user_id"], "42", "{range}");
    }
}

#[tokio::test]
async fn cors_allows_images_to_any_origin_and_json_to_trusted_origins() {
    let origin = ("CAMEO_HTTP__TRUSTED_ORIGINS", "https://app.example.com");
    let service = TestService::start_with(&[origin]).await;
    let owner = service.owner("42");
    let avatar = owner.upload("42", PORTRAIT).await.ok();
    let anyone = service.anonymous();
    let file = avatar["avatar_url"].as_str().unwrap();
    let from = async |client: &Client, path: &str, accept: &str, origin: &str| {
        let request = client.request(Method::GET, path).header("accept", accept);
        send(request.header("origin", origin)).await
    };
    let varies = |answer: &Answer| {
        let mut vary = answer.headers.get_all("vary").iter();
        vary.any(|value| value.to_str().unwrap().eq_ignore_ascii_case("origin"))
    };
    for origin in ["https://app.example.com", "https://elsewhere.example.com"] {
        for path in [
            AVATAR,
            file,
            "/api/v1/users/nobody/avatar",
            "/files/public/avatars/none/medium.webp",
        ] {
            let image = from(&anyone, path, "image/*", origin).await;
            assert_eq!(image.header("access-control-allow-origin"), "*", "{path}");
            assert_eq!(image.header("cross-origin-resource-policy"), "cross-origin");
            assert_eq!(image.header("access-control-allow-credentials"), "");
            assert!(!varies(&image), "{path}");
        }
        let allowed = match origin {
            "https://app.example.com" => origin,
            _ => "",
        };
        for (client, path, accept) in [
            (&anyone, AVATAR, "application/json"),
            (&owner, "/api/v1/users/me/avatar", "image/*"),
        ] {
            let own = from(client, path, accept, origin).await;
            assert_eq!(own.header("access-control-allow-origin"), allowed, "{path}");
            assert_eq!(own.header("cross-origin-resource-policy"), "");
            assert!(varies(&own));
        }
    }
    let redirecting = TestService::start_with(&[("CAMEO_DELIVERY__MODE", "redirect")]).await;
    redirecting.owner("42").upload("42", PORTRAIT).await.ok();
    let answer = redirecting.anonymous().get(AVATAR).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn not_found_answers_have_cache_headers() {
    let service = TestService::start().await;
    let anyone = service.anonymous();
    let image = anyone.get(AVATAR).await;
    assert_eq!(image.problem(), (404, "avatar_not_found".to_owned()));
    let as_image = "public, max-age=300, stale-while-revalidate=60";
    assert_eq!(image.header("cache-control"), as_image);
    assert_eq!(image.header("vary"), "Accept");
    let json = anyone.avatar("42").await;
    assert_eq!(json.header("cache-control"), "no-cache");
    assert!(
        json.headers
            .get_all("vary")
            .iter()
            .any(|vary| vary == "Accept")
    );
    let own = service.owner("42").get("/api/v1/users/me/avatar").await;
    assert_eq!(own.header("cache-control"), "private, no-cache");
    for path in ["/nothing", "/files/public/avatars/none/medium.webp"] {
        let nothing = anyone.get(path).await;
        assert_eq!(nothing.problem().0, 404);
        assert_eq!(nothing.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn files_are_immutable_and_only_public_files_are_served() {
    let service = TestService::start().await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let url = avatar["avatar_url"].as_str().unwrap();
    let file = service.anonymous().get(url).await;
    assert_eq!(
        file.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
    assert_eq!(file.header("content-type"), "image/webp");
    let known = service
        .anonymous()
        .get_with(url, "if-none-match", file.header("etag"))
        .await;
    assert_eq!(known.status, 304);

    let id = avatar["avatar_id"].as_str().unwrap();
    assert!(
        service
            .objects()
            .await
            .contains(&format!("private/avatars/{id}/manifest.json"))
    );
    for path in [
        format!("/files/private/avatars/{id}/manifest.json"),
        format!(
            "/files/public/avatars/{id}/..%2f..%2f..%2fprivate%2favatars%2f{id}%2fmanifest.json"
        ),
        format!("/files/public/avatars/..%2f..%2fprivate%2favatars%2f{id}/manifest.json"),
        format!("/files/public/avatars/{id}/manifest.json"),
        format!("/files/public/avatars/{id}/huge.webp"),
        "/files/catalog.redb".to_owned(),
        "/files/".to_owned(),
    ] {
        assert_eq!(
            service.anonymous().get(&path).await.problem().0,
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn images_are_redirected_if_that_is_configured() {
    let service = TestService::start_with(&[("CAMEO_DELIVERY__MODE", "redirect")]).await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let answer = service.anonymous().get(AVATAR).await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("location"), avatar["avatar_url"]);
}

#[tokio::test]
async fn a_user_without_an_avatar_is_not_found() {
    let service = TestService::start().await;
    let answer = service.anonymous().get(AVATAR).await;
    insta::assert_snapshot!(shape(&answer, service.url()));
    assert_eq!(
        service.anonymous().avatar("42").await.problem().1,
        "avatar_not_found"
    );
}

#[tokio::test]
async fn an_image_whose_object_is_missing_is_not_found() {
    let service = TestService::start().await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let id = avatar["avatar_id"].as_str().unwrap();
    let path = format!("public/avatars/{id}/medium.webp");
    service.remove_object(&path).await;
    assert_eq!(service.anonymous().get(AVATAR).await.problem().0, 404);
}
