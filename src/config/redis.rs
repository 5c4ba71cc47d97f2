//! The settings of Redis.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo};

/// How to reach Redis, and how the records are kept there.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// The address of Redis.
    pub address: RedisAddress,
    /// The number of partitions. It cannot be changed once there are records.
    pub partitions: Partitions,
    /// Approximate number of events that are kept, in all partitions together.
    pub events_kept: u32,
    /// The confirmation that a change needs before it is acknowledged; `None` if it needs none.
    pub wait: Option<RedisConfirmation>,
    /// How long a change waits for the confirmation. After that its outcome is unknown.
    pub wait_timeout: Duration,
}

/// The confirmation of a change before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisConfirmation {
    /// The master has written it to its append-only file (`WAITAOF`, Redis 7.2 or later).
    Aof,
    /// At least one replica has it in memory (`WAIT`).
    Replica,
}

impl RedisSettings {
    /// Number of events that each partition keeps, rounded up.
    pub const fn events_kept_in_each(&self) -> u32 {
        self.events_kept.div_ceil(self.partitions.count() as u32)
    }
}

/// The address of Redis, with the credentials.
///
/// | form | meaning |
/// | --- | --- |
/// | `redis://[user:password@]host[:port][/db]` | one server; `rediss://` with TLS, `unix:///path` a socket |
/// | `redis+sentinel://[user:password@]host[:port],…/master[/db]` | the master that these Sentinels know by this name; `?sentinel_password=` if they need a password |
/// | `redis://[user:password@]host[:port],…` | a Cluster, discovered from any of these nodes |
/// | `redis+cluster://[user:password@]host[:port]` | a Cluster, discovered from one node |
///
/// `Display` and `Debug` hide the user and the password.
#[derive(Clone)]
pub struct RedisAddress(pub(crate) RedisForm);

/// The forms of an address.
#[derive(Clone)]
pub(crate) enum RedisForm {
    Server(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: String,
        /// The settings of a connection to the master. The host in it is not used.
        node: ConnectionInfo,
        tls: bool,
    },
    Cluster(Vec<ConnectionInfo>),
}

/// A text is not an address of Redis. The error does not repeat the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedisAddress {
    /// It begins with none of the known schemes.
    #[error(
        "it begins with none of redis://, rediss://, unix://, redis+sentinel://, redis+cluster://"
    )]
    Scheme,
    /// The host, port, user, password or database cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It names Sentinels, but not the master.
    #[error(
        "it names no master: write redis+sentinel://host:26379,host:26379/NAME, as in the Sentinels' `sentinel monitor NAME`"
    )]
    NoMaster,
    /// It names a database of a Cluster, which has only one.
    #[error("it names a database, and a Cluster has only database 0")]
    ClusterDatabase,
}

impl FromStr for RedisAddress {
    type Err = InvalidRedisAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidRedisAddress::Scheme)?;
        let (plain, kind) = match scheme.split_once('+') {
            Some(("redis", "unix")) => ("unix", ""),
            Some((plain @ ("redis" | "rediss"), kind @ ("sentinel" | "cluster"))) => (plain, kind),
            None if matches!(scheme, "redis" | "rediss" | "unix") => (scheme, ""),
            _ => return Err(InvalidRedisAddress::Scheme),
        };
        if plain == "unix" {
            return Ok(Self(RedisForm::Server(read(&format!("unix:{rest}"))?)));
        }
        let rest = rest.strip_prefix("//").ok_or(InvalidRedisAddress::Scheme)?;
        let (nodes, path) = nodes(plain, rest)?;
        let form = match kind {
            "sentinel" => sentinel(plain, &nodes, path)?,
            "cluster" => cluster(&nodes, path)?,
            _ if nodes.len() > 1 => cluster(&nodes, path)?,
            _ => RedisForm::Server(read(&format!("{}/{path}", nodes[0]))?),
        };
        Ok(Self(form))
    }
}

