//! The service's part in processing one picture: requests a worker, checks and forwards its files, and
//! waits for its end.

use std::borrow::Cow;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::inspect::{Arrivals, Fault};
use super::supervisor::{Supervisor, Waiting, Worker};
use super::wire::{
    End, FILE_TAG_BYTES, FRAME_HEAD_BYTES, FileTag, MAX_OUTCOME_BYTES, Outcome, Request, kind,
    send_with_descriptors,
};
use super::{Picture, WorkerEnd};
use crate::avatar::SourceFormat;
use crate::telemetry::Metrics;
use cameo_imaging::{Error, Output, Processed};

/// Maximum time that a picture waits for a zygote while none runs.
const ZYGOTE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time between the outcome of a worker and its end.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time in which the zygote reports the end of a killed worker.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);
/// Uploads up to this size are copied on the thread that serves requests.
const SMALL_UPLOAD_BYTES: usize = 256 << 10;

/// The result of reading from a worker.
enum Answer {
    Outcome(Outcome),
    /// An allocation failed.
    OutOfMemory,
    /// It closed its socket without an outcome.
    Closed,
    /// It sent invalid data.
    Invalid(Fault),
    /// The deadline has passed.
    TimedOut,
    /// The caller cancelled the work.
    GivenUp,
}

/// Processes a picture in a worker. Releases the reservation when the worker has been reaped.
pub(super) async fn run(
    supervisor: Arc<Supervisor>,
    (workers, metrics): (usize, Metrics),
    picture: Picture,
    outputs: mpsc::Sender<Output>,
    mut done: oneshot::Sender<Result<Processed, Error>>,
) {
    let (format, begun) = (picture.probe.format, Instant::now());
    // The clock cannot represent every deadline that the configuration allows.
    let deadline = begun
        .checked_add(picture.deadline)
        .unwrap_or_else(|| begun + Duration::from_hours(24));
    let started = start(&supervisor, workers, &picture, deadline).await;
    let (mut socket, mut worker) = match started {
        Ok(started) => started,
        Err(error) => {
            let reason = format!("no imaging process: {error}");
            warn!(%error, "no imaging process could be started");
            metrics.worker_ended(WorkerEnd::NotStarted.name());
            drop(picture);
            let _ = done.send(Err(Error::Overloaded { reason }));
            return;
        }
    };
    let mut arrivals = Arrivals::new(
        Arc::clone(&picture.recipe),
        picture.probe,
        picture.bytes.len(),
    );
    // From now on only the worker needs the upload.
    let Picture {
        bytes, reserved, ..
    } = picture;
    drop(bytes);
    let answer = tokio::select! {
        biased;
        answer = read(&mut socket, &mut arrivals, &outputs) => match answer {
            Ok(ControlFlow::Continue(outcome)) => Answer::Outcome(outcome),
            Ok(ControlFlow::Break(answer)) => answer,
            Err(_) => Answer::Closed,
        },
        () = tokio::time::sleep_until(deadline) => Answer::TimedOut,
        () = done.closed() => Answer::GivenUp,
    };
    drop((socket, outputs));
    if matches!(answer, Answer::Outcome(_)) {
        supervisor.finished(&worker);
    }
    let is_over = matches!(
        answer,
        Answer::Outcome(_) | Answer::OutOfMemory | Answer::Closed
    );
    if !is_over {
        worker.kill();
    }
    // If the worker sent no outcome, the way it ended gives the reason. Otherwise the caller need not
    // wait for its end.
    let end = match answer {
        Answer::Closed => Some(reap(&mut worker).await),
        _ => None,
    };
    let (result, cause) = conclude(answer, end, &arrivals, format);
    metrics.processed(format, begun.elapsed());
    metrics.worker_ended(cause.name());
    // The caller may have cancelled the work.
    let _ = done.send(result);
    supervisor.start_ahead();
    if end.is_none() {
        reap(&mut worker).await;
    }
    drop(reserved);
}

