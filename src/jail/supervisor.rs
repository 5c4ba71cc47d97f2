//! A thread that keeps a zygote running and forwards its reports about the ends of workers.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair,
};
use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::sync::watch;
use tracing::{info, warn};

use super::Program;
use super::wire::{Command, End, REPORT_BYTES, Report, send_with_descriptors};
use crate::telemetry::Metrics;

impl Program {
    fn start(&self) -> io::Result<(Child, OwnedFd)> {
        let (own, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let process = std::process::Command::new(&self.path)
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::from(other))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok((process, own))
    }
}

/// The pause before the second start in a row; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two starts.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A zygote that ran this long is started again without a pause.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Keeps a zygote running until this is dropped, which ends the zygote and all workers.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The socket of the running zygote; `None` while none runs.
pub(super) type Socket = Option<Arc<OwnedFd>>;

struct Shared {
    state: Mutex<State>,
    closing: Condvar,
    zygote: watch::Sender<Socket>,
}

#[derive(Default)]
struct State {
    closing: bool,
    /// Number of workers that were requested so far. The next id follows it.
    count: u64,
    workers: HashMap<u64, Running>,
    /// A worker that was started ahead, so that the next picture does not wait for the fork.
    ahead: Option<Waiting>,
}

struct Running {
    /// Whether it has a picture to compute. A worker that has sent its outcome only has to end.
    busy: bool,
    process: Option<Pid>,
    ended: oneshot::Sender<End>,
}

/// A worker that was requested.
pub(super) struct Worker {
    pub(super) id: u64,
    /// Receives how it ended, when it has been reaped.
    pub(super) ended: oneshot::Receiver<End>,
    zygote: Arc<OwnedFd>,
}

/// A worker that waits for its request. It ends when its socket is closed without one.
pub(super) struct Waiting {
    pub(super) worker: Worker,
    /// The service's end of its socket, which does not block.
    pub(super) socket: OwnedFd,
}

impl Waiting {
    /// Whether it is a child of this zygote, and still runs as far as is known.
    fn is_ready(&mut self, zygote: &Arc<OwnedFd>) -> bool {
        let worker = &mut self.worker;
        Arc::ptr_eq(&worker.zygote, zygote) && worker.ended.try_recv() == Err(TryRecvError::Empty)
    }
}

