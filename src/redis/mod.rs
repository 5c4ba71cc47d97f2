//! Redis, as the replicas of a fleet share it: one connection, under the catalog and the limits.
//!
//! - [`RedisAddress`]: where Redis is, one server, a Sentinel group or a Cluster by its form.
//! - [`RedisLink`]: the connection, which comes back by itself and fails fast while it cannot.
//! - [`Partitions`]: how subjects are spread, so that a step touches one slot of a Cluster.
//! - [`RedisStartError`] and [`RedisConcern`]: what an operator is told at startup.

mod address;
mod link;
mod partitions;
mod startup;
#[cfg(test)]
pub(crate) mod testing;

pub use address::{InvalidRedisAddress, RedisAddress};
pub use link::RedisLink;
pub(crate) use link::Script;
pub(crate) use partitions::Partition;
pub use partitions::{InvalidPartitions, Partitions};
pub use startup::{RedisConcern, RedisStartError};
