//! Default images as sources of responses.

use std::ops::RangeInclusive;

use axum::body::Body;
use bytes::Bytes;

use super::image::{ImageRange, ImageSource, range_of};
use super::problem::Problem;
use crate::avatar::{Format, SubjectId};
use crate::config;
use crate::defaults::{self, Form, Kind, RasterEdge};
use crate::service::Service;

/// The image that is shown if there is no avatar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DefaultChoice {
    Drawn(Kind),
    /// None: the answer is 404.
    NotFound,
}

impl DefaultChoice {
    /// The choice of the configuration.
    pub(super) const fn of(setting: config::DefaultImage) -> Self {
        match setting {
            config::DefaultImage::Initials => Self::Drawn(Kind::Initials),
            config::DefaultImage::Identicon => Self::Drawn(Kind::Identicon),
            config::DefaultImage::Silhouette => Self::Drawn(Kind::Silhouette),
            config::DefaultImage::NotFound => Self::NotFound,
        }
    }

    /// The choice with this name.
    pub(super) fn named(text: &str) -> Option<Self> {
        Some(match text {
            "initials" => Self::Drawn(Kind::Initials),
            "identicon" => Self::Drawn(Kind::Identicon),
            "silhouette" => Self::Drawn(Kind::Silhouette),
            "404" => Self::NotFound,
            _ => return None,
        })
    }
}

/// The default image of a user.
pub(super) struct DefaultImage<'a> {
    pub(super) service: &'a Service,
    pub(super) kind: Kind,
    pub(super) subject: &'a SubjectId,
    pub(super) name: Option<&'a str>,
    /// The side that a form with pixels has to cover.
    pub(super) edge_px: u32,
}

impl<'a> DefaultImage<'a> {
    /// The image as SVG.
    pub(super) const fn svg(&'a self) -> Drawn<'a> {
        Drawn {
            image: self,
            form: Form::Svg,
        }
    }

    /// The image with pixels.
    pub(super) fn raster(&'a self, format: Format) -> Drawn<'a> {
        Drawn {
            image: self,
            form: Form::Raster(RasterEdge::covering(self.edge_px), format),
        }
    }
}

/// A default image in one form. There is no image if too many others are being drawn.
pub(super) struct Drawn<'a> {
    image: &'a DefaultImage<'a>,
    form: Form,
}

impl Drawn<'_> {
    async fn bytes(&self) -> Option<Bytes> {
        let DefaultImage {
            service,
            kind,
            subject,
            name,
            ..
        } = *self.image;
        match self.form {
            Form::Svg => Some(defaults::svg(kind, subject, name)),
            Form::Raster(edge, format) => {
                service
                    .draw_default(kind, subject, name, edge, format)
                    .await
            }
        }
    }
}

impl ImageSource for Drawn<'_> {
    fn content_type(&self) -> &'static str {
        match self.form {
            Form::Svg => "image/svg+xml",
            Form::Raster(_, format) => format.content_type(),
        }
    }

    fn entity_tag(&self) -> String {
        let DefaultImage {
            kind,
            subject,
            name,
            ..
        } = *self.image;
        format!("\"{}\"", defaults::tag(kind, subject, name, self.form))
    }

    async fn exists(&self) -> Result<bool, Problem> {
        Ok(true)
    }

    async fn size_bytes(&self) -> Result<Option<u64>, Problem> {
        Ok(self.bytes().await.map(|bytes| bytes.len() as u64))
    }

    async fn open(&self) -> Result<Option<(Body, u64)>, Problem> {
        let bytes = self.bytes().await;
        Ok(bytes.map(|bytes| (Body::from(bytes.clone()), bytes.len() as u64)))
    }

    async fn open_range(&self, range: RangeInclusive<u64>) -> Result<Option<ImageRange>, Problem> {
        let bytes = self.bytes().await;
        Ok(bytes.map(|bytes| range_of(&bytes, range)))
    }
}
