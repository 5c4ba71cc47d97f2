//! What is kept of an avatar.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AvatarId, ObjectKey, SubjectId, Timestamp, VariantName};

/// Counts a subject's uploads, never going back, not even across a delete: from 1, or from above a
/// floor where a catalog was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// A version that no upload can have had by `now`: the seconds since 2025-01-01 UTC. Nobody
    /// uploads more than one avatar a second over all the time that this program has existed; and
    /// whoever began above an earlier floor is by the same reckoning below this one.
    pub fn floor_at(now: Timestamp) -> Self {
        const BEGINNING: Timestamp = Timestamp::from_unix_ms(1_735_689_600_000);
        Self(now.since(BEGINNING).as_secs())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An encoding that renditions are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `image/webp`
    Webp,
    /// `image/jpeg`; has no alpha, so pictures are flattened on the configured background
    Jpeg,
    /// `image/png`
    Png,
}

impl Format {
    /// Every format, in the order of the enum.
    pub const ALL: [Self; 3] = [Self::Webp, Self::Jpeg, Self::Png];

    /// The name in configuration and in the API: `webp`, `jpeg`, `png`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Webp => "webp",
            Self::Jpeg => "jpeg",
            Self::Png => "png",
        }
    }

    /// The ending of an object's file name, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Webp => "webp",
            Self::Jpeg => "jpg",
            Self::Png => "png",
        }
    }

    /// The format whose files have this ending.
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.extension() == extension)
    }

    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Webp => "image/webp",
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
        }
    }
}

/// An encoding that uploads may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    /// JPEG
    Jpeg,
    /// PNG and APNG
    Png,
    /// WebP, still or animated
    Webp,
    /// GIF, still or animated
    Gif,
    /// HEIC and HEIF
    Heic,
    /// AVIF
    Avif,
}

impl SourceFormat {
    /// Every format, in the order of the enum.
    pub const ALL: [Self; 6] = [
        Self::Jpeg,
        Self::Png,
        Self::Webp,
        Self::Gif,
        Self::Heic,
        Self::Avif,
    ];

    /// The name in configuration: `jpeg`, `png`, `webp`, `gif`, `heic`, `avif`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Gif => "gif",
            Self::Heic => "heic",
            Self::Avif => "avif",
        }
    }

    /// The name in the API: `JPEG`, `PNG`, `WEBP`, `GIF`, `HEIC`, `AVIF`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Webp => "WEBP",
            Self::Gif => "GIF",
            Self::Heic => "HEIC",
            Self::Avif => "AVIF",
        }
    }
}

/// One variant in one format, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendition {
    /// The size that it was made for.
    pub variant: VariantName,
    /// Its encoding.
    pub format: Format,
    /// Its true width in pixels: less than the variant's where the picture had less.
    pub width: u32,
    /// Its true height in pixels.
    pub height: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it moves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub animated: bool,
}

impl Rendition {
    /// Where it lies in the store.
    pub fn key(&self, avatar: AvatarId) -> ObjectKey {
        ObjectKey::Rendition {
            avatar,
            variant: self.variant.clone(),
            format: self.format,
            animated: self.animated,
        }
    }
}

/// What to show until the picture has loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placeholder {
    /// The `ThumbHash` of the smallest rendition, about 25 bytes
    /// (<https://evanw.github.io/thumbhash/>).
    pub thumbhash: Vec<u8>,
    /// The dominant colour as sRGB red, green, blue.
    pub color: [u8; 3],
}

/// The upload that an avatar was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The upload's encoding.
    pub format: SourceFormat,
    /// The upload's size in bytes.
    pub bytes: u64,
    /// The upright picture's width in pixels.
    pub width: u32,
    /// The upright picture's height in pixels.
    pub height: u32,
    /// Whether the upload had more than one frame.
    pub animated: bool,
}

/// What the catalog keeps of a subject's current avatar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The upload that it came from.
    pub avatar_id: AvatarId,
    /// Which of the subject's uploads that was.
    pub version: Version,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
    /// What was uploaded.
    pub source: Source,
    /// What was made of it: the primary format first, each format from the largest variant to the
    /// smallest.
    pub renditions: Vec<Rendition>,
    /// The format of the private master, where one is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<Format>,
    /// What to show until it has loaded.
    pub placeholder: Placeholder,
}

impl Record {
    /// The still rendition of `variant` in `format`.
    pub fn still(&self, variant: &VariantName, format: Format) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| {
            !rendition.animated && rendition.variant == *variant && rendition.format == format
        })
    }
}

/// What lies beside an avatar's renditions so that the catalog can be rebuilt from the store
/// alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Whose avatar it is.
    pub subject: SubjectId,
    /// The record as committed.
    #[serde(flatten)]
    pub record: Record,
}
