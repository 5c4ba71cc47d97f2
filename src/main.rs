//! The `cameo` program.
#![allow(clippy::print_stderr)] // prints the error of a failed command

use std::process::ExitCode;

use cameo::cli::{self, Cli};
use clap::Parser;

fn main() -> ExitCode {
    cli::run(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("cameo: {error:#}");
        ExitCode::FAILURE
    })
}
