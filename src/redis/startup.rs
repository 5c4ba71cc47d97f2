//! Messages about Redis for an operator: errors that prevent a start, and warnings.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};

use super::link::RedisLink;
use crate::config::RedisConfirmation;

/// The oldest Redis that works. The scripts of an older one have no flags. It also wraps the errors of
/// scripts, so that an error of a busy or full server looks like a damaged record.
const MIN_VERSION: Version = Version(7, 0);
/// The oldest Redis with `WAITAOF`.
const MIN_VERSION_OF_WAITAOF: Version = Version(7, 2);
/// The largest difference of clocks without a warning.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Redis cannot be used. Each message is one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum RedisStartError {
    /// There is no answer, or not yet.
    #[error(
        "redis at {address} is not reached; check that it runs and that catalog.redis.url is right"
    )]
    Unreachable {
        /// The configured address.
        address: String,
        /// The client's error.
        #[source]
        source: RedisError,
    },
    /// Redis answers that it is not ready.
    #[error("redis at {address} is not ready yet")]
    NotReady {
        /// The server's address.
        address: String,
        /// The server's answer.
        #[source]
        source: RedisError,
    },
    /// Redis needs a password, or another one.
    #[error(
        "redis at {address} refuses these credentials; set user and password in catalog.redis.url"
    )]
    Credentials {
        /// The server's address.
        address: String,
        /// The server's answer.
        #[source]
        source: RedisError,
    },
    /// The user lacks a permission that the catalog needs.
    #[error(
        "redis at {address} denies this user a command or a key; grant it `~cameo:* +@all -@dangerous +info`"
    )]
    Permission {
        /// The server's address.
        address: String,
        /// The server's answer.
        #[source]
        source: RedisError,
    },
    /// The server is a replica.
    #[error(
        "redis at {address} is a read-only replica; name its master, or the sentinels that know it (redis+sentinel://)"
    )]
    ReadOnly {
        /// The server's address.
        address: String,
        /// The server's answer.
        #[source]
        source: RedisError,
    },
    /// The server belongs to a Cluster, but the address names a single server.
    #[error(
        "redis at {address} is a node of a cluster; write redis+cluster:// in catalog.redis.url, or name several nodes"
    )]
    ClusterNode {
        /// The server's address.
        address: String,
    },
    /// The Sentinels do not know the name.
    #[error(
        "the sentinels at {address} know no master of this name; the last part of catalog.redis.url is the name in their `sentinel monitor`"
    )]
    UnknownMaster {
        /// The Sentinels' addresses.
        address: String,
        /// Their answer.
        #[source]
        source: RedisError,
    },
    /// The stored records have another number of partitions.
    #[error(
        "the records in redis are spread over {stored} partitions; set catalog.redis.partitions = {stored}, because the number cannot be changed later"
    )]
    Partitions {
        /// The stored number.
        stored: u16,
    },
    /// The server's version is too old.
    #[error(
        "redis at {address} has {version}, and 7.0 or later is needed: scripts of older versions have no flags and report errors in another form"
    )]
    TooOld {
        /// The server's address.
        address: String,
        /// The version that the server reports.
        version: String,
    },
    /// The server has no `WAITAOF`.
    #[error(
        "redis at {address} has {version}, and catalog.redis.wait = \"aof\" needs 7.2 or later (WAITAOF); update it, or choose \"replica\" or \"none\""
    )]
    NoWaitaof {
        /// The server's address.
        address: String,
        /// The version that the server reports.
        version: String,
    },
    /// The server has `WAITAOF`, but no append-only file.
    #[error(
        "redis at {address} writes no append-only file, which catalog.redis.wait = \"aof\" waits for; set appendonly yes"
    )]
    NoAof {
        /// The server's address.
        address: String,
    },
    /// Any other error.
    #[error("redis at {address} failed in a way that the catalog cannot handle")]
    Unsuitable {
        /// The server's address.
        address: String,
        /// The server's answer.
        #[source]
        source: RedisError,
    },
}

impl RedisStartError {
    /// Maps an error of the client to a case that says what to change.
    pub(crate) fn from_redis(address: &str, source: RedisError) -> Self {
        let address = address.to_string();
        match (source.kind(), source.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                Self::Credentials { address, source }
            }
            (ErrorKind::Server(ServerErrorKind::NoPerm), _) => Self::Permission { address, source },
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => Self::ReadOnly { address, source },
            (ErrorKind::Server(ServerErrorKind::Moved), _) => Self::ClusterNode { address },
            _ if message_contains(&source, "compiling script") => {
                let version = "an unknown version without script flags".to_owned();
                Self::TooOld { address, version }
            }
            _ if message_contains(&source, "appendonly is disabled") => Self::NoAof { address },
            _ if message_contains(&source, "unknown command")
                && message_contains(&source, "WAITAOF") =>
            {
                let version = "an unknown version without WAITAOF".to_owned();
                Self::NoWaitaof { address, version }
            }
            (ErrorKind::MasterNameNotFoundBySentinel, _) => Self::UnknownMaster { address, source },
            (
                ErrorKind::Server(
                    ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::TryAgain,
                ),
                _,
            ) => Self::NotReady { address, source },
            (ErrorKind::Io | ErrorKind::ClusterConnectionNotFound, _) => {
                Self::Unreachable { address, source }
            }
            _ => Self::Unsuitable { address, source },
        }
    }

    /// Whether waiting may help. Otherwise an operator has to change something.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotReady { .. })
    }
}

