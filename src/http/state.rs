//! The state that every handler can use.

use std::ops::Deref;
use std::sync::Arc;

use axum::http::HeaderValue;

use super::dependencies::{Dependencies, LatestCheck};
use super::image_query::ImageDefaults;
use super::readiness::Readiness;
use crate::access::Access;
use crate::audit::AuditLog;
use crate::auth::Verifier;
use crate::avatar::VariantName;
use crate::config::{AccessLog, Delivery};
use crate::limits::Limiter;
use crate::service::{Service, Size};
use crate::telemetry::Metrics;

/// The state that every handler can use. Clones share it.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    parts: Parts,
    /// The `Cache-Control` of images that anyone may see.
    image_cache: HeaderValue,
    latest_check: LatestCheck,
}

/// The parts of an [`AppState`].
pub struct Parts {
    /// Uploads, reads and deletes.
    pub service: Arc<Service>,
    /// The access rules.
    pub access: Access,
    /// Verifies tokens.
    pub verifier: Verifier,
    /// The rate limits; `None` if they are switched off.
    pub limiter: Option<Arc<dyn Limiter>>,
    /// The name of the cookie that holds a token.
    pub cookie_name: String,
    /// Origins whose pages may call the API from a browser, also with a cookie.
    pub trusted_origins: Vec<String>,
    /// How images are delivered.
    pub delivery: Delivery,
    /// The variant that `avatar_url` names by default.
    pub primary_variant: VariantName,
    /// What `/avatars/` shows if a request does not say it.
    pub images: ImageDefaults,
    /// The requests that are logged.
    pub access_log: AccessLog,
    /// Whether `/docs` and `/openapi.json` exist.
    pub docs: bool,
    /// The metrics of this process.
    pub metrics: Metrics,
    /// Where audit records go.
    pub audit: AuditLog,
    /// The address that serves `/metrics`.
    pub metrics_at: MetricsAt,
    /// Whether the service is shutting down, and when its readiness was last probed.
    pub readiness: Arc<Readiness>,
}

/// The address that serves `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAt {
    /// The main address.
    Main,
    /// An address of its own, with [`metrics_router`](super::metrics_router).
    ItsOwn,
}

impl AppState {
    /// Combines the parts.
    pub fn new(parts: Parts) -> Self {
        let max_age = parts.delivery.max_age.as_secs();
        let cache = format!("public, max-age={max_age}, stale-while-revalidate=60");
        let image_cache = HeaderValue::try_from(cache);
        Self(Arc::new(Shared {
            parts,
            image_cache: image_cache.unwrap_or(HeaderValue::from_static("no-cache")),
            latest_check: LatestCheck::default(),
        }))
    }

    /// The size of an image when a request names none.
    pub(super) fn primary_size(&self) -> Size {
        Size::Variant(self.primary_variant.clone())
    }

    /// The `Cache-Control` of an image of a user whose avatar anyone may see.
    pub(super) fn image_cache(&self) -> HeaderValue {
        self.0.image_cache.clone()
    }

    /// Checks the store and the catalog, at most once a second.
    pub(super) async fn dependencies(&self) -> Dependencies {
        self.0.latest_check.dependencies(&self.service).await
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{AppState, ImageDefaults, MetricsAt, Parts};
    use crate::access::Access;
    use crate::audit::AuditLog;
    use crate::auth::testing::{SECRET, settings};
    use crate::auth::{self, FixedKeys, Verifier};
    use crate::avatar::VariantName;
    use crate::config::{
        AccessLog, Auth, DefaultImage, Delivery, DeliveryMode, Environment, SecretString,
    };
    use crate::service::testing;
    use crate::telemetry::Metrics;

    /// The origin whose pages may write with a cookie.
    pub(in crate::http) const TRUSTED_ORIGIN: &str = "https://app.example.com";

    fn auth() -> Auth {
        Auth {
            cookie_name: "access_token".to_owned(),
            main: settings(),
            further: Vec::new(),
        }
    }

    /// The state of a production service on this store and catalog.
    pub(in crate::http) fn state_on(parts: &testing::Parts) -> AppState {
        let auth = auth();
        let keys = FixedKeys::of(&auth.main, None).unwrap();
        AppState::new(Parts {
            service: Arc::new(parts.service()),
            access: Access::public(
                Environment::Production,
                "https://cdn.example.com".to_owned(),
                "https://avatars.example.com".to_owned(),
            ),
            verifier: Verifier::new(&auth.main, keys),
            limiter: None,
            cookie_name: auth.cookie_name,
            trusted_origins: vec![TRUSTED_ORIGIN.to_owned()],
            delivery: Delivery {
                mode: DeliveryMode::Proxy,
                max_age: Duration::from_mins(5),
                default: DefaultImage::Initials,
                cache_bytes: 8 << 20,
                cache_max_stale: Duration::from_secs(5),
            },
            primary_variant: VariantName::new("medium").unwrap(),
            images: ImageDefaults {
                variants: vec![(VariantName::new("medium").unwrap(), 256)],
                primary: VariantName::new("medium").unwrap(),
                default: DefaultImage::Initials,
            },
            access_log: AccessLog::All,
            docs: true,
            metrics: Metrics::new(),
            audit: AuditLog::default(),
            metrics_at: MetricsAt::Main,
            readiness: Arc::default(),
        })
    }

    /// A token of this subject with these roles.
    pub(in crate::http) fn token(subject: &str, roles: &[&str]) -> String {
        let roles: Vec<_> = roles.iter().map(|role| (*role).to_owned()).collect();
        let secret = SecretString::from(SECRET);
        auth::issue(&auth(), &secret, subject, &roles, Duration::from_mins(1)).unwrap()
    }
}
