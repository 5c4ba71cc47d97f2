//! Errors with all their causes, for log lines.

use std::error::Error;
use std::fmt;

/// Shows an error and every cause behind it, separated by colons: `the store could not write an
/// object: timed out: connection reset`.
///
/// An error's own text leaves out its causes, and the JSON lines of production show only that text.
/// So a failure is logged with its chain, once, where it is handled:
/// `warn!(error = %chain(&error), "a sweep failed")`.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failure {
        text: &'static str,
        source: Option<Box<Failure>>,
    }

    #[test]
    fn every_cause_is_shown_once_from_the_outermost_in() {
        let mut error = Failure {
            text: "the connection was reset",
            source: None,
        };
        assert_eq!(chain(&error).to_string(), "the connection was reset");
        for text in ["an object was not written", "the upload failed"] {
            let source = Some(Box::new(error));
            error = Failure { text, source };
        }
        let shown = "the upload failed: an object was not written: the connection was reset";
        assert_eq!(chain(&error).to_string(), shown);
    }
}
