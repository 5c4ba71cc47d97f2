//! Lookups of several avatars, and statistics.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client, TestService, photos, send};

const LOOKUP: &str = "/api/v1/avatars/lookup";
const STATS: &str = "/api/v1/stats";

async fn look_up(client: &Client, body: &Value) -> Answer {
    let request = client.request(Method::POST, LOOKUP);
    let request = request.header("content-type", "application/json");
    send(request.body(body.to_string())).await
}

fn picture() -> Vec<u8> {
    photos::png(120, 120)
}

/// How often an operation of the catalog has succeeded.
async fn count_of(service: &TestService, operation: &str) -> u64 {
    let line = format!(
        "cameo_backend_operations_total{{backend=\"catalog\",operation=\"{operation}\",outcome=\"ok\"}}"
    );
    let metrics = service.anonymous().get("/metrics").await.body;
    let metrics = String::from_utf8(metrics).unwrap();
    let mut counts = metrics.lines().filter_map(|one| one.strip_prefix(&line));
    counts
        .next()
        .map_or(0, |count| count.trim().parse().unwrap())
}

#[tokio::test]
async fn a_lookup_answers_each_avatar_as_a_read_does_and_null_for_a_missing_one() {
    let service = TestService::start().await;
    for user in ["42", "auth0|5f7c"] {
        service.service().upload(user, picture()).await.ok();
    }
    let body = json!({"user_ids": ["42", "nobody", "auth0|5f7c", "42"]});
    let answer = look_up(&service.owner("somebody"), &body).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let found = answer.ok();
    let expected = json!({"avatars": {
        "42": service.anonymous().avatar("42").await.ok(),
        "auth0|5f7c": service.anonymous().avatar("auth0%7C5f7c").await.ok(),
        "nobody": null,
    }});
    assert_eq!(found, expected);

    let many: Vec<String> = (0..100).map(|number| format!("user-{number}")).collect();
    let found = look_up(&service.service(), &json!({"user_ids": many}))
        .await
        .ok();
    assert_eq!(found["avatars"].as_object().unwrap().len(), 100);
    assert_eq!(count_of(&service, "get_many").await, 2);
}

#[tokio::test]
async fn a_lookup_that_is_empty_too_long_or_has_an_invalid_id_is_refused_with_its_place() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let many: Vec<String> = (0..101).map(|number| format!("user-{number}")).collect();
    let long = "x".repeat(128);
    let huge = vec![long; 200];
    for (body, expected, detail) in [
        (json!({"user_ids": []}), (400, "malformed_request"), "0 ids"),
        (
            json!({"user_ids": many}),
            (400, "malformed_request"),
            "101 ids",
        ),
        (
            json!({"user_ids": ["1", "2", "a/b"]}),
            (400, "invalid_user_id"),
            "user_ids[2]",
        ),
        (
            json!({"user_ids": ["me"]}),
            (400, "invalid_user_id"),
            "user_ids[0]",
        ),
        (
            json!({"user_ids": ["1", 2]}),
            (400, "malformed_request"),
            "user_ids[1]",
        ),
        (json!({"user_ids": "1"}), (400, "malformed_request"), ""),
        (json!({"ids": ["1"]}), (400, "malformed_request"), "ids"),
        (json!(["1"]), (400, "malformed_request"), ""),
        (json!({"user_ids": huge}), (413, "file_too_large"), "16384"),
    ] {
        let answer = look_up(&owner, &body).await;
        let (status, code) = expected;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{body}");
        let found = answer.json()["detail"].to_string();
        assert!(found.contains(detail), "{found} for {body}");
    }
    let request = owner.request(Method::POST, LOOKUP).body("{}");
    let refused = send(request).await;
    assert_eq!(
        refused.problem(),
        (415, "unsupported_media_type".to_owned())
    );
    let nobody = look_up(&service.anonymous(), &json!({"user_ids": ["42"]})).await;
    assert_eq!(nobody.problem(), (401, "unauthenticated".to_owned()));
}

#[tokio::test]
async fn a_lookup_of_private_avatars_shows_only_those_that_the_caller_may_see() {
    let service = TestService::start_with(&[("CAMEO_DELIVERY__ACCESS", "private")]).await;
    for user in ["42", "43", "44"] {
        service.service().upload(user, picture()).await.ok();
    }
    for (user, viewer) in [("43", "42"), ("44", "420")] {
        let path = format!("/api/v1/users/{user}/avatar/viewers/{viewer}");
        let added = send(service.service().request(Method::PUT, &path)).await;
        assert_eq!(added.status, 204);
    }
    let body = json!({"user_ids": ["42", "43", "44", "45"]});
    let seen = async |client: &Client| {
        let found = look_up(client, &body).await.ok();
        let avatars = found["avatars"].as_object().unwrap().clone();
        assert_eq!(avatars.len(), 4);
        let seen = avatars.into_iter().filter(|(_, avatar)| !avatar.is_null());
        seen.map(|(user, _)| user).collect::<Vec<_>>()
    };
    assert_eq!(seen(&service.owner("42")).await, ["42", "43"]);
    assert_eq!(seen(&service.owner("420")).await, ["44"]);
    assert_eq!(seen(&service.owner("999")).await, [""; 0]);
    assert_eq!(seen(&service.service()).await, ["42", "43", "44"]);
    assert_eq!(seen(&service.admin()).await, ["42", "43", "44"]);

    // A URL in the answer works for whoever has it. A hidden and a missing avatar cause the same calls.
    let found = look_up(&service.owner("42"), &body).await.ok();
    let url = found["avatars"]["43"]["avatar_url"].as_str().unwrap();
    assert_eq!(service.anonymous().get(url).await.status, 200);
    let calls = async |user: &str| {
        let before = count_of(&service, "look_up").await;
        let answer = look_up(&service.owner("999"), &json!({"user_ids": [user]})).await;
        let shape = answer.ok().to_string().replace(user, "USER");
        (shape, count_of(&service, "look_up").await - before)
    };
    assert_eq!(calls("44").await, calls("45").await);
    assert_eq!(calls("44").await.1, 1);
}

