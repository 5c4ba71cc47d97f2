//! Reads every key into a checked [`Config`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::adapters;
use super::auth::auth;
use super::fault::Fault;
use super::layers::Layers;
use super::moderation::moderation;
use super::reader::{MAX_EDGE_PX, Reader, iec, shown, url};
use super::{
    AccessLog, AccessSettings, Config, DefaultImage, Delivery, DeliveryMode, Environment,
    ExposeSecret, Http, Images, Isolation, Lifecycle, Limits, Processing, Storage, Telemetry,
    Upload, Visibility, WhenRedisIsDown,
};
use super::{secret, units};
use crate::avatar::{Format, OriginalAccess, SourceFormat, VariantName};

/// The time that a large picture on a slow connection takes. With a shorter deadline, the sweep would
/// remove the objects of uploads that are under way.
const MIN_UPLOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Reads every setting. Adds a fault for each wrong value, and checks the others all the same. The
/// result is valid only if no fault was added.
pub(super) fn config(layers: &Layers, faults: &mut Vec<Fault>) -> Option<Config> {
    let mut read = Reader::new(layers, faults);
    let environment = read.choice(
        "environment",
        &[
            ("development", Environment::Development),
            ("production", Environment::Production),
        ],
    );
    let auth = auth(&mut read, environment);
    if environment == Environment::Production {
        refuse_unsafe_settings(&mut read);
    }
    // Every key is read before the function returns, so that no fault hides another.
    let data_dir = PathBuf::from(read.filled("data_dir"));
    let http = http(&mut read);
    let upload = upload(&mut read);
    let images = images(&mut read);
    let processing = Processing {
        isolation: read.choice(
            "processing.isolation",
            &[
                ("process", Isolation::Process),
                ("thread", Isolation::Thread),
            ],
        ),
        workers: read.number("processing.workers", 0, 1024) as usize,
        memory_budget: read.size("processing.memory_budget", 64 << 20, 1 << 40),
        queue_timeout: read.time("processing.queue_timeout", 1, 600),
        deadline: read.time("processing.deadline", 1, 600),
    };
    expect_memory(&mut read, &upload, &processing);
    let origins = http.as_ref().map(|http| &http.trusted_origins[..]);
    let access = access(&mut read);
    let storage = adapters::storage(&mut read, origins.unwrap_or_default(), access.visibility);
    let catalog = adapters::catalog(&mut read);
    let limits = limits(&mut read);
    let lifecycle = Lifecycle {
        retire_after: read.time("lifecycle.retire_after", 0, 365 * 24 * 3600),
        upload_deadline: read.time("lifecycle.upload_deadline", 1, 24 * 3600),
        orphan_grace: read.time("lifecycle.orphan_grace", 0, 365 * 24 * 3600),
        sweep_every: read.time("lifecycle.sweep_every", 1, 24 * 3600),
        drain: read.time("lifecycle.drain", 1, 3600),
    };
    expect_time(&mut read, environment, &lifecycle);
    let modes = [
        ("proxy", DeliveryMode::Proxy),
        ("redirect", DeliveryMode::Redirect),
    ];
    let delivery = Delivery {
        mode: read.choice("delivery.mode", &modes),
        max_age: read.time("delivery.max_age", 0, 365 * 24 * 3600),
        default: read.choice(
            "delivery.default",
            &[
                ("initials", DefaultImage::Initials),
                ("identicon", DefaultImage::Identicon),
                ("silhouette", DefaultImage::Silhouette),
                ("404", DefaultImage::NotFound),
            ],
        ),
        cache_bytes: read.size("delivery.cache", 1 << 20, 1 << 40),
        cache_max_stale: read.time("delivery.cache_max_stale", 0, 3600),
    };
    if access.visibility != Visibility::Public {
        let bucket_signs =
            delivery.mode == DeliveryMode::Redirect && matches!(storage, Storage::S3(..));
        if environment == Environment::Production && !bucket_signs {
            expect_url_secret(&mut read, &access);
        }
        refuse_private_original(&mut read, images.as_ref());
    }
    let moderation = moderation(&mut read, environment);
    let telemetry = Telemetry {
        audit_file: read.optional("telemetry.audit_file").map(PathBuf::from),
        access_log: read.choice(
            "telemetry.access_log",
            &[
                ("changes", AccessLog::Changes),
                ("all", AccessLog::All),
                ("none", AccessLog::Nothing),
            ],
        ),
    };
    Some(Config {
        environment,
        data_dir,
        http: http?,
        auth,
        upload,
        images: images?,
        processing,
        storage,
        catalog: catalog?,
        limits,
        lifecycle,
        delivery,
        access,
        moderation,
        telemetry,
        warnings: read.warnings,
    })
}