/// Whether the server's error message contains these words.
fn message_contains(error: &RedisError, words: &str) -> bool {
    error.detail().is_some_and(|detail| detail.contains(words))
}

/// A problem of a usable Redis. The operator should fix it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum RedisStartupWarning {
    /// Redis evicts keys when its memory is full.
    #[error(
        "redis may drop records when its memory is full (maxmemory-policy {policy}); set it to noeviction"
    )]
    Evicts {
        /// The server's policy.
        policy: String,
    },
    /// Redis writes no append-only file.
    #[error(
        "redis loses all writes since its last snapshot when it dies, or everything without snapshots; set appendonly yes"
    )]
    Forgets,
    /// No replica can confirm a change.
    #[error(
        "redis has no replica, and catalog.redis.wait = \"replica\" waits for one: every change is answered 503"
    )]
    NoReplica,
    /// Redis does not confirm a write in time.
    #[error(
        "redis did not confirm a write within catalog.redis.wait_timeout; while it does not, every change is answered 503"
    )]
    Unconfirmed,
    /// Redis refuses writes because it has no space.
    #[error(
        "redis refuses uploads: it has reached its maxmemory, or cannot write to its disk; free space"
    )]
    Full,
    /// Redis refuses writes because it has too few replicas.
    #[error(
        "redis refuses changes: it has fewer replicas than its min-replicas-to-write requires; add one, or lower that setting"
    )]
    FewReplicas,
    /// Redis does not report its run id.
    #[error(
        "redis denies INFO to this user, so a restart or failover that lost writes is not detected, and versions may be given out twice; allow it (ACL: +info)"
    )]
    DeniesInfo,
    /// The clocks of Redis and this machine differ.
    #[error(
        "the clocks of this machine and of redis differ by more than {} s; let NTP set both",
        MAX_CLOCK_SKEW.as_secs()
    )]
    ClockSkew,
    /// The number of partitions changed while this process runs.
    #[error(
        "the records in redis are now spread over {stored} partitions, and this process has catalog.redis.partitions = {configured}: it refuses changes; give every replica the same number and restart it"
    )]
    Partitions {
        /// The stored number.
        stored: u16,
        /// The number that this process was started with.
        configured: u16,
    },
}

impl RedisLink {
    /// Reads the servers' own reports, and returns the problems that an operator should fix.
    ///
    /// # Errors
    /// If a server is too old, or belongs to a Cluster that the address does not name as a Cluster.
    pub(crate) async fn inspect(
        &self,
        address: &str,
        wait: Option<RedisConfirmation>,
    ) -> Result<Vec<RedisStartupWarning>, RedisStartError> {
        let answers: Vec<String> = match self.query_all(redis::cmd("INFO")).await {
            Ok(answers) => answers,
            // Some hosted servers deny INFO or do not have it.
            Err(error) if is_denied(&error) => {
                for version in self.versions().await? {
                    version.check(address, wait)?;
                }
                return Ok(vec![RedisStartupWarning::DeniesInfo]);
            }
            Err(error) => return Err(RedisStartError::from_redis(address, error)),
        };
        let mut warnings = BTreeSet::new();
        for answer in &answers {
            let facts: HashMap<_, _> = answer
                .lines()
                .filter_map(|line| line.split_once(':'))
                .collect();
            let fact = |name| facts.get(name).copied().unwrap_or_default();
            if fact("cluster_enabled") == "1" && !self.is_cluster() {
                let address = address.to_owned();
                return Err(RedisStartError::ClusterNode { address });
            }
            // Valkey reports the Redis that it is compatible with.
            if let Some(version) = Version::read(fact("redis_version")) {
                version.check(address, wait)?;
            }
            warnings.extend(warnings_of(fact, wait));
        }
        Ok(warnings.into_iter().collect())
    }

