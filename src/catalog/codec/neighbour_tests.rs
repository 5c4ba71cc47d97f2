//! The bytes of this release and of its neighbours.
//!
//! Replicas of neighbouring releases share a catalog. [`previous`] is the writer and reader of layout
//! 1, as in version 0.1.0: this release must read its bytes, and it must never misread the bytes of
//! this release. The next release is a writer that appends fields, which this release must skip.

use proptest::prelude::*;

use super::*;
use crate::avatar::SourceFormat;
use crate::catalog::contract::{PREVIOUS_RECORD, previous_record};

/// The codec of version 0.1.0. It must not change.
mod previous {
    use super::super::DecodeError;
    use super::*;

    const LAYOUT: u8 = 1;
    const DELETED: u8 = 0;

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

    pub(super) fn encode(record: &Record) -> Vec<u8> {
        let mut variants: Vec<VariantName> = Vec::new();
        let pack = |rendition: &Rendition| {
            let known = variants.iter().position(|name| *name == rendition.variant);
            let index = known.unwrap_or_else(|| {
                variants.push(rendition.variant.clone());
                variants.len() - 1
            });
            PackedRendition {
                variant: u8::try_from(index).unwrap(),
                format: rendition.format,
                width: rendition.width,
                height: rendition.height,
                bytes: rendition.bytes,
                animated: rendition.animated,
            }
        };
        let renditions = record.renditions.iter().map(pack).collect();
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
        postcard::to_extend(&layout, vec![LAYOUT]).unwrap()
    }

    /// Reads a record. The caller needs only the id.
    pub(super) fn decode(bytes: &[u8]) -> Result<AvatarId, DecodeError> {
        match bytes.split_first() {
            Some((&LAYOUT, rest)) => {
                let layout: Layout1 = postcard::from_bytes(rest)?;
                Ok(AvatarId::from_bytes(layout.avatar_id))
            }
            other => Err(DecodeError::UnknownLayout(other.map(|(first, _)| *first))),
        }
    }

    pub(super) fn encode_update(at: Timestamp, record: &Record) -> Vec<u8> {
        let mut event = postcard::to_allocvec(&at.unix_ms()).unwrap();
        event.extend(encode(record));
        event
    }

    pub(super) fn encode_delete(at: Timestamp, record: &Record) -> Vec<u8> {
        let (id, version) = (*record.avatar_id.as_bytes(), record.version.0);
        postcard::to_allocvec(&(at.unix_ms(), DELETED, id, version)).unwrap()
    }

