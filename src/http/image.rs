//! Responds with an image: whole, a range of it, its headers only, or 304.

use std::ops::RangeInclusive;

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::conditions::{self, RangeRequest, ReadCondition};
use super::problem::{Code, Problem};
use crate::avatar::ObjectKey;
use crate::service::{Held, NamedBy, RangedObject, Service};

/// The source of an image: the store, or a generator.
pub(super) trait ImageSource: Sync {
    /// The media type.
    fn content_type(&self) -> &'static str;

    /// The strong entity tag. It changes with the bytes.
    fn entity_tag(&self) -> String;

    /// Whether the image exists. This decides between 304 or 412 and 404, so a source that knows
    /// that an image should exist need not look for it.
    fn exists(&self) -> impl Future<Output = Result<bool, Problem>> + Send;

    /// The size in bytes; `None` if there is no image.
    fn size_bytes(&self) -> impl Future<Output = Result<Option<u64>, Problem>> + Send;

    /// The bytes and how many they are; `None` if there is no image.
    fn open(&self) -> impl Future<Output = Result<Option<(Body, u64)>, Problem>> + Send;

    /// The bytes at these offsets, as far as the image has them; `None` if there is no image.
    fn open_range(
        &self,
        range: RangeInclusive<u64>,
    ) -> impl Future<Output = Result<Option<ImageRange>, Problem>> + Send;
}

/// A range of an image.
pub(super) enum ImageRange {
    /// The image has no byte in the range.
    Unsatisfiable {
        /// The size of the whole image in bytes.
        total: u64,
    },
    /// The bytes in the range.
    Part {
        /// The offset of the first byte.
        first: u64,
        /// The number of bytes in the range.
        len: u64,
        /// The size of the whole image in bytes.
        total: u64,
        /// The bytes.
        body: Body,
    },
}

/// An image in the store.
pub(super) struct StoredImage<'a> {
    service: &'a Service,
    key: ObjectKey,
    named_by: NamedBy,
}

impl<'a> StoredImage<'a> {
    /// An image that a record names.
    pub(super) const fn of_record(service: &'a Service, key: ObjectKey) -> Self {
        Self {
            service,
            key,
            named_by: NamedBy::Record,
        }
    }

    /// An image that the path of a request names.
    pub(super) const fn at_path(service: &'a Service, key: ObjectKey) -> Self {
        Self {
            service,
            key,
            named_by: NamedBy::Path,
        }
    }

    async fn held(&self) -> Result<Held, Problem> {
        Ok(self.service.image(&self.key, self.named_by).await?)
    }
}

impl ImageSource for StoredImage<'_> {
    fn content_type(&self) -> &'static str {
        self.key.content_type()
    }

    fn entity_tag(&self) -> String {
        conditions::image_tag(&self.key)
    }

    async fn exists(&self) -> Result<bool, Problem> {
        match self.named_by {
            NamedBy::Record => Ok(true),
            NamedBy::Path => Ok(self.size_bytes().await?.is_some()),
        }
    }

    async fn size_bytes(&self) -> Result<Option<u64>, Problem> {
        match self.held().await? {
            Held::InMemory(bytes) => Ok(Some(bytes.len() as u64)),
            Held::InStore => Ok(self.service.size_of(&self.key).await?),
            Held::Missing => Ok(None),
        }
    }

    async fn open(&self) -> Result<Option<(Body, u64)>, Problem> {
        match self.held().await? {
            Held::InMemory(bytes) => {
                let len = bytes.len() as u64;
                return Ok(Some((Body::from(bytes), len)));
            }
            Held::InStore => {}
            Held::Missing => return Ok(None),
        }
        let object = self.service.open(&self.key).await?;
        Ok(object.map(|object| (Body::from_stream(object.body), object.len)))
    }

    async fn open_range(&self, range: RangeInclusive<u64>) -> Result<Option<ImageRange>, Problem> {
        match self.held().await? {
            Held::InMemory(bytes) => return Ok(Some(range_of(&bytes, range))),
            Held::InStore => {}
            Held::Missing => return Ok(None),
        }
        let found = self.service.open_range(&self.key, range).await?;
        Ok(found.map(|found| match found {
            RangedObject::Unsatisfiable { total } => ImageRange::Unsatisfiable { total },
            RangedObject::Part { first, total, part } => ImageRange::Part {
                first,
                len: part.len,
                total,
                body: Body::from_stream(part.body),
            },
        }))
    }
}