/// Splits `[user:password@]host,host/path` into an address for each host, and the path.
fn nodes<'a>(scheme: &str, rest: &'a str) -> Result<(Vec<String>, &'a str), InvalidRedisAddress> {
    // A password may hold commas and slashes, so it ends at the last `@`.
    let (credentials, hosts) = rest.rsplit_once('@').unwrap_or(("", rest));
    let at = if credentials.is_empty() { "" } else { "@" };
    // Each host may repeat the scheme: `redis://a,redis://b`.
    let repeated = format!("{scheme}://");
    let hosts = hosts.replace(&repeated, "");
    let end = hosts.find(['/', '?', '#']).unwrap_or(hosts.len());
    let path = rest
        .get(rest.len() - (hosts.len() - end)..)
        .unwrap_or_default();
    let nodes: Vec<_> = hosts[..end]
        .split(',')
        .map(|host| format!("{scheme}://{credentials}{at}{}", host.trim()))
        .collect();
    if nodes.iter().any(|node| node.ends_with(['/', '@'])) {
        return Err(InvalidRedisAddress::Unreadable("a host is missing".into()));
    }
    Ok((nodes, path.strip_prefix('/').unwrap_or(path)))
}

fn read(address: &str) -> Result<ConnectionInfo, InvalidRedisAddress> {
    let unreadable = |error: redis::RedisError| {
        // Only the description is used. The detail may repeat the address with its password.
        let text = error.to_string();
        let text = text.split(" - ").next().unwrap_or_default();
        InvalidRedisAddress::Unreadable(text.to_lowercase())
    };
    address.into_connection_info().map_err(unreadable)
}

fn cluster(nodes: &[String], path: &str) -> Result<RedisForm, InvalidRedisAddress> {
    if !matches!(path, "" | "0") {
        return Err(InvalidRedisAddress::ClusterDatabase);
    }
    let nodes: Result<_, _> = nodes.iter().map(|node| read(node)).collect();
    Ok(RedisForm::Cluster(nodes?))
}

fn sentinel(scheme: &str, nodes: &[String], path: &str) -> Result<RedisForm, InvalidRedisAddress> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (master, database) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(InvalidRedisAddress::NoMaster);
    }
    let password = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("sentinel_password="));
    let as_sentinel = |node: &String| {
        // The credentials belong to the master. Sentinels have their own, or none.
        let host = node.rsplit_once('@').map_or_else(
            || {
                node.trim_start_matches("rediss://")
                    .trim_start_matches("redis://")
            },
            |(_, host)| host,
        );
        let host = if has_port(host) {
            host.to_owned()
        } else {
            format!("{host}:26379")
        };
        let credentials = password.map_or_else(String::new, |password| format!(":{password}@"));
        read(&format!("{scheme}://{credentials}{host}"))
    };
    let sentinels: Result<_, _> = nodes.iter().map(as_sentinel).collect();
    Ok(RedisForm::Sentinel {
        sentinels: sentinels?,
        master: master.to_owned(),
        node: read(&format!("{}/{database}", nodes[0]))?,
        tls: scheme == "rediss",
    })
}

/// Whether a host has a port. An IPv6 address is in brackets.
fn has_port(host: &str) -> bool {
    host.rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = |nodes: &[ConnectionInfo]| {
            for (at, node) in nodes.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                write!(f, "{comma}{}", node.addr())?;
            }
            Ok(())
        };
        match &self.0 {
            RedisForm::Server(node) => list(std::slice::from_ref(node)),
            RedisForm::Cluster(nodes) => list(nodes),
            RedisForm::Sentinel {
                sentinels, master, ..
            } => {
                list(sentinels)?;
                write!(f, "/{master}")
            }
        }
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of partitions of the subjects. All keys of a partition share a hash tag,
/// `cameo:{p07}:…`, and therefore one slot of a Cluster. So a script that uses the keys of one
/// partition is atomic everywhere.
///
/// The number is fixed when the first record is written. With another number, a subject would be
/// searched in the wrong partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(NonZeroU16);

/// The number of partitions is not between 1 and 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there can be 1 to 1024 partitions")]
pub struct InvalidPartitions;

