//! `/files/`: the public part of a folder store, served by the service itself.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::App;
use super::avatars::object;
use super::docs::FileProblems;
use super::negotiate;
use super::problem::{Code, Problem};
use crate::avatar::{ObjectKey, PUBLIC_ROOT};

/// Where the store's public objects are served.
pub(crate) const ROOT: &str = "/files";

/// Read an image
///
/// It never changes: every upload has addresses of its own.
#[utoipa::path(
    get,
    path = "/files/public/avatars/{avatar_id}/{file}",
    operation_id = "read_file",
    tag = "files",
    params(
        ("avatar_id" = String, Path, description = "The upload that it came from"),
        ("file" = String, Path, description = "Size and format", example = "medium.webp"),
    ),
    responses(
        (status = 200, description = "The image", content(
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
        )),
        (status = 304, description = "The caller has it"),
        FileProblems,
    ),
)]
pub(super) async fn read(
    State(app): State<App>,
    PublicFile(key): PublicFile,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Opened first: what is gone must not be told to be unchanged.
    let found = object(&app, &key).await?.ok_or_else(missing)?;
    let mut response = if negotiate::has_already(&headers, key.avatar()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        found
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(key.cache_control()));
    let etag = HeaderValue::from_str(&negotiate::etag(key.avatar()));
    headers.extend(etag.map(|etag| (ETAG, etag)));
    Ok(response)
}

/// The key that a path names, where anyone may read it.
pub(super) struct PublicFile(ObjectKey);

impl FromRequestParts<App> for PublicFile {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, app).await;
        let Path((avatar, file)) = path.map_err(|_| missing())?;
        let key = ObjectKey::parse(&format!("{PUBLIC_ROOT}/{avatar}/{file}"));
        key.map(Self).ok_or_else(missing)
    }
}

fn missing() -> Problem {
    Problem::new(Code::NotFound, "there is no such file")
}
