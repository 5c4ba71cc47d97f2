//! A small HTTP client that fetches key sets.
//!
//! The address comes from the configuration or from the identity provider. So everything is bounded:
//! the time, the size, and the number of redirects. A redirect stays on the same origin.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, DATE, LOCATION, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use time::PrimitiveDateTime;
use time::macros::format_description;
use tokio::time::timeout;

use crate::config::PemFile;
use crate::outgoing::{self, Client, TlsError, USER_AGENT as AGENT};

/// The largest answer. Key sets have a few kilobytes.
const MAX_BYTES: usize = 256 << 10;
/// The largest number of redirects that are followed for one address.
const MAX_REDIRECTS: usize = 3;
/// How long one address may take, redirects included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why an address was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The text is no address.
    #[error("{0:?} is not an http:// or https:// address")]
    Address(String),
    /// There was no answer within 5 s.
    #[error("{address} did not answer within {} s", TIMEOUT.as_secs())]
    Timeout {
        /// The address.
        address: String,
    },
    /// The connection failed, or the certificate is not trusted.
    #[error("{address} was not reached")]
    Connection {
        /// The address.
        address: String,
        /// The client's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer broke off.
    #[error("the answer of {address} broke off")]
    Body {
        /// The address.
        address: String,
        /// The client's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The status of the answer is not 200.
    #[error("{address} answered {status}")]
    Status {
        /// The address.
        address: String,
        /// The status.
        status: StatusCode,
    },
    /// The answer is too large.
    #[error("the answer of {address} has more than {} KiB", MAX_BYTES >> 10)]
    TooLarge {
        /// The address.
        address: String,
    },
    /// The redirect leads to another scheme, host or port.
    #[error("{address} redirects to another origin, which is not followed: {target}")]
    ForeignRedirect {
        /// The address.
        address: String,
        /// The other origin.
        target: String,
    },
    /// The redirects do not end.
    #[error("{address} redirects more than {MAX_REDIRECTS} times")]
    TooManyRedirects {
        /// The address.
        address: String,
    },
    /// The redirect has no target, or one that cannot be read.
    #[error("{address} redirects without a valid target")]
    BadRedirect {
        /// The address.
        address: String,
    },
}

/// An answer.
pub(super) struct Fetched {
    pub(super) body: Bytes,
    /// The server's clock, in seconds since 1970, if it said so.
    pub(super) server_time: Option<i64>,
}

/// Fetches addresses.
#[derive(Clone)]
pub(super) struct Fetcher(Client<Empty<Bytes>>);

impl Fetcher {
    /// A client that trusts the authorities of the system, and those in `ca`.
    pub(super) fn new(ca: Option<&PemFile>) -> Result<Self, TlsError> {
        outgoing::client(ca).map(Self)
    }

    /// Fetches an address with GET. Only the status 200 is a success.
    pub(super) async fn get(&self, address: &str) -> Result<Fetched, FetchError> {
        match timeout(TIMEOUT, self.follow(address)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::Timeout {
                address: address.to_owned(),
            }),
        }
    }

    async fn follow(&self, start: &str) -> Result<Fetched, FetchError> {
        let mut uri =
            outgoing::parse(start).ok_or_else(|| FetchError::Address(start.to_owned()))?;
        for _ in 0..=MAX_REDIRECTS {
            let address = uri.to_string();
            let response =
                self.0
                    .request(request(&uri))
                    .await
                    .map_err(|error| FetchError::Connection {
                        address: address.clone(),
                        source: error.into(),
                    })?;
            let (head, body) = response.into_parts();
            if is_redirect(head.status) {
                uri = target(&uri, &head.headers)?;
                continue;
            }
            if head.status != StatusCode::OK {
                let status = head.status;
                return Err(FetchError::Status { address, status });
            }
            let body = match Limited::new(body, MAX_BYTES).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => {
                    return Err(FetchError::TooLarge { address });
                }
                Err(source) => return Err(FetchError::Body { address, source }),
            };
            return Ok(Fetched {
                body,
                server_time: server_time(&head.headers),
            });
        }
        let address = start.to_owned();
        Err(FetchError::TooManyRedirects { address })
    }
}

fn request(uri: &Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert(ACCEPT, http::HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, http::HeaderValue::from_static(AGENT));
    request
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The scheme, host and port of an address.
fn origin(uri: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let default = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    (
        uri.scheme_str(),
        uri.host().map(str::to_ascii_lowercase),
        Some(uri.port_u16().unwrap_or(default)),
    )
}

/// The address that a redirect leads to.
fn target(from: &Uri, headers: &HeaderMap) -> Result<Uri, FetchError> {
    let bad = || FetchError::BadRedirect {
        address: from.to_string(),
    };
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(bad)?;
    let (scheme, authority) = (from.scheme_str(), from.authority());
    let (scheme, authority) = (scheme.ok_or_else(bad)?, authority.ok_or_else(bad)?);
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let target = outgoing::parse(&absolute).ok_or_else(bad)?;
    if origin(&target) == origin(from) {
        return Ok(target);
    }
    Err(FetchError::ForeignRedirect {
        address: from.to_string(),
        target: format!(
            "{}://{}",
            target.scheme_str().unwrap_or_default(),
            target.authority().map_or("", http::uri::Authority::as_str)
        ),
    })
}

/// The time in the header `Date` (RFC 9110, section 5.6.7).
fn server_time(headers: &HeaderMap) -> Option<i64> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let text = headers.get(DATE)?.to_str().ok()?;
    let time = PrimitiveDateTime::parse(text, format).ok()?;
    Some(time.assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_time_of_the_server_is_read_from_its_date() {
        let of = |text: &'static str| {
            let headers = HeaderMap::from_iter([(DATE, HeaderValue::from_static(text))]);
            server_time(&headers)
        };
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for other in ["", "now", "Sunday, 06-Nov-94 08:49:37 GMT", "784111777"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(server_time(&HeaderMap::new()), None);
    }

    #[test]
    fn a_redirect_stays_on_the_scheme_host_and_port() {
        let from: Uri = "https://id.example.com/a/b?c".parse().unwrap();
        let to = |location: &'static str| {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]);
            target(&from, &headers).map(|uri| uri.to_string())
        };
        for (location, expected) in [
            ("/keys", "https://id.example.com/keys"),
            ("keys?v=1", "https://id.example.com/a/keys?v=1"),
            (
                "https://id.example.com:443/keys",
                "https://id.example.com:443/keys",
            ),
            ("https://ID.example.com/keys", "https://id.example.com/keys"),
            ("//id.example.com/keys", "https://id.example.com/keys"),
        ] {
            assert_eq!(to(location).unwrap().to_lowercase(), expected);
        }
        for foreign in [
            "http://id.example.com/keys",
            "https://id.example.com:8443/keys",
            "https://id.example.com.evil.example/keys",
            "https://example.com/keys",
            "//evil.example/keys",
        ] {
            let refused = to(foreign).unwrap_err();
            assert!(
                matches!(refused, FetchError::ForeignRedirect { .. }),
                "{foreign}"
            );
        }
        for nowhere in [
            "https://user@id.example.com/",
            "ftp://id.example.com/",
            "https://",
        ] {
            let refused = to(nowhere).unwrap_err();
            assert!(
                matches!(refused, FetchError::BadRedirect { .. }),
                "{nowhere}"
            );
        }
    }
}
