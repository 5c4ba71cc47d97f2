//! `/api/v1/stats`

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::caller::StatisticsReader;
use super::docs::StatisticsProblems;
use super::json::fresh;
use super::problem::Problem;
use crate::service::Stats;

/// The totals of the current avatars, and the numbers of uploads that are not current.
#[derive(Serialize, ToSchema)]
pub(crate) struct Statistics {
    /// The number of users who have an avatar.
    #[schema(example = 2)]
    avatars: u64,
    /// The number of their objects, without manifests.
    #[schema(example = 20)]
    objects: u64,
    /// The size of these objects in bytes.
    #[schema(example = 514_000)]
    bytes: u64,
    /// The same by variant and format, in the order of their names.
    renditions: Vec<StatisticsRow>,
    /// The number of uploads that are under way, or that failed and are not yet swept.
    #[schema(example = 0)]
    pending: u64,
    /// The number of replaced, deleted and refused uploads that are not yet swept.
    #[schema(example = 1)]
    retired: u64,
}

/// The objects of one variant in one format.
#[derive(Serialize, ToSchema, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StatisticsRow {
    /// The variant.
    #[schema(example = "medium")]
    variant: String,
    /// `webp`, `jpeg` or `png`.
    #[schema(example = "webp")]
    format: &'static str,
    /// The number of objects.
    #[schema(example = 2)]
    objects: u64,
    /// Their size in bytes.
    #[schema(example = 18624)]
    bytes: u64,
}

impl From<Stats> for Statistics {
    fn from(stats: Stats) -> Self {
        let rows = stats.renditions.into_iter().map(|row| StatisticsRow {
            variant: row.variant.to_string(),
            format: row.format.name(),
            objects: row.objects,
            bytes: row.bytes,
        });
        let mut renditions: Vec<_> = rows.collect();
        renditions.sort_unstable();
        Self {
            avatars: stats.avatars,
            objects: renditions.iter().map(|row| row.objects).sum(),
            bytes: renditions.iter().map(|row| row.bytes).sum(),
            renditions,
            pending: stats.pending,
            retired: stats.retired,
        }
    }
}

impl Statistics {
    /// The statistics as JSON.
    ///
    /// # Errors
    /// This does not fail in practice.
    pub(crate) fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

/// Read statistics
///
/// The number and the size of the objects of all current avatars, and the numbers of uploads that are
/// not current. The catalog keeps these totals up to date with each change, so no record and no object
/// is read. The caller is a service, an admin, or has a role in `auth.stats_roles`.
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    operation_id = "read_statistics",
    tag = "operations",
    responses((status = 200, description = "The statistics", body = Statistics), StatisticsProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn read(
    State(app): State<AppState>,
    _: StatisticsReader,
) -> Result<Response, Problem> {
    let stats = app.service.stats().await?;
    Ok(fresh(Json(Statistics::from(stats))))
}
