//! Redis as the catalog: one for any number of replicas.
//!
//! Subjects are spread over [`Partitions`]; each partition has five keys, all in one slot of a
//! Cluster, and every step of the catalog is one script on them:
//!
//! | key | holds |
//! | --- | --- |
//! | `cameo:{p07}:subjects` | hash: subject → its versions and its current record, some 230 bytes |
//! | `cameo:{p07}:pending` | sorted set: uploads under way, by deadline |
//! | `cameo:{p07}:retired` | sorted set: uploads whose objects are to go, by due time |
//! | `cameo:{p07}:retired-of` | the same, in the order of their subjects |
//! | `cameo:{p07}:stats` | hash: what the current records add up to |
//!
//! The scripts do not change anything before they have read and understood all that they need, so
//! one that fails has done nothing.

mod scripts;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future;
use redis::{FromRedisValue, RedisError};

use super::codec;
use super::{Catalog, CatalogError, Outstanding, Precondition, Removed, Replaced, Stats, StatsRow};
use crate::avatar::{
    AvatarId, Format, InvalidSubjectId, InvalidVariantName, Record, SubjectId, Timestamp,
    VariantName, Version,
};
use crate::redis::{
    Partitions, RedisAddress, RedisConcern, RedisLink, RedisStartError, Repetition, Script,
};
use scripts::Scripts;

/// Says with how many partitions the records were written.
const PARTITIONS_KEY: &str = "cameo:partitions";

/// Where the records are, and how they are spread.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where Redis is.
    pub address: RedisAddress,
    /// How subjects are spread. It cannot be changed once there are records.
    pub partitions: Partitions,
}

/// Redis as the catalog.
pub struct RedisCatalog {
    link: RedisLink,
    partitions: Partitions,
    scripts: Scripts,
    /// Where the next claim begins, so that no partition waits behind another for ever.
    next_claim: AtomicUsize,
}

impl RedisCatalog {
    /// Connects, and makes sure that this Redis can be the catalog. What should not be relied on
    /// as it is comes back for the log.
    ///
    /// # Errors
    /// Why it cannot, sorted by what to do about it.
    pub async fn open(
        settings: &RedisSettings,
    ) -> Result<(Self, Vec<RedisConcern>), RedisStartError> {
        let address = settings.address.to_string();
        let failed = |error| RedisStartError::sort(&address, error);
        let link = RedisLink::connect(&settings.address)
            .await
            .map_err(failed)?;
        let concerns = link.inspect(&address).await?;
        let catalog = Self {
            link,
            partitions: settings.partitions,
            scripts: Scripts::new(),
            next_claim: AtomicUsize::new(0),
        };
        let stored = catalog.agree_on_partitions().await.map_err(failed)?;
        if stored != settings.partitions.count() {
            return Err(RedisStartError::Partitions { stored });
        }
        catalog.write_probes().await.map_err(failed)?;
        Ok((catalog, concerns))
    }

    /// The connection, for the limits to share.
    pub fn link(&self) -> &RedisLink {
        &self.link
    }

    /// With how many partitions the records are written: with as many as are asked for, where
    /// there are none yet.
    async fn agree_on_partitions(&self) -> Result<u16, RedisError> {
        let mut set = redis::cmd("SET");
        set.arg(PARTITIONS_KEY)
            .arg(self.partitions.count())
            .arg("NX");
        self.link.run::<()>(&set, Repetition::Harmless).await?;
        let mut get = redis::cmd("GET");
        get.arg(PARTITIONS_KEY);
        self.link.run(&get, Repetition::Harmless).await
    }

    /// Writes a key of every partition.
    async fn write_probes(&self) -> Result<(), RedisError> {
        let writes = self.partitions.all().map(|partition| {
            let mut set = redis::cmd("SET");
            set.arg(partition.key("probe")).arg(1).arg("EX").arg(60);
            async move { self.link.run::<()>(&set, Repetition::Harmless).await }
        });
        future::try_join_all(writes).await.map(drop)
    }

