//! The catalog in Redis, which any number of replicas share.
//!
//! Subjects are spread over [`Partitions`]. Each partition has nine keys, all in one slot of a
//! Cluster. Every step of the catalog is one script on these keys:
//!
//! | key | holds |
//! | --- | --- |
//! | `cameo:{p07}:subjects` | hash: subject → its versions and its current record, some 230 bytes |
//! | `cameo:{p07}:pending` | sorted set: uploads under way, by deadline |
//! | `cameo:{p07}:reserved` | hash: pending and retired uploads → their reservations, or the reason why there is none |
//! | `cameo:{p07}:retired` | sorted set: uploads whose objects are to be removed, by due time |
//! | `cameo:{p07}:retired-of` | sorted set: pending and retired uploads, in the order of their subjects |
//! | `cameo:{p07}:stats` | hash: the totals of the current records |
//! | `cameo:{p07}:floor` | text: the version floor, and the run id of the server that stored it |
//! | `cameo:{p07}:events` | stream: the latest changes, each with its subject |
//! | `cameo:{p07}:policies` | hash: subject → the head of its policy; subject and a zero byte → its viewers |
//!
//! Another key, `cameo:{p07}:removal:ID`, keeps the record that one delete removed for a minute.
//! `prelude.lua` documents the values.
//!
//! The scripts use Redis's clock and receive durations. They read only the head of a record; the
//! body is opaque to them. A script that finds an entry of the previous layout stops with an error.
//! Then this module rewrites the entry in the current layout and runs the script again.
//!
//! A step whose answer was lost is sent again, so every script may run twice. A script reads and
//! decodes everything that it needs before its first write, so a script that fails has changed
//! nothing.
//!
//! # Lost writes
//!
//! A Redis that restarts from an append-only file with `appendfsync everysec`, or a replica that is
//! promoted, may lack the last acknowledged writes. Such a server has another run id. So
//! `reserve.lua` compares the run id with the stored one. If they differ, or if no floor is stored,
//! it raises the version floor above every version that may have been given out.
//!
//! Redis deletes old events in whole nodes of a stream, which is cheap. So each partition keeps up to
//! 100 events more than its share (`stream-node-max-entries`).

mod events;
mod policies;
mod records;
mod removals;
mod scripts;
mod values;
mod watch;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize};
use std::time::Duration;

use async_trait::async_trait;
use redis::FromRedisValue;

use super::{Catalog, CatalogError, Precondition, Uploader, Watched};
use crate::avatar::SubjectId;
use crate::config::{Partitions, RedisConfirmation, RedisSettings};
use crate::redis::{
    ConfirmError, ConfirmedWrites, Partition, RedisLink, RedisStartError, RedisStartupWarning,
    Script, is_skewed,
};
use crate::telemetry::Health;
use scripts::{CLOCK, Scripts};
use values::{Entry, Failure, needs_upgrade};

/// The key that holds the number of partitions of the stored records.
const PARTITIONS_KEY: &str = "cameo:partitions";
/// The approximate number of entries that one scan command returns.
const PAGE: usize = 500;

/// The catalog in Redis.
pub struct RedisCatalog {
    link: RedisLink,
    partitions: Partitions,
    scripts: Scripts,
    /// The partition in which the next claim begins. It rotates, so that every partition gets a turn.
    next_claim: AtomicUsize,
    /// The highest version that this process has given out. After a loss the floor rises above it,
    /// even if Redis's clock was set back.
    highest_version: AtomicU64,
    /// The setting `catalog.redis.wait`.
    wait: Option<RedisConfirmation>,
    /// Runs the steps that must be confirmed; `None` without that setting.
    confirmed: Option<ConfirmedWrites>,
    /// The number of partitions that was stored in Redis at the last check.
    stored_partitions: AtomicU16,
    /// The problem with writes that the start found. The watch tests it again until it has ended.
    write_problem: Mutex<Option<RedisStartupWarning>>,
}

impl RedisCatalog {
    /// Connects, and checks that this Redis can hold the catalog. Returns the problems that an
    /// operator should fix, for the log.
    ///
    /// # Errors
    /// If it cannot hold the catalog; each case says what to change.
    pub async fn open(
        settings: &RedisSettings,
    ) -> Result<(Self, Vec<RedisStartupWarning>), RedisStartError> {
        Self::open_with_clock(settings, CLOCK).await
    }

    async fn open_with_clock(
        settings: &RedisSettings,
        clock: &str,
    ) -> Result<(Self, Vec<RedisStartupWarning>), RedisStartError> {
        let address = settings.address.to_string();
        let failed = |error| RedisStartError::from_redis(&address, error);
        let link = RedisLink::connect(&settings.address)
            .await
            .map_err(failed)?;
        let mut warnings = link.inspect(&address, settings.wait).await?;
        let confirmed = settings.wait.map(|confirmation| {
            ConfirmedWrites::new(&settings.address, confirmation, settings.wait_timeout)
        });
        let catalog = Self {
            link,
            partitions: settings.partitions,
            scripts: Scripts::new(settings.events_kept_in_each(), clock),
            next_claim: AtomicUsize::new(0),
            highest_version: AtomicU64::new(0),
            wait: settings.wait,
            confirmed: confirmed.transpose().map_err(failed)?,
            stored_partitions: AtomicU16::new(settings.partitions.count()),
            write_problem: Mutex::default(),
        };
        let stored = match catalog.stored_partitions_or_set().await {
            // Redis refuses writes, so nothing is stored yet. A later `watch` stores the number.
            Err(error) if values::refusal_warning(&error).is_some() => settings.partitions.count(),
            agreed => agreed.map_err(failed)?,
        };
        if stored != settings.partitions.count() {
            return Err(RedisStartError::Partitions { stored });
        }
        // A Redis that refuses writes can still be read. It accepts them again when the cause is gone.
        warnings.extend(catalog.find_write_problem().await.map_err(failed)?);
        if is_skewed(catalog.link.clock_skew().await.map_err(failed)?) {
            warnings.push(RedisStartupWarning::ClockSkew);
        }
        Ok((catalog, warnings))
    }

