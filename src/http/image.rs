//! An image as an answer: its bytes, a part of them, or only its headers.

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::conditions::{self, RangeRequest};
use super::problem::{Code, Problem};
use crate::avatar::ObjectKey;
use crate::service::RangedObject;

/// Answers an object: 200, or 206 where a `GET` asks for a single range. `None` where the store has
/// no such object.
///
/// # Errors
/// 416 where the object has no byte in the range, and those of the store.
pub(super) async fn answer(
    app: &AppState,
    key: &ObjectKey,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Response>, Problem> {
    let tag = conditions::image_tag(key);
    let asked = match *method {
        // RFC 9110 defines ranges for GET alone.
        Method::HEAD => None,
        _ => conditions::part(headers, &tag),
    };
    let response = match asked {
        None if *method == Method::HEAD => {
            let total = app.service.size_of(key).await?;
            total.map(|total| whole(Body::empty(), total))
        }
        None => {
            let object = app.service.open(key).await?;
            object.map(|object| whole(Body::from_stream(object.body), object.len))
        }
        Some(asked) => part(app, key, asked).await?,
    };
    Ok(response.map(|mut response| {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(key.content_type()));
        mark(headers, &tag);
        response
    }))
}

/// Says of an answer which image it is about, and that parts of it can be asked for.
pub(super) fn mark(headers: &mut HeaderMap, tag: &str) {
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.extend(HeaderValue::from_str(tag).map(|tag| (ETAG, tag)));
}

fn whole(body: Body, len: u64) -> Response {
    ([(CONTENT_LENGTH, HeaderValue::from(len))], body).into_response()
}

async fn part(
    app: &AppState,
    key: &ObjectKey,
    asked: RangeRequest,
) -> Result<Option<Response>, Problem> {
    let range = match asked {
        RangeRequest::Offsets(range) => range,
        RangeRequest::Last(count) => {
            let Some(total) = app.service.size_of(key).await? else {
                return Ok(None);
            };
            if count == 0 {
                return Err(unsatisfiable(total));
            }
            total.saturating_sub(count)..=u64::MAX
        }
    };
    match app.service.open_range(key, range).await? {
        None => Ok(None),
        Some(RangedObject::Unsatisfiable { total }) => Err(unsatisfiable(total)),
        Some(RangedObject::Part { first, total, part }) => {
            let last = first + part.len.saturating_sub(1);
            let mut response = whole(Body::from_stream(part.body), part.len);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = HeaderValue::from_str(&format!("bytes {first}-{last}/{total}"));
            let headers = response.headers_mut();
            headers.extend(range.map(|range| (CONTENT_RANGE, range)));
            Ok(Some(response))
        }
    }
}

fn unsatisfiable(total: u64) -> Problem {
    let detail = format!("the image has {total} bytes, and none of them in the range");
    Problem::new(Code::RangeNotSatisfiable, detail)
        .with_header(CONTENT_RANGE, &format!("bytes */{total}"))
}
