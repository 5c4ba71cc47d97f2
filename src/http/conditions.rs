//! Conditional requests and ranges (RFC 9110, sections 13 and 14): entity tags, the conditions of
//! reads and changes, and the range of an image that a request asks for.

use std::ops::RangeInclusive;

use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::{Code, Problem};
use crate::avatar::{AvatarId, ObjectKey, PUBLIC_ROOT, VariantName};
use crate::service::{Precondition, Size};

/// The entity tag of an avatar as JSON. `size` is the value of `?size=`, which changes
/// `avatar_url`.
pub(super) fn json_tag(avatar: AvatarId, size: Option<&Size>) -> String {
    match size {
        None => format!("\"{avatar}\""),
        Some(Size::Variant(name)) => format!("\"{avatar}-{name}\""),
        Some(Size::Pixels(px)) => format!("\"{avatar}-{px}\""),
    }
}

/// The entity tag of an image: its avatar's id, variant and file extension.
pub(super) fn image_tag(key: &ObjectKey) -> String {
    let path = key.to_string();
    let mut segments = path.rsplit('/');
    let (file, avatar) = (segments.next(), segments.next());
    format!(
        "\"{}-{}\"",
        avatar.unwrap_or_default(),
        file.unwrap_or_default()
    )
}

/// The result of a read's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadCondition {
    /// All conditions hold, or there are none.
    Holds,
    /// The reader has this representation: 304.
    NotModified,
    /// `If-Match` names other representations: 412.
    Failed,
}

/// Evaluates `If-Match` and `If-None-Match` of a read for the representation with this entity tag.
pub(super) fn of_read(headers: &HeaderMap, tag: &str) -> ReadCondition {
    match tags(headers, &IF_MATCH) {
        Ok(None | Some(Tags::Any)) => {}
        Ok(Some(Tags::List(tags))) if tags.iter().any(|one| one.is(tag)) => {}
        // No tag in a header that cannot be parsed matches.
        Ok(Some(Tags::List(_))) | Err(Malformed) => return ReadCondition::Failed,
    }
    match tags(headers, &IF_NONE_MATCH) {
        Ok(Some(Tags::Any)) => ReadCondition::NotModified,
        Ok(Some(Tags::List(tags))) if tags.iter().any(|one| one.is_weakly(tag)) => {
            ReadCondition::NotModified
        }
        _ => ReadCondition::Holds,
    }
}

/// The problem of a read whose `If-Match` does not match: 412.
pub(super) fn other_representation() -> Problem {
    let detail = "If-Match names no entity tag of the representation at this URL";
    Problem::new(Code::PreconditionFailed, detail)
}

/// The condition of an upload or a delete on the current avatar (`If-Match`, `If-None-Match: *`).
///
/// `If-Match` can name any representation of the avatar, because all of them change together.
///
/// # Errors
/// 400 if a condition cannot be parsed or is not supported. A change that ignored it could
/// overwrite an avatar against the caller's will.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let refused = |detail: &str| Err(Problem::new(Code::MalformedRequest, detail));
    let (Ok(matching), Ok(none_matching)) =
        (tags(headers, &IF_MATCH), tags(headers, &IF_NONE_MATCH))
    else {
        return refused("If-Match and If-None-Match must be * or a list of quoted entity tags");
    };
    match (matching, none_matching) {
        (None, None) => Ok(Precondition::Anything),
        (None, Some(Tags::Any)) => Ok(Precondition::Absent),
        (Some(Tags::Any), None) => Ok(Precondition::Present),
        (Some(Tags::List(tags)), None) => {
            // If-Match compares strongly: a weak tag never matches. A tag of another service does
            // not match either.
            let avatars = tags.iter().filter_map(EntityTag::avatar);
            Ok(Precondition::OneOf(avatars.collect()))
        }
        _ => refused("a change supports If-Match or If-None-Match: *, but not both"),
    }
}

/// The range of an image that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RangeRequest {
    /// The bytes at these offsets, as far as the image has them.
    Offsets(RangeInclusive<u64>),
    /// The last bytes of the image, this many.
    Last(u64),
}

