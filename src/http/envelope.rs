//! What every response gets: an id, safe headers, rate-limit headers, problems in one shape, one
//! line in the log.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use futures_util::FutureExt;
use hyper::body::Body as _;
use tracing::{Instrument, debug, error, info, info_span};

use super::problem::{Code, Problem, ProblemBody, title};
use super::{AppState, cross_origin, drain, host};
use crate::avatar::AvatarId;
use crate::limits::{Action, Caller, Decision, Verdict};

/// Routes that machines ask again and again.
const WATCHED: [&str; 4] = ["/health", "/health/live", "/health/ready", "/metrics"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const NOSNIFF: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-content-type-options"),
    HeaderValue::from_static("nosniff"),
);

/// What a page may do: show itself, which is Swagger UI, and speak to this service. No page of
/// another site may frame it.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// What is known of one request, shared between the envelope and the extractors.
#[derive(Clone)]
pub(super) struct RequestContext(Arc<Inner>);

struct Inner {
    request_id: String,
    /// The change that is asked for.
    attempted: OnceLock<Action>,
    rate: OnceLock<(Caller, Decision)>,
}

impl RequestContext {
    /// The id that the request came with or was given.
    pub(super) fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// Has the answer counted as that of a change.
    pub(super) fn attempt(&self, action: Action) {
        let _ = self.0.attempted.set(action);
    }

    /// Has the answer tell how the caller's limit stands.
    pub(super) fn tell_rate(&self, caller: Caller, decision: Decision) {
        // The first limit that a request meets is the one that it is told.
        let _ = self.0.rate.set((caller, decision));
    }
}

/// The outermost layer.
pub(super) async fn wrap(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id = request_id(&request);
    let context = RequestContext(Arc::new(Inner {
        request_id,
        attempted: OnceLock::new(),
        rate: OnceLock::new(),
    }));
    request.extensions_mut().insert(context.clone());
    let method = request.method().clone();
    // The route, not the path: user ids have no place in every line of a log.
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
        // The documentation's files answer with nothing but a status.
        problem = problem.or(Some(Problem::new(
            Code::NotFound,
            "there is nothing at this address",
        )));
    }
    let code = problem.as_ref().map(|problem| problem.code.name());
    if let Some(problem) = problem {
        report(&problem);
        write(&mut response, problem, &context);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(context.request_id()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    if is_page(headers) {
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    }
    cross_origin::finish(&mut response);
    if let Some((caller, decision)) = context.0.rate.get() {
        tell_rate(&mut response, caller, decision);
    }
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    app.metrics
        .answered(method.as_str(), route, status, elapsed);
    if let Some(action) = context.0.attempted.get() {
        app.metrics.changed(action.name(), code.unwrap_or("done"));
    }
    let elapsed_ms = elapsed.as_millis() as u64;
    // Successful probes come every few seconds. They are logged at debug level.
    if response.status().is_success() && WATCHED.contains(&route) {
        debug!(target: "cameo::access", %method, route, status, code, elapsed_ms, "answered");
    } else {
        info!(target: "cameo::access", %method, route, status, code, elapsed_ms, "answered");
    }
    response
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/html"))
}

/// Gives an answer outside of the main routes the headers that every answer has.
pub(super) fn dress(request: &Request, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&request_id(request)) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    response
}

/// Answers a request outside of the main routes with a problem.
pub(super) fn refuse(request: &Request, problem: Problem) -> Response {
    let context = RequestContext(Arc::new(Inner {
        request_id: request_id(request),
        attempted: OnceLock::new(),
        rate: OnceLock::new(),
    }));
    let mut response = problem.code.status().into_response();
    write(&mut response, problem, &context);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(context.request_id()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    response
}

/// The id that a gateway gave, where it is harmless, or a new one.
fn request_id(request: &Request) -> String {
    let harmless = |id: &&str| {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    let given = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok());
    match given.filter(harmless) {
        Some(id) => id.to_owned(),
        None => AvatarId::random()
            .map(|bits| bits.to_string())
            .unwrap_or_default(),
    }
}

/// Logs what the operator should know of a problem.
fn report(problem: &Problem) {
    if let Some(cause) = &problem.cause {
        let mut chain = cause.to_string();
        let mut source = cause.source();
        while let Some(error) = source {
            chain.push_str(": ");
            chain.push_str(&error.to_string());
            source = error.source();
        }
        error!(code = ?problem.code, cause = chain, "{}", problem.detail);
    }
}

fn write(response: &mut Response, problem: Problem, context: &RequestContext) {
    let status = problem.code.status();
    let body = ProblemBody {
        kind: "about:blank",
        title: title(status).to_owned(),
        status: status.as_u16(),
        code: problem.code,
        detail: problem.detail,
        request_id: context.request_id().to_owned(),
    };
    // A struct of texts and numbers always becomes JSON.
    *response.body_mut() = Body::from(serde_json::to_vec(&body).unwrap_or_default());
    let headers = response.headers_mut();
    headers.remove(axum::http::header::CONTENT_LENGTH);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    let says_how_long = problem
        .headers
        .iter()
        .any(|(name, _)| name == CACHE_CONTROL);
    if matches!(status.as_u16(), 404 | 405) && !says_how_long {
        // Caches may keep an answer of these statuses that says nothing (RFC 9110, section 15.1).
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    headers.extend(problem.headers);
    if let Some(after) = problem.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    if let Some(challenge) = problem.challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
}

/// Sets `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10). The draft has
/// no word for GCRA, where `q` requests are possible at once and come back evenly over `w` seconds,
/// so that almost twice `q` fit into a span of `w`. Two parameters with the vendor's prefix, which
/// the draft allows, say so.
fn tell_rate(response: &mut Response, caller: &Caller, decision: &Decision) {
    let Decision { policy, quota, .. } = decision;
    let (remaining, next_in) = match decision.verdict {
        Verdict::Allowed { remaining, next_in } => (remaining, whole_seconds(next_in)),
        Verdict::Denied { retry_after } => (0, whole_seconds(retry_after)),
    };
    let (count, window) = (quota.count, quota.per.as_secs());
    let key = BASE64.encode(caller.name().as_bytes());
    let interval = quota.interval_in_seconds();
    let policy_line = format!(
        "\"{policy}\";q={count};w={window};pk=:{key}:;cameo-algorithm=\"gcra\";cameo-interval={interval}"
    );
    let state_line = format!("\"{policy}\";r={remaining};t={next_in};pk=:{key}:");
    if let (Ok(policy), Ok(state)) = (
        HeaderValue::from_str(&policy_line),
        HeaderValue::from_str(&state_line),
    ) {
        response.headers_mut().insert(RATE_LIMIT_POLICY, policy);
        response.headers_mut().insert(RATE_LIMIT, state);
    }
}

/// Rounded up: whoever comes back then does not come too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