/// The objects of the store by variant and format: their number and their size.
async fn objects_by_kind(service: &TestService) -> BTreeMap<(String, String), (u64, u64)> {
    let mut kinds = BTreeMap::<_, (u64, u64)>::new();
    for key in service.objects().await {
        let file = key.rsplit('/').next().unwrap();
        if file == "manifest.json" {
            continue;
        }
        let (variant, extension) = file.split_once('.').unwrap();
        let format = extension.replace("jpg", "jpeg");
        let size = service.read_object(&key).await.len() as u64;
        let sums = kinds.entry((variant.to_owned(), format)).or_default();
        *sums = (sums.0 + 1, sums.1 + size);
    }
    kinds
}

#[tokio::test]
async fn statistics_are_the_totals_of_the_objects_in_the_store() {
    let service = TestService::start_with(&[("CAMEO_AUTH__STATS_ROLES", "auditor")]).await;
    let read = async |client: &Client| client.get(STATS).await;
    let empty = read(&service.admin()).await;
    assert_eq!(empty.header("cache-control"), "no-store");
    let nothing = json!({
        "avatars": 0, "objects": 0, "bytes": 0, "renditions": [], "pending": 0, "retired": 0,
    });
    assert_eq!(empty.ok(), nothing);
    service.owner("42").upload("42", picture()).await.ok();
    service
        .owner("43")
        .upload("43", photos::png(300, 200))
        .await
        .ok();
    let auditor = Client::new(service.url(), Some(service.token("a", &["auditor"])));
    let found = read(&auditor).await.ok();
    let expected = objects_by_kind(&service).await;
    let rows: Vec<_> = expected
        .iter()
        .map(|((variant, format), (objects, bytes))| {
            json!({"variant": variant, "format": format, "objects": objects, "bytes": bytes})
        })
        .collect();
    assert_eq!(rows.len(), 10);
    let sum = |pick: fn(&(u64, u64)) -> u64| expected.values().map(pick).sum::<u64>();
    let totals = json!({
        "avatars": 2,
        "objects": sum(|sums| sums.0),
        "bytes": sum(|sums| sums.1),
        "renditions": rows,
        "pending": 0,
        "retired": 0,
    });
    assert_eq!(found, totals);
    for client in [service.service(), service.admin()] {
        assert_eq!(read(&client).await.ok(), found);
    }

    // A replaced avatar waits for the sweep and does not count any more.
    service
        .owner("43")
        .upload("43", photos::png(300, 200))
        .await
        .ok();
    let replaced = read(&auditor).await.ok();
    assert_eq!(replaced["objects"], found["objects"]);
    assert_eq!(
        (&replaced["pending"], &replaced["retired"]),
        (&json!(0), &json!(1))
    );
    service.owner("43").delete("43").await.ok();
    service.owner("42").delete("42").await.ok();
    let deleted = read(&auditor).await.ok();
    assert_eq!(
        (&deleted["avatars"], &deleted["objects"]),
        (&json!(0), &json!(0))
    );
    // The objects of deleted avatars are gone, and their ids wait for the sweep.
    assert_eq!(
        (&deleted["pending"], &deleted["retired"]),
        (&json!(0), &json!(3))
    );

    // The role permits nothing else.
    let forbidden = (403, "forbidden".to_owned());
    for client in [
        service.owner("42"),
        Client::new(service.url(), Some(service.token("a", &["x"]))),
    ] {
        assert_eq!(read(&client).await.problem(), forbidden);
    }
    let viewers = auditor.get("/api/v1/users/42/avatar/viewers").await;
    assert_eq!(viewers.problem(), forbidden);
    assert_eq!(auditor.upload("42", picture()).await.problem(), forbidden);
}

#[tokio::test]
async fn the_command_prints_the_statistics_while_a_service_runs() {
    let service = TestService::start().await;
    service.owner("42").upload("42", picture()).await.ok();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_cameo"))
        .arg("stats")
        .envs(service.variables())
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["objects"], 10);
    assert_eq!(printed, service.admin().get(STATS).await.ok());
}
