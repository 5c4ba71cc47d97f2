//! Error responses: `application/problem+json` (RFC 9457) with a stable code.
//!
//! A handler returns a [`Problem`]. The envelope makes the response body from it, because the
//! envelope knows the request's id, and logs its cause, once.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::Denied;
use crate::auth::TokenError;
use crate::avatar::{Lock, Timestamp};
use crate::service::{self, PictureError, StoreError};

/// The stable name of a problem, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names are the documentation
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
    AvatarLocked,
    AvatarNotFound,
    NotFound,
    NotLocked,
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
    Rejected,
    RateLimited,
    Internal,
    Overloaded,
    StorageUnavailable,
    CatalogUnavailable,
    IdentityUnavailable,
    ModerationUnavailable,
}

impl Code {
    /// The name in responses, metrics and logs.
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
            Self::AvatarLocked => "avatar_locked",
            Self::AvatarNotFound => "avatar_not_found",
            Self::NotFound => "not_found",
            Self::NotLocked => "not_locked",
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
            Self::Rejected => "rejected",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::Overloaded => "overloaded",
            Self::StorageUnavailable => "storage_unavailable",
            Self::CatalogUnavailable => "catalog_unavailable",
            Self::IdentityUnavailable => "identity_unavailable",
            Self::ModerationUnavailable => "moderation_unavailable",
        }
    }

    /// The status of every response with this code.
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
            Self::Forbidden | Self::CsrfRejected | Self::AvatarLocked => StatusCode::FORBIDDEN,
            Self::AvatarNotFound | Self::NotFound | Self::NotLocked => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Superseded => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::CorruptImage
            | Self::TooManyPixels
            | Self::TooManyFrames
            | Self::TooComplex
            | Self::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded
            | Self::StorageUnavailable
            | Self::CatalogUnavailable
            | Self::IdentityUnavailable
            | Self::ModerationUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) detail: String,
    pub(super) retry_after: Option<Duration>,
    /// The value of `WWW-Authenticate` (RFC 6750, section 3).
    pub(super) challenge: Option<Cow<'static, str>>,
    /// The reason of a lock or of moderation. The body has it.
    pub(super) reason: Option<Box<Reason>>,
    /// Further headers of the response.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The cause. It is logged, and the client does not see it.
    pub(super) cause: Option<Arc<dyn StdError + Send + Sync>>,
}

/// A reason that a moderator or a moderation service gives the user.
#[derive(Clone, Debug)]
pub(super) struct Reason {
    /// One line. It may be empty.
    pub(super) text: String,
    /// The end of the lock, if it has one.
    pub(super) until: Option<Timestamp>,
}

impl From<Lock> for Reason {
    fn from(lock: Lock) -> Self {
        let Lock { reason, until, .. } = lock;
        Self {
            text: reason,
            until,
        }
    }
}

impl Problem {
    /// A problem. `detail` tells the client what was found and what is allowed.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after: None,
            // Every 401 has a challenge. If the request has no token, the challenge names no error;
            // but it needs at least one parameter (RFC 6750, section 3).
            challenge: (code.status() == StatusCode::UNAUTHORIZED)
                .then_some(Cow::Borrowed("Bearer realm=\"cameo\"")),
            reason: None,
            headers: Vec::new(),
            cause: None,
        }
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub(super) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Sets `WWW-Authenticate`.
    #[must_use]
    pub(super) fn challenge(mut self, challenge: impl Into<Cow<'static, str>>) -> Self {
        self.challenge = Some(challenge.into());
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        let value = HeaderValue::from_str(value);
        self.headers.extend(value.map(|value| (name, value)));
        self
    }

    /// Sets the cause, which is logged.
    #[must_use]
    pub(super) fn caused_by(mut self, cause: impl StdError + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }
}

/// A problem's body.
#[derive(Serialize, ToSchema)]
#[schema(title = "Problem")]
pub(super) struct ProblemBody {
    /// Always `about:blank`: `code` is the type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// The problem's stable name, for programs.
    pub code: Code,
    /// A text for people: the value that was found, and the allowed values.
    pub detail: String,
    /// The request's id. The operator of the service finds the request in the logs by it.
    pub request_id: String,
    /// The reason of the lock, if the code is `avatar_locked`, or of moderation, if it is `rejected`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// The end of the lock, if the code is `avatar_locked` and the lock has an end: RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub until: Option<String>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The reason phrase of a status in RFC 9110, section 15. For two statuses the `http` crate has
/// those of earlier standards.
pub(super) fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
        StatusCode::UNPROCESSABLE_ENTITY => "Unprocessable Content",
        _ => status.canonical_reason().unwrap_or_default(),
    }
}

/// When a client should try again if the store, the catalog or the system fails.
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
            // The client has hung up and does not read this response.
            Error::GivenUp => Self::new(Code::RequestTimeout, text),
            Error::PreconditionFailed => Self::new(Code::PreconditionFailed, text),
            Error::Superseded => Self::new(Code::Superseded, text),
            Error::Locked(lock) => Self {
                reason: lock.map(|lock| Box::new(lock.into())),
                ..Self::new(Code::AvatarLocked, text)
            },
            Error::Rejected(reason) => Self {
                reason: Some(Box::new(Reason {
                    text: reason,
                    until: None,
                })),
                ..Self::new(Code::Rejected, text)
            },
            Error::ModerationUnavailable(cause) => Self::new(Code::ModerationUnavailable, text)
                .retry_after(DEPENDENCY_RETRY)
                .caused_by(cause),
            Error::NotLocked => Self::new(Code::NotLocked, text),
            Error::LockEnded | Error::TooManyViewers => Self::new(Code::MalformedRequest, text),
            Error::Contention => Self::new(Code::Overloaded, text).retry_after(DEPENDENCY_RETRY),
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
            // Work is cancelled when the client hangs up, and when the service shuts down. In the
            // second case a client reads this response.
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

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        service::Error::from(error).into()
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let problem = Self::new(Code::Forbidden, denied.to_string());
        match denied {
            Denied::MissingScope => problem.challenge(
                "Bearer realm=\"cameo\", error=\"insufficient_scope\", scope=\"avatars:write\"",
            ),
            Denied::MissingReadScope => problem.challenge(
                "Bearer realm=\"cameo\", error=\"insufficient_scope\", scope=\"avatars:read\"",
            ),
            Denied::NotOwner | Denied::NotOperator | Denied::NotStatistics => problem,
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Expired => Code::TokenExpired,
            TokenError::KeysUnavailable => {
                return Self::new(Code::IdentityUnavailable, error.to_string())
                    .retry_after(DEPENDENCY_RETRY);
            }
            TokenError::TooLarge
            | TokenError::Malformed
            | TokenError::Extension
            | TokenError::Issuer
            | TokenError::Algorithm
            | TokenError::UnknownKey
            | TokenError::Signature
            | TokenError::NotYetValid
            | TokenError::NoExpiry
            | TokenError::Audience
            | TokenError::Subject => Code::Unauthenticated,
        };
        let challenge = format!(
            "Bearer realm=\"cameo\", error=\"invalid_token\", error_description=\"{error}\""
        );
        Self::new(code, error.to_string()).challenge(challenge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_resources_is_overloaded_and_names_when_to_try_again() {
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
