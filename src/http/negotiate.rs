//! Which representation a reader prefers.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use crate::avatar::Format;

/// What a reader takes (`Accept`, RFC 9110, section 12.5.1).
pub(super) struct Accepts {
    /// Type, subtype and quality in thousandths, in the order given.
    ranges: Vec<(String, String, u16)>,
}

impl Accepts {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lines = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let ranges = lines
            .flat_map(|line| line.split(','))
            .filter_map(range)
            .collect();
        Self { ranges }
    }

    /// Whether the reader asks for JSON rather than for an image.
    ///
    /// JSON needs a range of its own. At equal quality an image with a range of its own comes
    /// first, and one that only `*/*` accepts comes last: `application/json, text/plain, */*` is
    /// what common HTTP clients send where they expect JSON.
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

    /// Whether the reader names `OpenMetrics` and does not prefer plain text.
    pub(super) fn prefers_open_metrics(&self) -> bool {
        let open = self.quality(|range| range.0 == "application" && range.1 == "openmetrics-text");
        let plain = self.quality(|range| range.0 == "text" && range.1 == "plain");
        open > 0 && open >= plain
    }

    /// The best quality of the ranges that fit; 0 where none does.
    fn quality(&self, fits: impl Fn(&&(String, String, u16)) -> bool) -> u16 {
        let fitting = self.ranges.iter().filter(fits);
        fitting.map(|range| range.2).max().unwrap_or(0)
    }

    /// Whether the reader takes images of this format.
    pub(super) fn takes(&self, format: Format) -> bool {
        if self.ranges.is_empty() {
            return true;
        }
        let decisive = self.most_specific("image", format.name());
        decisive.is_some_and(|(_, quality)| quality > 0)
    }

    /// The most specific range that a media type fits, with its quality: that range decides.
    fn most_specific(&self, kind: &str, subtype: &str) -> Option<(Rank, u16)> {
        let rank = |(given, sub, quality): &(String, String, u16)| match (&**given, &**sub) {
            (given, sub) if given == kind && sub == subtype => Some((Rank::Type, *quality)),
            (given, "*") if given == kind => Some((Rank::Kind, *quality)),
            ("*", "*") => Some((Rank::Any, *quality)),
            _ => None,
        };
        self.ranges.iter().filter_map(rank).max()
    }
}

/// How specific a range is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// `*/*`
    Any,
    /// `image/*`
    Kind,
    /// `image/webp`
    Type,
}

fn range(text: &str) -> Option<(String, String, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let quality = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("q"))
        .map(|(_, quality)| quality)
        .map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
    let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
    Some((
        kind.to_ascii_lowercase(),
        subtype.to_ascii_lowercase(),
        quality,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str) -> Accepts {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        Accepts::of(&headers)
    }

    #[test]
    fn json_is_for_those_who_ask_for_it() {
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
            // The most specific range decides, wherever it stands.
            ("application/json;q=0, application/*", false),
            (
                "application/*, application/json;q=0.1, image/*;q=0.5",
                false,
            ),
            ("application/*;q=0.1, application/json, image/*;q=0.5", true),
            // What accepts everything accepts images.
            ("application/json;q=0.5, */*", false),
            ("application/json;q=0.5, */*;q=0.8", false),
            ("application/json;q=0.9, text/plain, */*;q=0.8", true),
            ("application/json;q=0.8, */*;q=0.8", true),
            ("application/json, image/*, */*", false),
            ("application/json, image/*;q=0, */*", true),
            ("application/json;q=0.5, image/webp;q=0.1, */*", false),
            // The name of a parameter has no case.
            ("application/json;Q=0.5, image/webp;q=0.6", false),
            (
                "application/json;charset=utf-8;Q=0, image/webp;q=0.6",
                false,
            ),
            ("nonsense", false),
        ] {
            assert_eq!(accepts(accept).prefers_json(), json, "{accept}");
        }
        assert!(!Accepts::of(&HeaderMap::new()).prefers_json());
    }

    #[test]
    fn the_most_specific_range_decides_whether_a_format_is_taken() {
        for (accept, webp, jpeg) in [
            ("*/*", true, true),
            ("image/webp", true, false),
            ("image/*", true, true),
            ("image/webp;q=0, image/*", false, true),
            ("image/jpeg, */*;q=0.1", true, true),
            ("text/html", false, false),
        ] {
            let accepts = accepts(accept);
            assert_eq!(accepts.takes(Format::Webp), webp, "{accept}");
            assert_eq!(accepts.takes(Format::Jpeg), jpeg, "{accept}");
        }
        assert!(Accepts::of(&HeaderMap::new()).takes(Format::Png));
    }

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
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
            assert_eq!(accepts(accept).prefers_open_metrics(), open, "{accept}");
        }
        assert!(!Accepts::of(&HeaderMap::new()).prefers_open_metrics());
    }
}
