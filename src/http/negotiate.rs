//! Content negotiation: the representation that a reader prefers.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use crate::avatar::Format;

/// The media types that a reader accepts (`Accept`, RFC 9110, section 12.5.1).
pub(super) struct Accepts {
    ranges: Vec<MediaRange>,
}

/// One media range of `Accept`.
struct MediaRange {
    /// The type, in lower case; `*` for any.
    kind: String,
    /// The subtype, in lower case; `*` for any.
    subtype: String,
    /// In thousandths.
    quality: u16,
}

impl Accepts {
    /// The `Accept` headers of a request. Without one, a reader accepts everything.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lines = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let ranges = lines
            .flat_map(|line| line.split(','))
            .filter_map(media_range)
            .collect();
        Self { ranges }
    }

    /// Whether the reader prefers JSON to an image.
    ///
    /// Only a range that names `application` can ask for JSON; `*/*` asks for an image. At equal
    /// quality a range that names `image` is preferred to JSON, and JSON is preferred to `*/*`:
    /// common HTTP clients that expect JSON send `application/json, text/plain, */*`.
    pub(super) fn prefers_json(&self) -> bool {
        let json = match self.most_specific("application", "json") {
            Some((rank, quality)) if rank > Rank::Any => quality,
            _ => 0,
        };
        let (mut named, mut any) = (0, 0);
        for format in Format::ALL {
            match self.most_specific("image", format.name()) {
                Some((Rank::Any, quality)) => any = any.max(quality),
                Some((_, quality)) => named = named.max(quality),
                None => {}
            }
        }
        json > 0 && json > named && json >= any
    }

    /// Whether the reader asks for `OpenMetrics` and does not prefer plain text.
    pub(super) fn prefers_open_metrics(&self) -> bool {
        let open = self.named_quality("application", "openmetrics-text");
        let plain = self.named_quality("text", "plain");
        open > 0 && open >= plain
    }

    /// The highest quality of the ranges that name exactly this media type; 0 if there is none.
    fn named_quality(&self, kind: &str, subtype: &str) -> u16 {
        let named = self.ranges.iter();
        let named = named.filter(|range| range.kind == kind && range.subtype == subtype);
        named.map(|range| range.quality).max().unwrap_or(0)
    }

    /// The quality of a kind of image in thousandths; 0 if the reader does not accept it.
    pub(super) fn image_quality(&self, subtype: &str) -> u16 {
        if self.ranges.is_empty() {
            return 1000;
        }
        let decisive = self.most_specific("image", subtype);
        decisive.map_or(0, |(_, quality)| quality)
    }

    /// The format that the reader prefers; the first one of equal quality. `None` if the reader
    /// accepts none of them.
    pub(super) fn best(&self, formats: impl IntoIterator<Item = Format>) -> Option<Format> {
        let mut best = None;
        for format in formats {
            let quality = self.image_quality(format.name());
            if quality > best.map_or(0, |(highest, _)| highest) {
                best = Some((quality, format));
            }
        }
        best.map(|(_, format)| format)
    }

    /// The most specific range that includes a media type, and its quality. This range decides.
    fn most_specific(&self, kind: &str, subtype: &str) -> Option<(Rank, u16)> {
        let rank = |range: &MediaRange| {
            let rank = match (&*range.kind, &*range.subtype) {
                (given, sub) if given == kind && sub == subtype => Rank::Type,
                (given, "*") if given == kind => Rank::Kind,
                ("*", "*") => Rank::Any,
                _ => return None,
            };
            Some((rank, range.quality))
        };
        self.ranges.iter().filter_map(rank).max()
    }
}

/// How specific a media range is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// `*/*`
    Any,
    /// `image/*`
    Kind,
    /// `image/webp`
    Type,
}

