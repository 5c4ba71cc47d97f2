//! The command line: its commands and options, and what each command does.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command line prints

mod doctor;
mod health;
mod maintenance;
mod shutdown;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tracing::{info, warn};

use crate::app::{self, App, Bounds};
use crate::auth;
use crate::config::{self, Config, Environment, Faults, SecretString};
use crate::data_folder;
use crate::http::Startup;
use crate::jail::Program;
use crate::{http, server, telemetry};

/// A standalone avatar service: one upload in, every size out, stored, recorded and served.
#[derive(Parser)]
#[command(name = "cameo", version, about, after_help = AFTER_HELP)]
pub struct Cli {
    /// A TOML file that overrides the defaults; it needs only the keys that differ
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
Without a command, cameo serves.

A variable in the environment can set every key: CAMEO_ + its path in upper case, with __ between
the levels, as in CAMEO_UPLOAD__MAX_BYTES=8MiB. `cameo config` prints all keys.

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.";

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or Ctrl-C; the default
    Serve,
    /// Check the configuration and print all faults
    CheckConfig,
    /// Print every setting with its default and its meaning
    Config,
    /// Print a token, signed with the configured or generated secret (HS256)
    Token(TokenArgs),
    /// Print the OpenAPI document as YAML
    Openapi,
    /// Ask the service on this machine whether it is ready; for a container's health check
    Health,
    /// Test the store, the catalog and the keys of tokens with real operations, and print the results
    Doctor,
    /// Remove objects from the store that nothing refers to
    Gc(maintenance::GcArgs),
    /// Start imaging processes; this program starts this command for itself
    #[cfg(target_os = "linux")]
    #[command(name = ZYGOTE_COMMAND, hide = true)]
    Zygote,
    /// Restore the catalog from the manifests in the store
    Rebuild(maintenance::RebuildArgs),
    /// Move the images of avatars to where delivery.access puts them now; their URLs change
    Reprocess(maintenance::ReprocessArgs),
    /// Print the number and the size of the stored objects as JSON
    Stats,
}

