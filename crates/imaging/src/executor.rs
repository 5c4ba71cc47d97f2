//! Work that another thread does meanwhile.

use std::sync::mpsc::{self, Receiver, TryRecvError};

use super::Error;

/// What another thread is asked to do.
pub(super) type Task = Box<dyn FnOnce() + Send>;

/// Someone who may have time.
pub(super) trait Executor {
    /// Takes a task if someone is free to begin it now. A task that was taken is done or, where it
    /// panics, dropped; it never waits for whoever offered it.
    fn offer(&self, task: Task) -> bool;
}

/// Nobody has time.
pub(super) struct Inline;

impl Executor for Inline {
    fn offer(&self, _: Task) -> bool {
        false
    }
}

/// A file that another thread encodes.
pub(super) struct BackgroundEncode(Receiver<Result<Vec<u8>, Error>>);

impl BackgroundEncode {
    /// `None` where nobody is free; `work` is then not done.
    pub(super) fn begin(
        executor: &dyn Executor,
        work: impl FnOnce() -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> Option<Self> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = Box::new(move || {
            // Where nobody waits any more, the file goes with the channel.
            let _ = sender.send(work());
        });
        executor.offer(task).then_some(Self(receiver))
    }

    /// The file if it is done.
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
    /// Waits for work that nobody needs any more: what is reserved for the picture is given back
    /// only when nothing of it is in use.
    fn drop(&mut self) {
        // It answers, or its end of the channel goes, or it has answered already.
        let _ = self.0.recv();
    }
}

fn lost() -> Error {
    Error::Internal {
        reason: "a panic in an encoder".to_owned(),
    }
}
