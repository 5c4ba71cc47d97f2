//! `/health/…`

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::sync::Mutex;
use tracing::{info, warn};
use utoipa::ToSchema;

use super::AppState;
use super::permit::is_from_operator;
use crate::config::Environment;
use crate::service::{PublicRead, Stats};
use crate::telemetry::Health;

/// How long an answer about the dependencies holds: probes are frequent, and a check writes.
const FRESH: Duration = Duration::from_secs(1);
/// How long a dependency is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was found when the dependencies were last asked.
#[derive(Default)]
pub(super) struct Checked(Mutex<Option<(Instant, Dependencies)>>);

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
    /// What it depends on.
    #[serde(flatten)]
    pub dependencies: Dependencies,
}

/// What the service depends on.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Dependencies {
    /// Where images lie: `ok`, `degraded` (it can be read), `unavailable`, or, while the service
    /// starts, `unknown`.
    pub store: &'static str,
    /// Where records lie: `ok`, `degraded` (it can be read), `unavailable`, or, while the service
    /// starts, `unknown`.
    pub catalog: &'static str,
    /// Who reads images straight from the store, as was just tried: `anyone`; `proxy` where the
    /// service or a server in front hands them out; `refused` where anyone should be able to, but
    /// is not; `unknown` where the store is unavailable.
    pub public_read: &'static str,
    /// Why the service is degraded, or what it waits for while it starts; otherwise absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub reasons: Vec<String>,
}

/// Whether the service is well, and how much it holds.
#[derive(Serialize, ToSchema)]
pub(super) struct Overview {
    /// `healthy` or `unhealthy`.
    pub status: &'static str,
    /// Always `true`: a service with an invalid configuration does not start.
    pub config_valid: bool,
    /// What is wrong; empty where nothing is.
    pub errors: Vec<String>,
    /// The program's version.
    pub version: &'static str,
    /// What the current avatars take in the store. In production only operators see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub storage: Option<StorageFigures>,
}

/// What the current avatars take in the store.
#[derive(Serialize, ToSchema)]
pub(super) struct StorageFigures {
    /// How many images.
    #[schema(example = 10)]
    pub total_files: u64,
    /// Their size in MiB, rounded to hundredths.
    #[schema(example = 0.31)]
    pub total_size_mb: f64,
}

/// Is the process up?
#[utoipa::path(
    get,
    path = "/health/live",
    operation_id = "live",
    tag = "operations",
    responses((status = 200, description = "It is", body = Live)),
)]
pub(super) async fn live() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// Can it do its work?
///
/// Writes to the store and to the catalog for real, at most once a second.
#[utoipa::path(
    get,
    path = "/health/ready",
    operation_id = "ready",
    tag = "operations",
    responses(
        (status = 200, description = "It can, or is `degraded`: it can serve reads", body = Ready),
        (status = 503, description = "It cannot", body = Ready),
    ),
)]
pub(super) async fn ready(State(app): State<AppState>) -> (StatusCode, Json<Ready>) {
    let dependencies = dependencies(&app).await;
    let draining = app.readiness.probe();
    let answers = dependencies.store != UNAVAILABLE && dependencies.catalog != UNAVAILABLE;
    let (code, status) = match (draining, answers, dependencies.reasons.is_empty()) {
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

/// Can it do its work?
///
/// The same as `/health/ready`.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "operations",
    responses(
        (status = 200, description = "It can, or is `degraded`: it can serve reads", body = Ready),
        (status = 503, description = "It cannot", body = Ready),
    ),
)]
pub(super) async fn alias(state: State<AppState>) -> (StatusCode, Json<Ready>) {
    ready(state).await
}

