//! How often anyone may do what.

use crate::support::photos;
use crate::support::{TestService, shape};

const ON: (&str, &str) = ("CAMEO_LIMITS__ENABLED", "true");

#[tokio::test]
async fn the_sixth_upload_in_a_minute_must_wait() {
    let service = TestService::start_with(&[ON]).await;
    let owner = service.owner("42");
    for left in (0..5).rev() {
        let answer = owner.upload("42", photos::png(100, 100)).await;
        answer.ok();
        assert_eq!(answer.header("ratelimit-policy"), "\"upload\";q=5;w=60");
        assert!(
            answer
                .header("ratelimit")
                .starts_with(&format!("\"upload\";r={left};t="))
        );
    }
    let refused = owner.upload("42", photos::png(100, 100)).await;
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(
        refused.header("ratelimit"),
        format!("\"upload\";r=0;t={wait}")
    );
    let shape = shape(&refused, service.url());
    let shape = shape.replace(&format!(";t={wait}"), ";t=[wait]");
    insta::assert_snapshot!(shape.replace(&format!("retry-after: {wait}"), "retry-after: [wait]"));

    // Others, and other actions, have limits of their own.
    service
        .owner("43")
        .upload("43", photos::png(100, 100))
        .await
        .ok();
    let deleted = owner.delete("42").await;
    deleted.ok();
    assert_eq!(deleted.header("ratelimit-policy"), "\"delete\";q=10;w=60");
}

#[tokio::test]
async fn the_limit_is_the_users_whoever_uploads() {
    let service = TestService::start_with(&[ON, ("CAMEO_LIMITS__UPLOAD", "1/h")]).await;
    service
        .service()
        .upload("42", photos::png(100, 100))
        .await
        .ok();
    assert_eq!(
        service
            .owner("42")
            .upload("42", photos::png(100, 100))
            .await
            .problem()
            .0,
        429
    );
    service
        .service()
        .upload("43", photos::png(100, 100))
        .await
        .ok();
}

#[tokio::test]
async fn whoever_may_not_is_not_counted() {
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