    /// The versions in the servers' answers to `HELLO`; empty if they do not report them. In that case
    /// the first script shows whether a server is new enough, because it has flags.
    async fn versions(&self) -> Result<Vec<Version>, RedisStartError> {
        let greetings: RedisResult<Vec<HashMap<String, redis::Value>>> =
            self.query_all(redis::cmd("HELLO")).await;
        let greetings = greetings.unwrap_or_default();
        Ok(greetings
            .into_iter()
            .filter_map(|mut greeting| greeting.remove("version"))
            .filter_map(|version| redis::from_redis_value::<String>(version).ok())
            .filter_map(|version| Version::read(&version))
            .collect())
    }

    /// How far the clock of a server is ahead of this machine's clock, in seconds. Of several servers
    /// it is the largest difference. The result is uncertain by half of the round trip, and is reduced
    /// by that.
    ///
    /// # Errors
    /// If a server does not answer.
    pub(crate) async fn clock_skew(&self) -> RedisResult<f64> {
        let (asked_at, asked) = (SystemTime::now(), Instant::now());
        let answers: Vec<(f64, f64)> = self.query_all(redis::cmd("TIME")).await?;
        let round_trip = asked.elapsed();
        let skews = answers
            .into_iter()
            .map(|(seconds, micros)| skew(asked_at, round_trip, seconds + micros / 1e6));
        Ok(skews.fold(0.0, |most, skew| {
            if f64::abs(skew) > f64::abs(most) {
                skew
            } else {
                most
            }
        }))
    }
}

/// How far a clock is certainly ahead of this machine's clock, in seconds. It returned `answer` (Unix
/// time in seconds) to a query that was sent at `asked_at` and took `round_trip`.
fn skew(asked_at: SystemTime, round_trip: Duration, answer: f64) -> f64 {
    let asked_at = asked_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let half = round_trip.as_secs_f64() / 2.0;
    let ahead = answer - (asked_at.as_secs_f64() + half);
    ahead.signum() * (ahead.abs() - half).max(0.0)
}

/// Whether a difference of clocks is large enough for a warning.
pub(crate) fn is_skewed(seconds: f64) -> bool {
    seconds.abs() > MAX_CLOCK_SKEW.as_secs_f64()
}

/// Whether the server denies the command to this client, or does not have it.
fn is_denied(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || message_contains(error, "unknown command")
}

/// A major and a minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next().map_or(Some(0), |minor| minor.parse().ok())?;
        Some(Self(major, minor))
    }

    fn check(self, address: &str, wait: Option<RedisConfirmation>) -> Result<(), RedisStartError> {
        let (address, version) = (address.to_owned(), format!("version {self}"));
        if self < MIN_VERSION {
            Err(RedisStartError::TooOld { address, version })
        } else if wait == Some(RedisConfirmation::Aof) && self < MIN_VERSION_OF_WAITAOF {
            Err(RedisStartError::NoWaitaof { address, version })
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The warnings about a server. `fact` returns a field of its `INFO`.
fn warnings_of<'a>(
    fact: impl Fn(&'static str) -> &'a str,
    wait: Option<RedisConfirmation>,
) -> Vec<RedisStartupWarning> {
    let mut warnings = Vec::new();
    let policy = fact("maxmemory_policy");
    // Without a memory limit Redis evicts nothing, but an operator may set a limit later.
    if !matches!(policy, "noeviction" | "") {
        let policy = policy.to_owned();
        warnings.push(RedisStartupWarning::Evicts { policy });
    }
    if fact("aof_enabled") == "0" {
        warnings.push(RedisStartupWarning::Forgets);
    }
    if wait == Some(RedisConfirmation::Replica) && fact("connected_slaves") == "0" {
        warnings.push(RedisStartupWarning::NoReplica);
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let read = |text| Version::read(text).unwrap();
        assert!(read("6.2.14") < MIN_VERSION);
        assert!(read("7.0.15") >= MIN_VERSION && read("7.0.15") < MIN_VERSION_OF_WAITAOF);
        assert!(read("7.2.4") >= MIN_VERSION_OF_WAITAOF);
        assert!(read("7.10.0") >= MIN_VERSION_OF_WAITAOF && read("10.0") > MIN_VERSION);
        assert_eq!(Version::read("8"), Some(Version(8, 0)));
        assert_eq!(Version::read("unstable"), None);
    }

    #[test]
    fn the_round_trip_does_not_count_as_skew() {
        let asked_at = UNIX_EPOCH + Duration::from_secs(1000);
        let trip = Duration::from_secs(2);
        for answer in [1000.0, 1001.0, 1002.0] {
            assert!(skew(asked_at, trip, answer).abs() < 1e-6);
        }
        assert!((skew(asked_at, trip, 1012.0) - 10.0).abs() < 1e-6);
        assert!((skew(asked_at, trip, 990.0) + 10.0).abs() < 1e-6);
        assert!(is_skewed(-5.1) && !is_skewed(4.9));
    }
}
