//! The maintenance commands: `doctor`, `gc`, `rebuild`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::app;
use crate::avatar::{AvatarId, Timestamp};
use crate::config::Config;
use crate::service::{DropLimit, GcOptions, Lost, Named, Rebuilt, Service};
use crate::telemetry::Metrics;
use crate::waiting::Waiting;

/// The interval of progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// How many avatars `doctor` compares with the store.
const SAMPLE: usize = 20;
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

pub(super) async fn rebuild(config: &Config, args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    let service = app::open_service(config).await?;
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
    Ok(exit_code(sound))
}

pub(super) async fn gc(config: &Config, args: &GcArgs) -> anyhow::Result<ExitCode> {
    let service = app::open_service(config).await?;
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
    Ok(exit_code(sound))
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

pub(super) async fn doctor(config: &Config) -> anyhow::Result<ExitCode> {
    let mut sound = true;
    let mut wrong_setting = false;
    let mut print = |result: &Result<(&String, &Vec<String>), &anyhow::Error>| match result {
        Ok((summary, warnings)) => {
            println!("good     {summary}");
            for warning in *warnings {
                println!("warning  {warning}");
            }
        }
        Err(error) => {
            println!("wrong    {error:#}");
            sound = false;
            wrong_setting |= app::is_configuration(error);
        }
    };
    let metrics = Metrics::new();
    let store = app::open_store(config, Waiting::Not, &metrics).await;
    print(
        &store
            .as_ref()
            .map(|store| (&store.summary, &store.warnings)),
    );
    let catalog = app::open_catalog(config, Waiting::Not).await;
    print(
        &catalog
            .as_ref()
            .map(|catalog| (&catalog.summary, &catalog.warnings)),
    );
    for issuer in config.auth.issuers() {
        let checked = app::check_keys(issuer).await;
        let checked = checked.as_ref();
        print(&checked.map(|keys| (&keys.summary, &keys.warnings)));
    }
    let workers = app::open_workers(config, &super::zygote()?, &metrics).await;
    print(
        &workers
            .as_ref()
            .map(|workers| (&workers.summary, &workers.warnings)),
    );
    if let (Ok(store), Ok(catalog), Ok(workers)) = (store, catalog, workers) {
        let service = app::combine(config, store, catalog, workers, &metrics);
        sound &= agree(&service).await?;
    }
    Ok(if wrong_setting {
        ExitCode::from(super::WRONG_USAGE)
    } else {
        exit_code(sound)
    })
}

/// Whether the store has the objects that the catalog names. Compares a sample.
async fn agree(service: &Service) -> anyhow::Result<bool> {
    service.check_store().await?;
    service.check_catalog().await?;
    let avatars = service.stats().await?.avatars;
    if avatars == 0 && service.holds_uploads().await? {
        println!("wrong    the catalog is empty, but the store holds uploads; run `cameo rebuild`");
        return Ok(false);
    }
    let sample = service.sample(SAMPLE).await?;
    if sample.incomplete.count == 0 {
        println!(
            "good     there are {avatars} avatars; of {} checked, the store has every object",
            sample.checked
        );
    }
    if sample.misplaced > 0 {
        println!(
            "warning  of the avatars checked, {} were uploaded under another delivery.access; `cameo \
             reprocess` moves their images",
            sample.misplaced
        );
    }
    if sample.unreadable > 0 {
        println!(
            "wrong    of the records checked, {} cannot be read: they are damaged, or a later \
             version wrote them",
            sample.unreadable
        );
    }
    Ok(print_incomplete(&sample.incomplete) && sample.unreadable == 0)
}

fn print_incomplete(incomplete: &Named) -> bool {
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

fn exit_code(sound: bool) -> ExitCode {
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
