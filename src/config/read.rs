//! From layered values to checked settings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::adapters;
use super::fault::Fault;
use super::layers::Layers;
use super::{
    Auth, Config, Delivery, DeliveryMode, Environment, Http, Images, Lifecycle, Limits, Processing,
    Upload, WhenRedisIsDown,
};
use super::{secret, units};
use crate::avatar::{Format, SourceFormat, VariantName};

/// The largest edge that WebP can have.
const MAX_EDGE_PX: i64 = 16_383;
/// A large picture on a slow connection takes this long. A shorter deadline lets the sweep remove
/// the objects of uploads that are still under way.
const MIN_UPLOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Reads every setting. Where one is wrong a fault is added, and the others are checked all the
/// same; the result counts only where no fault was added.
pub(super) fn config(layers: &Layers, faults: &mut Vec<Fault>) -> Option<Config> {
    let mut read = Reader {
        layers,
        faults,
        warnings: Vec::new(),
    };
    let environment = read.choice(
        "environment",
        &[
            ("development", Environment::Development),
            ("production", Environment::Production),
        ],
    );
    let auth = auth(&mut read);
    if environment == Environment::Production {
        refuse_conveniences(&mut read, &auth);
    }
    // Everything is read before anything is given up, so that no fault hides another.
    let data_dir = PathBuf::from(read.filled("data_dir"));
    let http = http(&mut read);
    let upload = upload(&mut read);
    let images = images(&mut read);
    let processing = Processing {
        workers: read.number("processing.workers", 0, 1024) as usize,
        memory_budget: read.size("processing.memory_budget", 64 << 20, 1 << 40),
        queue_timeout: read.time("processing.queue_timeout", 1, 600),
        deadline: read.time("processing.deadline", 1, 600),
    };
    expect_room(&mut read, &upload, &processing);
    let origins = http.as_ref().map(|http| &http.trusted_origins[..]);
    let storage = adapters::storage(&mut read, origins.unwrap_or_default());
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
        warnings: read.warnings,
    })
}

/// Reads a URL without a query and without a user, as it stands but for a closing slash. Such URLs
/// are logged and part of answers, so a password in one would be public.
///
/// # Errors
/// What is wrong. It does not repeat a text that may hold a password.
pub(super) fn url(text: &str, example: &str) -> Result<String, String> {
    let uri = text.parse::<http::Uri>().ok();
    let authority = uri.as_ref().and_then(http::Uri::authority);
    if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(
            "holds a user name or a password, which logs and answers would repeat; give the URL \
             without them"
                .to_owned(),
        );
    }
    let good = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some()
            && uri.query().is_none()
    });
    if good {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(format!("is {}; {example}", shown(text)))
    }
}

