//! `moderation.url`: another service gives a verdict on each picture before it is published.

use std::time::{Duration, Instant};

use cameo_testing::moderation::{Judgement, ModerationServer};

use crate::support::photos::{self, PORTRAIT};
use crate::support::{TestService, run_program};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Starts a service that asks this server, with these further settings.
async fn moderated(server: &ModerationServer, variables: &[(&str, &str)]) -> TestService {
    let url = server.url();
    let secrets = format!("[\"{SECRET}\"]");
    let mut all = vec![
        ("CAMEO_MODERATION__URL", url.as_str()),
        ("CAMEO_MODERATION__SECRETS", &secrets),
    ];
    all.extend(variables);
    TestService::start_with(&all).await
}

#[tokio::test]
async fn an_allowed_picture_is_published_and_was_submitted_as_it_is_published() {
    let server = ModerationServer::start().await;
    let service = moderated(&server, &[]).await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let [asked] = &server.take()[..] else {
        panic!("there was not one request");
    };
    assert_eq!(asked.headers["content-type"], "image/webp");
    assert_eq!(asked.headers["x-cameo-user"], "42");
    assert_eq!(asked.headers["x-cameo-avatar"], avatar["avatar_id"]);
    assert!(asked.is_signed_with(SECRET));
    let url = avatar["variants"]["full"].as_str().unwrap();
    assert_eq!(service.anonymous().get(url).await.body, asked.body);
    let text = service.anonymous().get("/metrics").await;
    assert_eq!(
        text.metric("cameo_moderation_requests_total{verdict=\"allow\"}"),
        1
    );
    assert_eq!(text.metric("cameo_moderation_duration_seconds_count"), 1);
}

