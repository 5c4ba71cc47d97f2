//! The server: owns the listeners, the connections and the background tasks, and ends them in order.
//!
//! The listener answers from the first moment on. While the app waits for the store or the catalog,
//! health checks are answered and every other request gets 503.
//!
//! # The order of a shutdown
//!
//! All steps together take at most `lifecycle.drain`.
//!
//! 1. `/health/ready` answers 503. Connections are still accepted for an announcement period, so
//!    that load balancers notice before a client is refused. The period is skipped if no
//!    request for `/health/ready` came in the last minute.
//! 2. The listener closes. Connections end in three classes (`DrainClass`), all at the same time:
//!    - Idle connections are closed at once, and connections whose clients do not read after 2 s.
//!    - Long-lived listeners are asked to go ([`Listener`](crate::http::Listener)) and closed 4 s
//!      later. An upgraded connection counts as a listener.
//!    - Requests under way, such as uploads, are answered to the end.
//! 3. The background tasks stop one after another, in the order in which they were started: the watch
//!    of the catalog, then the following of changes, then the execution of commands, then the sweep at
//!    its next step, then the fetching of keys, then the wait for SIGHUP.
//! 4. The audit records that are left are written to their file.
//! 5. The listener of `http.metrics_bind` closes, so that the last figures can be read until then.
//!
//! An upload that is cut off after that was not acknowledged, and a later sweep removes its objects.

mod accept;
mod activity;
mod client_stream;
mod connection;
mod files;
mod routes;
mod tasks;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tracing::{debug, error, info, warn};

pub use files::raise_file_limit;

use crate::app::{App, Bounds};
use crate::audit::AuditLog;
use crate::auth::RemoteKeys;
use crate::command_socket::{self, CommandSocket};
use crate::http::{self, Startup};
use crate::limits::Limiter;
use crate::service::Service;
use crate::telemetry::chain;
use accept::Accepting;
use files::Places;
use routes::Routes;
use tasks::{Stop, Tasks};

/// The connections at the address of the metrics.
const METRICS_PLACES: Places = Places {
    main: 64,
    reserve: 1,
};
/// How long requests for metrics may still take after everything else has ended.
const METRICS_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval at which the catalog is watched. A replica notices within twice this time that the
/// catalog was emptied.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// The pause after a command that could not be answered.
const COMMAND_PAUSE: Duration = Duration::from_millis(100);
/// A load balancer that asked `/health/ready` within this time gets the announcement period.
const PROBED_WITHIN: Duration = Duration::from_mins(1);
/// The announcement period as a part of the drain: 5 s of 25 s.
const ANNOUNCED_PART: u32 = 5;
/// The part of the drain that is kept for the steps after the last request: 2.5 s of 25 s.
const FINISHING_PART: u32 = 10;

/// Serves an app that is open already. Otherwise like [`serve`].
pub async fn run(app: App, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let routes = Routes::new(http::router(app.http.clone()));
    let places = Places::within_the_file_limit(app.bounds.max_connections);
    let accepting = Accepting::start(listener, routes, places);
    operate(app, accepting, hangups(), shutdown).await;
}

/// Serves on `listener` until `shutdown` is done, then ends in order.
///
/// Until `open` returns the app, only health checks are answered, from the state in `startup`; a
/// shutdown ends the server at once. `ready` is called as soon as all requests are answered.
///
/// # Errors
/// Those of `open` and `ready`.
pub async fn serve<E>(
    listener: TcpListener,
    bounds: Bounds,
    startup: Arc<Startup>,
    open: impl Future<Output = Result<App, E>>,
    ready: impl FnOnce() -> Result<(), E>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), E> {
    let routes = Routes::new(http::starting_router(&startup));
    let places = Places::within_the_file_limit(bounds.max_connections);
    let accepting = Accepting::start(listener, Arc::clone(&routes), places);
    let mut shutdown = pin!(shutdown);
    // A SIGHUP that comes while the app is opened takes effect afterwards.
    let hangups = hangups();
    let app = tokio::select! {
        app = open => app?,
        () = &mut shutdown => return Ok(()),
    };
    routes.open(http::router(app.http.clone()));
    ready()?;
    operate(app, accepting, hangups, shutdown).await;
    Ok(())
}

