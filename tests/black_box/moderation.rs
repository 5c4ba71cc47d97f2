//! Locks and viewers.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Answer, Client, TestService, photos, send};

const LOCK: &str = "/api/v1/users/42/avatar/lock";
const VIEWERS: &str = "/api/v1/users/42/avatar/viewers";
const LIMITS: (&str, &str) = ("CAMEO_LIMITS__ENABLED", "true");
const ONE_UPLOAD: (&str, &str) = ("CAMEO_LIMITS__UPLOAD", "1/h");

fn picture() -> Vec<u8> {
    photos::png(100, 100)
}

fn put_lock(client: &Client, body: &Value) -> RequestBuilder {
    let request = client.request(Method::PUT, LOCK);
    request
        .header("content-type", "application/json")
        .body(body.to_string())
}

async fn lock(client: &Client, body: &Value) -> Answer {
    send(put_lock(client, body)).await
}

async fn unlock(client: &Client) -> Answer {
    send(client.request(Method::DELETE, LOCK)).await
}

#[track_caller]
fn refused(answer: &Answer, reason: &str, until: &Value) {
    assert_eq!(answer.problem(), (403, "avatar_locked".to_owned()));
    let body = answer.json();
    assert_eq!((&body["reason"], &body["until"]), (&json!(reason), until));
    assert!(body["detail"].as_str().unwrap().contains(reason), "{body}");
}

#[tokio::test]
async fn a_lock_stops_uploads_of_everybody_but_admins_before_the_body_is_read() {
    let service = TestService::start_with(&[LIMITS, ONE_UPLOAD]).await;
    let (owner, main, admin) = (service.owner("42"), service.service(), service.admin());
    let before = main.upload("42", picture()).await.ok();
    let new = json!({"reason": "Grüße: spam", "until": "2031-01-31T10:30:00+01:00"});
    let locked = lock(&main, &new).await.ok();
    let until = json!("2031-01-31T09:30:00Z");
    assert_eq!(
        (&locked["reason"], &locked["until"]),
        (&json!("Grüße: spam"), &until)
    );
    assert_eq!(owner.get(LOCK).await.ok(), locked);

    // The body is not read, so it need not be a picture. No attempt counts against a limit.
    for client in [&owner, &main, &owner] {
        let answer = client.upload("42", b"no picture".to_vec()).await;
        refused(&answer, "Grüße: spam", &until);
        assert_eq!(answer.header("ratelimit"), "");
    }
    let after = service.anonymous().avatar("42").await.ok();
    assert_eq!(after["avatar_id"], before["avatar_id"]);
    let by_admin = admin.upload("42", picture()).await.ok();
    assert_ne!(by_admin["avatar_id"], before["avatar_id"]);
    // Another user's avatar is not locked, and the owner may delete the avatar.
    service.owner("43").upload("43", picture()).await.ok();
    owner.delete("42").await.ok();

    // The lock survives the delete. A second lock replaces it.
    refused(&owner.upload("42", picture()).await, "Grüße: spam", &until);
    let without_end = lock(&admin, &json!({"reason": "again"})).await.ok();
    assert_eq!(without_end["until"], Value::Null);
    refused(&owner.upload("42", picture()).await, "again", &Value::Null);
    for _ in 0..2 {
        assert_eq!(unlock(&main).await.status, 204);
    }
    owner.upload("42", picture()).await.ok();
}

#[tokio::test]
async fn a_lock_can_remove_the_avatar_with_all_its_objects() {
    let service = TestService::start().await;
    let (owner, admin) = (service.owner("42"), service.admin());
    owner.upload("42", picture()).await.ok();
    owner.upload("42", picture()).await.ok();
    let locked = lock(&admin, &json!({"reason": "nudity", "remove": true})).await;
    assert_eq!(locked.ok()["reason"], "nudity");
    assert_eq!(owner.avatar("42").await.status, 404);
    let left = service.objects().await;
    let is_policy = |key: &String| key.starts_with("private/subjects/");
    assert!(left.len() == 1 && left.iter().all(is_policy), "{left:?}");
    refused(&owner.upload("42", picture()).await, "nudity", &Value::Null);
    // Without an avatar it is a lock like any other.
    lock(&admin, &json!({"remove": true})).await.ok();
    refused(&owner.upload("42", picture()).await, "", &Value::Null);
}

