//! Records in Redis.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future;

use super::values::{Entry, Failure, Totals, avatar_id, sum_stats};
use super::{PAGE, RedisCatalog, milliseconds, precondition_arguments, uploader_argument};
use crate::avatar::{AvatarId, Record, SubjectId, Timestamp, Version};
use crate::catalog::codec;
use crate::catalog::{
    CatalogError, Cursor, Found, InitialState, Page, Precondition, Records, Replaced, Reservation,
    Restored, Stats, SubjectLocked, Uploader,
};
use crate::redis::Partition;

#[async_trait]
impl Records for RedisCatalog {
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError> {
        let entry = self.read_entry(subject).await;
        record_in(entry.map_err(|failure| failure.into_error("read a record"))?)
    }

    async fn get_many(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<Result<Option<Record>, CatalogError>>, CatalogError> {
        let got = async {
            let places = self.places_of(subjects);
            let reads = places.iter().map(|(partition, places)| {
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
            for (places, entries) in future::try_join_all(reads).await? {
                for (place, entry) in places.iter().zip(entries) {
                    records[*place] = record_in(entry);
                }
            }
            Ok(records)
        };
        got.await
            .map_err(|failure: Failure| failure.into_error("read records"))
    }

    async fn look_up(
        &self,
        subjects: &[SubjectId],
        viewer: Option<&SubjectId>,
    ) -> Result<Vec<Result<Found, CatalogError>>, CatalogError> {
        // An entry, and the viewers if they may contain the reader.
        type Answer = Vec<(Option<Vec<u8>>, Option<Vec<u8>>)>;
        let reader = viewer.map(SubjectId::as_str).unwrap_or_default();
        let got = async {
            let places = self.places_of(subjects);
            let reads = places.iter().map(|(partition, places)| async move {
                let names = places.iter().map(|place| subjects[*place].as_str());
                let arguments: Vec<_> = [reader].into_iter().chain(names).collect();
                let arguments: Vec<_> = arguments.into_iter().map(str::as_bytes).collect();
                let answer: Answer = self
                    .step(&self.scripts.look_up, *partition, &arguments)
                    .await?;
                Ok::<_, Failure>((places, answer))
            });
            let nothing = || {
                Ok(Found {
                    record: None,
                    is_viewer: false,
                })
            };
            let mut found: Vec<_> = subjects.iter().map(|_| nothing()).collect();
            for (places, answer) in future::try_join_all(reads).await? {
                for (place, (entry, viewers)) in places.iter().zip(answer) {
                    found[*place] = record_in(entry).and_then(|record| {
                        Ok(Found {
                            record,
                            is_viewer: contain(viewers, viewer)?,
                        })
                    });
                }
            }
            Ok(found)
        };
        got.await
            .map_err(|failure: Failure| failure.into_error("look up records"))
    }

    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError> {
        let paged = async {
            // A partition, and Redis's own cursor in its hash.
            let (partition, place) = from.0.split_once(':').unwrap_or(("0", "0"));
            let number: u16 = partition.parse().map_err(|_| Failure::InvalidAnswer)?;
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
            .map_err(|failure: Failure| failure.into_error("list the records"))
    }

    async fn stats(&self) -> Result<Stats, CatalogError> {
        let summed = async {
            let stats = &self.scripts.stats;
            let reads = self.partitions.all().map(|partition| async move {
                let totals: Totals = self.step(stats, partition, &[]).await?;
                Ok::<_, Failure>(totals)
            });
            sum_stats(future::try_join_all(reads).await?)
        };
        summed
            .await
            .map_err(|failure: Failure| failure.into_error("read the statistics"))
    }

    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        within: Duration,
        uploader: Uploader,
    ) -> Result<Result<Reservation, SubjectLocked>, CatalogError> {
        self.check_partition_count()
            .map_err(|failure| failure.into_error("reserve an upload"))?;
        let within = milliseconds(within);
        let seen = self.highest_version.load(Ordering::Relaxed).to_string();
        let arguments = [
            &avatar.as_bytes()[..],
            within.as_bytes(),
            seen.as_bytes(),
            uploader_argument(uploader),
        ];
        let reserved = self.step_on_subject(&self.scripts.reserve, subject, &arguments);
        let reserved: Option<(u64, u64)> = reserved
            .await
            .map_err(|failure| failure.into_error("reserve an upload"))?;
        let Some((version, reserved_at)) = reserved else {
            return Ok(Err(SubjectLocked));
        };
        self.highest_version.fetch_max(version, Ordering::Relaxed);
        Ok(Ok(Reservation {
            version: Version(version),
            reserved_at: Timestamp::from_unix_ms(reserved_at),
        }))
    }

    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        retire_after: Duration,
        uploader: Uploader,
    ) -> Result<Replaced, CatalogError> {
        let replaced = async {
            let bytes = codec::encode(record)?;
            let retire_after = milliseconds(retire_after);
            let mut arguments = vec![
                subject.as_str().as_bytes(),
                &bytes[..],
                retire_after.as_bytes(),
                uploader_argument(uploader),
            ];
            arguments.extend(precondition_arguments(precondition));
            let keys = Self::keys(self.partitions.of(subject.as_str()));
            let ended: String = self
                .change(&self.scripts.replace, subject, &keys, &arguments)
                .await?;
            match ended.as_str() {
                "committed" => Ok(Replaced::Committed),
                "superseded" => Ok(Replaced::Superseded),
                "not pending" => Ok(Replaced::NotPending),
                "precondition failed" => Ok(Replaced::PreconditionFailed),
                "locked" => Ok(Replaced::Locked),
                _ => Err(Failure::InvalidAnswer),
            }
        };
        replaced
            .await
            .map_err(|failure| failure.into_error("commit an upload"))
    }

    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_after: Duration,
    ) -> Result<Restored, CatalogError> {
        let restored = async {
            self.check_partition_count()?;
            let bytes = codec::encode(record)?;
            let retire_after = milliseconds(retire_after);
            let (restored, current): (String, Vec<u8>) = self
                .step_on_subject(
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
                _ => Err(Failure::InvalidAnswer),
            }
        };
        restored
            .await
            .map_err(|failure: Failure| failure.into_error("restore a record"))
    }

    async fn is_initialized(&self) -> Result<bool, CatalogError> {
        let floors = self.partitions.all().map(|partition| {
            let mut exists = redis::cmd("EXISTS");
            exists.arg(partition.key("floor"));
            async move { self.link.run::<bool>(&exists).await }
        });
        let floors = future::try_join_all(floors).await;
        floors
            .map(|floors| floors.into_iter().all(|begun| begun))
            .map_err(|error| Failure::from(error).into_error("read the version floor"))
    }

    async fn initialize(&self, state: InitialState) -> Result<(), CatalogError> {
        let word: &[u8] = match state {
            InitialState::New => b"new",
            InitialState::Lost => b"lost",
        };
        let written = self.partitions.all().map(|partition| async move {
            let initialize = &self.scripts.initialize;
            self.step::<()>(initialize, partition, &[word]).await
        });
        let written = future::try_join_all(written).await;
        written
            .map(drop)
            .map_err(|failure| failure.into_error("set the version floor"))
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
            .map_err(|failure| failure.into_error("raise the version floor"))?;
        Ok(Version(floors.into_iter().min().unwrap_or_default()))
    }
}

impl RedisCatalog {
    /// The partitions of many subjects. Each partition has the positions of its subjects.
    fn places_of(&self, subjects: &[SubjectId]) -> HashMap<Partition, Vec<usize>> {
        let mut places: HashMap<Partition, Vec<usize>> = HashMap::new();
        for (place, subject) in subjects.iter().enumerate() {
            let partition = self.partitions.of(subject.as_str());
            places.entry(partition).or_default().push(place);
        }
        places
    }
}

/// The current record in an entry.
fn record_in(entry: Option<Vec<u8>>) -> Result<Option<Record>, CatalogError> {
    let read = entry.map_or(Ok(None), |entry| Entry::parse(&entry)?.record());
    read.map_err(|failure: Failure| failure.into_error("read a record"))
}

/// Whether encoded viewers contain `viewer`.
fn contain(viewers: Option<Vec<u8>>, viewer: Option<&SubjectId>) -> Result<bool, CatalogError> {
    let (Some(viewers), Some(viewer)) = (viewers, viewer) else {
        return Ok(false);
    };
    codec::viewers_contain(&viewers, viewer)
        .map_err(|error| Failure::from(error).into_error("read a policy"))
}
