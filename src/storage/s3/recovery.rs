//! Making a bucket again that was deleted while the service runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::startup;
use crate::config::S3Settings;

/// The pause after the first attempt that failed; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Makes the bucket and its policy again, as at startup, when an operation finds it gone. One task
/// does it at a time. It ends with the bucket ready, or with the store.
pub(super) struct Recovery {
    settings: S3Settings,
    losses: Arc<AtomicU64>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Recovery {
    pub(super) fn new(settings: S3Settings) -> Self {
        Self {
            settings,
            losses: Arc::default(),
            task: Mutex::default(),
        }
    }

    /// How often the bucket was gone.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// The bucket did not exist, and everything that it held is lost.
    pub(super) fn count_loss(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins to make the bucket again, unless that is under way.
    pub(super) fn begin(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.count_loss();
        warn!(
            bucket = self.settings.bucket,
            "the bucket is gone; it is made again"
        );
        *task = Some(tokio::spawn(make_again(self.settings.clone())));
    }
}

impl Drop for Recovery {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// Makes the bucket ready, and tries until it is.
async fn make_again(settings: S3Settings) {
    let mut pause = FIRST_PAUSE;
    let mut reported = String::new();
    loop {
        match startup::open(&settings).await {
            Ok((_, concerns)) => {
                for concern in concerns {
                    warn!("{concern}");
                }
                info!(bucket = settings.bucket, "the bucket was made again");
                return;
            }
            Err(error) => {
                let text = error.to_string();
                if text != reported {
                    warn!(cause = std::error::Error::source(&error), "{text}");
                    reported = text;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = MAX_PAUSE.min(pause * 2);
    }
}