/// A value as an error repeats it.
fn shown(text: &str) -> String {
    if text.contains('@') {
        "a text that is not repeated here, because it may hold a password".to_owned()
    } else {
        format!("{text:?}")
    }
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

/// What a program on the same machine calls this address: on a laptop, the public URL follows it.
fn url_of(bind: SocketAddr) -> String {
    let port = bind.port();
    match bind.ip() {
        ip if ip.is_unspecified() => format!("http://127.0.0.1:{port}"),
        _ => format!("http://{bind}"),
    }
}

fn auth(read: &mut Reader<'_>) -> Auth {
    let algorithms = read.list("auth.algorithms", |text| match text {
        "HS256" => Ok(()),
        _ => Err(format!("holds {text:?}; HS256 is what can be checked")),
    });
    if algorithms.is_empty() {
        read.fault("auth.algorithms", "is empty; give [\"HS256\"]");
    }
    let cookie_name = read.filled("auth.cookie_name");
    if !cookie_name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        read.fault(
            "auth.cookie_name",
            format!("is {cookie_name:?}; give letters, digits, - _ ."),
        );
    }
    Auth {
        jwt_secret: read.secret("auth.jwt_secret"),
        issuer: read.optional("auth.issuer"),
        audience: read.optional("auth.audience"),
        leeway: read.time("auth.leeway", 0, 600),
        cookie_name,
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

/// Half of the memory is for the uploads held, and one of any size that is taken must fit in.
fn expect_room(read: &mut Reader<'_>, upload: &Upload, processing: &Processing) {
    let room = processing.memory_budget / 2;
    if upload.max_bytes as u64 > room {
        let problem = format!(
            "is {}, but uploads are held in half of processing.memory_budget, {}; lower it, or \
             raise processing.memory_budget",
            iec(upload.max_bytes as u64),
            iec(room)
        );
        read.fault("upload.max_bytes", problem);
    }
}

fn images(read: &mut Reader<'_>) -> Option<Images> {
    let variants = read.variants("images.variants");
    let primary_variant = read.parsed("images.primary_variant", |text| {
        if variants.is_empty() {
            return Err("has nothing to choose from".to_owned());
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
        keep_master: read.flag("images.keep_master"),
    })
}

fn limits(read: &mut Reader<'_>) -> Option<Limits> {
    // Checked even where limits are off: a fault must not wait for the day they are switched on.
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

/// An upload needs time until its deadline.
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

/// What is handy on a laptop and dangerous anywhere else.
fn refuse_conveniences(read: &mut Reader<'_>, auth: &Auth) {
    match &auth.jwt_secret {
        None => read.fault(
            "auth.jwt_secret",
            format!(
                "is not set, and in production no secret is generated; {}, or name a file that \
                 holds it in auth.jwt_secret_file",
                secret::HOW_TO_MAKE
            ),
        ),
        Some(secret) => {
            if let Some(weakness) = secret::weakness(secret.expose_secret()) {
                let problem = format!("{weakness}; {}", secret::HOW_TO_MAKE);
                read.fault("auth.jwt_secret", problem);
            }
        }
    }
    if read.layers.is_default("http.public_url") {
        read.fault(
            "http.public_url",
            "is still the laptop's; give the address that the outside world uses, such as \
             \"https://avatars.example.com\"",
        );
    }
}

pub(super) struct Reader<'a> {
    pub(super) layers: &'a Layers,
    faults: &'a mut Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Reader<'_> {
    fn warn(&mut self, path: &str, problem: impl Into<String>) {
        self.warnings
            .push(Fault::new(self.layers.place(path), problem));
    }

    pub(super) fn fault(&mut self, path: &str, problem: impl Into<String>) {
        self.faults
            .push(Fault::new(self.layers.place(path), problem));
    }

    pub(super) fn text(&self, path: &str) -> String {
        let value = self.layers.get(path).and_then(toml::Value::as_str);
        value.unwrap_or_default().to_owned()
    }

    pub(super) fn filled(&mut self, path: &str) -> String {
        let text = self.text(path);
        if text.is_empty() {
            self.fault(path, "is empty");
        }
        text
    }

    pub(super) fn optional(&self, path: &str) -> Option<String> {
        Some(self.text(path)).filter(|text| !text.is_empty())
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        self.layers
            .get(path)
            .and_then(toml::Value::as_bool)
            .unwrap_or_default()
    }

    pub(super) fn parsed<T>(
        &mut self,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(&self.text(path)) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fault(path, problem);
                None
            }
        }
    }

    pub(super) fn number(&mut self, path: &str, least: i64, most: i64) -> i64 {
        let number = self
            .layers
            .get(path)
            .and_then(toml::Value::as_integer)
            .unwrap_or(least);
        if !(least..=most).contains(&number) {
            self.fault(path, format!("is {number}; give {least} to {most}"));
        }
        number.clamp(least, most)
    }

    fn size(&mut self, path: &str, least: u64, most: u64) -> u64 {
        let size = self.parsed(path, units::size).unwrap_or(least);
        if !(least..=most).contains(&size) {
            let problem = format!("is {}; give {} to {}", iec(size), iec(least), iec(most));
            self.fault(path, problem);
        }
        size.clamp(least, most)
    }

    pub(super) fn time(&mut self, path: &str, least_s: u64, most_s: u64) -> Duration {
        let (least, most) = (Duration::from_secs(least_s), Duration::from_secs(most_s));
        let time = self.parsed(path, units::duration).unwrap_or(least);
        // A zero is a slip wherever something has to happen within the time.
        let too_short = least_s > 0 && time.is_zero();
        if too_short || time > most {
            let show = humantime::format_duration;
            let problem = format!(
                "is {}; give more than 0s, at most {}",
                show(time),
                show(most)
            );
            self.fault(path, problem);
        }
        time
    }

    pub(super) fn choice<T: Clone>(&mut self, path: &str, choices: &[(&str, T)]) -> T {
        let text = self.text(path);
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return choice.clone();
        }
        let names: Vec<_> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        self.fault(path, format!("is {text:?}; give {}", names.join(" or ")));
        choices[0].1.clone()
    }

    fn list<T>(&mut self, path: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut items = Vec::new();
        let array = self.layers.get(path).and_then(toml::Value::as_array);
        for item in array.into_iter().flatten() {
            let parsed = match item.as_str() {
                Some(text) => parse(text),
                None => Err("holds something else than texts in quotes".to_owned()),
            };
            match parsed {
                Ok(item) => items.push(item),
                Err(problem) => self.fault(path, problem),
            }
        }
        items
    }

    fn variants(&mut self, path: &str) -> Vec<(VariantName, u32)> {
        let mut variants: Vec<(VariantName, u32)> = Vec::new();
        let table = self.layers.get(path).and_then(toml::Value::as_table);
        for (name, edge) in table.into_iter().flatten() {
            let edge_px = edge
                .as_integer()
                .filter(|edge| (1..=MAX_EDGE_PX).contains(edge));
            match (VariantName::new(name.as_str()), edge_px) {
                (Ok(name), Some(edge)) => variants.push((name, edge as u32)),
                (Err(invalid), _) => self.fault(path, format!("holds {name:?}: {invalid}")),
                (_, None) => {
                    let problem = format!("holds {name} = {edge}; give 1 to {MAX_EDGE_PX} pixels");
                    self.fault(path, problem);
                }
            }
        }
        if table.is_some_and(toml::map::Map::is_empty) {
            self.fault(
                path,
                "is empty; give at least one size, such as { medium = 256 }",
            );
        }
        if variants.len() > MAX_VARIANTS {
            let problem = format!("holds {} sizes; at most {MAX_VARIANTS}", variants.len());
            self.fault(path, problem);
        }
        variants.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        variants
    }

    /// A secret given as such, or by the file that holds it.
    pub(super) fn secret(&mut self, path: &str) -> Option<SecretString> {
        let file_path = format!("{path}_file");
        let secret = match (self.optional(path), self.optional(&file_path)) {
            (Some(_), Some(_)) => {
                self.fault(
                    path,
                    format!("is given, and {file_path} too; give one of them"),
                );
                return None;
            }
            (Some(secret), None) => secret,
            (None, None) => return None,
            (None, Some(_)) => return self.secret_file(&file_path),
        };
        Some(SecretString::from(secret))
    }

    /// A secret given by the file that holds it.
    pub(super) fn secret_file(&mut self, path: &str) -> Option<SecretString> {
        let file = self.text(path);
        let secret = match std::fs::read_to_string(Path::new(&file)) {
            Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
            Err(error) => {
                // A value that does not look like a path may be the secret itself.
                let is_path = ["/", "./", "../"].iter().any(|root| file.starts_with(root));
                let problem = if is_path {
                    format!("is {file:?}, which cannot be read: {error}")
                } else {
                    format!("names a file that cannot be read: {error}")
                };
                self.fault(path, problem);
                return None;
            }
        };
        if secret.trim().is_empty() {
            self.fault(path, "names an empty file");
            return None;
        }
        Some(SecretString::from(secret))
    }
}

fn iec(bytes: u64) -> bytesize::Display {
    bytesize::ByteSize(bytes).display().iec()
}

/// More sizes than this are a mistake, and each costs every upload.
const MAX_VARIANTS: usize = 16;

fn named<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    all.iter()
        .copied()
        .find(|item| name(*item) == text)
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|item| name(*item)).collect();
            format!("holds {text:?}; give {}", names.join(", "))
        })
}
