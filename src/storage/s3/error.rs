//! Maps the SDK's errors to the few facts by which this module decides.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::storage::StoreError;

/// The error of a call to S3.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There was no answer, or it was late or incomplete.
    #[error("no answer from s3")]
    NoAnswer(#[source] Box<dyn Error + Send + Sync>),
    /// S3 answered with an error.
    #[error("{call}: {status} {code}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused {
        /// S3's name of the call.
        call: &'static str,
        status: u16,
        /// S3's error code; empty if the answer has none.
        code: String,
        message: String,
        /// The region of the bucket, if the answer names it.
        region: Option<String>,
    },
    /// The answer is invalid.
    #[error("invalid answer from s3: {0}")]
    InvalidAnswer(&'static str),
    /// The bucket was deleted, and a task is creating it again.
    #[error("the bucket was deleted and is being created again")]
    Recovering,
}

impl Failure {
    /// Whether only the object is missing, not the bucket.
    pub(super) fn is_missing_object(&self) -> bool {
        matches!(self, Self::Refused { status: 404, code, .. } if code != "NoSuchBucket")
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::Recovering => true,
            Self::Refused { status, code, .. } => {
                matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
                    || matches!(
                        code.as_str(),
                        "SlowDown" | "RequestTimeout" | "OperationAborted"
                    )
            }
            Self::InvalidAnswer(_) => false,
        }
    }

    /// S3's error code; empty if there is none.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    /// Whether S3 refused the credentials. Garage has one code for every refusal, and gives the
    /// reason only in the message.
    pub(super) fn is_credentials_error(&self) -> bool {
        const CODES: [&str; 7] = [
            "InvalidAccessKeyId",
            "NotSignedUp",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "ExpiredToken",
            "TokenRefreshRequired",
            "InvalidSecurity",
        ];
        const WORDS: [&str; 2] = ["Forbidden: No such key", "Forbidden: Invalid signature"];
        match self {
            Self::Refused { code, message, .. } => {
                CODES.contains(&code.as_str())
                    || code == "AccessDenied"
                        && WORDS.iter().any(|words| message.starts_with(words))
            }
            _ => false,
        }
    }

    /// Whether S3 refused the name of the bucket. Garage says this only in the message.
    pub(super) fn is_bucket_name_error(&self) -> bool {
        matches!(self, Self::Refused { code, message, .. }
            if code == "InvalidBucketName" || message.contains("Invalid bucket name"))
    }

    /// The HTTP status of the answer; 0 if there was no answer.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Refused { status, .. } => *status,
            _ => 0,
        }
    }

    /// The error of the port for `operation`.
    pub(super) fn into_error(self, operation: &'static str) -> StoreError {
        if self.is_transient() {
            StoreError::transient(operation, self)
        } else {
            StoreError::new(operation, self)
        }
    }
}

/// Maps an SDK error. `call` is S3's name of the call.
pub(super) fn sdk_error<E>(call: &'static str) -> impl FnOnce(SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    move |error| {
        let Some(response) = error.raw_response() else {
            return Failure::NoAnswer(error.into());
        };
        let status = response.status().as_u16();
        let region = response.headers().get("x-amz-bucket-region");
        let region = region.map(str::to_owned);
        // An answer to HEAD has no body, so it has no code.
        let code = error.code().unwrap_or_default().to_owned();
        let message = error.message().unwrap_or_default().to_owned();
        Failure::Refused {
            call,
            status,
            code,
            message,
            region,
        }
    }
}
