//! A bounded queue of lines, and the thread that writes them to the file.
//!
//! A disk may be slow, full or gone. So a thread that serves requests never touches the file: it puts
//! a line into the queue, or drops it if the queue is full. The log has each record all the same.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{info, warn};

use super::file::AuditFile;
use crate::telemetry::{Metrics, chain};

/// The number of lines in the queue. A line has some 300 bytes, and at most a few kilobytes.
const MAX_QUEUED: usize = 4096;
/// How often a flush tries to enter a full queue.
const FLUSH_RETRY: Duration = Duration::from_millis(10);

/// Gives lines to the thread that writes them.
pub(super) struct Queue {
    messages: SyncSender<Message>,
    shared: Arc<Shared>,
}

enum Message {
    /// A line to write.
    Line(Vec<u8>),
    /// Wakes the thread, which then looks at `must_reopen`.
    Wake,
    /// Asks for an answer when all earlier lines are written and synced.
    Flush(oneshot::Sender<()>),
}

struct Shared {
    /// Whether the file must be opened again before the next line.
    must_reopen: AtomicBool,
    /// Whether a line was dropped since the queue was last empty. So a full queue is logged once.
    is_overflowing: AtomicBool,
    metrics: Metrics,
}

impl Queue {
    /// Starts the thread. It ends when the queue is dropped and all lines are written.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(file: AuditFile, metrics: &Metrics) -> io::Result<Self> {
        let (messages, received) = sync_channel(MAX_QUEUED);
        let shared = Arc::new(Shared {
            must_reopen: AtomicBool::new(false),
            is_overflowing: AtomicBool::new(false),
            metrics: metrics.clone(),
        });
        let writer = Writer {
            file,
            shared: Arc::clone(&shared),
            is_failing: false,
        };
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&received))?;
        Ok(Self { messages, shared })
    }

    /// Adds a line if there is room.
    pub(super) fn add(&self, line: Vec<u8>) {
        match self.messages.try_send(Message::Line(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.metrics.lost_audit_record();
                if !self.shared.is_overflowing.swap(true, Ordering::Relaxed) {
                    warn!(
                        "the audit file is too slow; records that do not fit into the queue are \
                         only in the log"
                    );
                }
            }
        }
    }

    /// Makes the thread open the file again.
    pub(super) fn reopen(&self) {
        self.shared.must_reopen.store(true, Ordering::Release);
        // If the queue is full, the thread is awake.
        let _ = self.messages.try_send(Message::Wake);
    }

    /// Waits until all lines so far are written and synced.
    pub(super) async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(refused)) = self.messages.try_send(message) {
            message = refused;
            sleep(FLUSH_RETRY).await;
        }
        // An error means that the thread has ended.
        let _ = is_done.await;
    }
}

/// The state of the thread.
struct Writer {
    file: AuditFile,
    shared: Arc<Shared>,
    /// Whether the last write failed. So a full disk is logged once.
    is_failing: bool,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let message = match messages.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Empty) => {
                    self.shared.is_overflowing.store(false, Ordering::Relaxed);
                    match messages.recv() {
                        Ok(message) => message,
                        Err(_) => return,
                    }
                }
                Err(TryRecvError::Disconnected) => return,
            };
            if self.shared.must_reopen.swap(false, Ordering::Acquire) {
                self.reopen();
            }
            match message {
                Message::Line(line) => self.write(&line),
                Message::Wake => {}
                Message::Flush(done) => {
                    if let Err(error) = self.file.sync() {
                        warn!(error = %chain(&error), "the audit file was not synced to the disk");
                    }
                    // The caller may have given up.
                    let _ = done.send(());
                }
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        match self.file.append(line) {
            Ok(()) => {
                if self.is_failing {
                    info!("records are written to the audit file again");
                }
                self.is_failing = false;
            }
            Err(error) => {
                self.shared.metrics.lost_audit_record();
                if !self.is_failing {
                    warn!(
                        path = %self.file.path().display(),
                        error = %chain(&error),
                        "the audit file cannot be written; records are only in the log until it can"
                    );
                }
                self.is_failing = true;
            }
        }
    }

    fn reopen(&mut self) {
        let path = self.file.path().to_owned();
        match self.file.reopen() {
            Ok(()) => info!(path = %path.display(), "the audit file was opened again"),
            Err(error) => {
                self.shared.metrics.failed_to_reopen_audit_file();
                warn!(
                    path = %path.display(),
                    error = %chain(&error),
                    "the audit file cannot be opened again; the file that is open stays in use"
                );
            }
        }
    }
}
