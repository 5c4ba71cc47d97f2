use super::*;
use crate::catalog::contract::{record, with_original};

#[test]
fn a_record_round_trips_in_few_bytes() {
    let mut record = record(1, 7);
    record.renditions[0].height = 5;
    record.renditions[1].animated = true;
    record.master = Some(Format::Png);
    let bytes = encode(&record).unwrap();
    assert_eq!(decode(&bytes).unwrap(), record);
    assert!(bytes.len() <= 220, "{} bytes", bytes.len());
    let numbered = encode_numbered(&record).unwrap();
    assert_eq!(decode_numbered(&numbered).unwrap(), record);
}

#[test]
fn events_round_trip_and_truncated_events_are_refused() {
    let (subject, first, second) = (SubjectId::new("42").unwrap(), record(1, 7), record(2, 8));
    let at = Timestamp::from_unix_ms(1_800_000_000_000);
    let gone_at = Timestamp::from_unix_ms(1_800_000_003_600);
    let appeared = encode_event(at, None, Some(&first)).unwrap();
    let replaced = encode_event(at, Some((&first, gone_at)), Some(&second)).unwrap();
    let deleted = encode_event(at, Some((&second, at)), None).unwrap();
    for bytes in [&appeared, &replaced, &deleted] {
        for end in 0..bytes.len() {
            decode_event(subject.clone(), &bytes[..end]).unwrap_err();
        }
    }
    let read = |bytes: &[u8]| decode_event(subject.clone(), bytes).unwrap();
    let (appeared, replaced, deleted) = (read(&appeared), read(&replaced), read(&deleted));
    assert_ne!(replaced.id(), deleted.id());
    assert_eq!((appeared.at, deleted.at), (at, at));
    assert_eq!(appeared.previous, None);
    assert_eq!(appeared.change, Change::Updated(first.clone()));
    let previous = replaced.previous.unwrap();
    let keys: Vec<_> = first
        .renditions
        .iter()
        .map(|rendition| ObjectKey::of_rendition(&first, rendition))
        .collect();
    assert_eq!(previous.avatar_id, first.avatar_id);
    assert_eq!((previous.objects, previous.gone_at), (keys, gone_at));
    let (avatar_id, version) = (second.avatar_id, second.version);
    assert_eq!(deleted.change, Change::Deleted { avatar_id, version });
}

#[test]
fn the_record_and_the_events_of_private_objects_say_where_they_lie() {
    let mut private = record(1, 7);
    private.audience = Audience::Private;
    let bytes = encode(&private).unwrap();
    assert_eq!(decode(&bytes).unwrap(), private);
    let at = Timestamp::from_unix_ms(1_800_000_000_000);
    let event = encode_event(at, Some((&private, at)), None).unwrap();
    let event = decode_event(SubjectId::new("42").unwrap(), &event).unwrap();
    let objects = event.previous.unwrap().objects;
    assert_eq!(objects.len(), private.renditions.len());
    assert!(
        objects
            .iter()
            .all(|key| key.audience() == Audience::Private)
    );
    // A reader that does not know the mark finds the same objects.
    let (mut marked, _): (Head, _) = postcard::take_from_bytes(&bytes).unwrap();
    let objects = marked.objects().unwrap();
    assert_eq!(marked.names.pop().as_deref(), Some(PRIVATE));
    assert_eq!(marked.objects().unwrap(), objects);
}

#[test]
fn a_record_with_an_original_says_who_may_see_it() {
    for access in [OriginalAccess::Private, OriginalAccess::Public] {
        let record = with_original(access);
        let bytes = encode(&record).unwrap();
        assert_eq!(decode(&bytes).unwrap(), record);
        for end in 0..bytes.len() {
            let read = decode(&bytes[..end]);
            // Without its last field, the record is one that an earlier build wrote.
            assert!(read.is_err() || read.is_ok_and(|read| read.original.is_none()));
        }
        // Only objects that were seen are named in an event.
        let at = Timestamp::from_unix_ms(1_800_000_000_000);
        let event = encode_event(at, Some((&record, at)), None).unwrap();
        let event = decode_event(SubjectId::new("42").unwrap(), &event).unwrap();
        let found = event.previous.unwrap().objects;
        let renditions = record.renditions.iter();
        let renditions = renditions.map(|one| ObjectKey::of_rendition(&record, one));
        let original = record.public_original();
        let original = original
            .map(|original| ObjectKey::of_original(record.avatar_id, record.audience, original));
        assert_eq!(found, renditions.chain(original).collect::<Vec<_>>());
        assert_eq!(
            found.len(),
            if access == OriginalAccess::Public {
                11
            } else {
                10
            }
        );
    }
}

#[test]
fn truncated_records_are_refused_at_every_length() {
    let record = record(1, 7);
    let bytes = encode_numbered(&record).unwrap();
    // An earlier build did not write the last field.
    assert_eq!(decode_numbered(&bytes[..bytes.len() - 1]).unwrap(), record);
    for end in 0..bytes.len() - 1 {
        decode_numbered(&bytes[..end]).unwrap_err();
    }
    assert!(matches!(
        decode_numbered(&[9, 0, 0]),
        Err(DecodeError::UnknownLayout(Some(9)))
    ));
}

#[test]
fn a_body_of_an_unknown_layout_is_an_error_of_its_own() {
    let record = record(1, 7);
    let mut bytes = encode(&record).unwrap();
    let head = postcard::to_allocvec(&Head::of(&record).unwrap()).unwrap();
    assert_eq!(bytes[head.len()], BODY_LAYOUT);
    bytes[head.len()] = 77;
    let error = decode(&bytes).unwrap_err();
    assert!(matches!(error, DecodeError::UnknownLayout(Some(77))));
}
