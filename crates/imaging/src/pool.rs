//! A pool of threads that process pictures, by default one per core.

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use super::executor::{Executor, Task};
use super::process::process_with;
use super::{CancelToken, Control, Crop, Error, Output, Processed, Recipe, Workspace};

/// One picture to process.
pub struct Job {
    /// The upload.
    pub bytes: Bytes,
    /// The outputs to make from it.
    pub recipe: Arc<Recipe>,
    /// The part that the client chose.
    pub crop: Option<Crop>,
    /// Maximum duration of the work, from its start on a thread. Waiting does not count.
    pub deadline: Duration,
    /// The caller cancels the job with this token.
    pub cancel: CancelToken,
    /// Called on the worker's thread with each output as soon as it is encoded. A break cancels the job.
    pub on_output: Box<dyn FnMut(Output) -> ControlFlow<()> + Send>,
    /// Called exactly once, with the result.
    pub on_done: Box<dyn FnOnce(Result<Processed, Error>) + Send>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("bytes", &self.bytes.len())
            .field("crop", &self.crop)
            .finish_non_exhaustive()
    }
}

/// Worker threads that process jobs in the order of their submission. Dropping the pool cancels the
/// waiting jobs ([`Error::Cancelled`]) and waits until the running jobs end.
pub struct Pool {
    queue: Arc<Queue>,
    workers: Vec<JoinHandle<()>>,
}

/// Maximum number of waiting jobs. The caller bounds their memory.
const MAX_WAITING: usize = 1024;

