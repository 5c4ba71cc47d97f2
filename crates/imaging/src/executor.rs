//! Runs work on another thread of the pool.

use std::sync::mpsc::{self, Receiver, TryRecvError};

use super::Error;

/// Work for another thread.
pub type Task = Box<dyn FnOnce() + Send>;

/// Something that may run tasks on idle threads.
pub trait Executor {
    /// Accepts a task if a thread is idle now, and returns whether it did. An accepted task never
    /// waits for the thread that offered it. If it panics, it is dropped.
    fn offer(&self, task: Task) -> bool;
}

/// An executor without threads: it accepts nothing.
pub(super) struct Inline;

impl Executor for Inline {
    fn offer(&self, _: Task) -> bool {
        false
    }
}

/// A file that another thread is encoding.
pub(super) struct BackgroundEncode(Receiver<Result<Vec<u8>, Error>>);

impl BackgroundEncode {
    /// Starts the work. Returns `None` if no thread is idle; `work` is then not done.
    pub(super) fn begin(
        executor: &dyn Executor,
        work: impl FnOnce() -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> Option<Self> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = Box::new(move || {
            // If the receiver is gone, the file is dropped.
            let _ = sender.send(work());
        });
        executor.offer(task).then_some(Self(receiver))
    }

    /// The file if it is finished.
    pub(super) fn poll(self) -> Result<Result<Vec<u8>, Error>, Self> {
        match self.0.try_recv() {
            Ok(file) => Ok(file),
            Err(TryRecvError::Empty) => Err(self),
            Err(TryRecvError::Disconnected) => Ok(Err(lost())),
        }
    }

    pub(super) fn wait(self) -> Result<Vec<u8>, Error> {
        self.0.recv().unwrap_or_else(|_| Err(lost()))
    }
}

impl Drop for BackgroundEncode {
    /// Waits for the end of the work even if its result is not needed: the memory reserved for a
    /// picture is released only when no thread uses it.
    fn drop(&mut self) {
        // The task sends a result, is dropped, or has already answered.
        let _ = self.0.recv();
    }
}

fn lost() -> Error {
    Error::Internal {
        reason: "a panic in an encoder".to_owned(),
    }
}
