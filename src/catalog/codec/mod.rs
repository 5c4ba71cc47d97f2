//! Records, policies and events as bytes. The file `policy` has the policies.
//!
//! # A record (layout 2)
//!
//! A record is a *head* and a *body*. The head holds the fields by which a catalog decides, and the
//! totals. The scripts of Redis read the head; the body is opaque to them.
//!
//! | part | field | bytes |
//! | --- | --- | --- |
//! | head | avatar id | 16 |
//! | | version | varint |
//! | | reservation time in Unix milliseconds | varint |
//! | totals | names of variants and file extensions; and marks, to which no object refers: `/private` if the objects lie under `private/`, `/original` if only the service reads the original | varint count; each a varint length and text |
//! | | objects | varint count; each the index of its variant (high bit: animated), the index of its extension, and its size as a varint |
//! | body | layout of the body | 1 |
//! | | upload time, source, dimensions, master, placeholder | see [`Body1`] |
//! | | the square of the original: 0 for no original, or 1 and three varints | 1, or more |
//!
//! An original is the last object of the totals, with the variant `original`. A body without the last
//! field has no original.
//!
//! Varints are LEB128. A reader ignores bytes after the last field that it knows. So a later release
//! can append fields to the body without a new layout, and the previous release still reads the
//! record. The position of the layout number depends on the catalog; [`encode_numbered`] writes it
//! first.
//!
//! Layout 1 of version 0.1.0 is still read. It is one record with its number first. It has no room
//! for new fields, so a replica of version 0.1.0 cannot read what this release writes.
//!
//! # An event (layout 2)
//!
//! An event is: the byte 2; the time as a varint; the replaced avatar (0, or 1 with the time when its
//! objects are gone, a length and the head of its record); the length and bytes of the record that
//! became current. The length is 0 in a delete.
//!
//! Layout 1 is the time, and then a record of layout 1; or in a delete a zero byte, and the id and
//! version of the deleted avatar.

mod policy;

use serde::{Deserialize, Serialize};

use crate::avatar::{
    Audience, AvatarId, Change, Event, Format, ObjectKey, Original, OriginalAccess, Placeholder,
    Previous, Record, Rendition, Source, SourceSquare, SubjectId, Timestamp, VariantName, Version,
};

pub(super) use policy::{
    EncodedPolicy, decode_policy, decode_policy_head, encode_policy, viewers_contain,
};

/// The layout of new records and events.
pub(super) const LAYOUT: u8 = 2;
const PREVIOUS_LAYOUT: u8 = 1;
const BODY_LAYOUT: u8 = 1;
/// This bit is set in the index of an object's variant if the object is animated.
const ANIMATED: u8 = 0x80;
/// Marks the record of private objects among the names. It is no name of a variant.
const PRIVATE: &str = "/private";
/// Marks the record of an original that only the service reads. It is no name of a variant.
const PRIVATE_ORIGINAL: &str = "/original";
/// Replaces the record in a delete event of layout 1.
const DELETED: u8 = 0;

/// The bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    /// A later release wrote it, or it is not a record.
    #[error("a record has the unknown layout {0:?}")]
    UnknownLayout(Option<u8>),
    /// The bytes are truncated or damaged.
    #[error("a record is damaged")]
    Damaged(#[source] postcard::Error),
    /// The parts of a record contradict each other.
    #[error("a record is inconsistent")]
    Inconsistent,
}

