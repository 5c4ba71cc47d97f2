//! `/avatars/{user_id}`: always an image.
//!
//! The answer is the avatar, or a default image if there is none, if the caller may not see it, or if
//! it cannot be read now. A caller who may not see an avatar gets the same answer as for a missing one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tracing::{debug, error};

use super::default_image::{DefaultChoice, DefaultImage, Drawn};
use super::docs::ShownProblems;
use super::image::StoredImage;
use super::image_query::{ImageFormat, ImageQuery, ImageRequest, ImageSize};
use super::negotiate::Accepts;
use super::problem::{Code, Problem};
use super::query::Query;
use super::target::ShownTarget;
use super::{AppState, cross_origin, image};
use crate::access::Sight;
use crate::avatar::{Format, ObjectKey, Record, Rendition};
use crate::config::DeliveryMode;
use crate::defaults::Kind;
use crate::service::{self, Current, Size};
use crate::telemetry::chain;

/// Show an avatar
///
/// The answer is always an image: the avatar, or a default if there is none. A caller who may not see
/// the avatar gets the default too, so the answer does not tell whether there is one. A token that is
/// not valid is ignored.
///
/// `format` or `Accept` chooses among the formats in which the avatar is stored. If none fits, the
/// answer is JPEG if that is stored, else the primary format. Defaults are SVG, or WebP, JPEG or PNG if
/// `format` or `Accept` asks for it.
#[utoipa::path(
    get,
    path = "/avatars/{user_id}",
    operation_id = "show_avatar",
    tag = "avatars",
    params(
        ("user_id" = String, Path, description = "A user id, or `me`: the token's subject. It is the whole last segment of the path, dots included"),
        ImageQuery,
        ("If-None-Match" = Option<String>, Header, description = "The entity tags of the representations that the caller has"),
        ("If-Match" = Option<String>, Header, description = "Answer only a representation that has one of these entity tags"),
        ("Range" = Option<String>, Header, description = "One range of bytes of the image", example = "bytes=0-1023"),
        ("If-Range" = Option<String>, Header, description = "The entity tag of the representation that the range belongs to"),
    ),
    responses(
        (status = 200, description = "The avatar, or a default", content(
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
            (super::docs::Bytes = "image/svg+xml"),
        )),
        (status = 206, description = "The range of the image", content(
            (super::docs::Bytes = "image/webp"),
            (super::docs::Bytes = "image/jpeg"),
            (super::docs::Bytes = "image/png"),
            (super::docs::Bytes = "image/svg+xml"),
        )),
        (status = 302, description = "The URL of the avatar's image, if `delivery.mode` is `redirect`"),
        (status = 304, description = "The caller has the representation"),
        ShownProblems,
    ),
)]
pub(super) async fn read(
    State(app): State<AppState>,
    target: Result<ShownTarget, Problem>,
    query: Result<Query<ImageQuery>, Problem>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let is_me = target.as_ref().is_ok_and(|target| target.is_me);
    let is_private = is_me || !app.access.is_public();
    let answered = async {
        let (target, Query(query)) = (target?, query?);
        let request = query.check(&app.images)?;
        let showing = Showing {
            app: &app,
            target,
            request,
            accepts: Accepts::of(&headers),
            method: &method,
            headers: &headers,
        };
        Ok(showing.answer(is_private).await)
    };
    let mut response = answered.await.unwrap_or_else(Problem::into_response);
    if !is_private {
        cross_origin::open_to_any_origin(&mut response);
    }
    response
}

/// How long the answer may be kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// As the settings say.
    Usual,
    /// Not at all: the same request may have another answer in a moment.
    Not,
}

/// What there is to show.
enum Found {
    Avatar(Arc<Current>),
    /// There is no avatar, or the caller may not see it.
    Nothing,
    /// The catalog does not answer.
    Unknown(Problem),
}

/// A request for an image.
struct Showing<'a> {
    app: &'a AppState,
    target: ShownTarget,
    request: ImageRequest,
    accepts: Accepts,
    method: &'a Method,
    headers: &'a HeaderMap,
}

