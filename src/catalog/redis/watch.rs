//! Health checks, and the periodic watch for changes of the server.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use futures_util::future;
use redis::RedisError;

use super::values::{Failure, refusal_warning};
use super::{PARTITIONS_KEY, RedisCatalog};
use crate::catalog::{CatalogError, Watched};
use crate::config::RedisConfirmation;
use crate::redis::{Partition, RedisStartupWarning, is_skewed};
use crate::telemetry::Health;

impl RedisCatalog {
    /// Tests reads and writes of every partition, by a script that names the keys of all scripts.
    pub(super) async fn check_partitions(&self) -> Result<Health, CatalogError> {
        self.check_partition_count()
            .map_err(|failure| failure.into_error("accept a write"))?;
        let Err(error) = self.write_probes().await else {
            return Ok(self.missing_replica().await);
        };
        let Some(reason) = degraded_reason(&error) else {
            return Err(Failure::Redis(error).into_error("accept a write"));
        };
        let reads = self.partitions.all().map(|partition| {
            let mut exists = redis::cmd("EXISTS");
            exists.arg(partition.key("subjects"));
            async move { self.link.run::<bool>(&exists).await }
        });
        match future::try_join_all(reads).await {
            Ok(_) => Ok(Health::Degraded(reason.to_owned())),
            Err(error) => Err(Failure::Redis(error).into_error("be read")),
        }
    }

    /// [`Health::Degraded`] if changes wait for a replica and there is none.
    async fn missing_replica(&self) -> Health {
        if self.wait != Some(RedisConfirmation::Replica) {
            return Health::Healthy;
        }
        let mut info = redis::cmd("INFO");
        info.arg("replication");
        // If INFO is denied, the number of replicas is unknown.
        let answers: Vec<String> = self.link.query_all(info).await.unwrap_or_default();
        let is_missing = |answer: &String| answer.lines().any(|line| line == "connected_slaves:0");
        if answers.iter().any(is_missing) {
            let reason = "redis has no replica that can confirm changes";
            return Health::Degraded(reason.to_owned());
        }
        Health::Healthy
    }

    /// Writes a test key in every partition.
    pub(super) async fn write_probes(&self) -> Result<(), RedisError> {
        let writes = self.partitions.all().map(|partition| {
            let mut keys = Self::keys(partition).to_vec();
            keys.push(partition.key("probe"));
            async move { self.link.probe(&self.scripts.probe, &keys).await }
        });
        future::try_join_all(writes).await.map(drop)
    }

    /// Tests whether Redis accepts writes and confirms them. Remembers the problem, so that the watch
    /// tests it again.
    pub(super) async fn find_write_problem(
        &self,
    ) -> Result<Option<RedisStartupWarning>, RedisError> {
        let problem = match self.write_probes().await {
            Ok(()) => self.probe_confirmation().await?,
            Err(error) => Some(refusal_warning(&error).ok_or(error)?),
        };
        self.write_problem().clone_from(&problem);
        Ok(problem)
    }

    fn write_problem(&self) -> MutexGuard<'_, Option<RedisStartupWarning>> {
        let problem = self.write_problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner)
    }

    /// Tests whether a write gets the confirmation that `catalog.redis.wait` asks for.
    async fn probe_confirmation(&self) -> Result<Option<RedisStartupWarning>, RedisError> {
        let Some(confirmed) = &self.confirmed else {
            return Ok(None);
        };
        let marker = Partition(0).key("probe");
        match confirmed.probe(&marker).await {
            Ok(is_confirmed) => Ok((!is_confirmed).then_some(RedisStartupWarning::Unconfirmed)),
            Err(error) => refusal_warning(&error).ok_or(error).map(Some),
        }
    }

    /// The stored number of partitions. If none is stored, this stores the configured number.
    pub(super) async fn stored_partitions_or_set(&self) -> Result<u16, RedisError> {
        let mut set = redis::cmd("SET");
        set.arg(PARTITIONS_KEY)
            .arg(self.partitions.count())
            .arg("NX");
        let mut get = redis::cmd("GET");
        get.arg(PARTITIONS_KEY);
        // The read comes first: a full Redis refuses writes, and usually the number is stored.
        let stored: Option<u16> = self.link.run(&get).await?;
        if let Some(stored) = stored {
            return Ok(stored);
        }
        self.link.run::<()>(&set).await?;
        self.link.run(&get).await
    }

    /// The stored number of partitions, if it differs from this process's number. Another process may
    /// store it while this one runs. This process would then look for subjects in the wrong
    /// partitions, so it refuses changes.
    pub(super) fn mismatched_partitions(&self) -> Option<u16> {
        let stored = self.stored_partitions.load(Ordering::Relaxed);
        (stored != self.partitions.count()).then_some(stored)
    }

    /// Refuses a change if the stored number of partitions differs from this process's number.
    ///
    /// # Errors
    /// [`Failure::Partitions`]
    pub(super) fn check_partition_count(&self) -> Result<(), Failure> {
        match self.mismatched_partitions() {
            Some(stored) => Err(Failure::Partitions { stored }),
            None => Ok(()),
        }
    }

    /// Stores the number of partitions again after a `FLUSHALL`, and collects the problems that an
    /// operator should fix.
    pub(super) async fn watch_server(&self) -> Result<Watched, CatalogError> {
        let failed = |error: RedisError| Failure::Redis(error).into_error("inspect its server");
        let stored = self.stored_partitions_or_set().await.map_err(failed)?;
        self.stored_partitions.store(stored, Ordering::Relaxed);
        let mut warnings = match self.link.inspect("", self.wait).await {
            Ok(warnings) => warnings,
            Err(error) => return Err(CatalogError::new("inspect its server", error)),
        };
        let clock_skew = self.link.clock_skew().await.map_err(failed)?;
        if is_skewed(clock_skew) {
            warnings.push(RedisStartupWarning::ClockSkew);
        }
        if let Some(stored) = self.mismatched_partitions() {
            let configured = self.partitions.count();
            warnings.push(RedisStartupWarning::Partitions { stored, configured });
        }
        // The server does not report this problem, so only a write shows whether it has ended.
        let had_problem = self.write_problem().is_some();
        if had_problem {
            warnings.extend(self.find_write_problem().await.map_err(failed)?);
        }
        Ok(Watched {
            warnings: warnings.iter().map(ToString::to_string).collect(),
            clock_skew: Some(clock_skew),
        })
    }
}

/// The reason why Redis refuses writes but may still be read; `None` for any other error.
fn degraded_reason(error: &RedisError) -> Option<&'static str> {
    Some(match error.code()? {
        "OOM" => "redis has reached its maxmemory: it accepts deletes and refuses uploads",
        "MISCONF" => "redis cannot write to its disk, and refuses changes",
        "NOREPLICAS" => {
            "redis has fewer replicas than its min-replicas-to-write, and refuses changes"
        }
        "READONLY" => "redis is a read-only replica, and refuses changes",
        "TRYAGAIN" => {
            "a slot of the redis cluster is being moved: some users cannot change their avatar"
        }
        _ => return None,
    })
}
