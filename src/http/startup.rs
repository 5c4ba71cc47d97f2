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
use super::health::{self, Ready};
use super::problem::{Code, Problem};
use super::readiness::{Needed, Startup};

/// When a client should try again during startup or above the connection limit.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The routes while the program starts. Its liveness is good, and everything else is answered 503.
pub fn starting_router(startup: Arc<Startup>) -> Router {
    let refused = Arc::clone(&startup);
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
                envelope::finish(&request, not_ready(startup.waiting()))
            }),
        )
        .fallback(async move |request: Request| {
            let (code, needed) = match refused.waiting() {
                Needed::Catalog => (Code::CatalogUnavailable, "catalog"),
                Needed::Store => (Code::StorageUnavailable, "store"),
            };
            let detail = format!("the service is starting and waits for its {needed}");
            let problem = Problem::new(code, detail).retry_after(RETRY_AFTER);
            envelope::refuse(&request, problem)
        })
}

fn not_ready(waiting: Needed) -> Response {
    let (store, catalog, reason) = match waiting {
        Needed::Catalog => ("unknown", "unavailable", "waiting for the catalog"),
        Needed::Store => ("unavailable", "unknown", "waiting for the store"),
    };
    let dependencies = Dependencies {
        store,
        catalog,
        public_read: "unknown",
        reasons: vec![reason.to_owned()],
    };
    let ready = Ready {
        status: "not_ready",
        dependencies,
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(ready)).into_response()
}

/// Whether a request is for a health check. Health checks are answered above the connection limit
/// too.
pub(crate) fn is_health_check<B>(request: &axum::http::Request<B>) -> bool {
    let path = request.uri().path();
    path == "/health" || path.starts_with("/health/")
}

/// Refuses a request above the connection limit. Its body is not read.
pub(crate) fn refuse_connection(request: &Request) -> Response {
    let detail = "too many connections are open; only health checks are answered on further ones";
    let problem = Problem::new(Code::Overloaded, detail).retry_after(RETRY_AFTER);
    envelope::refuse(request, problem)
}
