//! Rate limits.

use std::time::Duration;

use reqwest::Method;

use crate::support::photos;
use crate::support::{TestService, send, shape};

const ON: (&str, &str) = ("CAMEO_LIMITS__ENABLED", "true");

#[tokio::test]
async fn the_sixth_upload_at_once_is_answered_429() {
    let service = TestService::start_with(&[ON]).await;
    let owner = service.owner("42");
    for left in (0..5).rev() {
        let answer = owner.upload("42", photos::png(100, 100)).await;
        answer.ok();
        assert_eq!(
            answer.header("ratelimit-policy"),
            "\"upload\";q=5;w=60;pk=:NDI=:;cameo-algorithm=\"gcra\";cameo-interval=12"
        );
        let state = answer.header("ratelimit");
        let next = state.strip_prefix(&format!("\"upload\";r={left};t="));
        let next = next.and_then(|rest| rest.strip_suffix(";pk=:NDI=:"));
        let next: u64 = next.unwrap_or_else(|| panic!("{state}")).parse().unwrap();
        assert!(
            (1..=12).contains(&next),
            "one more upload becomes available every 12 s: {state}"
        );
    }
    let refused = owner.upload("42", photos::png(100, 100)).await;
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(
        refused.header("ratelimit"),
        format!("\"upload\";r=0;t={wait};pk=:NDI=:")
    );
    let shape = shape(&refused, service.url());
    let shape = shape.replace(&format!(";t={wait}"), ";t=[wait]");
    insta::assert_snapshot!(shape.replace(&format!("retry-after: {wait}"), "retry-after: [wait]"));

    // Other users and other actions have limits of their own.
    service
        .owner("43")
        .upload("43", photos::png(100, 100))
        .await
        .ok();
    let deleted = owner.delete("42").await;
    deleted.ok();
    assert_eq!(
        deleted.header("ratelimit-policy"),
        "\"delete\";q=10;w=60;pk=:NDI=:;cameo-algorithm=\"gcra\";cameo-interval=6"
    );
}

#[tokio::test]
async fn a_failed_precondition_does_not_count_and_needs_no_body() {
    let limits = [
        ("CAMEO_LIMITS__UPLOAD", "1/h"),
        ("CAMEO_LIMITS__DELETE", "1/h"),
    ];
    let service = TestService::start_with(&[&[ON][..], &limits].concat()).await;
    let owner = service.owner("42");
    let path = "/api/v1/users/42/avatar";
    let request = |method| owner.request(method, path).header("if-match", "\"other\"");
    let failed = (412, "precondition_failed".to_owned());
    for _ in 0..3 {
        // The body never ends.
        let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let upload = request(Method::PUT).header("content-type", "image/png");
        let upload = upload.body(reqwest::Body::wrap_stream(endless));
        let refused = tokio::time::timeout(Duration::from_secs(10), send(upload)).await;
        let refused = refused.expect("an answer before the end of the body");
        assert_eq!(refused.problem(), failed);
        assert_eq!(refused.header("ratelimit"), "");
    }
    owner.upload("42", photos::png(100, 100)).await.ok();
    for _ in 0..3 {
        assert_eq!(send(request(Method::DELETE)).await.problem(), failed);
    }
    owner.delete("42").await.ok();
}

#[tokio::test]
async fn a_service_and_an_admin_have_quotas_of_their_own() {
    let variables = [
        ON,
        ("CAMEO_LIMITS__UPLOAD", "1/h"),
        ("CAMEO_LIMITS__SERVICE_UPLOAD", "2/h"),
        ("CAMEO_LIMITS__SERVICE_DELETE", "1/h"),
    ];
    let service = TestService::start_with(&variables).await;
    let picture = || photos::png(100, 100);
    let main = service.service();
    // Uploads by the owner and uploads by the service count separately.
    main.upload("42", picture()).await.ok();
    service.owner("42").upload("42", picture()).await.ok();
    let mine = service.owner("42").upload("42", picture()).await;
    assert_eq!(mine.problem(), (429, "rate_limited".into()));
    let detail = mine.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("of this user is used up: 1 at once, then one every 3600 s"));

    // The service has one quota for all users together.
    let second = main.upload("43", picture()).await;
    second.ok();
    let policy = second.header("ratelimit-policy");
    assert!(policy.starts_with("\"service_upload\";q=2;w=3600;pk=:bWFpbi1hcHBsaWNhdGlvbg==:"));
    let third = main.upload("44", picture()).await;
    assert_eq!(third.problem(), (429, "rate_limited".into()));
    let state = third.header("ratelimit");
    assert!(state.starts_with("\"service_upload\";r=0;t="), "{state}");
    let detail = third.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("of this service is used up: 2 at once, then one every 1800 s"));
    main.delete("43").await.ok();
    assert_eq!(main.delete("42").await.problem().0, 429);

    // An admin has a quota of its own, also for the same avatar.
    service.admin().upload("44", picture()).await.ok();
    // A user with the same subject as the service has the quota of a user.
    let namesake = service.owner("main-application");
    namesake.upload("me", picture()).await.ok();
}

#[tokio::test]
async fn forbidden_requests_do_not_count() {
    let service = TestService::start_with(&[ON, ("CAMEO_LIMITS__UPLOAD", "1/h")]).await;
    for _ in 0..3 {
        let refused = service
            .owner("43")
            .upload("42", photos::png(100, 100))
            .await;
        assert_eq!(refused.problem().0, 403);
        assert_eq!(refused.header("ratelimit"), "");
    }
    service
        .owner("42")
        .upload("42", photos::png(100, 100))
        .await
        .ok();
}
