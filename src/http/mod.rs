//! The program over HTTP: the route table, what guards it, and how answers look.

mod avatars;
mod conditions;
mod connection;
mod cross_origin;
mod docs;
mod drain;
mod dto;
mod envelope;
mod files;
mod form;
mod health;
mod host;
mod image;
mod incoming;
mod metrics;
mod negotiate;
mod openapi;
mod permit;
mod picture;
mod problem;
mod query;
mod startup;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::Method;
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

pub use connection::{ConnectionHandle, Listener};
pub(crate) use files::ROOT as FILES_ROOT;
pub use startup::{Needed, Readiness, Startup};
pub(crate) use startup::{is_health_check, refuse_connection, starting_router};

use crate::auth::Verifier;
use crate::avatar::VariantName;
use crate::config::{Delivery, Environment};
use crate::limits::Limiter;
use crate::service::{Service, Size};
use crate::telemetry::Metrics;
use problem::{Code, Problem};

/// What every handler may use.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    parts: Parts,
    checked: health::Checked,
}

/// The parts of an [`AppState`].
pub struct Parts {
    /// What the program does.
    pub service: Arc<Service>,
    /// Who is believed.
    pub verifier: Verifier,
    /// How often anyone may do what; `None` where limits are off.
    pub limiter: Option<Arc<dyn Limiter>>,
    /// The cookie that holds a token.
    pub cookie_name: String,
    /// Origins that browsers may call from, and write from with a cookie.
    pub trusted_origins: Vec<String>,
    /// How images are answered.
    pub delivery: Delivery,
    /// What `avatar_url` points to.
    pub primary_variant: VariantName,
    /// Whether figures are shown to anyone (development) or to operators alone.
    pub environment: Environment,
    /// Whether `/docs` and `/openapi.json` are answered.
    pub docs: bool,
    /// What is counted.
    pub metrics: Metrics,
    /// Who answers `/metrics`.
    pub metrics_at: MetricsAt,
    /// Whether the program has begun to shut down, and whether anybody asks.
    pub readiness: Arc<Readiness>,
}

/// Who answers `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAt {
    /// The main address.
    Main,
    /// An address of its own ([`metrics_router`]).
    ItsOwn,
}

impl AppState {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            checked: health::Checked::default(),
        }))
    }

    fn primary_size(&self) -> Size {
        Size::Variant(self.primary_variant.clone())
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

/// The whole HTTP surface, and with it the OpenAPI document.
fn table(metrics: MetricsAt) -> OpenApiRouter<AppState> {
    match metrics {
        MetricsAt::Main => without_metrics().merge(metrics_alone()),
        MetricsAt::ItsOwn => without_metrics(),
    }
}

fn metrics_alone() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(metrics::read))
}

fn without_metrics() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(docs::Document::openapi())
        .routes(routes!(avatars::upload, avatars::read, avatars::delete))
        .routes(routes!(files::read))
        .routes(routes!(root))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::alias))
        .routes(routes!(health::overview))
}

/// The OpenAPI 3.1 document of the whole surface.
pub fn openapi() -> utoipa::openapi::OpenApi {
    openapi::complete(table(MetricsAt::Main).into_openapi())
}

/// Everything that answers, from the request's first byte read to the answer's last.
pub fn router(app: AppState) -> Router {
    let (routes, document) = table(app.metrics_at).split_for_parts();
    let most = app.service.settings().max_upload_bytes + picture::FORM_OVERHEAD_BYTES;
    let routes = if app.docs {
        routes.merge(
            SwaggerUi::new("/docs")
                .url("/openapi.json", openapi::complete(document))
                // Its badge would ask a validator on the internet.
                .config(Config::default().validator_url("none")),
        )
    } else {
        routes
    };
    with_fallbacks(routes)
        .layer(DefaultBodyLimit::max(most))
        .layer(cross_origin::cors(&app.trusted_origins))
        .layer(middleware::from_fn_with_state(app.clone(), envelope::wrap))
        .with_state(app)
}

/// Where to begin
///
/// Redirects to the documentation.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "root",
    tag = "operations",
    responses(
        (status = 307, description = "To `/docs`"),
        docs::NotFoundProblems,
    ),
)]
async fn root(State(app): State<AppState>) -> Result<Response, Problem> {
    if app.docs {
        Ok(Redirect::temporary("/docs").into_response())
    } else {
        Err(nothing_here())
    }
}

fn nothing_here() -> Problem {
    Problem::new(Code::NotFound, "there is nothing at this address")
}

/// What answers at an address of the metrics' own, where there is one: the metrics, and
/// `/health/avatar` with its figures.
pub fn metrics_router(app: AppState) -> Router {
    let (routes, _) = metrics_alone().split_for_parts();
    let routes = routes.route("/health/avatar", get(health::overview_for_operators));
    with_fallbacks(routes)
        .layer(middleware::from_fn_with_state(app.clone(), envelope::wrap))
        .with_state(app)
}

fn with_fallbacks(routes: Router<AppState>) -> Router<AppState> {
    routes
        .fallback(async || nothing_here())
        .method_not_allowed_fallback(async |method: Method| {
            let detail = format!("{method} means nothing here; Allow tells what does");
            Problem::new(Code::MethodNotAllowed, detail)
        })
}
