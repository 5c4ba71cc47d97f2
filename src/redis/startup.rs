//! What an operator needs to know of Redis: why it cannot be used, and what to see to.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};

use super::link::RedisLink;
use crate::config::RedisConfirmation;

/// The oldest Redis that works: an older one wraps the errors of scripts, so that a busy or full
/// server looks like a damaged record, and its scripts have no flags.
const MIN_VERSION: Version = Version(7, 0);
/// The oldest Redis with `WAITAOF`.
const MIN_VERSION_OF_WAITAOF: Version = Version(7, 2);
/// How far clocks may differ before an operator is warned.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Why Redis cannot be used, in one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum RedisStartError {
    /// Nobody answers there, or not yet.
    #[error(
        "redis at {address} is not reached; see that it runs and that catalog.redis.url is right"
    )]
    Unreachable {
        /// Where it was sought.
        address: String,
        /// What happened.
        #[source]
        source: RedisError,
    },
    /// It answers that it is not ready.
    #[error("redis at {address} is not ready yet")]
    NotReady {
        /// Where it is.
        address: String,
        /// What it answered.
        #[source]
        source: RedisError,
    },
    /// It wants a password, or another one.
    #[error(
        "redis at {address} refuses these credentials; set user and password in catalog.redis.url"
    )]
    Credentials {
        /// Where it is.
        address: String,
        /// What it answered.
        #[source]
        source: RedisError,
    },
    /// The user may not do what the catalog does.
    #[error(
        "redis at {address} denies this user a command or a key; grant it `~cameo:* +@all -@dangerous +info`"
    )]
    Permission {
        /// Where it is.
        address: String,
        /// What it answered.
        #[source]
        source: RedisError,
    },
    /// It is a replica.
    #[error(
        "redis at {address} is a read-only replica; name its master, or the sentinels that know it (redis+sentinel://)"
    )]
    ReadOnly {
        /// Where it is.
        address: String,
        /// What it answered.
        #[source]
        source: RedisError,
    },
    /// It belongs to a Cluster, but is spoken to as if it were alone.
    #[error(
        "redis at {address} is a node of a cluster; write redis+cluster:// in catalog.redis.url, or name several nodes"
    )]
    ClusterNode {
        /// Where it is.
        address: String,
    },
    /// The Sentinels do not know the name.
    #[error(
        "the sentinels at {address} know no master of this name; the last part of catalog.redis.url is the name in their `sentinel monitor`"
    )]
    UnknownMaster {
        /// Where they are.
        address: String,
        /// What they answered.
        #[source]
        source: RedisError,
    },
    /// The records there were written with another number of partitions.
    #[error(
        "the records in redis are spread over {stored} partitions; set catalog.redis.partitions = {stored}, it cannot be changed later"
    )]
    Partitions {
        /// With how many they were written.
        stored: u16,
    },
    /// Its version is too old.
    #[error(
        "redis at {address} has {version}, and 7.0 or later is needed: scripts of older versions have no flags and report errors in another form"
    )]
    TooOld {
        /// Where it is.
        address: String,
        /// What it reports of its version.
        version: String,
    },
    /// It has no `WAITAOF`.
    #[error(
        "redis at {address} has {version}, and catalog.redis.wait = \"aof\" needs 7.2 or later (WAITAOF); update it, or choose \"replica\" or \"none\""
    )]
    NoWaitaof {
        /// Where it is.
        address: String,
        /// What it reports of its version.
        version: String,
    },
    /// It has `WAITAOF`, but no append-only file.
    #[error(
        "redis at {address} writes no append-only file, which catalog.redis.wait = \"aof\" waits for; set appendonly yes"
    )]
    NoAof {
        /// Where it is.
        address: String,
    },
    /// It answers something that no other case names.
    #[error("redis at {address} does not do what the catalog needs of it")]
    Unsuitable {
        /// Where it is.
        address: String,
        /// What it answered.
        #[source]
        source: RedisError,
    },
}

