//! What the SDK reports, reduced once to what anybody decides by.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::storage::StoreError;

/// Why S3 did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody answered, or not in time, or not to the end.
    #[error("no answer from s3")]
    NoAnswer(#[source] Box<dyn Error + Send + Sync>),
    /// It said no.
    #[error("{call}: {status} {code}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused {
        /// What was asked of it, by S3's name.
        call: &'static str,
        status: u16,
        /// S3's word for the reason; empty where it gave none.
        code: String,
        message: String,
        /// Where the bucket really is, where S3 told.
        region: Option<String>,
    },
    /// It answered something that makes no sense.
    #[error("s3 answered {0}")]
    Answer(&'static str),
    /// The bucket was deleted, and a task creates it again.
    #[error("the bucket was deleted and is created again")]
    Recovering,
}

impl Failure {
    /// Whether the object, and only the object, is not there.
    pub(super) fn is_missing_object(&self) -> bool {
        matches!(self, Self::Refused { status: 404, code, .. } if code != "NoSuchBucket")
    }

    /// Whether the same request may succeed a little later.
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
            Self::Answer(_) => false,
        }
    }

    /// S3's word for the reason.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    /// Whether it knows neither key nor secret, or not this one. Garage has one code for every
    /// refusal, and says the reason in words.
    pub(super) fn is_of_the_credentials(&self) -> bool {
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

    /// Whether it takes no bucket to be called so. Garage says this too in words alone.
    pub(super) fn is_of_the_bucket_name(&self) -> bool {
        matches!(self, Self::Refused { code, message, .. }
            if code == "InvalidBucketName" || message.contains("Invalid bucket name"))
    }

    /// The status that S3 answered with; 0 where it did not answer.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Refused { status, .. } => *status,
            _ => 0,
        }
    }

    pub(super) fn of(self, operation: &'static str) -> StoreError {
        if self.is_transient() {
            StoreError::passing(operation, self)
        } else {
            StoreError::new(operation, self)
        }
    }
}

/// Reduces what the SDK reports of a call, by S3's name for it.
pub(super) fn of_call<E>(call: &'static str) -> impl FnOnce(SdkError<E, HttpResponse>) -> Failure
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
        // An answer to HEAD has no body to say why.
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
