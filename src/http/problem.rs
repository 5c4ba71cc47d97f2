//! Errors as the client sees them: `application/problem+json` (RFC 9457) with a stable code.
//!
//! A [`Problem`] is turned into its body by the envelope, which knows the request's id; what it
//! holds for the operator is logged there, once.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::TokenError;
use crate::service::{self, PictureError};

/// A stable name for what went wrong, for programs to decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names say it, and the details say the rest
pub(super) enum Code {
    MissingFile,
    MalformedRequest,
    UnsupportedFormat,
    DimensionsTooSmall,
    DimensionsTooLarge,
    InvalidCrop,
    InvalidUserId,
    Unauthenticated,
    TokenExpired,
    Forbidden,
    CsrfRejected,
    AvatarNotFound,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Superseded,
    PreconditionFailed,
    FileTooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    CorruptImage,
    TooManyPixels,
    TooManyFrames,
    TooComplex,
    RateLimited,
    Internal,
    Overloaded,
    StorageUnavailable,
    CatalogUnavailable,
}

impl Code {
    /// The name on the wire.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::MissingFile => "missing_file",
            Self::MalformedRequest => "malformed_request",
            Self::UnsupportedFormat => "unsupported_format",
            Self::DimensionsTooSmall => "dimensions_too_small",
            Self::DimensionsTooLarge => "dimensions_too_large",
            Self::InvalidCrop => "invalid_crop",
            Self::InvalidUserId => "invalid_user_id",
            Self::Unauthenticated => "unauthenticated",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::CsrfRejected => "csrf_rejected",
            Self::AvatarNotFound => "avatar_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Superseded => "superseded",
            Self::PreconditionFailed => "precondition_failed",
            Self::FileTooLarge => "file_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::CorruptImage => "corrupt_image",
            Self::TooManyPixels => "too_many_pixels",
            Self::TooManyFrames => "too_many_frames",
            Self::TooComplex => "too_complex",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::Overloaded => "overloaded",
            Self::StorageUnavailable => "storage_unavailable",
            Self::CatalogUnavailable => "catalog_unavailable",
        }
    }

    /// The status that the code always comes with.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::MissingFile
            | Self::MalformedRequest
            | Self::UnsupportedFormat
            | Self::DimensionsTooSmall
            | Self::DimensionsTooLarge
            | Self::InvalidCrop
            | Self::InvalidUserId => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::TokenExpired => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::CsrfRejected => StatusCode::FORBIDDEN,
            Self::AvatarNotFound | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Superseded => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::CorruptImage | Self::TooManyPixels | Self::TooManyFrames | Self::TooComplex => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded | Self::StorageUnavailable | Self::CatalogUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

/// What went wrong with a request.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) detail: String,
    pub(super) retry_after: Option<Duration>,
    /// What `WWW-Authenticate` says (RFC 6750, section 3).
    pub(super) challenge: Option<&'static str>,
    /// Further headers of the answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// For the log alone.
    pub(super) cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Problem {
    /// A problem, with what was found and what is allowed.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after: None,
            // Each 401 has a challenge. Without a token in the request there is no error to name,
            // but a challenge has at least one parameter (RFC 6750, section 3).
            challenge: (code.status() == StatusCode::UNAUTHORIZED)
                .then_some("Bearer realm=\"cameo\""),
            headers: Vec::new(),
            cause: None,
        }
    }

    /// Tells when to try again.
    #[must_use]
    pub(super) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Sets `WWW-Authenticate`.
    #[must_use]
    pub(super) fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        let value = HeaderValue::from_str(value);
        self.headers.extend(value.map(|value| (name, value)));
        self
    }

    pub(super) fn caused_by(mut self, cause: impl StdError + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }
}

/// A problem's body.
#[derive(Serialize, ToSchema)]
#[schema(title = "Problem")]
pub(super) struct ProblemBody {
    /// Always `about:blank`: the code says more than an address could.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: Code,
    /// What was found and what is allowed, for people.
    pub detail: String,
    /// The request's id, to be told to whoever runs the service.
    pub request_id: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The status in the words of RFC 9110, section 15. The `http` crate still has those of its
/// predecessors for two of them.
pub(super) fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
        StatusCode::UNPROCESSABLE_ENTITY => "Unprocessable Content",
        _ => status.canonical_reason().unwrap_or_default(),
    }
}

