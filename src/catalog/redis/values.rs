//! Decodes the values and answers of Redis.

use std::collections::HashMap;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::avatar::{
    AvatarId, Event, Format, InvalidSubjectId, InvalidVariantName, Record, SubjectId, VariantName,
};
use crate::catalog::codec;
use crate::catalog::{CatalogError, Outstanding, Stats, StatsRow};
use crate::redis::{ConfirmError, RedisStartupWarning};

/// The first bytes of an entry of `subjects` in the current layout: two zero bytes, with which no
/// entry of layout 1 begins, and the layout number.
const PREFIX: [u8; 3] = [0, 0, codec::LAYOUT];

/// The stored entry of a subject.
pub(super) struct Entry<'a> {
    /// The last version that was given out.
    pub(super) last: u64,
    /// The last version that a delete covers.
    pub(super) deleted: u64,
    layout: Layout,
    /// The bytes of the current record; empty if there is none.
    record: &'a [u8],
}

#[derive(PartialEq, Eq)]
enum Layout {
    Previous,
    Current,
}

impl<'a> Entry<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Failure> {
        let layout = match bytes {
            [0, 0, codec::LAYOUT, ..] => Layout::Current,
            [0, 0, other @ ..] => {
                let layout = other.first().copied();
                return Err(codec::DecodeError::UnknownLayout(layout).into());
            }
            _ => Layout::Previous,
        };
        let rest = match layout {
            Layout::Current => &bytes[PREFIX.len()..],
            Layout::Previous => bytes,
        };
        let (last, rest) = varint(rest)?;
        let (deleted, rest) = varint(rest)?;
        let record = match layout {
            // Skips the time of the last reservation, which only the scripts need.
            Layout::Current => varint(rest)?.1,
            Layout::Previous => rest,
        };
        Ok(Self {
            last,
            deleted,
            layout,
            record,
        })
    }

    /// The current record.
    pub(super) fn record(&self) -> Result<Option<Record>, Failure> {
        Ok(match (self.record, &self.layout) {
            ([], _) => None,
            (bytes, Layout::Current) => Some(codec::decode(bytes)?),
            (bytes, Layout::Previous) => Some(codec::decode_numbered(bytes)?),
        })
    }

    /// The same entry in the current layout; `None` if it already has this layout.
    pub(super) fn upgraded(&self) -> Result<Option<Vec<u8>>, Failure> {
        if self.layout == Layout::Current {
            return Ok(None);
        }
        let record = self.record()?;
        let reserved_at = record.as_ref().map_or(0, |one| one.reserved_at.unix_ms());
        let numbers = (self.last, self.deleted, reserved_at);
        let mut bytes = postcard::to_extend(&numbers, PREFIX.to_vec())?;
        if let Some(record) = record {
            bytes.extend(codec::encode(&record)?);
        }
        Ok(Some(bytes))
    }
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Failure> {
    postcard::take_from_bytes(bytes).map_err(|_| Failure::InvalidAnswer)
}

/// Decodes a record in the answer of a script: bytes without a layout number, empty for no record.
pub(super) fn record(bytes: &[u8]) -> Result<Option<Record>, Failure> {
    Ok(match bytes {
        [] => None,
        bytes => Some(codec::decode(bytes)?),
    })
}

/// Decodes the name of an upload in the scripts: its subject, a zero byte and its id.
pub(super) fn outstanding(name: &[u8]) -> Result<Outstanding, Failure> {
    let end = name.iter().position(|byte| *byte == 0);
    let (subject, id) = name.split_at(end.ok_or(Failure::InvalidAnswer)?);
    let subject = String::from_utf8_lossy(subject).into_owned();
    Ok(Outstanding {
        subject: SubjectId::new(subject)?,
        avatar: avatar_id(&id[1..])?,
    })
}

