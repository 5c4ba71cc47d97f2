//! The connection to Redis, which the catalog and the rate limits share.
//!
//! - [`RedisLink`]: the connection. It reconnects by itself, and fails fast while Redis is down.
//! - `ConfirmedWrites`: writes that wait until the append-only file or a replica has them.
//! - `Partition`: spreads subjects so that a step touches one slot of a Cluster.
//! - [`RedisStartError`] and [`RedisStartupWarning`]: messages for the operator at startup.

mod confirmed;
mod link;
mod partitions;
mod startup;

pub(crate) use confirmed::{ConfirmError, ConfirmedWrites};
pub(crate) use link::RedisLink;
pub(crate) use link::Script;
pub(crate) use partitions::Partition;
pub(crate) use startup::is_skewed;
pub(crate) use startup::{RedisStartError, RedisStartupWarning};
