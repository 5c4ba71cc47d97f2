//! The catalog on real servers that are too old, full, emptied, without replicas, or moving slots.

mod confirmation;
mod slots;

use std::num::NonZeroU32;
use std::time::Instant;

use cameo_testing::redis::{Program, RedisCluster, RedisServer};

use super::*;
use crate::avatar::{Account, AvatarId, Lock, Policy, Record, Version};
use crate::catalog::{
    Claimed, InitialState, Policies, PolicyChange, Precondition, Records, Removals, Removed,
    Replaced, Uploader, contract,
};
use crate::config::{Limits, Quota, WhenRedisIsDown};
use crate::limits::{Action, Limiter, RedisLimiter, Verdict};
use crate::telemetry::Health;

/// A duration that is longer than any test.
const LONG: Duration = Duration::from_mins(5);
/// The longest wait of a write for its confirmation. A busy machine needs a second. A test of a missing
/// confirmation takes this long.
const WAIT_TIMEOUT: Duration = Duration::from_secs(3);

fn settings(url: &str, wait: Option<RedisConfirmation>) -> RedisSettings {
    RedisSettings {
        address: url.parse().unwrap(),
        partitions: Partitions::new(16).unwrap(),
        events_kept: contract::EVENTS_KEPT,
        wait,
        wait_timeout: WAIT_TIMEOUT,
    }
}

async fn open_waiting(
    url: &str,
    wait: Option<RedisConfirmation>,
) -> (RedisCatalog, Vec<RedisStartupWarning>) {
    let (catalog, warnings) = RedisCatalog::open(&settings(url, wait)).await.unwrap();
    catalog.initialize(InitialState::New).await.unwrap();
    (catalog, warnings)
}

async fn open(url: &str) -> RedisCatalog {
    open_waiting(url, None).await.0
}

async fn refused(url: &str, wait: Option<RedisConfirmation>) -> RedisStartError {
    match RedisCatalog::open(&settings(url, wait)).await {
        Ok(_) => panic!("{url} was accepted"),
        Err(error) => error,
    }
}

