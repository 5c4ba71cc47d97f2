//! Redis as the catalog: one for any number of replicas.
//!
//! Subjects are spread over [`Partitions`]; each partition has eight keys, all in one slot of a
//! Cluster, and every step of the catalog is one script on them:
//!
//! | key | holds |
//! | --- | --- |
//! | `cameo:{p07}:subjects` | hash: subject → its versions and its current record, some 230 bytes |
//! | `cameo:{p07}:pending` | sorted set: uploads under way, by deadline |
//! | `cameo:{p07}:reserved` | hash: the same uploads → their versions |
//! | `cameo:{p07}:retired` | sorted set: uploads whose objects are to go, by due time |
//! | `cameo:{p07}:retired-of` | the same, in the order of their subjects |
//! | `cameo:{p07}:stats` | hash: what the current records add up to |
//! | `cameo:{p07}:floor` | number: above it begin subjects that were never given a version; not there in a catalog that was emptied |
//! | `cameo:{p07}:events` | stream: the latest changes, each with its subject |
//!
//! Besides them `cameo:{p07}:removal:ID` keeps for a minute what one delete took away.
//!
//! A step whose answer was lost is sent again, so every script may run twice. The scripts do not
//! change anything before they have read and understood all that they need, so one that fails has
//! done nothing.
//!
//! Redis drops old events by whole nodes of a stream, which is cheap: of each partition up to 100
//! more than its share are kept (`stream-node-max-entries`).

mod scripts;
mod values;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future;
use redis::{FromRedisValue, RedisError};

use super::codec;
use super::{
    Catalog, CatalogError, Claimed, Cursor, Outstanding, Page, Precondition, Removed, Replaced,
    Restored, Stats,
};
use crate::avatar::{AvatarId, Event, Record, SubjectId, Timestamp, Version};
use crate::config::{Partitions, RedisSettings};
use crate::redis::{Partition, RedisConcern, RedisLink, RedisStartError, Script};
use crate::telemetry::Health;
use scripts::Scripts;
use values::{
    Failure, StreamEntry, add_up, avatar_id, event, last_version_of, outstanding, record_of,
};

/// Says with how many partitions the records were written.
const PARTITIONS_KEY: &str = "cameo:partitions";
/// How often a removal looks again because an upload was reserved since. It takes one that falls
/// between two commands each time, so more are no accident.
const MOST_LOOKS: u32 = 8;
/// About how many records are given at once.
const PAGE: usize = 500;

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
            scripts: Scripts::new(settings.events_kept_in_each()),
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
        self.link.run::<()>(&set).await?;
        let mut get = redis::cmd("GET");
        get.arg(PARTITIONS_KEY);
        self.link.run(&get).await
    }

    /// Writes a key of every partition.
    async fn write_probes(&self) -> Result<(), RedisError> {
        let writes = self.partitions.all().map(|partition| {
            let mut set = redis::cmd("SET");
            set.arg(partition.key("probe")).arg(1).arg("EX").arg(60);
            async move { self.link.run::<()>(&set).await }
        });
        future::try_join_all(writes).await.map(drop)
    }

    /// What is kept of a subject.
    async fn entry(&self, subject: &SubjectId) -> Result<Option<Vec<u8>>, Failure> {
        let mut get = redis::cmd("HGET");
        let partition = self.partitions.of(subject.as_str());
        get.arg(partition.key("subjects")).arg(subject.as_str());
        Ok(self.link.run(&get).await?)
    }

    /// The last version that was given to an upload of the subject.
    async fn last_version(&self, subject: &SubjectId) -> Result<Version, Failure> {
        let entry = self.entry(subject).await?;
        entry.map_or(Ok(Version(0)), |entry| last_version_of(&entry))
    }

    /// Runs one step on the keys of a partition.
    async fn step<T: FromRedisValue>(
        &self,
        script: &Script,
        partition: Partition,
        arguments: &[&[u8]],
    ) -> Result<T, Failure> {
        let keys = Self::keys(partition);
        Ok(self.link.call(script, &keys, arguments).await?)
    }

    /// The keys of a partition, in the order in which the scripts expect them.
    fn keys(partition: Partition) -> [String; 8] {
        [
            "subjects",
            "pending",
            "reserved",
            "retired",
            "retired-of",
            "stats",
            "events",
            "floor",
        ]
        .map(|name| partition.key(name))
    }
}

