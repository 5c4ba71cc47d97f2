//! Ends work early: a deadline for one picture, and a token that cancels it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Error;

/// A flag that the caller sets when it no longer needs a picture. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the picture. Waiting work is dropped; running work ends at its next check.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the picture was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The conditions that end the work on one picture early. They are checked between stages and while
/// rows are decoded.
#[derive(Clone, Debug)]
pub struct Control {
    deadline: Option<Instant>,
    cancel: CancelToken,
}

impl Control {
    /// A control for work that starts now and may take `budget`.
    pub fn starting_now(budget: Duration, cancel: CancelToken) -> Self {
        Self {
            // If the clock cannot represent the deadline, there is none.
            deadline: Instant::now().checked_add(budget),
            cancel,
        }
    }

    /// A control without a deadline and with a token that is never cancelled.
    pub fn unlimited() -> Self {
        Self {
            deadline: None,
            cancel: CancelToken::new(),
        }
    }

    /// Checks whether the work may continue.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the token is cancelled; [`Error::TooComplex`] after the deadline.
    pub fn check(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::TooComplex {
                reason: Cow::Borrowed("it was not done within the time that one picture may take"),
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