#[tokio::test]
async fn a_lock_survives_a_restart_and_is_kept_under_the_hash_of_the_user_id() {
    let service = TestService::start().await;
    lock(&service.admin(), &json!({"reason": "spam"}))
        .await
        .ok();
    // printf 42 | sha256sum
    let key = "private/subjects/73475cb40a568e8da8a045ced110137e159f890ac4da883b6b17dc651b3a8049";
    assert_eq!(service.objects().await, [key]);
    let document: Value = serde_json::from_slice(&service.read_object(key).await).unwrap();
    assert_eq!(document["subject"], "42");
    assert_eq!(
        (&document["layout"], &document["sequence"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(document["lock"]["reason"], "spam");
    assert_eq!(
        service
            .anonymous()
            .get(&format!("/files/{key}"))
            .await
            .status,
        404
    );
    let service = service.restart_with(&[]).await;
    refused(
        &service.owner("42").upload("42", picture()).await,
        "spam",
        &Value::Null,
    );
}

#[tokio::test]
async fn a_lock_ends_by_itself() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let until = time::OffsetDateTime::now_utc() + time::Duration::seconds(2);
    let format = &time::format_description::well_known::Rfc3339;
    let until = until.format(format).unwrap();
    lock(&service.admin(), &json!({"until": until})).await.ok();
    let begun = std::time::Instant::now();
    let refused = owner.upload("42", picture()).await;
    assert_eq!(refused.problem().1, "avatar_locked");
    while owner.upload("42", picture()).await.status != 200 {
        assert!(begun.elapsed().as_secs() < 20);
    }
    assert!(begun.elapsed().as_millis() > 1000, "{:?}", begun.elapsed());
    assert_eq!(
        owner.get(LOCK).await.problem(),
        (404, "not_locked".to_owned())
    );
}

#[tokio::test]
async fn a_malformed_lock_is_refused_and_changes_nothing() {
    let service = TestService::start().await;
    let admin = service.admin();
    for (body, status) in [
        (json!({"until": "2020-01-31T09:30:00Z"}).to_string(), 400),
        (json!({"until": "tomorrow"}).to_string(), 400),
        (json!({"until": 5}).to_string(), 400),
        (json!({"reason": "x".repeat(501)}).to_string(), 400),
        (json!({"reason": "two\nlines"}).to_string(), 400),
        (json!({"reasons": "typo"}).to_string(), 400),
        (json!([]).to_string(), 400),
        ("{".to_owned(), 400),
        (String::new(), 400),
        (json!({"reason": "x".repeat(20_000)}).to_string(), 413),
    ] {
        let request = admin.request(Method::PUT, LOCK);
        let request = request.header("content-type", "application/json");
        let answer = send(request.body(body.clone())).await;
        assert_eq!(answer.status, status, "{body}");
        answer.problem();
    }
    let form = admin.request(Method::PUT, LOCK).body("reason=spam");
    let answer = send(form.header("content-type", "application/x-www-form-urlencoded")).await;
    assert_eq!(answer.problem(), (415, "unsupported_media_type".to_owned()));
    assert_eq!(
        admin.get(LOCK).await.problem(),
        (404, "not_locked".to_owned())
    );
    // The longest reason is accepted.
    let reason = "ü".repeat(500);
    let locked = lock(&admin, &json!({"reason": reason, "until": null}))
        .await
        .ok();
    assert_eq!(locked["reason"], reason);
}

#[tokio::test]
async fn viewers_are_added_listed_and_removed_and_survive_changes_of_the_avatar() {
    let service = TestService::start().await;
    let (main, owner) = (service.service(), service.owner("42"));
    let of = |viewer: &str| format!("{VIEWERS}/{viewer}");
    let change = async |method: Method, viewer: &str| {
        send(main.request(method, &of(viewer)))
            .await
            .status
            .as_u16()
    };
    assert_eq!(main.get(VIEWERS).await.ok(), json!({"viewers": []}));
    for viewer in ["44", "auth0%7C5f7c", "43", "44"] {
        assert_eq!(change(Method::PUT, viewer).await, 204, "{viewer}");
    }
    let all = json!({"viewers": ["43", "44", "auth0|5f7c"]});
    assert_eq!(main.get(VIEWERS).await.ok(), all);
    owner.upload("42", picture()).await.ok();
    owner.upload("42", picture()).await.ok();
    owner.delete("42").await.ok();
    assert_eq!(main.get(VIEWERS).await.ok(), all);
    for viewer in ["44", "44", "never"] {
        assert_eq!(change(Method::DELETE, viewer).await, 204, "{viewer}");
    }
    let left = json!({"viewers": ["43", "auth0|5f7c"]});
    assert_eq!(main.get(VIEWERS).await.ok(), left);
    for viewer in ["me", "a%20b", "..."] {
        let answer = send(main.request(Method::PUT, &of(viewer))).await;
        assert_eq!(
            answer.problem(),
            (400, "invalid_user_id".to_owned()),
            "{viewer}"
        );
    }
    // The lock does not change the viewers.
    lock(&main, &json!({})).await.ok();
    unlock(&main).await;
    assert_eq!(main.get(VIEWERS).await.ok(), left);
    assert_eq!(
        service
            .restart_with(&[])
            .await
            .service()
            .get(VIEWERS)
            .await
            .ok(),
        left
    );
}
