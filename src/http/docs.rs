//! Parts of the OpenAPI document that the annotations of the handlers refer to: schemas, tags,
//! security schemes, and the problems of each operation.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi, ToSchema};

use super::problem::{Code, ProblemBody, title};

/// The document before the routes are added.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cameo",
        description = "Avatar service: users upload one picture and get it in every size and format.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(ProblemBody, Code, UserId, Bytes)),
    modifiers(&Schemes),
    tags(
        (name = "avatars", description = "Upload, read and delete avatars"),
        (name = "moderation", description = "Lock avatars, and choose who sees private ones"),
        (name = "files", description = "Images, if the service delivers them itself"),
        (name = "operations", description = "Health, metrics and documentation"),
    ),
)]
pub(super) struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let cookie = ApiKeyValue::with_description("access_token", "The same token as a cookie");
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// An upload as a form.
#[derive(ToSchema)]
#[allow(dead_code)] // only a schema: the form is read part by part
pub(super) struct UploadForm {
    /// The picture. The part may also be called `image` or `avatar`.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: String,
    /// `x,y,width,height` in pixels of the upright picture.
    #[schema(example = "10,10,400,400")]
    crop: Option<String>,
}

/// A user id: 1 to 128 characters of `A-Z a-z 0-9 . _ ~ @ : + - |`, not only dots.
#[derive(ToSchema)]
#[schema(
    value_type = String,
    pattern = r"^\.*[A-Za-z0-9_~@:+|-][A-Za-z0-9._~@:+|-]*$",
    min_length = 1,
    max_length = 128,
    example = "42"
)]
#[allow(dead_code)] // only a schema
pub(super) struct UserId(String);

/// The bytes of an image.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code)] // only a schema
pub(super) struct Bytes(Vec<u8>);

/// The headers of a request for an image.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)] // only a schema: the handlers read the headers themselves
pub(super) struct ImageHeaders {
    /// The entity tags of the representations that the caller has
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
    /// Answer only a representation that has one of these entity tags
    #[param(rename = "If-Match")]
    if_match: Option<String>,
    /// One range of bytes
    #[param(rename = "Range", example = "bytes=0-1023")]
    range: Option<String>,
    /// The entity tag of the representation that the range belongs to
    #[param(rename = "If-Range")]
    if_range: Option<String>,
}

/// The responses to a successful request for an image.
pub(super) struct ImageResponses;

impl IntoResponses for ImageResponses {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let images = |description| {
            let mut response = ResponseBuilder::new().description(description);
            for kind in ["image/webp", "image/jpeg", "image/png"] {
                let bytes = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Bytes"))));
                response = response.content(kind, bytes);
            }
            response
        };
        let not_modified = ResponseBuilder::new().description("The caller has the image");
        [
            ("200", images("The image")),
            ("206", images("The range of the image")),
            ("304", not_modified),
        ]
        .into_iter()
        .map(|(status, response)| (status.to_owned(), RefOr::T(response.build())))
        .collect()
    }
}

/// Declares sets of problems that operations can answer.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: [$($code:ident),* $(,)?];)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                by_status(&[$(Code::$code),*])
            }
        }
    )*};
}

problems! {
    /// The problems of an upload.
    UploadProblems: [
        MissingFile, MalformedRequest, UnsupportedFormat, DimensionsTooSmall, DimensionsTooLarge,
        InvalidCrop, InvalidUserId, Unauthenticated, TokenExpired, Forbidden, CsrfRejected,
        AvatarLocked, RequestTimeout, Superseded, PreconditionFailed, FileTooLarge, UnsupportedMediaType,
        CorruptImage, TooManyPixels,
        TooManyFrames, TooComplex, Rejected, RateLimited, Internal, Overloaded, StorageUnavailable,
        CatalogUnavailable, IdentityUnavailable, ModerationUnavailable,
    ];
    /// The problems of a read.
    ReadProblems: [
        MalformedRequest, InvalidUserId, Unauthenticated, TokenExpired, AvatarNotFound,
        PreconditionFailed, RangeNotSatisfiable, Internal, StorageUnavailable, CatalogUnavailable,
        IdentityUnavailable,
    ];
    /// The problems of a request for an image that is always answered with one, unless it says
    /// otherwise.
    ShownProblems: [
        MalformedRequest, InvalidUserId, AvatarNotFound, PreconditionFailed, RangeNotSatisfiable,
        Internal, StorageUnavailable, CatalogUnavailable,
    ];
    /// The problems of a delete.
    DeleteProblems: [
        MalformedRequest, InvalidUserId, Unauthenticated, TokenExpired, Forbidden, CsrfRejected,
        AvatarNotFound, PreconditionFailed, RateLimited, Internal, StorageUnavailable,
        CatalogUnavailable, IdentityUnavailable,
    ];
    /// The problems of a new lock.
    LockProblems: [
        MalformedRequest, InvalidUserId, Unauthenticated, TokenExpired, Forbidden, CsrfRejected,
        RequestTimeout, FileTooLarge, UnsupportedMediaType, Internal, Overloaded,
        StorageUnavailable, CatalogUnavailable, IdentityUnavailable,
    ];
    /// The problems of another change of a lock or of viewers.
    PolicyProblems: [
        MalformedRequest, InvalidUserId, Unauthenticated, TokenExpired, Forbidden, CsrfRejected,
        Internal, Overloaded, StorageUnavailable, CatalogUnavailable, IdentityUnavailable,
    ];
    /// The problems of reading a lock.
    LockReadProblems: [
        InvalidUserId, Unauthenticated, TokenExpired, Forbidden, NotLocked, Internal,
        CatalogUnavailable, IdentityUnavailable,
    ];
    /// The problems of reading viewers.
    ViewerReadProblems: [
        InvalidUserId, Unauthenticated, TokenExpired, Forbidden, Internal, CatalogUnavailable,
        IdentityUnavailable,
    ];
    /// The problems of a lookup.
    LookupProblems: [
        MalformedRequest, InvalidUserId, Unauthenticated, TokenExpired, RequestTimeout, FileTooLarge,
        UnsupportedMediaType, Internal, CatalogUnavailable, IdentityUnavailable,
    ];
    /// The problems of reading statistics.
    StatisticsProblems: [
        Unauthenticated, TokenExpired, Forbidden, Internal, CatalogUnavailable, IdentityUnavailable,
    ];
    /// The problems of reading a file.
    FileProblems: [
        Forbidden, NotFound, PreconditionFailed, RangeNotSatisfiable, Internal, StorageUnavailable,
    ];
    /// The problems of reading the metrics.
    MetricsProblems: [NotFound, Internal];
    /// The problems of a route that can be switched off.
    NotFoundProblems: [NotFound];
}

