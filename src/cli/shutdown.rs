//! Signals that end the program.
//!
//! They are waited for on a thread of their own. So they also end a program whose other threads are
//! all blocked, for example by a disk that does not answer.

use std::process;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::info;

/// The exit code of a program that did not end in order.
const CUT_OFF: i32 = 1;

/// Done at the first SIGTERM or Ctrl-C. A second one ends the process at once, and so does the end
/// of `drain`, if the process is still there then.
///
/// # Errors
/// Where signals cannot be waited for.
pub(super) fn requested(drain: Duration) -> anyhow::Result<impl Future<Output = ()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(entered);
    let (requested, is_requested) = oneshot::channel();
    let wait = move || {
        runtime.block_on(async {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "Ctrl-C",
            };
            // Where nobody listens, the program ends anyway.
            let _ = requested.send(name);
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = sleep(drain) => {}
            }
            process::exit(CUT_OFF);
        });
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .context("the thread for signals")?;
    Ok(async move {
        match is_requested.await {
            Ok(signal) => info!(signal, "told to stop; a second signal ends at once"),
            // The thread cannot end before the process does.
            Err(_) => std::future::pending().await,
        }
    })
}