/// Requests a worker, and passes it its request, its upload and its socket.
async fn start(
    supervisor: &Supervisor,
    workers: usize,
    picture: &Picture,
    deadline: Instant,
) -> io::Result<(UnixStream, Worker)> {
    let mut zygote = supervisor.zygote();
    let patience = deadline.min(Instant::now() + ZYGOTE_TIMEOUT);
    let zygote = match timeout_at(patience, zygote.wait_for(Option::is_some)).await {
        Ok(Ok(zygote)) => zygote.clone(),
        Ok(Err(_)) | Err(_) => None,
    };
    let zygote = zygote.ok_or_else(|| io::Error::other("no zygote runs"))?;
    let upload = sealed(&picture.bytes).await?;
    let left = deadline.saturating_duration_since(Instant::now());
    let mut request = Request::new(&picture.recipe, picture.crop);
    request.upload_bytes = picture.bytes.len();
    request.memory_bytes = picture.probe.memory_bytes;
    request.cpu_seconds = left.as_secs() + 1;
    // This picture needs one core; a second thread needs another one that is idle.
    request.second_thread = supervisor.busy() + 2 <= workers;
    let request = request.to_bytes()?;
    // The buffer of the socket is empty, and has room for every request.
    let send =
        |waiting: &Waiting| send_with_descriptors(&waiting.socket, &request, &[upload.as_fd()]);
    let mut waiting = supervisor.take(&zygote)?;
    #[cfg(test)]
    if super::tests::Attempt::is_for_zygote(&picture.bytes) {
        waiting = supervisor.start_worker(&zygote, &[upload.as_fd()])?;
    }
    if send(&waiting).is_err() {
        // The worker was started ahead, and was killed meanwhile.
        waiting = supervisor.start_worker(&zygote, &[])?;
        send(&waiting)?;
    }
    let socket = UnixStream::from_std(StdStream::from(waiting.socket))?;
    Ok((socket, waiting.worker))
}

/// A file in memory with these bytes. Its seals prevent every change.
async fn sealed(bytes: &Bytes) -> io::Result<OwnedFd> {
    if bytes.len() <= SMALL_UPLOAD_BYTES {
        return seal(bytes);
    }
    let bytes = bytes.clone();
    let sealing = tokio::task::spawn_blocking(move || seal(&bytes));
    sealing.await.map_err(io::Error::other)?
}