/// The content type of a problem.
pub(super) const PROBLEM: &str = "application/problem+json";

fn by_status(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut statuses: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        let same = statuses.entry(code.status().as_u16()).or_default();
        same.push(*code);
    }
    let response = |(status, codes): (u16, Vec<Code>)| (status.to_string(), problem(&codes).into());
    statuses.into_iter().map(response).collect()
}

/// The response with a problem that has one of these codes.
pub(super) fn problem(codes: &[Code]) -> Response {
    let mut response = ResponseBuilder::new().build();
    add_codes(&mut response, codes);
    response
}

/// Adds the codes that a response does not list yet. A response that is no problem stays as it is.
pub(super) fn add_codes(response: &mut Response, codes: &[Code]) {
    if response.content.is_empty() {
        let body = Content::new(Some(RefOr::Ref(Ref::from_schema_name("ProblemBody"))));
        response.content.insert(PROBLEM.to_owned(), RefOr::T(body));
    }
    let Some(RefOr::T(body)) = response.content.get_mut(PROBLEM) else {
        return;
    };
    for code in codes {
        let name = code.name();
        if body.examples.contains_key(name) {
            continue;
        }
        let example = ExampleBuilder::new().value(Some(example(*code))).build();
        body.examples.insert(name.to_owned(), RefOr::T(example));
        if !response.description.is_empty() {
            response.description.push_str(", ");
        }
        response.description.extend(["`", name, "`"]);
    }
}

fn example(code: Code) -> Value {
    let status = code.status();
    let mut body = json!({
        "type": "about:blank",
        "title": title(status),
        "status": status.as_u16(),
        "code": code.name(),
        "detail": detail(code),
        "request_id": "hu2wnwr6uxrqzi7x3ftj5dpjeu",
    });
    if code == Code::AvatarLocked {
        body["reason"] = "spam".into();
        body["until"] = "2030-01-31T09:30:00Z".into();
    }
    body
}

/// An example of a problem's detail.
fn detail(code: Code) -> &'static str {
    match code {
        Code::MissingFile => "the form has no part named file, image or avatar",
        Code::DimensionsTooLarge => "3000 × 5000 px; at most 4096 px a side",
        Code::DimensionsTooSmall => "64 × 64 px; at least 100 px a side",
        Code::InvalidUserId => "a user id has 1 to 128 of A-Z a-z 0-9 . _ ~ @ : + - |",
        Code::Unauthenticated => "send a token: Authorization: Bearer …",
        Code::TokenExpired => "the token has expired",
        Code::Forbidden => "only the owner, a service or an admin may change an avatar",
        Code::AvatarLocked => "uploads for this user are locked until 2030-01-31T09:30:00Z: spam",
        Code::AvatarNotFound => "there is no avatar",
        Code::NotLocked => "there is no lock",
        Code::NotFound => "there is nothing at this address",
        Code::UnsupportedMediaType => {
            "found \"application/json\"; send multipart/form-data, or a picture as image/*"
        }
        Code::RangeNotSatisfiable => "the image has 9312 bytes, and none of them is in the range",
        Code::PreconditionFailed => "the current avatar is not the one that the request expects",
        Code::FileTooLarge => "6291456 bytes; at most 5242880",
        Code::RateLimited => {
            "the upload quota of this user is used up: 5 at once, then one every 12 s"
        }
        Code::Internal => "an internal error",
        Code::IdentityUnavailable => {
            "the keys that verify this token cannot be fetched now; try again later"
        }
        _ => "what was found and what is allowed",
    }
}
