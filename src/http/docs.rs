//! Parts of the OpenAPI document that the annotations of the handlers refer to: schemas, tags,
//! security schemes, and the problems of each operation.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

use super::problem::{Code, ProblemBody, title};

/// The document before the routes are added.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cameo",
        description = "Avatar service: users upload one picture and get it in every size and format.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(ProblemBody, Code, UserId)),
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
    /// The problems of reading a file.
    FileProblems: [
        Forbidden, NotFound, PreconditionFailed, RangeNotSatisfiable, Internal, StorageUnavailable,
    ];
    /// The problems of reading the metrics.
    MetricsProblems: [NotFound, Internal];
    /// The problems of every route.
    MalformedProblems: [MalformedRequest];
    /// The problems of a route that can be switched off.
    NotFoundProblems: [NotFound];
}

fn by_status(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut names: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in codes {
        names
            .entry(code.status().as_u16())
            .or_default()
            .push(code.name());
    }
    let response = |(status, names): (u16, Vec<&str>)| {
        let list: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let mut body = Content::new(Some(RefOr::Ref(Ref::from_schema_name("ProblemBody"))));
        for code in codes.iter().filter(|code| code.status().as_u16() == status) {
            let example = ExampleBuilder::new().value(Some(example(*code))).build();
            body.examples
                .insert(code.name().to_owned(), RefOr::T(example));
        }
        let response = ResponseBuilder::new()
            .description(list.join(", "))
            .content("application/problem+json", body)
            .build();
        (status.to_string(), RefOr::T(response))
    };
    names.into_iter().map(response).collect()
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
