//! Redis as the catalog: one for any number of replicas.
//!
//! Subjects are spread over [`Partitions`]. Each partition has eight keys, all in one slot of a
//! Cluster, and every step of the catalog is one script on them:
//!
//! | key | holds |
//! | --- | --- |
//! | `cameo:{p07}:subjects` | hash: subject → its versions and its current record, some 230 bytes |
//! | `cameo:{p07}:pending` | sorted set: uploads under way, by deadline |
//! | `cameo:{p07}:reserved` | hash: pending and retired uploads → their reservations, or why there is none |
//! | `cameo:{p07}:retired` | sorted set: uploads whose objects are to be removed, by due time |
//! | `cameo:{p07}:retired-of` | sorted set: pending and retired uploads, in the order of their subjects |
//! | `cameo:{p07}:stats` | hash: what the current records add up to |
//! | `cameo:{p07}:floor` | text: the version floor, and the run id of the server that stored it |
//! | `cameo:{p07}:events` | stream: the latest changes, each with its subject |
//!
//! Besides them `cameo:{p07}:removal:ID` keeps for a minute what one delete took away.
//! `prelude.lua` documents the values.
//!
//! The scripts use Redis's clock and receive durations. They decide by the head of a record, and
//! never parse the rest. The first script that meets an entry of the previous layout makes this
//! module rewrite it.
//!
//! A step whose answer was lost is sent again, so every script may run twice. The scripts do not
//! change anything before they have read and understood all that they need, so a script that fails
//! has done nothing.
//!
//! # The loss of writes
//!
//! A Redis that restarts from an append-only file with `appendfsync everysec`, or a replica that is
//! promoted, may lack the last acknowledged writes. Such a server has another run id. So
//! `reserve.lua` compares the run id with the stored one, and raises the version floor above every
//! version that may have been given out. `begin` stores the floor; a missing floor raises it too.
//!
//! Redis drops old events by whole nodes of a stream, which is cheap: of each partition up to 100
//! more than its share are kept (`stream-node-max-entries`).

mod scripts;
mod values;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future;
use redis::FromRedisValue;
use tracing::warn;

use super::codec;
use super::{
    Catalog, CatalogError, Claimed, Cursor, Due, InitialState, Invalidated, Outstanding, Page,
    Precondition, PreconditionFailed, Removed, Replaced, Reservation, Restored, Standing, Stats,
    Watched,
};
use crate::avatar::{AvatarId, Event, Record, SubjectId, Timestamp, Version};
use crate::config::{Partitions, RedisConfirmation, RedisSettings};
use crate::redis::{
    ConfirmError, ConfirmedWrites, Partition, RedisLink, RedisStartError, RedisStartupWarning,
    Script, is_skewed,
};
use crate::telemetry::Health;
use scripts::{CLOCK, Scripts};
use values::{
    Entry, Failure, StreamEntry, add_up, avatar_id, event, is_of_the_previous_layout, outstanding,
};

/// Says with how many partitions the records were written.
const PARTITIONS_KEY: &str = "cameo:partitions";
/// How often a removal looks again because an upload was reserved since. It takes one that falls
/// between two commands each time, so more are no accident.
const MAX_LOOKS: u32 = 8;
/// About how many records are given at once.
const PAGE: usize = 500;

/// Redis as the catalog.
pub struct RedisCatalog {
    link: RedisLink,
    partitions: Partitions,
    scripts: Scripts,
    /// Where the next claim begins, so that no partition waits behind another for ever.
    next_claim: AtomicUsize,
    /// The highest version that this catalog gave out. The floor rises above it after a loss, even
    /// if Redis's clock was set back.
    highest_version: AtomicU64,
    /// What `catalog.redis.wait` asks for, and what waits for it.
    wait: Option<RedisConfirmation>,
    confirmed: Option<ConfirmedWrites>,
    /// The number of partitions that Redis held when it was last asked.
    stored_partitions: AtomicU16,
}