impl From<postcard::Error> for DecodeError {
    fn from(error: postcard::Error) -> Self {
        Self::Damaged(error)
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    avatar_id: [u8; 16],
    version: u64,
    reserved_at_ms: u64,
    /// Variants and extensions. Each name is written only once. The marks [`PRIVATE`] and
    /// [`PRIVATE_ORIGINAL`] may be among them. A reader that does not know a mark skips it.
    names: Vec<String>,
    /// The indices of variant and extension, and the size in bytes.
    objects: Vec<(u8, u8, u64)>,
}

/// The body of a record, in layout 1 of the body.
#[derive(Serialize, Deserialize)]
struct Body1 {
    uploaded_at_ms: u64,
    source: Source,
    /// Width and height of each object of the head, in the same order. A height of 0 means that it
    /// equals the width.
    dimensions: Vec<(u32, u32)>,
    master: Option<Format>,
    thumbhash: Vec<u8>,
    color: [u8; 3],
}

/// The square of an original: left, top and edge. It follows the fields of [`Body1`].
type OriginalSquare = Option<(u32, u32, u32)>;

impl Head {
    fn of(record: &Record) -> Result<Self, postcard::Error> {
        let mut names: Vec<String> = Vec::new();
        let mut index_of = |name: &str| {
            let known = names.iter().position(|known| known == name);
            let index = known.unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            });
            match u8::try_from(index) {
                Ok(index) if index < ANIMATED => Ok(index),
                _ => Err(postcard::Error::SerializeBufferFull),
            }
        };
        let mut objects = Vec::with_capacity(record.renditions.len());
        for rendition in &record.renditions {
            let variant = index_of(rendition.variant.as_str())?;
            let extension = index_of(rendition.format.extension())?;
            let animated = if rendition.animated { ANIMATED } else { 0 };
            objects.push((variant | animated, extension, rendition.bytes));
        }
        if let Some(original) = &record.original {
            let variant = index_of(VariantName::original().as_str())?;
            let extension = index_of(original.format.extension())?;
            objects.push((variant, extension, original.bytes));
        }
        if record.audience == Audience::Private {
            names.push(PRIVATE.to_owned());
        }
        let access = record.original.map(|original| original.access);
        if access == Some(OriginalAccess::Private) {
            names.push(PRIVATE_ORIGINAL.to_owned());
        }
        Ok(Self {
            avatar_id: *record.avatar_id.as_bytes(),
            version: record.version.0,
            reserved_at_ms: record.reserved_at.unix_ms(),
            names,
            objects,
        })
    }

    fn has_mark(&self, mark: &str) -> bool {
        self.names.iter().any(|name| name == mark)
    }

    /// Where the objects lie.
    fn audience(&self) -> Audience {
        if self.has_mark(PRIVATE) {
            Audience::Private
        } else {
            Audience::Public
        }
    }

    /// Who may see the original, if there is one.
    fn original_access(&self) -> OriginalAccess {
        if self.has_mark(PRIVATE_ORIGINAL) {
            OriginalAccess::Private
        } else {
            OriginalAccess::Public
        }
    }

    /// Variant, format, whether it is animated, and size of each object.
    fn objects(&self) -> Result<Vec<(VariantName, Format, bool, u64)>, DecodeError> {
        let name = |index: u8| self.names.get(usize::from(index));
        let object = |&(variant, extension, bytes): &(u8, u8, u64)| {
            let name_of = VariantName::new(name(variant & !ANIMATED)?.as_str()).ok()?;
            let format = Format::from_extension(name(extension)?)?;
            Some((name_of, format, variant & ANIMATED != 0, bytes))
        };
        let objects: Option<Vec<_>> = self.objects.iter().map(object).collect();
        objects.ok_or(DecodeError::Inconsistent)
    }

    fn previous(&self, gone_at: Timestamp) -> Result<Previous, DecodeError> {
        let avatar = AvatarId::from_bytes(self.avatar_id);
        let audience = self.audience();
        let mut objects = self.objects()?;
        if self.original_access() == OriginalAccess::Private {
            // Nobody has seen it.
            objects.pop();
        }
        let key = |(variant, format, animated, _)| ObjectKey::Rendition {
            audience,
            avatar,
            variant,
            format,
            animated,
        };
        Ok(Previous {
            avatar_id: avatar,
            version: Version(self.version),
            objects: objects.into_iter().map(key).collect(),
            gone_at,
        })
    }
}

/// Encodes a record in layout 2, without the layout number.
pub(super) fn encode(record: &Record) -> Result<Vec<u8>, postcard::Error> {
    append(record, Vec::with_capacity(256))
}

/// Encodes a record with the layout number first.
pub(super) fn encode_numbered(record: &Record) -> Result<Vec<u8>, postcard::Error> {
    append(record, vec![LAYOUT])
}