fn http(read: &mut Reader<'_>) -> Option<Http> {
    let bind: Option<SocketAddr> = read.parsed("http.bind", |text| {
        text.parse()
            .map_err(|_| format!("is {text:?}; give an address such as \"0.0.0.0:8080\""))
    });
    let public_url = read.parsed("http.public_url", |text| {
        url(text, "give a URL such as \"https://avatars.example.com\"")
    });
    let trusted_origins = read.list("http.trusted_origins", |text| {
        let host = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        match host {
            Some(host) if !host.is_empty() && !host.contains(['/', '*', ' ', '@']) => {
                Ok(text.to_ascii_lowercase())
            }
            _ => Err(format!(
                "holds {}; give origins such as \"https://app.example.com\", without a path",
                shown(text)
            )),
        }
    });
    let metrics_bind: Option<Option<SocketAddr>> =
        read.parsed("http.metrics_bind", |text| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                format!("is {text:?}; give an address such as \"127.0.0.1:9090\", or nothing")
            }),
        });
    if let (Some(bind), Some(Some(metrics))) = (bind, metrics_bind)
        && bind == metrics
        && bind.port() != 0
    {
        let problem = format!("is {metrics}, as is http.bind; give another address, or nothing");
        read.fault("http.metrics_bind", problem);
    }
    let max_connections = read.number("http.max_connections", 1, 1_000_000) as usize;
    let (bind, public_url) = (bind?, public_url?);
    let follows = read.layers.is_default("http.public_url");
    Some(Http {
        bind,
        public_url: if follows { url_of(bind) } else { public_url },
        trusted_origins,
        metrics_bind: metrics_bind?,
        docs: read.flag("http.docs"),
        max_connections,
    })
}

/// The URL of this address for a program on the same machine. It is the public URL unless that is set.
fn url_of(bind: SocketAddr) -> String {
    let port = bind.port();
    match bind.ip() {
        ip if ip.is_unspecified() => format!("http://127.0.0.1:{port}"),
        _ => format!("http://{bind}"),
    }
}

fn upload(read: &mut Reader<'_>) -> Upload {
    let upload = Upload {
        max_bytes: read.size("upload.max_bytes", 1 << 10, 1 << 30) as usize,
        min_edge_px: read.number("upload.min_edge_px", 1, MAX_EDGE_PX) as u32,
        max_edge_px: read.number("upload.max_edge_px", 1, MAX_EDGE_PX) as u32,
        max_frames: read.number("upload.max_frames", 1, 10_000) as u32,
        formats: read.list("upload.formats", |text| {
            named(text, &SourceFormat::ALL, SourceFormat::name)
        }),
    };
    if upload.min_edge_px > upload.max_edge_px {
        let problem = format!("is {}, more than upload.max_edge_px", upload.min_edge_px);
        read.fault("upload.min_edge_px", problem);
    }
    if upload.formats.is_empty() {
        read.fault("upload.formats", "is empty; give at least one format");
    }
    upload
}

