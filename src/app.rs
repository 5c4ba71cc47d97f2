//! The composition root: opens what the configuration names, and combines the parts into an [`App`].
//!
//! This is the only file that chooses adapters. No other part knows which store, catalog or limiter it
//! uses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cameo_imaging::{self as imaging, Recipe, Target};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::access::{self, Access};
use crate::audit::{self, AuditFileError, AuditLog};
use crate::auth::{FixedKeys, InvalidKeys, IssuerKeys, RemoteKeys, Verifier};
use crate::avatar::SourceFormat;
use crate::catalog::{self, EmbeddedCatalog, MeteredCatalog, RedisCatalog};
use crate::command_socket::CommandSocket;
use crate::config::{
    Catalog, Config, DeliveryMode, Environment, Isolation, Partitions, PublicAccess, SecretString,
    Storage, Visibility,
};
use crate::data_folder;
use crate::http::{self, Needed, Readiness, Startup};
use crate::jail::{Program, Workers};
use crate::limits::{Limiter, LocalLimiter, RedisLimiter};
use crate::moderation::{HttpModerator, ModerationError};
use crate::private_files;
use crate::redis::{RedisLink, RedisStartError};
use crate::service::{self, Moderation, Service, Settings};
use crate::storage::{
    self, DiskStore, MeteredStore, RetryPolicy, RetryingStore, S3StartError, S3Store,
};
use crate::telemetry::{Metrics, chain};
use crate::waiting::{Pauses, Waiting, open_when_up};

/// The limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum number of open connections. The system's limit of open files may lower it.
    pub max_connections: usize,
    /// Maximum duration of a shutdown.
    pub drain: Duration,
}

impl Bounds {
    /// The limits that the configuration sets.
    pub fn of(config: &Config) -> Self {
        Self {
            max_connections: config.http.max_connections,
            drain: config.lifecycle.drain,
        }
    }
}

/// The program, ready to serve.
pub struct App {
    /// Uploads, reads and deletes.
    pub service: Arc<Service>,
    /// The state of the HTTP handlers.
    pub http: http::AppState,
    /// The rate limits; `None` if they are switched off.
    pub limiter: Option<Arc<dyn Limiter>>,
    /// Where audit records go.
    pub(crate) audit: AuditLog,
    /// The keys that identity providers publish. Each needs a task that keeps it up to date.
    pub key_sets: Vec<Arc<RemoteKeys>>,
    /// The interval of the sweep.
    pub sweep_every: Duration,
    /// The listener of `/metrics`, if it has an address of its own.
    pub metrics: Option<TcpListener>,
    /// The socket for commands; `None` with Redis, which commands can use at the same time.
    pub commands: Option<CommandSocket>,
    /// Whether the program is shutting down, and when its readiness was last probed.
    pub readiness: Arc<Readiness>,
    /// The limits of the server.
    pub bounds: Bounds,
}

impl App {
    /// Opens what the configuration names, and combines the parts. If a bucket or Redis does not
    /// answer, this waits until it does; drop the future to stop waiting. `secret` is the
    /// secret of the issuer in `[auth]`, if it has one. `zygote` starts the processes that pictures
    /// are processed in.
    ///
    /// # Errors
    /// If the address of the metrics is in use, or if the data folder, the store or the catalog cannot
    /// be opened, or if pictures cannot be processed as configured. [`is_configuration`] says whether
    /// an operator has to change a setting.
    pub async fn open(
        config: &Config,
        secret: Option<&SecretString>,
        zygote: &Program,
    ) -> anyhow::Result<Self> {
        Self::open_noting(config, secret, zygote, &Startup::default()).await
    }

