//! What an operator is told of Redis at startup.

use std::collections::HashMap;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::link::RedisLink;

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
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotReady { .. })
    }
}

/// What holds of a Redis that can be used, but should not be relied on as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisConcern {
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
}

impl RedisLink {
    /// What its servers say of themselves that an operator should know.
    ///
    /// # Errors
    /// Where a server is a replica, or a node of a Cluster that the address does not name as one.
    pub(crate) async fn inspect(
        &self,
        address: &str,
    ) -> Result<Vec<RedisConcern>, RedisStartError> {
        let answers = self.ask_all(redis::cmd("INFO")).await;
        let answers = match answers {
            Ok(answers) => answers,
            // Some hosted servers keep INFO to themselves; then there is nothing to warn of.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Vec::new(),
            Err(error) => return Err(RedisStartError::sort(address, error)),
        };
        let mut concerns = Vec::new();
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
            for concern in concerns_of(fact) {
                if !concerns.contains(&concern) {
                    concerns.push(concern);
                }
            }
        }
        Ok(concerns)
    }
}

fn concerns_of<'a>(fact: impl Fn(&'static str) -> &'a str) -> Vec<RedisConcern> {
    let mut concerns = Vec::new();
    let policy = fact("maxmemory_policy");
    // Without a limit nothing is ever evicted, whatever the policy; a limit may come later.
    if !matches!(policy, "noeviction" | "") {
        let policy = policy.to_owned();
        concerns.push(RedisConcern::Evicts { policy });
    }
    if fact("aof_enabled") == "0" {
        concerns.push(RedisConcern::Forgets);
    }
    concerns
}
