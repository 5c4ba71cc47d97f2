//! `/health/…`

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;
use tracing::warn;
use utoipa::ToSchema;

use super::App;
use super::docs::CatalogProblems;
use super::problem::Problem;
use crate::service::PublicRead;

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
    /// `ready`, `not_ready` or `draining`.
    pub status: &'static str,
    /// What it depends on.
    #[serde(flatten)]
    pub dependencies: Dependencies,
}

/// What the service depends on.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(super) struct Dependencies {
    /// Where images lie: `ok` or `unavailable`.
    pub store: &'static str,
    /// Where records lie: `ok` or `unavailable`.
    pub catalog: &'static str,
    /// Who reads images straight from the store, as was just tried: `anyone`; `proxy` where the
    /// service or a server in front hands them out; `refused` where anyone should be able to, but
    /// is not; `unknown` where the store is unavailable.
    pub public_read: &'static str,
}

/// How the service is set up, and what it holds.
#[derive(Serialize, ToSchema)]
pub(super) struct Overview {
    /// Always `ok`: a service with a faulty configuration does not start.
    pub configuration: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// Which store: `disk` or `s3`.
    pub storage: &'static str,
    /// Which catalog: `embedded` or `redis`.
    pub catalog: &'static str,
    /// Users that have an avatar.
    pub avatars: u64,
    /// Images of theirs.
    pub objects: u64,
    /// Bytes of those images.
    pub bytes: u64,
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
        (status = 200, description = "It can", body = Ready),
        (status = 503, description = "It cannot", body = Ready),
    ),
)]
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Ready>) {
    let dependencies = dependencies(&app).await;
    let draining = app.draining.load(Ordering::Relaxed);
    let works = dependencies.store == OK && dependencies.catalog == OK;
    let (code, status) = match (draining, works) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        (false, true) => (StatusCode::OK, "ready"),
    };
    (
        code,
        Json(Ready {
            status,
            dependencies,
        }),
    )
}

/// How is it set up, and what does it hold?
#[utoipa::path(
    get,
    path = "/health/avatar",
    operation_id = "overview",
    tag = "operations",
    responses((status = 200, description = "The figures", body = Overview), CatalogProblems),
)]
pub(super) async fn overview(State(app): State<App>) -> Result<Json<Overview>, Problem> {
    let stats = app.service.stats().await?;
    Ok(Json(Overview {
        configuration: OK,
        version: env!("CARGO_PKG_VERSION"),
        storage: app.storage_kind,
        catalog: app.catalog_kind,
        avatars: stats.avatars,
        objects: stats.renditions.iter().map(|row| row.objects).sum(),
        bytes: stats.renditions.iter().map(|row| row.bytes).sum(),
    }))
}

const OK: &str = "ok";
const REFUSED: &str = "refused";

async fn dependencies(app: &App) -> Dependencies {
    // Whoever asks meanwhile waits for the same answer.
    let mut checked = app.0.checked.0.lock().await;
    if let Some((at, dependencies)) = *checked
        && at.elapsed() < FRESH
    {
        return dependencies;
    }
    let (store, catalog) = tokio::join!(
        answer("store", app.service.check_store()),
        answer("catalog", app.service.check_catalog()),
    );
    let public_read = match store.map(|checkup| checkup.public_read) {
        Some(PublicRead::Anyone) => "anyone",
        Some(PublicRead::Proxy) => "proxy",
        Some(PublicRead::Refused) => REFUSED,
        None => "unknown",
    };
    let known = checked.is_some_and(|(_, before)| before.public_read == REFUSED);
    if public_read == REFUSED && !known {
        warn!("not everybody can read public/ in the bucket any more; see to its policy");
    }
    let word = |works| if works { OK } else { "unavailable" };
    let dependencies = Dependencies {
        store: word(store.is_some()),
        catalog: word(catalog.is_some()),
        public_read,
    };
    *checked = Some((Instant::now(), dependencies));
    dependencies
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