/// The range of bytes that a request asks for, of the representation with this entity tag.
///
/// `None` means the whole representation: the request has no range, several ranges or a range that
/// cannot be parsed, or its `If-Range` names another representation.
pub(super) fn range(headers: &HeaderMap, tag: &str) -> Option<RangeRequest> {
    if headers.contains_key(IF_RANGE) {
        let known = only(headers, &IF_RANGE)?;
        // A date never matches, because representations have no Last-Modified.
        let (known, rest) = entity_tag(known.as_bytes())?;
        if !known.is(tag) || !rest.trim_ascii().is_empty() {
            return None;
        }
    }
    let (unit, ranges) = only(headers, &RANGE)?.to_str().ok()?.split_once('=')?;
    let (first, last) = ranges.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (first, last) {
        ("", last) => Some(RangeRequest::Last(offset(last)?)),
        (first, "") => Some(RangeRequest::Offsets(offset(first)?..=u64::MAX)),
        (first, last) => {
            let (first, last) = (offset(first)?, offset(last)?);
            (first <= last).then_some(RangeRequest::Offsets(first..=last))
        }
    }
}

/// A whole number. A number above `u64::MAX` becomes `u64::MAX`.
fn offset(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The value of a header that occurs exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// An entity tag in a request (RFC 9110, section 8.8.3).
#[derive(Debug, PartialEq, Eq)]
struct EntityTag<'a> {
    is_weak: bool,
    /// The bytes between the quotes.
    opaque: &'a [u8],
}

impl EntityTag<'_> {
    /// Strong comparison with an entity tag of this service, all of which are strong.
    fn is(&self, tag: &str) -> bool {
        !self.is_weak && self.is_weakly(tag)
    }

    /// Weak comparison.
    fn is_weakly(&self, tag: &str) -> bool {
        self.opaque == tag.trim_matches('"').as_bytes()
    }

    /// The avatar whose strong entity tag this is.
    fn avatar(&self) -> Option<AvatarId> {
        let text = std::str::from_utf8(self.opaque).ok()?;
        let (id, rest) = match text.split_once('-') {
            Some((id, rest)) => (id, Some(rest)),
            None => (text, None),
        };
        let is_representation = |rest| {
            offset(rest).is_some()
                || VariantName::new(rest).is_ok()
                || ObjectKey::parse(&format!("{PUBLIC_ROOT}/{id}/{rest}")).is_some()
        };
        let known = !self.is_weak && rest.is_none_or(is_representation);
        id.parse().ok().filter(|_| known)
    }
}

enum Tags<'a> {
    /// `*`
    Any,
    /// At least one.
    List(Vec<EntityTag<'a>>),
}

struct Malformed;

/// The entity tags in a header; `None` if there is no such header.
fn tags<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<Tags<'h>>, Malformed> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    if only(headers, name).is_some_and(|value| value.as_bytes().trim_ascii() == b"*") {
        return Ok(Some(Tags::Any));
    }
    let mut tags = Vec::new();
    for line in headers.get_all(name) {
        let mut rest = skip_separators(line.as_bytes());
        while !rest.is_empty() {
            let (tag, after) = entity_tag(rest).ok_or(Malformed)?;
            tags.push(tag);
            let after = after.trim_ascii_start();
            if !after.is_empty() && after[0] != b',' {
                return Err(Malformed);
            }
            rest = skip_separators(after);
        }
    }
    if tags.is_empty() {
        return Err(Malformed);
    }
    Ok(Some(Tags::List(tags)))
}

fn skip_separators(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b',', rest @ ..] = text {
        text = rest;
    }
    text
}

