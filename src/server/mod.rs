//! Running: connections in, the sweep beside them, and an end in order.
//!
//! The listener answers from the first moment on: while the store or the catalog is waited for, the
//! health checks say so and everything else is answered 503.
//!
//! The order of the end, all of it within `lifecycle.drain`:
//!
//! 1. `/health/ready` answers 503. Connections are still accepted for an announcement period, so
//!    that load balancers notice before anybody is refused. Where nobody has asked `/health/ready`
//!    for a minute, there is nobody to notice, and the period is left out.
//! 2. The listener is closed. Idle connections are closed, requests under way are answered, and
//!    connections whose clients do not read are cut off.
//! 3. The sweep ends at its next step, and with it an address of the metrics' own.
//!
//! Whatever is cut off then is an upload that was not acknowledged, and the next sweep removes what
//! it wrote.

mod accept;
mod connection;
mod files;
mod write_limit;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tracing::{error, info, warn};

pub use files::raise_file_limit;

use crate::app::{App, Bounds};
use crate::http::{self, Startup};
use crate::limits::Limiter;
use crate::service::Service;
use accept::{Acceptor, Phase, Routes};
use files::Places;

/// The connections at an address of the metrics' own.
const SCRAPERS: Places = Places {
    main: 64,
    reserve: 1,
};
/// How long readers of the metrics may still take, once everything else has ended.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the catalog is watched. Within twice this time a replica notices that the catalog was
/// emptied.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Load balancers that asked `/health/ready` within this time are waited for.
const PROBED_WITHIN: Duration = Duration::from_mins(1);
/// The announcement period as a part of the drain: 5 s of 25 s.
const ANNOUNCED_PART: u32 = 5;
/// The part of the drain that is kept for what comes after the last request: 2.5 s of 25 s.
const FINISHING_PART: u32 = 10;

/// Serves an app that is open already. Otherwise as [`serve`].
pub async fn run(app: App, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let routes = Routes::new(http::router(app.http.clone()));
    let accepting = Accepting::start(listener, routes, app.bounds);
    operate(app, accepting, shutdown).await;
}

/// Serves on `listener` until `shutdown` is done, then ends in order. Until `open` has given the
/// app, only the health checks are answered, as `startup` tells; a shutdown then ends at once. As
/// soon as everything is answered, `ready` is called.
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
    let routes = Routes::new(http::starting_router(startup));
    let accepting = Accepting::start(listener, Arc::clone(&routes), bounds);
    let mut shutdown = pin!(shutdown);
    let app = tokio::select! {
        app = open => app?,
        () = &mut shutdown => return Ok(()),
    };
    routes.open(http::router(app.http.clone()));
    ready()?;
    operate(app, accepting, shutdown).await;
    Ok(())
}

/// The task that accepts connections. It ends when this is dropped.
struct Accepting {
    phase: watch::Sender<Phase>,
    acceptor: JoinSet<()>,
}

impl Accepting {
    fn start(listener: TcpListener, routes: Arc<Routes>, bounds: Bounds) -> Self {
        let (phase, phases) = watch::channel(Phase::Accepting);
        let places = Places::within_the_file_limit(bounds.max_connections);
        let mut acceptor = JoinSet::new();
        acceptor.spawn(Acceptor::new(listener, routes, places).run(phases));
        Self { phase, acceptor }
    }

    /// Answers what is under way until then, and accepts no more.
    async fn drain(mut self, until: Instant) {
        self.phase.send_replace(Phase::Draining(until));
        while let Some(ended) = self.acceptor.join_next().await {
            if let Err(died) = ended {
                error!(error = &died as &dyn std::error::Error, "accepting died");
            }
        }
    }
}

/// Sweeps until `shutdown` is done, then ends in order.
async fn operate(app: App, accepting: Accepting, shutdown: impl Future<Output = ()>) {
    let App {
        service,
        http,
        limiter,
        sweep_every,
        metrics,
        readiness,
        bounds,
    } = app;
    let (stop, stopped) = watch::channel(Phase::Accepting);
    let metrics = metrics.map(|listener| {
        let routes = Routes::new(http::metrics_router(http));
        tokio::spawn(Acceptor::new(listener, routes, SCRAPERS).run(stopped.clone()))
    });
    let watcher = tokio::spawn(watch(Arc::clone(&service), stopped.clone()));
    let sweeper = tokio::spawn(sweep_regularly(service, limiter, sweep_every, stopped));

    shutdown.await;
    let ends = Instant::now() + bounds.drain;
    let requests_end = ends - bounds.drain / FINISHING_PART;
    readiness.begin_drain();
    if readiness.was_probed_within(PROBED_WITHIN) {
        let announced = bounds.drain / ANNOUNCED_PART;
        info!(
            ?announced,
            "/health/ready answers 503; connections are still accepted for a while"
        );
        sleep(announced).await;
    }
    accepting.drain(requests_end).await;

    let scrapes_end = ends.min(Instant::now() + SCRAPE_TIMEOUT);
    stop.send_replace(Phase::Draining(scrapes_end));
    let tasks = [
        ("watch", Some(watcher)),
        ("sweep", Some(sweeper)),
        ("metrics", metrics),
    ];
    for (name, task) in tasks {
        let Some(mut task) = task else { continue };
        match timeout_at(ends, &mut task).await {
            Ok(Err(died)) => {
                error!(
                    error = &died as &dyn std::error::Error,
                    task = name,
                    "a task died"
                );
            }
            Ok(Ok(())) => {}
            Err(_) => task.abort(),
        }
    }
    info!("ended");
}

/// Watches the catalog until it is told to stop.
async fn watch(service: Arc<Service>, mut stopped: watch::Receiver<Phase>) {
    let mut tick = interval(WATCH_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = async {
        loop {
            tick.tick().await;
            service.watch_catalog().await;
        }
    };
    tokio::select! {
        _ = stopped.changed() => {}
        () = watch => {}
    }
}

/// Sweeps until it is told to stop.
async fn sweep_regularly(
    service: Arc<Service>,
    limiter: Option<Arc<dyn Limiter>>,
    every: Duration,
    mut stopped: watch::Receiver<Phase>,
) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            _ = tick.tick() => {}
        }
        tokio::select! {
            _ = stopped.changed() => return,
            () = sweep(&service) => {}
        }
        if let Some(limiter) = &limiter {
            limiter.forget_idle();
        }
    }
}

/// Removes what is due. Whatever goes wrong is told, and left to the next sweep.
async fn sweep(service: &Service) {
    let swept = AssertUnwindSafe(service.sweep()).catch_unwind();
    match swept.await {
        Ok(Ok(swept)) if swept.avatars > 0 => {
            info!(avatars = swept.avatars, objects = swept.objects, "swept");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            let error: &dyn std::error::Error = &error;
            warn!(
                error,
                cause = error.source(),
                "the sweep is left to the next one"
            );
        }
        Err(_) => error!("the sweep panicked; it is left to the next one"),
    }
}
