//! `/api/v1/users/{user_id}/avatar`

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use tracing::{Instrument, error, info};

use super::App;
use super::docs::{DeleteProblems, ReadProblems, UploadForm, UploadProblems};
use super::dto::{Avatar, Deleted, SizeQuery};
use super::negotiate::{self, Accepts};
use super::permit::{Deleting, Permit, Permitted, Uploading, Whose};
use super::picture::Picture;
use super::problem::{Code, Problem};
use super::query::Asked;
use crate::avatar::{AvatarId, Format, ObjectKey, Record};
use crate::config::DeliveryMode;
use crate::service::{self, Size, Upload};

/// Upload or replace an avatar
///
/// The picture comes as the part `file`, `image` or `avatar` of a form, or as the bare bytes with
/// an `image/*` content type. Its name and declared type are ignored: the bytes decide. Without a
/// crop the largest centred square is taken.
#[utoipa::path(
    method(post, put),
    path = "/api/v1/users/{user_id}/avatar",
    operation_id = "upload_avatar",
    tag = "avatars",
    params(
        ("user_id" = String, Path, description = "A user id, or `me`: the token's subject"),
        ("crop" = Option<String>, Query, description = "`x,y,width,height` in pixels of the upright picture", example = "10,10,400,400"),
        ("If-Match" = Option<String>, Header, description = "Only replace the avatar with this entity tag; `*`: any"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only where there is no avatar yet"),
    ),
    request_body(content((UploadForm = "multipart/form-data"), (super::docs::Bytes = "image/*"))),
    responses((status = 200, description = "The avatar", body = Avatar), UploadProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn upload(
    State(app): State<App>,
    permit: Permit<Uploading>,
    headers: HeaderMap,
    picture: Picture,
) -> Result<Response, Problem> {
    let upload = Upload {
        subject: permit.subject.clone(),
        bytes: picture.bytes,
        crop: picture.crop,
        precondition: negotiate::precondition(&headers)?,
    };
    // Dropped with this handler, when the client hangs up. The upload is then given up, unless its
    // commit has begun: that, and the line that tells of it, come to their end.
    let (_waiting, hung_up) = oneshot::channel::<()>();
    let service = Arc::clone(&app.service);
    let subject = permit.subject.clone();
    let uploaded = to_the_end(async move {
        let given_up = async { drop(hung_up.await) };
        let uploaded = service.upload(picture.admission, upload, given_up).await;
        let uploaded = uploaded.map_err(Problem::from);
        audit(&permit, uploaded.as_ref().map(|record| record.avatar_id));
        uploaded
    });
    let record = uploaded.await?;
    let avatar = Avatar::of(&app.service, &subject, &record, &app.primary_size());
    Ok((
        [(ETAG, negotiate::etag(record.avatar_id))],
        Json(avatar.uploaded()),
    )
        .into_response())
}

/// Read an avatar
///
/// As JSON where `Accept` prefers it; otherwise the image itself, in the best format that is
/// accepted.
#[utoipa::path(
    get,
    path = "/api/v1/users/{user_id}/avatar",
    operation_id = "read_avatar",
    tag = "avatars",
    params(
        ("user_id" = String, Path, description = "A user id, or `me`: the token's subject"),
        SizeQuery,
        ("If-None-Match" = Option<String>, Header, description = "The entity tag of what the caller has"),
    ),
    responses(
        (status = 200, description = "The avatar, or its image", content(
            (Avatar = "application/json"),
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
        )),
        (status = 302, description = "The image's URL, where `delivery.mode` is `redirect`"),
        (status = 304, description = "The caller has it"),
        ReadProblems,
    ),
    security((), ("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn read(
    State(app): State<App>,
    whose: Whose,
    Asked(query): Asked<SizeQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let record = app.service.current(&whose.subject).await?;
    let size = query.choose(&record)?.unwrap_or_else(|| app.primary_size());
    let accepts = Accepts::of(&headers);
    let json = accepts.prefers_json();
    let mut response = if negotiate::has_already(&headers, record.avatar_id) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if json {
        Json(Avatar::of(&app.service, &whose.subject, &record, &size)).into_response()
    } else {
        image(&app, &record, &size, &accepts).await?
    };
    let cache = match (whose.is_me, json) {
        (true, _) => "private, no-cache".to_owned(),
        (false, true) => "no-cache".to_owned(),
        (false, false) => {
            let max_age = app.delivery.max_age.as_secs();
            format!("public, max-age={max_age}, stale-while-revalidate=86400")
        }
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    for (name, value) in [
        (ETAG, negotiate::etag(record.avatar_id)),
        (CACHE_CONTROL, cache),
    ] {
        headers.extend(HeaderValue::from_str(&value).map(|value| (name, value)));
    }
    Ok(response)
}

/// Delete an avatar
///
/// Every file of it is gone when this answers, and those of earlier avatars of the user that were
/// still kept.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{user_id}/avatar",
    operation_id = "delete_avatar",
    tag = "avatars",
    params(("user_id" = String, Path, description = "A user id, or `me`: the token's subject")),
    responses((status = 200, description = "It is gone", body = Deleted), DeleteProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn delete(
    State(app): State<App>,
    permit: Permit<Deleting>,
) -> Result<Json<Deleted>, Problem> {
    let service = Arc::clone(&app.service);
    let removed = to_the_end(async move {
        let removed = service.remove(&permit.subject).await;
        let removed = removed.map_err(Problem::from);
        audit(
            &permit,
            removed.as_ref().map(|removal| removal.record.avatar_id),
        );
        removed
    });
    let files_deleted = removed.await?.objects;
    Ok(Json(Deleted {
        message: "Avatar deleted successfully",
        files_deleted,
    }))
}

/// Does a change to its end, whether or not the client still waits for it.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    // It ends by itself: every step of it has a deadline of its own.
    match tokio::spawn(change.in_current_span()).await {
        Ok(done) => done,
        Err(died) => Err(service::Error::Internal(Box::new(died)).into()),
    }
}

/// The image in the best format that the reader takes, streamed or pointed to.
async fn image(
    app: &App,
    record: &Record,
    size: &Size,
    accepts: &Accepts,
) -> Result<Response, Problem> {
    let primary = record
        .renditions
        .first()
        .map_or(Format::Webp, |first| first.format);
    let mut formats: Vec<Format> = record.renditions.iter().map(|one| one.format).collect();
    formats.dedup();
    // Whoever takes none of them gets the primary one: a picture is a better answer than an error.
    let format = formats
        .into_iter()
        .find(|format| accepts.takes(*format))
        .unwrap_or(primary);
    let rendition = service::pick(record, size, format).or(record.renditions.first());
    let Some(rendition) = rendition else {
        return Err(Problem::new(Code::AvatarNotFound, "there is no avatar"));
    };
    let key = rendition.key(record.avatar_id);
    match app.delivery.mode {
        DeliveryMode::Redirect => {
            Ok((StatusCode::FOUND, [(LOCATION, app.service.url_of(&key))]).into_response())
        }
        DeliveryMode::Proxy => {
            if let Some(response) = object(app, &key).await? {
                return Ok(response);
            }
            app.metrics.missed_an_object();
            error!(%key, "a record names an object that is not there");
            Err(Problem::new(Code::AvatarNotFound, "there is no avatar"))
        }
    }
}

/// An object's bytes, as they are read from the store.
pub(super) async fn object(app: &App, key: &ObjectKey) -> Result<Option<Response>, Problem> {
    let Some(object) = app.service.open(key).await? else {
        return Ok(None);
    };
    let mut response = Body::from_stream(object.body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(key.content_type()));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(object.len));
    Ok(Some(response))
}

/// One line for every change, or attempt at one, by somebody who may.
fn audit<A: Permitted>(permit: &Permit<A>, outcome: Result<AvatarId, &Problem>) {
    let (avatar_id, outcome) = match outcome {
        Ok(avatar) => (Some(avatar), "done"),
        Err(problem) => (None, problem.code.name()),
    };
    info!(
        target: "cameo::audit",
        actor = permit.principal.name,
        role = ?permit.principal.role,
        subject = %permit.subject,
        action = A::ACTION.name(),
        avatar_id = avatar_id.map(tracing::field::display),
        request_id = permit.exchange.request_id(),
        outcome,
        "change"
    );
}
