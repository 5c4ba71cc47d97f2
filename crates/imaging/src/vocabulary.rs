//! The vocabulary for pictures: formats, named sizes, and the results of processing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The encoding of a rendition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `image/webp`
    Webp,
    /// `image/jpeg`; it has no alpha, so pictures are flattened on the configured background
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

    /// The file extension of an object, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Webp => "webp",
            Self::Jpeg => "jpg",
            Self::Png => "png",
        }
    }

    /// The format with this file extension.
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

/// The encoding of an upload.
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
    /// BMP
    Bmp,
    /// TIFF
    Tiff,
}

impl SourceFormat {
    /// Every format, in the order of the enum.
    pub const ALL: [Self; 8] = [
        Self::Jpeg,
        Self::Png,
        Self::Webp,
        Self::Gif,
        Self::Heic,
        Self::Avif,
        Self::Bmp,
        Self::Tiff,
    ];

    /// The name in configuration: `jpeg`, `png`, `webp`, `gif`, `heic`, `avif`, `bmp`, `tiff`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Gif => "gif",
            Self::Heic => "heic",
            Self::Avif => "avif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
        }
    }

    /// The name in the API: `JPEG`, `PNG`, `WEBP`, `GIF`, `HEIC`, `AVIF`, `BMP`, `TIFF`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Webp => "WEBP",
            Self::Gif => "GIF",
            Self::Heic => "HEIC",
            Self::Avif => "AVIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }
}

/// The name of a configured square size, such as `medium`: 1 to 32 of `a-z 0-9 _ -`, beginning
/// with a letter. It is the stem of the object's file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VariantName(String);

/// The text is not a variant name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a variant's name has 1 to 32 characters of a-z 0-9 _ - and begins with a letter")]
pub struct InvalidVariantName;

impl VariantName {
    /// Makes a variant name of `text`.
    ///
    /// # Errors
    /// [`InvalidVariantName`] if it is empty, too long, or has another character.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidVariantName> {
        let text = text.into();
        let legal =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        let begins_well = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase());
        if text.len() > 32 || !begins_well || !text.bytes().all(legal) {
            return Err(InvalidVariantName);
        }
        Ok(Self(text))
    }

    /// The name under which an original is listed beside the variants. No variant has it.
    pub fn original() -> Self {
        Self("original".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VariantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VariantName {
    type Err = InvalidVariantName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for VariantName {
    type Error = InvalidVariantName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<VariantName> for String {
    fn from(name: VariantName) -> Self {
        name.0
    }
}

/// One variant in one format, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendition {
    /// The variant that it was made for.
    pub variant: VariantName,
    /// Its encoding.
    pub format: Format,
    /// Its width in pixels: less than the variant's if the picture is smaller.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it is animated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub animated: bool,
}

/// The placeholder that is shown until the picture has loaded.
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