impl Worker {
    /// Kills the worker if it still runs. The zygote reports its end as usual.
    pub(super) fn kill(&self) {
        // If the zygote has ended, so has the worker.
        let _ = send(
            &self.zygote,
            &Command::Kill(self.id).to_bytes(),
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
    }

    /// Ends the zygote and all its workers. The next zygote starts at once.
    pub(super) fn end_zygote(&self) {
        let _ = shutdown(&self.zygote, Shutdown::Both);
    }
}

impl Supervisor {
    /// Starts the thread, which starts the zygote.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(super) fn start(program: Program, metrics: Metrics) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            closing: Condvar::new(),
            zygote: watch::Sender::new(None),
        });
        // The kernel ends the zygote when the thread that started it ends, so this thread stays.
        let thread = thread::Builder::new().name("jail".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.keep(&program, &metrics)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The socket of the zygote, now and after each restart.
    pub(super) fn zygote(&self) -> watch::Receiver<Socket> {
        self.shared.zygote.subscribe()
    }

    /// A worker that waits for its request: one that was started ahead, if there is one, else a new one.
    ///
    /// # Errors
    /// If the zygote has ended or does not read its socket.
    pub(super) fn take(&self, zygote: &Arc<OwnedFd>) -> io::Result<Waiting> {
        let mut ahead = self.shared.lock().ahead.take();
        if let Some(waiting) = ahead.take_if(|waiting| waiting.is_ready(zygote)) {
            let id = waiting.worker.id;
            if let Some(running) = self.shared.lock().workers.get_mut(&id) {
                running.busy = true;
            }
            return Ok(waiting);
        }
        self.start_worker(zygote, &[])
    }

    /// Starts a worker for the next picture ahead, if none waits yet and the zygote runs.
    pub(super) fn start_ahead(&self) {
        let zygote = self.shared.zygote.borrow().clone();
        let Some(zygote) = zygote else { return };
        if self.shared.lock().ahead.is_some() {
            return;
        }
        // After an error the next picture requests its worker, and reports the error.
        let Ok(waiting) = self.start_worker(&zygote, &[]) else {
            return;
        };
        let mut state = self.shared.lock();
        if let Some(running) = state.workers.get_mut(&waiting.worker.id) {
            running.busy = false;
        }
        // If another thread has started one meanwhile, the end of the replaced one's socket ends it.
        state.ahead = Some(waiting);
    }

    /// Requests a worker from a zygote. The message carries further descriptors in tests only.
    ///
    /// # Errors
    /// If the zygote has ended or does not read its socket.
    pub(super) fn start_worker(
        &self,
        zygote: &Arc<OwnedFd>,
        further: &[BorrowedFd<'_>],
    ) -> io::Result<Waiting> {
        let (own, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        ioctl_fionbio(&own, true)?;
        let (sender, ended) = oneshot::channel();
        let id = {
            let mut state = self.shared.lock();
            state.count += 1;
            let id = state.count;
            let running = Running {
                busy: true,
                process: None,
                ended: sender,
            };
            state.workers.insert(id, running);
            id
        };
        let mut descriptors = vec![other.as_fd()];
        descriptors.extend(further);
        let command = Command::Start(id).to_bytes();
        if let Err(error) = send_with_descriptors(zygote, &command, &descriptors) {
            self.shared.lock().workers.remove(&id);
            return Err(error);
        }
        Ok(Waiting {
            worker: Worker {
                id,
                ended,
                zygote: Arc::clone(zygote),
            },
            socket: own,
        })
    }

    /// The process of some worker that has a picture.
    #[cfg(test)]
    pub(super) fn some_process(&self) -> Option<Pid> {
        let state = self.shared.lock();
        let mut busy = state.workers.values().filter(|worker| worker.busy);
        busy.find_map(|worker| worker.process)
    }

    /// The process of the worker that waits for the next picture.
    #[cfg(test)]
    pub(super) fn process_ahead(&self) -> Option<Pid> {
        let state = self.shared.lock();
        state.workers.get(&state.ahead.as_ref()?.worker.id)?.process
    }

    /// Number of workers that run or were requested, without the one that waits for the next picture.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        let state = self.shared.lock();
        let ahead = state.ahead.as_ref().map(|waiting| waiting.worker.id);
        let ids = state.workers.keys();
        ids.filter(|id| Some(**id) != ahead).count()
    }

    /// Notes that a worker has sent its outcome.
    pub(super) fn finished(&self, worker: &Worker) {
        if let Some(running) = self.shared.lock().workers.get_mut(&worker.id) {
            running.busy = false;
        }
    }

    /// Number of workers that may still compute, those that were requested and have not started
    /// included.
    pub(super) fn busy(&self) -> usize {
        let state = self.shared.lock();
        state.workers.values().filter(|worker| worker.busy).count()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.closing.notify_all();
        if let Some(zygote) = &*self.shared.zygote.borrow() {
            let _ = shutdown(zygote, Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so the state is consistent even if it is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, program: &Program, metrics: &Metrics) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            match program.start() {
                Ok((process, socket)) => {
                    metrics.zygote_started();
                    self.follow(process, socket);
                }
                Err(error) => warn!(%error, "the zygote of the imaging processes does not start"),
            }
            if begun.elapsed() >= STABLE_AFTER {
                pause = FIRST_PAUSE;
            }
            let state = self.lock();
            let is_open = |state: &mut State| !state.closing;
            let (state, _) = self
                .closing
                .wait_timeout_while(state, pause, is_open)
                .unwrap_or_else(PoisonError::into_inner);
            if state.closing {
                return;
            }
            pause = MAX_PAUSE.min(pause * 2);
            info!("the zygote of the imaging processes starts again");
        }
    }

    /// Forwards reports until the zygote ends. Then reaps it, and reports the ends of its workers.
    fn follow(&self, mut process: Child, socket: OwnedFd) {
        let socket = Arc::new(socket);
        self.zygote.send_replace(Some(Arc::clone(&socket)));
        // If the supervisor was dropped before the socket was published, the drop has not closed it.
        if self.lock().closing {
            let _ = shutdown(&socket, Shutdown::Both);
        }
        let mut bytes = [0; REPORT_BYTES];
        loop {
            match recv(&socket, &mut bytes, RecvFlags::empty()) {
                Ok((REPORT_BYTES, _)) => match Report::from_bytes(bytes) {
                    Some(report) => self.pass_on(report),
                    None => break,
                },
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.zygote.send_replace(None);
        let _ = process.kill();
        let status = process.wait();
        let workers = {
            let mut state = self.lock();
            if !state.closing {
                warn!(?status, "the zygote of the imaging processes ended");
            }
            state.ahead = None;
            std::mem::take(&mut state.workers)
        };
        for (_, Running { process, ended, .. }) in workers {
            // The kernel has killed the worker together with the zygote. If this process has id 1, it is
            // now the parent and has to reap the worker; otherwise the call fails at once.
            if let Some(process) = process {
                let _ = waitpid(Some(process), WaitOptions::empty());
            }
            let _ = ended.send(End::Lost);
        }
    }

    fn pass_on(&self, report: Report) {
        let mut state = self.lock();
        match report {
            Report::Started(id, process) => {
                if let Some(running) = state.workers.get_mut(&id) {
                    running.process = Pid::from_raw(process.max(0));
                }
            }
            Report::Ended(id, end) => {
                if let Some(running) = state.workers.remove(&id) {
                    // The receiver is dropped if the service is shutting down.
                    let _ = running.ended.send(end);
                }
            }
        }
    }
}