/// Parses one media range; `None` if it is malformed.
fn media_range(text: &str) -> Option<MediaRange> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let quality = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("q"))
        .map(|(_, quality)| quality)
        .map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
    let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
    Some(MediaRange {
        kind: kind.to_ascii_lowercase(),
        subtype: subtype.to_ascii_lowercase(),
        quality,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Accepts {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        Accepts::of(&headers)
    }

    #[test]
    fn only_a_reader_who_prefers_json_gets_it() {
        for (accept, json) in [
            ("application/json", true),
            ("application/json, text/plain, */*", true),
            ("application/json;q=0.5, image/webp", false),
            ("image/*;q=0.5, application/json", true),
            ("*/*", false),
            ("image/avif,image/webp,image/*,*/*;q=0.8", false),
            ("text/html,application/xhtml+xml,*/*;q=0.8", false),
            ("application/json;q=0", false),
            ("application/*", true),
            // The most specific range decides, whatever the order.
            ("application/json;q=0, application/*", false),
            (
                "application/*, application/json;q=0.1, image/*;q=0.5",
                false,
            ),
            ("application/*;q=0.1, application/json, image/*;q=0.5", true),
            // `*/*` accepts images.
            ("application/json;q=0.5, */*", false),
            ("application/json;q=0.5, */*;q=0.8", false),
            ("application/json;q=0.9, text/plain, */*;q=0.8", true),
            ("application/json;q=0.8, */*;q=0.8", true),
            ("application/json, image/*, */*", false),
            ("application/json, image/*;q=0, */*", true),
            ("application/json;q=0.5, image/webp;q=0.1, */*", false),
            // Parameter names are case-insensitive.
            ("application/json;Q=0.5, image/webp;q=0.6", false),
            (
                "application/json;charset=utf-8;Q=0, image/webp;q=0.6",
                false,
            ),
            ("nonsense", false),
        ] {
            assert_eq!(parse(accept).prefers_json(), json, "{accept}");
        }
        assert!(!Accepts::of(&HeaderMap::new()).prefers_json());
    }

    #[test]
    fn the_most_specific_range_decides_whether_a_format_is_accepted() {
        for (accept, webp, jpeg) in [
            ("*/*", true, true),
            ("image/webp", true, false),
            ("image/*", true, true),
            ("image/webp;q=0, image/*", false, true),
            ("image/jpeg, */*;q=0.1", true, true),
            ("text/html", false, false),
        ] {
            let accepts = parse(accept);
            assert_eq!(accepts.image_quality("webp") > 0, webp, "{accept}");
            assert_eq!(accepts.image_quality("jpeg") > 0, jpeg, "{accept}");
        }
        assert_eq!(Accepts::of(&HeaderMap::new()).image_quality("png"), 1000);
    }

    #[test]
    fn the_format_of_the_highest_quality_is_chosen_and_the_first_one_of_several() {
        use Format::{Jpeg, Webp};
        for (accept, best) in [
            ("*/*", Some(Webp)),
            ("image/jpeg, image/webp", Some(Webp)),
            ("image/jpeg, image/webp;q=0.9", Some(Jpeg)),
            ("image/jpeg;q=0.2, image/*;q=0.1", Some(Jpeg)),
            ("image/webp;q=0, image/*", Some(Jpeg)),
            ("image/png", None),
            ("image/webp;q=0, image/jpeg;q=0", None),
        ] {
            assert_eq!(parse(accept).best([Webp, Jpeg]), best, "{accept}");
        }
    }

    #[test]
    fn only_a_reader_who_names_open_metrics_gets_it() {
        for (accept, open) in [
            (
                "application/openmetrics-text; version=1.0.0, text/plain;version=0.0.4;q=0.5",
                true,
            ),
            ("application/openmetrics-text", true),
            (
                "application/openmetrics-text;q=0.3, text/plain;q=0.5",
                false,
            ),
            ("application/openmetrics-text;q=0", false),
            ("text/plain", false),
            ("*/*", false),
            ("application/*", false),
        ] {
            assert_eq!(parse(accept).prefers_open_metrics(), open, "{accept}");
        }
        assert!(!Accepts::of(&HeaderMap::new()).prefers_open_metrics());
    }
}
