//! Keys that an identity provider publishes: fetched, kept, and fetched again.
//!
//! One task, [`RemoteKeys::run`], fetches the keys of an issuer. A request that needs a key asks the
//! task and waits for it, so any number of requests cause one fetch, and a client that hangs up
//! stops nothing. The rules:
//!
//! - The task fetches the set at once, then every `jwks_refresh`. After a failure it tries again
//!   after 1 s, 2 s, and so on, up to 30 s.
//! - A token with an unknown key id causes a fetch, at most one every 10 s. So a new key is accepted
//!   at once, and a flood of made-up ids does not reach the provider.
//! - A fetched set replaces the one before. A key that is no longer in it is not accepted any more.
//! - While fetches fail, the last set is used until it is `jwks_max_stale` old. After that, and until
//!   the first fetch succeeds, tokens are answered [`TokenError::KeysUnavailable`](super::TokenError).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::fetch::{FetchError, Fetched, Fetcher};
use super::fixed::{FixedKeys, InvalidKeys};
use super::jwks::{self, InvalidAnswer};
use super::keys::{Candidates, Key, KeySource, counts};
use crate::avatar::Timestamp;
use crate::config::{Algorithm, KeySet, KeySetLocation, TokenIssuer};
use crate::outgoing::TlsError;
use crate::telemetry::{Metrics, chain};

/// The shortest time between two fetches for unknown key ids.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// How long a request waits for a fetch. A fetch of two addresses takes at most 10 s.
const MAX_WAIT: Duration = Duration::from_secs(11);
/// The pause after the first failure. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How many keys are tried for a token without a key id.
const MAX_TRIED: usize = 16;

/// The public keys of one issuer, kept up to date by a task.
pub struct RemoteKeys {
    /// The name of the issuer in log lines and metrics.
    name: String,
    source: KeySet,
    algorithms: Vec<Algorithm>,
    fetcher: Fetcher,
    metrics: Metrics,
    state: watch::Sender<State>,
    requests: Mutex<Requests>,
    wake: Notify,
}

/// The outcome of the fetches so far.
#[derive(Clone, Default)]
struct State {
    /// The last set that was fetched, and when.
    set: Option<(Arc<[Arc<Key>]>, Instant)>,
    /// The number of finished fetches.
    finished: u64,
}

/// The fetches that were asked for.
#[derive(Default)]
struct Requests {
    /// The number of fetches that began or will begin. It is at most one above the finished ones.
    begun: u64,
    /// When an unknown key id last caused a fetch.
    unknown_key_at: Option<Instant>,
}

/// Why keys cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// An address was not fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// An answer cannot be used.
    #[error(transparent)]
    Answer(#[from] InvalidAnswer),
    /// The program has a bug.
    #[error("reading the key set panicked")]
    Panic,
}

/// A set that was fetched.
pub struct FetchedSet {
    keys: Vec<Arc<Key>>,
    /// The keys that are not used, with the reasons.
    pub skipped: Vec<String>,
    /// The address of the set.
    pub address: String,
    /// How far the provider's clock is ahead of this machine's, in seconds, if the provider says
    /// what time it is.
    pub clock_skew_s: Option<i64>,
}

impl FetchedSet {
    /// Whether no key of the set can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl fmt::Display for FetchedSet {
    /// The number of keys for each algorithm, such as `2 for RS256, 1 for ES256`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &counts(&self.keys)[..] {
            "" => f.write_str("no key"),
            counts => f.write_str(counts),
        }
    }
}

impl RemoteKeys {
    /// The keys that the settings of an issuer name; `None` if they name no set. Nothing is fetched
    /// before [`run`](Self::run).
    ///
    /// # Errors
    /// If the file of certificate authorities cannot be used.
    pub fn of(issuer: &TokenIssuer, metrics: &Metrics) -> Result<Option<Arc<Self>>, InvalidKeys> {
        let Some(source) = &issuer.key_set else {
            return Ok(None);
        };
        let fetcher = Fetcher::new(source.ca.as_ref()).map_err(|error: TlsError| InvalidKeys {
            place: format!("{}.ca_file", issuer.path),
            problem: error.to_string(),
        })?;
        let address = match &source.location {
            KeySetLocation::Url(address) | KeySetLocation::Discovery(address) => address,
        };
        let name = issuer.issuer.as_ref().unwrap_or(address).clone();
        metrics.expect_key_fetches(&name);
        Ok(Some(Arc::new(Self {
            name,
            source: source.clone(),
            algorithms: issuer.algorithms.clone(),
            fetcher,
            metrics: metrics.clone(),
            state: watch::Sender::default(),
            requests: Mutex::default(),
            wake: Notify::new(),
        })))
    }