    /// Opens an app like [`open`](Self::open), and notes in `startup` what it waits for.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub async fn open_noting(
        config: &Config,
        secret: Option<&SecretString>,
        zygote: &Program,
        startup: &Startup,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        // A wrong key or address is reported at once, before the app waits for anything.
        let (verifier, key_sets) = open_verifier(config, secret, &metrics)?;
        let moderation = open_moderation(config)?;
        let audit = AuditLog::open(config.telemetry.audit_file.as_deref(), &metrics)?;
        let metrics_listener = match config.http.metrics_bind {
            Some(address) => Some(listen("http.metrics_bind", address).await?),
            None => None,
        };
        // The catalog is opened first. If another process has the embedded one open, the store of
        // that process is not touched.
        let catalog = open_catalog(config, Waiting::UntilItIsUp).await?;
        startup.waits_for(Needed::Store);
        let store = open_store(config, Waiting::UntilItIsUp, &metrics).await?;
        startup.waits_for(Needed::Catalog);
        for warning in &store.warnings {
            warn!("{warning}");
        }
        info!("{}", store.summary);
        info!("{}", catalog.summary);
        let redis = catalog.redis.clone();
        let warnings = catalog.warnings.clone();
        let access = access_rules(config, &store)?;
        let workers = open_workers(config, zygote, &metrics).await?;
        for warning in &workers.warnings {
            warn!("{warning}");
        }
        info!("{}", workers.summary);
        let service = combine(config, store, catalog, workers, &metrics);
        let service = Arc::new(service.moderated_by(moderation));
        service.report_startup_warnings(warnings);
        let mut pauses = Pauses::new();
        let lost = loop {
            match service.initialize_catalog().await {
                // Redis failed while this waited for the store. It is opened again like at first,
                // which waits for it or reports why it cannot be used.
                Err(service::Error::Catalog(error)) if redis.is_some() => {
                    pauses.pause_after("catalog", &error).await;
                    open_catalog(config, Waiting::UntilItIsUp).await?;
                }
                initialized => break initialized?,
            }
        };
        if lost {
            warn!(
                "the catalog is empty, but the store holds avatars; `cameo rebuild` restores them"
            );
        }
        warn_about_records(&service).await;
        let commands = match redis {
            Some(_) => None,
            None => CommandSocket::listen_or_warn(&config.data_dir),
        };
        let limiter: Option<Arc<dyn Limiter>> = match (config.limits, redis) {
            (None, _) => None,
            (Some(limits), None) => Some(Arc::new(LocalLimiter::new(limits))),
            (Some(limits), Some((link, partitions))) => {
                Some(Arc::new(RedisLimiter::new(link, partitions, limits)))
            }
        };
        let readiness = Arc::<Readiness>::default();
        let http = http::AppState::new(http::Parts {
            service: Arc::clone(&service),
            access,
            verifier,
            limiter: limiter.clone(),
            cookie_name: config.auth.cookie_name.clone(),
            trusted_origins: trusted_origins(config),
            delivery: config.delivery,
            primary_variant: config.images.primary_variant.clone(),
            images: http::ImageDefaults {
                variants: config.images.variants.clone(),
                primary: config.images.primary_variant.clone(),
                default: config.delivery.default,
            },
            access_log: config.telemetry.access_log,
            docs: config.http.docs,
            metrics,
            audit: audit.clone(),
            metrics_at: match metrics_listener {
                Some(_) => http::MetricsAt::ItsOwn,
                None => http::MetricsAt::Main,
            },
            readiness: Arc::clone(&readiness),
        });
        let sweep_every = config.lifecycle.sweep_every;
        Ok(Self {
            service,
            http,
            limiter,
            audit,
            key_sets,
            sweep_every,
            metrics: metrics_listener,
            commands,
            readiness,
            bounds: Bounds::of(config),
        })
    }
}

/// Compares the first records with the store and the configuration, and warns of differences.
async fn warn_about_records(service: &Service) {
    if service.has_misplaced_avatars().await.unwrap_or_default() {
        warn!(
            "some avatars were uploaded under another delivery.access; `cameo reprocess` moves \
             their images"
        );
    }
    let compared = async {
        service.check_first_records().await?;
        service.find_losses().await
    };
    if let Err(error) = compared.await {
        warn!(
            error = %chain(&error),
            "the records could not be compared with the store; a sweep compares them later"
        );
    }
}

/// Makes the verifier of the tokens of all configured issuers, and the key sets that it uses. A key
/// set is empty until its task runs.
///
/// # Errors
/// If a configured key or certificate cannot be used.
fn open_verifier(
    config: &Config,
    secret: Option<&SecretString>,
    metrics: &Metrics,
) -> Result<(Verifier, Vec<Arc<RemoteKeys>>), InvalidKeys> {
    let auth = &config.auth;
    let mut key_sets = Vec::new();
    let mut keys_of = |issuer, secret| {
        let fixed = FixedKeys::of(issuer, secret)?;
        let remote = RemoteKeys::of(issuer, metrics)?;
        key_sets.extend(remote.clone());
        Ok(IssuerKeys { fixed, remote })
    };
    let mut verifier = Verifier::new(&auth.main, keys_of(&auth.main, secret)?);
    for issuer in &auth.further {
        verifier = verifier.and(issuer, keys_of(issuer, None)?);
    }
    Ok((verifier, key_sets))
}

