//! The command `doctor`: opens what the configuration names, tries it, and prints the results.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;

use super::maintenance;
use crate::app;
use crate::audit;
use crate::auth::{FixedKeys, RemoteKeys};
use crate::avatar::{AvatarId, Format, SubjectId};
use crate::config::{Config, Moderation, TokenIssuer};
use crate::moderation::{HttpModerator, Moderator, Part, Submission, Verdict};
use crate::service::Service;
use crate::telemetry::Metrics;
use crate::waiting::Waiting;

/// How many avatars are compared with the store.
const SAMPLE: usize = 20;
/// The largest difference of clocks without a warning.
const MAX_CLOCK_SKEW_S: u64 = 5;

pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
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
    let no_warnings = Vec::new();
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
    if let Some(path) = &config.telemetry.audit_file {
        let summary = format!("audit records are written to {}", path.display());
        let checked = audit::check(path).map_err(anyhow::Error::from);
        print(&checked.as_ref().map(|()| (&summary, &no_warnings)));
    }
    if let Some(settings) = &config.moderation {
        let asked = ask_moderation(settings).await;
        print(&asked.as_ref().map(|summary| (summary, &no_warnings)));
    }
    for issuer in config.auth.issuers() {
        let checked = check_keys(issuer).await;
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
        maintenance::exit_code(sound)
    })
}

/// A picture of nobody, of 256 × 256 pixels.
const SAMPLE_PICTURE: &[u8] = include_bytes!("sample.webp");

/// Asks the moderation service for a verdict on a built-in picture, as the user `doctor`. So the
/// address, the signature and the form of the answer are tested. Either verdict is good.
///
/// # Errors
/// If there is no verdict.
async fn ask_moderation(settings: &Moderation) -> anyhow::Result<String> {
    let moderator = HttpModerator::new(settings)?;
    let begun = Instant::now();
    let submission = Submission {
        subject: SubjectId::new("doctor")?,
        avatar: AvatarId::random()?,
        part: Part::Still,
        format: Format::Webp,
        bytes: SAMPLE_PICTURE.into(),
    };
    let verdict = moderator.judge(&submission).await;
    let verdict = match verdict.context("moderation.url: there is no verdict on a sample")? {
        Verdict::Allow => "allows",
        Verdict::Reject(_) => "rejects",
    };
    Ok(format!(
        "moderation at {} {verdict} a built-in sample, after {} ms",
        moderator.origin(),
        begun.elapsed().as_millis()
    ))
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
    Ok(maintenance::print_incomplete(&sample.incomplete) && sample.unreadable == 0)
}

/// The keys of an issuer, tried for real.
struct CheckedKeys {
    /// Which keys verify the issuer's tokens, for an operator.
    summary: String,
    /// Problems that an operator should check.
    warnings: Vec<String>,
}

/// Reads the keys of an issuer, and fetches those that it publishes.
///
/// # Errors
/// If a key cannot be used, or if the keys cannot be fetched.
async fn check_keys(issuer: &TokenIssuer) -> anyhow::Result<CheckedKeys> {
    let fixed = FixedKeys::of(issuer, None)?;
    let mut parts = vec![fixed.to_string()];
    let mut warnings = Vec::new();
    if let Some(remote) = RemoteKeys::of(issuer, &Metrics::new())? {
        let begun = Instant::now();
        let fetched = remote.fetch().await;
        let set =
            fetched.with_context(|| format!("{}: the keys cannot be fetched", issuer.path))?;
        let took = begun.elapsed().as_millis();
        parts.push(format!("{set} from {}, fetched in {took} ms", set.address));
        let skipped = set.skipped.iter();
        warnings.extend(skipped.map(|key| format!("a key of the set is not used: {key}")));
        if set.is_empty() {
            warnings.push("no key of the set can be used, so every token is refused".to_owned());
        }
        let skew = set.clock_skew_s.unwrap_or_default();
        if skew.unsigned_abs() > MAX_CLOCK_SKEW_S {
            let side = if skew > 0 { "ahead of" } else { "behind" };
            warnings.push(format!(
                "the issuer's clock is {} s {side} this machine's; {}.leeway must cover the difference",
                skew.unsigned_abs(),
                issuer.path
            ));
        }
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() {
        parts.push("the secret that this service generates".to_owned());
    }
    let issuer_name = issuer.issuer.as_deref().unwrap_or("any issuer");
    Ok(CheckedKeys {
        summary: format!(
            "{}: tokens of {issuer_name} are verified with {}",
            issuer.path,
            parts.join("; ")
        ),
        warnings,
    })
}
