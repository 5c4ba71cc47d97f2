//! `/health/…`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::caller::Operator;
use super::dependencies::{self, Dependencies};
use crate::service::Stats;

/// The process is up.
#[derive(Serialize, ToSchema)]
pub(super) struct Live {
    /// Always `ok`.
    pub status: &'static str,
}

/// Whether the service can do its work.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    /// `ready`, `degraded` (reads are served; `reasons` says what is wrong), `not_ready` or
    /// `draining`.
    pub status: &'static str,
    /// The state of its dependencies.
    #[serde(flatten)]
    pub dependencies: Dependencies,
}

/// Whether the service works, and how much it holds.
#[derive(Serialize, ToSchema)]
pub(super) struct Overview {
    /// `healthy` or `unhealthy`.
    pub status: &'static str,
    /// Always `true`: a service with an invalid configuration does not start.
    pub config_valid: bool,
    /// The problems; empty if there are none.
    pub errors: Vec<String>,
    /// The version of the program.
    pub version: &'static str,
    /// How much the current avatars occupy in the store. In production only operators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub storage: Option<StorageFigures>,
}

/// How much the current avatars occupy in the store.
#[derive(Serialize, ToSchema)]
pub(super) struct StorageFigures {
    /// The number of images.
    #[schema(example = 10)]
    pub total_files: u64,
    /// Their size in MiB, rounded to two decimal places.
    #[schema(example = 0.31)]
    pub total_size_mb: f64,
}

/// Is the process up?
#[utoipa::path(
    get,
    path = "/health/live",
    operation_id = "live",
    tag = "operations",
    responses((status = 200, description = "The process is up", body = Live)),
)]
pub(super) async fn live() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// Can the service do its work?
///
/// The check writes to the store and to the catalog, at most once a second.
#[utoipa::path(
    get,
    path = "/health/ready",
    operation_id = "ready",
    tag = "operations",
    responses(
        (status = 200, description = "The service is `ready`, or `degraded` and serves reads", body = Ready),
        (status = 503, description = "The service is `not_ready` or `draining`", body = Ready),
    ),
)]
pub(super) async fn ready(State(app): State<AppState>) -> (StatusCode, Json<Ready>) {
    let dependencies = app.dependencies().await;
    let is_draining = app.readiness.probe();
    let answers = dependencies.has_store() && dependencies.has_catalog();
    let (code, status) = match (is_draining, answers, dependencies.reasons.is_empty()) {
        (true, _, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        (false, true, true) => (StatusCode::OK, "ready"),
        (false, true, false) => (StatusCode::OK, "degraded"),
    };
    (
        code,
        Json(Ready {
            status,
            dependencies,
        }),
    )
}

/// Can the service do its work?
///
/// An alias of `/health/ready`.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "operations",
    responses(
        (status = 200, description = "The service is `ready`, or `degraded` and serves reads", body = Ready),
        (status = 503, description = "The service is `not_ready` or `draining`", body = Ready),
    ),
)]
pub(super) async fn alias(state: State<AppState>) -> (StatusCode, Json<Ready>) {
    ready(state).await
}

/// Does the service work, and how much does it hold?
///
/// In production `storage` needs the token of an admin or of a service. At the address in
/// `http.metrics_bind` it needs no token.
#[utoipa::path(
    get,
    path = "/health/avatar",
    operation_id = "overview",
    tag = "operations",
    responses(
        (status = 200, description = "The service serves at least reads", body = Overview),
        (status = 503, description = "The store or the catalog is unavailable", body = Overview),
    ),
    security((), ("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn overview(
    State(app): State<AppState>,
    operator: Option<Operator>,
) -> (StatusCode, Json<Overview>) {
    let shows_figures = app.access.shows_figures_to_anyone() || operator.is_some();
    overview_of(&app, shows_figures).await
}

/// The same with its figures, at the operators' address.
pub(super) async fn overview_for_operators(
    State(app): State<AppState>,
) -> (StatusCode, Json<Overview>) {
    overview_of(&app, true).await
}

async fn overview_of(app: &AppState, shows_figures: bool) -> (StatusCode, Json<Overview>) {
    let dependencies = app.dependencies().await;
    let (store, catalog) = (dependencies.has_store(), dependencies.has_catalog());
    let mut errors = dependencies.reasons;
    for (is_up, error) in [
        (store, "the store is unavailable"),
        (catalog, "the catalog is unavailable"),
    ] {
        errors.extend((!is_up).then(|| error.to_owned()));
    }
    let figures = if shows_figures && catalog {
        dependencies::answer("catalog", app.service.stats()).await
    } else {
        None
    };
    let status = if errors.is_empty() {
        "healthy"
    } else {
        "unhealthy"
    };
    // A degraded service is answered 200, as at /health/ready: it still serves reads.
    let code = if store && catalog {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let overview = Overview {
        status,
        config_valid: true,
        errors,
        version: env!("CARGO_PKG_VERSION"),
        storage: figures.as_ref().map(StorageFigures::of),
    };
    (code, Json(overview))
}

impl StorageFigures {
    fn of(stats: &Stats) -> Self {
        let bytes: u64 = stats.renditions.iter().map(|row| row.bytes).sum();
        let mib = bytes as f64 / f64::from(1 << 20);
        Self {
            total_files: stats.renditions.iter().map(|row| row.objects).sum(),
            total_size_mb: (mib * 100.0).round() / 100.0,
        }
    }
}
