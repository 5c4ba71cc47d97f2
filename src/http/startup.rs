//! What is answered beside the main routes: while the program starts, and where there is no place
//! for a connection.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::envelope;
use super::health::{self, Dependencies, Ready};
use super::problem::{Code, Problem};

/// How long a caller is asked to wait for a start or for a place.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What the program waits for before it can serve.
#[derive(Debug, Default)]
pub struct Startup(AtomicU8);

/// What a program needs before it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Where records are.
    Catalog,
    /// Where images are.
    Store,
}

impl Startup {
    /// Notes that the program waits for this from now on.
    pub fn waits_for(&self, needed: Needed) {
        self.0.store(needed as u8, Ordering::Relaxed);
    }

    fn waiting(&self) -> Needed {
        if self.0.load(Ordering::Relaxed) == Needed::Store as u8 {
            Needed::Store
        } else {
            Needed::Catalog
        }
    }
}

/// Whether the program is ready, beyond what it depends on, and whether anybody asks.
#[derive(Debug, Default)]
pub struct Readiness {
    is_draining: AtomicBool,
    last_probe: Mutex<Option<Instant>>,
}

impl Readiness {
    /// Has `/health/ready` answer 503 from now on.
    pub fn begin_drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked `/health/ready` within this time.
    pub fn was_probed_within(&self, time: Duration) -> bool {
        let last = self.last_probe.lock();
        let last = *last.unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() <= time)
    }

    /// Notes that somebody asks, and tells whether the program is about to end.
    pub(super) fn probe(&self) -> bool {
        let mut last = self
            .last_probe
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(Instant::now());
        self.is_draining.load(Ordering::Relaxed)
    }
}

/// Answers while the program starts: it is alive, and not ready.
pub(crate) fn starting_router(startup: Arc<Startup>) -> Router {
    let refused = Arc::clone(&startup);
    Router::new()
        .route(
            "/health/live",
            get(async |request: Request| {
                let live = health::live().await;
                envelope::dress(&request, live)
            }),
        )
        .route(
            "/health/ready",
            get(async move |request: Request| {
                envelope::dress(&request, not_ready(startup.waiting()))
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

/// Whether a request asks for a health check, which is answered even where nothing else is.
pub(crate) fn is_health_check<B>(request: &axum::http::Request<B>) -> bool {
    let path = request.uri().path();
    path == "/health" || path.starts_with("/health/")
}

/// Refuses a request because there is no place for its connection. Its body is not read.
pub(crate) fn refuse_connection(request: &Request) -> Response {
    let detail = "too many connections are open; only health checks are answered on further ones";
    let problem = Problem::new(Code::Overloaded, detail).retry_after(RETRY_AFTER);
    envelope::refuse(request, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_waited_for_where_nobody_asked() {
        let readiness = Readiness::default();
        assert!(!readiness.was_probed_within(Duration::from_mins(1)));
        assert!(!readiness.probe());
        readiness.begin_drain();
        assert!(readiness.probe());
        assert!(readiness.was_probed_within(Duration::from_mins(1)));
        assert!(!readiness.was_probed_within(Duration::ZERO));
    }
}
