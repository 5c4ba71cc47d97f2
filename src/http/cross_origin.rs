//! Cross-origin access by browsers. Pages of the configured origins may read all responses of the
//! API; pages of any origin may read public images.

use std::time::Duration;

use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Marks a response that pages of any origin may read.
#[derive(Clone, Copy)]
struct AnyOrigin;

/// The layer that lets pages of the trusted origins call the API, with cookies.
pub(super) fn cors(trusted_origins: &[String]) -> CorsLayer {
    let origins = trusted_origins
        .iter()
        .filter_map(|origin| HeaderValue::from_str(origin).ok());
    let request_id = HeaderName::from_static("x-request-id");
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::ACCEPT,
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_RANGE,
            header::RANGE,
            request_id.clone(),
        ])
        .expose_headers([
            header::ACCEPT_RANGES,
            header::CONTENT_RANGE,
            header::ETAG,
            header::RETRY_AFTER,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            request_id,
        ])
        .max_age(Duration::from_hours(1))
}

/// Marks the response to a request for a public image: pages of any origin may read it.
pub(super) fn open_to_any_origin(response: &mut Response) {
    response.extensions_mut().insert(AnyOrigin);
}

/// Writes the headers of a marked response. It runs after [`cors`] and replaces the headers of that
/// layer, so that a cache keeps one copy for all origins.
pub(super) fn finish(response: &mut Response) {
    if response.extensions_mut().remove::<AnyOrigin>().is_none() {
        return;
    }
    let headers = response.headers_mut();
    headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
    do_not_vary_by_origin(headers);
}

fn do_not_vary_by_origin(headers: &mut HeaderMap) {
    let kept: Vec<_> = headers
        .get_all(header::VARY)
        .iter()
        .filter(|value| !value.as_bytes().eq_ignore_ascii_case(b"origin"))
        .cloned()
        .collect();
    headers.remove(header::VARY);
    for value in kept {
        headers.append(header::VARY, value);
    }
}