    /// Reads an event. The caller needs only the id.
    pub(super) fn decode_event(bytes: &[u8]) -> Result<AvatarId, DecodeError> {
        let (_, rest): (u64, _) = postcard::take_from_bytes(bytes)?;
        match rest.split_first() {
            Some((&DELETED, rest)) => {
                let (id, _): ([u8; 16], u64) = postcard::from_bytes(rest)?;
                Ok(AvatarId::from_bytes(id))
            }
            _ => decode(rest),
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn subject() -> SubjectId {
    SubjectId::new("42").unwrap()
}

/// The record as a reader of layout 1 gets it: without a reservation time, and public.
fn without_reservation_time(record: &Record) -> Record {
    Record {
        reserved_at: record.uploaded_at,
        audience: Audience::Public,
        original: None,
        ..record.clone()
    }
}

fn any_rendition() -> impl Strategy<Value = Rendition> {
    let name = "[a-d][a-z]{0,3}".prop_map(|name| VariantName::new(name).unwrap());
    let format = proptest::sample::select(Format::ALL.to_vec());
    (
        name,
        format,
        1..2000_u32,
        1..2000_u32,
        1..u64::MAX,
        any::<bool>(),
    )
        .prop_map(
            |(variant, format, width, height, bytes, animated)| Rendition {
                variant,
                format,
                width,
                height,
                bytes,
                animated,
            },
        )
}

fn any_source() -> impl Strategy<Value = Source> {
    let format = proptest::sample::select(SourceFormat::ALL.to_vec());
    (
        format,
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        any::<bool>(),
    )
        .prop_map(|(format, bytes, width, height, animated)| Source {
            format,
            bytes,
            width,
            height,
            animated,
        })
}

fn any_original() -> impl Strategy<Value = Original> {
    let format = proptest::sample::select(Format::ALL.to_vec());
    let access = [OriginalAccess::Private, OriginalAccess::Public];
    let access = proptest::sample::select(access.to_vec());
    let size = (any::<u32>(), 1..=u32::MAX, any::<u64>());
    let square = (any::<u32>(), any::<u32>(), any::<u32>());
    (format, access, size, square).prop_map(|(format, access, size, square)| Original {
        format,
        width: size.0,
        height: size.1,
        bytes: size.2,
        access,
        square: SourceSquare {
            x: square.0,
            y: square.1,
            edge: square.2,
        },
    })
}

/// A time of this century, in which all releases run.
fn any_time() -> impl Strategy<Value = Timestamp> {
    (1_700_000_000_000..4_000_000_000_000_u64).prop_map(Timestamp::from_unix_ms)
}

prop_compose! {
    fn any_record()(
        id: [u8; 16],
        version: u64,
        times in (any_time(), any_time()),
        source in any_source(),
        renditions in prop::collection::vec(any_rendition(), 0..12),
        original in proptest::option::of(any_original()),
        master in proptest::option::of(proptest::sample::select(Format::ALL.to_vec())),
        thumbhash in prop::collection::vec(any::<u8>(), 0..30),
        color: [u8; 3],
        is_private: bool,
    ) -> Record {
        Record {
            avatar_id: AvatarId::from_bytes(id),
            version: Version(version),
            reserved_at: times.0,
            uploaded_at: times.1,
            source,
            renditions,
            audience: if is_private { Audience::Private } else { Audience::Public },
            original,
            master,
            placeholder: Placeholder { thumbhash, color },
        }
    }
}

proptest! {
    #[test]
    fn this_release_reads_the_records_of_the_previous_one(record in any_record()) {
        let bytes = previous::encode(&record);
        prop_assert_eq!(decode_numbered(&bytes).unwrap(), without_reservation_time(&record));
    }

    #[test]
    fn this_release_reads_the_events_of_the_previous_one(record in any_record(), at in any_time()) {
        let update = decode_event(subject(), &previous::encode_update(at, &record)).unwrap();
        prop_assert_eq!((update.at, update.previous), (at, None));
        prop_assert_eq!(update.change, Change::Updated(without_reservation_time(&record)));
        let delete = decode_event(subject(), &previous::encode_delete(at, &record)).unwrap();
        let (avatar_id, version) = (record.avatar_id, record.version);
        prop_assert_eq!((delete.at, delete.previous), (at, None));
        prop_assert_eq!(delete.change, Change::Deleted { avatar_id, version });
    }

    /// Layout 1 has no room for new fields, so its reader cannot read layout 2. It must report an
    /// unknown layout, and never read a wrong record or event.
    #[test]
    fn the_previous_release_reports_an_unknown_layout(
        record in any_record(), other in any_record(), at in any_time(),
    ) {
        let error = previous::decode(&encode_numbered(&record).unwrap()).unwrap_err();
        prop_assert!(matches!(error, DecodeError::UnknownLayout(Some(LAYOUT))));
        for (previous, current) in [
            (None, Some(&record)),
            (Some((&other, at)), Some(&record)),
            (Some((&other, at)), None),
        ] {
            let event = encode_event(at, previous, current).unwrap();
            let error = previous::decode_event(&event).unwrap_err();
            prop_assert!(matches!(error, DecodeError::UnknownLayout(Some(_))), "{error:?}");
        }
    }

    #[test]
    fn this_release_skips_the_fields_that_the_next_one_appends(
        record in any_record(),
        other in any_record(),
        at in any_time(),
        fields in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let extended = [encode(&record).unwrap(), fields.clone()].concat();
        prop_assert_eq!(&decode(&extended).unwrap(), &record);
        // The next release appends fields to an event, and to the record in it.
        let head = postcard::to_allocvec(&Head::of(&other).unwrap()).unwrap();
        let content = (at.unix_ms(), Some((at.unix_ms(), head)), extended);
        let event = postcard::to_extend(&content, vec![LAYOUT]).unwrap();
        let event = decode_event(subject(), &[event, fields].concat()).unwrap();
        prop_assert_eq!(event.change, Change::Updated(record));
        prop_assert_eq!(event.previous.unwrap().avatar_id, other.avatar_id);
    }
}

#[test]
fn stored_records_and_events_of_the_previous_release_are_read() {
    let record = previous_record();
    let bytes = hex(PREVIOUS_RECORD);
    assert_eq!(previous::encode(&record), bytes);
    assert_eq!(decode_numbered(&bytes).unwrap(), record);
    for end in 0..bytes.len() {
        decode_numbered(&bytes[..end]).unwrap_err();
    }
    let update = hex(&format!("fba0f1c2b134{PREVIOUS_RECORD}"));
    let update = decode_event(subject(), &update).unwrap();
    assert_eq!(update.at.unix_ms(), 1_800_000_000_123);
    assert_eq!(update.change, Change::Updated(record.clone()));
    let delete = hex("fba0f1c2b1340001010101010101010101010101010101bc05");
    let delete = decode_event(subject(), &delete).unwrap();
    let (avatar_id, version) = (record.avatar_id, record.version);
    assert_eq!(delete.change, Change::Deleted { avatar_id, version });
}

/// A record stores the number of a format. A new format must come after these.
#[test]
fn the_numbers_of_formats_do_not_change() {
    let formats = [
        SourceFormat::Jpeg,
        SourceFormat::Png,
        SourceFormat::Webp,
        SourceFormat::Gif,
        SourceFormat::Heic,
        SourceFormat::Avif,
        SourceFormat::Bmp,
        SourceFormat::Tiff,
    ];
    for (expected, format) in (0_u8..).zip(formats) {
        assert_eq!(postcard::to_allocvec(&format).unwrap(), [expected]);
    }
    for (expected, format) in (0_u8..).zip([Format::Webp, Format::Jpeg, Format::Png]) {
        assert_eq!(postcard::to_allocvec(&format).unwrap(), [expected]);
    }
}
