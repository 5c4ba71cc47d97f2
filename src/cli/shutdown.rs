//! The signals that stop the program.
//!
//! A separate thread waits for them. So they also stop a program whose other threads are all blocked,
//! for example by a disk that does not answer.

use std::process;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::info;

/// The exit code of a program that was stopped before its shutdown had ended.
const UNFINISHED: i32 = 1;

/// Done at the first SIGTERM or Ctrl-C. The process exits at once at the second one, and also if it
/// still runs when the time `drain` has passed.
///
/// # Errors
/// If the program cannot receive signals.
pub(super) fn requested(drain: Duration) -> anyhow::Result<impl Future<Output = ()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // From now on SIGHUP does not end the process. The server acts on it.
    drop(signal(SignalKind::hangup())?);
    drop(entered);
    let (requested, is_requested) = oneshot::channel();
    let wait = move || {
        runtime.block_on(async {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "Ctrl-C",
            };
            // If the receiver is gone, the program is ending already.
            let _ = requested.send(name);
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = sleep(drain) => {}
            }
            process::exit(UNFINISHED);
        });
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .context("the thread for signals")?;
    Ok(async move {
        match is_requested.await {
            Ok(signal) => info!(
                signal,
                "shutting down; a second signal stops the program at once"
            ),
            // The thread runs until the process exits, so the sender is never dropped.
            Err(_) => std::future::pending().await,
        }
    })
}
