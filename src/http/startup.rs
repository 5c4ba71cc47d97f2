//! Responses besides the main routes: while the program starts, and above the connection limit.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::dependencies::Dependencies;
use super::envelope;
use super::health::{self, Overview, Ready};
use super::problem::{Code, Problem};
use super::readiness::{Needed, Startup};

/// When a client should try again during startup or above the connection limit.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The routes while the program starts. Its liveness is good, the other health checks say what the
/// program waits for, and everything else is answered 503.
pub fn starting_router(startup: &Arc<Startup>) -> Router {
    let [ready, alias, overview, refused] = [0; 4].map(|_| Arc::clone(startup));
    let refuse = async move |request: Request| refuse_while_starting(&request, refused.waiting());
    Router::new()
        .route(
            "/health/live",
            get(async |request: Request| {
                let live = health::live().await;
                envelope::finish(&request, live)
            }),
        )
        .route(
            "/health/ready",
            get(async move |request: Request| {
                envelope::finish(&request, not_ready(ready.waiting()))
            }),
        )
        .route(
            "/health",
            get(async move |request: Request| {
                envelope::finish(&request, not_ready(alias.waiting()))
            }),
        )
        .route(
            "/health/avatar",
            get(async move |request: Request| {
                envelope::finish(&request, unhealthy(overview.waiting()))
            }),
        )
        .method_not_allowed_fallback(refuse.clone())
        .fallback(refuse)
}

fn refuse_while_starting(request: &Request, waiting: Needed) -> Response {
    let (code, needed) = match waiting {
        Needed::Catalog => (Code::CatalogUnavailable, "catalog"),
        Needed::Store => (Code::StorageUnavailable, "store"),
    };
    let detail = format!("the service is starting and waits for its {needed}");
    let problem = Problem::new(code, detail).retry_after(RETRY_AFTER);
    envelope::refuse(request, problem)
}

/// Says what the program waits for.
fn reason(waiting: Needed) -> String {
    let needed = match waiting {
        Needed::Catalog => "catalog",
        Needed::Store => "store",
    };
    format!("waiting for the {needed}")
}

fn not_ready(waiting: Needed) -> Response {
    let (store, catalog) = match waiting {
        Needed::Catalog => ("unknown", "unavailable"),
        Needed::Store => ("unavailable", "unknown"),
    };
    let dependencies = Dependencies {
        store,
        catalog,
        public_read: "unknown",
        reasons: vec![reason(waiting)],
    };
    let ready = Ready {
        status: "not_ready",
        dependencies,
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(ready)).into_response()
}

fn unhealthy(waiting: Needed) -> Response {
    let overview = Overview {
        status: "unhealthy",
        config_valid: true,
        errors: vec![reason(waiting)],
        version: env!("CARGO_PKG_VERSION"),
        storage: None,
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(overview)).into_response()
}

/// Whether a request is for a health check. Health checks are answered above the connection limit
/// too.
pub(crate) fn is_health_check<B>(request: &axum::http::Request<B>) -> bool {
    is_health_path(request.uri().path())
}

/// Whether a path is that of a health check.
pub(super) fn is_health_path(path: &str) -> bool {
    path == "/health" || path.starts_with("/health/")
}

/// Refuses a request above the connection limit. Its body is not read.
pub(crate) fn refuse_connection(request: &Request) -> Response {
    let detail = "too many connections are open; only health checks are answered on further ones";
    let problem = Problem::new(Code::Overloaded, detail).retry_after(RETRY_AFTER);
    envelope::refuse(request, problem)
}
