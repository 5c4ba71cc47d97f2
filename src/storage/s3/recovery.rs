//! Creates a bucket again that was deleted while the service runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::start_error::{S3StartError, S3StartupWarning};
use crate::config::S3Settings;
use crate::telemetry::chain;

/// The pause after the first failed attempt. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Prepares the bucket as at startup. A creation counts as one of the losses.
pub(super) type Prepare = fn(
    S3Settings,
    Arc<AtomicU64>,
) -> BoxFuture<'static, Result<Vec<S3StartupWarning>, S3StartError>>;

/// Creates the bucket and its policy again, as at startup, when an operation finds the bucket gone.
/// Only one task runs at a time. It ends when the bucket is ready or the store is dropped.
pub(super) struct Recovery {
    settings: S3Settings,
    losses: Arc<AtomicU64>,
    prepare: Prepare,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Recovery {
    /// Counts losses in `losses`, which the task shares.
    pub(super) fn new(settings: S3Settings, losses: Arc<AtomicU64>, prepare: Prepare) -> Self {
        Self {
            settings,
            losses,
            prepare,
            task: Mutex::default(),
        }
    }

    /// How often the bucket was gone.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Counts a loss: the bucket did not exist, so all its objects are lost.
    pub(super) fn count_loss(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the task is running.
    pub(super) fn is_under_way(&self) -> bool {
        is_running(self.lock().as_ref())
    }

    /// Starts the task, unless it is running.
    pub(super) fn begin(&self) {
        let mut task = self.lock();
        if is_running(task.as_ref()) {
            return;
        }
        warn!(
            bucket = self.settings.bucket,
            "the bucket is gone; creating it again"
        );
        let losses = Arc::clone(&self.losses);
        let again = create_again(self.settings.clone(), losses, self.prepare);
        *task = Some(tokio::spawn(again));
    }

    fn lock(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_running(task: Option<&JoinHandle<()>>) -> bool {
    task.is_some_and(|task| !task.is_finished())
}

impl Drop for Recovery {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// Prepares the bucket, and repeats this until it succeeds. Each attempt that creates the bucket
/// counts a loss, because the bucket may be deleted again meanwhile. If another replica created it,
/// the loss is counted at the end.
async fn create_again(settings: S3Settings, losses: Arc<AtomicU64>, prepare: Prepare) {
    let known = losses.load(Ordering::Relaxed);
    let mut pause = FIRST_PAUSE;
    let mut reported = String::new();
    loop {
        match prepare(settings.clone(), Arc::clone(&losses)).await {
            Ok(warnings) => {
                let _ =
                    losses.compare_exchange(known, known + 1, Ordering::Relaxed, Ordering::Relaxed);
                for warning in warnings {
                    warn!("{warning}");
                }
                info!(bucket = settings.bucket, "created the bucket again");
                return;
            }
            Err(error) => {
                let text = error.to_string();
                if text != reported {
                    warn!(error = %chain(&error), "the bucket cannot be created again yet");
                    reported = text;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = MAX_PAUSE.min(pause * 2);
    }
}
