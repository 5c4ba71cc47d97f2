//! Changes that wait for a confirmation (`catalog.redis.wait`).

use super::*;

#[tokio::test]
async fn changes_wait_for_the_append_only_file() {
    let options = ["--appendonly", "yes", "--appendfsync", "everysec"];
    let server = RedisServer::start_program(Program::valkey(), &options);
    let mut settings = settings(&server.url(), Some(RedisConfirmation::Aof));
    // The file is synced once a second.
    settings.wait_timeout = Duration::from_secs(5);
    let (catalog, warnings) = RedisCatalog::open(&settings).await.unwrap();
    catalog.initialize(InitialState::New).await.unwrap();
    assert_eq!(warnings, []);
    let who = subject("42");
    let before = calls(&server, "waitaof");
    let record = upload(&catalog, &who).await.unwrap();
    assert_eq!(calls(&server, "waitaof"), before + 1);
    let removed = remove(&catalog, &who).await.unwrap().unwrap();
    assert_eq!(removed.record, Some(record));
    assert_eq!(calls(&server, "waitaof"), before + 2);
}

#[tokio::test]
async fn an_unconfirmed_change_is_an_error_and_a_repetition_confirms_it() {
    // The server never syncs its file, so it confirms nothing.
    let options = ["--appendonly", "yes", "--appendfsync", "no"];
    let server = RedisServer::start_program(Program::valkey(), &options);
    let (catalog, warnings) = open_waiting(&server.url(), Some(RedisConfirmation::Aof)).await;
    assert_eq!(warnings, [RedisStartupWarning::Unconfirmed]);
    let who = subject("42");
    let record = reserved(&catalog, &who).await.unwrap();
    let begun = Instant::now();
    let error = commit(&catalog, &who, &record).await.unwrap_err();
    assert!(
        !error.is_corrupt() && text_of(&error).contains("outcome is unknown"),
        "{error:?}"
    );
    assert!(begun.elapsed() < WAIT_TIMEOUT * 2, "{:?}", begun.elapsed());
    // The change happened, and a repetition is confirmed when the server syncs again.
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record.clone()));
    commit(&catalog, &who, &record).await.unwrap_err();
    server.ask::<()>("CONFIG SET appendfsync always");
    assert_eq!(
        commit(&catalog, &who, &record).await.unwrap(),
        Replaced::Committed
    );
}

#[tokio::test]
async fn in_a_cluster_changes_wait_for_the_append_only_file() {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let cluster = RedisCluster::start_program(&Program::valkey(), &options);
    let (catalog, warnings) = open_waiting(&cluster.url(), Some(RedisConfirmation::Aof)).await;
    assert_eq!(warnings, []);
    for number in 0..24 {
        let who = subject(&number.to_string());
        upload(&catalog, &who).await.unwrap();
        assert!(remove(&catalog, &who).await.unwrap().is_some());
    }
    for node in cluster.all() {
        assert!(calls(node, "waitaof") > 0);
        node.ask::<()>("CONFIG SET appendfsync no");
    }
    let error = upload(&catalog, &subject("42")).await.unwrap_err();
    assert!(text_of(&error).contains("outcome is unknown"), "{error:?}");
}

#[tokio::test]
async fn redis_changes_wait_for_a_replica_and_a_repetition_does_not_confirm() {
    changes_wait_for_a_replica(Program::redis()).await;
}

/// Unlike Redis 7.0, Valkey waits only for the writes of the same connection.
#[tokio::test]
async fn valkey_changes_wait_for_a_replica_and_a_repetition_does_not_confirm() {
    changes_wait_for_a_replica(Program::valkey()).await;
}

async fn changes_wait_for_a_replica(program: Program) {
    let aof = ["--appendonly", "yes"];
    let server = RedisServer::start_program(program.clone(), &aof);
    let (catalog, warnings) = open_waiting(&server.url(), Some(RedisConfirmation::Replica)).await;
    assert_eq!(
        warnings,
        [
            RedisStartupWarning::NoReplica,
            RedisStartupWarning::Unconfirmed
        ]
    );
    let who = subject("42");
    let error = upload(&catalog, &who).await.unwrap_err();
    assert!(
        text_of(&error).contains("no replica confirmed"),
        "{error:?}"
    );
    assert!(matches!(
        catalog.check().await.unwrap(),
        Health::Degraded(_)
    ));

    let replica = RedisServer::start_program(program, &["--replicaof", "127.0.0.1", server.port()]);
    replica.wait_until_it_follows();
    let record = upload(&catalog, &who).await.unwrap();
    assert_eq!(catalog.check().await.unwrap(), Health::Healthy);
    let entry = format!("HEXISTS {} 42", catalog.partitions.of("42").key("subjects"));
    assert!(replica.ask::<bool>(&entry));

    // All writes of this connection are confirmed.
    let confirmation = Some(RedisConfirmation::Replica);
    let (other, warnings) = open_waiting(&server.url(), confirmation).await;
    assert_eq!(warnings, []);

    // A hanging replica has acknowledged all earlier writes, and acknowledges no new write.
    let next = reserved(&catalog, &who).await.unwrap();
    replica.pause();
    // The repetitions find the work done and change nothing. The last one uses another connection.
    for catalog in [&catalog, &catalog, &other] {
        commit(catalog, &who, &next).await.unwrap_err();
    }
    remove(&catalog, &who).await.unwrap_err();
    replica.resume();
    replica.wait_until_it_follows();
    // The delete happened. A repetition returns the ids that are left.
    let removed = remove(&catalog, &who).await.unwrap().unwrap();
    assert_eq!(removed.outstanding.len(), 3);
    assert_ne!(record.avatar_id, next.avatar_id);
}

#[tokio::test]
async fn a_dead_connection_confirms_nothing_and_is_replaced() {
    let mut server = RedisServer::start_program(
        Program::valkey(),
        &["--appendonly", "yes", "--appendfsync", "always"],
    );
    let (catalog, _) = open_waiting(&server.url(), Some(RedisConfirmation::Aof)).await;
    let who = subject("42");
    upload(&catalog, &who).await.unwrap();
    server.kill();
    let next = upload(&catalog, &who).await;
    next.unwrap_err();
    server.restart();
    upload(&catalog, &who).await.unwrap();
    // Connections are reused for the next change.
    let clients = || server.ask::<String>("CLIENT LIST").lines().count();
    let before = clients();
    for _ in 0..5 {
        upload(&catalog, &who).await.unwrap();
    }
    assert_eq!(clients(), before);
}

#[tokio::test]
async fn without_wait_an_upload_takes_two_scripts_and_no_other_command() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    upload(&catalog, &who).await.unwrap();
    server.ask::<()>("CONFIG RESETSTAT");
    upload(&catalog, &who).await.unwrap();
    assert_eq!(calls(&server, "evalsha"), 2);
    for command in ["eval", "wait", "waitaof"] {
        assert_eq!(calls(&server, command), 0, "{command}");
    }
}
