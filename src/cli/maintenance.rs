//! The maintenance commands `gc`, `rebuild`, `reprocess` and `stats`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use crate::app;
use crate::audit::{AuditLog, AuditRecord};
use crate::avatar::{AvatarId, Timestamp};
use crate::catalog::EmbeddedOpenError;
use crate::command_socket;
use crate::config::Config;
use crate::http::Statistics;
use crate::service::{DropLimit, GcOptions, Lost, Named, Rebuilt, Reprocessed, Service};

/// The interval of progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// How many uploads `gc` and `rebuild` hold in memory at once. They take a hundred megabytes.
const WINDOW: usize = 1_000_000;

#[derive(Args)]
pub(super) struct GcArgs {
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep uploads that are younger than this, because they may be under way
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    min_age: Duration,
    /// Remove nothing if there is more garbage than this
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_deletes: usize,
    /// Drop all records of avatars without files, even if they are more than 10 and more than 1 % of
    /// all records
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(super) struct RebuildArgs {
    /// Continue after this upload, which an interrupted rebuild printed last
    #[arg(long, value_name = "AVATAR_ID")]
    after: Option<AvatarId>,
    /// Drop all records of avatars without files, even if they are more than 10 and more than 1 % of
    /// all records
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(super) struct ReprocessArgs {
    /// Print how many avatars would be moved, and move none
    #[arg(long)]
    dry_run: bool,
}

const fn drop_limit(force: bool) -> DropLimit {
    if force {
        DropLimit::None
    } else {
        DropLimit::Few
    }
}

/// Prints progress lines, at most one per [`PROGRESS_INTERVAL`].
struct Progress(Instant);

impl Progress {
    fn print(&mut self, line: impl FnOnce() -> String) {
        if self.0.elapsed() >= PROGRESS_INTERVAL {
            eprintln!("{}", line());
            self.0 = Instant::now();
        }
    }
}

/// Runs a command that changes records. Records the command itself and what it changes in the audit.
async fn audited(
    config: &Config,
    action: &str,
    command: impl AsyncFnOnce(Service) -> anyhow::Result<bool>,
) -> anyhow::Result<ExitCode> {
    let audit = AuditLog::open_direct(config.telemetry.audit_file.as_deref())?;
    let service = app::open_service(config, audit.clone()).await?;
    let sound = command(service).await;
    let outcome = match &sound {
        Ok(true) => "done",
        Ok(false) => "incomplete",
        Err(_) => "failed",
    };
    audit.record(&AuditRecord::of_system(action, outcome));
    let lost = audit.take_lost();
    if let Some(cause) = lost.cause {
        let count = lost.records;
        eprintln!("{count} audit records were not written to telemetry.audit_file: {cause}");
        sound?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(exit_code(sound?))
}

pub(super) async fn rebuild(config: &Config, args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    audited(config, "rebuild", async |service| {
        rebuild_with(&service, args).await
    })
    .await
}

async fn rebuild_with(service: &Service, args: &RebuildArgs) -> anyhow::Result<bool> {
    let mut progress = Progress(Instant::now());
    let report = |last: AvatarId, so_far: &Rebuilt| {
        progress.print(|| format!("{} uploads; continue with --after {last}", so_far.uploads));
    };
    let limit = drop_limit(args.force);
    let done = service.rebuild(args.after, limit, WINDOW, report).await?;
    println!(
        "{} uploads in the store: {} are current now, {} are older and will be swept, {} were \
         known, {} were never finished.",
        done.uploads,
        done.current,
        done.retired,
        done.known,
        done.unfinished + done.incomplete
    );
    if done.policies > 0 {
        println!(
            "The locks and viewers of {} users were restored.",
            done.policies
        );
    }
    let mut sound = print_lost(&done.lost, "dropped");
    if done.unreadable > 0 {
        sound = false;
        println!(
            "{} manifests, policies or records cannot be read: they are damaged, or a later version wrote \
             them. They were skipped.",
            done.unreadable
        );
    }
    Ok(sound)
}

pub(super) async fn reprocess(config: &Config, args: &ReprocessArgs) -> anyhow::Result<ExitCode> {
    if args.dry_run {
        // It changes nothing, so it is no act for the audit.
        let service = app::open_service(config, AuditLog::default()).await?;
        return Ok(exit_code(reprocess_with(&service, true).await?));
    }
    audited(config, "reprocess", async |service| {
        reprocess_with(&service, false).await
    })
    .await
}

async fn reprocess_with(service: &Service, dry_run: bool) -> anyhow::Result<bool> {
    let mut progress = Progress(Instant::now());
    let report = |so_far: &Reprocessed| {
        progress.print(|| format!("{} avatars checked, {} moved", so_far.checked, so_far.moved));
    };
    let done = service.reprocess(dry_run, report).await?;
    println!(
        "{} avatars were checked; {} {}.",
        done.checked,
        done.moved,
        if dry_run {
            "would be moved"
        } else {
            "were moved"
        }
    );
    if done.overtaken > 0 {
        println!(
            "{} were replaced or deleted meanwhile, and need no move.",
            done.overtaken
        );
    }
    let mut sound = print_incomplete(&done.incomplete);
    if done.unreadable > 0 {
        sound = false;
        println!(
            "{} records cannot be read: they are damaged, or a later version wrote them. They were \
             skipped.",
            done.unreadable
        );
    }
    Ok(sound)
}

pub(super) async fn gc(config: &Config, args: &GcArgs) -> anyhow::Result<ExitCode> {
    if args.dry_run {
        // It changes nothing, so it is no act for the audit.
        let service = app::open_service(config, AuditLog::default()).await?;
        return Ok(exit_code(gc_with(&service, config, args).await?));
    }
    audited(config, "gc", async |service| {
        gc_with(&service, config, args).await
    })
    .await
}

async fn gc_with(service: &Service, config: &Config, args: &GcArgs) -> anyhow::Result<bool> {
    // An upload under way is never garbage, whatever --min-age says.
    let collecting = GcOptions {
        dry_run: args.dry_run,
        drop_limit: drop_limit(args.force),
        min_age: args.min_age.max(config.lifecycle.upload_deadline * 2),
        max_removals: args.max_deletes,
        window: WINDOW,
    };
    let mut progress = Progress(Instant::now());
    let found = service
        .collect_garbage(Timestamp::now(), &collecting, |so_far| {
            progress.print(|| {
                format!(
                    "{} uploads listed, {} removed",
                    so_far.uploads, so_far.removed
                )
            });
        })
        .await?;
    let garbage = found.garbage.count;
    println!(
        "{} uploads in the store: {garbage} are garbage ({} bytes), {} more are too young to judge.",
        found.uploads, found.garbage_bytes, found.young
    );
    let mut sound = true;
    if args.dry_run {
        for avatar in &found.garbage.names {
            println!("would remove {avatar}");
        }
        print_rest(&found.garbage);
    } else if garbage > args.max_deletes as u64 {
        sound = false;
        println!(
            "Nothing was removed: that is more than --max-deletes {}. Check that the catalog is the \
             right one, then raise the limit.",
            args.max_deletes
        );
    } else {
        println!("{} were removed.", found.removed);
    }
    if found.forgotten > 0 {
        sound = false;
        println!(
            "{} have a manifest, but the catalog does not know them; `cameo rebuild` restores them.",
            found.forgotten
        );
    }
    sound &= print_incomplete(&found.incomplete);
    sound &= print_lost(&found.lost, if args.dry_run { "found" } else { "dropped" });
    if found.unreadable > 0 {
        sound = false;
        println!(
            "{} records cannot be read: they are damaged, or a later version wrote them. They were \
             skipped.",
            found.unreadable
        );
    }
    Ok(sound)
}

/// Prints what `GET /api/v1/stats` answers. If a service has the embedded catalog open, that service
/// reads the statistics. Needs no store.
pub(super) async fn stats(config: &Config) -> anyhow::Result<()> {
    let text = match app::read_stats(config).await {
        Ok(stats) => Statistics::from(stats).to_json()?,
        Err(error) if is_in_use(&error) => {
            let answer = command_socket::ask(&config.data_dir, command_socket::STATS).await;
            let unanswered = "the process that uses the catalog gives no statistics";
            answer.context(unanswered).context(error)?
        }
        Err(error) => return Err(error),
    };
    println!("{text}");
    Ok(())
}

/// Whether another process has the embedded catalog open.
fn is_in_use(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<EmbeddedOpenError>();
    matches!(error, Some(EmbeddedOpenError::InUse { .. }))
}

/// Prints the records without files. Returns whether nothing is left to do.
fn print_lost(lost: &Lost, done: &str) -> bool {
    let Named { count, names } = &lost.avatars;
    for avatar in names {
        println!("lost     the avatar {avatar} has no files in the store");
    }
    print_rest(&lost.avatars);
    if lost.is_over_limit {
        println!(
            "These {count} records were not dropped: they are more than 10, and more than 1 % of \
             all. Check that the store is the right one, then use --force."
        );
    } else if *count > 0 {
        println!(
            "{} of these {count} records were {done}.",
            match done {
                "found" => *count,
                _ => lost.dropped,
            }
        );
    }
    !lost.is_over_limit
}

pub(super) fn print_incomplete(incomplete: &Named) -> bool {
    for avatar in &incomplete.names {
        println!("wrong    the current avatar {avatar} lacks objects in the store");
    }
    print_rest(incomplete);
    incomplete.count == 0
}

fn print_rest(named: &Named) {
    let rest = named.count - named.names.len() as u64;
    if rest > 0 {
        println!("... and {rest} more");
    }
}

pub(super) fn exit_code(sound: bool) -> ExitCode {
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
