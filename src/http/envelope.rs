//! The outermost layer: it gives every request an id and a context, and every response its common
//! headers, the headers of rate limits, the body of a problem, and a line in the log.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use futures_util::FutureExt;
use hyper::body::Body as _;
use tracing::{Instrument, debug, error, info, info_span};

use super::context::RequestContext;
use super::problem::{Code, Problem, ProblemBody, title};
use super::{AppState, cross_origin, drain, host};
use crate::avatar::{Account, AvatarId};
use crate::config::AccessLog;
use crate::limits::{Decision, Verdict};
use crate::telemetry::{ACCESS_TARGET, chain};

/// A request that takes this long is slow.
const SLOW: Duration = Duration::from_secs(1);
/// Routes that monitoring requests every few seconds.
const PROBED: [&str; 4] = ["/health", "/health/live", "/health/ready", "/metrics"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const NOSNIFF: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-content-type-options"),
    HeaderValue::from_static("nosniff"),
);

/// The policy for pages, which are those of Swagger UI: they may load their own files and call this
/// service, and no page of another site may frame them.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// Handles a request from its first byte to the last byte of its response.
pub(super) async fn wrap(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let context = RequestContext::new(request_id(&request), app.audit.clone());
    request.extensions_mut().insert(context.clone());
    let method = request.method().clone();
    // The log has the route and not the path, because the path holds user ids.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let request = drain::when_dropped(request);

    let span = info_span!("request", request_id = context.request_id());
    let answered = async {
        match host::check(&request) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    let answered = AssertUnwindSafe(answered).catch_unwind();
    let mut response = match answered.instrument(span.clone()).await {
        Ok(response) => response,
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().copied();
            let said = said.or(panic.downcast_ref::<String>().map(String::as_str));
            let cause = std::io::Error::other(said.unwrap_or("a panic").to_owned());
            Problem::new(Code::Internal, "an internal error")
                .caused_by(cause)
                .into_response()
        }
    };
    let _entered = span.enter();
    let mut problem = response.extensions_mut().remove::<Problem>();
    if response.status() == StatusCode::NOT_FOUND && response.body().is_end_stream() {
        // The documentation's files answer 404 without a body.
        problem = problem.or(Some(Problem::new(
            Code::NotFound,
            "there is nothing at this address",
        )));
    }
    let code = problem.as_ref().map(|problem| problem.code.name());
    if let Some(problem) = problem {
        log_cause(&problem);
        write_problem(&mut response, problem, context.request_id());
    }
    let headers = response.headers_mut();
    add_common_headers(headers, context.request_id());
    if is_page(headers) {
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    }
    cross_origin::finish(&mut response);
    if let Some((account, decision)) = context.rate() {
        write_rate(response.headers_mut(), account, decision);
    }
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    app.metrics
        .answered(method.as_str(), route, status, elapsed);
    if let Some(code) = code {
        context.record_refusal(code);
    }
    if let Some(action) = context.attempted() {
        app.metrics.changed(action.name(), code.unwrap_or("done"));
    }
    let elapsed_ms = elapsed.as_millis() as u64;
    // Successful probes come every few seconds. They are logged at debug level.
    if response.status().is_success() && PROBED.contains(&route) {
        debug!(target: ACCESS_TARGET, %method, route, status, code, elapsed_ms, "answered");
    } else if is_logged(app.access_log, &method, status, elapsed) {
        info!(target: ACCESS_TARGET, %method, route, status, code, elapsed_ms, "answered");
    }
    response
}

