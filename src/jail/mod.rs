//! The jail: processes pictures in separate processes without any rights.
//!
//! Uploads are untrusted, and some code of the decoders is `unsafe`. So each picture is processed in
//! a process of its own, the *worker*. It has no secrets, files or network, and the kernel gives it
//! none. It ends after its picture. If a picture crashes its worker or takes control of it, only that
//! upload fails.
//!
//! Three processes take part. All of them run this program:
//!
//! - The *service* reads the headers of an upload, in safe Rust, and requests a worker. It passes the
//!   upload (as a sealed file in memory) and the [`Recipe`] to the worker, and receives the
//!   renditions one by one. It checks everything that it receives (`inspect`).
//! - The *zygote* (`zygote`) is this program's file, executed with an empty environment. It forks
//!   workers, reaps them, and reports how each one ended. A thread of the service (`supervisor`)
//!   starts it, and starts it again if it ends.
//! - A *worker* (`worker`) gives up its rights (`sandbox`) before it reads the first byte of the
//!   upload. Then it runs [`imaging::process`](cameo_imaging::process) and sends each file as soon as
//!   it is encoded.
//!
//! # One picture, step by step
//!
//! 1. `exchange` copies the upload into a file in memory and seals it. It takes the worker that
//!    `supervisor` started ahead, so the picture does not wait for a fork. Without one, it requests
//!    one: the zygote forks.
//! 2. It sends the request and the file over the worker's socket. The worker maps the file, sets its
//!    limits, and installs its system call filter. It has closed all other descriptors before.
//! 3. `exchange` reads files until the worker sends its outcome. It kills the worker at the deadline,
//!    if the caller cancels the work, and if the worker sends invalid data.
//! 4. The zygote reaps the worker. Then the memory that was reserved for the picture is released.
//!    `supervisor` starts the worker of the next picture ahead.
//!
//! | end of the worker | error |
//! | --- | --- |
//! | it reports that the picture is damaged or takes too much work | as reported |
//! | a panic, a fault, a forbidden system call, an invalid file | [`Error::Corrupt`] |
//! | its limit of memory or processor time, the deadline | [`Error::TooComplex`] |
//! | killed from outside, or not started | [`Error::Overloaded`] |
//!
//! On other systems than Linux, and with `processing.isolation = "thread"`, the same pipeline runs on
//! threads of the service ([`Pool`]).

#[cfg(target_os = "linux")]
mod exchange;
#[cfg(target_os = "linux")]
mod inspect;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod supervisor;
#[cfg(target_os = "linux")]
mod system;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
#[cfg(target_os = "linux")]
mod wire;
#[cfg(target_os = "linux")]
mod worker;
#[cfg(target_os = "linux")]
mod zygote;

use std::any::Any;
use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
#[cfg(target_os = "linux")]
use tokio::task::JoinSet;

#[cfg(target_os = "linux")]
pub use zygote::serve as serve_zygote;

use crate::telemetry::Metrics;
use cameo_imaging::{CancelToken, Crop, Error, Job, Output, Pool, Probe, Processed, Recipe};
#[cfg(target_os = "linux")]
use supervisor::Supervisor;

/// One picture to process.
pub struct Picture {
    /// The upload.
    pub bytes: Bytes,
    /// The outputs to make from it.
    pub recipe: Arc<Recipe>,
    /// The part that the client chose.
    pub crop: Option<Crop>,
    /// The contents of the headers, from [`probe_for`](cameo_imaging::probe_for) with this recipe and crop.
    pub probe: Probe,
    /// Maximum duration of the work, from now on.
    pub deadline: Duration,
    /// The reservation of memory. It is dropped when the work has ended, even if the work was cancelled.
    pub reserved: Box<dyn Any + Send + Sync>,
}

/// Work on a picture. Dropping it cancels the work.
pub struct Work {
    /// The files, each one as soon as it is encoded.
    pub outputs: mpsc::Receiver<Output>,
    outcome: oneshot::Receiver<Result<Processed, Error>>,
    cancel: CancelToken,
}

