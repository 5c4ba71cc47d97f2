//! The router that answers the requests of a connection.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::http::{self, ConnectionHandle};

/// The requests for which a connection is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any number of requests.
    Main,
    /// One health check.
    Reserve,
}

/// The router that answers requests: one while the app opens, another one afterwards.
pub(super) struct Routes {
    starting: Router,
    open: OnceLock<Router>,
}

impl Routes {
    /// Answers with this router until [`open`](Self::open) sets another one.
    pub(super) fn new(starting: Router) -> Arc<Self> {
        Arc::new(Self {
            starting,
            open: OnceLock::new(),
        })
    }

    /// Answers with this router from now on.
    pub(super) fn open(&self, router: Router) {
        let _ = self.open.set(router);
    }

    /// Answers a request. A connection of the reserve gets answers to health checks only.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        kind: Kind,
        handle: ConnectionHandle,
    ) -> Response {
        let mut request = request.map(axum::body::Body::new);
        if kind == Kind::Reserve && !http::is_health_check(&request) {
            return http::refuse_connection(&request);
        }
        request.extensions_mut().insert(handle);
        let router = self.open.get().unwrap_or(&self.starting).clone();
        match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
