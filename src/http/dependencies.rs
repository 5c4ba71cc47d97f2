//! Checks of what the service depends on: the store and the catalog.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use serde::Serialize;
use tokio::task::JoinError;
use tracing::{Instrument, error, info, warn};
use utoipa::ToSchema;

use crate::service::{self, PublicRead, Service};
use crate::telemetry::{Health, chain};

/// How long the result of a check is used again. Probes are frequent, and a check writes.
const FRESH: Duration = Duration::from_secs(1);
/// How long a check waits for the store and for the catalog.
const TIMEOUT: Duration = Duration::from_secs(2);

const OK: &str = "ok";
const UNAVAILABLE: &str = "unavailable";
const REFUSED: &str = "refused";

/// The state of the services that this service depends on.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Dependencies {
    /// The store of images: `ok`, `degraded` (it can be read), `unavailable`, or, while the service
    /// starts, `unknown`.
    pub store: &'static str,
    /// The catalog of records: `ok`, `degraded` (it can be read), `unavailable`, or, while the
    /// service starts, `unknown`.
    pub catalog: &'static str,
    /// Who can read images directly from the store, according to the latest check: `anyone`;
    /// `proxy` if the service or a server in front of it delivers them; `refused` if anyone should
    /// be able to but cannot; `unknown` if the store is unavailable.
    pub public_read: &'static str,
    /// Why the service is degraded, or what it waits for while it starts; otherwise absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub reasons: Vec<String>,
}

impl Dependencies {
    /// Whether the store answers, if only to reads.
    pub(super) fn has_store(&self) -> bool {
        self.store != UNAVAILABLE
    }

    /// Whether the catalog answers, if only to reads.
    pub(super) fn has_catalog(&self) -> bool {
        self.catalog != UNAVAILABLE
    }
}

/// The latest check. Requests at the same time share it.
#[derive(Default)]
pub(super) struct LatestCheck(Mutex<Option<Check>>);

/// A check that is under way or has ended.
type Check = Shared<BoxFuture<'static, Checked>>;

/// The result of a check.
#[derive(Clone)]
struct Checked {
    at: Instant,
    dependencies: Dependencies,
}

impl LatestCheck {
    /// Checks the store and the catalog, or uses the result of a check that is under way or not
    /// older than [`FRESH`].
    pub(super) async fn dependencies(&self, service: &Arc<Service>) -> Dependencies {
        self.shared(service).await.dependencies
    }

    /// The check to wait for. The lock is held only while it is chosen.
    fn shared(&self, service: &Arc<Service>) -> Check {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &*latest {
            Some(check) => match check.peek() {
                Some(checked) if checked.at.elapsed() >= FRESH => {
                    Some(checked.dependencies.clone())
                }
                _ => return check.clone(),
            },
            None => None,
        };
        // A task of its own, so that a client that hangs up does not stop the check for the others.
        // It needs no owner: it ends after `TIMEOUT` at the latest.
        let task = tokio::spawn(check_now(Arc::clone(service), before).in_current_span());
        let check = task.map(|ended| ended.unwrap_or_else(|error| Checked::failed(&error)));
        let check = check.boxed().shared();
        *latest = Some(check.clone());
        check
    }
}

async fn check_now(service: Arc<Service>, before: Option<Dependencies>) -> Checked {
    let (store, catalog) = tokio::join!(
        answer("store", service.check_store()),
        answer("catalog", service.check_catalog()),
    );
    let public_read = match store.as_ref().map(|checkup| checkup.public_read) {
        Some(PublicRead::Anyone) => "anyone",
        Some(PublicRead::Proxy) => "proxy",
        Some(PublicRead::Refused) => REFUSED,
        None => "unknown",
    };
    let store = store.map(|checkup| checkup.health);
    let health = [&store, &catalog].into_iter().flatten();
    let reasons = health.filter_map(Health::reason).map(str::to_owned);
    let dependencies = Dependencies {
        store: word(store.as_ref()),
        catalog: word(catalog.as_ref()),
        public_read,
        reasons: reasons.collect(),
    };
    log_changes(before.as_ref(), &dependencies);
    Checked {
        at: Instant::now(),
        dependencies,
    }
}

impl Checked {
    /// The result of a check whose task failed.
    fn failed(error: &JoinError) -> Self {
        error!(error = %chain(error), "the check of the store and the catalog failed");
        Self {
            at: Instant::now(),
            dependencies: Dependencies {
                store: UNAVAILABLE,
                catalog: UNAVAILABLE,
                public_read: "unknown",
                reasons: Vec::new(),
            },
        }
    }
}

/// Logs what an operator should know and what the check before did not find.
fn log_changes(before: Option<&Dependencies>, now: &Dependencies) {
    let was_refused = before.is_some_and(|before| before.public_read == REFUSED);
    if now.public_read == REFUSED && !was_refused {
        warn!("anonymous reads of public/ in the bucket are refused; check the bucket policy");
    }
    let known = before.map_or(&[][..], |before| &before.reasons);
    for reason in now.reasons.iter().filter(|reason| !known.contains(reason)) {
        warn!(reason, "the service is degraded");
    }
    if now.reasons.is_empty() && !known.is_empty() {
        info!("the service is no longer degraded");
    }
}

/// The state of a dependency; `None` if it does not answer.
fn word(health: Option<&Health>) -> &'static str {
    match health {
        Some(Health::Healthy) => OK,
        Some(Health::Degraded(_)) => "degraded",
        None => UNAVAILABLE,
    }
}

/// Waits for a dependency's answer; `None` if there is none in time, or if it is an error.
pub(super) async fn answer<T>(
    name: &str,
    check: impl Future<Output = Result<T, service::Error>>,
) -> Option<T> {
    match tokio::time::timeout(TIMEOUT, check).await {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(error)) => {
            warn!(error = %chain(&error), "the {name} is not ready");
        }
        Err(_) => warn!("the {name} does not answer"),
    }
    None
}