    /// The name of the issuer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fetches the set once and keeps nothing.
    ///
    /// # Errors
    /// [`KeySetError`]
    pub async fn fetch(&self) -> Result<FetchedSet, KeySetError> {
        let address = match &self.source.location {
            KeySetLocation::Url(url) => url.clone(),
            KeySetLocation::Discovery(issuer) => {
                let address = jwks::configuration_of(issuer);
                let found = self.fetcher.get(&address).await?;
                jwks::key_set_address(issuer, &address, &found.body)?
            }
        };
        let Fetched { body, server_time } = self.fetcher.get(&address).await?;
        let now = (Timestamp::now().unix_ms() / 1000).cast_signed();
        let parsed = jwks::parse(&address, &body, &self.algorithms)?;
        Ok(FetchedSet {
            keys: parsed.keys,
            skipped: parsed.skipped,
            address,
            clock_skew_s: server_time.map(|time| time - now),
        })
    }

    /// Fetches the set, keeps it, and fetches it again as the rules say. Never ends; drop it to stop.
    pub async fn run(&self) {
        let mut log = Log::default();
        let mut failures = 0;
        loop {
            let number = self.begin();
            let fetched = AssertUnwindSafe(self.fetch()).catch_unwind().await;
            let fetched = fetched.unwrap_or(Err(KeySetError::Panic));
            failures = if fetched.is_ok() { 0 } else { failures + 1 };
            self.metrics.fetched_keys(&self.name, fetched.is_ok());
            if let Ok(set) = &fetched {
                self.metrics
                    .set_keys(&self.name, set.keys.len(), Timestamp::now());
            }
            self.state.send_modify(|state| {
                if let Ok(set) = &fetched {
                    state.set = Some((set.keys.clone().into(), Instant::now()));
                }
                state.finished = number;
            });
            log.record(self, &fetched);
            let pause = match failures {
                0 => self.source.refresh,
                failures => MAX_PAUSE.min(FIRST_PAUSE * (1 << (failures - 1).min(5))),
            };
            let mut due = std::pin::pin!(sleep(pause));
            loop {
                tokio::select! {
                    () = &mut due => break,
                    () = self.wake.notified() => {
                        if self.is_requested() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// The number of the fetch that begins now.
    fn begin(&self) -> u64 {
        let finished = self.state.borrow().finished;
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.begun = requests.begun.max(finished + 1);
        requests.begun
    }

    fn is_requested(&self) -> bool {
        let finished = self.state.borrow().finished;
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.begun > finished
    }

    /// Asks for a fetch because of an unknown key id. Returns the number of the fetch to wait for;
    /// `None` if the last one of this kind is too recent.
    fn request(&self) -> Option<u64> {
        let finished = self.state.borrow().finished;
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.begun > finished {
            return Some(requests.begun);
        }
        let now = Instant::now();
        let last = requests.unknown_key_at;
        if last.is_some_and(|last| now.duration_since(last) < COOL_DOWN) {
            return None;
        }
        requests.unknown_key_at = Some(now);
        requests.begun += 1;
        self.wake.notify_one();
        Some(requests.begun)
    }

    /// Waits until the fetch with this number has finished, or for [`MAX_WAIT`].
    async fn finished(&self, number: u64) {
        let mut state = self.state.subscribe();
        let finished = state.wait_for(|state| state.finished >= number);
        // After a time-out the keys of before are used.
        let _ = timeout(MAX_WAIT, finished).await;
    }

    /// The keys of the last set, if it is not too old.
    fn current(&self) -> Option<Arc<[Arc<Key>]>> {
        let state = self.state.borrow();
        let (keys, at) = state.set.as_ref()?;
        (at.elapsed() < self.source.max_stale).then(|| Arc::clone(keys))
    }
}

#[async_trait]
impl KeySource for RemoteKeys {
    /// The keys with this id. If there is none, the set is fetched again; then the keys without an id
    /// are used. For a token without a key id, all keys of the algorithm.
    async fn keys(&self, algorithm: Algorithm, key_id: Option<&str>) -> Candidates {
        // A set holds public keys only, so no fetch helps.
        if algorithm == Algorithm::Hs256 {
            return Candidates::default();
        }
        if self.state.borrow().finished == 0 {
            self.finished(1).await;
        }
        let Some(keys) = self.current() else {
            return UNAVAILABLE;
        };
        let named = with_id(&keys, algorithm, key_id);
        if !named.is_empty() {
            return complete(named);
        }
        if let Some(number) = self.request() {
            self.finished(number).await;
        }
        let Some(keys) = self.current() else {
            return UNAVAILABLE;
        };
        let named = with_id(&keys, algorithm, key_id);
        if named.is_empty() {
            let unnamed = keys.iter().filter(|key| key.id().is_none());
            return complete(of_algorithm(unnamed, algorithm));
        }
        complete(named)
    }
}

const UNAVAILABLE: Candidates = Candidates {
    keys: Vec::new(),
    is_incomplete: true,
};

fn complete(keys: Vec<Arc<Key>>) -> Candidates {
    Candidates {
        keys,
        is_incomplete: false,
    }
}

/// The keys with this id; all keys if no id is asked for.
fn with_id(keys: &[Arc<Key>], algorithm: Algorithm, id: Option<&str>) -> Vec<Arc<Key>> {
    let fitting = keys.iter().filter(|key| id.is_none() || key.id() == id);
    of_algorithm(fitting, algorithm)
}

fn of_algorithm<'a>(
    keys: impl Iterator<Item = &'a Arc<Key>>,
    algorithm: Algorithm,
) -> Vec<Arc<Key>> {
    let fitting = keys.filter(|key| key.algorithm() == algorithm);
    fitting.take(MAX_TRIED).cloned().collect()
}

/// Writes one log line for each change.
#[derive(Default)]
struct Log {
    /// Whether the last fetch failed.
    is_failing: bool,
    /// Whether a line said that the keys are too old.
    is_stale: bool,
    /// The last set: its keys and what was skipped.
    last: Option<(String, Vec<String>)>,
}

impl Log {
    fn record(&mut self, keys: &RemoteKeys, fetched: &Result<FetchedSet, KeySetError>) {
        let issuer = keys.name();
        match fetched {
            Ok(set) => {
                let ids: Vec<_> = set.keys.iter().map(|key| format!("{key:?}")).collect();
                let this = (ids.join(" "), set.skipped.clone());
                if self.is_failing || self.last.as_ref().is_none_or(|last| last.0 != this.0) {
                    info!(issuer, keys = %set, address = set.address, "the keys of the issuer were fetched");
                }
                if self.last.as_ref().is_none_or(|last| last.1 != this.1) && !this.1.is_empty() {
                    warn!(
                        issuer,
                        skipped = this.1.join("; "),
                        "some keys of the issuer are not used"
                    );
                }
                *self = Self {
                    last: Some(this),
                    ..Self::default()
                };
            }
            Err(error) => {
                if !self.is_failing {
                    let max_stale = humantime::format_duration(keys.source.max_stale).to_string();
                    warn!(
                        issuer,
                        error = %chain(error),
                        max_stale,
                        "the keys of the issuer cannot be fetched; the last ones are used while \
                         they are not too old"
                    );
                }
                self.is_failing = true;
                if keys.current().is_none() && !self.is_stale {
                    warn!(
                        issuer,
                        "there are no keys of the issuer; its tokens are answered 503"
                    );
                    self.is_stale = true;
                }
            }
        }
    }
}

/// All keys of one issuer: those of the configuration, and those that it publishes.
pub struct IssuerKeys {
    /// The keys of the configuration.
    pub fixed: FixedKeys,
    /// The keys that the issuer publishes, if the configuration names them.
    pub remote: Option<Arc<RemoteKeys>>,
}

#[async_trait]
impl KeySource for IssuerKeys {
    async fn keys(&self, algorithm: Algorithm, key_id: Option<&str>) -> Candidates {
        let mut candidates = match &self.remote {
            Some(remote) => remote.keys(algorithm, key_id).await,
            None => Candidates::default(),
        };
        candidates
            .keys
            .extend(self.fixed.of_algorithm(algorithm).cloned());
        candidates
    }
}

#[cfg(test)]
mod tests;
