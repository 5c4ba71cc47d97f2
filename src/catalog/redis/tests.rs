use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::avatar::Change;
use crate::catalog::contract;
use crate::redis::testing::{RedisCluster, RedisSentinel, RedisServer};

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

/// Redis's clock, set forward by a key of the partition.
const SHIFTED_CLOCK: &str = "local function now() \
     local time = redis.call('TIME') \
     local shift = redis.call('GET', (KEYS[1]:gsub('subjects$', 'clock-shift'))) or 0 \
     return time[1] * 1000 + math.floor(time[2] / 1000) + shift \
     end\n";

struct ShiftedClock<'a>(&'a RedisCatalog);

#[async_trait]
impl contract::Travel for ShiftedClock<'_> {
    async fn advance(&self, seconds: u64) {
        for partition in self.0.partitions.all() {
            let mut shift = redis::cmd("INCRBY");
            shift.arg(partition.key("clock-shift")).arg(seconds * 1000);
            self.0.link.run::<i64>(&shift).await.unwrap();
        }
    }
}

async fn keeps_the_contract(url: &str) {
    let opened = RedisCatalog::open_with_clock(&settings(url), SHIFTED_CLOCK).await;
    let catalog = opened.unwrap().0;
    contract::run(&catalog, &ShiftedClock(&catalog)).await;
}

#[tokio::test]
async fn one_redis_keeps_the_contract_of_a_catalog() {
    let server = RedisServer::start();
    keeps_the_contract(&server.url()).await;
}

#[tokio::test]
async fn a_cluster_keeps_the_contract_of_a_catalog() {
    let cluster = RedisCluster::start();
    keeps_the_contract(&cluster.url()).await;
}

#[tokio::test]
async fn the_master_that_sentinels_know_keeps_the_contract_of_a_catalog() {
    let sentinel = RedisSentinel::start();
    keeps_the_contract(&sentinel.url()).await;
}

const MINUTE: Duration = Duration::from_mins(1);

fn subject(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

/// Uploads an avatar for the subject.
async fn uploaded(catalog: &RedisCatalog, subject: &SubjectId) -> Record {
    let mut record = contract::record(1, 0);
    record.avatar_id = AvatarId::random().unwrap();
    let reserved = catalog.reserve(subject, record.avatar_id, MINUTE).await;
    Reservation {
        version: record.version,
        reserved_at: record.reserved_at,
    } = reserved.unwrap();
    let anything = Precondition::Anything;
    let replaced = catalog.replace(subject, &record, &anything, MINUTE).await;
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
async fn versions_do_not_go_back_where_redis_is_emptied_in_use() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    uploaded(&catalog, &who).await;
    let before = uploaded(&catalog, &who).await;
    server.ask::<String>("FLUSHALL");
    let after = uploaded(&catalog, &who).await;
    assert!(after.version > before.version, "{}", after.version);
    // What is found of the time before is older, and says so.
    let found = catalog.restore(&who, &before, MINUTE).await;
    assert_eq!(found.unwrap(), Restored::Retired);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(after));
}

#[tokio::test]
async fn a_dead_redis_is_told_at_once_and_a_restarted_one_is_found_with_its_records() {
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
        let commit = catalog.replace(&who, &record, &anything, MINUTE);
        assert!(!commit.await.unwrap_err().is_corrupt());
    }
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    server.restart();
    let told = contract::events(&catalog).await;
    assert_eq!(told[0].change, Change::Updated(record.clone()));
    assert_eq!(catalog.get(&subject("42")).await.unwrap(), Some(record));
    // The scripts are gone with the old process, and come back by themselves. Another process
    // answers, which may have lost writes: the version is above every one that it gave.
    let next = uploaded(&catalog, &subject("42")).await;
    assert!(next.version > Version(50_000_000_000), "{}", next.version);
}

#[tokio::test]
async fn of_a_cluster_with_a_dead_master_the_others_go_on() {
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
async fn a_failover_is_followed() {
    let mut sentinel = RedisSentinel::start();
    let catalog = open(&sentinel.url()).await;
    let before = uploaded(&catalog, &subject("42")).await;
    let replica = sentinel.add_replica();
    sentinel.master.kill();
    sentinel.wait_for_master(&replica);
    // The first command may still meet the connection to the old one.
    let _ = catalog.check().await;
    assert_eq!(catalog.get(&subject("42")).await.unwrap(), Some(before));
    // The replica may have lagged behind the master that died.
    let next = uploaded(&catalog, &subject("42")).await;
    assert!(next.version > Version(50_000_000_000), "{}", next.version);
}

/// What happens on the way to a server.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// After so many commands the next one is held up, and arrives when this is over.
    Hold {
        after: u32,
    },
    /// After so many answers the next one is lost, with its connection.
    Lose {
        after: u32,
    },
}

