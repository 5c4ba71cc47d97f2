//! Accepts connections: as many as there are places, and a small reserve for health checks.
//!
//! If every place is taken, a new connection replaces the one that has been idle longest. If no
//! connection is idle, the new one goes into the reserve, where it may send one request: a health
//! check is answered, every other request gets 503. If the reserve is full too, its oldest
//! connection is closed. So neither idle nor busy connections delay a health check.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{error, info, warn};

use super::activity::Activity;
use super::connection::{self, Phase};
use super::files::Places;
use super::routes::{Kind, Routes};
use crate::telemetry::chain;

/// The pause after a failed accept (too many open files, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection must have been idle before it is closed in favour of a new one.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// How long a connection of the reserve may last.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A listener with its connections. Dropping this closes all of them.
pub(super) struct Accepting {
    phase: watch::Sender<Phase>,
    acceptor: JoinSet<()>,
}

impl Accepting {
    /// Starts to accept connections into these places.
    pub(super) fn start(listener: TcpListener, routes: Arc<Routes>, places: Places) -> Self {
        let (phase, phases) = watch::channel(Phase::Accepting);
        let mut acceptor = JoinSet::new();
        acceptor.spawn(Acceptor::new(listener, routes, places).run(phases));
        Self { phase, acceptor }
    }

    /// Accepts no more connections, and waits until the open ones have ended. Closes those that are
    /// left at the given time.
    pub(super) async fn drain(mut self, until: Instant) {
        self.phase.send_replace(Phase::Draining(until));
        while let Some(ended) = self.acceptor.join_next().await {
            if let Err(panicked) = ended {
                error!(error = %chain(&panicked), "the task that accepts connections failed");
            }
        }
    }
}

/// Accepts connections and owns their tasks.
struct Acceptor {
    listener: TcpListener,
    routes: Arc<Routes>,
    places: Places,
    connections: JoinSet<()>,
    /// The connections that have a place.
    placed: HashMap<Id, (AbortHandle, Arc<Activity>)>,
    /// The connections of the reserve, the oldest first.
    reserve: VecDeque<AbortHandle>,
    /// Whether the last accept failed.
    is_failing: bool,
    /// Whether the reserve is in use.
    is_full: bool,
}

impl Acceptor {
    fn new(listener: TcpListener, routes: Arc<Routes>, places: Places) -> Self {
        Self {
            listener,
            routes,
            places,
            connections: JoinSet::new(),
            placed: HashMap::new(),
            reserve: VecDeque::new(),
            is_failing: false,
            is_full: false,
        }
    }

    /// Accepts connections until the phase changes, then drains them.
    async fn run(mut self, mut phases: watch::Receiver<Phase>) {
        let until = loop {
            tokio::select! {
                changed = phases.changed() => {
                    // The sender is gone: this task is about to be aborted.
                    let Ok(()) = changed else { return };
                    if let Phase::Draining(until) = *phases.borrow() {
                        break until;
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &phases),
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

    /// Gives a connection a place, or puts it into the reserve.
    fn admit(&mut self, stream: TcpStream, phases: &watch::Receiver<Phase>) {
        if std::mem::take(&mut self.is_failing) {
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
            // A health check does not take this long.
            let _ = timeout(RESERVE_TIMEOUT, serve).await;
        });
        self.reserve.push_back(connection);
    }

    /// Whether a place is free. Closes the connection that has been idle longest if none is.
    fn has_place(&mut self) -> bool {
        if self.placed.len() < self.places.main {
            if self.is_full && self.placed.len() <= self.places.main - self.places.main / 8 {
                self.is_full = false;
                info!("new connections get places again");
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
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(
                error = %chain(error),
                "accept failed; further failures are not logged until it succeeds"
            );
        }
        sleep(ACCEPT_PAUSE).await;
    }

    /// Closes the listener and waits for the connections to end. Closes those that are left at the
    /// given time.
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
            "no further connections are accepted; requests under way are answered"
        );
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout_at(until, ended).await.is_err() {
            warn!(
                connections = connections.len(),
                "requests are still under way at the end of the drain; their connections are closed"
            );
            connections.shutdown().await;
        }
    }
}
