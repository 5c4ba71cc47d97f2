//! Snapshots of answers: status, relevant headers and body. Values that differ between runs are
//! checked and then masked.

use std::fmt::Write;

use serde_json::Value;

use super::Answer;

const HEADERS: [&str; 11] = [
    "allow",
    "cache-control",
    "content-type",
    "etag",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "vary",
    "www-authenticate",
    "x-content-type-options",
];

/// The answer as text for a snapshot. `url` is the service's URL.
#[track_caller]
pub(crate) fn shape(answer: &Answer, url: &str) -> String {
    let mut text = format!("{}\n", answer.status);
    for name in HEADERS {
        for value in answer.headers.get_all(name) {
            writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
        }
    }
    text.push('\n');
    let Ok(mut body) = serde_json::from_slice::<Value>(&answer.body) else {
        return text
            + if answer.body.is_empty() {
                "no body"
            } else {
                "[bytes]"
            };
    };
    let id = body["avatar_id"].as_str().map(str::to_owned);
    mask(&mut body, answer);
    text.push_str(&serde_json::to_string_pretty(&body).unwrap());
    let text = text.replace(url, "[url]");
    match id {
        Some(id) => text.replace(&id, "[avatar_id]"),
        None => text,
    }
}

#[track_caller]
fn mask(body: &mut Value, answer: &Answer) {
    if let Some(id) = body.get_mut("request_id") {
        assert_eq!(*id, answer.header("x-request-id"));
        *id = "[request_id]".into();
    }
    if let Some(id) = body.get("avatar_id").and_then(Value::as_str) {
        assert_eq!(id.len(), 26, "{id}");
        assert!(
            id.bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')),
            "{id}"
        );
    }
    if let Some(time) = body.pointer_mut("/metadata/uploaded_at") {
        let text = time.as_str().unwrap();
        assert_eq!(text.len(), "2026-01-31T09:30:00Z".len());
        assert!(text.ends_with('Z'));
        *time = "[time]".into();
    }
    for image in body
        .get_mut("images")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        // The size depends on the encoder, so only a minimum is checked.
        assert!(image["bytes"].as_u64().unwrap() > 50);
        image["bytes"] = "[bytes]".into();
    }
    if let Some(hash) = body.pointer_mut("/placeholder/thumbhash") {
        assert!((20..=40).contains(&hash.as_str().unwrap().len()));
        *hash = "[thumbhash]".into();
    }
}