/// Checks that the largest upload fits into the half of the memory budget that is for bodies.
fn expect_memory(read: &mut Reader<'_>, upload: &Upload, processing: &Processing) {
    let available = processing.memory_budget / 2;
    if upload.max_bytes as u64 > available {
        let problem = format!(
            "is {}, but uploads are held in half of processing.memory_budget, {}; lower it, or \
             raise processing.memory_budget",
            iec(upload.max_bytes as u64),
            iec(available)
        );
        read.fault("upload.max_bytes", problem);
    }
}

fn images(read: &mut Reader<'_>) -> Option<Images> {
    let variants = read.variants("images.variants");
    let primary_variant = read.parsed("images.primary_variant", |text| {
        if variants.is_empty() {
            return Err(
                "names no variant, because images.variants has none that is valid".to_owned(),
            );
        }
        let known = variants.iter().find(|(name, _)| name.as_str() == text);
        known.map(|(name, _)| name.clone()).ok_or_else(|| {
            let names: Vec<_> = variants.iter().map(|(name, _)| name.as_str()).collect();
            format!("is {text:?}; give one of {}", names.join(", "))
        })
    });
    let formats = read.list("images.formats", |text| {
        named(text, &Format::ALL, Format::name)
    });
    if formats.is_empty() {
        read.fault("images.formats", "is empty; give at least one format");
    }
    if variants
        .iter()
        .any(|(name, _)| *name == VariantName::original())
    {
        let problem = "holds \"original\", which is the name of the picture that images.original \
                       keeps; give it another name";
        read.fault("images.variants", problem);
    }
    if (1..formats.len()).any(|at| formats[..at].contains(&formats[at])) {
        read.fault("images.formats", "names a format twice");
    }
    let background = read.parsed("images.background", units::color);
    let webp_quality = read.number("images.webp_quality", 1, 100) as u8;
    let jpeg_quality = read.number("images.jpeg_quality", 1, 100) as u8;
    let (primary_variant, background) = (primary_variant?, background?);
    Some(Images {
        variants,
        primary_variant,
        formats,
        webp_quality,
        jpeg_quality,
        background,
        animated: read.flag("images.animated"),
        original: read.choice(
            "images.original",
            &[
                ("none", None),
                ("private", Some(OriginalAccess::Private)),
                ("public", Some(OriginalAccess::Public)),
            ],
        ),
    })
}

fn access(read: &mut Reader<'_>) -> AccessSettings {
    let visibility = [
        ("public", Visibility::Public),
        ("signed_in", Visibility::SignedIn),
        ("private", Visibility::Private),
    ];
    AccessSettings {
        visibility: read.choice("delivery.access", &visibility),
        // A bucket signs URLs for a week at most.
        url_ttl: read.time("delivery.url_ttl", 10, 7 * 24 * 3600),
        url_secret: read.secret("delivery.url_secret"),
        previous_url_secrets: read.secrets("delivery.previous_url_secrets"),
    }
}

/// Requires a secret for URLs in production, and refuses one that can be guessed.
fn expect_url_secret(read: &mut Reader<'_>, access: &AccessSettings) {
    let Some(url_secret) = &access.url_secret else {
        let problem = format!(
            "is not set, and delivery.access is not \"public\"; {}, or name a file that holds it in \
             delivery.url_secret_file, or let a bucket sign URLs with delivery.mode = \"redirect\"",
            secret::HOW_TO_MAKE
        );
        read.fault("delivery.url_secret", problem);
        return;
    };
    if let Some(weakness) = secret::weakness(url_secret.expose_secret()) {
        let problem = format!("{weakness}; {}", secret::HOW_TO_MAKE);
        read.fault("delivery.url_secret", problem);
    }
    for previous in &access.previous_url_secrets {
        if let Some(weakness) = secret::weakness(previous.expose_secret()) {
            let problem = format!("holds a secret that {weakness}");
            read.fault("delivery.previous_url_secrets", problem);
        }
    }
}

