//! `/files/`: the images that the service delivers itself.

use axum::extract::{FromRequestParts, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::docs::{FileProblems, ImageHeaders, ImageResponses};
use super::image::StoredImage;
use super::problem::{Code, Problem};
use super::query::Query;
use super::{AppState, cross_origin, image};
use crate::access::{FILES_ROOT, LinkState};
use crate::avatar::ObjectKey;

/// Read an image
///
/// An image never changes: every upload has URLs of its own. Where not everybody may see avatars, only
/// a signed URL works.
#[utoipa::path(
    get,
    path = "/files/public/avatars/{avatar_id}/{file}",
    operation_id = "read_file",
    tag = "files",
    params(FilePath, LinkQuery, ImageHeaders),
    responses(ImageResponses, FileProblems)
)]
pub(super) async fn read(
    State(app): State<AppState>,
    file: Result<LinkedFile, Problem>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let is_public = app.access.is_public();
    let answered = async { answer(&app, file?, &method, &headers).await };
    let mut response = answered.await.into_response();
    if is_public {
        cross_origin::open_to_any_origin(&mut response);
    }
    response
}

/// Read a private image
///
/// Where not everybody may see avatars, the images of new uploads have these URLs. The URLs in
/// answers are signed and end after a while.
#[utoipa::path(
    get,
    path = "/files/private/avatars/{avatar_id}/{file}",
    operation_id = "read_private_file",
    tag = "files",
    params(FilePath, LinkQuery, ImageHeaders),
    responses(ImageResponses, FileProblems)
)]
pub(super) async fn read_private(
    state: State<AppState>,
    file: Result<LinkedFile, Problem>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    read(state, file, method, headers).await
}

async fn answer(
    app: &AppState,
    file: LinkedFile,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let image = StoredImage::at_path(&app.service, file.key);
    let response = image::respond(&image, method, headers).await?;
    let mut response = response.ok_or_else(missing)?;
    let cache = HeaderValue::from_str(&file.cache);
    let headers = response.headers_mut();
    headers.extend(cache.map(|cache| (CACHE_CONTROL, cache)));
    Ok(response)
}

/// The path of an image, for the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code)] // only a schema: `LinkedFile` parses the path
struct FilePath {
    /// The id of the upload that the image was made from
    avatar_id: String,
    /// The variant and the format
    #[param(example = "medium.webp")]
    file: String,
}

/// The query of a signed link.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LinkQuery {
    /// The end of the link in Unix seconds.
    #[param(example = "1800000900")]
    expires: Option<String>,
    /// The signature of the link.
    signature: Option<String>,
}

/// An image that the link of the request may read.
///
/// # Errors
/// 404 if the path names no image, or if the link is not signed where it must be. This is the answer
/// for an image that does not exist, and the store is not asked. 403 if the link has ended.
pub(super) struct LinkedFile {
    key: ObjectKey,
    /// The value of `Cache-Control`.
    cache: String,
}

impl FromRequestParts<AppState> for LinkedFile {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let path = parts.uri.path().strip_prefix(FILES_ROOT);
        let key = path.and_then(|path| ObjectKey::parse(path.strip_prefix('/')?));
        let key = key.ok_or_else(missing)?;
        // A query that cannot be read has no signature.
        let query = Query::<LinkQuery>::from_request_parts(parts, app)
            .await
            .ok();
        let parameters = query.as_ref().and_then(|Query(query)| {
            Some((query.expires.as_deref()?, query.signature.as_deref()?))
        });
        match app.access.check_link(&key, parameters) {
            LinkState::Valid(_) if app.access.is_public() => Ok(Self {
                key,
                cache: "public, max-age=31536000, immutable".to_owned(),
            }),
            // A browser does not keep the image longer than its link works.
            LinkState::Valid(left) => Ok(Self {
                key,
                cache: format!("private, max-age={}", left.as_secs()),
            }),
            LinkState::Expired => Err(Problem::new(Code::Forbidden, "the link has ended")),
            LinkState::Forged => Err(missing()),
        }
    }
}

fn missing() -> Problem {
    Problem::new(Code::NotFound, "there is no such file")
}
