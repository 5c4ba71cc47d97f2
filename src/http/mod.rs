//! The HTTP surface: the route table, the extractors that guard it, and the form of responses.
//!
//! | modules | what they are |
//! | --- | --- |
//! | this one | the route table |
//! | `avatars`, `lookup`, `shown`, `moderation`, `files`, `health`, `metrics`, `statistics` | handlers, one file for each group of routes |
//! | `caller`, `target`, `rate`, `permit` | who asks, for whose avatar, and whether they may |
//! | `query`, `image_query`, `conditions`, `negotiate`, `host` | what else a request says |
//! | `picture`, `form`, `incoming`, `drain` | the body of an upload |
//! | `json` | small JSON bodies |
//! | `audit` | the audit of a request: who attempts which change |
//! | `image`, `default_image`, `dto`, `problem`, `cross_origin` | what responses look like |
//! | `envelope`, `context` | what every request and response has |
//! | `dependencies`, `readiness`, `startup` | whether the service can do its work, and what answers until it can |
//! | `connection` | connections with long-lived answers |
//! | `docs`, `openapi` | the OpenAPI document |
//! | `state` | what every handler can use |

mod audit;
mod avatars;
mod caller;
mod conditions;
mod connection;
mod context;
mod cross_origin;
mod default_image;
mod dependencies;
mod docs;
mod drain;
mod dto;
mod envelope;
mod files;
mod form;
mod health;
mod host;
mod image;
mod image_query;
mod incoming;
mod json;
mod lookup;
mod metrics;
mod moderation;
mod negotiate;
mod openapi;
mod permit;
mod picture;
mod problem;
mod query;
mod rate;
mod readiness;
mod shown;
mod startup;
mod state;
mod statistics;
mod target;

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
pub use image_query::ImageDefaults;
pub use readiness::{Needed, Readiness, Startup};
pub use startup::starting_router;
pub(crate) use startup::{is_health_check, refuse_connection};
pub use state::{AppState, MetricsAt, Parts};
pub(crate) use statistics::Statistics;

use problem::{Code, Problem};

/// The routes of the main address, from which the OpenAPI document is made too.
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
        .routes(routes!(shown::read))
        .routes(routes!(
            moderation::lock,
            moderation::read_lock,
            moderation::unlock
        ))
        .routes(routes!(moderation::viewers))
        .routes(routes!(moderation::add_viewer, moderation::remove_viewer))
        .routes(routes!(lookup::look_up))
        .routes(routes!(statistics::read))
        .routes(routes!(files::read))
        .routes(routes!(files::read_private))
        .routes(routes!(root))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::alias))
        .routes(routes!(health::overview))
}

/// The OpenAPI 3.1 document of all routes.
pub fn openapi() -> utoipa::openapi::OpenApi {
    openapi::complete(table(MetricsAt::Main).into_openapi())
}

/// The service of the main address: the routes, the documentation, and the layers around them.
pub fn router(app: AppState) -> Router {
    let (routes, document) = table(app.metrics_at).split_for_parts();
    let max_body_bytes = app.service.settings().max_upload_bytes + picture::FORM_OVERHEAD_BYTES;
    let routes = if app.docs {
        routes.merge(
            SwaggerUi::new("/docs")
                .url("/openapi.json", openapi::complete(document))
                // The badge of a validator would load it from the internet.
                .config(Config::default().validator_url("none")),
        )
    } else {
        routes
    };
    with_fallbacks(routes)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(cross_origin::cors(&app.trusted_origins))
        .layer(middleware::from_fn_with_state(app.clone(), envelope::wrap))
        .with_state(app)
}

/// Start page
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

/// The service of the address in `http.metrics_bind`: the metrics, and `/health/avatar` with its
/// figures.
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
            let detail = format!("{method} is not supported here; see the header Allow");
            Problem::new(Code::MethodNotAllowed, detail)
        })
}