/// Runs the background tasks until `shutdown` is done, then ends everything in order.
async fn operate(
    app: App,
    accepting: Accepting,
    hangups: Option<Signal>,
    shutdown: impl Future<Output = ()>,
) {
    let App {
        service,
        http,
        limiter,
        audit,
        key_sets,
        sweep_every,
        metrics,
        commands,
        readiness,
        bounds,
    } = app;
    let metrics = metrics.map(|listener| {
        let routes = Routes::new(http::metrics_router(http));
        Accepting::start(listener, routes, METRICS_PLACES)
    });
    let mut tasks = Tasks::default();
    let watched = Arc::clone(&service);
    tasks.start("watch", |stop| watch(watched, stop));
    let followed = Arc::clone(&service);
    tasks.start("changes", |stop| follow_changes(followed, stop));
    if let Some(socket) = commands {
        let service = Arc::clone(&service);
        tasks.start("commands", |stop| execute_commands(socket, service, stop));
    }
    tasks.start("sweep", |stop| {
        sweep_regularly(service, limiter, sweep_every, stop)
    });
    tasks.start("keys", |stop| fetch_keys(key_sets, stop));
    let audited = audit.clone();
    tasks.start("audit", |stop| reopen_audit_file(audited, hangups, stop));

    shutdown.await;
    let end = Instant::now() + bounds.drain;
    let finishing = bounds.drain / FINISHING_PART;
    readiness.begin_drain();
    if readiness.was_probed_within(PROBED_WITHIN) {
        let announced = bounds.drain / ANNOUNCED_PART;
        info!(
            ?announced,
            "/health/ready answers 503; connections are still accepted for a while"
        );
        sleep(announced).await;
    }
    accepting.drain(end - finishing).await;
    tasks.stop(end - finishing / 2).await;
    if timeout_at(end - finishing / 4, audit.flush())
        .await
        .is_err()
    {
        warn!("the last audit records may be missing in the audit file; the log has them");
    }
    if let Some(metrics) = metrics {
        metrics
            .drain(end.min(Instant::now() + METRICS_TIMEOUT))
            .await;
    }
    info!("ended");
}

/// Watches the catalog regularly until it has to stop.
async fn watch(service: Arc<Service>, mut stop: Stop) {
    let mut tick = interval(WATCH_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = async {
        loop {
            tick.tick().await;
            service.watch_catalog().await;
        }
    };
    tokio::select! {
        () = stop.requested() => {}
        () = watch => {}
    }
}

/// Follows the changes of other replicas until it has to stop.
async fn follow_changes(service: Arc<Service>, mut stop: Stop) {
    tokio::select! {
        () = stop.requested() => {}
        never = service.follow_changes() => match never {},
    }
}

/// The signals SIGHUP from now on. They do not end the process any more.
fn hangups() -> Option<Signal> {
    match signal(SignalKind::hangup()) {
        Ok(hangups) => Some(hangups),
        Err(error) => {
            warn!(error = %chain(&error), "SIGHUP cannot be received");
            None
        }
    }
}

/// Opens the audit file again at each SIGHUP until it has to stop.
async fn reopen_audit_file(audit: AuditLog, mut hangups: Option<Signal>, mut stop: Stop) {
    let reopen = async {
        if let Some(hangups) = &mut hangups {
            while hangups.recv().await.is_some() {
                audit.reopen();
            }
        }
    };
    tokio::select! {
        () = stop.requested() => {}
        () = reopen => {}
    }
}

/// Executes the commands that come through the socket, one after another, until it has to stop.
async fn execute_commands(socket: CommandSocket, service: Arc<Service>, mut stop: Stop) {
    let work = async {
        loop {
            let served = async {
                if let Some(command) = socket.next().await? {
                    let answer = execute(&command.name, &service).await;
                    command.answer(answer).await?;
                }
                Ok::<_, std::io::Error>(())
            };
            if let Err(error) = served.await {
                debug!(error = %chain(&error), "a command was not answered");
                // The system may lack file descriptors.
                sleep(COMMAND_PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = stop.requested() => {}
        () = work => {}
    }
}

/// Executes a command.
///
/// # Errors
/// The reason for the operator who sent the command.
async fn execute(name: &str, service: &Service) -> Result<String, String> {
    if name != command_socket::STATS {
        return Err(format!("this service has no command {name:?}"));
    }
    let stats = service.stats().await;
    let stats = stats.map_err(|error| chain(&error).to_string())?;
    let text = http::Statistics::from(stats).to_json();
    text.map_err(|error| error.to_string())
}

/// Keeps the keys of identity providers up to date until it has to stop.
async fn fetch_keys(key_sets: Vec<Arc<RemoteKeys>>, mut stop: Stop) {
    tokio::select! {
        () = stop.requested() => {}
        _ = join_all(key_sets.iter().map(|keys| keys.run())) => {}
    }
}

/// Sweeps regularly until it has to stop.
async fn sweep_regularly(
    service: Arc<Service>,
    limiter: Option<Arc<dyn Limiter>>,
    every: Duration,
    mut stop: Stop,
) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sweep = async {
        loop {
            tick.tick().await;
            sweep(&service).await;
            if let Some(limiter) = &limiter {
                limiter.forget_idle();
            }
        }
    };
    tokio::select! {
        () = stop.requested() => {}
        () = sweep => {}
    }
}

/// Sweeps once. A failure is logged; the next sweep repeats the work.
async fn sweep(service: &Service) {
    let swept = AssertUnwindSafe(service.sweep()).catch_unwind();
    match swept.await {
        Ok(Ok(swept)) if swept.avatars > 0 => {
            info!(avatars = swept.avatars, objects = swept.objects, "swept");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            warn!(error = %chain(&error), "a sweep failed; the next one repeats it");
        }
        Err(_) => error!("a sweep panicked; the next one repeats it"),
    }
}