#[async_trait]
impl Catalog for RedisCatalog {
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError> {
        let got = async {
            let entry = self.entry(subject).await?;
            entry.map_or(Ok(None), |entry| record_of(&entry))
        };
        got.await.map_err(|failure| failure.of("read a record"))
    }

    async fn get_many(&self, subjects: &[SubjectId]) -> Result<Vec<Option<Record>>, CatalogError> {
        let got = async {
            // One command for each partition, all of them at once.
            let mut places: HashMap<Partition, Vec<usize>> = HashMap::new();
            for (place, subject) in subjects.iter().enumerate() {
                let partition = self.partitions.of(subject.as_str());
                places.entry(partition).or_default().push(place);
            }
            let asked = places.iter().map(|(partition, places)| {
                let mut get = redis::cmd("HMGET");
                get.arg(partition.key("subjects"));
                for place in places {
                    get.arg(subjects[*place].as_str());
                }
                async move {
                    let entries: Vec<Option<Vec<u8>>> = self.link.run(&get).await?;
                    Ok::<_, Failure>((places, entries))
                }
            });
            let mut records = vec![None; subjects.len()];
            for (places, entries) in future::try_join_all(asked).await? {
                for (place, entry) in places.iter().zip(entries) {
                    if let Some(entry) = entry {
                        records[*place] = record_of(&entry)?;
                    }
                }
            }
            Ok(records)
        };
        got.await
            .map_err(|failure: Failure| failure.of("read records"))
    }

    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        deadline: Timestamp,
    ) -> Result<Version, CatalogError> {
        let floor = Version::floor_at(deadline).to_string();
        let deadline = deadline.unix_ms().to_string();
        self.step(
            &self.scripts.reserve,
            self.partitions.of(subject.as_str()),
            &[
                subject.as_str().as_bytes(),
                avatar.as_bytes(),
                deadline.as_bytes(),
                floor.as_bytes(),
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
        now: Timestamp,
        retire_at: Timestamp,
    ) -> Result<Replaced, CatalogError> {
        let replaced = async {
            let bytes = codec::encode(record)?;
            let (now, retire_at) = (now.unix_ms().to_string(), retire_at.unix_ms().to_string());
            let (word, ids) = match precondition {
                Precondition::Anything => ("anything", &[][..]),
                Precondition::Absent => ("absent", &[][..]),
                Precondition::Present => ("present", &[][..]),
                Precondition::OneOf(ids) => ("one of", &ids[..]),
            };
            let mut arguments = vec![
                subject.as_str().as_bytes(),
                &bytes,
                now.as_bytes(),
                retire_at.as_bytes(),
                word.as_bytes(),
            ];
            arguments.extend(ids.iter().map(|id| &id.as_bytes()[..]));
            let ended: String = self
                .step(
                    &self.scripts.replace,
                    self.partitions.of(subject.as_str()),
                    &arguments,
                )
                .await?;
            match ended.as_str() {
                "committed" => Ok(Replaced::Committed),
                "superseded" => Ok(Replaced::Superseded),
                "not pending" => Ok(Replaced::NotPending),
                "precondition failed" => Ok(Replaced::PreconditionFailed),
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
        now: Timestamp,
        lease: Timestamp,
    ) -> Result<Option<Removed>, CatalogError> {
        let removed = async {
            let (now, lease) = (now.unix_ms().to_string(), lease.unix_ms().to_string());
            let partition = self.partitions.of(subject.as_str());
            // Where an answer is lost the step is repeated, and finds under this call's own name
            // what it took away the first time.
            let call = AvatarId::random()?;
            let mut keys = Self::keys(partition).to_vec();
            keys.push(partition.key(&format!("removal:{call}")));
            let mut looks = 0;
            let answer = loop {
                let seen = self.last_version(subject).await?.0.to_string();
                let arguments = [subject.as_str(), &now, &lease, &seen].map(str::as_bytes);
                let answer: Option<Vec<Vec<u8>>> = self
                    .link
                    .call(&self.scripts.remove, &keys, &arguments)
                    .await?;
                looks += 1;
                match answer {
                    Some(answer) => break answer,
                    None if looks == MOST_LOOKS => return Err(Failure::Restless),
                    None => {}
                }
            };
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
    ) -> Result<Vec<Claimed>, CatalogError> {
        let claimed = async {
            let (now, lease) = (now.unix_ms().to_string(), lease.unix_ms().to_string());
            let count = usize::from(self.partitions.count());
            let first = self.next_claim.fetch_add(1, Ordering::Relaxed) % count;
            let mut claimed = Vec::new();
            for partition in self.partitions.all().cycle().skip(first).take(count) {
                let left = (limit - claimed.len()).to_string();
                // What a lost answer claimed comes due again after its lease.
                let [pending, retired]: [Vec<Vec<u8>>; 2] = self
                    .step(
                        &self.scripts.claim,
                        partition,
                        &[now.as_bytes(), lease.as_bytes(), left.as_bytes()],
                    )
                    .await?;
                for (names, was_pending) in [(pending, true), (retired, false)] {
                    for name in &names {
                        let outstanding = outstanding(name)?;
                        claimed.push(Claimed {
                            outstanding,
                            was_pending,
                        });
                    }
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
            self.partitions.of(subject),
            &[subject.as_bytes(), outstanding.avatar.as_bytes()],
        )
        .await
        .map_err(|failure| failure.of("forget an upload"))
    }

    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError> {
        let listed = async {
            let mut listed = HashSet::new();
            for partition in self.partitions.all() {
                // Pending first: what moves in between only moves to retired, and counts once.
                for set in ["pending", "retired"] {
                    let mut range = redis::cmd("ZRANGE");
                    range.arg(partition.key(set)).arg(0).arg(-1);
                    let names: Vec<Vec<u8>> = self.link.run(&range).await?;
                    for name in &names {
                        listed.insert(outstanding(name)?);
                    }
                }
            }
            Ok(listed.into_iter().collect())
        };
        listed
            .await
            .map_err(|failure: Failure| failure.of("list what is outstanding"))
    }

    async fn knows(&self, subject: &SubjectId, avatar: AvatarId) -> Result<bool, CatalogError> {
        self.step(
            &self.scripts.knows,
            self.partitions.of(subject.as_str()),
            &[subject.as_str().as_bytes(), avatar.as_bytes()],
        )
        .await
        .map_err(|failure| failure.of("look for an upload"))
    }

    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError> {
        let paged = async {
            // A partition, and a place in its hash as Redis gives it.
            let (partition, place) = from.0.split_once(':').unwrap_or(("0", "0"));
            let number: u16 = partition.parse().map_err(|_| Failure::Answer)?;
            let mut scan = redis::cmd("HSCAN");
            scan.arg(Partition(number).key("subjects")).arg(place);
            scan.arg("COUNT").arg(PAGE);
            let (place, entries): (String, Vec<(String, Vec<u8>)>) = self.link.run(&scan).await?;
            let mut records = Vec::new();
            for (subject, entry) in entries {
                if let Some(record) = record_of(&entry)? {
                    records.push((SubjectId::new(subject)?, record));
                }
            }
            let next = match (place.as_str(), number + 1 < self.partitions.count()) {
                ("0", false) => None,
                ("0", true) => Some(Cursor(format!("{}:0", number + 1))),
                (place, _) => Some(Cursor(format!("{number}:{place}"))),
            };
            Ok(Page { records, next })
        };
        paged
            .await
            .map_err(|failure: Failure| failure.of("list its records"))
    }

    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_at: Timestamp,
    ) -> Result<Restored, CatalogError> {
        let restored = async {
            let bytes = codec::encode(record)?;
            let retire_at = retire_at.unix_ms().to_string();
            let (restored, current): (String, Vec<u8>) = self
                .step(
                    &self.scripts.restore,
                    self.partitions.of(subject.as_str()),
                    &[subject.as_str().as_bytes(), &bytes, retire_at.as_bytes()],
                )
                .await?;
            match (restored.as_str(), current.is_empty()) {
                ("current", true) => Ok(Restored::Current(None)),
                ("current", false) => Ok(Restored::Current(Some(avatar_id(&current)?))),
                ("retired", _) => Ok(Restored::Retired),
                ("known", _) => Ok(Restored::Known),
                _ => Err(Failure::Answer),
            }
        };
        restored
            .await
            .map_err(|failure: Failure| failure.of("restore a record"))
    }

    async fn has_begun(&self) -> Result<bool, CatalogError> {
        let floors = self.partitions.all().map(|partition| {
            let mut exists = redis::cmd("EXISTS");
            exists.arg(partition.key("floor"));
            async move { self.link.run::<bool>(&exists).await }
        });
        let floors = future::try_join_all(floors).await;
        floors
            .map(|floors| floors.into_iter().all(|begun| begun))
            .map_err(|error| Failure::from(error).of("read where its versions begin"))
    }

    async fn begin(&self, floor: Version) -> Result<(), CatalogError> {
        let writes = self.partitions.all().map(|partition| {
            let mut set = redis::cmd("SET");
            set.arg(partition.key("floor")).arg(floor.0).arg("NX");
            async move { self.link.run::<Option<String>>(&set).await }
        });
        let written = future::try_join_all(writes).await;
        written
            .map(drop)
            .map_err(|error| Failure::from(error).of("say where its versions begin"))
    }

    async fn raise_floor(&self, floor: Version) -> Result<(), CatalogError> {
        let floor = floor.to_string();
        let raised = self.partitions.all().map(|partition| {
            let arguments = [floor.as_bytes()];
            async move {
                let raise = &self.scripts.raise_floor;
                self.step::<()>(raise, partition, &arguments).await
            }
        });
        let raised = future::try_join_all(raised).await;
        raised
            .map(drop)
            .map_err(|failure| failure.of("raise the floor of its versions"))
    }

    fn event_partitions(&self) -> u16 {
        self.partitions.count()
    }

    async fn events(
        &self,
        partition: u16,
        after: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Event)>, CatalogError> {
        let read = async {
            let place = if *after == Cursor::START {
                "0"
            } else {
                &after.0
            };
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(limit).arg("STREAMS");
            read.arg(Partition(partition).key("events")).arg(place);
            let streams: Option<Vec<(String, Vec<StreamEntry>)>> = self.link.run(&read).await?;
            let entries = streams
                .into_iter()
                .flatten()
                .flat_map(|(_, entries)| entries);
            entries.map(event).collect::<Result<_, _>>()
        };
        read.await
            .map_err(|failure: Failure| failure.of("read its events"))
    }

    async fn stats(&self) -> Result<Stats, CatalogError> {
        let added_up = async {
            let asked = self.partitions.all().map(|partition| {
                let mut get = redis::cmd("HGETALL");
                get.arg(partition.key("stats"));
                async move {
                    let sums = self.link.run(&get).await;
                    sums.map(|sums: HashMap<String, u64>| sums)
                }
            });
            add_up(future::try_join_all(asked).await?)
        };
        added_up
            .await
            .map_err(|failure: Failure| failure.of("add up its records"))
    }

    async fn check(&self) -> Result<Health, CatalogError> {
        self.write_probes()
            .await
            .map_err(|error| Failure::Redis(error).of("take a write"))?;
        Ok(Health::Healthy)
    }
}

#[cfg(test)]
mod tests;