/// Is it well, and how much does it hold?
///
/// In production `storage` needs the token of an admin or of a service; the address in
/// `http.metrics_bind` answers it without one.
#[utoipa::path(
    get,
    path = "/health/avatar",
    operation_id = "overview",
    tag = "operations",
    responses(
        (status = 200, description = "It can serve at least reads", body = Overview),
        (status = 503, description = "It cannot", body = Overview),
    ),
    security((), ("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn overview(
    State(app): State<AppState>,
    headers: HeaderMap,
) -> (StatusCode, Json<Overview>) {
    let shows_figures =
        app.environment == Environment::Development || is_from_operator(&headers, &app);
    overview_of(&app, shows_figures).await
}

/// The same with its figures, for those who reach the operators' address.
pub(super) async fn overview_for_operators(
    State(app): State<AppState>,
) -> (StatusCode, Json<Overview>) {
    overview_of(&app, true).await
}

async fn overview_of(app: &AppState, shows_figures: bool) -> (StatusCode, Json<Overview>) {
    let dependencies = dependencies(app).await;
    let is_up = |word| word != UNAVAILABLE;
    let (store, catalog) = (is_up(dependencies.store), is_up(dependencies.catalog));
    let mut errors = dependencies.reasons;
    for (is_up, error) in [
        (store, "the store is unavailable"),
        (catalog, "the catalog is unavailable"),
    ] {
        errors.extend((!is_up).then(|| error.to_owned()));
    }
    let stats = if shows_figures && catalog {
        answer("catalog", app.service.stats()).await
    } else {
        None
    };
    let health = if errors.is_empty() {
        "healthy"
    } else {
        "unhealthy"
    };
    // A service that can still serve reads stays in use, as /health/ready has it.
    let code = if store && catalog {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let overview = Overview {
        status: health,
        config_valid: true,
        errors,
        version: env!("CARGO_PKG_VERSION"),
        storage: stats.as_ref().map(StorageFigures::of),
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

const OK: &str = "ok";
const UNAVAILABLE: &str = "unavailable";
const REFUSED: &str = "refused";

async fn dependencies(app: &AppState) -> Dependencies {
    // Whoever asks meanwhile waits for the same answer.
    let mut checked = app.0.checked.0.lock().await;
    if let Some((at, dependencies)) = &*checked
        && at.elapsed() < FRESH
    {
        return dependencies.clone();
    }
    let (store, catalog) = tokio::join!(
        answer("store", app.service.check_store()),
        answer("catalog", app.service.check_catalog()),
    );
    let public_read = match store.as_ref().map(|checkup| checkup.public_read) {
        Some(PublicRead::Anyone) => "anyone",
        Some(PublicRead::Proxy) => "proxy",
        Some(PublicRead::Refused) => REFUSED,
        None => "unknown",
    };
    let before = checked.as_ref().map(|(_, before)| before);
    let known = before.is_some_and(|before| before.public_read == REFUSED);
    if public_read == REFUSED && !known {
        warn!("not everybody can read public/ in the bucket any more; see to its policy");
    }
    let store = store.map(|checkup| checkup.health);
    let health = [&store, &catalog].into_iter().flatten();
    let reasons: Vec<_> = health
        .filter_map(Health::reason)
        .map(str::to_owned)
        .collect();
    let known = before.map_or(&[][..], |before| &before.reasons);
    for reason in reasons.iter().filter(|reason| !known.contains(reason)) {
        warn!(reason, "the service is degraded");
    }
    if reasons.is_empty() && !known.is_empty() {
        info!("the service is no longer degraded");
    }
    let dependencies = Dependencies {
        store: word(store.as_ref()),
        catalog: word(catalog.as_ref()),
        public_read,
        reasons,
    };
    *checked = Some((Instant::now(), dependencies.clone()));
    dependencies
}

/// The word for a dependency's state; `None` is one that does not answer.
fn word(health: Option<&Health>) -> &'static str {
    match health {
        Some(Health::Healthy) => OK,
        Some(Health::Degraded(_)) => "degraded",
        None => UNAVAILABLE,
    }
}

/// What a check says; `None` where it fails.
async fn answer<T>(
    name: &str,
    check: impl Future<Output = Result<T, crate::service::Error>>,
) -> Option<T> {
    match tokio::time::timeout(PATIENCE, check).await {
        Ok(Ok(seen)) => return Some(seen),
        Ok(Err(error)) => {
            let error: &dyn std::error::Error = &error;
            warn!(error, "the {name} is not ready");
        }
        Err(_) => warn!("the {name} does not answer"),
    }
    None
}