/// A way to the server on which things happen; its address.
async fn way_to(server: &RedisServer, set: &watch::Sender<Fault>) -> String {
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
async fn a_delete_that_the_network_held_up_takes_no_later_upload_away() {
    let server = RedisServer::start();
    let fault = watch::Sender::new(Fault::None);
    let held_up = open(&way_to(&server, &fault).await).await;
    let catalog = open(&server.url()).await;
    let who = subject("42");
    // Both scripts are known from here on.
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
async fn a_delete_whose_answer_was_lost_still_tells_what_it_took_away() {
    let server = RedisServer::start();
    let fault = watch::Sender::new(Fault::None);
    let catalog = open(&way_to(&server, &fault).await).await;
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
async fn what_keeps_redis_from_being_the_catalog_is_told_by_what_to_change() {
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
        panic!("8 partitions were accepted where there are 16")
    };
    assert!(matches!(error, RedisStartError::Partitions { stored: 16 }));
}

#[tokio::test]
async fn a_redis_that_may_evict_or_forget_is_warned_of() {
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
async fn a_damaged_record_is_an_error_and_no_step_touches_it() {
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
        catalog.reserve(&who, id, MINUTE).await.unwrap_err(),
    ] {
        assert!(error.is_corrupt(), "{error:?}");
    }
    assert_eq!(server.ask::<String>(&format!("HGET {key} 42")), "AAx");
}

#[tokio::test]
async fn a_partition_that_fails_does_not_keep_what_the_others_claim() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let lease = Duration::from_hours(1);
    let mut expected = HashSet::new();
    for number in 0..100 {
        let (subject, avatar) = (subject(&number.to_string()), AvatarId::random().unwrap());
        catalog
            .reserve(&subject, avatar, Duration::ZERO)
            .await
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
        "nobody is in the partition that fails"
    );
    assert_eq!(claimed, expected);
}

const EVERY_SECOND: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

#[tokio::test]
async fn a_redis_that_came_back_older_gives_no_version_twice_and_a_rebuild_keeps_the_newest() {
    let mut server = RedisServer::start_with(&EVERY_SECOND);
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let kept = uploaded(&catalog, &who).await;
    let written = server.written();
    // Both were acknowledged.
    let lost = uploaded(&catalog, &who).await;
    let other = subject("43");
    let lost_too = uploaded(&catalog, &other).await;
    server.lose_writes_after(written);
    assert_eq!(catalog.get(&who).await.unwrap().as_ref(), Some(&kept));
    assert_eq!(catalog.get(&other).await.unwrap(), None);

    // A replica that was started after the loss knows of no version.
    let fresh = RedisCatalog::open(&settings(&server.url()))
        .await
        .unwrap()
        .0;
    let later = uploaded(&fresh, &who).await;
    assert!(later.version > lost.version, "{}", later.version);
    assert!(later.reserved_at > lost.reserved_at);

    // What a rebuild does.
    for (who, record) in [(&who, &lost), (&other, &lost_too)] {
        fresh.raise_version_floor(record.version).await.unwrap();
        let standing = fresh.standing(who, record.avatar_id).await.unwrap();
        assert_eq!(standing, Standing::Unknown);
    }
    let restored = fresh.restore(&who, &lost, MINUTE).await.unwrap();
    assert_eq!(restored, Restored::Retired);
    assert_eq!(fresh.get(&who).await.unwrap(), Some(later));
    let restored = fresh.restore(&other, &lost_too, MINUTE).await.unwrap();
    assert_eq!(restored, Restored::Current(None));
    let next = uploaded(&fresh, &other).await;
    assert!(next.version > lost_too.version);
}

#[tokio::test]
async fn an_upload_whose_commit_was_lost_with_redis_is_restored_from_the_store() {
    let mut server = RedisServer::start_with(&EVERY_SECOND);
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let mut record = contract::record(1, 0);
    let within = Duration::from_millis(300);
    let reserved = catalog.reserve(&who, record.avatar_id, within).await;
    Reservation {
        version: record.version,
        reserved_at: record.reserved_at,
    } = reserved.unwrap();
    let written = server.written();
    let anything = Precondition::Anything;
    let committed = catalog.replace(&who, &record, &anything, MINUTE).await;
    assert_eq!(committed.unwrap(), Replaced::Committed);
    server.lose_writes_after(written);
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    // The sweep claims it once its deadline has passed, and learns that nobody committed it.
    tokio::time::sleep(within).await;
    let claimed = catalog.claim(Duration::ZERO, 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let claimed = &claimed[0];
    assert!(matches!(claimed.due, Due::Expired { .. }));
    let replaced = catalog.replace(&who, &record, &anything, MINUTE).await;
    assert_eq!(replaced.unwrap(), Replaced::NotPending);
    let restored = catalog.restore(&who, &record, MINUTE).await.unwrap();
    assert_eq!(restored, Restored::Current(None));
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record));
}