pub(super) fn avatar_id(bytes: &[u8]) -> Result<AvatarId, Failure> {
    let bits = bytes.try_into().map_err(|_| Failure::InvalidAnswer)?;
    Ok(AvatarId::from_bytes(bits))
}

/// An entry of a stream: its id and its fields.
pub(super) type StreamEntry = (String, HashMap<String, Vec<u8>>);

/// Decodes the event in an entry of a stream.
pub(super) fn event(fields: &HashMap<String, Vec<u8>>) -> Result<Event, Failure> {
    let field = |name| fields.get(name).ok_or(Failure::InvalidAnswer);
    let subject = String::from_utf8_lossy(field("subject")?).into_owned();
    Ok(codec::decode_event(
        SubjectId::new(subject)?,
        field("event")?,
    )?)
}

/// The statistics of a partition: its totals by name, and its numbers of pending and retired uploads.
pub(super) type Totals = (HashMap<String, u64>, u64, u64);

/// Sums the statistics of the partitions.
pub(super) fn sum_stats(partitions: Vec<Totals>) -> Result<Stats, Failure> {
    let mut stats = Stats::default();
    let mut renditions: HashMap<(String, Format), (u64, u64)> = HashMap::new();
    let mut amounts = Vec::new();
    for (totals, pending, retired) in partitions {
        amounts.extend(totals);
        stats.pending += pending;
        stats.retired += retired;
    }
    for (name, amount) in amounts {
        if name == "avatars" {
            stats.avatars += amount;
            continue;
        }
        // A later release with more formats may have written other names.
        let Some((kind, variant, format)) = sum_of(&name) else {
            continue;
        };
        let sums = renditions.entry((variant.to_owned(), format)).or_default();
        match kind {
            "objects" => sums.0 += amount,
            _ => sums.1 += amount,
        }
    }
    for ((variant, format), (objects, bytes)) in renditions {
        if objects > 0 {
            stats.renditions.push(StatsRow {
                variant: VariantName::new(variant)?,
                format,
                objects,
                bytes,
            });
        }
    }
    Ok(stats)
}

/// The kind of a total (`objects` or `bytes`), its variant and its format; `None` if it is unknown.
fn sum_of(name: &str) -> Option<(&str, &str, Format)> {
    let (kind, rendition) = name.split_once(':')?;
    let (variant, extension) = rendition.split_once('.')?;
    Some((kind, variant, Format::from_extension(extension)?))
}

