use std::collections::{HashMap, HashSet};

use cameo_testing::redis::{RedisCluster, RedisSentinel, RedisServer};
use futures_util::future;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::avatar::{AvatarId, Change, Record, Version};
use crate::catalog::{
    Claimed, Cursor, Due, InitialState, Precondition, Records, Removals, Replaced, Reservation,
    Restored, Stats, UploadState, Uploader, codec, contract,
};

mod contract_suite;
mod layouts;
mod lost_writes;

fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        address: url.parse().unwrap(),
        partitions: Partitions::new(16).unwrap(),
        events_kept: contract::EVENTS_KEPT,
        wait: None,
        wait_timeout: std::time::Duration::from_secs(3),
    }
}

async fn open(url: &str) -> RedisCatalog {
    let catalog = RedisCatalog::open(&settings(url)).await.unwrap().0;
    catalog.initialize(InitialState::New).await.unwrap();
    catalog
}

const MINUTE: Duration = Duration::from_mins(1);

fn subject(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

/// Uploads an avatar for the subject.
async fn uploaded(catalog: &RedisCatalog, subject: &SubjectId) -> Record {
    let mut record = contract::record(1, 0);
    record.avatar_id = AvatarId::random().unwrap();
    let reserved = catalog
        .reserve(subject, record.avatar_id, MINUTE, Uploader::Ordinary)
        .await;
    Reservation {
        version: record.version,
        reserved_at: record.reserved_at,
    } = reserved.unwrap().unwrap();
    let anything = Precondition::Anything;
    let replaced = catalog
        .replace(subject, &record, &anything, MINUTE, Uploader::Ordinary)
        .await;
    assert!(matches!(replaced, Ok(Replaced::Committed)));
    record
}

#[tokio::test]
async fn two_replicas_see_each_others_uploads() {
    let server = RedisServer::start();
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    let record = uploaded(&one, &subject("42")).await;
    assert_eq!(other.get(&subject("42")).await.unwrap(), Some(record));
    assert_eq!(uploaded(&other, &subject("42")).await.version, Version(2));
}

#[tokio::test]
async fn a_dead_redis_fails_fast_and_a_restarted_one_has_its_records() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let catalog = open(&server.url()).await;
    let record = uploaded(&catalog, &subject("42")).await;
    let who = subject("42");
    server.kill();
    let begun = std::time::Instant::now();
    for _ in 0..3 {
        let error = catalog.get(&subject("42")).await.unwrap_err();
        assert!(!error.is_corrupt());
        let anything = Precondition::Anything;
        let commit = catalog.replace(&who, &record, &anything, MINUTE, Uploader::Ordinary);
        assert!(!commit.await.unwrap_err().is_corrupt());
    }
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    server.restart();
    let events = contract::events(&catalog).await;
    assert_eq!(events[0].change, Change::Updated(record.clone()));
    assert_eq!(catalog.get(&subject("42")).await.unwrap(), Some(record));
    // The new process does not have the scripts, so they are sent again. It may have lost writes, so
    // the next version is above every earlier version.
    let next = uploaded(&catalog, &subject("42")).await;
    assert!(next.version > Version(50_000_000_000), "{}", next.version);
}

#[tokio::test]
async fn a_dead_master_of_a_cluster_does_not_stop_the_others() {
    let mut cluster = RedisCluster::start();
    let catalog = open(&cluster.url()).await;
    let names: Vec<_> = (0..32).map(|number| subject(&number.to_string())).collect();
    for name in &names {
        uploaded(&catalog, name).await;
    }
    cluster.nodes()[2].kill();
    let begun = std::time::Instant::now();
    let reads = future::join_all(names.iter().map(|name| catalog.get(name))).await;
    assert!(begun.elapsed().as_secs() < 3, "{:?}", begun.elapsed());
    let alive = reads.iter().filter(|read| read.is_ok()).count();
    assert!((1..32).contains(&alive), "{alive} of 32");
    catalog.check().await.unwrap_err();
}

