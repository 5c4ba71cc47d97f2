//! The settings, in three layers: the defaults, a file, the environment.
//!
//! The commented `config.toml` at the root of the repository is compiled in as the defaults. A file
//! overrides them, and environment variables override both. [`load`] returns a [`Config`] whose
//! values are checked, or all faults together.
//!
//! | file | task |
//! | --- | --- |
//! | `layers` | merges the layers, and refuses unknown keys |
//! | `reader` | reads one value by its key, and reports its fault |
//! | `read`, `adapters` | read every key into a [`Config`], and check keys against each other |
//! | `auth` | the settings of tokens, and how they are read |
//! | `moderation` | the settings of the check of pictures, and how they are read |
//! | `units`, `secret`, `redis`, `s3` | the types of values, and their checks |

mod adapters;
mod auth;
mod fault;
mod layers;
mod moderation;
mod read;
mod reader;
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
pub use auth::{Algorithm, Auth, ClaimRules, KeySet, KeySetLocation, PemFile, TokenIssuer};
pub use fault::{Fault, Faults};
pub use moderation::{Moderation, SigningSecret, WhenModerationIsDown};
pub use s3::{PublicAccess, S3Credentials, S3Settings};
pub use secrecy::{ExposeSecret, SecretString};
pub use units::Quota;

use crate::avatar::{Format, OriginalAccess, SourceFormat, VariantName};
use layers::Layers;

/// The text of `config.toml`: the defaults with their documentation.
pub const DEFAULTS: &str = include_str!("../../config.toml");

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether settings that are unsafe outside a developer's machine are refused.
    pub environment: Environment,
    /// The folder of the disk store, the embedded catalog and a generated secret.
    pub data_dir: PathBuf,
    /// Addresses, and who may call.
    pub http: Http,
    /// How tokens are verified.
    pub auth: Auth,
    /// The accepted pictures.
    pub upload: Upload,
    /// The renditions to make.
    pub images: Images,
    /// How much memory, time and how many threads processing may use.
    pub processing: Processing,
    /// The store of renditions.
    pub storage: Storage,
    /// The store of records.
    pub catalog: Catalog,
    /// Rate limits; `None` if they are switched off.
    pub limits: Option<Limits>,
    /// Deadlines, retention times and intervals.
    pub lifecycle: Lifecycle,
    /// How images are delivered.
    pub delivery: Delivery,
    /// Who may see avatars, and how their URLs are signed.
    pub access: AccessSettings,
    /// The check of pictures by another service; `None` if it is switched off.
    pub moderation: Option<Moderation>,
    /// What the program reports about itself.
    pub telemetry: Telemetry,
    /// Settings that work but that an operator should check.
    pub warnings: Vec<Fault>,
}

/// The kind of environment that the program runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// A developer's machine: the program generates a secret if none is set.
    Development,
    /// Everything else: generated secrets and unsafe defaults are refused.
    Production,
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct Http {
    /// The address to listen on.
    pub bind: SocketAddr,
    /// The URL under which clients reach this service, without a trailing slash.
    pub public_url: String,
    /// Origins whose pages may call the API from a browser.
    pub trusted_origins: Vec<String>,
    /// A separate address for `/metrics`; `None` if the main address serves it.
    pub metrics_bind: Option<SocketAddr>,
    /// Whether `/docs` and `/openapi.json` exist.
    pub docs: bool,
    /// Maximum number of open connections.
    pub max_connections: usize,
}

/// `[upload]`
#[derive(Clone, Debug)]
pub struct Upload {
    /// Maximum size of a picture in bytes.
    pub max_bytes: usize,
    /// Minimum width and height in pixels.
    pub min_edge_px: u32,
    /// Maximum width and height in pixels.
    pub max_edge_px: u32,
    /// Maximum number of frames of an animation.
    pub max_frames: u32,
    /// The accepted formats.
    pub formats: Vec<SourceFormat>,
}

/// `[images]`
#[derive(Clone, Debug)]
pub struct Images {
    /// Names and edge lengths in pixels, the largest first.
    pub variants: Vec<(VariantName, u32)>,
    /// The variant that `avatar_url` names.
    pub primary_variant: VariantName,
    /// The formats of renditions. There is at least one; the first is the primary format.
    pub formats: Vec<Format>,
    /// Quality of lossy WebP, 1 to 100.
    pub webp_quality: u8,
    /// Quality of JPEG, 1 to 100.
    pub jpeg_quality: u8,
    /// The colour behind transparent pixels where the format has no alpha: sRGB red, green, blue.
    pub background: [u8; 3],
    /// Whether animated uploads get animated renditions too.
    pub animated: bool,
    /// Who may see the originals that are kept; `None` if none are kept.
    pub original: Option<OriginalAccess>,
}

/// The place in which pictures are processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// In a separate process per picture, which has no rights.
    Process,
    /// On threads of the service.
    Thread,
}