/// The error of a step.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Decode(#[from] codec::DecodeError),
    #[error("a record cannot be encoded")]
    Encode(#[from] postcard::Error),
    #[error("a key in redis is damaged")]
    Subject(#[from] InvalidSubjectId),
    #[error("a key in redis is damaged")]
    Variant(#[from] InvalidVariantName),
    #[error("the operating system gave no random bytes")]
    Random(#[from] getrandom::Error),
    #[error("uploads of the subject were reserved during every attempt")]
    ConcurrentUploads,
    #[error(transparent)]
    Unconfirmed(ConfirmError),
    #[error(
        "the records in redis are now spread over {stored} partitions, and this process has another number"
    )]
    Partitions { stored: u16 },
    #[error("redis returned a value that the catalog does not write")]
    InvalidAnswer,
}

impl From<ConfirmError> for Failure {
    fn from(error: ConfirmError) -> Self {
        match error {
            ConfirmError::Redis(error) => Self::Redis(error),
            unconfirmed @ ConfirmError::Unconfirmed { .. } => Self::Unconfirmed(unconfirmed),
        }
    }
}

impl Failure {
    pub(super) fn into_error(self, operation: &'static str) -> CatalogError {
        let is_corrupt = match &self {
            Self::Redis(error) => is_script_error(error),
            Self::Random(_)
            | Self::ConcurrentUploads
            | Self::Unconfirmed(_)
            | Self::Partitions { .. } => false,
            Self::Decode(_)
            | Self::Encode(_)
            | Self::Subject(_)
            | Self::Variant(_)
            | Self::InvalidAnswer => true,
        };
        let is_refusal = match &self {
            Self::Redis(error) => refusal_warning(error).is_some(),
            Self::Partitions { .. } => true,
            _ => false,
        };
        if is_corrupt {
            CatalogError::corrupt(operation, self)
        } else if is_refusal {
            CatalogError::refused(operation, self)
        } else {
            CatalogError::new(operation, self)
        }
    }
}

/// The warning for an error with which Redis refused a write before it changed anything; `None` for
/// any other error.
pub(super) fn refusal_warning(error: &RedisError) -> Option<RedisStartupWarning> {
    match error.code()? {
        "OOM" | "MISCONF" => Some(RedisStartupWarning::Full),
        "NOREPLICAS" => Some(RedisStartupWarning::FewReplicas),
        _ => None,
    }
}

/// Whether a script stopped with an error, as it does at an entry that it cannot decode. Redis
/// reports this only in the text of the error, unless the script sets an error code.
fn is_script_error(error: &RedisError) -> bool {
    error.code() == Some("UNKNOWNLAYOUT")
        || error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
            && error
                .detail()
                .is_some_and(|detail| detail.contains("user_script"))
}

/// Whether a script stopped because an entry has the previous layout.
pub(super) fn needs_upgrade(error: &RedisError) -> bool {
    error.code() == Some("OLDLAYOUT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::contract::{PREVIOUS_RECORD, previous_record};

    #[test]
    fn a_sum_of_an_unknown_format_is_skipped() {
        let sums = [
            ("avatars", 2),
            ("objects:small.webp", 3),
            ("bytes:small.webp", 4),
        ];
        let known: HashMap<_, _> = sums.map(|(name, sum)| (name.to_owned(), sum)).into();
        let mut more = known.clone();
        more.insert("objects:small.tiff".to_owned(), 5);
        more.insert("nonsense".to_owned(), 6);
        let stats = sum_stats(vec![(more, 0, 0)]).unwrap();
        assert_eq!(stats, sum_stats(vec![(known, 0, 0)]).unwrap());
        assert_eq!((stats.avatars, stats.renditions.len()), (2, 1));
    }

    #[test]
    fn an_entry_of_the_previous_layout_is_read_and_upgraded_with_its_record() {
        let record = data_encoding::HEXLOWER.decode(PREVIOUS_RECORD.as_bytes());
        let bytes = [&[0xbd, 0x05, 0x07][..], &record.unwrap()].concat();
        let entry = Entry::parse(&bytes).unwrap();
        assert_eq!((entry.last, entry.deleted), (701, 7));
        assert_eq!(entry.record().unwrap(), Some(previous_record()));
        let upgraded = entry.upgraded().unwrap().unwrap();
        let entry = Entry::parse(&upgraded).unwrap();
        assert_eq!((entry.last, entry.deleted), (701, 7));
        assert_eq!(entry.record().unwrap(), Some(previous_record()));
        assert_eq!(entry.upgraded().unwrap(), None);
        // The previous release reads two versions, and then a record that begins with its layout. So
        // it finds an unknown layout, and does not misread the entry.
        let previous: ((u64, u64, u8), &[u8]) = postcard::take_from_bytes(&upgraded).unwrap();
        assert_eq!(previous.0, (0, 0, codec::LAYOUT));
    }

    #[test]
    fn an_entry_without_a_record_is_upgraded_too() {
        let upgraded = Entry::parse(&[9, 8]).unwrap().upgraded().unwrap().unwrap();
        let entry = Entry::parse(&upgraded).unwrap();
        assert_eq!((entry.last, entry.deleted), (9, 8));
        assert_eq!(entry.record().unwrap(), None);
    }

    #[test]
    fn an_entry_of_an_unknown_layout_is_refused() {
        assert!(Entry::parse(&[0, 0, 77, 1, 1, 1]).is_err());
        assert!(Entry::parse(&[]).is_err());
    }
}