impl RedisStartError {
    /// Sorts what the client reports.
    pub(crate) fn sort(address: &str, source: RedisError) -> Self {
        let address = address.to_string();
        match (source.kind(), source.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                Self::Credentials { address, source }
            }
            (ErrorKind::Server(ServerErrorKind::NoPerm), _) => Self::Permission { address, source },
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => Self::ReadOnly { address, source },
            (ErrorKind::Server(ServerErrorKind::Moved), _) => Self::ClusterNode { address },
            _ if says(&source, "compiling script") => {
                let version = "an unknown version without flags of scripts".to_owned();
                Self::TooOld { address, version }
            }
            _ if says(&source, "appendonly is disabled") => Self::NoAof { address },
            _ if says(&source, "unknown command") && says(&source, "WAITAOF") => {
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

    /// Whether waiting may help. Otherwise somebody has to change something.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotReady { .. })
    }
}

/// Whether the server's text of an error holds these words.
fn says(error: &RedisError, words: &str) -> bool {
    error.detail().is_some_and(|detail| detail.contains(words))
}

/// A problem of a Redis that can be used. The operator should see to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum RedisStartupWarning {
    /// It drops keys when its memory is full.
    #[error(
        "redis may drop records when its memory is full (maxmemory-policy {policy}); set it to noeviction"
    )]
    Evicts {
        /// The policy it has.
        policy: String,
    },
    /// It writes no append-only file.
    #[error(
        "redis loses what was written since its last snapshot, or all of it, when it dies; set appendonly yes"
    )]
    Forgets,
    /// No replica can confirm a change.
    #[error(
        "redis has no replica, and catalog.redis.wait = \"replica\" waits for one: every change is answered 503"
    )]
    NoReplica,
    /// It does not confirm what was written.
    #[error(
        "redis did not confirm a write within catalog.redis.wait_timeout; while it does not, every change is answered 503"
    )]
    Unconfirmed,
    /// It takes no write at present.
    #[error(
        "redis takes no uploads: it has reached its maxmemory, or cannot write to its disk; make room"
    )]
    Full,
    /// It takes no write at present, because too few replicas follow it.
    #[error(
        "redis takes no changes: fewer replicas follow it than its min-replicas-to-write asks for; add one, or lower that setting"
    )]
    FewReplicas,
    /// It does not tell its run id.
    #[error(
        "redis denies INFO to this user, so a restart or a failover that lost writes is not noticed, and versions may be given out again; allow it (ACL: +info)"
    )]
    DeniesInfo,
    /// Its clock and this machine's differ.
    #[error(
        "the clocks of this machine and of redis differ by more than {} s; let NTP set both",
        MAX_CLOCK_SKEW.as_secs()
    )]
    ClockSkew,
    /// The number of partitions was changed while this process runs.
    #[error(
        "the records in redis are now spread over {stored} partitions, and this process has catalog.redis.partitions = {configured}: it refuses changes; give every replica the same number and start it again"
    )]
    Partitions {
        /// The number that Redis holds.
        stored: u16,
        /// The number that this process was started with.
        configured: u16,
    },
}

impl RedisLink {
    /// Gives what the servers report about themselves that an operator should see to.
    ///
    /// # Errors
    /// Where a server is too old, or is a node of a Cluster that the address does not name as one.
    pub(crate) async fn inspect(
        &self,
        address: &str,
        wait: Option<RedisConfirmation>,
    ) -> Result<Vec<RedisStartupWarning>, RedisStartError> {
        let answers: Vec<String> = match self.ask_all(redis::cmd("INFO")).await {
            Ok(answers) => answers,
            // Some hosted servers deny INFO, or do not have it.
            Err(error) if is_denied(&error) => {
                for version in self.versions().await? {
                    version.check(address, wait)?;
                }
                return Ok(vec![RedisStartupWarning::DeniesInfo]);
            }
            Err(error) => return Err(RedisStartError::sort(address, error)),
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
            warnings.extend(concerns_of(fact, wait));
        }
        Ok(warnings.into_iter().collect())
    }

    /// The versions that the servers greet with; none where they do not say. Then the first script
    /// shows whether they are new enough: it has flags.
    async fn versions(&self) -> Result<Vec<Version>, RedisStartError> {
        let greetings: RedisResult<Vec<HashMap<String, redis::Value>>> =
            self.ask_all(redis::cmd("HELLO")).await;
        let greetings = greetings.unwrap_or_default();
        Ok(greetings
            .into_iter()
            .filter_map(|mut greeting| greeting.remove("version"))
            .filter_map(|version| redis::from_redis_value::<String>(version).ok())
            .filter_map(|version| Version::read(&version))
            .collect())
    }

    /// How far the clock of a server is ahead of this machine's, in seconds; of several servers the
    /// one that differs most. Half of the round trip may be wrong, and is not counted.
    ///
    /// # Errors
    /// Where a server does not answer.
    pub(crate) async fn clock_skew(&self) -> RedisResult<f64> {
        let (asked_at, asked) = (SystemTime::now(), Instant::now());
        let answers: Vec<(f64, f64)> = self.ask_all(redis::cmd("TIME")).await?;
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

/// How far a clock that showed `answer` (Unix time in seconds) is certainly ahead of this machine's,
/// where it was asked at `asked_at` and answered after `round_trip`.
fn skew(asked_at: SystemTime, round_trip: Duration, answer: f64) -> f64 {
    let asked_at = asked_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let half = round_trip.as_secs_f64() / 2.0;
    let ahead = answer - (asked_at.as_secs_f64() + half);
    ahead.signum() * (ahead.abs() - half).max(0.0)
}

/// Whether an operator should see to clocks that differ so much.
pub(crate) fn is_skewed(seconds: f64) -> bool {
    seconds.abs() > MAX_CLOCK_SKEW.as_secs_f64()
}

/// Whether the server does not let this client run the command, or does not have it.
fn is_denied(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) || says(error, "unknown command")
}

/// Major and minor.
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

fn concerns_of<'a>(
    fact: impl Fn(&'static str) -> &'a str,
    wait: Option<RedisConfirmation>,
) -> Vec<RedisStartupWarning> {
    let mut warnings = Vec::new();
    let policy = fact("maxmemory_policy");
    // Without a limit nothing is ever evicted, whatever the policy; a limit may come later.
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
    fn the_round_trip_is_no_skew() {
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
