//! `/metrics`

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::App;
use super::docs::MetricsProblems;
use super::problem::{Code, Problem};
use crate::service::{Load, Share};
use crate::telemetry::Metrics;

/// What does the service count and measure of itself?
///
/// In the text format that Prometheus reads; `docs/metrics.md` in the source lists it all. Where
/// `http.metrics_bind` is set it is answered there, and not here.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "operations",
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        MetricsProblems,
    ),
)]
pub(super) async fn read(State(app): State<App>) -> Result<Response, Problem> {
    let Load {
        uploads,
        pictures,
        workers,
        workers_busy,
        waiting,
    } = app.service.load();
    let metrics = &app.metrics;
    for (purpose, share) in [("uploads", uploads), ("pictures", pictures)] {
        let Share {
            reserved_bytes,
            budget_bytes,
        } = share;
        metrics.set_memory(purpose, reserved_bytes, budget_bytes);
    }
    metrics.set_queue(waiting, workers_busy, workers);
    let falls_back = app
        .limiter
        .as_ref()
        .is_some_and(|limiter| limiter.falls_back());
    metrics.set_limits_fall_back(falls_back);
    let text = metrics
        .text()
        .map_err(|error| Problem::new(Code::Internal, "an internal error").caused_by(error))?;
    Ok(([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response())
}
