//! What is asked of Redis again and again: whether the catalog works, and whether anything about it
//! changed that the replicas must know.

use std::sync::atomic::Ordering;

use futures_util::future;
use redis::RedisError;

use super::values::Failure;
use super::{PARTITIONS_KEY, RedisCatalog};
use crate::catalog::{CatalogError, Watched};
use crate::config::RedisConfirmation;
use crate::redis::{Partition, RedisStartupWarning, is_skewed};
use crate::telemetry::Health;

impl RedisCatalog {
    /// Tests reads and writes of every partition, by a script on the keys of all other scripts.
    pub(super) async fn probe(&self) -> Result<Health, CatalogError> {
        self.refuse_foreign_partitions()
            .map_err(|failure| failure.of("take a write"))?;
        let Err(error) = self.write_probes().await else {
            return Ok(self.missing_replica().await);
        };
        let Some(reason) = reason_of(&error) else {
            return Err(Failure::Redis(error).of("take a write"));
        };
        let reads = self.partitions.all().map(|partition| {
            let mut exists = redis::cmd("EXISTS");
            exists.arg(partition.key("subjects"));
            async move { self.link.run::<bool>(&exists).await }
        });
        match future::try_join_all(reads).await {
            Ok(_) => Ok(Health::Degraded(reason.to_owned())),
            Err(error) => Err(Failure::Redis(error).of("be read")),
        }
    }

    /// Whether a replica is missing that every change waits for.
    async fn missing_replica(&self) -> Health {
        if self.wait != Some(RedisConfirmation::Replica) {
            return Health::Healthy;
        }
        let mut info = redis::cmd("INFO");
        info.arg("replication");
        // Where INFO is denied nobody knows.
        let answers: Vec<String> = self.link.ask_all(info).await.unwrap_or_default();
        let is_missing = |answer: &String| answer.lines().any(|line| line == "connected_slaves:0");
        if answers.iter().any(is_missing) {
            let reason = "redis has no replica that could confirm changes";
            return Health::Degraded(reason.to_owned());
        }
        Health::Healthy
    }

    /// Writes a key of every partition.
    pub(super) async fn write_probes(&self) -> Result<(), RedisError> {
        let writes = self.partitions.all().map(|partition| {
            let mut keys = Self::keys(partition).to_vec();
            keys.push(partition.key("probe"));
            async move { self.link.probe(&self.scripts.probe, &keys).await }
        });
        future::try_join_all(writes).await.map(drop)
    }

    /// Tests whether a write is confirmed as `catalog.redis.wait` asks for.
    pub(super) async fn probe_confirmation(
        &self,
    ) -> Result<Option<RedisStartupWarning>, RedisError> {
        let Some(confirmed) = &self.confirmed else {
            return Ok(None);
        };
        let marker = Partition(0).key("probe");
        match confirmed.probe(&marker).await {
            Ok(is_confirmed) => Ok((!is_confirmed).then_some(RedisStartupWarning::Unconfirmed)),
            Err(error) => refusal_of(&error).ok_or(error).map(Some),
        }
    }

    /// With how many partitions the records are written: with as many as are asked for, where
    /// there are none yet.
    pub(super) async fn agree_on_partitions(&self) -> Result<u16, RedisError> {
        let mut set = redis::cmd("SET");
        set.arg(PARTITIONS_KEY)
            .arg(self.partitions.count())
            .arg("NX");
        let mut get = redis::cmd("GET");
        get.arg(PARTITIONS_KEY);
        // Read first: a Redis that is full takes no write, and usually needs none.
        let stored: Option<u16> = self.link.run(&get).await?;
        if let Some(stored) = stored {
            return Ok(stored);
        }
        self.link.run::<()>(&set).await?;
        self.link.run(&get).await
    }

    /// The number of partitions that another process wrote after this one had begun, if it differs.
    /// This process would look for a subject where it is not, so it refuses changes.
    pub(super) fn foreign_partitions(&self) -> Option<u16> {
        let stored = self.stored_partitions.load(Ordering::Relaxed);
        (stored != self.partitions.count()).then_some(stored)
    }

    /// # Errors
    /// Where this process has another number of partitions than the records.
    pub(super) fn refuse_foreign_partitions(&self) -> Result<(), Failure> {
        match self.foreign_partitions() {
            Some(stored) => Err(Failure::Partitions { stored }),
            None => Ok(()),
        }
    }

    /// Asserts the number of partitions, which a `FLUSHALL` removes, and looks at what an operator
    /// should see to.
    pub(super) async fn look(&self) -> Result<Watched, CatalogError> {
        let failed = |error: RedisError| Failure::Redis(error).of("be watched");
        let stored = self.agree_on_partitions().await.map_err(failed)?;
        self.stored_partitions.store(stored, Ordering::Relaxed);
        let mut warnings = match self.link.inspect("", self.wait).await {
            Ok(warnings) => warnings,
            Err(error) => return Err(CatalogError::new("be watched", error)),
        };
        let clock_skew = self.link.clock_skew().await.map_err(failed)?;
        if is_skewed(clock_skew) {
            warnings.push(RedisStartupWarning::ClockSkew);
        }
        if let Some(stored) = self.foreign_partitions() {
            let configured = self.partitions.count();
            warnings.push(RedisStartupWarning::Partitions { stored, configured });
        }
        Ok(Watched {
            warnings: warnings.iter().map(ToString::to_string).collect(),
            clock_skew: Some(clock_skew),
        })
    }
}

/// What an operator should see to where Redis refuses a write before it changes anything; `None` for
/// every other error.
pub(super) fn refusal_of(error: &RedisError) -> Option<RedisStartupWarning> {
    match error.code()? {
        "OOM" | "MISCONF" => Some(RedisStartupWarning::Full),
        "NOREPLICAS" => Some(RedisStartupWarning::FewReplicas),
        _ => None,
    }
}

/// Why Redis refuses a write though it may still be read; `None` for every other error.
fn reason_of(error: &RedisError) -> Option<&'static str> {
    Some(match error.code()? {
        "OOM" => "redis has reached its maxmemory: it takes deletes, and no uploads",
        "MISCONF" => "redis cannot write to its disk, and takes no changes",
        "NOREPLICAS" => {
            "redis has fewer replicas than its min-replicas-to-write, and takes no changes"
        }
        "READONLY" => "redis is a read-only replica, and takes no changes",
        "TRYAGAIN" => {
            "a slot of the redis cluster is being moved: some users cannot change their avatar"
        }
        _ => return None,
    })
}