impl Showing<'_> {
    async fn answer(self, is_private: bool) -> Response {
        let (keep, answered) = self.image_or_default().await;
        let cache = match keep {
            Keep::Not => HeaderValue::from_static("no-store"),
            Keep::Usual if is_private => HeaderValue::from_static("private, no-cache"),
            Keep::Usual => self.app.image_cache(),
        };
        let extra = [
            (CACHE_CONTROL, cache),
            (VARY, HeaderValue::from_static("Accept")),
        ];
        match answered {
            Ok(mut response) => {
                for (name, value) in extra {
                    response.headers_mut().insert(name, value);
                }
                response
            }
            Err(mut problem) if problem.code == Code::AvatarNotFound => {
                problem.headers.extend(extra);
                problem.into_response()
            }
            // No cache keeps these.
            Err(problem) => problem.into_response(),
        }
    }

    async fn image_or_default(&self) -> (Keep, Result<Response, Problem>) {
        let unavailable = match self.find().await {
            Found::Avatar(record) => match self.avatar(&record).await {
                Ok(Some(response)) => return (Keep::Usual, Ok(response)),
                Ok(None) => None,
                Err(problem) => match problem.code {
                    Code::PreconditionFailed | Code::RangeNotSatisfiable => {
                        return (Keep::Not, Err(problem));
                    }
                    _ => Some(problem),
                },
            },
            Found::Nothing => None,
            Found::Unknown(problem) => Some(problem),
        };
        let keep = match unavailable {
            Some(_) => Keep::Not,
            None => Keep::Usual,
        };
        let Some(kind) = self.request.default.kind(&self.target) else {
            let missing = || Problem::new(Code::AvatarNotFound, "there is no avatar");
            return (keep, Err(unavailable.unwrap_or_else(missing)));
        };
        if let Some(problem) = unavailable
            && let Some(cause) = problem.cause
        {
            let cause = chain(&*cause);
            // Others log an outage, once. A damaged record concerns this user alone.
            if problem.code == Code::Internal {
                error!(%cause, "a default is shown, because the avatar cannot be read");
            } else {
                debug!(%cause, "a default is shown, because the avatar cannot be read");
            }
        }
        self.default_image(kind, keep).await
    }

    /// Finds the avatar. For a caller who may see nothing, the catalog is not asked at all.
    async fn find(&self) -> Found {
        let ShownTarget { subject, sight, .. } = &self.target;
        if *sight == Sight::AsViewer(None) {
            return Found::Nothing;
        }
        match self.app.service.current_for(subject, sight).await {
            Ok(record) => Found::Avatar(record),
            Err(service::Error::NotFound) => Found::Nothing,
            Err(error) => Found::Unknown(error.into()),
        }
    }

    /// The image of the avatar, or a redirect to it; `None` if the store has lost it.
    async fn avatar(&self, record: &Record) -> Result<Option<Response>, Problem> {
        let app = self.app;
        let Some(rendition) = self.rendition(record) else {
            return Ok(None);
        };
        let key = ObjectKey::of_rendition(record, rendition);
        if app.delivery.mode == DeliveryMode::Redirect {
            let location = [(LOCATION, app.access.link_to(&key).await?)];
            return Ok(Some((StatusCode::FOUND, location).into_response()));
        }
        let image = StoredImage::of_record(&app.service, key);
        let response = image::respond(&image, self.method, self.headers).await?;
        if response.is_none() {
            app.metrics.missed_an_object();
        }
        Ok(response)
    }

    /// The rendition in the format and size that the request asks for.
    fn rendition<'a>(&self, record: &'a Record) -> Option<&'a Rendition> {
        let primary = record.renditions.first()?;
        let is_stored = |format: &Format| record.renditions.iter().any(|one| one.format == *format);
        let asked = match self.request.format {
            Some(ImageFormat::Raster(format)) => Some(format).filter(is_stored),
            Some(ImageFormat::Svg) | None => None,
        };
        let stored = || record.renditions.iter().map(|one| one.format);
        let accepted = || match self.request.format {
            Some(ImageFormat::Raster(_)) => None,
            Some(ImageFormat::Svg) | None => self.accepts.best(stored()),
        };
        let format = asked
            .or_else(accepted)
            .or_else(|| Some(Format::Jpeg).filter(is_stored))
            .unwrap_or(primary.format);
        let found = match &self.request.size {
            ImageSize::Variant(name, edge_px) => record
                .still(name, format)
                .or_else(|| service::pick(record, &Size::Pixels(*edge_px), format)),
            ImageSize::Pixels(px) => service::pick(record, &Size::Pixels(*px), format),
        };
        Some(found.unwrap_or(primary))
    }

    async fn default_image(&self, kind: Kind, keep: Keep) -> (Keep, Result<Response, Problem>) {
        let image = DefaultImage {
            service: &self.app.service,
            kind,
            subject: &self.target.subject,
            name: self.request.name.as_deref(),
            edge_px: self.request.size.edge_px(),
        };
        if let Some(format) = self.raster_format() {
            let drawn = image::respond(&image.raster(format), self.method, self.headers).await;
            match drawn {
                Ok(Some(response)) => return (keep, Ok(response)),
                Err(problem) => return (keep, Err(problem)),
                // Too many are being drawn. The SVG is answered instead, and not kept.
                Ok(None) => {
                    let svg = image.svg();
                    return (Keep::Not, respond_with(&svg, self).await);
                }
            }
        }
        (keep, respond_with(&image.svg(), self).await)
    }

    /// The format of a default with pixels; `None` for SVG.
    fn raster_format(&self) -> Option<Format> {
        match self.request.format {
            Some(ImageFormat::Raster(format)) => return Some(format),
            Some(ImageFormat::Svg) => return None,
            None => {}
        }
        let best = self
            .accepts
            .best([Format::Webp, Format::Jpeg, Format::Png])?;
        let svg = self.accepts.image_quality("svg+xml");
        (self.accepts.image_quality(best.name()) > svg).then_some(best)
    }
}

async fn respond_with(drawn: &Drawn<'_>, showing: &Showing<'_>) -> Result<Response, Problem> {
    let response = image::respond(drawn, showing.method, showing.headers).await?;
    response.ok_or_else(|| Problem::new(Code::Internal, "an internal error"))
}

impl DefaultChoice {
    /// The default to draw; `None` if the answer is 404.
    fn kind(self, target: &ShownTarget) -> Option<Kind> {
        match self {
            Self::NotFound => None,
            // Without a user there are no initials.
            Self::Drawn(_) if target.is_nobody => Some(Kind::Silhouette),
            Self::Drawn(kind) => Some(kind),
        }
    }
}