/// `[processing]`
#[derive(Clone, Debug)]
pub struct Processing {
    /// The place in which pictures are processed.
    pub isolation: Isolation,
    /// Number of pictures that are processed at once; 0 means one per core.
    pub workers: usize,
    /// Memory in bytes for all bodies in memory and all pictures being decoded.
    pub memory_budget: u64,
    /// How long an upload waits for memory and a worker.
    pub queue_timeout: Duration,
    /// Time limit for processing one picture.
    pub deadline: Duration,
}

/// `[storage]`: the store, with its settings.
#[derive(Clone, Debug)]
pub enum Storage {
    /// A folder in `data_dir`.
    Disk,
    /// A bucket, and the base URL of its public objects if that is not the bucket's own (a CDN, for
    /// example).
    S3(Box<S3Settings>, Option<String>),
}

/// `[catalog]`: the catalog, with its settings.
#[derive(Clone, Debug)]
pub enum Catalog {
    /// A database file in `data_dir`.
    Embedded {
        /// Number of events that are kept.
        events_kept: u32,
    },
    /// Redis.
    Redis(Box<RedisSettings>),
}

impl Storage {
    /// The value of `storage.kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::S3(..) => "s3",
        }
    }
}

impl Catalog {
    /// The value of `catalog.kind`.
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
    /// Uploads by one service or admin, for all users together.
    pub service_upload: Quota,
    /// Deletes by one service or admin, for all users together.
    pub service_delete: Quota,
    /// How requests are limited while Redis does not answer.
    pub when_redis_is_down: WhenRedisIsDown,
}

/// How requests are limited while the Redis that counts them does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenRedisIsDown {
    /// Each replica counts its own requests.
    CountLocally,
    /// Limited requests are refused.
    Deny,
}

/// `[lifecycle]`
#[derive(Clone, Copy, Debug)]
pub struct Lifecycle {
    /// How long the objects of a replaced avatar stay readable.
    pub retire_after: Duration,
    /// Time after which the sweep removes the objects of an unfinished upload.
    pub upload_deadline: Duration,
    /// How long a complete upload is kept after its deadline if its commit is unknown.
    pub orphan_grace: Duration,
    /// Interval of the sweep.
    pub sweep_every: Duration,
    /// Maximum duration of a shutdown.
    pub drain: Duration,
}

/// `[delivery]`
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// How a request for an image is answered.
    pub mode: DeliveryMode,
    /// How long caches may keep such an answer.
    pub max_age: Duration,
    /// The image of a user who has no avatar, if a request does not say it.
    pub default: DefaultImage,
    /// Memory for records and images that are read often, in bytes.
    pub cache_bytes: u64,
    /// How old an answer from that memory may be while the changes of other replicas cannot be
    /// followed.
    pub cache_max_stale: Duration,
}

/// The image of a user who has no avatar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultImage {
    /// The initials of the name or of the user id.
    Initials,
    /// A pattern.
    Identicon,
    /// Head and shoulders.
    Silhouette,
    /// None: the answer is 404.
    NotFound,
}

/// The requests that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Every request.
    All,
    /// Changes, requests that fail, and slow requests.
    Changes,
    /// None.
    Nothing,
}

/// Who may see avatars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Anyone.
    Public,
    /// The bearer of any valid token.
    SignedIn,
    /// The owner, admins, services, and the viewers that a service adds.
    Private,
}

/// The part of `[delivery]` that says who may see avatars, and how their URLs are signed.
#[derive(Clone, Debug)]
pub struct AccessSettings {
    /// Who may see avatars.
    pub visibility: Visibility,
    /// How long a signed URL works.
    pub url_ttl: Duration,
    /// The secret that signs URLs; `None` if none is configured.
    pub url_secret: Option<SecretString>,
    /// Earlier secrets, whose signatures are still accepted.
    pub previous_url_secrets: Vec<SecretString>,
}

/// `[telemetry]`
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The file of audit records; `None` if they are only in the log.
    pub audit_file: Option<PathBuf>,
    /// The requests that are logged.
    pub access_log: AccessLog,
}

/// How a request for an image is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// With the bytes of the image.
    Proxy,
    /// With a redirect to the URL of the image.
    Redirect,
}

/// Loads the settings: `file` overrides the defaults, and `environment` overrides both. Variables
/// whose names do not begin with `CAMEO_` are ignored.
///
/// # Errors
/// All faults of all layers together, each with its key, the problem and the accepted values.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Faults> {
    check(file, environment, |_| Vec::new())
}

/// Loads the settings like [`load`], and also reports the faults that `probe` finds in the system.
/// `probe` returns pairs of a key and the problem of its value.
///
/// # Errors
/// Those of [`load`], and every fault that `probe` finds.
pub fn check(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    probe: impl FnOnce(&Config) -> Vec<(String, String)>,
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
        faults.push(Fault::new(layers.place(&path), problem));
    }
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Faults(faults)),
    }
}

#[cfg(test)]
mod tests;