/// The entity tag at the start of `text`, and the text after it.
fn entity_tag(text: &[u8]) -> Option<(EntityTag<'_>, &[u8])> {
    let (is_weak, quoted) = match text.strip_prefix(b"W/") {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let quoted = quoted.strip_prefix(b"\"")?;
    let end = quoted.iter().position(|byte| *byte == b'"')?;
    let (opaque, rest) = (&quoted[..end], &quoted[end + 1..]);
    let is_legal = |byte: &u8| *byte > b' ' && *byte != 0x7f;
    let tag = EntityTag { is_weak, opaque };
    opaque.iter().all(is_legal).then_some((tag, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::avatar::{Audience, Format};

    const ID: AvatarId = AvatarId::from_bytes([7; 16]);

    fn with(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn image() -> ObjectKey {
        ObjectKey::Rendition {
            audience: Audience::Public,
            avatar: ID,
            variant: VariantName::new("medium").unwrap(),
            format: Format::Jpeg,
            animated: false,
        }
    }

    #[test]
    fn every_representation_has_an_entity_tag_of_its_own() {
        let small = Size::Variant(VariantName::new("small").unwrap());
        assert_eq!(json_tag(ID, None), format!("\"{ID}\""));
        assert_eq!(json_tag(ID, Some(&small)), format!("\"{ID}-small\""));
        assert_eq!(
            json_tag(ID, Some(&Size::Pixels(300))),
            format!("\"{ID}-300\"")
        );
        assert_eq!(image_tag(&image()), format!("\"{ID}-medium.jpg\""));
    }

    #[test]
    fn only_a_tag_of_the_same_representation_is_not_modified() {
        let tag = image_tag(&image());
        for (given, expected) in [
            (tag.clone(), ReadCondition::NotModified),
            (format!("W/{tag}"), ReadCondition::NotModified),
            (format!("\"a,b\" ,, {tag}"), ReadCondition::NotModified),
            ("*".to_owned(), ReadCondition::NotModified),
            (json_tag(ID, None), ReadCondition::Holds),
            (
                format!("\"x,{}\"", tag.trim_matches('"')),
                ReadCondition::Holds,
            ),
            (tag.trim_matches('"').to_owned(), ReadCondition::Holds),
            (format!("{tag}{tag}"), ReadCondition::Holds),
            (String::new(), ReadCondition::Holds),
        ] {
            let headers = with(&[(IF_NONE_MATCH, &given)]);
            assert_eq!(of_read(&headers, &tag), expected, "{given}");
        }
        let lines = with(&[(IF_NONE_MATCH, "\"other\""), (IF_NONE_MATCH, &tag)]);
        assert_eq!(of_read(&lines, &tag), ReadCondition::NotModified);
    }

    #[test]
    fn if_match_of_a_read_compares_strongly_and_comes_first() {
        let tag = image_tag(&image());
        for (given, expected) in [
            (tag.clone(), ReadCondition::Holds),
            ("*".to_owned(), ReadCondition::Holds),
            (format!("W/{tag}"), ReadCondition::Failed),
            ("\"other\"".to_owned(), ReadCondition::Failed),
            ("other".to_owned(), ReadCondition::Failed),
        ] {
            let headers = with(&[(IF_MATCH, &given)]);
            assert_eq!(of_read(&headers, &tag), expected, "{given}");
        }
        let both = with(&[(IF_MATCH, "\"other\""), (IF_NONE_MATCH, &tag)]);
        assert_eq!(of_read(&both, &tag), ReadCondition::Failed);
    }

    #[test]
    fn a_change_accepts_every_strong_tag_of_the_avatar_and_no_other() {
        let read = |name: HeaderName, value: &str| precondition(&with(&[(name, value)]));
        let expected = |ids: &[AvatarId]| Precondition::OneOf(ids.to_vec());
        assert_eq!(
            precondition(&HeaderMap::new()).unwrap(),
            Precondition::Anything
        );
        assert_eq!(read(IF_NONE_MATCH, "*").unwrap(), Precondition::Absent);
        assert_eq!(read(IF_MATCH, " * ").unwrap(), Precondition::Present);
        for tag in ["", "-small", "-300", "-medium.jpg", "-medium.animated.webp"] {
            let tag = format!("\"{ID}{tag}\"");
            assert_eq!(read(IF_MATCH, &tag).unwrap(), expected(&[ID]), "{tag}");
            let weak = format!("W/{tag}");
            assert_eq!(read(IF_MATCH, &weak).unwrap(), expected(&[]), "{weak}");
            let list = format!("\"a,{ID}\", {tag},\"b\"");
            assert_eq!(read(IF_MATCH, &list).unwrap(), expected(&[ID]), "{list}");
        }
        for tag in [
            "\"none\"",
            &format!("\"{ID}-\""),
            &format!("\"{ID}-x.exe\""),
        ] {
            assert_eq!(read(IF_MATCH, tag).unwrap(), expected(&[]), "{tag}");
        }
    }

    #[test]
    fn unsupported_and_malformed_conditions_of_a_change_are_refused() {
        let tag = json_tag(ID, None);
        for fields in [
            vec![(IF_NONE_MATCH, tag.as_str())],
            vec![(IF_MATCH, "")],
            vec![(IF_MATCH, "unquoted")],
            vec![(IF_MATCH, "\"open")],
            vec![(IF_MATCH, "*, \"a\"")],
            vec![(IF_MATCH, "*"), (IF_MATCH, "*")],
            vec![(IF_NONE_MATCH, " , ")],
            vec![(IF_MATCH, "*"), (IF_NONE_MATCH, "*")],
        ] {
            let refused = precondition(&with(&fields)).unwrap_err();
            assert_eq!(refused.code, Code::MalformedRequest, "{fields:?}");
        }
    }

    #[test]
    fn only_a_single_valid_range_selects_a_part() {
        for (range, expected) in [
            ("bytes=0-99", Some(RangeRequest::Offsets(0..=99))),
            ("BYTES=5-5", Some(RangeRequest::Offsets(5..=5))),
            ("bytes=5-", Some(RangeRequest::Offsets(5..=u64::MAX))),
            ("bytes= 5-9 ", Some(RangeRequest::Offsets(5..=9))),
            ("bytes=-7", Some(RangeRequest::Last(7))),
            ("bytes=-0", Some(RangeRequest::Last(0))),
            (
                "bytes=0-99999999999999999999",
                Some(RangeRequest::Offsets(0..=u64::MAX)),
            ),
            ("bytes=0-1,4-5", None),
            ("bytes=9-5", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("bytes 0-1", None),
            ("lines=0-1", None),
            ("", None),
        ] {
            let found = super::range(&with(&[(RANGE, range)]), "\"tag\"");
            assert_eq!(found, expected, "{range}");
        }
        assert_eq!(range(&HeaderMap::new(), "\"tag\""), None);
        let twice = with(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=0-1")]);
        assert_eq!(range(&twice, "\"tag\""), None);
    }

    #[test]
    fn if_range_compares_strongly() {
        for (known, is_part) in [
            ("\"tag\"", true),
            ("W/\"tag\"", false),
            ("\"other\"", false),
            ("\"tag\", \"tag\"", false),
            ("Sat, 31 Jan 2026 09:30:00 GMT", false),
        ] {
            let headers = with(&[(RANGE, "bytes=0-1"), (IF_RANGE, known)]);
            assert_eq!(range(&headers, "\"tag\"").is_some(), is_part, "{known}");
        }
    }

    proptest! {
        #[test]
        fn every_list_of_entity_tags_is_read_back(
            opaques in proptest::collection::vec("[!#-~]{0,20}", 1..6),
            weak: Vec<bool>,
            separator in "[ \t]{0,2},[ ,\t]{0,3}",
        ) {
            let written: Vec<_> = opaques
                .iter()
                .enumerate()
                .map(|(at, opaque)| {
                    let mark = if weak.get(at) == Some(&true) { "W/" } else { "" };
                    format!("{mark}\"{opaque}\"")
                })
                .collect();
            let headers = with(&[(IF_MATCH, &written.join(&separator))]);
            let Ok(Some(Tags::List(found))) = tags(&headers, &IF_MATCH) else {
                panic!("{written:?}");
            };
            let found: Vec<_> = found
                .iter()
                .map(|tag| (tag.is_weak, std::str::from_utf8(tag.opaque).unwrap()))
                .collect();
            let expected: Vec<_> = opaques
                .iter()
                .enumerate()
                .map(|(at, opaque)| (weak.get(at) == Some(&true), opaque.as_str()))
                .collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_header_makes_a_condition_or_a_range_panic(value in proptest::collection::vec(32..=255_u8, 0..60)) {
            let value = HeaderValue::from_bytes(&value.into_iter().filter(|byte| *byte != 127).collect::<Vec<_>>()).unwrap();
            let mut headers = HeaderMap::new();
            for name in [IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE] {
                headers.insert(name, value.clone());
            }
            of_read(&headers, "\"tag\"");
            range(&headers, "\"tag\"");
            let _ = precondition(&headers);
        }
    }
}