impl Work {
    /// Waits for the end of the work. After an error the files from [`outputs`](Self::outputs) must
    /// not be used.
    ///
    /// # Errors
    /// Those of [`process`](cameo_imaging::process), and those in the table of this module.
    pub async fn outcome(mut self) -> Result<Processed, Error> {
        let outcome = (&mut self.outcome).await;
        outcome.unwrap_or_else(|_| {
            Err(Error::Internal {
                reason: "the work on a picture was dropped".to_owned(),
            })
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// How a worker ended, for the metrics.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    /// It sent every file.
    Done,
    /// It reported an error.
    Refused,
    /// A panic, a fault, a forbidden system call, or invalid data.
    Crashed,
    /// It reached its limit of memory.
    OutOfMemory,
    /// It reached its deadline, or its limit of processor time.
    TimedOut,
    /// The caller cancelled the work.
    GivenUp,
    /// Another process killed it or the zygote.
    Killed,
    /// It could not be started, or could not give up its rights.
    NotStarted,
}

#[cfg(target_os = "linux")]
impl WorkerEnd {
    pub(crate) const ALL: [Self; 8] = [
        Self::Done,
        Self::Refused,
        Self::Crashed,
        Self::OutOfMemory,
        Self::TimedOut,
        Self::GivenUp,
        Self::Killed,
        Self::NotStarted,
    ];

    /// The value of the label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Crashed => "crashed",
            Self::OutOfMemory => "out_of_memory",
            Self::TimedOut => "timed_out",
            Self::GivenUp => "given_up",
            Self::Killed => "killed",
            Self::NotStarted => "not_started",
        }
    }
}

/// The program to start as the zygote. It only calls `serve_zygote`.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "only Linux has imaging processes")
)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program at `path`, started with `arguments`.
    pub fn new(path: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { path, arguments }
    }
}

/// The threads or processes that process pictures.
pub enum Workers {
    /// Threads of the service.
    Threads(Pool, Metrics),
    /// Processes without any rights.
    #[cfg(target_os = "linux")]
    Processes(Jail),
}

impl Workers {
    /// Starts `count` threads of the service; 0 means one per core.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub fn threads(count: usize, metrics: Metrics) -> io::Result<Self> {
        Ok(Self::Threads(Pool::new(count)?, metrics))
    }

    /// Starts `program` as a zygote for `count` concurrent pictures; 0 means one per core. Checks that
    /// workers start on this system, give up their rights, and answer.
    ///
    /// # Errors
    /// The reason why workers cannot work.
    #[cfg_attr(not(target_os = "linux"), allow(clippy::unused_async))]
    pub async fn processes(
        program: &Program,
        count: usize,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        #[cfg(target_os = "linux")]
        {
            let jail = Jail::open(program.clone(), count, metrics).map_err(|error| {
                let reason = format!("no thread for the zygote: {error}");
                Error::Overloaded { reason }
            })?;
            jail.check().await?;
            Ok(Self::Processes(jail))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (program, count, metrics);
            let reason = "processes for pictures need Linux".to_owned();
            Err(Error::Internal { reason })
        }
    }

    /// Maximum number of pictures that should be processed at the same time.
    pub fn count(&self) -> usize {
        match self {
            Self::Threads(pool, _) => pool.workers(),
            #[cfg(target_os = "linux")]
            Self::Processes(jail) => jail.workers,
        }
    }

    /// Starts the work on a picture.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if too many pictures wait for a thread.
    ///
    /// # Panics
    /// If it is called outside a tokio runtime.
    pub fn start(&self, picture: Picture) -> Result<Work, Error> {
        let recipe = &picture.recipe;
        // The channel has room for all files (stills, animated renditions, an original), so the worker
        // never waits for the store.
        let files = recipe.variants.len() * (recipe.formats.len() + 1) + 1;
        let (sender, outputs) = mpsc::channel(files);
        let (done, outcome) = oneshot::channel();
        let work = Work {
            outputs,
            outcome,
            cancel: CancelToken::new(),
        };
        match self {
            Self::Threads(pool, metrics) => {
                let job = job(picture, work.cancel.clone(), sender, done, metrics.clone());
                pool.submit(job).map_err(|_| Error::Overloaded {
                    reason: "too many pictures wait for a thread".to_owned(),
                })?;
            }
            #[cfg(target_os = "linux")]
            Self::Processes(jail) => jail.start(picture, sender, done),
        }
        Ok(work)
    }
}