fn append(record: &Record, to: Vec<u8>) -> Result<Vec<u8>, postcard::Error> {
    let dimensions = |rendition: &Rendition| match (rendition.width, rendition.height) {
        (width, height) if width == height => (width, 0),
        dimensions => dimensions,
    };
    let shapes = record.renditions.iter().map(dimensions);
    let original = record.original.as_ref();
    let shapes = shapes.chain(original.map(|original| (original.width, original.height)));
    let body = Body1 {
        uploaded_at_ms: record.uploaded_at.unix_ms(),
        source: record.source,
        dimensions: shapes.collect(),
        master: record.master,
        thumbhash: record.placeholder.thumbhash.clone(),
        color: record.placeholder.color,
    };
    let mut bytes = postcard::to_extend(&Head::of(record)?, to)?;
    bytes.push(BODY_LAYOUT);
    let square: OriginalSquare =
        original.map(|original| (original.square.x, original.square.y, original.square.edge));
    postcard::to_extend(&square, postcard::to_extend(&body, bytes)?)
}

/// The length of the record's body in bytes, with its layout number.
#[cfg(test)]
pub(super) fn body_length(record: &Record) -> usize {
    let head = postcard::to_allocvec(&Head::of(record).unwrap()).unwrap();
    encode(record).unwrap().len() - head.len()
}

/// Decodes a record of layout 2 without a layout number.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let (head, rest): (Head, _) = postcard::take_from_bytes(bytes)?;
    let (body, rest): (Body1, _) = match rest.split_first() {
        Some((&BODY_LAYOUT, rest)) => postcard::take_from_bytes(rest)?,
        other => return Err(DecodeError::UnknownLayout(other.map(|(first, _)| *first))),
    };
    let square: OriginalSquare = match rest {
        [] => None,
        rest => postcard::take_from_bytes(rest)?.0,
    };
    let audience = head.audience();
    let objects = head.objects()?;
    if objects.len() != body.dimensions.len() {
        return Err(DecodeError::Inconsistent);
    }
    let renditions = objects.into_iter().zip(body.dimensions).map(
        |((variant, format, animated, bytes), (width, height))| Rendition {
            variant,
            format,
            width,
            height: if height == 0 { width } else { height },
            bytes,
            animated,
        },
    );
    let mut renditions: Vec<_> = renditions.collect();
    let original = match square {
        None => None,
        Some((x, y, edge)) => {
            let last = renditions.pop().ok_or(DecodeError::Inconsistent)?;
            Some(Original {
                format: last.format,
                width: last.width,
                height: last.height,
                bytes: last.bytes,
                access: head.original_access(),
                square: SourceSquare { x, y, edge },
            })
        }
    };
    Ok(Record {
        avatar_id: AvatarId::from_bytes(head.avatar_id),
        version: Version(head.version),
        reserved_at: Timestamp::from_unix_ms(head.reserved_at_ms),
        uploaded_at: Timestamp::from_unix_ms(body.uploaded_at_ms),
        source: body.source,
        renditions,
        audience,
        original,
        master: body.master,
        placeholder: Placeholder {
            thumbhash: body.thumbhash,
            color: body.color,
        },
    })
}

/// Decodes a record with the layout number first.
pub(super) fn decode_numbered(bytes: &[u8]) -> Result<Record, DecodeError> {
    match bytes.split_first() {
        Some((&LAYOUT, rest)) => decode(rest),
        Some((&PREVIOUS_LAYOUT, rest)) => decode_previous(rest),
        other => Err(DecodeError::UnknownLayout(other.map(|(first, _)| *first))),
    }
}

/// A record in layout 1.
#[derive(Deserialize)]
struct Layout1 {
    avatar_id: [u8; 16],
    version: u64,
    uploaded_at_ms: u64,
    source: Source,
    variants: Vec<VariantName>,
    renditions: Vec<Rendition1>,
    master: Option<Format>,
    thumbhash: Vec<u8>,
    color: [u8; 3],
}

#[derive(Deserialize)]
struct Rendition1 {
    variant: u8,
    format: Format,
    width: u32,
    height: u32,
    bytes: u64,
    animated: bool,
}