fn seal(bytes: &Bytes) -> io::Result<OwnedFd> {
    let file = memfd_create("upload", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut left = &bytes[..];
    while !left.is_empty() {
        match rustix::io::write(&file, left) {
            Ok(count) => left = &left[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// Forwards files until the worker sends its outcome.
async fn read(
    socket: &mut UnixStream,
    arrivals: &mut Arrivals,
    outputs: &mpsc::Sender<Output>,
) -> io::Result<ControlFlow<Answer, Outcome>> {
    let invalid = |fault| Ok(ControlFlow::Break(Answer::Invalid(fault)));
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        socket.read_exact(&mut head).await?;
        let [kind, length @ ..] = head;
        let length = u32::from_ne_bytes(length);
        match kind {
            kind::FILE if length as usize > FILE_TAG_BYTES => {
                if let Err(fault) = arrivals.reserve(length) {
                    return invalid(fault);
                }
                let mut tag = [0; FILE_TAG_BYTES];
                socket.read_exact(&mut tag).await?;
                let file = read_exactly(socket, length as usize - FILE_TAG_BYTES).await?;
                let accepted = FileTag::from_bytes(tag)
                    .ok_or(Fault::Frame)
                    .and_then(|tag| arrivals.accept(tag, file));
                match accepted {
                    Ok(output) => {
                        // The channel has room for every file of the recipe.
                        if outputs.try_send(output).is_err() {
                            return Ok(ControlFlow::Break(Answer::GivenUp));
                        }
                    }
                    Err(fault) => return invalid(fault),
                }
            }
            kind::OUTCOME if length as usize <= MAX_OUTCOME_BYTES => {
                let outcome = read_exactly(socket, length as usize).await?;
                return match Outcome::from_bytes(&outcome) {
                    Some(outcome) => Ok(ControlFlow::Continue(outcome)),
                    None => invalid(Fault::Frame),
                };
            }
            kind::OUT_OF_MEMORY => return Ok(ControlFlow::Break(Answer::OutOfMemory)),
            _ => return invalid(Fault::Frame),
        }
    }
}

async fn read_exactly(socket: &mut UnixStream, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    socket.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Waits until a worker is reaped.
async fn reap(worker: &mut Worker) -> End {
    if let Ok(end) = timeout(END_TIMEOUT, &mut worker.ended).await {
        return end.unwrap_or(End::Lost);
    }
    worker.kill();
    if let Ok(end) = timeout(REAP_TIMEOUT, &mut worker.ended).await {
        return end.unwrap_or(End::Lost);
    }
    warn!("the zygote of the imaging processes does not answer, and is ended");
    worker.end_zygote();
    (&mut worker.ended).await.unwrap_or(End::Lost)
}

/// The result of a picture, and how its worker ended.
fn conclude(
    answer: Answer,
    end: Option<End>,
    arrivals: &Arrivals,
    format: SourceFormat,
) -> (Result<Processed, Error>, WorkerEnd) {
    let crashed = |reason: String| {
        warn!(format = format.name(), reason, "an imaging process crashed");
        let reason = DAMAGED;
        (Err(Error::Corrupt { format, reason }), WorkerEnd::Crashed)
    };
    let too_complex = |reason| Err(Error::TooComplex { reason });
    match answer {
        Answer::Outcome(outcome) => match outcome {
            Outcome::Done(placeholder) => match arrivals.finish(placeholder) {
                Ok(processed) => (Ok(processed), WorkerEnd::Done),
                Err(fault) => crashed(fault.to_string()),
            },
            Outcome::Corrupt(reason) => {
                let reason = shown(reason).unwrap_or(DAMAGED);
                (Err(Error::Corrupt { format, reason }), WorkerEnd::Refused)
            }
            Outcome::TooComplex(reason) => {
                let reason = shown(reason).unwrap_or(TOO_LONG);
                (Err(Error::TooComplex { reason }), WorkerEnd::Refused)
            }
            Outcome::Failed(reason) => (Err(Error::Internal { reason }), WorkerEnd::Refused),
            Outcome::Panicked(message) => crashed(format!("panic: {message}")),
            Outcome::NotReady(reason) => {
                warn!(reason, "an imaging process could not be set up");
                (Err(Error::Overloaded { reason }), WorkerEnd::NotStarted)
            }
        },
        Answer::OutOfMemory => (too_complex(TOO_MUCH_MEMORY), WorkerEnd::OutOfMemory),
        Answer::Invalid(fault) => crashed(fault.to_string()),
        Answer::TimedOut => (too_complex(TOO_LONG), WorkerEnd::TimedOut),
        Answer::GivenUp => (Err(Error::Cancelled), WorkerEnd::GivenUp),
        Answer::Closed => match end.unwrap_or(End::Lost) {
            End::Signalled(signal) if signal == Signal::XCPU.as_raw() => {
                (too_complex(TOO_LONG), WorkerEnd::TimedOut)
            }
            End::Signalled(signal) if is_from_outside(signal) => {
                let reason = format!("an imaging process was ended by signal {signal}");
                warn!(signal, "an imaging process was ended from outside");
                (Err(Error::Overloaded { reason }), WorkerEnd::Killed)
            }
            End::Signalled(signal) => crashed(format!("signal {signal}")),
            End::Exited(code) => crashed(format!("exit code {code}")),
            End::NotStarted(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                let reason = format!("no imaging process: {error}");
                warn!(%error, "no imaging process could be started");
                (Err(Error::Overloaded { reason }), WorkerEnd::NotStarted)
            }
            End::Lost => {
                let reason = "the zygote of the imaging processes ended".to_owned();
                (Err(Error::Overloaded { reason }), WorkerEnd::Killed)
            }
        },
    }
}

const DAMAGED: Cow<'static, str> = Cow::Borrowed("its data is damaged");
const TOO_LONG: Cow<'static, str> =
    Cow::Borrowed("it was not done within the time that one picture may take");
const TOO_MUCH_MEMORY: Cow<'static, str> =
    Cow::Borrowed("it takes more memory than its headers say");

/// Maximum length of a worker's reason in an answer to a client.
const MAX_SHOWN_BYTES: usize = 160;

/// The reason that a worker gives, if it is a line of plain text. The client that sent the picture
/// receives it.
fn shown(reason: String) -> Option<Cow<'static, str>> {
    let is_plain = reason.len() <= MAX_SHOWN_BYTES
        && !reason.is_empty()
        && reason
            .chars()
            .all(|c| c == ' ' || c.is_ascii_graphic() || c == '×');
    is_plain.then_some(Cow::Owned(reason))
}

/// Whether a signal comes from outside: an operator, the system, or a kernel that is out of memory. A
/// worker cannot send signals, and faults raise other ones.
fn is_from_outside(signal: i32) -> bool {
    let signals = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];
    signals.iter().any(|one| one.as_raw() == signal)
}