#[tokio::test]
async fn a_rejected_picture_is_answered_422_with_the_reason_and_leaves_everything_as_it_was() {
    let server = ModerationServer::start().await;
    let service = moderated(&server, &[]).await;
    let owner = service.owner("42");
    let before = owner.upload("42", PORTRAIT).await.ok();
    let objects = service.objects().await;
    server.set(Judgement::Reject("shows\ta\nweapon"));
    for user in ["42", "43"] {
        let answer = service.service().upload(user, photos::png(300, 200)).await;
        assert_eq!(answer.problem(), (422, "rejected".to_owned()));
        let body = answer.json();
        assert_eq!(body["reason"], "shows a weapon");
        assert_eq!(body["detail"], "the picture was rejected: shows a weapon");
        // Nothing waits for the sweep.
        assert_eq!(service.objects().await, objects);
    }
    server.set(Judgement::Body(r#"{"verdict": "reject"}"#.to_owned()));
    let answer = owner.upload("42", photos::png(300, 200)).await;
    assert_eq!(answer.json()["detail"], "the picture was rejected");
    assert_eq!(service.objects().await, objects);
    let after = service.anonymous().avatar("42").await.ok();
    assert_eq!(after["avatar_id"], before["avatar_id"]);
    assert_eq!(service.anonymous().avatar("43").await.status, 404);

    server.set(Judgement::Allow);
    let next = owner.upload("42", photos::png(300, 200)).await.ok();
    assert_ne!(next["avatar_id"], before["avatar_id"]);
    let text = service.anonymous().get("/metrics").await;
    assert_eq!(
        text.metric("cameo_moderation_requests_total{verdict=\"reject\"}"),
        3
    );
}

#[tokio::test]
async fn without_a_verdict_an_upload_is_refused_or_accepted_as_configured() {
    let server = ModerationServer::start().await;
    let limit = ("CAMEO_MODERATION__TIMEOUT", "500ms");
    let denying = moderated(&server, &[limit]).await;
    let allowing = moderated(&server, &[limit, ("CAMEO_MODERATION__WHEN_DOWN", "allow")]).await;
    let failures = [
        Judgement::Hang,
        Judgement::Status(500, String::new()),
        Judgement::Status(307, "location: /check\r\n".to_owned()),
        Judgement::Body("<html>".to_owned()),
        Judgement::BreakOff,
        Judgement::Endless,
    ];
    let count = failures.len() as u64;
    for failure in failures {
        server.set(failure.clone());
        let begun = Instant::now();
        let answer = denying.owner("42").upload("42", PORTRAIT).await;
        assert_eq!(
            answer.problem(),
            (503, "moderation_unavailable".to_owned()),
            "{failure:?}"
        );
        assert_eq!(answer.header("retry-after"), "2");
        assert!(begun.elapsed() < Duration::from_secs(30), "{failure:?}");
        assert_eq!(denying.objects().await, [""; 0], "{failure:?}");
        allowing.owner("42").upload("42", PORTRAIT).await.ok();
    }
    assert_eq!(denying.anonymous().avatar("42").await.status, 404);
    for service in [denying, allowing] {
        let text = service.anonymous().get("/metrics").await;
        let none = "cameo_moderation_requests_total{verdict=\"none\"}";
        assert_eq!(text.metric(none), count);
        // It recovers by itself.
        server.set(Judgement::Allow);
        service.owner("42").upload("42", PORTRAIT).await.ok();
    }
}

#[tokio::test]
async fn an_animation_is_submitted_beside_the_still_and_each_can_be_rejected() {
    let server = ModerationServer::start().await;
    let variables = [
        ("CAMEO_IMAGES__ANIMATED", "true"),
        ("CAMEO_IMAGES__FORMATS", "[\"jpeg\", \"webp\"]"),
    ];
    let service = moderated(&server, &variables).await;
    let moving = cameo_testing::fixture("moving.webp");
    let avatar = service.owner("42").upload("42", moving.clone()).await.ok();
    let mut asked = server.take();
    asked.sort_by_key(|one| one.headers["content-type"].clone());
    let kinds: Vec<_> = asked
        .iter()
        .map(|one| one.headers["content-type"].as_str())
        .collect();
    assert_eq!(kinds, ["image/jpeg", "image/webp"]);
    let ids: Vec<_> = asked
        .iter()
        .map(|one| one.headers["webhook-id"].as_str())
        .collect();
    let id = avatar["avatar_id"].as_str().unwrap();
    assert_eq!(ids, [format!("{id}-still"), format!("{id}-animation")]);
    let is_animated = |bytes: &[u8]| bytes.windows(4).any(|window| window == b"ANIM");
    assert!(is_animated(&asked[1].body) && !is_animated(&asked[0].body));

    let objects = service.objects().await;
    for kind in kinds {
        server.set_for(kind, Judgement::Reject("one part"));
        let answer = service.owner("42").upload("42", moving.clone()).await;
        assert_eq!(answer.problem(), (422, "rejected".to_owned()), "{kind}");
        assert_eq!(service.objects().await, objects, "{kind}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_request_to_moderation() {
    let server = ModerationServer::start().await;
    let service = moderated(&server, &[("CAMEO_MODERATION__TIMEOUT", "60s")]).await;
    server.set(Judgement::Hang);
    let begun = Instant::now();
    let owner = service.owner("42");
    let upload = tokio::spawn(async move { owner.upload("42", PORTRAIT).await });
    let until = async |under_way: usize| {
        while server.under_way() != under_way {
            assert!(begun.elapsed() < Duration::from_secs(40));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until(1).await;
    upload.abort();
    until(0).await;
    server.set(Judgement::Allow);
    service.owner("42").upload("42", PORTRAIT).await.ok();
}

#[tokio::test]
async fn doctor_asks_for_a_verdict_on_a_sample() {
    let server = ModerationServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let doctor = async || {
        let settings = [
            ("CAMEO_DATA_DIR", folder.path().to_str().unwrap().to_owned()),
            ("CAMEO_MODERATION__URL", server.url()),
            ("CAMEO_MODERATION__SECRETS", format!("[\"{SECRET}\"]")),
        ];
        run_program(&["doctor"], settings).await
    };
    let (code, said) = doctor().await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("allows a built-in sample"), "{said}");
    let [asked] = &server.take()[..] else {
        panic!("there was not one request");
    };
    assert_eq!(asked.headers["x-cameo-user"], "doctor");
    assert!(asked.is_signed_with(SECRET) && asked.body.starts_with(b"RIFF"));
    server.set(Judgement::Body("{}".to_owned()));
    let (code, said) = doctor().await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("wrong    moderation.url: there is no verdict on a sample"),
        "{said}"
    );
    assert!(!said.contains("of-the-query"), "{said}");
    server.set(Judgement::Reject("no face"));
    let (code, said) = doctor().await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("rejects a built-in sample"), "{said}");
}
