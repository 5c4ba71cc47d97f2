//! `/files/`: the public part of a folder store, served by the service itself.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::avatars::other_representation;
use super::conditions::{self, ReadCondition};
use super::docs::FileProblems;
use super::problem::{Code, Problem};
use super::{AppState, cross_origin, image};
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
        ("If-None-Match" = Option<String>, Header, description = "The entity tags of what the caller has"),
        ("Range" = Option<String>, Header, description = "One range of bytes", example = "bytes=0-1023"),
        ("If-Range" = Option<String>, Header, description = "The entity tag that the range is of"),
    ),
    responses(
        (status = 200, description = "The image", content(
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
        )),
        (status = 206, description = "The part of the image that `Range` asks for", content(
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
        )),
        (status = 304, description = "The caller has it"),
        FileProblems,
    ),
)]
pub(super) async fn read(
    State(app): State<AppState>,
    file: Result<PublicFile, Problem>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let answered = async { answer(&app, &file?.0, &method, &headers).await };
    let mut response = answered.await.into_response();
    cross_origin::open_to_any_origin(&mut response);
    response
}

async fn answer(
    app: &AppState,
    key: &ObjectKey,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let tag = conditions::image_tag(key);
    let mut response = match conditions::of_read(headers, &tag) {
        ReadCondition::Holds => {
            let found = image::answer(app, key, method, headers).await?;
            found.ok_or_else(missing)?
        }
        condition => {
            // A condition on an object that is gone is answered 404.
            app.service.size_of(key).await?.ok_or_else(missing)?;
            if condition == ReadCondition::Failed {
                return Err(other_representation());
            }
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            image::mark(response.headers_mut(), &tag);
            response
        }
    };
    let cache = HeaderValue::from_static(key.cache_control());
    response.headers_mut().insert(CACHE_CONTROL, cache);
    Ok(response)
}

/// The key that a path names, where anyone may read it.
pub(super) struct PublicFile(ObjectKey);

impl FromRequestParts<AppState> for PublicFile {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, app).await;
        let Path((avatar, file)) = path.map_err(|_| missing())?;
        let key = ObjectKey::parse(&format!("{PUBLIC_ROOT}/{avatar}/{file}"));
        key.map(Self).ok_or_else(missing)
    }
}

fn missing() -> Problem {
    Problem::new(Code::NotFound, "there is no such file")
}