impl Partitions {
    /// Checks the number.
    ///
    /// # Errors
    /// If it is 0, or above 1024.
    pub fn new(count: u16) -> Result<Self, InvalidPartitions> {
        match NonZeroU16::new(count) {
            Some(count) if count.get() <= 1024 => Ok(Self(count)),
            _ => Err(InvalidPartitions),
        }
    }

    /// The number of partitions.
    pub const fn count(self) -> u16 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedisAddress {
        text.parse().unwrap()
    }

    fn server(text: &str) -> ConnectionInfo {
        match parse(text).0 {
            RedisForm::Server(info) => info,
            _ => panic!("{text} is no single server"),
        }
    }

    #[test]
    fn one_host_means_one_server() {
        let info = server("redis://app:p%40ss@cache:6380/2");
        assert_eq!(info.addr().to_string(), "cache:6380");
        let redis = info.redis_settings();
        assert_eq!(redis.username(), Some("app"));
        assert_eq!(redis.password(), Some("p@ss"));
        assert_eq!(redis.db(), 2);
        assert_eq!(server("redis://cache").addr().to_string(), "cache:6379");
        assert_eq!(
            server("unix:///run/redis.sock").addr().to_string(),
            "/run/redis.sock"
        );
        assert_eq!(server("redis://[::1]:7000").addr().to_string(), "::1:7000");
    }

    #[test]
    fn several_hosts_or_the_cluster_scheme_mean_a_cluster() {
        for (text, shown) in [
            ("redis://:pw@a:7000,b:7001,c", "a:7000,b:7001,c:6379"),
            ("redis://a:7000,redis://b:7001", "a:7000,b:7001"),
            ("redis+cluster://a:7000", "a:7000"),
            ("rediss+cluster://u:p@a:7000/0", "a:7000"),
        ] {
            let address = parse(text);
            assert!(matches!(address.0, RedisForm::Cluster(_)), "{text}");
            assert_eq!(address.to_string(), shown);
        }
        let RedisForm::Cluster(nodes) = parse("redis://u:p,w@a,b").0 else {
            panic!("no cluster")
        };
        assert_eq!(nodes[1].redis_settings().password(), Some("p,w"));
    }

    #[test]
    fn sentinels_name_a_master_and_have_a_password_of_their_own() {
        let address = parse("redis+sentinel://u:p@s1,s2:26380/main/3?sentinel_password=watch");
        assert_eq!(address.to_string(), "s1:26379,s2:26380/main");
        let RedisForm::Sentinel {
            sentinels, node, ..
        } = address.0
        else {
            panic!("no sentinel")
        };
        assert_eq!(sentinels[0].redis_settings().password(), Some("watch"));
        assert_eq!(sentinels[0].redis_settings().username(), None);
        assert_eq!(node.redis_settings().password(), Some("p"));
        assert_eq!(node.redis_settings().db(), 3);
    }

    #[test]
    fn a_text_that_is_not_an_address_is_refused_without_repeating_it() {
        use InvalidRedisAddress::{ClusterDatabase, NoMaster, Scheme, Unreadable};
        for (text, expected) in [
            ("localhost:6379", Scheme),
            ("http://secret@a", Scheme),
            ("redis+sentinel://secret@a,b", NoMaster),
            ("redis://secret@a,b/2", ClusterDatabase),
            ("redis://", Unreadable("a host is missing".into())),
            ("redis://a,,b", Unreadable("a host is missing".into())),
        ] {
            assert_eq!(
                text.parse::<RedisAddress>().unwrap_err(),
                expected,
                "{text}"
            );
        }
        let error = "redis://:secret@a/x".parse::<RedisAddress>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "it cannot be read: invalid database number"
        );
        assert!(!format!("{:?}", parse("redis://:secret@a")).contains("secret"));
    }

    #[test]
    fn there_is_at_least_one_partition() {
        assert_eq!(Partitions::new(0), Err(InvalidPartitions));
        assert_eq!(Partitions::new(1025), Err(InvalidPartitions));
        assert_eq!(Partitions::new(1024).unwrap().count(), 1024);
    }
}