fn subject(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

/// Reserves an upload, and returns the record to commit.
async fn reserved(catalog: &RedisCatalog, who: &SubjectId) -> Result<Record, CatalogError> {
    let mut record = contract::record(1, 0);
    record.avatar_id = AvatarId::random().unwrap();
    let reservation = catalog
        .reserve(who, record.avatar_id, LONG, Uploader::Ordinary)
        .await?
        .unwrap();
    record.version = reservation.version;
    record.reserved_at = reservation.reserved_at;
    Ok(record)
}

async fn commit(
    catalog: &RedisCatalog,
    who: &SubjectId,
    record: &Record,
) -> Result<Replaced, CatalogError> {
    let anything = Precondition::Anything;
    catalog
        .replace(who, record, &anything, Duration::ZERO, Uploader::Ordinary)
        .await
}

async fn upload(catalog: &RedisCatalog, who: &SubjectId) -> Result<Record, CatalogError> {
    let record = reserved(catalog, who).await?;
    let replaced = commit(catalog, who, &record).await?;
    assert_eq!(replaced, Replaced::Committed);
    Ok(record)
}

async fn remove(catalog: &RedisCatalog, who: &SubjectId) -> Result<Option<Removed>, CatalogError> {
    let anything = Precondition::Anything;
    let removed = catalog.remove(who, &anything, Duration::ZERO).await?;
    Ok(removed.unwrap())
}

fn text_of(error: &CatalogError) -> String {
    std::error::Error::source(error).unwrap().to_string()
}

#[tokio::test]
async fn a_redis_before_7_is_refused_with_the_reason() {
    let server = RedisServer::start_program(Program::redis6(), &[]);
    let error = refused(&server.url(), None).await;
    assert!(matches!(error, RedisStartError::TooOld { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("version 6.2, and 7.0 or later is needed")
    );
    assert!(!error.is_transient());
    // Hosted servers may deny INFO, and HELLO too.
    for (user, denied) in [("shy", "-info"), ("mute", "-info -hello")] {
        server.ask::<()>(&format!("ACL SETUSER {user} on >pw ~* &* +@all {denied}"));
        let url = server.url().replace("//", &format!("//{user}:pw@"));
        let error = refused(&url, None).await;
        assert!(
            matches!(error, RedisStartError::TooOld { .. }),
            "{user}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_denies_info_and_hello_is_used_if_it_is_new_enough() {
    let server = RedisServer::start();
    server.ask::<()>("ACL SETUSER mute on >pw ~* &* +@all -info -hello");
    let url = server.url().replace("//", "//mute:pw@");
    let (catalog, warnings) = open_waiting(&url, None).await;
    assert_eq!(warnings, [RedisStartupWarning::DeniesInfo]);
    upload(&catalog, &subject("42")).await.unwrap();
}

#[tokio::test]
async fn waiting_for_the_append_only_file_needs_waitaof_and_the_file() {
    let aof = Some(RedisConfirmation::Aof);
    let server = RedisServer::start_program(Program::redis(), &["--appendonly", "yes"]);
    let error = refused(&server.url(), aof).await;
    assert!(
        matches!(error, RedisStartError::NoWaitaof { .. }),
        "{error:?}"
    );
    server.ask::<()>("ACL SETUSER mute on >pw ~* &* +@all -info -hello");
    let error = refused(&server.url().replace("//", "//mute:pw@"), aof).await;
    assert!(
        matches!(error, RedisStartError::NoWaitaof { .. }),
        "{error:?}"
    );

    let server = RedisServer::start_program(Program::valkey(), &[]);
    let error = refused(&server.url(), aof).await;
    assert!(matches!(error, RedisStartError::NoAof { .. }), "{error:?}");
    assert!(!error.is_transient());
}

fn limits() -> Limits {
    let quota = Quota {
        count: NonZeroU32::new(5).unwrap(),
        per: Duration::from_mins(1),
    };
    Limits {
        upload: quota,
        delete: quota,
        service_upload: quota,
        service_delete: quota,
        when_redis_is_down: WhenRedisIsDown::Deny,
    }
}

/// The number of times that the server has run this command.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats: String = server.ask("INFO commandstats");
    let name = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn at_maxmemory_uploads_are_refused_and_deletes_and_the_sweep_continue() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let (who, other) = (subject("42"), subject("43"));
    let kept = upload(&catalog, &who).await.unwrap();
    upload(&catalog, &other).await.unwrap();
    let under_way = reserved(&catalog, &subject("44")).await.unwrap();
    assert_eq!(catalog.check().await.unwrap(), Health::Healthy);
    let mut policy = Policy {
        sequence: 1,
        lock: None,
        viewers: [who.clone(), other.clone()].into(),
    };
    catalog.set_policy(&other, &policy, 0).await.unwrap();

    server.ask::<()>("CONFIG SET maxmemory 1");
    let Health::Degraded(reason) = catalog.check().await.unwrap() else {
        panic!("the catalog is not degraded")
    };
    assert!(reason.contains("maxmemory"), "{reason}");
    let error = reserved(&catalog, &who).await.unwrap_err();
    assert!(error.is_refusal() && !error.is_corrupt(), "{error:?}");
    let error = commit(&catalog, &subject("44"), &under_way)
        .await
        .unwrap_err();
    assert!(error.is_refusal() && !error.is_corrupt(), "{error:?}");
    assert_eq!(catalog.get(&who).await.unwrap(), Some(kept.clone()));
    // A lock is accepted, and so is a change that removes viewers. A new viewer is refused.
    policy.sequence = 2;
    policy.viewers.remove(&who);
    policy.lock = Some(Lock {
        reason: "spam".to_owned(),
        until: None,
        locked_at: contract::NOW,
    });
    let stored = catalog.set_policy(&other, &policy, 1).await.unwrap();
    assert_eq!(stored, PolicyChange::Stored);
    assert_eq!(catalog.policy(&other).await.unwrap().0, policy);
    let more = Policy {
        sequence: 3,
        viewers: [who.clone(), other.clone(), subject("44")].into(),
        ..policy.clone()
    };
    let error = catalog.set_policy(&other, &more, 2).await.unwrap_err();
    assert!(error.is_refusal() && !error.is_corrupt(), "{error:?}");
    assert_eq!(catalog.policy(&other).await.unwrap().0, policy);
    let limiter = RedisLimiter::new(catalog.link().clone(), catalog.partitions, limits());
    let decision = limiter
        .check(Action::Delete, &Account::User(who.clone()))
        .await;
    assert!(matches!(decision.verdict, Verdict::Allowed { .. }) && !limiter.falls_back());
    let removed = remove(&catalog, &who).await.unwrap().unwrap();
    assert_eq!(removed.record, Some(kept));
    let claimed = claim(&catalog).await;
    assert_eq!(claimed.len(), 1);
    catalog.forget(&claimed[0].outstanding).await.unwrap();
    // A process that starts now works, with a warning.
    let (restarted, warnings) = RedisCatalog::open(&settings(&server.url(), None))
        .await
        .unwrap();
    assert_eq!(warnings, [RedisStartupWarning::Full]);
    assert!(restarted.get(&other).await.unwrap().is_some());
    // The watch reports the problem until Redis accepts writes again.
    for _ in 0..2 {
        let watched = restarted.watch().await.unwrap();
        assert_eq!(watched.warnings, [RedisStartupWarning::Full.to_string()]);
    }
    server.ask::<()>("CONFIG SET maxmemory 0");
    assert_eq!(restarted.watch().await.unwrap().warnings, [""; 0]);
    assert_eq!(catalog.check().await.unwrap(), Health::Healthy);
    upload(&catalog, &who).await.unwrap();
}

#[tokio::test]
async fn a_redis_with_too_few_replicas_is_degraded_and_can_be_read() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let record = upload(&catalog, &subject("42")).await.unwrap();
    server.ask::<()>("CONFIG SET min-replicas-to-write 1");
    assert!(matches!(
        catalog.check().await.unwrap(),
        Health::Degraded(_)
    ));
    assert_eq!(catalog.get(&subject("42")).await.unwrap(), Some(record));
    assert!(
        !reserved(&catalog, &subject("42"))
            .await
            .unwrap_err()
            .is_corrupt()
    );
}

#[tokio::test]
async fn with_wait_a_redis_that_refuses_writes_is_a_warning_at_startup() {
    let options = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "3600 1",
    ];
    let server = RedisServer::start_program(Program::valkey(), &options);
    let wait = Some(RedisConfirmation::Aof);
    let who = subject("42");
    let (catalog, _) = open_waiting(&server.url(), wait).await;
    upload(&catalog, &who).await.unwrap();
    let fail_to_save = || server.fail_to_save();
    let miss_a_replica = || server.ask::<()>("CONFIG SET min-replicas-to-write 1");
    let cases: [(&dyn Fn(), RedisStartupWarning); 2] = [
        (&fail_to_save, RedisStartupWarning::Full),
        (&miss_a_replica, RedisStartupWarning::FewReplicas),
    ];
    for (number, (begin_to_refuse, warning)) in cases.into_iter().enumerate() {
        begin_to_refuse();
        let opened = RedisCatalog::open(&settings(&server.url(), wait)).await;
        let (catalog, warnings) = opened.unwrap();
        assert_eq!(warnings, std::slice::from_ref(&warning));
        let watched = catalog.watch().await.unwrap();
        assert_eq!(watched.warnings, [warning.to_string()]);
        assert!(catalog.get(&who).await.unwrap().is_some());
        let health = catalog.check().await.unwrap();
        assert!(matches!(health, Health::Degraded(_)), "{health:?}");
        let error = upload(&catalog, &who).await.unwrap_err();
        assert!(error.is_refusal(), "{error:?}");
        if number == 0 {
            server.save();
            upload(&catalog, &who).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_empty_redis_that_refuses_writes_is_opened_with_a_warning() {
    let server = RedisServer::start();
    server.ask::<()>("CONFIG SET min-replicas-to-write 1");
    let settings = settings(&server.url(), None);
    let (catalog, warnings) = RedisCatalog::open(&settings).await.unwrap();
    assert_eq!(warnings, [RedisStartupWarning::FewReplicas]);
    server.ask::<()>("CONFIG SET min-replicas-to-write 0");
    catalog.initialize(InitialState::New).await.unwrap();
    upload(&catalog, &subject("42")).await.unwrap();
}

#[tokio::test]
async fn running_replicas_store_the_number_of_partitions_again_after_a_flushall() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    assert_eq!(catalog.watch().await.unwrap().warnings, [""; 0]);
    server.ask::<()>("FLUSHALL");
    catalog.watch().await.unwrap();
    let mut other = settings(&server.url(), None);
    other.partitions = Partitions::new(8).unwrap();
    let Err(error) = RedisCatalog::open(&other).await else {
        panic!("8 partitions were accepted, but 16 are stored")
    };
    assert!(matches!(error, RedisStartError::Partitions { stored: 16 }));
}

#[tokio::test]
async fn a_replica_refuses_changes_while_redis_has_another_number_of_partitions() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let under_way = reserved(&catalog, &who).await.unwrap();
    server.ask::<()>("FLUSHALL");
    let mut other = settings(&server.url(), None);
    other.partitions = Partitions::new(8).unwrap();
    let (other, _) = RedisCatalog::open(&other).await.unwrap();
    let warnings = catalog.watch().await.unwrap().warnings;
    assert!(warnings[0].contains("8 partitions"), "{warnings:?}");
    catalog.check().await.unwrap_err();
    for error in [
        reserved(&catalog, &who).await.map(drop).unwrap_err(),
        commit(&catalog, &who, &under_way)
            .await
            .map(drop)
            .unwrap_err(),
        remove(&catalog, &who).await.map(drop).unwrap_err(),
        catalog.claim(LONG, 1).await.map(drop).unwrap_err(),
        catalog
            .restore(&who, &under_way, LONG)
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert!(text_of(&error).contains("8 partitions"), "{error:?}");
    }
    drop(other);
    server.ask::<()>("FLUSHALL");
    assert_eq!(catalog.watch().await.unwrap().warnings, [""; 0]);
    upload(&catalog, &who).await.unwrap();
}

#[tokio::test]
async fn a_skewed_clock_is_a_warning_with_its_difference() {
    let server = RedisServer::start_program(Program::valkey(), &["--appendonly", "yes"]);
    let (catalog, warnings) = open_waiting(&server.url(), None).await;
    assert_eq!(warnings, []);
    let watched = catalog.watch().await.unwrap();
    assert!(watched.clock_skew.unwrap().abs() < 1.0 && watched.warnings.is_empty());

    for seconds in [180, -180] {
        let ahead = Program::valkey().ahead_by(seconds);
        let server = RedisServer::start_program(ahead, &["--appendonly", "yes"]);
        let (catalog, warnings) = open_waiting(&server.url(), None).await;
        assert_eq!(warnings, [RedisStartupWarning::ClockSkew]);
        let watched = catalog.watch().await.unwrap();
        let skew = watched.clock_skew.unwrap();
        assert!((skew - f64::from(seconds)).abs() < 2.0, "{skew}");
        assert_eq!(
            watched.warnings,
            [RedisStartupWarning::ClockSkew.to_string()]
        );
    }
}

#[tokio::test]
async fn a_problem_that_appears_while_running_is_a_warning() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    server.ask::<()>("CONFIG SET maxmemory-policy allkeys-lru");
    let warnings = catalog.watch().await.unwrap().warnings;
    assert!(warnings[0].contains("allkeys-lru"), "{warnings:?}");
    server.ask::<()>("CONFIG SET maxmemory-policy noeviction");
    assert_eq!(catalog.watch().await.unwrap().warnings, [""; 0]);
}

#[tokio::test]
async fn outstanding_uploads_are_listed_in_pages() {
    let server = RedisServer::start_with(&[]);
    let catalog = open(&server.url()).await;
    let who = subject("42");
    for _ in 0..700 {
        reserved(&catalog, &who).await.unwrap();
    }
    assert_eq!(catalog.outstanding().await.unwrap().len(), 700);
    assert_eq!(calls(&server, "zrange"), 0);
    // One scan for each of the two sets of 16 partitions, and more for the long set.
    assert!(calls(&server, "zscan") > 32);
}

async fn claim(catalog: &RedisCatalog) -> Vec<Claimed> {
    catalog.claim(Duration::ZERO, 10).await.unwrap()
}
