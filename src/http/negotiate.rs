//! What a reader would rather have, and what it has already.

use axum::http::header::{ACCEPT, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName};

use super::problem::{Code, Problem};
use crate::avatar::{AvatarId, Format};
use crate::service::Precondition;

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

    /// Whether the reader asks for JSON rather than for an image. Whoever takes anything gets the
    /// image.
    pub(super) fn prefers_json(&self) -> bool {
        let named = |kind: &str, subtype: &str| {
            let quality = |(_, _, quality): &(_, _, u16)| *quality;
            let fits = |range: &&(String, String, u16)| {
                range.0 == kind && (subtype == "*" || range.1 == subtype || range.1 == "*")
            };
            self.ranges
                .iter()
                .filter(fits)
                .map(quality)
                .max()
                .unwrap_or(0)
        };
        let json = named("application", "json");
        json > 0 && json > named("image", "*")
    }

    /// Whether the reader takes images of this format.
    pub(super) fn takes(&self, format: Format) -> bool {
        if self.ranges.is_empty() {
            return true;
        }
        let subtype = format.name();
        // The most specific range decides.
        let rank = |(kind, sub, quality): &(String, String, u16)| match (&**kind, &**sub) {
            ("image", sub) if sub == subtype => Some((2, *quality)),
            ("image", "*") => Some((1, *quality)),
            ("*", "*") => Some((0, *quality)),
            _ => None,
        };
        let best = self.ranges.iter().filter_map(rank).max();
        best.is_some_and(|(_, quality)| quality > 0)
    }
}

fn range(text: &str) -> Option<(String, String, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let quality = parts
        .find_map(|parameter| parameter.strip_prefix("q="))
        .map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
    let quality = (quality.clamp(0.0, 1.0) * 1000.0) as u16;
    Some((
        kind.to_ascii_lowercase(),
        subtype.to_ascii_lowercase(),
        quality,
    ))
}

/// The entity tag of an avatar: its id in quotes.
pub(super) fn etag(avatar: AvatarId) -> String {
    format!("\"{avatar}\"")
}

/// Whether the reader has the avatar already (`If-None-Match`).
pub(super) fn has_already(headers: &HeaderMap, avatar: AvatarId) -> bool {
    let tags = tags(headers, IF_NONE_MATCH);
    tags.iter()
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag(avatar))
}

/// What an upload expects of the current avatar (`If-Match`, `If-None-Match: *`).
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let (matching, none_matching) = (tags(headers, IF_MATCH), tags(headers, IF_NONE_MATCH));
    let unreadable = |name, tags: &[String]| headers.contains_key(name) && tags.is_empty();
    if unreadable(IF_MATCH, &matching) || unreadable(IF_NONE_MATCH, &none_matching) {
        // Whoever sets a condition must not be answered as if there were none.
        let detail = "If-Match or If-None-Match cannot be read";
        return Err(Problem::new(Code::MalformedRequest, detail));
    }
    match (matching.as_slice(), none_matching.as_slice()) {
        ([], []) => Ok(Precondition::Anything),
        ([], [any]) if any == "*" => Ok(Precondition::Absent),
        ([any], []) if any == "*" => Ok(Precondition::Present),
        (tags, []) => {
            // A weak or foreign tag never matches strongly; it is no error, it just fails.
            let id = |tag: &String| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
            Ok(Precondition::OneOf(tags.iter().filter_map(id).collect()))
        }
        _ => {
            let detail = "an upload takes If-Match, or If-None-Match: *, and not both";
            Err(Problem::new(Code::MalformedRequest, detail))
        }
    }
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let lines = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
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
    fn preconditions_are_read_from_their_headers() {
        let id = AvatarId::from_bytes([7; 16]);
        let read = |name: HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            precondition(&headers)
        };
        assert_eq!(
            precondition(&HeaderMap::new()).unwrap(),
            Precondition::Anything
        );
        assert_eq!(read(IF_NONE_MATCH, "*").unwrap(), Precondition::Absent);
        assert_eq!(read(IF_MATCH, "*").unwrap(), Precondition::Present);
        let tags = format!("\"other\", {}, W/{0}", etag(id));
        let tags = tags.replace("{0}", &etag(id));
        assert_eq!(
            read(IF_MATCH, &tags).unwrap(),
            Precondition::OneOf(vec![id])
        );
        assert!(read(IF_NONE_MATCH, &etag(id)).is_err());
        assert!(read(IF_MATCH, "").is_err());
        assert!(read(IF_NONE_MATCH, " , ").is_err());
        assert_eq!(
            read(IF_MATCH, "\"none\"").unwrap(),
            Precondition::OneOf(vec![])
        );
    }
}
