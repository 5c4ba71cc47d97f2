//! What the program tells about itself: structured lines on standard error, and metrics.

mod chain;
mod exposition;
mod health;
mod metrics;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use chain::chain;
pub use exposition::Exposition;
pub use health::Health;
pub use metrics::{Metrics, Operations};

use crate::config::Environment;

/// Begins to write lines: JSON in production, for people in development. `RUST_LOG` chooses which.
///
/// # Errors
/// Where the process writes lines already.
pub fn start(environment: Environment) -> Result<(), TryInitError> {
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