/// Whether a request is logged.
fn is_logged(log: AccessLog, method: &Method, status: u16, elapsed: Duration) -> bool {
    match log {
        AccessLog::All => true,
        AccessLog::Nothing => false,
        AccessLog::Changes => !method.is_safe() || status >= 400 || elapsed >= SLOW,
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/html"))
}

/// Completes a response besides the main routes with the headers that every response has.
pub(super) fn finish(request: &Request, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    add_common_headers(response.headers_mut(), &request_id(request));
    response
}

/// Refuses a request besides the main routes with a problem.
pub(super) fn refuse(request: &Request, problem: Problem) -> Response {
    let request_id = request_id(request);
    let mut response = problem.code.status().into_response();
    write_problem(&mut response, problem, &request_id);
    add_common_headers(response.headers_mut(), &request_id);
    response
}

/// Adds the headers that every response has.
fn add_common_headers(headers: &mut HeaderMap, request_id: &str) {
    headers.extend(HeaderValue::from_str(request_id).map(|id| (REQUEST_ID, id)));
    headers.insert(NOSNIFF.0, NOSNIFF.1);
}

/// The id in the request's header if it is safe to log, or a new one.
fn request_id(request: &Request) -> String {
    let is_safe = |id: &&str| {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    let given = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok());
    match given.filter(is_safe) {
        Some(id) => id.to_owned(),
        None => new_request_id(),
    }
}

/// A new id: 128 random bits, like an avatar id.
///
/// Each thread keeps random bytes for the next requests, because asking the system takes longer than
/// answering a small request. An id is no secret.
fn new_request_id() -> String {
    const ID_BYTES: usize = 16;
    const KEPT_BYTES: usize = 64 * ID_BYTES;
    thread_local! {
        static KEPT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    KEPT.with_borrow_mut(|kept| {
        if kept.len() < ID_BYTES {
            kept.resize(KEPT_BYTES, 0);
            if getrandom::fill(kept).is_err() {
                kept.clear();
            }
        }
        let id = kept.split_off(kept.len().saturating_sub(ID_BYTES));
        let id = id.try_into().map(AvatarId::from_bytes);
        id.map(|id| id.to_string()).unwrap_or_default()
    })
}

/// Logs the cause of a problem, with all causes behind it.
fn log_cause(problem: &Problem) {
    if let Some(cause) = &problem.cause {
        let cause = chain(&**cause);
        error!(code = ?problem.code, %cause, "{}", problem.detail);
    }
}

/// Makes a response that of a problem: its headers and its body.
fn write_problem(response: &mut Response, problem: Problem, request_id: &str) {
    let status = problem.code.status();
    let until = problem.reason.as_ref().and_then(|reason| reason.until);
    let body = ProblemBody {
        kind: "about:blank",
        title: title(status).to_owned(),
        status: status.as_u16(),
        code: problem.code,
        detail: problem.detail,
        request_id: request_id.to_owned(),
        reason: problem.reason.map(|reason| reason.text),
        until: until.map(|until| until.to_string()),
    };
    // Strings and numbers can always be written as JSON.
    *response.body_mut() = Body::from(serde_json::to_vec(&body).unwrap_or_default());
    let headers = response.headers_mut();
    headers.remove(axum::http::header::CONTENT_LENGTH);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    let has_cache_control = problem
        .headers
        .iter()
        .any(|(name, _)| name == CACHE_CONTROL);
    if matches!(status.as_u16(), 404 | 405) && !has_cache_control {
        // Without the header, a cache may keep responses of these statuses (RFC 9110, section
        // 15.1).
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    headers.extend(problem.headers);
    if let Some(after) = problem.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    let challenge = problem.challenge.as_deref().map(HeaderValue::from_str);
    if let Some(Ok(challenge)) = challenge {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
}

/// Sets `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
///
/// The draft cannot describe GCRA, which allows `q` requests at once and restores them evenly over
/// `w` seconds, so that a span of `w` seconds can hold almost twice `q`. Two parameters with a
/// vendor prefix, which the draft permits, describe it.
fn write_rate(headers: &mut HeaderMap, account: &Account, decision: &Decision) {
    let Decision { policy, quota, .. } = decision;
    let (remaining, next_in) = match decision.verdict {
        Verdict::Allowed { remaining, next_in } => (remaining, whole_seconds(next_in)),
        Verdict::Denied { retry_after } => (0, whole_seconds(retry_after)),
    };
    let (count, window) = (quota.count, quota.per.as_secs());
    let key = BASE64.encode(account.name().as_bytes());
    let interval = quota.interval_in_seconds();
    let policy_line = format!(
        "\"{policy}\";q={count};w={window};pk=:{key}:;cameo-algorithm=\"gcra\";cameo-interval={interval}"
    );
    let state_line = format!("\"{policy}\";r={remaining};t={next_in};pk=:{key}:");
    if let (Ok(policy), Ok(state)) = (
        HeaderValue::from_str(&policy_line),
        HeaderValue::from_str(&state_line),
    ) {
        headers.insert(RATE_LIMIT_POLICY, policy);
        headers.insert(RATE_LIMIT, state);
    }
}

/// Whole seconds, rounded up, so that a client that waits for them is not too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_new_request_id_is_another_one() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| new_request_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 26));
    }

    #[test]
    fn changes_failures_and_slow_requests_are_logged_and_other_reads_only_if_all_are() {
        let fast = Duration::from_millis(1);
        for (method, status, elapsed, is_change) in [
            (Method::GET, 200, fast, false),
            (Method::HEAD, 304, fast, false),
            (Method::GET, 404, fast, true),
            (Method::GET, 200, SLOW, true),
            (Method::GET, 403, fast, true),
            (Method::GET, 503, fast, true),
            (Method::POST, 200, fast, true),
            (Method::DELETE, 404, fast, true),
        ] {
            let logged = |log| is_logged(log, &method, status, elapsed);
            assert_eq!(logged(AccessLog::Changes), is_change, "{method} {status}");
            assert!(logged(AccessLog::All) && !logged(AccessLog::Nothing));
        }
    }
}
