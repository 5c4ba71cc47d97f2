//! Running: connections in, the sweep beside them, and an end in order.
//!
//! The order of the end: `/health/ready` says so; no further connection is taken; requests under
//! way are answered, for a while; the sweep ends at its next step, and with it an address of the
//! metrics' own. Whatever is cut off then is an upload that was not acknowledged, and the next sweep
//! removes what it wrote.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::app::App;
use crate::http;
use crate::service::Service;

/// The most connections at once; further ones wait in the system's queue.
const MOST_CONNECTIONS: usize = 4096;
/// The most at an address of the metrics' own.
const MOST_SCRAPERS: usize = 64;
/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The most that is held of what a connection has sent and nobody has read: a request's head, or a
/// piece of its body.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long requests under way may take once the end has begun.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// How long whoever reads the metrics may still take, once everything else has ended.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the catalog is watched. Within twice this time a replica notices that the catalog was
/// emptied.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How long to wait where the system gives no connection for now (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves on `listener` until `shutdown` is done, then ends in order.
pub async fn run(app: App, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let App {
        service,
        http,
        limiter,
        sweep_every,
        metrics,
        draining,
    } = app;
    let (stop, stopped) = watch::channel(());
    let metrics = metrics.map(|listener| {
        let (router, mut stopped) = (http::metrics_router(http.clone()), stopped.clone());
        tokio::spawn(async move {
            let shutdown = async move { drop(stopped.changed().await) };
            accept(listener, router, MOST_SCRAPERS, shutdown, || {}).await;
        })
    });
    let watcher = tokio::spawn({
        let (service, mut stopped) = (Arc::clone(&service), stopped.clone());
        async move {
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
    });
    let sweeper = tokio::spawn(async move {
        let mut stopped = stopped;
        let mut tick = interval(sweep_every);
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
    });

    accept(
        listener,
        http::router(http),
        MOST_CONNECTIONS,
        shutdown,
        || draining.store(true, Ordering::Relaxed),
    )
    .await;

    drop(stop);
    if let Err(died) = watcher.await {
        error!(error = &died as &dyn std::error::Error, "the watcher died");
    }
    if let Err(died) = sweeper.await {
        error!(error = &died as &dyn std::error::Error, "the sweeper died");
    }
    if let Some(mut metrics) = metrics {
        match timeout(SCRAPE_TIMEOUT, &mut metrics).await {
            Ok(Err(died)) => {
                error!(error = &died as &dyn std::error::Error, "the metrics died");
            }
            Ok(Ok(())) => {}
            // Nobody waits for one who does not read.
            Err(_) => metrics.abort(),
        }
    }
    info!("ended");
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

/// Takes connections, so many at once at the most, until `shutdown` is done, then answers what is under way.
async fn accept(
    listener: TcpListener,
    router: Router,
    most: usize,
    shutdown: impl Future<Output = ()>,
    draining: impl FnOnce(),
) {
    let router = TowerToHyperService::new(router);
    // HTTP/1.1, which every gateway speaks to what is behind it.
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES);
    let connections = GracefulShutdown::new();
    let free = Arc::new(Semaphore::new(most));
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, place) = tokio::select! {
            () = &mut shutdown => break,
            taken = take(&listener, &free) => match taken {
                Some(taken) => taken,
                None => continue,
            },
        };
        let connection = builder.serve_connection(TokioIo::new(stream), router.clone());
        let connection = connections.watch(connection);
        // Ends with its connection, which the drain waits for.
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection broke"
                );
            }
        });
    }
    draining();
    drop(listener);
    info!(
        connections = connections.count(),
        "no further connections; answering what is under way"
    );
    if timeout(DRAIN_TIMEOUT, connections.shutdown())
        .await
        .is_err()
    {
        warn!(
            "requests are still under way after {} s; they are cut off",
            DRAIN_TIMEOUT.as_secs()
        );
    }
}

/// The next connection, once there is a place for it.
async fn take(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(free).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            if let Err(error) = stream.set_nodelay(true) {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection stays without nodelay"
                );
            }
            Some((stream, place))
        }
        Err(error) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "a connection was not taken"
            );
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