/// The job of a picture for the pool of threads.
fn job(
    picture: Picture,
    cancel: CancelToken,
    sender: mpsc::Sender<Output>,
    done: oneshot::Sender<Result<Processed, Error>>,
    metrics: Metrics,
) -> Job {
    let begun = Instant::now();
    let Picture {
        bytes,
        recipe,
        crop,
        probe,
        deadline,
        reserved,
    } = picture;
    Job {
        bytes,
        recipe,
        crop,
        deadline,
        cancel,
        on_output: Box::new(move |output| match sender.try_send(output) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }),
        on_done: Box::new(move |processed| {
            drop(reserved);
            metrics.processed(probe.format, begun.elapsed());
            // The caller may have cancelled the work.
            let _ = done.send(processed);
        }),
    }
}

/// Processes pictures in workers. Dropping it ends the zygote and all workers.
#[cfg(target_os = "linux")]
pub struct Jail {
    workers: usize,
    metrics: Metrics,
    tasks: Mutex<JoinSet<()>>,
    supervisor: Arc<Supervisor>,
}

#[cfg(target_os = "linux")]
impl Jail {
    /// Starts `program` as a zygote for `workers` concurrent pictures; 0 means one per core. It does not
    /// check that the zygote works; [`check`](Self::check) does.
    ///
    /// # Errors
    /// If the system starts no thread for the supervisor.
    pub fn open(program: Program, workers: usize, metrics: Metrics) -> io::Result<Self> {
        let workers = match workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        for end in WorkerEnd::ALL {
            metrics.expect_worker_end(end.name());
        }
        Ok(Self {
            workers,
            tasks: Mutex::default(),
            supervisor: Arc::new(Supervisor::start(program, metrics.clone())?),
            metrics,
        })
    }

    /// Processes a built-in picture. This shows that workers start on this system, give up their
    /// rights, and answer.
    ///
    /// # Errors
    /// The reason why workers cannot work.
    pub async fn check(&self) -> Result<(), Error> {
        let recipe = Arc::new(sample::recipe());
        let bytes = Bytes::from_static(sample::PICTURE);
        let picture = Picture {
            probe: cameo_imaging::probe_for(&bytes, &recipe, None)?,
            bytes,
            recipe,
            crop: None,
            deadline: Duration::from_secs(10),
            reserved: Box::new(()),
        };
        let (sender, _outputs) = mpsc::channel(8);
        let (done, outcome) = oneshot::channel();
        self.start(picture, sender, done);
        let outcome = outcome.await.unwrap_or(Err(Error::Cancelled));
        outcome.map(drop)
    }

    fn start(
        &self,
        picture: Picture,
        outputs: mpsc::Sender<Output>,
        done: oneshot::Sender<Result<Processed, Error>>,
    ) {
        let supervisor = Arc::clone(&self.supervisor);
        let work = exchange::run(
            supervisor,
            (self.workers, self.metrics.clone()),
            picture,
            outputs,
            done,
        );
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }
}

/// The built-in picture of [`Jail::check`].
#[cfg(target_os = "linux")]
mod sample {
    use crate::avatar::{Format, SourceFormat, VariantName};
    use cameo_imaging::{Limits, Recipe, Target};

    /// One grey pixel.
    pub(super) const PICTURE: &[u8] =
        b"GIF89a\x01\0\x01\0\x80\0\0\x80\x80\x80\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

    pub(super) fn recipe() -> Recipe {
        let name = VariantName::new("sample").ok();
        let target = |name| Target { name, edge_px: 1 };
        Recipe {
            limits: Limits {
                formats: vec![SourceFormat::Gif],
                min_edge_px: 1,
                max_edge_px: 1,
                max_frames: 1,
            },
            variants: name.map(target).into_iter().collect(),
            formats: vec![Format::Webp, Format::Jpeg],
            webp_quality: 80,
            jpeg_quality: 80,
            background: [0; 3],
            animated: false,
            keep_original: false,
        }
    }
}
