//! Observation of the program: log lines on standard error, metrics, and health.

mod chain;
mod exposition;
mod families;
mod health;
mod metrics;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub(crate) use chain::chain;
pub(crate) use exposition::Exposition;
pub(crate) use health::Health;
pub(crate) use metrics::{Metrics, Operations};

use crate::config::Environment;

/// Starts logging: JSON lines in production, readable lines in development. `RUST_LOG` sets the filter.
///
/// # Errors
/// If the process has a logger already.
pub(crate) fn start(environment: Environment) -> Result<(), TryInitError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match environment {
        Environment::Production => registry
            .with(lines.json().flatten_event(true).with_current_span(true))
            .try_init(),
        Environment::Development => {
            let colours = io::stderr().is_terminal();
            registry.with(lines.compact().with_ansi(colours)).try_init()
        }
    }
}