impl RedisCatalog {
    /// Connects, and makes sure that this Redis can be the catalog. What should not be relied on
    /// as it is comes back for the log.
    ///
    /// # Errors
    /// Why it cannot, sorted by what to do about it.
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
        let failed = |error| RedisStartError::sort(&address, error);
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
        };
        let stored = match catalog.agree_on_partitions().await {
            // Nothing is stored yet. The first watch after the cause is gone stores the number.
            Err(error) if watch::refusal_of(&error).is_some() => settings.partitions.count(),
            agreed => agreed.map_err(failed)?,
        };
        if stored != settings.partitions.count() {
            return Err(RedisStartError::Partitions { stored });
        }
        if let Err(error) = catalog.write_probes().await {
            // Redis can still be read, and takes changes again as soon as the cause is gone.
            warnings.push(watch::refusal_of(&error).ok_or_else(|| failed(error))?);
        } else if let Some(warning) = catalog.probe_confirmation().await.map_err(failed)?
            && !warnings.contains(&warning)
        {
            warnings.push(warning);
        }
        if is_skewed(catalog.link.clock_skew().await.map_err(failed)?) {
            warnings.push(RedisStartupWarning::ClockSkew);
        }
        Ok((catalog, warnings))
    }

    /// The connection, for the limits to share.
    pub fn link(&self) -> &RedisLink {
        &self.link
    }

    /// What is kept of a subject.
    async fn entry(&self, subject: &SubjectId) -> Result<Option<Vec<u8>>, Failure> {
        let mut get = redis::cmd("HGET");
        let partition = self.partitions.of(subject.as_str());
        get.arg(partition.key("subjects")).arg(subject.as_str());
        Ok(self.link.run(&get).await?)
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

    /// Runs one step on a subject, whose name is the first argument. An entry of the previous layout
    /// is rewritten before.
    async fn step_of<T: FromRedisValue>(
        &self,
        script: &Script,
        subject: &SubjectId,
        arguments: &[&[u8]],
    ) -> Result<T, Failure> {
        let keys = Self::keys(self.partitions.of(subject.as_str()));
        let arguments = [&[subject.as_str().as_bytes()], arguments].concat();
        self.call_of(script, subject, &keys, &arguments).await
    }

    async fn call_of<T: FromRedisValue>(
        &self,
        script: &Script,
        subject: &SubjectId,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<T, Failure> {
        match self.link.call(script, keys, arguments).await {
            Err(error) if is_of_the_previous_layout(&error) => {
                self.upgrade(subject).await?;
                Ok(self.link.call(script, keys, arguments).await?)
            }
            answer => Ok(answer?),
        }
    }

    /// Rewrites an entry of the previous layout, unless somebody changes it meanwhile.
    async fn upgrade(&self, subject: &SubjectId) -> Result<(), Failure> {
        let Some(before) = self.entry(subject).await? else {
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

    /// Runs one step on a subject that is acknowledged to a client, and waits for what
    /// `catalog.redis.wait` asks for. An error leaves open whether the step happened.
    async fn change<T: FromRedisValue>(
        &self,
        script: &Script,
        subject: &SubjectId,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<T, Failure> {
        self.refuse_foreign_partitions()?;
        let Some(confirmed) = &self.confirmed else {
            return self.call_of(script, subject, keys, arguments).await;
        };
        let marker = self.partitions.of(subject.as_str()).key("probe");
        match confirmed.call(script, keys, arguments, &marker).await {
            Err(ConfirmError::Redis(error)) if is_of_the_previous_layout(&error) => {
                self.upgrade(subject).await?;
                Ok(confirmed.call(script, keys, arguments, &marker).await?)
            }
            answer => Ok(answer?),
        }
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

/// What `claim.lua` answers of an upload whose reservation it cannot understand.
const NOT_UNDERSTOOD: i64 = -2;

/// Logs an upload that is skipped, because its name or its reservation is damaged or of a later
/// release.
fn warn_of_name(name: &[u8]) {
    let name = String::from_utf8_lossy(name);
    warn!(
        ?name,
        "an upload in redis cannot be understood and is skipped"
    );
}

/// A duration as the scripts take it.
fn milliseconds(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// A precondition as the scripts read it: a word, and the ids that it names.
fn words_of(precondition: &Precondition) -> Vec<&[u8]> {
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
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError> {
        let got = async {
            let entry = self.entry(subject).await?;
            entry.map_or(Ok(None), |entry| Entry::parse(&entry)?.record())
        };
        got.await.map_err(|failure| failure.of("read a record"))
    }

    async fn get_many(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<Result<Option<Record>, CatalogError>>, CatalogError> {
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
            let mut records: Vec<_> = subjects.iter().map(|_| Ok(None)).collect();
            for (places, entries) in future::try_join_all(asked).await? {
                for (place, entry) in places.iter().zip(entries) {
                    if let Some(entry) = entry {
                        let record = Entry::parse(&entry).and_then(|entry| entry.record());
                        records[*place] = record.map_err(|failure| failure.of("read a record"));
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
        within: Duration,
    ) -> Result<Reservation, CatalogError> {
        self.refuse_foreign_partitions()
            .map_err(|failure| failure.of("reserve an upload"))?;
        let within = milliseconds(within);
        let seen = self.highest_version.load(Ordering::Relaxed).to_string();
        let arguments = [&avatar.as_bytes()[..], within.as_bytes(), seen.as_bytes()];
        let reserved = self.step_of(&self.scripts.reserve, subject, &arguments);
        let (version, reserved_at): (u64, u64) = reserved
            .await
            .map_err(|failure| failure.of("reserve an upload"))?;
        self.highest_version.fetch_max(version, Ordering::Relaxed);
        Ok(Reservation {
            version: Version(version),
            reserved_at: Timestamp::from_unix_ms(reserved_at),
        })
    }

    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        retire_after: Duration,
    ) -> Result<Replaced, CatalogError> {
        let replaced = async {
            let bytes = codec::encode(record)?;
            let retire_after = milliseconds(retire_after);
            let mut arguments = vec![
                subject.as_str().as_bytes(),
                &bytes[..],
                retire_after.as_bytes(),
            ];
            arguments.extend(words_of(precondition));
            let keys = Self::keys(self.partitions.of(subject.as_str()));
            let ended: String = self
                .change(&self.scripts.replace, subject, &keys, &arguments)
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
        precondition: &Precondition,
        lease: Duration,
    ) -> Result<Result<Option<Removed>, PreconditionFailed>, CatalogError> {
        let removed = async {
            let lease = milliseconds(lease);
            let highest = self.highest_version.load(Ordering::Relaxed).to_string();
            let partition = self.partitions.of(subject.as_str());
            // Where an answer is lost the step is repeated, and finds under this call's own name
            // the record that it took away the first time.
            let call = AvatarId::random()?;
            let mut keys = Self::keys(partition).to_vec();
            keys.push(partition.key(&format!("removal:{call}")));
            let mut looks = 0;
            let answer = loop {
                let last = match self.entry(subject).await? {
                    Some(entry) => {
                        let entry = Entry::parse(&entry)?;
                        // A record that cannot be read is an error before anything changes.
                        entry.record()?;
                        entry.last
                    }
                    None => 0,
                };
                let last = last.to_string();
                let mut arguments = [subject.as_str(), &lease, &last, &highest]
                    .map(str::as_bytes)
                    .to_vec();
                arguments.extend(words_of(precondition));
                let removed = self.change(&self.scripts.remove, subject, &keys, &arguments);
                let answer: Option<Vec<Vec<u8>>> = removed.await?;
                looks += 1;
                match answer {
                    Some(answer) => break answer,
                    None if looks == MAX_LOOKS => return Err(Failure::Restless),
                    None => {}
                }
            };
            if answer == [b"precondition failed"] {
                return Ok(Err(PreconditionFailed));
            }
            let (record, ids) = answer.split_first().ok_or(Failure::Answer)?;
            let record = values::record(record)?;
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
            Ok(Ok((!nothing).then_some(Removed {
                record,
                outstanding,
            })))
        };
        removed
            .await
            .map_err(|failure: Failure| failure.of("remove a record"))
    }

    async fn claim(&self, lease: Duration, limit: usize) -> Result<Vec<Claimed>, CatalogError> {
        let claimed = async {
            self.refuse_foreign_partitions()?;
            let lease = milliseconds(lease);
            let count = usize::from(self.partitions.count());
            let first = self.next_claim.fetch_add(1, Ordering::Relaxed) % count;
            let (mut claimed, mut failed) = (Vec::new(), None);
            for partition in self.partitions.all().cycle().skip(first).take(count) {
                let left = (limit - claimed.len()).to_string();
                // What a lost answer claimed comes due again after its lease.
                let due: Result<Vec<(Vec<u8>, i64)>, Failure> = self
                    .step(
                        &self.scripts.claim,
                        partition,
                        &[lease.as_bytes(), left.as_bytes()],
                    )
                    .await;
                // What the other partitions gave is leased to this caller, who has to work it off.
                let due = match due {
                    Ok(due) => due,
                    Err(failure) => {
                        failed.get_or_insert(failure);
                        continue;
                    }
                };
                for (name, overdue_ms) in due {
                    let outstanding = match outstanding(&name) {
                        Ok(outstanding) if overdue_ms != NOT_UNDERSTOOD => outstanding,
                        _ => {
                            warn_of_name(&name);
                            continue;
                        }
                    };
                    claimed.push(Claimed {
                        outstanding,
                        due: match u64::try_from(overdue_ms) {
                            Ok(overdue_ms) => Due::Expired {
                                overdue: Duration::from_millis(overdue_ms),
                            },
                            Err(_) => Due::Retired,
                        },
                    });
                }
                if claimed.len() >= limit {
                    break;
                }
            }
            match failed {
                Some(failure) if claimed.is_empty() => Err(failure),
                _ => Ok(claimed),
            }
        };
        claimed
            .await
            .map_err(|failure: Failure| failure.of("claim what is due"))
    }

    async fn defer(&self, outstanding: &Outstanding, by: Duration) -> Result<(), CatalogError> {
        let by = milliseconds(by);
        let arguments = [&outstanding.avatar.as_bytes()[..], by.as_bytes()];
        self.step_of(&self.scripts.defer, &outstanding.subject, &arguments)
            .await
            .map_err(|failure| failure.of("put an upload off"))
    }

    async fn invalidate(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<Invalidated, CatalogError> {
        let lease = milliseconds(lease);
        let arguments = [&outstanding.avatar.as_bytes()[..], lease.as_bytes()];
        let removable: bool = self
            .step_of(&self.scripts.invalidate, &outstanding.subject, &arguments)
            .await
            .map_err(|failure| failure.of("invalidate an upload"))?;
        Ok(if removable {
            Invalidated::Removable
        } else {
            Invalidated::Kept
        })
    }

    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError> {
        let arguments = [&outstanding.avatar.as_bytes()[..]];
        self.step_of(&self.scripts.forget, &outstanding.subject, &arguments)
            .await
            .map_err(|failure| failure.of("forget an upload"))
    }

    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError> {
        let listed = async {
            let mut listed = HashSet::new();
            for partition in self.partitions.all() {
                // Pending first: what moves in between only moves to retired, and counts once.
                for set in ["pending", "retired"] {
                    // In pages, so that a long list does not hold up other commands.
                    let mut place = "0".to_owned();
                    loop {
                        let mut scan = redis::cmd("ZSCAN");
                        scan.arg(partition.key(set)).arg(&place);
                        scan.arg("COUNT").arg(PAGE);
                        let names: Vec<(Vec<u8>, String)>;
                        (place, names) = self.link.run(&scan).await?;
                        for (name, _) in &names {
                            match outstanding(name) {
                                Ok(outstanding) => {
                                    listed.insert(outstanding);
                                }
                                Err(_) => warn_of_name(name),
                            }
                        }
                        if place == "0" {
                            break;
                        }
                    }
                }
            }
            Ok(listed.into_iter().collect())
        };
        listed
            .await
            .map_err(|failure: Failure| failure.of("list what is outstanding"))
    }

    async fn standing(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<Standing, CatalogError> {
        let found = async {
            let arguments = [&avatar.as_bytes()[..]];
            let standing: String = self
                .step_of(&self.scripts.standing, subject, &arguments)
                .await?;
            match standing.as_str() {
                "current" => Ok(Standing::Current),
                "pending" => Ok(Standing::Pending),
                "expired" => Ok(Standing::Expired),
                "retired" => Ok(Standing::Retired),
                "unknown" => Ok(Standing::Unknown),
                _ => Err(Failure::Answer),
            }
        };
        found
            .await
            .map_err(|failure: Failure| failure.of("look for an upload"))
    }

    async fn deleted(&self, subject: &SubjectId) -> Result<Version, CatalogError> {
        let read = async {
            let entry = self.entry(subject).await?;
            let deleted = entry.map_or(Ok(0), |entry| Ok(Entry::parse(&entry)?.deleted));
            deleted.map(Version)
        };
        read.await
            .map_err(|failure: Failure| failure.of("look for a delete"))
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
            let (mut records, mut unreadable) = (Vec::new(), Vec::new());
            for (subject, entry) in entries {
                let subject = SubjectId::new(subject)?;
                match Entry::parse(&entry).and_then(|entry| entry.record()) {
                    Ok(Some(record)) => records.push((subject, record)),
                    Ok(None) => {}
                    Err(_) => unreadable.push(subject),
                }
            }
            let next = match (place.as_str(), number + 1 < self.partitions.count()) {
                ("0", false) => None,
                ("0", true) => Some(Cursor(format!("{}:0", number + 1))),
                (place, _) => Some(Cursor(format!("{number}:{place}"))),
            };
            Ok(Page {
                records,
                unreadable,
                next,
            })
        };
        paged
            .await
            .map_err(|failure: Failure| failure.of("list its records"))
    }

    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_after: Duration,
    ) -> Result<Restored, CatalogError> {
        let restored = async {
            self.refuse_foreign_partitions()?;
            let bytes = codec::encode(record)?;
            let retire_after = milliseconds(retire_after);
            let (restored, current): (String, Vec<u8>) = self
                .step_of(
                    &self.scripts.restore,
                    subject,
                    &[&bytes, retire_after.as_bytes()],
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

    async fn drop_record(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<bool, CatalogError> {
        let lease = milliseconds(lease);
        let arguments = [&outstanding.avatar.as_bytes()[..], lease.as_bytes()];
        self.step_of(&self.scripts.drop, &outstanding.subject, &arguments)
            .await
            .map_err(|failure| failure.of("drop a record"))
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
            .map_err(|error| Failure::from(error).of("read its version floor"))
    }

    async fn initialize(&self, state: InitialState) -> Result<(), CatalogError> {
        let word: &[u8] = match state {
            InitialState::New => b"new",
            InitialState::Lost => b"lost",
        };
        let written = self.partitions.all().map(|partition| async move {
            let begin = &self.scripts.begin;
            self.step::<()>(begin, partition, &[word]).await
        });
        let written = future::try_join_all(written).await;
        written
            .map(drop)
            .map_err(|failure| failure.of("set its version floor"))
    }

    async fn raise_version_floor(&self, seen: Version) -> Result<Version, CatalogError> {
        let highest = self.highest_version.load(Ordering::Relaxed);
        let seen = seen.0.max(highest).to_string();
        let raised = self.partitions.all().map(|partition| {
            let arguments = [seen.as_bytes()];
            async move {
                let raise = &self.scripts.raise_version_floor;
                self.step::<u64>(raise, partition, &arguments).await
            }
        });
        let floors = future::try_join_all(raised)
            .await
            .map_err(|failure| failure.of("raise its version floor"))?;
        Ok(Version(floors.into_iter().min().unwrap_or_default()))
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
            let mut place = if *after == Cursor::START {
                "0".to_owned()
            } else {
                after.0.clone()
            };
            loop {
                let mut read = redis::cmd("XREAD");
                read.arg("COUNT").arg(limit).arg("STREAMS");
                read.arg(Partition(partition).key("events")).arg(&place);
                let streams: Option<Vec<(String, Vec<StreamEntry>)>> = self.link.run(&read).await?;
                let entries: Vec<StreamEntry> = streams
                    .into_iter()
                    .flatten()
                    .flat_map(|(_, entries)| entries)
                    .collect();
                let Some((last, _)) = entries.last() else {
                    return Ok(Vec::new());
                };
                place.clone_from(last);
                let events: Vec<_> = entries
                    .into_iter()
                    .filter_map(|(place, fields)| Some((Cursor(place), event(&fields).ok()?)))
                    .collect();
                // An empty answer says that there are no more events, so what cannot be read does
                // not make one.
                if !events.is_empty() {
                    return Ok(events);
                }
            }
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

    async fn watch(&self) -> Result<Watched, CatalogError> {
        self.look().await
    }

    async fn check(&self) -> Result<Health, CatalogError> {
        self.probe().await
    }
}

#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod tests;