    /// The connection. The rate limits share it.
    pub fn link(&self) -> &RedisLink {
        &self.link
    }

    /// Reads the entry of a subject.
    async fn read_entry(&self, subject: &SubjectId) -> Result<Option<Vec<u8>>, Failure> {
        let mut get = redis::cmd("HGET");
        let partition = self.partitions.of(subject.as_str());
        get.arg(partition.key("subjects")).arg(subject.as_str());
        Ok(self.link.run(&get).await?)
    }

    /// Runs a script on the keys of a partition.
    async fn step<T: FromRedisValue>(
        &self,
        script: &Script,
        partition: Partition,
        arguments: &[&[u8]],
    ) -> Result<T, Failure> {
        let keys = Self::keys(partition);
        Ok(self.link.call(script, &keys, arguments).await?)
    }

    /// Runs a script on a subject, which is the first argument. An entry of the previous layout is
    /// rewritten first.
    async fn step_on_subject<T: FromRedisValue>(
        &self,
        script: &Script,
        subject: &SubjectId,
        arguments: &[&[u8]],
    ) -> Result<T, Failure> {
        let keys = Self::keys(self.partitions.of(subject.as_str()));
        let arguments = [&[subject.as_str().as_bytes()], arguments].concat();
        self.call_on_subject(script, subject, &keys, &arguments)
            .await
    }

    /// Runs a script. If the subject's entry has the previous layout, rewrites it and runs the script
    /// again.
    async fn call_on_subject<T: FromRedisValue>(
        &self,
        script: &Script,
        subject: &SubjectId,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<T, Failure> {
        match self.link.call(script, keys, arguments).await {
            Err(error) if needs_upgrade(&error) => {
                self.upgrade(subject).await?;
                Ok(self.link.call(script, keys, arguments).await?)
            }
            answer => Ok(answer?),
        }
    }

    /// Rewrites an entry of the previous layout, unless it changes at the same time.
    async fn upgrade(&self, subject: &SubjectId) -> Result<(), Failure> {
        let Some(before) = self.read_entry(subject).await? else {
            return Ok(());
        };
        let Some(after) = Entry::parse(&before)?.upgraded()? else {
            return Ok(());
        };
        let partition = self.partitions.of(subject.as_str());
        let arguments = [subject.as_str().as_bytes(), &before, &after];
        self.step(&self.scripts.upgrade, partition, &arguments)
            .await
    }

    /// Runs a script whose result is acknowledged to a client. Waits for the confirmation that
    /// `catalog.redis.wait` asks for. After an error the step may have happened.
    async fn change<T: FromRedisValue>(
        &self,
        script: &Script,
        subject: &SubjectId,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<T, Failure> {
        self.check_partition_count()?;
        let Some(confirmed) = &self.confirmed else {
            return self.call_on_subject(script, subject, keys, arguments).await;
        };
        let marker = self.partitions.of(subject.as_str()).key("probe");
        match confirmed.call(script, keys, arguments, &marker).await {
            Err(ConfirmError::Redis(error)) if needs_upgrade(&error) => {
                self.upgrade(subject).await?;
                Ok(confirmed.call(script, keys, arguments, &marker).await?)
            }
            answer => Ok(answer?),
        }
    }

    /// The keys of a partition, in the order in which the scripts expect them.
    fn keys(partition: Partition) -> [String; 9] {
        [
            "subjects",
            "pending",
            "reserved",
            "retired",
            "retired-of",
            "stats",
            "events",
            "floor",
            "policies",
        ]
        .map(|name| partition.key(name))
    }
}

/// A duration as an argument of a script.
fn milliseconds(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// An uploader as an argument of a script.
fn uploader_argument(uploader: Uploader) -> &'static [u8] {
    match uploader {
        Uploader::Ordinary => b"ordinary",
        Uploader::Admin => b"admin",
    }
}

/// A precondition as arguments of a script: a word, and the ids of [`Precondition::OneOf`].
fn precondition_arguments(precondition: &Precondition) -> Vec<&[u8]> {
    let (word, ids) = match precondition {
        Precondition::Anything => ("anything", &[][..]),
        Precondition::Absent => ("absent", &[][..]),
        Precondition::Present => ("present", &[][..]),
        Precondition::OneOf(ids) => ("one of", &ids[..]),
    };
    let ids = ids.iter().map(|id| &id.as_bytes()[..]);
    [word.as_bytes()].into_iter().chain(ids).collect()
}

#[async_trait]
impl Catalog for RedisCatalog {
    async fn watch(&self) -> Result<Watched, CatalogError> {
        self.watch_server().await
    }

    async fn check(&self) -> Result<Health, CatalogError> {
        self.check_partitions().await
    }
}

#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod tests;