/// The bytes of an image in memory at these offsets, as far as the image has them.
pub(super) fn range_of(image: &Bytes, range: RangeInclusive<u64>) -> ImageRange {
    let total = image.len() as u64;
    let (first, end) = (*range.start(), range.end().saturating_add(1).min(total));
    if first >= end {
        return ImageRange::Unsatisfiable { total };
    }
    // Both are at most the length of the image.
    let part = image.slice(first as usize..end as usize);
    ImageRange::Part {
        first,
        len: end - first,
        total,
        body: Body::from(part),
    }
}

/// Responds to a `GET` or `HEAD` of an image, and evaluates the request's conditions and range:
/// 200, 206 or 304. `None` if there is no image.
///
/// # Errors
/// 412 if `If-Match` names other representations, 416 if the image has no byte in the range, and
/// the errors of the source.
pub(super) async fn respond(
    image: &impl ImageSource,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Response>, Problem> {
    let tag = image.entity_tag();
    let response = match conditions::of_read(headers, &tag) {
        ReadCondition::Holds => content(image, method, headers, &tag).await?,
        ReadCondition::NotModified => {
            let exists = image.exists().await?;
            exists.then(|| StatusCode::NOT_MODIFIED.into_response())
        }
        ReadCondition::Failed => {
            if image.exists().await? {
                return Err(conditions::other_representation());
            }
            None
        }
    };
    Ok(response.map(|mut response| {
        let headers = response.headers_mut();
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.extend(HeaderValue::from_str(&tag).map(|tag| (ETAG, tag)));
        response
    }))
}

/// The image as 200, or as 206 if a `GET` requests a single range.
async fn content(
    image: &impl ImageSource,
    method: &Method,
    headers: &HeaderMap,
    tag: &str,
) -> Result<Option<Response>, Problem> {
    // RFC 9110 defines ranges for GET alone.
    let is_head = *method == Method::HEAD;
    let range = if is_head {
        None
    } else {
        conditions::range(headers, tag)
    };
    let response = match range {
        None if is_head => {
            let total = image.size_bytes().await?;
            total.map(|total| with_length(Body::empty(), total))
        }
        None => {
            let found = image.open().await?;
            found.map(|(body, len)| with_length(body, len))
        }
        Some(range) => part(image, range).await?,
    };
    Ok(response.map(|mut response| {
        let kind = HeaderValue::from_static(image.content_type());
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }))
}

fn with_length(body: Body, len: u64) -> Response {
    ([(CONTENT_LENGTH, HeaderValue::from(len))], body).into_response()
}

async fn part(image: &impl ImageSource, range: RangeRequest) -> Result<Option<Response>, Problem> {
    let range = match range {
        RangeRequest::Offsets(range) => range,
        RangeRequest::Last(count) => {
            let Some(total) = image.size_bytes().await? else {
                return Ok(None);
            };
            if count == 0 {
                return Err(unsatisfiable(total));
            }
            total.saturating_sub(count)..=u64::MAX
        }
    };
    match image.open_range(range).await? {
        None => Ok(None),
        Some(ImageRange::Unsatisfiable { total }) => Err(unsatisfiable(total)),
        Some(ImageRange::Part {
            first,
            len,
            total,
            body,
        }) => {
            let last = first + len.saturating_sub(1);
            let mut response = with_length(body, len);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = HeaderValue::from_str(&format!("bytes {first}-{last}/{total}"));
            let headers = response.headers_mut();
            headers.extend(range.map(|range| (CONTENT_RANGE, range)));
            Ok(Some(response))
        }
    }
}

fn unsatisfiable(total: u64) -> Problem {
    let detail = format!("the image has {total} bytes, and none of them is in the range");
    Problem::new(Code::RangeNotSatisfiable, detail)
        .with_header(CONTENT_RANGE, &format!("bytes */{total}"))
}

#[cfg(test)]
mod tests {
    use axum::http::header::{IF_MATCH, IF_NONE_MATCH, RANGE};

    use super::*;

    /// An image that a generator draws: it is in memory and not in the store.
    struct Drawn(&'static [u8]);

    impl ImageSource for Drawn {
        fn content_type(&self) -> &'static str {
            "image/svg+xml"
        }

        fn entity_tag(&self) -> String {
            "\"drawn\"".to_owned()
        }

        async fn exists(&self) -> Result<bool, Problem> {
            Ok(true)
        }

        async fn size_bytes(&self) -> Result<Option<u64>, Problem> {
            Ok(Some(self.0.len() as u64))
        }

        async fn open(&self) -> Result<Option<(Body, u64)>, Problem> {
            Ok(Some((Body::from(self.0), self.0.len() as u64)))
        }

        async fn open_range(
            &self,
            range: RangeInclusive<u64>,
        ) -> Result<Option<ImageRange>, Problem> {
            Ok(Some(range_of(&Bytes::from_static(self.0), range)))
        }
    }

    async fn ask(
        method: Method,
        fields: &[(axum::http::HeaderName, &str)],
    ) -> Result<Response, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(name, value.parse().unwrap());
        }
        let response = respond(&Drawn(b"0123456789"), &method, &headers).await;
        response.map(Option::unwrap)
    }

    async fn body_of(response: Response) -> Vec<u8> {
        let body = axum::body::to_bytes(response.into_body(), 100).await;
        body.unwrap().to_vec()
    }

    #[tokio::test]
    async fn a_generated_image_is_answered_like_a_stored_one() {
        let whole = ask(Method::GET, &[]).await.unwrap();
        assert_eq!(whole.status(), 200);
        assert_eq!(whole.headers()[CONTENT_TYPE], "image/svg+xml");
        assert_eq!(whole.headers()[CONTENT_LENGTH], "10");
        assert_eq!(whole.headers()[ETAG], "\"drawn\"");
        assert_eq!(whole.headers()[ACCEPT_RANGES], "bytes");
        assert_eq!(body_of(whole).await, b"0123456789");

        let head = ask(Method::HEAD, &[(RANGE, "bytes=2-4")]).await.unwrap();
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers()[CONTENT_LENGTH], "10");
        assert_eq!(body_of(head).await, b"");

        let known = ask(Method::GET, &[(IF_NONE_MATCH, "\"drawn\"")]).await;
        let known = known.unwrap();
        assert_eq!(known.status(), 304);
        assert_eq!(known.headers()[ETAG], "\"drawn\"");
        let other = ask(Method::GET, &[(IF_MATCH, "\"other\"")]).await;
        assert_eq!(other.unwrap_err().code, Code::PreconditionFailed);
    }

    #[tokio::test]
    async fn ranges_of_a_generated_image_are_answered_like_those_of_a_stored_one() {
        for (range, content_range, bytes) in [
            ("bytes=2-4", "bytes 2-4/10", &b"234"[..]),
            ("bytes=8-99", "bytes 8-9/10", b"89"),
            ("bytes=-3", "bytes 7-9/10", b"789"),
        ] {
            let part = ask(Method::GET, &[(RANGE, range)]).await.unwrap();
            assert_eq!(part.status(), 206, "{range}");
            assert_eq!(part.headers()[CONTENT_RANGE], content_range);
            assert_eq!(body_of(part).await, bytes, "{range}");
        }
        for range in ["bytes=10-", "bytes=-0"] {
            let refused = ask(Method::GET, &[(RANGE, range)]).await.unwrap_err();
            assert_eq!(refused.code, Code::RangeNotSatisfiable, "{range}");
        }
    }
}
