//! `/metrics`

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::docs::MetricsProblems;
use super::negotiate::Accepts;
use super::problem::{Code, Problem};
use crate::service::{Load, Share};
use crate::telemetry::Exposition;

/// Metrics
///
/// The text format is that of Prometheus, or that of `OpenMetrics` if `Accept` asks for it.
/// `docs/metrics.md` in the source lists all metrics. If `http.metrics_bind` is set, the metrics are
/// at that address and not at this one.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "operations",
    responses(
        (status = 200, description = "The metrics", content(
            (String = "text/plain; version=0.0.4; charset=utf-8"),
            (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        )),
        MetricsProblems,
    ),
)]
pub(super) async fn read(
    State(app): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
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
    let (records, images) = app.service.cached_bytes();
    metrics.set_cache_bytes(records, images);
    metrics.set_queue(waiting, workers_busy, workers);
    let falls_back = app
        .limiter
        .as_ref()
        .is_some_and(|limiter| limiter.falls_back());
    metrics.set_limits_fall_back(falls_back);
    let format = if Accepts::of(&headers).prefers_open_metrics() {
        Exposition::OpenMetrics
    } else {
        Exposition::Prometheus
    };
    let text = metrics
        .text(format)
        .map_err(|error| Problem::new(Code::Internal, "an internal error").caused_by(error))?;
    let kind = format.content_type();
    Ok(([(CONTENT_TYPE, kind), (VARY, "Accept")], text).into_response())
}
