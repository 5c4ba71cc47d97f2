//! The composition root: the only place that chooses adapters. Nothing else knows which store or
//! catalog it talks to.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;

use crate::auth::Verifier;
use crate::catalog::{self, EmbeddedCatalog};
use crate::config::{Config, ExposeSecret, SecretString, Storage};
use crate::http;
use crate::imaging::{self, Pool, Recipe, Target};
use crate::limits::{Limiter, LocalLimiter};
use crate::service::{Service, Settings};
use crate::storage::{self, DiskStore};

/// The program, put together and ready to serve.
pub struct App {
    /// What it does.
    pub service: Arc<Service>,
    /// Its HTTP surface.
    pub http: http::App,
    /// What counts attempts.
    pub limiter: Option<Arc<dyn Limiter>>,
    /// How often what is due is removed.
    pub sweep_every: Duration,
    /// Raised when the program begins to shut down.
    pub draining: Arc<AtomicBool>,
}

impl App {
    /// Opens what the configuration names and puts the parts together.
    ///
    /// # Errors
    /// Where the data folder, the store or the catalog cannot be opened.
    pub fn open(config: &Config, secret: &SecretString) -> anyhow::Result<Self> {
        let data_dir = &config.data_dir;
        make_folder(data_dir)?;
        let (storage_kind, store, objects_url): (_, Arc<dyn storage::Store>, _) =
            match config.storage {
                Storage::Disk => {
                    let store = DiskStore::open(data_dir.join("store"))
                        .with_context(|| format!("the folder {}", data_dir.display()))?;
                    let url = format!("{}{}", config.http.public_url, http::FILES_ROOT);
                    ("disk", Arc::new(store), url)
                }
            };
        let (catalog_kind, catalog): (_, Arc<dyn catalog::Catalog>) = match config.catalog {
            crate::config::Catalog::Embedded => {
                let path = data_dir.join("catalog.redb");
                let catalog = EmbeddedCatalog::open(&path).with_context(|| {
                    format!("{}; does another cameo use this data_dir?", path.display())
                })?;
                ("embedded", Arc::new(catalog))
            }
        };
        let limiter: Option<Arc<dyn Limiter>> = match config.limits {
            Some(limits) => Some(Arc::new(LocalLimiter::new(limits))),
            None => None,
        };
        let pool = Pool::new(config.processing.workers).context("threads for pictures")?;
        let service = Arc::new(Service::new(
            store,
            catalog,
            pool,
            settings(config, objects_url),
        ));
        let draining = Arc::new(AtomicBool::new(false));
        let http = http::App::new(http::Parts {
            service: Arc::clone(&service),
            verifier: Verifier::new(&config.auth, secret),
            limiter: limiter.clone(),
            cookie_name: config.auth.cookie_name.clone(),
            trusted_origins: trusted_origins(config),
            delivery: config.delivery,
            primary_variant: config.images.primary_variant.clone(),
            storage_kind,
            catalog_kind,
            draining: Arc::clone(&draining),
        });
        let sweep_every = config.lifecycle.sweep_every;
        Ok(Self {
            service,
            http,
            limiter,
            sweep_every,
            draining,
        })
    }
}

/// The secret that tokens are signed with: the configured one, or one of this data folder's own,
/// made at the first start. (A production configuration without a secret does not load.)
///
/// # Errors
/// Where the secret's file cannot be read or made.
pub fn jwt_secret(config: &Config) -> anyhow::Result<SecretString> {
    if let Some(secret) = &config.auth.jwt_secret {
        return Ok(secret.clone());
    }
    make_folder(&config.data_dir)?;
    let path = config.data_dir.join("jwt-secret");
    generated_secret(&path).with_context(|| format!("the secret in {}", path.display()))
}

fn generated_secret(path: &Path) -> anyhow::Result<SecretString> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(SecretString::from(text.trim())),
        // Cut short by a crash: nothing was ever signed with it.
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    let secret = SecretString::from(data_encoding::HEXLOWER.encode(&bits));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{}", secret.expose_secret())?;
    file.sync_all()?;
    Ok(secret)
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("the data folder {}", path.display()))
}

/// The configured origins, and the service's own.
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

fn settings(config: &Config, objects_url: String) -> Settings {
    let (upload, images) = (&config.upload, &config.images);
    let target = |(name, edge_px): &(_, u32)| Target {
        name: Clone::clone(name),
        edge_px: *edge_px,
    };
    let recipe = Recipe {
        limits: imaging::Limits {
            formats: upload.formats.clone(),
            min_edge_px: upload.min_edge_px,
            max_edge_px: upload.max_edge_px,
            max_frames: upload.max_frames,
        },
        variants: images.variants.iter().map(target).collect(),
        formats: images.formats.clone(),
        webp_quality: images.webp_quality,
        jpeg_quality: images.jpeg_quality,
        background: images.background,
        animated: false,
        keep_master: false,
    };
    Settings {
        recipe: Arc::new(recipe),
        max_upload_bytes: upload.max_bytes,
        memory_budget: config.processing.memory_budget,
        queue_timeout: config.processing.queue_timeout,
        picture_deadline: config.processing.deadline,
        retire_after: config.lifecycle.retire_after,
        upload_deadline: config.lifecycle.upload_deadline,
        objects_url,
    }
}
