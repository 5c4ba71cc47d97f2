//! `/files/`: the public objects of a folder store, which the service delivers itself.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};

use super::docs::FileProblems;
use super::image::StoredImage;
use super::problem::{Code, Problem};
use super::{AppState, cross_origin, image};
use crate::access;
use crate::avatar::{ObjectKey, PUBLIC_ROOT};

/// The path under which the store's objects are delivered.
pub(crate) const ROOT: &str = "/files";

/// Read an image
///
/// An image never changes: every upload has URLs of its own.
#[utoipa::path(
    get,
    path = "/files/public/avatars/{avatar_id}/{file}",
    operation_id = "read_file",
    tag = "files",
    params(
        ("avatar_id" = String, Path, description = "The id of the upload that the image was made from"),
        ("file" = String, Path, description = "The variant and the format", example = "medium.webp"),
        ("If-None-Match" = Option<String>, Header, description = "The entity tags of the representations that the caller has"),
        ("Range" = Option<String>, Header, description = "One range of bytes", example = "bytes=0-1023"),
        ("If-Range" = Option<String>, Header, description = "The entity tag of the representation that the range belongs to"),
    ),
    responses(
        (status = 200, description = "The image", content(
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
        )),
        (status = 206, description = "The range of the image", content(
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
        )),
        (status = 304, description = "The caller has the image"),
        FileProblems,
    ),
)]
pub(super) async fn read(
    State(app): State<AppState>,
    file: Result<PublicFile, Problem>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let answered = async { answer(&app, file?.0, &method, &headers).await };
    let mut response = answered.await.into_response();
    cross_origin::open_to_any_origin(&mut response);
    response
}

async fn answer(
    app: &AppState,
    key: ObjectKey,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let cache = HeaderValue::from_static(key.cache_control());
    let image = StoredImage::at_path(&app.service, key);
    let response = image::respond(&image, method, headers).await?;
    let mut response = response.ok_or_else(missing)?;
    response.headers_mut().insert(CACHE_CONTROL, cache);
    Ok(response)
}

/// The key of an object that anyone may read, from the path.
///
/// # Errors
/// 404 if the path names no such object.
pub(super) struct PublicFile(ObjectKey);

impl FromRequestParts<AppState> for PublicFile {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, app).await;
        let Path((avatar, file)) = path.map_err(|_| missing())?;
        let key = ObjectKey::parse(&format!("{PUBLIC_ROOT}/{avatar}/{file}"));
        let key = key.filter(access::is_public);
        key.map(Self).ok_or_else(missing)
    }
}

fn missing() -> Problem {
    Problem::new(Code::NotFound, "there is no such file")
}