    /// Runs one step on the keys of a partition.
    async fn step<T: FromRedisValue>(
        &self,
        script: &Script,
        repetition: Repetition,
        partition: crate::redis::Partition,
        arguments: &[&[u8]],
    ) -> Result<T, Failure> {
        let keys = ["subjects", "pending", "retired", "retired-of", "stats"];
        let keys = keys.map(|name| partition.key(name));
        Ok(self.link.call(script, repetition, &keys, arguments).await?)
    }
}

#[async_trait]
impl Catalog for RedisCatalog {
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError> {
        let got = async {
            let mut get = redis::cmd("HGET");
            let partition = self.partitions.of(subject.as_str());
            get.arg(partition.key("subjects")).arg(subject.as_str());
            let entry: Option<Vec<u8>> = self.link.run(&get, Repetition::Harmless).await?;
            entry.map_or(Ok(None), |entry| record_of(&entry))
        };
        got.await.map_err(|failure| failure.of("read a record"))
    }

    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        deadline: Timestamp,
    ) -> Result<Version, CatalogError> {
        let deadline = deadline.unix_ms().to_string();
        // A repetition skips a version, which nobody misses.
        self.step(
            &self.scripts.reserve,
            Repetition::Harmless,
            self.partitions.of(subject.as_str()),
            &[
                subject.as_str().as_bytes(),
                avatar.as_bytes(),
                deadline.as_bytes(),
            ],
        )
        .await
        .map(Version)
        .map_err(|failure| failure.of("reserve an upload"))
    }

    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        retire_at: Timestamp,
    ) -> Result<Replaced, CatalogError> {
        let replaced = async {
            let bytes = codec::encode(record)?;
            let retire_at = retire_at.unix_ms().to_string();
            let (word, ids) = match precondition {
                Precondition::Anything => ("anything", &[][..]),
                Precondition::Absent => ("absent", &[][..]),
                Precondition::Present => ("present", &[][..]),
                Precondition::OneOf(ids) => ("one of", &ids[..]),
            };
            let mut arguments = vec![
                subject.as_str().as_bytes(),
                &bytes,
                retire_at.as_bytes(),
                word.as_bytes(),
            ];
            arguments.extend(ids.iter().map(|id| &id.as_bytes()[..]));
            // Repeated, it would answer that the id is not pending.
            let (ended, current): (String, Vec<u8>) = self
                .step(
                    &self.scripts.replace,
                    Repetition::Forbidden,
                    self.partitions.of(subject.as_str()),
                    &arguments,
                )
                .await?;
            match (ended.as_str(), current.is_empty()) {
                ("committed", true) => Ok(Replaced::Committed(None)),
                ("committed", false) => Ok(Replaced::Committed(Some(avatar_id(&current)?))),
                ("superseded", _) => Ok(Replaced::Superseded),
                ("not pending", _) => Ok(Replaced::NotPending),
                ("precondition failed", _) => Ok(Replaced::PreconditionFailed),
                _ => Err(Failure::Answer),
            }
        };
        replaced
            .await
            .map_err(|failure| failure.of("commit an upload"))
    }

    async fn remove(
        &self,
        subject: &SubjectId,
        lease: Timestamp,
    ) -> Result<Option<Removed>, CatalogError> {
        let removed = async {
            let lease = lease.unix_ms().to_string();
            // A repetition gives the ids again, without the record.
            let answer: Vec<Vec<u8>> = self
                .step(
                    &self.scripts.remove,
                    Repetition::Harmless,
                    self.partitions.of(subject.as_str()),
                    &[subject.as_str().as_bytes(), lease.as_bytes()],
                )
                .await?;
            let (record, ids) = answer.split_first().ok_or(Failure::Answer)?;
            let record = match record.as_slice() {
                [] => None,
                bytes => Some(codec::decode(bytes)?),
            };
            let outstanding = ids
                .iter()
                .map(|id| {
                    Ok(Outstanding {
                        subject: subject.clone(),
                        avatar: avatar_id(id)?,
                    })
                })
                .collect::<Result<Vec<_>, Failure>>()?;
            let nothing = record.is_none() && outstanding.is_empty();
            Ok((!nothing).then_some(Removed {
                record,
                outstanding,
            }))
        };
        removed
            .await
            .map_err(|failure: Failure| failure.of("remove a record"))
    }

    async fn claim(
        &self,
        now: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Outstanding>, CatalogError> {
        let claimed = async {
            let (now, lease) = (now.unix_ms().to_string(), lease.unix_ms().to_string());
            let count = usize::from(self.partitions.count());
            let first = self.next_claim.fetch_add(1, Ordering::Relaxed) % count;
            let mut claimed = Vec::new();
            for partition in self.partitions.all().cycle().skip(first).take(count) {
                let left = (limit - claimed.len()).to_string();
                let names: Vec<Vec<u8>> = self
                    .step(
                        &self.scripts.claim,
                        // What a lost answer claimed comes due again after its lease.
                        Repetition::Harmless,
                        partition,
                        &[now.as_bytes(), lease.as_bytes(), left.as_bytes()],
                    )
                    .await?;
                for name in &names {
                    claimed.push(outstanding(name)?);
                }
                if claimed.len() >= limit {
                    break;
                }
            }
            Ok(claimed)
        };
        claimed
            .await
            .map_err(|failure: Failure| failure.of("claim what is due"))
    }

    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError> {
        let subject = outstanding.subject.as_str();
        self.step(
            &self.scripts.forget,
            Repetition::Harmless,
            self.partitions.of(subject),
            &[subject.as_bytes(), outstanding.avatar.as_bytes()],
        )
        .await
        .map_err(|failure| failure.of("forget an upload"))
    }

    async fn stats(&self) -> Result<Stats, CatalogError> {
        let added_up = async {
            let asked = self.partitions.all().map(|partition| {
                let mut get = redis::cmd("HGETALL");
                get.arg(partition.key("stats"));
                async move {
                    let sums = self.link.run(&get, Repetition::Harmless).await;
                    sums.map(|sums: HashMap<String, u64>| sums)
                }
            });
            add_up(future::try_join_all(asked).await?)
        };
        added_up
            .await
            .map_err(|failure: Failure| failure.of("add up its records"))
    }

    async fn check(&self) -> Result<(), CatalogError> {
        self.write_probes()
            .await
            .map_err(|error| Failure::Redis(error).of("take a write"))
    }
}

/// The record in a subject's entry, behind its two versions.
fn record_of(entry: &[u8]) -> Result<Option<Record>, Failure> {
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
fn outstanding(name: &[u8]) -> Result<Outstanding, Failure> {
    let end = name.iter().position(|byte| *byte == 0);
    let (subject, id) = name.split_at(end.ok_or(Failure::Answer)?);
    let subject = String::from_utf8_lossy(subject).into_owned();
    Ok(Outstanding {
        subject: SubjectId::new(subject)?,
        avatar: avatar_id(&id[1..])?,
    })
}

fn avatar_id(bytes: &[u8]) -> Result<AvatarId, Failure> {
    let bits = bytes.try_into().map_err(|_| Failure::Answer)?;
    Ok(AvatarId::from_bytes(bits))
}

/// Adds up what the partitions hold.
fn add_up(partitions: Vec<HashMap<String, u64>>) -> Result<Stats, Failure> {
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
enum Failure {
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
    #[error("redis answered something that the catalog never wrote")]
    Answer,
}

impl Failure {
    fn of(self, operation: &'static str) -> CatalogError {
        CatalogError::new(operation, self)
    }
}

#[cfg(test)]
mod tests;