/// An upload whose objects are all in the store.
type Stored = HashMap<AvatarId, (SubjectId, Record)>;

async fn rebuild(catalog: &RedisCatalog, stored: &Stored) {
    catalog.raise_version_floor(Version(0)).await.unwrap();
    for (who, record) in stored.values() {
        catalog.raise_version_floor(record.version).await.unwrap();
        catalog.restore(who, record, MINUTE).await.unwrap();
    }
}

/// Removes the objects of whatever is due, as the sweep does without a grace.
async fn sweep(catalog: &RedisCatalog, stored: &mut Stored) {
    for Claimed { outstanding, .. } in catalog.claim(MINUTE, 100).await.unwrap() {
        if catalog
            .standing(&outstanding.subject, outstanding.avatar)
            .await
            .unwrap()
            != Standing::Current
        {
            stored.remove(&outstanding.avatar);
            catalog.forget(&outstanding).await.unwrap();
        }
    }
}

#[tokio::test]
async fn random_histories_with_losses_repeat_no_version_and_undo_nothing_that_came_after() {
    for seed in 1..=3 {
        random_history(seed).await;
    }
}

async fn random_history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = RedisServer::start_with(&EVERY_SECOND);
    let mut catalog = open(&server.url()).await;
    let subjects = ["a", "b", "c"].map(subject);
    // What was answered: the highest version of each subject, and its current avatar as long as no
    // loss has come since.
    let mut highest: HashMap<SubjectId, Version> = HashMap::new();
    let mut current: HashMap<SubjectId, Option<AvatarId>> = HashMap::new();
    let mut stored: Stored = HashMap::new();
    let mut lengths = vec![server.written()];
    for step in 0..120 {
        let who = random.choice(&subjects).unwrap();
        let context = format!("seed {seed}, step {step}");
        match random.u32(0..20) {
            0..10 => {
                let record = uploaded(&catalog, who).await;
                let before = highest.insert(who.clone(), record.version);
                assert!(
                    before.is_none_or(|before| before < record.version),
                    "{context}"
                );
                current.insert(who.clone(), Some(record.avatar_id));
                stored.insert(record.avatar_id, (who.clone(), record));
            }
            10..12 => {
                // Given up, with nothing complete in the store.
                let id = AvatarId::random().unwrap();
                let reserved = catalog.reserve(who, id, Duration::ZERO).await.unwrap();
                let before = highest.insert(who.clone(), reserved.version);
                assert!(
                    before.is_none_or(|before| before < reserved.version),
                    "{context}"
                );
            }
            12..14 => {
                let removed = catalog
                    .remove(who, &Precondition::Anything, Duration::ZERO)
                    .await
                    .unwrap()
                    .unwrap();
                for one in removed.iter().flat_map(|removed| &removed.outstanding) {
                    stored.remove(&one.avatar);
                }
                // A delete that found nothing is answered 404.
                if removed.is_some_and(|removed| removed.record.is_some()) {
                    current.insert(who.clone(), None);
                }
            }
            14..16 => sweep(&catalog, &mut stored).await,
            16..18 => rebuild(&catalog, &stored).await,
            _ => {
                server.lose_writes_after(*random.choice(&lengths).unwrap());
                lengths = vec![server.written()];
                current.clear();
                if random.bool() {
                    catalog = RedisCatalog::open(&settings(&server.url()))
                        .await
                        .unwrap()
                        .0;
                } else {
                    // The first command meets the connection to the dead process.
                    let _ = catalog.check().await;
                }
            }
        }
        lengths.push(server.written());
        for (who, expected) in &current {
            let found = catalog.get(who).await.unwrap();
            assert_eq!(found.map(|record| record.avatar_id), *expected, "{context}");
        }
    }
}

