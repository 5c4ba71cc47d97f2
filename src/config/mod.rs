//! Settings: the commented `config.toml` of the repository's root is compiled in as the defaults,
//! a file may be laid over it, and the environment over both.
//!
//! [`load`] gives a [`Config`] that needs no further checking, or every fault at once.

mod adapters;
mod fault;
mod layers;
mod read;
mod redis;
mod s3;
mod secret;
mod units;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use self::redis::RedisForm;
pub use self::redis::{
    InvalidPartitions, InvalidRedisAddress, Partitions, RedisAddress, RedisConfirmation,
    RedisSettings,
};
pub use fault::{Fault, Faults};
pub use s3::{PublicAccess, S3Credentials, S3Settings};
pub use secrecy::{ExposeSecret, SecretString};
pub use units::Quota;

use crate::avatar::{Format, SourceFormat, VariantName};
use layers::Layers;

/// The commented defaults, as they stand in the repository.
pub const DEFAULTS: &str = include_str!("../../config.toml");

/// Every setting, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether conveniences that are unsafe outside a laptop are refused.
    pub environment: Environment,
    /// Where the folder store, the embedded catalog and a generated secret lie.
    pub data_dir: PathBuf,
    /// The address and its surroundings.
    pub http: Http,
    /// Who is believed.
    pub auth: Auth,
    /// What may come in.
    pub upload: Upload,
    /// What is made of it.
    pub images: Images,
    /// What that may take.
    pub processing: Processing,
    /// Where renditions lie.
    pub storage: Storage,
    /// Where records lie.
    pub catalog: Catalog,
    /// How often anyone may do what; `None` where limits are off.
    pub limits: Option<Limits>,
    /// How long things are kept.
    pub lifecycle: Lifecycle,
    /// How images are answered.
    pub delivery: Delivery,
    /// Settings that work and that an operator should still look at.
    pub warnings: Vec<Fault>,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// A laptop: a secret is generated where none is given.
    Development,
    /// Anywhere else.
    Production,
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct Http {
    /// The address to listen on.
    pub bind: SocketAddr,
    /// What the outside world calls this service, without a closing slash.
    pub public_url: String,
    /// Origins that browsers may call from.
    pub trusted_origins: Vec<String>,
    /// The address that `/metrics` has for itself; `None` where it is on the main one.
    pub metrics_bind: Option<SocketAddr>,
    /// Whether `/docs` and `/openapi.json` are answered.
    pub docs: bool,
    /// The most connections at once.
    pub max_connections: usize,
}

/// `[auth]`
#[derive(Clone, Debug)]
pub struct Auth {
    /// The HS256 secret; `None` where one is to be generated.
    pub jwt_secret: Option<SecretString>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must hold.
    pub audience: Option<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// The cookie that holds a token.
    pub cookie_name: String,
}

/// `[upload]`
#[derive(Clone, Debug)]
pub struct Upload {
    /// The most bytes of a picture.
    pub max_bytes: usize,
    /// The least width and height in pixels.
    pub min_edge_px: u32,
    /// The greatest width and height in pixels.
    pub max_edge_px: u32,
    /// The most frames of an animation.
    pub max_frames: u32,
    /// The formats taken.
    pub formats: Vec<SourceFormat>,
}

/// `[images]`
#[derive(Clone, Debug)]
pub struct Images {
    /// Names and edges in pixels, from the largest to the smallest.
    pub variants: Vec<(VariantName, u32)>,
    /// What `avatar_url` points to.
    pub primary_variant: VariantName,
    /// At least one; the first is the primary.
    pub formats: Vec<Format>,
    /// 1 to 100
    pub webp_quality: u8,
    /// 1 to 100
    pub jpeg_quality: u8,
    /// sRGB red, green, blue
    pub background: [u8; 3],
    /// Whether animated uploads give animated twins.
    pub animated: bool,
    /// Whether a master is kept.
    pub keep_master: bool,
}

