//! What Redis answers, as the catalog means it.

use std::collections::HashMap;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::avatar::{
    AvatarId, Event, Format, InvalidSubjectId, InvalidVariantName, Record, SubjectId, VariantName,
    Version,
};
use crate::catalog::codec;
use crate::catalog::{CatalogError, Cursor, Outstanding, Stats, StatsRow};

/// The last version given out, with which a subject's entry begins (LEB128).
pub(super) fn last_version_of(entry: &[u8]) -> Result<Version, Failure> {
    let (version, _): (u64, _) = postcard::take_from_bytes(entry).map_err(|_| Failure::Answer)?;
    Ok(Version(version))
}

/// The record in a subject's entry, behind its two versions.
pub(super) fn record_of(entry: &[u8]) -> Result<Option<Record>, Failure> {
    let mut rest = entry;
    for _ in 0..2 {
        let end = rest.iter().position(|byte| byte & 0x80 == 0);
        rest = &rest[end.ok_or(Failure::Answer)? + 1..];
    }
    Ok(match rest {
        [] => None,
        bytes => Some(codec::decode(bytes)?),
    })
}

/// The upload that the scripts give this name: its subject, a zero byte and its id.
pub(super) fn outstanding(name: &[u8]) -> Result<Outstanding, Failure> {
    let end = name.iter().position(|byte| *byte == 0);
    let (subject, id) = name.split_at(end.ok_or(Failure::Answer)?);
    let subject = String::from_utf8_lossy(subject).into_owned();
    Ok(Outstanding {
        subject: SubjectId::new(subject)?,
        avatar: avatar_id(&id[1..])?,
    })
}

pub(super) fn avatar_id(bytes: &[u8]) -> Result<AvatarId, Failure> {
    let bits = bytes.try_into().map_err(|_| Failure::Answer)?;
    Ok(AvatarId::from_bytes(bits))
}

/// An entry of a stream: its place, and its fields.
pub(super) type StreamEntry = (String, HashMap<String, Vec<u8>>);

/// The event in an entry, with its place.
pub(super) fn event((place, fields): StreamEntry) -> Result<(Cursor, Event), Failure> {
    let field = |name| fields.get(name).ok_or(Failure::Answer);
    let subject = String::from_utf8_lossy(field("subject")?).into_owned();
    let event = codec::decode_event(SubjectId::new(subject)?, field("event")?)?;
    Ok((Cursor(place), event))
}

/// Adds up what the partitions hold.
pub(super) fn add_up(partitions: Vec<HashMap<String, u64>>) -> Result<Stats, Failure> {
    let mut stats = Stats::default();
    let mut renditions: HashMap<(String, Format), (u64, u64)> = HashMap::new();
    for (name, amount) in partitions.into_iter().flatten() {
        if name == "avatars" {
            stats.avatars += amount;
            continue;
        }
        let (kind, rendition) = name.split_once(':').ok_or(Failure::Answer)?;
        let (variant, extension) = rendition.split_once('.').ok_or(Failure::Answer)?;
        let format = Format::from_extension(extension).ok_or(Failure::Answer)?;
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

/// What can go wrong inside a step.
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
    #[error("the operating system has no randomness to give")]
    Random(#[from] getrandom::Error),
    #[error("uploads of the subject came between each time")]
    Restless,
    #[error("redis answered something that the catalog never wrote")]
    Answer,
}

impl Failure {
    pub(super) fn of(self, operation: &'static str) -> CatalogError {
        let is_damage = match &self {
            Self::Redis(error) => is_of_a_script(error),
            Self::Random(_) | Self::Restless => false,
            Self::Decode(_)
            | Self::Encode(_)
            | Self::Subject(_)
            | Self::Variant(_)
            | Self::Answer => true,
        };
        if is_damage {
            CatalogError::damaged(operation, self)
        } else {
            CatalogError::new(operation, self)
        }
    }
}

/// Whether a script broke off, as it does at what it cannot understand. Redis says so in words only.
fn is_of_a_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
        && error
            .detail()
            .is_some_and(|detail| detail.contains("user_script"))
}
