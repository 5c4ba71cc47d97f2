//! Accepting connections: as many as there are places, and a small reserve for health checks.
//!
//! When every place is taken, a further connection replaces the one that has waited longest without
//! a request. Where all are busy it is accepted into a reserve: it answers one request, a health
//! check as always, everything else 503. When the reserve is full too, its oldest connection makes
//! room. So neither idle nor busy connections keep a health check waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tower::ServiceExt;
use tracing::{info, warn};

use super::connection::{self, Activity, Kind};
use super::files::Places;
use crate::http;

/// The pause after a failed accept (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection must have been without a request before it is closed for another one.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// How long a connection of the reserve may last.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Accepting connections.
    Accepting,
    /// Answering what is under way until then, and accepting no more.
    Draining(Instant),
}

/// What answers requests: one router while the app opens, another one afterwards.
pub(super) struct Routes {
    starting: Router,
    open: OnceLock<Router>,
}

impl Routes {
    /// Answers by this router until another one is set.
    pub(super) fn new(starting: Router) -> Arc<Self> {
        Arc::new(Self {
            starting,
            open: OnceLock::new(),
        })
    }

    /// Answers by this router from now on.
    pub(super) fn open(&self, router: Router) {
        let _ = self.open.set(router);
    }

    /// Answers a request; on a connection of the reserve only if it is a health check.
    pub(super) async fn answer(&self, request: Request<Incoming>, kind: Kind) -> Response {
        let request = request.map(axum::body::Body::new);
        if kind == Kind::Reserve && !http::is_health_check(&request) {
            return http::refuse_connection(&request);
        }
        let router = self.open.get().unwrap_or(&self.starting).clone();
        match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Accepts connections and owns them.
pub(super) struct Acceptor {
    listener: TcpListener,
    routes: Arc<Routes>,
    places: Places,
    connections: JoinSet<()>,
    /// Of them those that have a place.
    placed: HashMap<Id, (AbortHandle, Arc<Activity>)>,
    /// Of them those of the reserve, from the oldest on.
    reserve: VecDeque<AbortHandle>,
    /// Whether the last accept failed.
    is_short: bool,
    /// Whether the reserve is in use.
    is_full: bool,
}

impl Acceptor {
    /// Accepts connections into these places.
    pub(super) fn new(listener: TcpListener, routes: Arc<Routes>, places: Places) -> Self {
        Self {
            listener,
            routes,
            places,
            connections: JoinSet::new(),
            placed: HashMap::new(),
            reserve: VecDeque::new(),
            is_short: false,
            is_full: false,
        }
    }

    /// Accepts until the phase changes, then answers what is under way.
    pub(super) async fn run(mut self, mut phases: watch::Receiver<Phase>) {
        let until = loop {
            tokio::select! {
                changed = phases.changed() => {
                    // Without a sender nobody is left to end this in order.
                    let Ok(()) = changed else { return };
                    if let Phase::Draining(until) = *phases.borrow() {
                        break until;
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.take(stream, &phases),
                    Err(error) => self.pause(&error).await,
                },
                Some(ended) = self.connections.join_next_with_id() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    self.placed.remove(&id);
                }
            }
        };
        self.drain(until).await;
    }

    fn take(&mut self, stream: TcpStream, phases: &watch::Receiver<Phase>) {
        if std::mem::take(&mut self.is_short) {
            info!("accept succeeds again");
        }
        let routes = Arc::clone(&self.routes);
        let phases = phases.clone();
        let activity = Arc::<Activity>::default();
        if self.has_place() {
            let serve =
                connection::serve(stream, Kind::Main, routes, phases, Arc::clone(&activity));
            let connection = self.connections.spawn(serve);
            self.placed.insert(connection.id(), (connection, activity));
            return;
        }
        if !std::mem::replace(&mut self.is_full, true) {
            warn!(
                connections = self.places.main,
                "every connection place is busy; further connections get health checks only"
            );
        }
        self.reserve.retain(|connection| !connection.is_finished());
        while self.reserve.len() >= self.places.reserve {
            match self.reserve.pop_front() {
                Some(oldest) => oldest.abort(),
                None => break,
            }
        }
        let connection = self.connections.spawn(async move {
            let serve = connection::serve(stream, Kind::Reserve, routes, phases, activity);
            // A client that takes longer is no health check.
            let _ = timeout(RESERVE_TIMEOUT, serve).await;
        });
        self.reserve.push_back(connection);
    }

    /// Whether there is a place, or one whose connection is idle and can be closed for it.
    fn has_place(&mut self) -> bool {
        if self.placed.len() < self.places.main {
            if self.is_full && self.placed.len() <= self.places.main - self.places.main / 8 {
                self.is_full = false;
                info!("connections have places again");
            }
            return true;
        }
        let idle =
            |(id, (_, activity)): (&Id, &(_, Arc<Activity>))| Some((activity.idle_for()?, *id));
        let longest = self
            .placed
            .iter()
            .filter_map(idle)
            .max_by_key(|(time, _)| *time);
        let Some((_, id)) = longest.filter(|(time, _)| *time >= MIN_IDLE) else {
            return false;
        };
        if let Some((connection, _)) = self.placed.remove(&id) {
            connection.abort();
        }
        true
    }

    async fn pause(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.is_short, true) {
            let error: &dyn std::error::Error = error;
            warn!(
                error,
                "accept failed; further failures are not logged until it succeeds"
            );
        }
        sleep(ACCEPT_PAUSE).await;
    }

    /// Waits until then for the connections to end. What is left is cut off.
    async fn drain(self, until: Instant) {
        let Self {
            listener,
            mut connections,
            ..
        } = self;
        drop(listener);
        while connections.try_join_next().is_some() {}
        info!(
            connections = connections.len(),
            "no further connections; answering what is under way"
        );
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout_at(until, ended).await.is_err() {
            warn!(
                connections = connections.len(),
                "requests are still under way at the end of the drain; they are cut off"
            );
            connections.shutdown().await;
        }
    }
}