/// Refuses a variant whose private objects would have the name of a private original.
fn refuse_private_original(read: &mut Reader<'_>, images: Option<&Images>) {
    let variants = images
        .map(|images| &images.variants[..])
        .unwrap_or_default();
    if variants.iter().any(|(name, _)| name.as_str() == "master") {
        let problem = "holds \"master\", which only delivery.access = \"public\" permits; give it \
                       another name";
        read.fault("images.variants", problem);
    }
}

fn limits(read: &mut Reader<'_>) -> Option<Limits> {
    // The limits are checked even if they are switched off, so that their faults show before they are
    // switched on.
    let upload = read.parsed("limits.upload", units::quota);
    let delete = read.parsed("limits.delete", units::quota);
    let service_upload = read.parsed("limits.service_upload", units::quota);
    let service_delete = read.parsed("limits.service_delete", units::quota);
    let when_redis_is_down = read.choice(
        "limits.when_redis_is_down",
        &[
            ("local", WhenRedisIsDown::CountLocally),
            ("deny", WhenRedisIsDown::Deny),
        ],
    );
    read.flag("limits.enabled").then_some(Limits {
        upload: upload?,
        delete: delete?,
        service_upload: service_upload?,
        service_delete: service_delete?,
        when_redis_is_down,
    })
}

/// Checks that uploads have enough time before the sweep removes their objects.
fn expect_time(read: &mut Reader<'_>, environment: Environment, lifecycle: &Lifecycle) {
    let deadline = lifecycle.upload_deadline;
    if deadline.is_zero() || deadline >= MIN_UPLOAD_DEADLINE {
        return;
    }
    let problem = format!(
        "is {}; an upload that takes longer fails, because the sweep removes its objects: give at \
         least {}",
        humantime::format_duration(deadline),
        humantime::format_duration(MIN_UPLOAD_DEADLINE)
    );
    match environment {
        Environment::Production => read.fault("lifecycle.upload_deadline", problem),
        Environment::Development => read.warn("lifecycle.upload_deadline", problem),
    }
}

/// Refuses settings that are safe only on a developer's machine.
fn refuse_unsafe_settings(read: &mut Reader<'_>) {
    if read.layers.is_default("http.public_url") {
        read.fault(
            "http.public_url",
            "is still the default of a developer's machine; give the URL that clients use, such as \
             \"https://avatars.example.com\"",
        );
    }
}

/// Finds the value with this name.
fn named<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    all.iter()
        .copied()
        .find(|item| name(*item) == text)
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|item| name(*item)).collect();
            format!("holds {text:?}; give {}", names.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::super::{Faults, load};
    use super::*;

    fn with(name: &str, value: &str) -> Result<Config, Faults> {
        load(None, [(name.into(), value.into())])
    }

    #[test]
    fn an_original_is_chosen_by_name_and_the_earlier_key_names_its_successor() {
        for (value, expected) in [
            ("none", None),
            ("private", Some(OriginalAccess::Private)),
            ("public", Some(OriginalAccess::Public)),
        ] {
            let config = with("CAMEO_IMAGES__ORIGINAL", value).unwrap();
            assert_eq!(config.images.original, expected);
        }
        for (name, value) in [
            ("CAMEO_IMAGES__KEEP_MASTER", "true"),
            ("CAMEO_IMAGES__ORIGINAL", "true"),
            ("CAMEO_IMAGES__VARIANTS", "{ original = 512, medium = 256 }"),
        ] {
            let Faults(faults) = with(name, value).unwrap_err();
            let [fault] = &faults[..] else {
                panic!("{faults:?}")
            };
            let fault = fault.to_string();
            assert!(fault.starts_with(name), "{fault}");
            let is_replaced = fault.contains("replaced by images.original");
            assert_eq!(is_replaced, name.ends_with("KEEP_MASTER"), "{fault}");
        }
    }
}