#[tokio::test]
async fn what_the_previous_release_wrote_is_read_and_goes_on() {
    let server = RedisServer::start();
    let catalog = RedisCatalog::open(&settings(&server.url()))
        .await
        .unwrap()
        .0;
    let record = contract::previous_record();
    let bytes = data_encoding::HEXLOWER.decode(contract::PREVIOUS_RECORD.as_bytes());
    let entry = [&[0xbd, 0x05, 0x00][..], &bytes.unwrap()].concat();
    let names = ["42", "43"].map(subject);
    let mut sums: HashMap<Partition, HashMap<String, u64>> = HashMap::new();
    for who in &names {
        let partition = catalog.partitions.of(who.as_str());
        let mut set = redis::cmd("HSET");
        set.arg(partition.key("subjects"))
            .arg(who.as_str())
            .arg(&entry);
        catalog.link.run::<i64>(&set).await.unwrap();
        let sums = sums.entry(partition).or_default();
        *sums.entry("avatars".to_owned()).or_default() += 1;
        for one in &record.renditions {
            let name = format!("{}.{}", one.variant, one.format.extension());
            *sums.entry(format!("objects:{name}")).or_default() += 1;
            *sums.entry(format!("bytes:{name}")).or_default() += one.bytes;
        }
    }
    for (partition, sums) in sums {
        for (name, sum) in sums {
            let mut set = redis::cmd("HSET");
            set.arg(partition.key("stats")).arg(name).arg(sum);
            catalog.link.run::<i64>(&set).await.unwrap();
        }
    }
    for partition in catalog.partitions.all() {
        let mut set = redis::cmd("SET");
        set.arg(partition.key("floor")).arg("0");
        catalog.link.run::<String>(&set).await.unwrap();
    }
    // An upload that was under way.
    let under_way = AvatarId::from_bytes([9; 16]);
    let name = [b"42\0", &under_way.as_bytes()[..]].concat();
    let partition = catalog.partitions.of("42");
    let mut add = redis::cmd("ZADD");
    add.arg(partition.key("pending"))
        .arg(9_999_999_999_999_u64)
        .arg(&name);
    catalog.link.run::<i64>(&add).await.unwrap();
    let mut set = redis::cmd("HSET");
    set.arg(partition.key("reserved")).arg(&name).arg("701");
    catalog.link.run::<i64>(&set).await.unwrap();

    assert!(catalog.has_begun().await.unwrap());
    assert_eq!(
        catalog.get(&names[0]).await.unwrap().as_ref(),
        Some(&record)
    );
    let page = catalog.get_many(&names).await.unwrap();
    assert!(
        page.iter()
            .all(|found| found.as_ref().unwrap().as_ref() == Some(&record))
    );
    let again = catalog.reserve(&names[0], under_way, MINUTE).await.unwrap();
    assert_eq!(again.version, Version(701));
    let mut committed = contract::record(9, 701);
    committed.reserved_at = again.reserved_at;
    let anything = Precondition::Anything;
    let replaced = catalog
        .replace(&names[0], &committed, &anything, MINUTE)
        .await;
    assert_eq!(replaced.unwrap(), Replaced::Committed);
    assert_eq!(catalog.get(&names[0]).await.unwrap(), Some(committed));
    let removed = catalog.remove(&names[1], &anything, MINUTE).await;
    let removed = removed.unwrap().unwrap().unwrap();
    assert_eq!(removed.record.as_ref(), Some(&record));
    // The sums were carried over.
    let removed = catalog.remove(&names[0], &anything, MINUTE).await;
    let removed = removed.unwrap().unwrap().unwrap();
    assert_eq!(removed.outstanding.len(), 2);
    assert_eq!(catalog.stats().await.unwrap(), Stats::default());
    // The previous release may have lost writes without a trace.
    let next = uploaded(&catalog, &names[1]).await;
    assert!(next.version > Version(50_000_000_000), "{}", next.version);
}

#[tokio::test]
async fn a_record_of_an_unknown_layout_is_an_error_for_its_own_subject_alone() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let (who, later, other) = (subject("42"), subject("43"), subject("44"));
    for who in [&who, &later, &other] {
        uploaded(&catalog, who).await;
    }
    // The entry as a whole, and the body of a record.
    for (who, at) in [(&who, 2), (&later, usize::MAX)] {
        let mut entry = catalog.entry(who).await.unwrap().unwrap();
        let record = contract::record(1, 1);
        let body = entry.len() - codec::body_length(&record);
        entry[at.min(body)] = 99;
        let mut set = redis::cmd("HSET");
        let partition = catalog.partitions.of(who.as_str());
        set.arg(partition.key("subjects"))
            .arg(who.as_str())
            .arg(entry);
        catalog.link.run::<i64>(&set).await.unwrap();
        assert!(catalog.get(who).await.unwrap_err().is_corrupt());
        let removed = catalog.remove(who, &Precondition::Anything, MINUTE).await;
        assert!(removed.unwrap_err().is_corrupt());
    }
    let all = [who, later, other.clone()];
    let found = catalog.get_many(&all).await.unwrap();
    assert!(matches!(&found[..], [Err(_), Err(_), Ok(Some(_))]));
    let (mut next, mut unreadable, mut records) = (Some(Cursor::START), 0, Vec::new());
    while let Some(from) = next {
        let page = catalog.page(&from).await.unwrap();
        unreadable += page.unreadable.len();
        records.extend(page.records);
        next = page.next;
    }
    assert_eq!((unreadable, records.len()), (2, 1));
    uploaded(&catalog, &other).await;
}

