//! What readers get.

use reqwest::Method;

use crate::support::photos::{self, PORTRAIT};
use crate::support::{TestService, send, shape};

const AVATAR: &str = "/api/v1/users/42/avatar";

#[tokio::test]
async fn accept_decides_between_json_and_the_image() {
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
async fn size_chooses_by_name_or_by_pixels() {
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
    let twice = anyone.get(&format!("{AVATAR}?size=1&size=2")).await;
    assert_eq!(twice.problem(), (400, "malformed_request".to_owned()));
    assert!(
        unknown.json()["detail"]
            .as_str()
            .unwrap()
            .contains("thumbnail")
    );
}

#[tokio::test]
async fn whoever_has_the_avatar_is_told_so() {
    let service = TestService::start().await;
    let etag = service
        .owner("42")
        .upload("42", PORTRAIT)
        .await
        .header("etag")
        .to_owned();
    let anyone = service.anonymous();
    for tag in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        let answer = anyone.get_with(AVATAR, "if-none-match", &tag).await;
        assert_eq!(answer.status, 304);
        assert_eq!(answer.header("etag"), etag);
        assert!(answer.header("cache-control").contains("max-age=300"));
    }
    assert_eq!(
        anyone
            .get_with(AVATAR, "if-none-match", "\"other\"")
            .await
            .status,
        200
    );
    service
        .owner("42")
        .upload("42", photos::png(100, 100))
        .await
        .ok();
    assert_eq!(
        anyone.get_with(AVATAR, "if-none-match", &etag).await.status,
        200
    );
}

#[tokio::test]
async fn head_tells_without_the_body() {
    let service = TestService::start().await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let answer = send(service.anonymous().request(Method::HEAD, AVATAR)).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-type"), "image/webp");
}

#[tokio::test]
async fn files_are_served_for_ever_and_nothing_but_public_ones() {
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
async fn redirects_are_answered_where_that_is_configured() {
    let service = TestService::start_with(&[("CAMEO_DELIVERY__MODE", "redirect")]).await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let answer = service.anonymous().get(AVATAR).await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("location"), avatar["avatar_url"]);
}

#[tokio::test]
async fn whoever_has_none_is_not_found() {
    let service = TestService::start().await;
    let answer = service.anonymous().get(AVATAR).await;
    insta::assert_snapshot!(shape(&answer, service.url()));
    assert_eq!(
        service.anonymous().avatar("42").await.problem().1,
        "avatar_not_found"
    );
}

#[tokio::test]
async fn a_record_whose_object_is_gone_is_not_found_rather_than_broken() {
    let service = TestService::start().await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let id = avatar["avatar_id"].as_str().unwrap();
    let path = format!("public/avatars/{id}/medium.webp");
    service.remove_object(&path).await;
    assert_eq!(service.anonymous().get(AVATAR).await.problem().0, 404);
}