/// Decodes layout 1. It has no reservation time, so the upload time replaces it.
fn decode_previous(bytes: &[u8]) -> Result<Record, DecodeError> {
    let layout: Layout1 = postcard::from_bytes(bytes)?;
    let unpack = |packed: Rendition1| {
        Some(Rendition {
            variant: layout.variants.get(usize::from(packed.variant))?.clone(),
            format: packed.format,
            width: packed.width,
            height: packed.height,
            bytes: packed.bytes,
            animated: packed.animated,
        })
    };
    let renditions: Option<Vec<_>> = layout.renditions.into_iter().map(unpack).collect();
    Ok(Record {
        avatar_id: AvatarId::from_bytes(layout.avatar_id),
        version: Version(layout.version),
        reserved_at: Timestamp::from_unix_ms(layout.uploaded_at_ms),
        uploaded_at: Timestamp::from_unix_ms(layout.uploaded_at_ms),
        source: layout.source,
        renditions: renditions.ok_or(DecodeError::Inconsistent)?,
        audience: Audience::Public,
        original: None,
        master: layout.master,
        placeholder: Placeholder {
            thumbhash: layout.thumbhash,
            color: layout.color,
        },
    })
}

/// Encodes the event of a change at `at`. `current` is the new record; `None` in a delete. `previous`
/// is the replaced record, with the time when its objects are gone.
pub(super) fn encode_event(
    at: Timestamp,
    previous: Option<(&Record, Timestamp)>,
    current: Option<&Record>,
) -> Result<Vec<u8>, postcard::Error> {
    let previous = match previous {
        Some((record, gone_at)) => {
            let head = postcard::to_allocvec(&Head::of(record)?)?;
            Some((gone_at.unix_ms(), head))
        }
        None => None,
    };
    let current = current.map_or(Ok(Vec::new()), encode)?;
    postcard::to_extend(&(at.unix_ms(), previous, current), vec![LAYOUT])
}

/// Decodes an event of a subject.
pub(super) fn decode_event(subject: SubjectId, bytes: &[u8]) -> Result<Event, DecodeError> {
    type Fields<'a> = (u64, Option<(u64, &'a [u8])>, &'a [u8]);
    let rest = match bytes.split_first() {
        Some((&LAYOUT, rest)) => rest,
        // Layout 1 begins with the time. Its first byte is at least 0x80, because a time is a varint
        // of several bytes.
        Some((first, _)) if *first >= 0x80 => return decode_previous_event(subject, bytes),
        other => return Err(DecodeError::UnknownLayout(other.map(|(first, _)| *first))),
    };
    let ((at, previous, current), _): (Fields<'_>, _) = postcard::take_from_bytes(rest)?;
    let previous = match previous {
        Some((gone_at, head)) => {
            let (head, _): (Head, _) = postcard::take_from_bytes(head)?;
            Some(head.previous(Timestamp::from_unix_ms(gone_at))?)
        }
        None => None,
    };
    let change = match (current, &previous) {
        ([], Some(deleted)) => Change::Deleted {
            avatar_id: deleted.avatar_id,
            version: deleted.version,
        },
        ([], None) => return Err(DecodeError::Inconsistent),
        (record, _) => Change::Updated(decode(record)?),
    };
    Ok(Event {
        subject,
        at: Timestamp::from_unix_ms(at),
        change,
        previous,
    })
}

fn decode_previous_event(subject: SubjectId, bytes: &[u8]) -> Result<Event, DecodeError> {
    let (at, rest) = postcard::take_from_bytes(bytes)?;
    let change = match rest.split_first() {
        Some((&DELETED, rest)) => {
            let (id, version) = postcard::from_bytes(rest)?;
            Change::Deleted {
                avatar_id: AvatarId::from_bytes(id),
                version: Version(version),
            }
        }
        _ => Change::Updated(decode_numbered(rest)?),
    };
    Ok(Event {
        subject,
        at: Timestamp::from_unix_ms(at),
        change,
        previous: None,
    })
}

#[cfg(test)]
mod neighbour_tests;
#[cfg(test)]
mod tests;