/// The moderation of pictures that the configuration names.
///
/// # Errors
/// If its HTTP client cannot be made.
fn open_moderation(config: &Config) -> Result<Option<Moderation>, ModerationError> {
    let Some(settings) = &config.moderation else {
        return Ok(None);
    };
    Ok(Some(Moderation {
        moderator: Arc::new(HttpModerator::new(settings)?),
        when_down: settings.when_down,
    }))
}

/// The access rules that the configuration sets, with the links that its store can make.
fn access_rules(config: &Config, store: &OpenStore) -> anyhow::Result<Access> {
    let public_url = config.http.public_url.clone();
    let access = Access::public(config.environment, store.objects_url.clone(), public_url);
    let settings = &config.access;
    if settings.visibility == Visibility::Public {
        return Ok(access);
    }
    let ttl = settings.url_ttl;
    let secret = data_folder::url_secret(config)?;
    let previous = &settings.previous_url_secrets;
    let access = access.restricted(settings.visibility, ttl, &secret, previous);
    if store.signs_urls && config.delivery.mode == DeliveryMode::Redirect {
        return Ok(access.with_links_of(Arc::clone(&store.store), ttl));
    }
    Ok(access)
}

/// Listens on the address of a setting.
///
/// # Errors
/// If the address is in use, or the system refuses it.
pub(crate) async fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{setting}: cannot listen on {address}"))
}

/// Opens the service alone, for commands that serve nothing. What it changes is recorded in `audit`.
///
/// # Errors
/// Those of [`App::open`]. It does not wait for a bucket or Redis that does not answer.
pub(crate) async fn open_service(config: &Config, audit: AuditLog) -> anyhow::Result<Service> {
    // The catalog is opened first. If another process has the embedded one open, the store of that
    // process is not touched.
    let catalog = open_catalog(config, Waiting::Not).await?;
    let metrics = Metrics::new();
    let store = open_store(config, Waiting::Not, &metrics).await?;
    // Maintenance processes no picture.
    let workers = OpenWorkers::threads(1, config, &metrics)?;
    let service = combine(config, store, catalog, workers, &metrics);
    Ok(service.audited_by(audit))
}

/// Combines an open store and an open catalog into a service.
pub(crate) fn combine(
    config: &Config,
    store: OpenStore,
    catalog: OpenCatalog,
    workers: OpenWorkers,
    metrics: &Metrics,
) -> Service {
    let settings = settings(config, workers.formats);
    let store = Arc::new(MeteredStore::new(store.store, metrics));
    let catalog = Arc::new(MeteredCatalog::new(catalog.catalog, metrics));
    Service::new(store, catalog, workers.workers, settings, metrics.clone())
}

/// Started workers.
pub(crate) struct OpenWorkers {
    workers: Workers,
    /// The formats of uploads that they accept.
    formats: Vec<SourceFormat>,
    /// A description of the workers, for the log.
    pub(crate) summary: String,
    /// Problems that an operator should check.
    pub(crate) warnings: Vec<String>,
}

impl OpenWorkers {
    /// Threads of this process. They do not accept AVIF: a picture could end the whole process.
    fn threads(count: usize, config: &Config, metrics: &Metrics) -> anyhow::Result<Self> {
        let workers = Workers::threads(count, metrics.clone()).context("threads for pictures")?;
        let mut formats = config.upload.formats.clone();
        let mut warnings = Vec::new();
        if formats.contains(&SourceFormat::Avif) {
            formats.retain(|format| *format != SourceFormat::Avif);
            warnings.push("AVIF is not accepted: processing.isolation is \"thread\"".to_owned());
        }
        Ok(Self {
            workers,
            formats,
            summary: "pictures are processed on threads of the service".to_owned(),
            warnings,
        })
    }
}

