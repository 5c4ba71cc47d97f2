//! The adapter that asks a service over HTTP.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde::Deserialize;
use tokio::time::timeout;

use super::{Moderator, Submission, Verdict};
use crate::avatar::Timestamp;
use crate::config::Moderation;
use crate::outgoing::{self, Client, Signer, TlsError};

/// The largest answer. A verdict has some hundred bytes.
const MAX_ANSWER_BYTES: usize = 16 << 10;
/// The longest reason that is passed on. Further characters are cut off.
const MAX_REASON_CHARS: usize = 500;

const USER: HeaderName = HeaderName::from_static("x-cameo-user");
const AVATAR: HeaderName = HeaderName::from_static("x-cameo-avatar");

/// Why there is no verdict. The texts name the origin of the address, because its path and query may
/// be secret.
#[derive(Debug, thiserror::Error)]
pub enum ModerationError {
    /// The address is no address.
    #[error("moderation.url is not an http:// or https:// address")]
    Address,
    /// The client cannot be made.
    #[error("the HTTP client of moderation.url cannot be made")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// There was no complete answer in time.
    #[error("{origin} did not answer within {} ms", .limit.as_millis())]
    Timeout {
        /// The scheme, host and port of the address.
        origin: String,
        /// The time limit.
        limit: Duration,
    },
    /// The connection failed, or the certificate is not trusted.
    #[error("{origin} was not reached")]
    Connection {
        /// The scheme, host and port of the address.
        origin: String,
        /// The client's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer broke off.
    #[error("the answer of {origin} broke off")]
    Body {
        /// The scheme, host and port of the address.
        origin: String,
        /// The client's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The status of the answer is not 200.
    #[error("{origin} answered {status}")]
    Status {
        /// The scheme, host and port of the address.
        origin: String,
        /// The status.
        status: StatusCode,
    },
    /// The answer is too large.
    #[error("the answer of {origin} has more than {} KiB", MAX_ANSWER_BYTES >> 10)]
    TooLarge {
        /// The scheme, host and port of the address.
        origin: String,
    },
    /// The answer is no verdict.
    #[error("the answer of {origin} is no verdict")]
    NoVerdict {
        /// The scheme, host and port of the address.
        origin: String,
        /// The parser's error.
        #[source]
        source: serde_json::Error,
    },
}

/// The answer of the service. Further fields are ignored.
#[derive(Deserialize)]
struct Answer {
    verdict: Word,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Allow,
    Reject,
}

/// Asks the service at an address. Every request is signed, and has its own connection. A redirect is
/// no verdict and is not followed.
pub(crate) struct HttpModerator {
    uri: Uri,
    /// The scheme, host and port of the address.
    origin: String,
    signer: Signer,
    limit: Duration,
    client: Client<Full<Bytes>>,
}

impl HttpModerator {
    /// A moderator with these settings.
    ///
    /// # Errors
    /// [`ModerationError::Address`], [`ModerationError::Client`]
    pub(crate) fn new(settings: &Moderation) -> Result<Self, ModerationError> {
        let uri = outgoing::parse(&settings.url).ok_or(ModerationError::Address)?;
        let client = outgoing::client(None)
            .map_err(|error: TlsError| ModerationError::Client(error.into()))?;
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        Ok(Self {
            origin: format!("{}://{authority}", uri.scheme_str().unwrap_or_default()),
            uri,
            signer: Signer::new(&settings.secrets),
            limit: settings.timeout,
            client,
        })
    }

    /// The scheme, host and port of the address.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    fn request(&self, submission: &Submission) -> Request<Full<Bytes>> {
        let Submission {
            subject,
            avatar,
            part,
            format,
            bytes,
        } = submission;
        let mut request = Request::new(Full::new(bytes.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(outgoing::USER_AGENT));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        );
        for (name, text) in [(USER, subject.to_string()), (AVATAR, avatar.to_string())] {
            // User ids and avatar ids have only characters that a header may have.
            headers.extend(HeaderValue::from_str(&text).map(|value| (name, value)));
        }
        let id = format!("{avatar}-{}", part.name());
        let signature = self.signer.sign(id, Timestamp::now(), bytes);
        signature.add_to(headers);
        request
    }

    async fn exchange(&self, submission: &Submission) -> Result<Verdict, ModerationError> {
        let origin = || self.origin.clone();
        let response = self.client.request(self.request(submission)).await;
        let response = response.map_err(|error| ModerationError::Connection {
            origin: origin(),
            source: error.into(),
        })?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(ModerationError::Status {
                origin: origin(),
                status: head.status,
            });
        }
        let body = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(ModerationError::TooLarge { origin: origin() });
            }
            Err(source) => {
                return Err(ModerationError::Body {
                    origin: origin(),
                    source,
                });
            }
        };
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|source| ModerationError::NoVerdict {
                origin: origin(),
                source,
            })?;
        Ok(match answer.verdict {
            Word::Allow => Verdict::Allow,
            Word::Reject => Verdict::Reject(one_line(&answer.reason.unwrap_or_default())),
        })
    }
}

#[async_trait]
impl Moderator for HttpModerator {
    async fn judge(&self, submission: &Submission) -> Result<Verdict, ModerationError> {
        match timeout(self.limit, self.exchange(submission)).await {
            Ok(judged) => judged,
            Err(_) => Err(ModerationError::Timeout {
                origin: self.origin.clone(),
                limit: self.limit,
            }),
        }
    }
}

/// A reason as one line of at most [`MAX_REASON_CHARS`] characters. Runs of spaces, control characters
/// and characters that change the direction of text become one space.
fn one_line(reason: &str) -> String {
    let is_gap = |character: char| {
        let turns_text = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        character.is_whitespace() || character.is_control() || turns_text
    };
    let words: Vec<_> = reason
        .split(is_gap)
        .filter(|word| !word.is_empty())
        .collect();
    let line: String = words.join(" ").chars().take(MAX_REASON_CHARS).collect();
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