/// How long a caller is asked to leave a dependency that fails alone.
const DEPENDENCY_RETRY: Duration = Duration::from_secs(2);

impl From<service::Error> for Problem {
    fn from(error: service::Error) -> Self {
        use service::Error;
        let text = error.to_string();
        match error {
            Error::NotFound => Self::new(Code::AvatarNotFound, text),
            Error::Picture(error) => error.into(),
            Error::TooMuchMemory { .. } => Self::new(Code::TooManyPixels, text),
            Error::Overloaded { retry_after } => {
                Self::new(Code::Overloaded, text).retry_after(retry_after)
            }
            // Nobody is there to read it.
            Error::GivenUp => Self::new(Code::RequestTimeout, text),
            Error::PreconditionFailed => Self::new(Code::PreconditionFailed, text),
            Error::Superseded => Self::new(Code::Superseded, text),
            Error::TimedOut => Self::new(Code::StorageUnavailable, text)
                .retry_after(DEPENDENCY_RETRY)
                .caused_by(Error::TimedOut),
            Error::Storage(cause) => Self::new(Code::StorageUnavailable, text)
                .retry_after(DEPENDENCY_RETRY)
                .caused_by(cause),
            Error::Catalog(cause) => Self::new(Code::CatalogUnavailable, text)
                .retry_after(DEPENDENCY_RETRY)
                .caused_by(cause),
            Error::Internal(_) => Self::new(Code::Internal, text).caused_by(error),
        }
    }
}

impl From<PictureError> for Problem {
    fn from(error: PictureError) -> Self {
        use PictureError as Error;
        let code = match &error {
            Error::UnsupportedFormat { .. } => Code::UnsupportedFormat,
            Error::DimensionsTooSmall { .. } => Code::DimensionsTooSmall,
            Error::DimensionsTooLarge { .. } => Code::DimensionsTooLarge,
            Error::InvalidCrop { .. } => Code::InvalidCrop,
            Error::Corrupt { .. } => Code::CorruptImage,
            Error::TooManyPixels { .. } => Code::TooManyPixels,
            Error::TooManyFrames { .. } => Code::TooManyFrames,
            Error::TooComplex { .. } => Code::TooComplex,
            // Whoever gave up is not there to read this; the pool gives up when it closes.
            Error::Cancelled => {
                return Self::new(Code::Overloaded, "the service is shutting down")
                    .retry_after(DEPENDENCY_RETRY);
            }
            Error::Overloaded { reason } => {
                let cause = std::io::Error::other(reason.clone());
                return Self::new(Code::Overloaded, error.to_string())
                    .retry_after(DEPENDENCY_RETRY)
                    .caused_by(cause);
            }
            Error::Internal { reason } => {
                let cause = std::io::Error::other(reason.clone());
                return Self::new(Code::Internal, error.to_string()).caused_by(cause);
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let (code, challenge) = match error {
            TokenError::Expired => (
                Code::TokenExpired,
                "Bearer realm=\"cameo\", error=\"invalid_token\", \
                 error_description=\"the token has expired\"",
            ),
            TokenError::Invalid => (
                Code::Unauthenticated,
                "Bearer realm=\"cameo\", error=\"invalid_token\", \
                 error_description=\"the token is not valid\"",
            ),
        };
        Self::new(code, error.to_string()).challenge(challenge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_room_is_overloaded_and_says_when_to_try_again() {
        let error = PictureError::Overloaded {
            reason: "no process to be had".to_owned(),
        };
        let problem = Problem::from(service::Error::from(error));
        assert_eq!(problem.code, Code::Overloaded);
        assert_eq!(problem.code.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(problem.retry_after.is_some());
        assert!(!problem.detail.contains("process"), "{}", problem.detail);
        assert_eq!(problem.cause.unwrap().to_string(), "no process to be had");
    }
}
