//! Redis, as the replicas of a fleet share it: one connection, under the catalog and the limits.
//!
//! - [`RedisLink`]: the connection, which comes back by itself and fails fast while it cannot.
//! - `ConfirmedWrites`: writes that the append-only file or a replica has before they are answered.
//! - `Partition`: how subjects are spread, so that a step touches one slot of a Cluster.
//! - [`RedisStartError`] and [`RedisStartupWarning`]: what an operator is told at startup.

mod confirmed;
mod link;
mod partitions;
mod startup;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use confirmed::{ConfirmError, ConfirmedWrites};
pub use link::RedisLink;
pub(crate) use link::Script;
pub(crate) use partitions::Partition;
pub(crate) use startup::is_skewed;
pub use startup::{RedisStartError, RedisStartupWarning};
