//! `/api/v1/users/{user_id}/avatar`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::conditions::{self, ReadCondition};
use super::docs::{DeleteProblems, ReadProblems, UploadForm, UploadProblems};
use super::dto::{Avatar, Deleted, SizeQuery};
use super::image::StoredImage;
use super::negotiate::Accepts;
use super::permit::{Deleting, Permit, Uploading};
use super::picture::Picture;
use super::problem::{Code, Problem};
use super::query::Query;
use super::target::ReadTarget;
use super::{AppState, cross_origin, image};
use crate::access;
use crate::avatar::{ObjectKey, Record, Rendition};
use crate::config::DeliveryMode;
use crate::service::{self, Current, Size, Upload};

/// Upload or replace an avatar
///
/// The picture is the part `file`, `image` or `avatar` of a form, or the whole body with an
/// `image/*` content type. The service ignores its name and its declared type and recognises the
/// format by the bytes. Without a crop it uses the largest centred square.
///
/// Conditions are checked before the body is read and before the request counts against a rate
/// limit, and again in the step that makes the upload the current avatar.
#[utoipa::path(
    method(post, put),
    path = "/api/v1/users/{user_id}/avatar",
    operation_id = "upload_avatar",
    tag = "avatars",
    params(
        ("user_id" = String, Path, description = "A user id, or `me`: the token's subject"),
        ("crop" = Option<String>, Query, description = "`x,y,width,height` in pixels of the upright picture", example = "10,10,400,400"),
        ("If-Match" = Option<String>, Header, description = "Replace the avatar only if one of its representations has one of these entity tags; `*`: only if there is an avatar"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: upload only if there is no avatar yet. An upload does not support a list of entity tags here; the answer is 400"),
    ),
    request_body(content((UploadForm = "multipart/form-data"), (super::docs::Bytes = "image/*"))),
    responses((status = 200, description = "The avatar", body = Avatar), UploadProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn upload(
    State(app): State<AppState>,
    permit: Permit<Uploading>,
    picture: Picture,
) -> Result<Response, Problem> {
    let upload = Upload {
        subject: permit.subject.clone(),
        bytes: picture.bytes,
        crop: picture.crop,
        precondition: permit.precondition.clone(),
        uploader: access::uploader(&permit.principal),
    };
    // This handler is dropped when the client hangs up, and this sender with it. The upload is then
    // given up, unless its commit has begun. The commit and its audit record always complete.
    let (_connected, hung_up) = oneshot::channel::<()>();
    let service = Arc::clone(&app.service);
    let subject = permit.subject.clone();
    let uploaded = run_to_end(async move {
        let given_up = async { drop(hung_up.await) };
        let uploaded = service.upload(picture.admission, upload, given_up).await;
        let uploaded = uploaded.map_err(Problem::from);
        let outcome = uploaded.as_ref().map(|record| Some(record.avatar_id));
        permit.context.record(outcome);
        uploaded
    });
    let record = uploaded.await?;
    let links = app.access.links_of(&record).await?;
    let avatar = Avatar::of(&links, &subject, &record, &app.primary_size());
    let mut response = Json(avatar.uploaded()).into_response();
    let headers = response.headers_mut();
    if app.access.is_public() {
        let tag = HeaderValue::from_str(&conditions::json_tag(record.avatar_id, None));
        headers.extend(tag.map(|tag| (ETAG, tag)));
    } else {
        headers.insert(CACHE_CONTROL, PRIVATE);
    }
    Ok(response)
}

/// Read an avatar
///
/// The answer is JSON if `Accept` prefers it; otherwise it is the image itself, in the best format
/// that `Accept` allows. JSON, JSON with `?size=`, and each image have entity tags of their own.
///
/// The setting `delivery.access` decides who may see an avatar. Unless it is `public`, a caller
/// without a token is answered 401, and a caller who may not see the avatar is answered as if there
/// were none. The URLs in the JSON then end after `delivery.url_ttl`, and the JSON has no entity tag.
#[utoipa::path(
    get,
    path = "/api/v1/users/{user_id}/avatar",
    operation_id = "read_avatar",
    tag = "avatars",
    params(
        ("user_id" = String, Path, description = "A user id, or `me`: the token's subject"),
        SizeQuery,
        ("If-None-Match" = Option<String>, Header, description = "The entity tags of the representations that the caller has"),
        ("If-Match" = Option<String>, Header, description = "Answer only a representation that has one of these entity tags"),
        ("Range" = Option<String>, Header, description = "One range of bytes of the image. JSON is always complete", example = "bytes=0-1023"),
        ("If-Range" = Option<String>, Header, description = "The entity tag of the representation that the range belongs to"),
    ),
    responses(
        (status = 200, description = "The avatar, or its image", content(
            (Avatar = "application/json"),
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
        )),
        (status = 206, description = "The range of the image", content(
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
        )),
        (status = 302, description = "The URL of the image, if `delivery.mode` is `redirect`"),
        (status = 304, description = "The caller has the representation"),
        ReadProblems,
    ),
    security((), ("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn read(
    State(app): State<AppState>,
    target: ReadTarget,
    Query(query): Query<SizeQuery>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let accepts = Accepts::of(&headers);
    let shown = if accepts.prefers_json() {
        Shown::Json
    } else {
        Shown::Image
    };
    let is_private = target.is_me || !app.access.is_public();
    let cache = match (is_private, shown) {
        // The permission is checked again at every use.
        (true, _) => "private, no-cache".to_owned(),
        (false, Shown::Json) => "no-cache".to_owned(),
        (false, Shown::Image) => {
            let max_age = app.delivery.max_age.as_secs();
            format!("public, max-age={max_age}, stale-while-revalidate=60")
        }
    };
    let is_public_image = !is_private && shown == Shown::Image;
    let reading = Reading {
        app,
        target,
        query,
        accepts,
        method,
        headers,
    };
    let mut response = match reading.answer(shown).await {
        Ok(mut response) => {
            let headers = response.headers_mut();
            headers.insert(VARY, HeaderValue::from_static("Accept"));
            headers.extend(HeaderValue::from_str(&cache).map(|value| (CACHE_CONTROL, value)));
            response
        }
        // Caches keep this answer for as long as they keep an avatar. So a first upload is visible
        // as soon as a later one is.
        Err(problem) if problem.code == Code::AvatarNotFound => problem
            .with_header(VARY, "Accept")
            .with_header(CACHE_CONTROL, &cache)
            .into_response(),
        Err(problem) => problem.into_response(),
    };
    if is_public_image {
        cross_origin::open_to_any_origin(&mut response);
    }
    response
}

/// The `Cache-Control` of an answer that only its caller may see.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The form of the answer to a read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Json,
    Image,
}

/// A read of an avatar.
struct Reading {
    app: AppState,
    target: ReadTarget,
    query: SizeQuery,
    accepts: Accepts,
    method: Method,
    headers: HeaderMap,
}

impl Reading {
    async fn answer(self, shown: Shown) -> Result<Response, Problem> {
        let app = &self.app;
        let Self { target, .. } = &self;
        let record = app
            .service
            .current_for(&target.subject, &target.sight)
            .await?;
        let size = self.query.choose(&record)?;
        match shown {
            Shown::Json => {
                if !app.access.is_public() {
                    // Signed URLs end, so a client must not use an earlier answer again.
                    return self.json(&record, size).await;
                }
                let tag = conditions::json_tag(record.avatar_id, size.as_ref());
                let mut response = match conditions::of_read(&self.headers, &tag) {
                    ReadCondition::Holds => self.json(&record, size).await?,
                    ReadCondition::NotModified => StatusCode::NOT_MODIFIED.into_response(),
                    ReadCondition::Failed => return Err(conditions::other_representation()),
                };
                let tag = HeaderValue::from_str(&tag);
                response.headers_mut().extend(tag.map(|tag| (ETAG, tag)));
                Ok(response)
            }
            Shown::Image => {
                let size = size.unwrap_or_else(|| app.primary_size());
                self.image(&record, &size).await
            }
        }
    }

    async fn json(&self, record: &Current, size: Option<Size>) -> Result<Response, Problem> {
        let is_prepared = self.app.access.is_public() && size.is_none();
        if let Some(body) = record.body().filter(|_| is_prepared) {
            return Ok(json(body));
        }
        let size = size.unwrap_or_else(|| self.app.primary_size());
        let links = self.app.access.links_of(record).await?;
        let avatar = Avatar::of(&links, &self.target.subject, record, &size);
        let body = serde_json::to_vec(&avatar)
            .map_err(|error| Problem::new(Code::Internal, "an internal error").caused_by(error))?;
        Ok(json(if is_prepared {
            record.keep_body(body.into())
        } else {
            body.into()
        }))
    }

    /// The image in the best format that the reader accepts: its bytes, or a redirect to its URL.
    async fn image(&self, record: &Record, size: &Size) -> Result<Response, Problem> {
        let app = &self.app;
        let missing = || Problem::new(Code::AvatarNotFound, "there is no avatar");
        let rendition = best(record, size, &self.accepts).ok_or_else(missing)?;
        let key = ObjectKey::of_rendition(record, rendition);
        if app.delivery.mode == DeliveryMode::Redirect {
            // The conditions are about the image, which another URL answers.
            let location = [(LOCATION, app.access.link_to(&key).await?)];
            return Ok((StatusCode::FOUND, location).into_response());
        }
        let image = StoredImage::of_record(&app.service, key);
        if let Some(response) = image::respond(&image, &self.method, &self.headers).await? {
            return Ok(response);
        }
        app.metrics.missed_an_object();
        Err(missing())
    }
}

/// A response with a JSON body.
fn json(body: Bytes) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, kind)], body).into_response()
}