#[tokio::test]
async fn the_catalog_follows_a_failover() {
    let mut sentinel = RedisSentinel::start();
    let catalog = open(&sentinel.url()).await;
    let before = uploaded(&catalog, &subject("42")).await;
    let replica = sentinel.add_replica();
    sentinel.master.kill();
    sentinel.wait_for_master(&replica);
    // The first command may still use the connection to the old master.
    let _ = catalog.check().await;
    assert_eq!(catalog.get(&subject("42")).await.unwrap(), Some(before));
    // The replica may lack the last writes of the dead master.
    let next = uploaded(&catalog, &subject("42")).await;
    assert!(next.version > Version(50_000_000_000), "{}", next.version);
}

/// A fault of the network.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// After this many commands the next command is delayed until the fault ends.
    Hold {
        after: u32,
    },
    /// After this many answers the next answer is lost with its connection.
    Lose {
        after: u32,
    },
}

/// Starts a proxy that causes the faults in `set`, and returns its address.
async fn proxy_to(server: &RedisServer, set: &watch::Sender<Fault>) -> String {
    let port: u16 = server.port().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let set = set.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (set, mut fault) = (set.clone(), set.subscribe());
            tokio::spawn(async move {
                let (mut asked, mut answered) = ([0; 4096], [0; 4096]);
                let (mut commands, mut answers) = (0, 0);
                loop {
                    if fault.has_changed().unwrap() {
                        (commands, answers) = (0, 0);
                    }
                    let now = *fault.borrow_and_update();
                    tokio::select! {
                        read = client.read(&mut asked) => {
                            if matches!(now, Fault::Hold { after } if commands == after) {
                                fault.wait_for(|fault| *fault == Fault::None).await.unwrap();
                            }
                            commands += 1;
                            server.write_all(&asked[..read.unwrap()]).await.unwrap();
                        }
                        read = server.read(&mut answered) => {
                            if matches!(now, Fault::Lose { after } if answers == after) {
                                set.send_replace(Fault::None);
                                return;
                            }
                            answers += 1;
                            client.write_all(&answered[..read.unwrap()]).await.unwrap();
                        }
                        _ = fault.changed() => (commands, answers) = (0, 0),
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_delayed_delete_does_not_remove_a_later_upload() {
    let server = RedisServer::start();
    let fault = watch::Sender::new(Fault::None);
    let held_up = open(&proxy_to(&server, &fault).await).await;
    let catalog = open(&server.url()).await;
    let who = subject("42");
    // From here on the server has both scripts.
    uploaded(&catalog, &who).await;
    held_up
        .remove(&who, &Precondition::Anything, MINUTE)
        .await
        .unwrap()
        .unwrap();
    uploaded(&catalog, &who).await;
    let scripts = || {
        let calls = server.ask::<String>("INFO commandstats");
        let evalsha = calls
            .lines()
            .find(|line| line.starts_with("cmdstat_evalsha:"));
        evalsha.map(|line| line.split(',').next().unwrap().to_owned())
    };

    fault.send_replace(Fault::Hold { after: 1 });
    held_up
        .remove(&who, &Precondition::Anything, MINUTE)
        .await
        .unwrap_err();
    let record = uploaded(&catalog, &who).await;
    let before = scripts();
    fault.send_replace(Fault::None);
    while scripts() == before {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_delete_whose_answer_was_lost_returns_the_removed_record() {
    let server = RedisServer::start();
    let fault = watch::Sender::new(Fault::None);
    let catalog = open(&proxy_to(&server, &fault).await).await;
    let who = subject("42");
    uploaded(&catalog, &who).await;
    catalog
        .remove(&who, &Precondition::Anything, MINUTE)
        .await
        .unwrap()
        .unwrap();
    let record = uploaded(&catalog, &who).await;

    fault.send_replace(Fault::Lose { after: 1 });
    let removed = catalog
        .remove(&who, &Precondition::Anything, MINUTE)
        .await
        .unwrap()
        .unwrap();
    let removed = removed.unwrap();
    assert_eq!(removed.record, Some(record));
    assert_eq!(removed.outstanding.len(), 2);
    assert_eq!(catalog.get(&who).await.unwrap(), None);
}

async fn refused(url: &str) -> RedisStartError {
    match RedisCatalog::open(&settings(url)).await {
        Ok(_) => panic!("{url} was accepted"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn an_unusable_redis_is_reported_with_the_reason() {
    let mut server = RedisServer::start_with(&["--requirepass", "secret"]);
    let error = refused(&server.url()).await;
    assert!(
        matches!(error, RedisStartError::Credentials { .. }),
        "{error:?}"
    );
    let wrong = server.url().replace("//", "//:guess@");
    let error = refused(&wrong).await;
    assert!(
        matches!(error, RedisStartError::Credentials { .. }),
        "{error:?}"
    );
    assert!(!error.is_transient());
    let right = server.url().replace("//", "//:secret@");
    open(&right).await;

    server.kill();
    let error = refused(&right).await;
    assert!(
        matches!(error, RedisStartError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.is_transient());
    assert!(!format!("{error:?} {error}").contains("secret"));

    let master = RedisServer::start();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", master.port()]);
    let error = refused(&replica.url()).await;
    assert!(
        matches!(error, RedisStartError::ReadOnly { .. }),
        "{error:?}"
    );

    master.ask::<()>("ACL SETUSER shy on >pw ~other:* +@all");
    let error = refused(&master.url().replace("//", "//shy:pw@")).await;
    assert!(
        matches!(error, RedisStartError::Permission { .. }),
        "{error:?}"
    );

    let mut cluster = RedisCluster::start();
    let error = refused(&cluster.nodes()[0].url()).await;
    assert!(
        matches!(error, RedisStartError::ClusterNode { .. }),
        "{error:?}"
    );

    let sentinel = RedisSentinel::start();
    let error = refused(&sentinel.url().replace("/main", "/mian")).await;
    assert!(
        matches!(error, RedisStartError::UnknownMaster { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let server = RedisServer::start();
    open(&server.url()).await;
    let mut settings = settings(&server.url());
    settings.partitions = Partitions::new(8).unwrap();
    let Err(error) = RedisCatalog::open(&settings).await else {
        panic!("8 partitions were accepted, but 16 are stored")
    };
    assert!(matches!(error, RedisStartError::Partitions { stored: 16 }));
}

#[tokio::test]
async fn a_redis_that_may_evict_or_lose_records_is_a_warning() {
    let server = RedisServer::start();
    assert_eq!(
        RedisCatalog::open(&settings(&server.url()))
            .await
            .unwrap()
            .1,
        []
    );
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let policy = "allkeys-lru".to_owned();
    assert_eq!(
        RedisCatalog::open(&settings(&server.url()))
            .await
            .unwrap()
            .1,
        [
            RedisStartupWarning::Evicts { policy },
            RedisStartupWarning::Forgets
        ]
    );
}

#[tokio::test]
async fn a_damaged_record_is_an_error_and_no_step_changes_it() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    uploaded(&catalog, &who).await;
    let key = catalog.partitions.of("42").key("subjects");
    server.ask::<()>(&format!("HSET {key} 42 AAx"));
    let id = AvatarId::random().unwrap();
    for error in [
        catalog.get(&who).await.unwrap_err(),
        catalog
            .remove(&who, &Precondition::Anything, MINUTE)
            .await
            .unwrap_err(),
        catalog
            .reserve(&who, id, MINUTE, Uploader::Ordinary)
            .await
            .unwrap_err(),
    ] {
        assert!(error.is_corrupt(), "{error:?}");
    }
    assert_eq!(server.ask::<String>(&format!("HGET {key} 42")), "AAx");
}

#[tokio::test]
async fn a_failing_partition_does_not_stop_claims_in_the_others() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let lease = Duration::from_hours(1);
    let mut expected = HashSet::new();
    for number in 0..100 {
        let (subject, avatar) = (subject(&number.to_string()), AvatarId::random().unwrap());
        catalog
            .reserve(&subject, avatar, Duration::ZERO, Uploader::Ordinary)
            .await
            .unwrap()
            .unwrap();
        if catalog.partitions.of(subject.as_str()).0 != 3 {
            expected.insert(avatar);
        }
    }
    server.ask::<()>("SET cameo:{p03}:pending x");
    let mut claimed = HashSet::new();
    while let Ok(some) = catalog.claim(lease, 7).await {
        claimed.extend(some.into_iter().map(|one| one.outstanding.avatar));
    }
    assert!(
        expected.len() < 100,
        "no subject is in the failing partition"
    );
    assert_eq!(claimed, expected);
}

async fn open_only(url: &str) -> RedisCatalog {
    RedisCatalog::open(&settings(url)).await.unwrap().0
}
