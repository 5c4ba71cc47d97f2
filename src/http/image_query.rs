//! The query of a request for an image: size, format, default and name.

use serde::Deserialize;
use utoipa::IntoParams;

use super::default_image::DefaultChoice;
use super::problem::{Code, Problem};
use crate::avatar::{Format, VariantName};
use crate::config::DefaultImage;

/// The largest size that counts, in pixels.
const MAX_EDGE_PX: u32 = 1024;
/// The longest name, in characters.
const MAX_NAME_CHARS: usize = 64;

/// The query of a request for an image.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ImageQuery {
    /// The name of a variant, or a number of pixels, at least 1: the smallest image that covers it, or
    /// else the largest one. Above 1024 counts as 1024. `s` is an alias.
    #[serde(alias = "s")]
    #[param(example = "medium")]
    size: Option<String>,
    /// `webp`, `jpeg`, `png` or `svg`, instead of `Accept`. `svg` concerns defaults only.
    #[param(example = "webp")]
    format: Option<String>,
    /// The image if there is no avatar: `initials`, `identicon`, `silhouette`, or `404` for the answer
    /// 404. Without it the setting `delivery.default` decides. `d` is an alias.
    #[serde(alias = "d")]
    #[param(example = "initials")]
    default: Option<String>,
    /// The name whose initials the default shows, at most 64 characters.
    #[param(example = "Ada Lovelace")]
    name: Option<String>,
}

/// A checked query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageRequest {
    pub(super) size: ImageSize,
    pub(super) format: Option<ImageFormat>,
    pub(super) default: DefaultChoice,
    pub(super) name: Option<String>,
}

/// The size that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ImageSize {
    /// A configured variant, and its edge in pixels.
    Variant(VariantName, u32),
    /// A number of pixels, 1 to 1024.
    Pixels(u32),
}

impl ImageSize {
    /// The edge in pixels.
    pub(super) const fn edge_px(&self) -> u32 {
        match self {
            Self::Variant(_, edge_px) | Self::Pixels(edge_px) => *edge_px,
        }
    }
}

/// The format that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageFormat {
    Svg,
    Raster(Format),
}

/// The variants of the configuration, and what is used if a request names nothing.
#[derive(Clone, Debug)]
pub struct ImageDefaults {
    /// Names and edges in pixels. There is at least one.
    pub variants: Vec<(VariantName, u32)>,
    /// The variant if a request names no size.
    pub primary: VariantName,
    /// The default image.
    pub default: DefaultImage,
}

impl ImageQuery {
    /// Checks the query. The answer does not depend on the avatar.
    ///
    /// # Errors
    /// 400 `malformed_request`
    pub(super) fn check(self, known: &ImageDefaults) -> Result<ImageRequest, Problem> {
        let size = match &self.size {
            None => known.size_named(known.primary.as_str()),
            Some(text) => size(text, known)?,
        };
        let format = self.format.as_deref().map(|text| match text {
            "svg" => Ok(ImageFormat::Svg),
            text => {
                let found = Format::ALL.into_iter().find(|format| format.name() == text);
                found.map(ImageFormat::Raster).ok_or_else(|| {
                    malformed(format!("format is {text:?}; give webp, jpeg, png or svg"))
                })
            }
        });
        let default = match self.default.as_deref() {
            None => DefaultChoice::of(known.default),
            Some(text) => DefaultChoice::named(text).ok_or_else(|| {
                malformed(format!(
                    "default is {text:?}; give initials, identicon, silhouette or 404"
                ))
            })?,
        };
        let length = self.name.as_ref().map_or(0, |name| name.chars().count());
        if length > MAX_NAME_CHARS {
            let detail = format!("the name has {length} characters; at most {MAX_NAME_CHARS}");
            return Err(malformed(detail));
        }
        Ok(ImageRequest {
            size,
            format: format.transpose()?,
            default,
            name: self.name,
        })
    }
}

impl ImageDefaults {
    /// A variant by its name. An unknown name gives the largest size.
    fn size_named(&self, name: &str) -> ImageSize {
        let found = self
            .variants
            .iter()
            .find(|(known, _)| known.as_str() == name);
        found.map_or(ImageSize::Pixels(MAX_EDGE_PX), |(name, edge_px)| {
            ImageSize::Variant(name.clone(), *edge_px)
        })
    }
}

fn size(text: &str, known: &ImageDefaults) -> Result<ImageSize, Problem> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number above `u32::MAX` is larger than every image.
        return match text.parse().unwrap_or(u32::MAX) {
            0 => Err(malformed("the size is 0 pixels; at least 1".to_owned())),
            px => Ok(ImageSize::Pixels(px.min(MAX_EDGE_PX))),
        };
    }
    match known.size_named(text) {
        found @ ImageSize::Variant(..) => Ok(found),
        ImageSize::Pixels(_) => {
            let names: Vec<_> = known
                .variants
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            let names = names.join(", ");
            // The text may be long, and the caller knows it.
            Err(malformed(format!(
                "the size is neither a number of pixels nor one of {names}"
            )))
        }
    }
}

fn malformed(detail: String) -> Problem {
    Problem::new(Code::MalformedRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::Kind;

    fn known() -> ImageDefaults {
        let variant = |name, edge_px| (VariantName::new(name).unwrap(), edge_px);
        ImageDefaults {
            variants: vec![variant("medium", 256), variant("small", 128)],
            primary: VariantName::new("medium").unwrap(),
            default: DefaultImage::Identicon,
        }
    }

    fn check(query: &str) -> Result<ImageRequest, Problem> {
        let uri = format!("/avatars/42?{query}").parse().unwrap();
        let axum::extract::Query(query) = axum::extract::Query::try_from_uri(&uri).unwrap();
        ImageQuery::check(query, &known())
    }

    #[test]
    fn a_query_names_size_format_default_and_name() {
        let plain = check("").unwrap();
        let medium = VariantName::new("medium").unwrap();
        assert_eq!(plain.size, ImageSize::Variant(medium, 256));
        assert_eq!(plain.format, None);
        assert_eq!(plain.default, DefaultChoice::Drawn(Kind::Identicon));
        for query in [
            "size=small&format=svg&default=404&name=Ada",
            "s=small&format=svg&d=404&name=Ada",
        ] {
            let found = check(query).unwrap();
            assert_eq!(found.size.edge_px(), 128);
            assert_eq!(found.format, Some(ImageFormat::Svg));
            assert_eq!(found.default, DefaultChoice::NotFound);
            assert_eq!(found.name.as_deref(), Some("Ada"));
        }
        for (size, px) in [
            ("1", 1),
            ("0300", 300),
            ("1024", 1024),
            ("99999999999", 1024),
        ] {
            let found = check(&format!("size={size}")).unwrap();
            assert_eq!(found.size, ImageSize::Pixels(px), "{size}");
        }
    }

    #[test]
    fn other_values_are_refused() {
        let long = format!("name={}", "x".repeat(65));
        for query in [
            "size=0",
            "size=-1",
            "size=1.5",
            "size=",
            "size=huge",
            "size=%2B1",
            "format=gif",
            "format=",
            "default=monsterid",
            "d=",
            &long,
        ] {
            let refused = check(query).unwrap_err();
            assert_eq!(refused.code, Code::MalformedRequest, "{query}");
        }
        // 64 characters of several bytes each.
        assert!(check(&format!("name={}", "%E5%B1%B1".repeat(64))).is_ok());
    }
}
