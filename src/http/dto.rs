//! JSON bodies of responses, and the query of a read.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Problem};
use crate::access::Links;
use crate::avatar::{Format, Record, Rendition, SubjectId, VariantName};
use crate::service::{self, Size};

/// An avatar.
#[derive(Serialize, ToSchema)]
pub(super) struct Avatar {
    /// The user's id.
    #[schema(value_type = super::docs::UserId)]
    pub user_id: String,
    /// The id of the upload: 26 characters of base32, new for every upload.
    #[schema(pattern = "^[a-z2-7]{26}$", example = "c4vwquylsaznpkfz4fijhxgcoq")]
    pub avatar_id: String,
    /// Grows with every upload of the user, and never decreases.
    #[schema(example = 3)]
    pub version: u64,
    /// The image to show if one is enough.
    pub avatar_url: String,
    /// The images in the primary format, by size; and the `original` if it is public.
    pub variants: BTreeMap<String, String>,
    /// All images, in all formats and sizes; and the original if it is public.
    pub images: Vec<Image>,
    /// A placeholder to show until an image has loaded.
    pub placeholder: PlaceholderDto,
    /// Facts about the uploaded picture.
    pub metadata: Metadata,
    /// Only in the answer to an upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message: Option<&'static str>,
}

/// One image of an avatar.
#[derive(Serialize, ToSchema)]
pub(super) struct Image {
    /// The size that the image was made for, or `original`.
    #[schema(example = "medium")]
    pub variant: String,
    /// `webp`, `jpeg` or `png`.
    #[schema(example = "webp")]
    pub format: String,
    /// Its width in pixels. It is smaller than the variant's if the picture was smaller.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its URL.
    pub url: String,
    /// Whether it is animated; absent if it is not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub animated: bool,
}

/// A placeholder to show until an image has loaded.
#[derive(Serialize, ToSchema)]
#[schema(as = Placeholder)]
pub(super) struct PlaceholderDto {
    /// The `ThumbHash` in base64.
    pub thumbhash: String,
    /// The dominant colour.
    #[schema(example = "#7a5c48")]
    pub color: String,
}

/// Facts about the uploaded picture.
#[derive(Serialize, ToSchema)]
pub(super) struct Metadata {
    /// Its size in bytes.
    pub original_size: u64,
    /// Width and height of the upright picture in pixels.
    #[schema(example = "2000x2000")]
    pub original_dimensions: String,
    /// `JPEG`, `PNG`, `WEBP`, `GIF`, `HEIC`, `AVIF`, `BMP` or `TIFF`.
    #[schema(example = "JPEG")]
    pub format: String,
    /// Whether it had more than one frame.
    pub animated: bool,
    /// The time of the upload: RFC 3339, UTC.
    #[schema(format = DateTime)]
    pub uploaded_at: String,
}

/// The result of a delete.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    /// The result in words.
    pub message: &'static str,
    /// The number of removed files that anyone could read: those of the avatar, and those of
    /// earlier avatars that were still kept.
    pub files_deleted: usize,
}

/// The query of a read.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SizeQuery {
    /// The name of a variant, or a number of pixels, at least 1: the smallest variant that has at
    /// least so many pixels a side.
    #[param(example = "medium")]
    pub size: Option<String>,
}

impl SizeQuery {
    /// The requested size, if the record has it; `None` if the query names none.
    ///
    /// # Errors
    /// 400 if the record has no such size.
    pub(super) fn choose(&self, record: &Record) -> Result<Option<Size>, Problem> {
        let Some(text) = &self.size else {
            return Ok(None);
        };
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // A number above `u32::MAX` is larger than every variant.
            return match text.parse().unwrap_or(u32::MAX) {
                0 => {
                    let detail = "the size is 0 pixels; at least 1";
                    Err(Problem::new(Code::MalformedRequest, detail))
                }
                px => Ok(Some(Size::Pixels(px))),
            };
        }
        let known = |name: &VariantName| record.renditions.iter().any(|one| one.variant == *name);
        match VariantName::new(text.as_str()) {
            Ok(name) if known(&name) => Ok(Some(Size::Variant(name))),
            _ => {
                let names: BTreeSet<_> = record
                    .renditions
                    .iter()
                    .map(|one| one.variant.as_str())
                    .collect();
                let names = Vec::from_iter(names).join(", ");
                let detail = format!("there is no size {text:?}; send pixels or one of {names}");
                Err(Problem::new(Code::MalformedRequest, detail))
            }
        }
    }
}

impl Avatar {
    /// The JSON form of a record with these links; `size` selects `avatar_url`.
    pub(super) fn of(links: &Links<'_>, subject: &SubjectId, record: &Record, size: &Size) -> Self {
        let id = record.avatar_id;
        let url = |rendition: &Rendition| links.of(rendition).to_owned();
        let primary = record
            .renditions
            .first()
            .map_or(Format::Webp, |first| first.format);
        let mut variants: BTreeMap<_, _> = record
            .renditions
            .iter()
            .filter(|one| one.format == primary && !one.animated)
            .map(|one| (one.variant.to_string(), url(one)))
            .collect();
        let mut images: Vec<_> = record
            .renditions
            .iter()
            .map(|one| Image {
                variant: one.variant.to_string(),
                format: one.format.name().to_owned(),
                width: one.width,
                height: one.height,
                bytes: one.bytes,
                url: url(one),
                animated: one.animated,
            })
            .collect();
        if let Some((original, url)) = links.original() {
            let variant = VariantName::original().to_string();
            variants.insert(variant.clone(), url.to_owned());
            images.push(Image {
                variant,
                format: original.format.name().to_owned(),
                width: original.width,
                height: original.height,
                bytes: original.bytes,
                url: url.to_owned(),
                animated: false,
            });
        }
        let shown = service::pick(record, size, primary).or(record.renditions.first());
        let [red, green, blue] = record.placeholder.color;
        let source = &record.source;
        Self {
            user_id: subject.to_string(),
            avatar_id: id.to_string(),
            version: record.version.0,
            avatar_url: shown.map(url).unwrap_or_default(),
            variants,
            images,
            placeholder: PlaceholderDto {
                thumbhash: BASE64.encode(&record.placeholder.thumbhash),
                color: format!("#{red:02x}{green:02x}{blue:02x}"),
            },
            metadata: Metadata {
                original_size: source.bytes,
                original_dimensions: format!("{}x{}", source.width, source.height),
                format: source.format.label().to_owned(),
                animated: source.animated,
                uploaded_at: record.uploaded_at.to_string(),
            },
            message: None,
        }
    }

    /// The same with the message that answers an upload.
    pub(super) fn uploaded(mut self) -> Self {
        self.message = Some("Avatar uploaded and processed successfully");
        self
    }
}