impl Pool {
    /// Starts `workers` threads, 0 for one per core.
    ///
    /// # Errors
    ///
    /// If the system starts no thread.
    pub fn new(workers: usize) -> std::io::Result<Self> {
        let count = match workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let mut pool = Self {
            queue: Arc::default(),
            workers: Vec::with_capacity(count),
        };
        for number in 0..count {
            let queue = Arc::clone(&pool.queue);
            // If a thread does not start, the pool is dropped, which ends the earlier threads.
            let worker = thread::Builder::new()
                .name(format!("imaging-{number}"))
                .spawn(move || work(&queue))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Queues a job.
    ///
    /// # Errors
    ///
    /// Returns the job if too many jobs wait already.
    pub fn submit(&self, job: Job) -> Result<(), Box<Job>> {
        let mut state = self.queue.lock();
        if state.waiting.len() >= MAX_WAITING {
            // Cancelled jobs must not fill the queue.
            let cancelled = state.take_cancelled();
            drop(state);
            for job in cancelled {
                finish(job.on_done, Err(Error::Cancelled));
            }
            state = self.queue.lock();
            if state.waiting.len() >= MAX_WAITING {
                return Err(Box::new(job));
            }
        }
        state.waiting.push_back(job);
        drop(state);
        self.queue.changed.notify_one();
        Ok(())
    }

    /// The number of threads.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The number of jobs that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.queue.lock();
            state.closing = true;
            std::mem::take(&mut state.waiting)
        };
        self.queue.changed.notify_all();
        for job in waiting {
            finish(job.on_done, Err(Error::Cancelled));
        }
        for worker in self.workers.drain(..) {
            // A worker catches every panic, so this returns no error.
            let _ = worker.join();
        }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Tasks that busy workers offered to idle ones. There are at most as many as idle workers.
    tasks: VecDeque<Task>,
    idle: usize,
    closing: bool,
}

/// The next work of a worker.
enum Work {
    Job(Job),
    Task(Task),
}

impl State {
    fn take_cancelled(&mut self) -> Vec<Job> {
        let (cancelled, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|job| job.cancel.is_cancelled());
        self.waiting = waiting;
        cancelled.into()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so the state is consistent even if it is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next work. `None` means that the pool closes.
    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            // Tasks come first, even if the pool closes, because another worker waits for them.
            if let Some(task) = state.tasks.pop_front() {
                return Some(Work::Task(task));
            }
            if state.closing {
                return None;
            }
            if let Some(job) = state.waiting.pop_front() {
                return Some(Work::Job(job));
            }
            state.idle += 1;
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl Executor for Queue {
    fn offer(&self, task: Task) -> bool {
        let mut state = self.lock();
        // Workers that were woken for a job still count as idle until they run.
        if state.closing || state.idle <= state.tasks.len() + state.waiting.len() {
            return false;
        }
        state.tasks.push_back(task);
        drop(state);
        self.changed.notify_one();
        true
    }
}

fn work(queue: &Queue) {
    let mut workspace = Workspace::new();
    while let Some(work) = queue.next() {
        let job = match work {
            Work::Job(job) => job,
            Work::Task(task) => {
                // After a panic the other worker misses the result of its task.
                let _ = catch_unwind(AssertUnwindSafe(task));
                continue;
            }
        };
        let Job {
            bytes,
            recipe,
            crop,
            deadline,
            cancel,
            mut on_output,
            on_done,
        } = job;
        let control = Control::starting_now(deadline, cancel);
        let result = catch_unwind(AssertUnwindSafe(|| {
            process_with(
                bytes,
                &recipe,
                crop,
                &control,
                &mut workspace,
                queue,
                &mut *on_output,
            )
        }))
        .unwrap_or_else(|panic| {
            // A panic may have left the workspace inconsistent.
            workspace = Workspace::new();
            Err(Error::Internal {
                reason: format!("panic: {}", message_of(&*panic)),
            })
        });
        drop(on_output);
        finish(on_done, result);
    }
}

/// Calls `on_done`. If it panics, the worker continues.
fn finish(
    on_done: Box<dyn FnOnce(Result<Processed, Error>) + Send>,
    result: Result<Processed, Error>,
) {
    let _ = catch_unwind(AssertUnwindSafe(|| on_done(result)));
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::Limits;

    fn job(
        bytes: &'static [u8],
        cancel: &CancelToken,
        done: &mpsc::Sender<Result<Processed, Error>>,
    ) -> Job {
        let done = done.clone();
        Job {
            bytes: Bytes::from_static(bytes),
            recipe: Arc::new(Recipe {
                limits: Limits {
                    formats: crate::SourceFormat::ALL.to_vec(),
                    min_edge_px: 1,
                    max_edge_px: 100,
                    max_frames: 1,
                },
                variants: Vec::new(),
                formats: Vec::new(),
                webp_quality: 80,
                jpeg_quality: 80,
                background: [0; 3],
                animated: false,
                keep_original: true,
            }),
            crop: None,
            deadline: Duration::from_mins(1),
            cancel: cancel.clone(),
            on_output: Box::new(|_| ControlFlow::Continue(())),
            on_done: Box::new(move |result| done.send(result).unwrap()),
        }
    }

    /// One grey pixel.
    const DOT: &[u8] =
        b"GIF89a\x01\0\x01\0\x80\0\0\x80\x80\x80\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

    #[test]
    fn a_panic_is_an_error_and_the_worker_continues() {
        let pool = Pool::new(1).unwrap();
        let (done, results) = mpsc::channel();
        let token = CancelToken::new();
        let mut bad = job(DOT, &token, &done);
        bad.on_output = Box::new(|_| panic!("on purpose"));
        pool.submit(bad).unwrap();
        pool.submit(job(DOT, &token, &done)).unwrap();
        let reason = "panic: on purpose".to_owned();
        assert_eq!(results.recv().unwrap(), Err(Error::Internal { reason }));
        assert_eq!(results.recv().unwrap().unwrap().placeholder.color, [128; 3]);
    }

    #[test]
    fn a_cancelled_job_ends_without_work() {
        let pool = Pool::new(1).unwrap();
        let (done, results) = mpsc::channel();
        let token = CancelToken::new();
        token.cancel();
        let mut job = job(DOT, &token, &done);
        job.on_output = Box::new(|_| panic!("work was done"));
        pool.submit(job).unwrap();
        assert_eq!(results.recv().unwrap(), Err(Error::Cancelled));
    }

    #[test]
    fn an_idle_worker_accepts_an_offered_task_and_a_busy_one_does_not() {
        let pool = Pool::new(1).unwrap();
        while pool.queue.lock().idle < 1 {
            thread::yield_now();
        }
        let (done, results) = mpsc::channel();
        assert!(pool.queue.offer(Box::new(move || done.send(7).unwrap())));
        assert_eq!(results.recv(), Ok(7));
        while pool.queue.lock().idle < 1 {
            thread::yield_now();
        }
        let (release, gate) = mpsc::channel::<()>();
        assert!(pool.queue.offer(Box::new(move || {
            let _ = gate.recv();
        })));
        assert!(!pool.queue.offer(Box::new(|| panic!("no worker was idle"))));
        drop(release);
    }

    #[test]
    fn dropping_the_pool_ends_every_job_with_a_result() {
        let pool = Pool::new(1).unwrap();
        let (done, results) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let token = CancelToken::new();
        let mut first = job(DOT, &token, &done);
        first.on_output = Box::new(move |_| {
            let _ = gate.recv();
            ControlFlow::Continue(())
        });
        pool.submit(first).unwrap();
        for _ in 0..3 {
            pool.submit(job(DOT, &token, &done)).unwrap();
        }
        drop(release);
        drop(pool);
        drop(done);
        assert_eq!(results.iter().count(), 4);
    }
}
