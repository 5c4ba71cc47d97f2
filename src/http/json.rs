//! Small JSON bodies of requests, and JSON that no cache may keep.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::AppState;
use super::problem::{Code, Problem};

/// An answer that no cache may keep.
pub(super) fn fresh(body: impl IntoResponse) -> Response {
    ([(CACHE_CONTROL, "no-store")], body).into_response()
}

/// The largest body in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// The time limit of a body.
const MAX_TIME: Duration = Duration::from_secs(10);

/// A JSON body of at most [`MAX_BYTES`].
///
/// # Errors
/// 415 if the body is not declared as JSON, 413 if it is too large, 408 if it is too slow, 400 if it
/// is not the JSON that the route expects.
pub(super) struct SmallJson<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<AppState> for SmallJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, Problem> {
        let kind = request.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let detail = format!("found {essence:?}; send application/json");
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        let declared = request.headers().get(CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let too_large = || {
            let detail = format!("a body of at most {MAX_BYTES} bytes is expected");
            Problem::new(Code::FileTooLarge, detail)
        };
        if declared.is_some_and(|length| length > MAX_BYTES as u64) {
            return Err(too_large());
        }
        let read = async {
            let mut chunks = request.into_body().into_data_stream();
            let mut bytes = Vec::new();
            while let Some(chunk) = chunks.next().await {
                let ended = |_| Problem::new(Code::MalformedRequest, "the body ended early");
                bytes.extend_from_slice(&chunk.map_err(ended)?);
                if bytes.len() > MAX_BYTES {
                    return Err(too_large());
                }
            }
            Ok(bytes)
        };
        let Ok(bytes) = tokio::time::timeout(MAX_TIME, read).await else {
            let detail = format!("the body took more than {} s", MAX_TIME.as_secs());
            return Err(Problem::new(Code::RequestTimeout, detail));
        };
        let bytes = bytes?;
        // An object is asked for, because a list of the values in order would be accepted too.
        let parsed = serde_json::from_slice(&bytes)
            .map(Value::Object)
            .and_then(serde_json::from_value);
        parsed.map(Self).map_err(|error| {
            let detail = format!("the body is not the expected JSON: {error}");
            Problem::new(Code::MalformedRequest, detail)
        })
    }
}
