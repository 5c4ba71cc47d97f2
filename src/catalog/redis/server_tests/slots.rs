//! Slots of a Cluster that move to another master.

use super::*;

/// Starts to move the slot of this subject's partition, but moves no key.
fn begin_the_move(cluster: &RedisCluster, catalog: &RedisCatalog, who: &SubjectId) {
    let key = catalog.partitions.of(who.as_str()).key("subjects");
    let (owner, other, slot) = cluster.owner_and_other(&key);
    let id = |node: &RedisServer| node.ask::<String>("CLUSTER MYID");
    other.ask::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(owner)));
    owner.ask::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(other)));
}

/// Starts to move the slot of this subject's partition, and moves half of its keys.
fn leave_half_moved(cluster: &RedisCluster, catalog: &RedisCatalog, who: &SubjectId) {
    begin_the_move(cluster, catalog, who);
    let key = catalog.partitions.of(who.as_str()).key("subjects");
    let (owner, other, slot) = cluster.owner_and_other(&key);
    let keys: Vec<String> = owner.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
    assert!(keys.len() > 3, "{keys:?}");
    move_keys(owner, other, &keys[..keys.len() / 2]);
}

fn move_keys(owner: &RedisServer, other: &RedisServer, keys: &[String]) {
    for key in keys {
        owner.ask::<()>(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", other.port()));
    }
}

/// Moves the remaining keys, and assigns the slot to its new owner.
fn finish_the_move(cluster: &RedisCluster, catalog: &RedisCatalog, who: &SubjectId) {
    let key = catalog.partitions.of(who.as_str()).key("subjects");
    let (owner, other, slot) = cluster.owner_and_other(&key);
    move_keys(
        owner,
        other,
        &owner.ask::<Vec<String>>(&format!("CLUSTER GETKEYSINSLOT {slot} 100")),
    );
    let id: String = other.ask("CLUSTER MYID");
    for node in [other, owner] {
        node.ask::<()>(&format!("CLUSTER SETSLOT {slot} NODE {id}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_wait_for_a_moving_slot_and_readiness_reports_an_interrupted_move() {
    let cluster = RedisCluster::start();
    let catalog = open(&cluster.url()).await;
    let who = subject("42");
    let record = upload(&catalog, &who).await.unwrap();
    assert_eq!(catalog.check().await.unwrap(), Health::Healthy);
    leave_half_moved(&cluster, &catalog, &who);

    // An interrupted move: changes fail within a limit, reads work, and readiness reports it.
    let begun = Instant::now();
    let error = reserved(&catalog, &who).await.unwrap_err();
    assert!(
        !error.is_corrupt() && text_of(&error).contains("TryAgain"),
        "{}",
        text_of(&error)
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let begun = Instant::now();
    let Health::Degraded(reason) = catalog.check().await.unwrap() else {
        panic!("the catalog is not degraded")
    };
    assert!(
        reason.contains("slot") && begun.elapsed() < Duration::from_secs(2),
        "{reason}"
    );
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record));

    // A script that runs now waits for the end of the move.
    let waiting = async {
        let begun = Instant::now();
        let uploaded = upload(&catalog, &who).await;
        (uploaded, begun.elapsed())
    };
    let moving = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        tokio::task::block_in_place(|| finish_the_move(&cluster, &catalog, &who));
    };
    let ((uploaded, waited), ()) = tokio::join!(waiting, moving);
    // Another server answers, so the version floor was raised.
    assert!(uploaded.unwrap().version > Version(2));
    assert!(waited > Duration::from_millis(500), "{waited:?}");
    assert_eq!(catalog.check().await.unwrap(), Health::Healthy);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_wait_a_change_waits_for_a_slot_whose_keys_have_all_moved() {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let cluster = RedisCluster::start_program(&Program::valkey(), &options);
    let mut settings = settings(&cluster.url(), Some(RedisConfirmation::Aof));
    settings.wait_timeout = Duration::from_secs(3);
    let (catalog, _) = RedisCatalog::open(&settings).await.unwrap();
    catalog.initialize(InitialState::New).await.unwrap();
    let who = subject("42");
    // Every key of the partition exists, so Redis answers no script with TRYAGAIN.
    upload(&catalog, &who).await.unwrap();
    upload(&catalog, &who).await.unwrap();
    reserved(&catalog, &who).await.unwrap();
    let next = reserved(&catalog, &who).await.unwrap();
    begin_the_move(&cluster, &catalog, &who);
    let key = catalog.partitions.of(who.as_str()).key("subjects");
    let (owner, other, slot) = cluster.owner_and_other(&key);
    let keys: Vec<String> = owner.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
    move_keys(owner, other, &keys);

    let waiting = async {
        let begun = Instant::now();
        (commit(&catalog, &who, &next).await, begun.elapsed())
    };
    let moving = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        tokio::task::block_in_place(|| finish_the_move(&cluster, &catalog, &who));
    };
    let ((committed, waited), ()) = tokio::join!(waiting, moving);
    assert_eq!(committed.unwrap(), Replaced::Committed);
    assert!(waited > Duration::from_millis(500), "{waited:?}");
    upload(&catalog, &who).await.unwrap();
    assert!(remove(&catalog, &who).await.unwrap().is_some());
}