/// `[processing]`
#[derive(Clone, Debug)]
pub struct Processing {
    /// Threads; 0 for one per core.
    pub workers: usize,
    /// Bytes for uploads held and pictures decoded, all together.
    pub memory_budget: u64,
    /// How long an upload waits for its turn.
    pub queue_timeout: Duration,
    /// How long one picture may take.
    pub deadline: Duration,
}

/// `[storage]`: which store, with what it needs.
#[derive(Clone, Debug)]
pub enum Storage {
    /// A folder in `data_dir`.
    Disk,
    /// A bucket, and what the public URLs of its objects begin with where that is not the bucket
    /// itself.
    S3(Box<S3Settings>, Option<String>),
}

/// `[catalog]`: which catalog, with what it needs.
#[derive(Clone, Debug)]
pub enum Catalog {
    /// A database file in `data_dir`.
    Embedded {
        /// How many events are kept.
        events_kept: u32,
    },
    /// Redis.
    Redis(Box<RedisSettings>),
}

impl Storage {
    /// The name in `storage.kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::S3(..) => "s3",
        }
    }
}

impl Catalog {
    /// The name in `catalog.kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "embedded",
            Self::Redis(_) => "redis",
        }
    }
}

/// `[limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Uploads of one user.
    pub upload: Quota,
    /// Deletes of one user.
    pub delete: Quota,
    /// Uploads of one service or admin, for all users together.
    pub service_upload: Quota,
    /// Deletes of one service or admin, for all users together.
    pub service_delete: Quota,
    /// What happens to attempts while a Redis that counts them does not answer.
    pub when_redis_is_down: WhenRedisIsDown,
}

/// What happens to attempts while a Redis that counts them does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenRedisIsDown {
    /// Every replica counts for itself.
    CountLocally,
    /// None is allowed.
    Deny,
}

/// `[lifecycle]`
#[derive(Clone, Copy, Debug)]
pub struct Lifecycle {
    /// How long a replaced avatar's URLs stay good.
    pub retire_after: Duration,
    /// After which an unfinished upload's objects are removed.
    pub upload_deadline: Duration,
    /// How long a complete upload whose commit is unknown is kept after its deadline.
    pub orphan_grace: Duration,
    /// How often what is due is removed.
    pub sweep_every: Duration,
    /// How long the end of the program may take.
    pub drain: Duration,
}

/// `[delivery]`
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// How an avatar asked for as an image is answered.
    pub mode: DeliveryMode,
    /// How long such an answer may be cached.
    pub max_age: Duration,
}

/// How an avatar asked for as an image is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// With its bytes.
    Proxy,
    /// With its URL.
    Redirect,
}

/// Puts the settings together: the defaults, `file` over them, `environment` over both; variables
/// that do not begin with `CAMEO_` are nobody's business here.
///
/// # Errors
/// Every fault of every layer at once, each with its key, what is wrong and what would be right.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Faults> {
    check(file, environment, |_| Vec::new())
}

/// Does the same as [`load`], and reports the faults that `probe` finds in the system together with
/// those of the settings. Each is a key and what is wrong with its value.
///
/// # Errors
/// As [`load`], and with every fault that `probe` finds.
pub fn check(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    probe: impl FnOnce(&Config) -> Vec<(&'static str, String)>,
) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let mut layers = Layers::of_defaults(&mut faults);
    if let Some(path) = file {
        match std::fs::read_to_string(path) {
            Ok(text) => layers.lay_file(path, &text, &mut faults),
            Err(error) => faults.push(Fault::of_file(path, format!("cannot be read: {error}"))),
        }
    }
    layers.lay_environment(environment, &mut faults);
    let config = read::config(&layers, &mut faults);
    for (path, problem) in config.as_ref().map(probe).unwrap_or_default() {
        faults.push(Fault::new(layers.place(path), problem));
    }
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Faults(faults)),
    }
}

#[cfg(test)]
mod tests;
