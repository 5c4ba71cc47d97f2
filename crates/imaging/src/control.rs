//! When to stop: a deadline for one picture, and a way to give it up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Error;

/// A flag that whoever asked for a picture raises when they no longer wait for it. Clones share
/// the flag.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the picture up. Work that waits is dropped; work that runs ends at its next stage.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the picture was given up.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What ends the work on one picture early. It is asked between stages, and while rows are
/// decoded.
#[derive(Clone, Debug)]
pub struct Control {
    deadline: Option<Instant>,
    cancel: CancelToken,
}

impl Control {
    /// Work that starts now and may take `budget`.
    pub fn starting_now(budget: Duration, cancel: CancelToken) -> Self {
        Self {
            // A budget beyond what the clock can hold is none.
            deadline: Instant::now().checked_add(budget),
            cancel,
        }
    }

    /// Work that nothing ends early.
    pub fn unlimited() -> Self {
        Self {
            deadline: None,
            cancel: CancelToken::new(),
        }
    }

    /// How much time is left; `None` where nothing ends the work but its end.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether the work may go on.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] once the token is raised, [`Error::TooComplex`] past the deadline.
    pub fn check(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::TooComplex {
                reason: "it was not done within the time that one picture may take",
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_one_clone_ends_the_work() {
        let token = CancelToken::new();
        let control = Control::starting_now(Duration::MAX, token.clone());
        assert_eq!(control.check(), Ok(()));
        token.cancel();
        assert_eq!(control.check(), Err(Error::Cancelled));
    }

    #[test]
    fn a_passed_deadline_ends_the_work() {
        let control = Control::starting_now(Duration::ZERO, CancelToken::new());
        assert!(matches!(control.check(), Err(Error::TooComplex { .. })));
    }
}
