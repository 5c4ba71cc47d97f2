//! Observation of the program: log lines on standard error, metrics, and health.

mod access_lines;
mod chain;
mod exposition;
mod families;
mod health;
mod metrics;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub(crate) use access_lines::{LastLines, TARGET as ACCESS_TARGET};
pub(crate) use chain::chain;
pub(crate) use exposition::Exposition;
pub(crate) use health::Health;
pub(crate) use metrics::{Metrics, Operations};

use access_lines::Writers;

use crate::config::Environment;

/// Logging could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The process has a logger already.
    #[error("the process has a logger already")]
    HasLogger(#[from] TryInitError),
    /// The system starts no thread.
    #[error("the thread that writes access lines cannot be started")]
    Thread(#[from] io::Error),
}

/// Starts logging: JSON lines in production, readable lines in development. `RUST_LOG` sets the filter.
/// Keep the result until the program ends.
///
/// # Errors
/// [`LogError`]
pub(crate) fn start(environment: Environment) -> Result<LastLines, LogError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let (writers, last_lines) = Writers::start()?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writers);
    match environment {
        Environment::Production => registry
            .with(lines.json().flatten_event(true).with_current_span(true))
            .try_init()?,
        Environment::Development => {
            let colours = io::stderr().is_terminal();
            registry
                .with(lines.compact().with_ansi(colours))
                .try_init()?;
        }
    }
    Ok(last_lines)
}