/// The rendition of `size` in the stored format that the reader prefers. If the reader accepts none,
/// it is in the primary format, because an image is a better answer than an error.
fn best<'a>(record: &'a Record, size: &Size, accepts: &Accepts) -> Option<&'a Rendition> {
    let primary = record.renditions.first()?;
    let formats = record.renditions.iter().map(|one| one.format);
    let format = accepts.best(formats).unwrap_or(primary.format);
    Some(service::pick(record, size, format).unwrap_or(primary))
}

/// Delete an avatar
///
/// The service answers after it has removed every file of the avatar, and the files of the user's
/// earlier avatars that were still kept. `If-Match` is checked before the request counts against a
/// rate limit.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{user_id}/avatar",
    operation_id = "delete_avatar",
    tag = "avatars",
    params(
        ("user_id" = String, Path, description = "A user id, or `me`: the token's subject"),
        ("If-Match" = Option<String>, Header, description = "Delete the avatar only if one of its representations has one of these entity tags; `*`: only if there is an avatar"),
    ),
    responses((status = 200, description = "The avatar is deleted", body = Deleted), DeleteProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn delete(
    State(app): State<AppState>,
    permit: Permit<Deleting>,
) -> Result<Json<Deleted>, Problem> {
    let service = Arc::clone(&app.service);
    let removed = run_to_end(async move {
        let removed = service.remove(&permit.subject, &permit.precondition).await;
        let removed = removed.map_err(Problem::from);
        let outcome = removed
            .as_ref()
            .map(|removal| Some(removal.record.avatar_id));
        permit.context.record(outcome);
        removed
    });
    let files_deleted = removed.await?.objects;
    Ok(Json(Deleted {
        message: "Avatar deleted successfully",
        files_deleted,
    }))
}

/// Runs a change to its end, even if the client hangs up meanwhile.
pub(super) async fn run_to_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    // The task needs no owner: each of its steps has a deadline.
    match tokio::spawn(change.in_current_span()).await {
        Ok(done) => done,
        Err(died) => Err(service::Error::Internal(Box::new(died)).into()),
    }
}
