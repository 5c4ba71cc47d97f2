//! A record as bytes, as catalogs keep it: about 220 for ten renditions. The first byte is the
//! layout's version, so that a later layout can be read beside this one.
//!
//! An event is its time in Unix milliseconds as a varint (LEB128), and then the record that became
//! current, or of one that was deleted a zero byte, its id and its version as a varint.

use serde::{Deserialize, Serialize};

use crate::avatar::{
    AvatarId, Change, Event, Format, Placeholder, Record, Rendition, Source, SubjectId, Timestamp,
    VariantName, Version,
};

const LAYOUT: u8 = 1;
/// Stands where a record's layout would, in the event of a delete.
const DELETED: u8 = 0;

/// The bytes are no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    /// Written by a later program, or not a record at all.
    #[error("a record has the unknown layout {0:?}")]
    UnknownLayout(Option<u8>),
    /// Cut short or damaged.
    #[error("a record is damaged")]
    Damaged(#[source] postcard::Error),
    /// A rendition names a variant that the record does not list.
    #[error("a record names a variant that it does not list")]
    UnknownVariant,
}

/// Layout 1. A variant's name is written once, however many formats it comes in.
#[derive(Serialize, Deserialize)]
struct Layout1 {
    avatar_id: [u8; 16],
    version: u64,
    uploaded_at_ms: u64,
    source: Source,
    variants: Vec<VariantName>,
    renditions: Vec<PackedRendition>,
    master: Option<Format>,
    thumbhash: Vec<u8>,
    color: [u8; 3],
}

#[derive(Serialize, Deserialize)]
struct PackedRendition {
    variant: u8,
    format: Format,
    width: u32,
    height: u32,
    bytes: u64,
    animated: bool,
}

/// The record as bytes.
pub(super) fn encode(record: &Record) -> Result<Vec<u8>, postcard::Error> {
    let mut variants: Vec<VariantName> = Vec::new();
    let mut renditions = Vec::with_capacity(record.renditions.len());
    for rendition in &record.renditions {
        let known = variants.iter().position(|name| *name == rendition.variant);
        let place = known.unwrap_or_else(|| {
            variants.push(rendition.variant.clone());
            variants.len() - 1
        });
        renditions.push(PackedRendition {
            variant: u8::try_from(place).map_err(|_| postcard::Error::SerializeBufferFull)?,
            format: rendition.format,
            width: rendition.width,
            height: rendition.height,
            bytes: rendition.bytes,
            animated: rendition.animated,
        });
    }
    let layout = Layout1 {
        avatar_id: *record.avatar_id.as_bytes(),
        version: record.version.0,
        uploaded_at_ms: record.uploaded_at.unix_ms(),
        source: record.source,
        variants,
        renditions,
        master: record.master,
        thumbhash: record.placeholder.thumbhash.clone(),
        color: record.placeholder.color,
    };
    postcard::to_extend(&layout, vec![LAYOUT])
}

/// The record that these bytes are.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let (LAYOUT, rest) = bytes
        .split_first()
        .map_or((0, bytes), |(first, rest)| (*first, rest))
    else {
        return Err(DecodeError::UnknownLayout(bytes.first().copied()));
    };
    let layout: Layout1 = postcard::from_bytes(rest).map_err(DecodeError::Damaged)?;
    let unpack = |packed: PackedRendition| {
        let variant = layout.variants.get(usize::from(packed.variant))?.clone();
        let PackedRendition {
            format,
            width,
            height,
            bytes,
            animated,
            ..
        } = packed;
        Some(Rendition {
            variant,
            format,
            width,
            height,
            bytes,
            animated,
        })
    };
    let renditions: Option<Vec<_>> = layout.renditions.into_iter().map(unpack).collect();
    Ok(Record {
        avatar_id: AvatarId::from_bytes(layout.avatar_id),
        version: Version(layout.version),
        uploaded_at: Timestamp::from_unix_ms(layout.uploaded_at_ms),
        source: layout.source,
        renditions: renditions.ok_or(DecodeError::UnknownVariant)?,
        master: layout.master,
        placeholder: Placeholder {
            thumbhash: layout.thumbhash,
            color: layout.color,
        },
    })
}

/// The event of a record, given as [`encode`] writes it, that became current.
pub(super) fn updated(at: Timestamp, record: &[u8]) -> Result<Vec<u8>, postcard::Error> {
    let mut event = postcard::to_allocvec(&at.unix_ms())?;
    event.extend_from_slice(record);
    Ok(event)
}

/// The event of a record that was deleted.
pub(super) fn deleted(at: Timestamp, record: &Record) -> Result<Vec<u8>, postcard::Error> {
    let (id, version) = (*record.avatar_id.as_bytes(), record.version.0);
    postcard::to_allocvec(&(at.unix_ms(), DELETED, id, version))
}

/// The event of a subject that these bytes are.
pub(super) fn decode_event(subject: SubjectId, bytes: &[u8]) -> Result<Event, DecodeError> {
    let (at, rest) = postcard::take_from_bytes(bytes).map_err(DecodeError::Damaged)?;
    let change = match rest.split_first() {
        Some((&DELETED, rest)) => {
            let (id, version) = postcard::from_bytes(rest).map_err(DecodeError::Damaged)?;
            Change::Deleted {
                avatar_id: AvatarId::from_bytes(id),
                version: Version(version),
            }
        }
        _ => Change::Updated(decode(rest)?),
    };
    Ok(Event {
        subject,
        at: Timestamp::from_unix_ms(at),
        change,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::contract::record;

    #[test]
    fn a_record_round_trips_in_few_bytes() {
        let record = record(1, 7);
        let bytes = encode(&record).unwrap();
        assert_eq!(decode(&bytes).unwrap(), record);
        assert!(bytes.len() <= 240, "{} bytes", bytes.len());
    }

    #[test]
    fn events_round_trip_and_are_refused_where_they_are_cut_short() {
        let (subject, record) = (SubjectId::new("42").unwrap(), record(1, 700));
        let at = Timestamp::from_unix_ms(1_800_000_000_000);
        let updates = updated(at, &encode(&record).unwrap()).unwrap();
        let deletes = deleted(at, &record).unwrap();
        assert!(deletes.len() <= 32, "{} bytes", deletes.len());
        for bytes in [&updates, &deletes] {
            for end in 0..bytes.len() {
                decode_event(subject.clone(), &bytes[..end]).unwrap_err();
            }
        }
        let update = decode_event(subject.clone(), &updates).unwrap();
        let delete = decode_event(subject.clone(), &deletes).unwrap();
        assert_ne!(update.id(), delete.id());
        assert_eq!((update.at, delete.at), (at, at));
        assert_eq!(update.change, Change::Updated(record.clone()));
        let (avatar_id, version) = (record.avatar_id, record.version);
        assert_eq!(delete.change, Change::Deleted { avatar_id, version });
    }

    #[test]
    fn bytes_that_are_no_record_are_refused_at_every_length() {
        let bytes = encode(&record(1, 7)).unwrap();
        for end in 0..bytes.len() {
            decode(&bytes[..end]).unwrap_err();
        }
        assert!(matches!(
            decode(&[9, 0, 0]),
            Err(DecodeError::UnknownLayout(Some(9)))
        ));
    }
}
