//! The images of subjects without an avatar: initials, an identicon or a silhouette.
//!
//! This module is pure: a subject and a name in, an SVG or a raster image out. It knows no HTTP,
//! store, configuration or asynchronous runtime. Colour and shape depend on the subject alone, so a
//! subject's default never changes. All shapes are outlines; the SVG contains no text, style, script
//! or reference, and nothing from the input is copied into it.
//!
//! One [`Drawing`] is the source of both forms, so they look alike.

mod colors;
mod drawing;
mod identicon;
mod initials;
mod path;
mod raster;
mod silhouette;
mod typeface;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ring::digest;

pub use raster::RasterEdge;

use crate::avatar::{Format, SubjectHash, SubjectId};
use drawing::Drawing;
use initials::Initials;

/// Increment this number when any default of any subject changes its bytes. It is part of every
/// [`tag`]. A test compares samples with a snapshot and fails when the bytes change.
const REVISION: u8 = 1;

/// The kind of a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Up to two initials of the name, or of the subject if there is no name. Without usable
    /// initials it is the [`Kind::Silhouette`].
    Initials,
    /// A symmetrical pattern.
    Identicon,
    /// Head and shoulders.
    Silhouette,
}

impl Kind {
    /// Every kind, in the order of the enum.
    pub const ALL: [Self; 3] = [Self::Initials, Self::Identicon, Self::Silhouette];

    /// The name in configuration and in the API: `initials`, `identicon`, `silhouette`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initials => "initials",
            Self::Identicon => "identicon",
            Self::Silhouette => "silhouette",
        }
    }
}

/// The form of a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `image/svg+xml`, for every size.
    Svg,
    /// An opaque square image.
    Raster(RasterEdge, Format),
}

/// The default as SVG: a UTF-8 document of at most a few KiB.
///
/// It takes some microseconds. The name may have any length; only its beginning matters
/// ([`initials::MAX_NAME_CHARS`]).
pub fn svg(kind: Kind, subject: &SubjectId, name: Option<&str>) -> Bytes {
    draw(kind, subject, name).to_svg().into()
}

/// The default as an opaque square image.
///
/// This uses the CPU for up to some tens of milliseconds (at 1024 px), and up to 32 MiB of memory.
/// Call it on a thread that serves no requests.
///
/// # Errors
///
/// [`cameo_imaging::Error::Internal`] if the encoder fails, which is a fault of this program.
pub fn raster(
    kind: Kind,
    subject: &SubjectId,
    name: Option<&str>,
    edge: RasterEdge,
    format: Format,
) -> Result<Bytes, cameo_imaging::Error> {
    let pixels = raster::pixels(&draw(kind, subject, name), edge)?;
    let encoded = cameo_imaging::encode_drawing(edge.px(), edge.px(), pixels, format)?;
    Ok(encoded.into())
}

/// Identifies the bytes of a default: 32 hexadecimal digits. Equal tags of one subject mean equal
/// bytes. It is cheaper than the default itself.
pub fn tag(kind: Kind, subject: &SubjectId, name: Option<&str>, form: Form) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[REVISION, kind as u8]);
    context.update(SubjectHash::of(subject).as_bytes());
    match form {
        Form::Svg => context.update(&[0]),
        Form::Raster(edge, format) => {
            context.update(&[1, format as u8]);
            context.update(&edge.px().to_be_bytes());
        }
    }
    if kind == Kind::Initials {
        for grapheme in &Initials::of(subject, name).graphemes {
            context.update(grapheme.as_bytes());
            context.update(&[0]);
        }
    }
    HEXLOWER.encode(&context.finish().as_ref()[..16])
}

fn draw(kind: Kind, subject: &SubjectId, name: Option<&str>) -> Drawing {
    let hash = SubjectHash::of(subject);
    let colors = colors::of(&hash);
    match kind {
        Kind::Initials => typeface::outline(&Initials::of(subject, name)).map_or_else(
            || silhouette::draw(colors),
            |path| Drawing {
                ground: colors.strong,
                figure: colors::WHITE,
                path,
            },
        ),
        Kind::Identicon => identicon::draw(&hash, colors),
        Kind::Silhouette => silhouette::draw(colors),
    }
}