#[tokio::test]
async fn an_upload_that_cannot_be_understood_does_not_stop_the_sweep() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let partition = catalog.partitions.of("42");
    let run = async |command: &str, key: &str, arguments: &[&[u8]]| {
        let mut command = redis::cmd(command);
        command.arg(partition.key(key)).arg(arguments);
        catalog.link.run::<i64>(&command).await.unwrap()
    };
    let name = |id: u8| [b"42\0", &[id; 16][..]].concat();
    // Values of a later release, cut off, and of no release; and a name without an id.
    for (id, value) in [
        (1, &b"\x09later"[..]),
        (2, b"\x01\x80"),
        (3, b"x"),
        (4, b""),
    ] {
        let set = if id % 2 == 0 { "pending" } else { "retired" };
        run("ZADD", set, &[b"1", &name(id)]).await;
        run("HSET", "reserved", &[&name(id), value]).await;
    }
    run("ZADD", "pending", &[b"1", b"nonsense"]).await;
    run("ZADD", "retired", &[b"1", b"no subject\0\0"]).await;
    let id = AvatarId::random().unwrap();
    catalog.reserve(&who, id, Duration::ZERO).await.unwrap();

    let claimed = catalog.claim(MINUTE, 100).await.unwrap();
    let ids: Vec<_> = claimed.iter().map(|one| one.outstanding.avatar).collect();
    assert_eq!(ids, [id]);
    // The others come due again like it, and keep what they say.
    assert_eq!(catalog.claim(MINUTE, 100).await.unwrap(), []);
    assert_eq!(run("ZCARD", "pending", &[]).await, 0);
    assert_eq!(run("ZCARD", "retired", &[]).await, 7);
    let kept: Vec<u8> = {
        let mut get = redis::cmd("HGET");
        get.arg(partition.key("reserved")).arg(name(1));
        catalog.link.run(&get).await.unwrap()
    };
    assert_eq!(kept, b"\x09later");
    let listed = catalog.outstanding().await.unwrap();
    assert_eq!(listed.len(), 5);
}

#[tokio::test]
async fn what_a_replica_of_the_previous_release_claimed_was_not_committed() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let mut record = contract::record(1, 0);
    let reserved = catalog.reserve(&who, record.avatar_id, MINUTE).await;
    record.version = reserved.unwrap().version;
    // Its claim moves the id and drops the reservation.
    let partition = catalog.partitions.of("42");
    let name = [b"42\0", &record.avatar_id.as_bytes()[..]].concat();
    for (command, key, due) in [
        ("ZREM", "pending", None),
        ("HDEL", "reserved", None),
        ("ZADD", "retired", Some(1)),
    ] {
        let mut command = redis::cmd(command);
        command.arg(partition.key(key)).arg(due).arg(&name);
        catalog.link.run::<i64>(&command).await.unwrap();
    }
    let anything = Precondition::Anything;
    let replaced = catalog.replace(&who, &record, &anything, MINUTE).await;
    assert_eq!(replaced.unwrap(), Replaced::NotPending);
    assert_eq!(catalog.get(&who).await.unwrap(), None);
}

#[tokio::test]
async fn a_delete_after_a_flushed_redis_is_not_undone_by_a_rebuild() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let before = uploaded(&catalog, &who).await;
    server.ask::<String>("FLUSHALL");
    // A replica that was started since knows of no version, and nobody has uploaded since.
    let fresh = open_only(&server.url()).await;
    let anything = Precondition::Anything;
    let removed = fresh.remove(&who, &anything, MINUTE).await;
    assert_eq!(removed.unwrap().unwrap(), None);
    fresh.raise_version_floor(before.version).await.unwrap();
    let restored = fresh.restore(&who, &before, MINUTE).await.unwrap();
    assert_eq!(restored, Restored::Retired);
    assert_eq!(fresh.get(&who).await.unwrap(), None);
    assert!(uploaded(&fresh, &who).await.version > before.version);
}

async fn open_only(url: &str) -> RedisCatalog {
    RedisCatalog::open(&settings(url)).await.unwrap().0
}