/// Processes for pictures cannot be started, or cannot give up their rights.
#[derive(Debug, thiserror::Error)]
#[error(
    "processing.isolation: pictures cannot be processed in separate processes on this system, which \
     needs Linux 5.9 and seccomp; \"thread\" needs neither, but a picture may then harm the service"
)]
struct IsolationError(#[source] imaging::Error);

/// Starts the workers that the configuration names. In development, threads replace processes that do
/// not work.
pub(crate) async fn open_workers(
    config: &Config,
    zygote: &Program,
    metrics: &Metrics,
) -> anyhow::Result<OpenWorkers> {
    let count = config.processing.workers;
    if config.processing.isolation == Isolation::Thread {
        return OpenWorkers::threads(count, config, metrics);
    }
    match Workers::processes(zygote, count, metrics.clone()).await {
        Ok(workers) => Ok(OpenWorkers {
            workers,
            formats: config.upload.formats.clone(),
            summary: "each picture is processed in a separate process without rights".to_owned(),
            warnings: Vec::new(),
        }),
        Err(error) if config.environment == Environment::Production => {
            Err(IsolationError(error).into())
        }
        Err(error) => {
            let mut open = OpenWorkers::threads(count, config, metrics)?;
            let error = chain(&IsolationError(error)).to_string();
            open.warnings.insert(0, error);
            Ok(open)
        }
    }
}

/// An open store.
pub(crate) struct OpenStore {
    store: Arc<dyn storage::Store>,
    /// Whether it makes URLs under which anyone can read an object for a while.
    signs_urls: bool,
    /// The base URL of public objects.
    objects_url: String,
    /// A description of the store and of what was observed, for the log.
    pub(crate) summary: String,
    /// Problems that an operator should check.
    pub(crate) warnings: Vec<String>,
}

/// Opens the store that the configuration names.
pub(crate) async fn open_store(
    config: &Config,
    waiting: Waiting,
    metrics: &Metrics,
) -> anyhow::Result<OpenStore> {
    let own_url = || format!("{}{}", config.http.public_url, access::FILES_ROOT);
    let (settings, public_base_url) = match &config.storage {
        Storage::Disk => {
            data_folder::create(&config.data_dir)?;
            let folder = config.data_dir.join("store");
            let store = DiskStore::open(&folder)
                .with_context(|| format!("the folder {}", folder.display()))?;
            return Ok(OpenStore {
                store: Arc::new(store),
                signs_urls: false,
                objects_url: own_url(),
                summary: format!("the store is the folder {}", folder.display()),
                warnings: private_files::warnings([&*folder]),
            });
        }
        Storage::S3(settings, public_base_url) => (settings, public_base_url),
    };
    let open = || S3Store::open(settings);
    let (store, warnings) =
        open_when_up("store", waiting, open, S3StartError::is_transient).await?;
    let bucket = &settings.bucket;
    let (objects_url, readable) = match (public_base_url, settings.public_access) {
        (Some(url), PublicAccess::Policy) => (url.clone(), "anyone can read public/"),
        (None, PublicAccess::Policy) => (settings.public_base(), "anyone can read public/"),
        (Some(url), PublicAccess::None) => (url.clone(), "a server in front of it delivers images"),
        (None, PublicAccess::None) => (own_url(), "this service delivers images"),
        (_, PublicAccess::Forbidden) => (own_url(), "public/ needs credentials"),
    };
    Ok(OpenStore {
        store: Arc::new(RetryingStore::new(
            Arc::new(store),
            RetryPolicy::default(),
            metrics.clone(),
        )),
        summary: format!(
            "the store is the bucket {bucket}: an object was written, read, listed and deleted; \
             {readable}; private/ needs credentials; URLs begin with {objects_url}"
        ),
        objects_url,
        signs_urls: true,
        warnings: warnings.iter().map(ToString::to_string).collect(),
    })
}

/// An open catalog.
pub(crate) struct OpenCatalog {
    catalog: Arc<dyn catalog::Catalog>,
    /// The connection to Redis, which the rate limits share.
    redis: Option<(RedisLink, Partitions)>,
    /// A description of the catalog and of what was observed, for the log.
    pub(crate) summary: String,
    /// Problems that an operator should check.
    pub(crate) warnings: Vec<String>,
}

/// Opens the catalog that the configuration names.
pub(crate) async fn open_catalog(config: &Config, waiting: Waiting) -> anyhow::Result<OpenCatalog> {
    let settings = match &config.catalog {
        Catalog::Embedded { events_kept } => {
            data_folder::create(&config.data_dir)?;
            let path = config.data_dir.join("catalog.redb");
            let catalog = EmbeddedCatalog::open(&path, *events_kept)?;
            return Ok(OpenCatalog {
                catalog: Arc::new(catalog),
                redis: None,
                summary: format!("the catalog is the database {}", path.display()),
                warnings: private_files::warnings([&*config.data_dir, &*path]),
            });
        }
        Catalog::Redis(settings) => settings,
    };
    let open = || RedisCatalog::open(settings);
    let (catalog, warnings) =
        open_when_up("catalog", waiting, open, RedisStartError::is_transient).await?;
    Ok(OpenCatalog {
        redis: Some((catalog.link().clone(), settings.partitions)),
        catalog: Arc::new(catalog),
        summary: format!(
            "the catalog is redis at {}, in {} partitions: each accepted a write",
            settings.address,
            settings.partitions.count()
        ),
        warnings: warnings.iter().map(ToString::to_string).collect(),
    })
}

/// Reads the totals of the catalog that the configuration names.
pub(crate) async fn read_stats(config: &Config) -> anyhow::Result<catalog::Stats> {
    let catalog = open_catalog(config, Waiting::Not).await?;
    Ok(catalog.catalog.stats().await?)
}

/// Whether the program cannot start until an operator changes a setting.
pub fn is_configuration(error: &anyhow::Error) -> bool {
    let s3 = error.downcast_ref::<S3StartError>();
    let redis = error.downcast_ref::<RedisStartError>();
    s3.is_some_and(|error| !error.is_transient())
        || redis.is_some_and(|error| !error.is_transient())
        || error.downcast_ref::<IsolationError>().is_some()
        || error.downcast_ref::<InvalidKeys>().is_some()
        || error.downcast_ref::<AuditFileError>().is_some()
}

/// Finds settings that do not work on this system, without using the network. Returns each key and the
/// problem of its value. Leaves no files behind.
pub(crate) fn probe(config: &Config) -> Vec<(String, String)> {
    let mut problems = data_folder::probe(config);
    for issuer in config.auth.issuers() {
        let fixed = FixedKeys::of(issuer, None).map(drop);
        let remote = RemoteKeys::of(issuer, &Metrics::new()).map(drop);
        for InvalidKeys { place, problem } in [fixed, remote].into_iter().filter_map(Result::err) {
            problems.push((place, problem));
        }
    }
    if let Some(path) = &config.telemetry.audit_file
        && let Err(error) = audit::probe(path)
    {
        let path = path.display();
        let problem = format!("is \"{path}\", which cannot be opened: {error}");
        problems.push(("telemetry.audit_file".to_owned(), problem));
    }
    problems
}

/// The configured origins and the origin of the service itself.
fn trusted_origins(config: &Config) -> Vec<String> {
    let mut origins = config.http.trusted_origins.clone();
    let own = config
        .http
        .public_url
        .splitn(4, '/')
        .take(3)
        .collect::<Vec<_>>()
        .join("/");
    origins.push(own.to_ascii_lowercase());
    origins
}

fn settings(config: &Config, formats: Vec<SourceFormat>) -> Settings {
    let (upload, images) = (&config.upload, &config.images);
    let target = |(name, edge_px): &(_, u32)| Target {
        name: Clone::clone(name),
        edge_px: *edge_px,
    };
    let recipe = Recipe {
        limits: imaging::Limits {
            formats,
            min_edge_px: upload.min_edge_px,
            max_edge_px: upload.max_edge_px,
            max_frames: upload.max_frames,
        },
        variants: images.variants.iter().map(target).collect(),
        formats: images.formats.clone(),
        webp_quality: images.webp_quality,
        jpeg_quality: images.jpeg_quality,
        background: images.background,
        animated: images.animated,
        keep_original: images.original.is_some(),
    };
    Settings {
        recipe: Arc::new(recipe),
        max_upload_bytes: upload.max_bytes,
        memory_budget: config.processing.memory_budget,
        queue_timeout: config.processing.queue_timeout,
        picture_deadline: config.processing.deadline,
        audience: Access::audience(config.access.visibility),
        original: images.original,
        retire_after: config.lifecycle.retire_after,
        upload_deadline: config.lifecycle.upload_deadline,
        orphan_grace: config.lifecycle.orphan_grace,
        cache_bytes: config.delivery.cache_bytes,
        cache_max_stale: config.delivery.cache_max_stale,
    }
}

#[cfg(test)]
mod tests;