#[derive(Args)]
struct TokenArgs {
    /// The subject of the token: a user id, or the name of a service
    #[arg(long, value_name = "ID")]
    sub: String,
    /// A role, such as admin or service; may be given several times
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// The lifetime of the token, such as 1h or 30d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

/// The exit code if the command line or the configuration is wrong.
const WRONG_USAGE: u8 = 2;

/// Runs the command.
///
/// # Errors
/// Any failure of the command, for `main` to print.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let command = cli.command.unwrap_or(Command::Serve);
    match command {
        Command::Config => print!("{}", config::DEFAULTS),
        Command::Openapi => print!("{}", http::openapi().to_yaml()?),
        #[cfg(target_os = "linux")]
        Command::Zygote => crate::jail::serve_zygote()?,
        command => {
            let (file, variables) = (cli.config.as_deref(), std::env::vars_os());
            let config = match command {
                Command::CheckConfig => config::check(file, variables, app::probe),
                _ => config::load(file, variables),
            };
            let config = match config {
                Ok(config) => config,
                Err(faults) => return Ok(report(&faults)),
            };
            return match run_with(&config, command) {
                Err(error) if app::is_configuration(&error) => {
                    eprintln!("cameo: {error:#}");
                    Ok(ExitCode::from(WRONG_USAGE))
                }
                done => done,
            };
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_with(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Token(args) => print_token(config, &args)?,
        Command::Serve => serve(config)?,
        Command::Health => {
            if !health::is_ready(config.http.bind)? {
                println!("not ready");
                return Ok(ExitCode::FAILURE);
            }
            println!("ready");
        }
        Command::Doctor => return runtime()?.block_on(doctor::run(config)),
        Command::Gc(args) => return runtime()?.block_on(maintenance::gc(config, &args)),
        Command::Rebuild(args) => return runtime()?.block_on(maintenance::rebuild(config, &args)),
        Command::Reprocess(args) => {
            return runtime()?.block_on(maintenance::reprocess(config, &args));
        }
        Command::Stats => runtime()?.block_on(maintenance::stats(config))?,
        // `run` has handled the others.
        _ => {
            for warning in &config.warnings {
                eprintln!("warning: {warning}");
            }
            println!("the configuration is good");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The command that this program starts itself with as the zygote of imaging processes.
const ZYGOTE_COMMAND: &str = "imaging-zygote";

/// This program, for a second start. On Linux it is the file that is running, even if an update has
/// replaced it on the disk: another version might not understand the messages of this one.
fn zygote() -> anyhow::Result<Program> {
    let path = if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        std::env::current_exe().context("this program's own file")?
    };
    Ok(Program::new(path, vec![ZYGOTE_COMMAND.into()]))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

fn report(Faults(faults): &Faults) -> ExitCode {
    let (number, s) = (faults.len(), if faults.len() == 1 { "" } else { "s" });
    eprintln!("the configuration has {number} fault{s}:");
    for fault in faults {
        eprintln!("  {fault}");
    }
    eprintln!("`cameo config` shows every setting and what it means.");
    ExitCode::from(WRONG_USAGE)
}

fn print_token(config: &Config, args: &TokenArgs) -> anyhow::Result<()> {
    let secret = data_folder::jwt_secret(config)?.context(
        "this service only verifies tokens, because auth.algorithms does not have \"HS256\"; the \
         identity provider issues them",
    )?;
    println!(
        "{}",
        auth::issue(&config.auth, &secret, &args.sub, &args.role, args.ttl)?
    );
    Ok(())
}

fn serve(config: &Config) -> anyhow::Result<()> {
    let _last_lines = telemetry::start(config.environment)?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    server::raise_file_limit();
    let shutdown = shutdown::requested(config.lifecycle.drain)?;
    let (secret, zygote) = (data_folder::jwt_secret(config)?, zygote()?);
    let runtime = runtime()?;
    let served = runtime.block_on(async {
        let listener = app::listen("http.bind", config.http.bind).await?;
        let address = listener.local_addr()?;
        let config = &with_real_port(config, address.port());
        let startup = Arc::<Startup>::default();
        let open = async {
            let app = App::open_noting(config, secret.as_ref(), &zygote, &startup).await?;
            if let Some(metrics) = &app.metrics {
                info!(address = %metrics.local_addr()?, "/metrics has an address of its own");
            }
            Ok(app)
        };
        let ready = || {
            let (storage, catalog) = (config.storage.kind(), config.catalog.kind());
            info!(%address, storage, catalog, "ready");
            if config.environment == Environment::Development {
                print_welcome(config, secret.as_ref())?;
            }
            Ok(())
        };
        info!(%address, "listening; only health checks are answered until the service is ready");
        let (startup, bounds) = (Arc::clone(&startup), Bounds::of(config));
        Box::pin(server::serve(
            listener, bounds, startup, open, ready, shutdown,
        ))
        .await
    });
    // A file operation that never returns must not keep the process alive.
    runtime.shutdown_timeout(BLOCKED_TIMEOUT);
    served
}

/// How long file operations may still take after everything else has ended.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(1);

/// Replaces port 0 in the default public URL by the port that the system chose.
fn with_real_port(config: &Config, port: u16) -> Config {
    let mut config = config.clone();
    if let Some(host) = config.http.public_url.strip_suffix(":0") {
        config.http.public_url = format!("{host}:{port}");
    }
    config
}

/// The example photo in the source tree.
const SAMPLE: &str = "examples/portrait.jpg";

/// Prints a first command to try, with a valid token if this service can issue one.
fn print_welcome(config: &Config, secret: Option<&SecretString>) -> anyhow::Result<()> {
    let url = &config.http.public_url;
    let Some(secret) = secret else {
        let text = format!("\n  Cameo is ready at {url}  (documentation: {url}/docs)\n");
        let _ = writeln!(std::io::stdout(), "{text}");
        return Ok(());
    };
    let token = auth::issue(&config.auth, secret, "demo", &[], Duration::from_hours(24))?;
    let photo = if Path::new(SAMPLE).exists() {
        SAMPLE
    } else {
        "photo.jpg"
    };
    // An error here means that standard output is closed.
    let _ = writeln!(
        std::io::stdout(),
        "\n  Cameo is ready at {url}  (documentation: {url}/docs)\n\n  \
         Upload a photo as the user \"demo\", with a token that is valid for a day:\n\n  \
         curl -F file=@{photo} -H 'Authorization: Bearer {token}' {url}/api/v1/users/demo/avatar\n\n  \
         Look at it: {url}/api/v1/users/demo/avatar\n  \
         More tokens: cameo token --sub USER [--role admin]\n"
    );
    Ok(())
}
