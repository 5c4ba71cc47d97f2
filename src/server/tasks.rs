//! The background tasks of the server, and their end.
//!
//! [`Tasks`] owns every task: dropping it aborts all of them. [`Tasks::stop`] ends them one after
//! another, in the order in which they were started.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};

/// The background tasks, in the order in which they end.
#[derive(Default)]
pub(super) struct Tasks(Vec<Task>);

struct Task {
    name: &'static str,
    stop: oneshot::Sender<()>,
    /// Contains only this task. Dropping it aborts the task.
    running: JoinSet<()>,
}

/// Tells a task when to stop.
pub(super) struct Stop(oneshot::Receiver<()>);

impl Stop {
    /// Done when the task has to stop. It may be called again and stays done.
    pub(super) async fn requested(&mut self) {
        if !self.0.is_terminated() {
            // An error means that the owner is gone, which is a reason to stop as well.
            let _ = (&mut self.0).await;
        }
    }
}

impl Tasks {
    /// Starts a task. It must return soon after [`Stop::requested`] is done. A panic ends the task
    /// and is logged at once.
    pub(super) fn start<F>(&mut self, name: &'static str, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let task = AssertUnwindSafe(task(Stop(stopped))).catch_unwind();
        let mut running = JoinSet::new();
        running.spawn(async move {
            if task.await.is_err() {
                error!(task = name, "a background task panicked and has ended");
            }
        });
        self.0.push(Task {
            name,
            stop,
            running,
        });
    }

    /// Stops all tasks until the given time. Each one may use an equal share of the time that is
    /// left; a task that takes longer is aborted.
    pub(super) async fn stop(self, until: Instant) {
        let mut left = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for Task {
            name,
            stop,
            mut running,
        } in self.0
        {
            let share = until.saturating_duration_since(Instant::now()) / left.max(1);
            left = left.saturating_sub(1);
            // The receiver is gone if the task has ended already.
            let _ = stop.send(());
            if timeout(share, running.join_next()).await.is_err() {
                warn!(
                    task = name,
                    "a background task does not stop; it is aborted"
                );
                running.shutdown().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_end_one_after_another_in_the_order_of_their_start() {
        let ended = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Tasks::default();
        for (name, work) in [("first", 300), ("second", 200), ("third", 0)] {
            let ended = Arc::clone(&ended);
            tasks.start(name, move |mut stop| async move {
                stop.requested().await;
                ended.lock().unwrap().push(format!("{name} is stopped"));
                tokio::time::sleep(Duration::from_millis(work)).await;
                stop.requested().await;
                ended.lock().unwrap().push(format!("{name} has ended"));
            });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(ended.lock().unwrap().is_empty());
        tasks.stop(Instant::now() + Duration::from_secs(3)).await;
        let expected = [
            "first is stopped",
            "first has ended",
            "second is stopped",
            "second has ended",
            "third is stopped",
            "third has ended",
        ];
        assert_eq!(*ended.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_aborted_and_leaves_time_to_the_others() {
        let has_ended = Arc::new(Mutex::new(false));
        let mut tasks = Tasks::default();
        tasks.start("stuck", |_stop| pending());
        tasks.start("panics", |_stop| async { panic!("on purpose") });
        let ended = Arc::clone(&has_ended);
        tasks.start("slow", move |mut stop| async move {
            stop.requested().await;
            tokio::time::sleep(Duration::from_millis(900)).await;
            *ended.lock().unwrap() = true;
        });
        let begun = Instant::now();
        tasks.stop(begun + Duration::from_secs(3)).await;
        assert!(*has_ended.lock().unwrap());
        assert_eq!(begun.elapsed(), Duration::from_millis(1900));
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_owner_ends_the_tasks() {
        let alive = Arc::new(());
        let mut tasks = Tasks::default();
        let held = Arc::clone(&alive);
        tasks.start("for ever", |_stop| async move {
            pending::<()>().await;
            drop(held);
        });
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(tasks);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
