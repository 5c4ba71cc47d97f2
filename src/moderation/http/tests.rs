use std::time::Instant;

use cameo_testing::moderation::{Judgement, ModerationServer};

use super::*;
use crate::avatar::{AvatarId, Format, SubjectId};
use crate::config::{SigningSecret, WhenModerationIsDown};
use crate::moderation::Part;

const SECRETS: [&str; 2] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_dGhpcyBpcyBhIHNlY29uZCBzZWNyZXQsIHllcw==",
];

fn moderator(url: &str, timeout_ms: u64) -> HttpModerator {
    let secret = |text: &&str| SigningSecret::parse(text).unwrap();
    HttpModerator::new(&Moderation {
        url: url.to_owned(),
        secrets: SECRETS.iter().map(secret).collect(),
        timeout: Duration::from_millis(timeout_ms),
        when_down: WhenModerationIsDown::Deny,
    })
    .unwrap()
}

fn submission() -> Submission {
    Submission {
        subject: SubjectId::new("auth0|5f7c").unwrap(),
        avatar: AvatarId::from_bytes([0; 16]),
        part: Part::Still,
        format: Format::Webp,
        bytes: Bytes::from_static(b"\xff\0 no text"),
    }
}

#[tokio::test]
async fn a_picture_is_posted_with_its_owner_its_avatar_and_a_signature() {
    let server = ModerationServer::start().await;
    let judged = moderator(&server.url(), 5000).judge(&submission()).await;
    assert_eq!(judged.unwrap(), Verdict::Allow);
    let [got] = &server.take()[..] else {
        panic!("there was not one request");
    };
    assert_eq!(got.line, "POST /check?key=of-the-query HTTP/1.1");
    assert_eq!(got.body, b"\xff\0 no text");
    let header = |name: &str| got.headers[name].as_str();
    assert_eq!(header("content-type"), "image/webp");
    assert_eq!(header("x-cameo-user"), "auth0|5f7c");
    assert_eq!(header("x-cameo-avatar"), "aaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert_eq!(header("webhook-id"), "aaaaaaaaaaaaaaaaaaaaaaaaaa-still");
    let sent: u64 = header("webhook-timestamp").parse().unwrap();
    assert!((Timestamp::now().unix_ms() / 1000).abs_diff(sent) < 60);
    for secret in SECRETS {
        assert!(got.is_signed_with(secret));
    }
    let mut changed = got.clone();
    changed.body[0] = 0;
    assert!(!changed.is_signed_with(SECRETS[0]));
}

#[tokio::test]
async fn the_reason_of_a_rejection_is_one_bounded_line() {
    let server = ModerationServer::start().await;
    let moderator = moderator(&server.url(), 5000);
    for (body, expected) in [
        (r#"{"verdict": "reject"}"#.to_owned(), String::new()),
        (
            r#"{"verdict": "reject", "reason": null}"#.to_owned(),
            String::new(),
        ),
        (
            r#"{"reason": " Grüße:\r\n\t\u0000 <b>no\u202e</b> ", "verdict": "reject"}"#.to_owned(),
            "Grüße: <b>no </b>".to_owned(),
        ),
        (
            format!(
                r#"{{"verdict": "reject", "reason": "{}"}}"#,
                "ü".repeat(501)
            ),
            "ü".repeat(500),
        ),
    ] {
        server.set(Judgement::Body(body));
        let judged = moderator.judge(&submission()).await.unwrap();
        assert_eq!(judged, Verdict::Reject(expected));
    }
}

#[tokio::test]
async fn only_a_complete_answer_with_status_200_and_a_known_verdict_counts() {
    let server = ModerationServer::start().await;
    let other = ModerationServer::start().await;
    let moderator = moderator(&server.url(), 60_000);
    let garbage = [
        "",
        "null",
        "<html>",
        "{}",
        "[]",
        "\"allow\"",
        r#"{"verdict": "maybe"}"#,
        r#"{"verdict": true}"#,
        r#"{"verdict": "allow"} {"#,
        r#"{"verdict": "reject", "reason": 7}"#,
        r#"{"verdict": "allow", "verdict": "reject"}"#,
    ];
    for body in garbage {
        server.set(Judgement::Body(body.to_owned()));
        let error = moderator.judge(&submission()).await.unwrap_err();
        assert!(matches!(error, ModerationError::NoVerdict { .. }), "{body}");
    }
    let location = format!("location: {}\r\n", other.url());
    for status in [201, 204, 301, 302, 307, 308, 400, 401, 404, 429, 500, 503] {
        server.set(Judgement::Status(status, location.clone()));
        let error = moderator.judge(&submission()).await.unwrap_err();
        assert!(matches!(error, ModerationError::Status { .. }), "{status}");
        assert!(!error.to_string().contains("of-the-query"), "{error}");
    }
    assert!(other.take().is_empty(), "a redirect was followed");
    server.set(Judgement::BreakOff);
    let error = moderator.judge(&submission()).await.unwrap_err();
    assert!(matches!(error, ModerationError::Body { .. }), "{error}");
    server.set(Judgement::Endless);
    let error = moderator.judge(&submission()).await.unwrap_err();
    assert!(matches!(error, ModerationError::TooLarge { .. }), "{error}");
    let large = format!(r#"{{"verdict": "allow", "x": "{}"}}"#, " ".repeat(16 << 10));
    server.set(Judgement::Body(large));
    let error = moderator.judge(&submission()).await.unwrap_err();
    assert!(matches!(error, ModerationError::TooLarge { .. }), "{error}");
    // Nothing listens on this port any more.
    let url = other.url();
    drop(other);
    let gone = super::tests::moderator(&url, 60_000);
    let error = gone.judge(&submission()).await.unwrap_err();
    assert!(
        matches!(error, ModerationError::Connection { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn the_time_limit_covers_the_whole_exchange() {
    let server = ModerationServer::start().await;
    server.set(Judgement::Hang);
    let begun = Instant::now();
    let judged = moderator(&server.url(), 300).judge(&submission()).await;
    let error = judged.unwrap_err();
    assert!(matches!(error, ModerationError::Timeout { .. }), "{error}");
    assert!((250..5000).contains(&begun.elapsed().as_millis()));
}

#[tokio::test]
async fn dropping_the_call_closes_the_connection() {
    let server = ModerationServer::start().await;
    server.set(Judgement::Hang);
    let moderator = moderator(&server.url(), 60_000);
    let asked = submission();
    let begun = Instant::now();
    {
        let mut judged = std::pin::pin!(moderator.judge(&asked));
        while server.under_way() == 0 {
            let soon = Duration::from_millis(5);
            assert!(timeout(soon, &mut judged).await.is_err());
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
    }
    while server.under_way() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
