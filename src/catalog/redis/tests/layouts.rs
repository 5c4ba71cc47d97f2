//! Data of other layouts and releases.

use super::*;

#[tokio::test]
async fn data_of_the_previous_release_is_read_and_continued() {
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
    // An upload under way.
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

    assert!(catalog.is_initialized().await.unwrap());
    assert_eq!(
        catalog.get(&names[0]).await.unwrap().as_ref(),
        Some(&record)
    );
    let page = catalog.get_many(&names).await.unwrap();
    assert!(
        page.iter()
            .all(|found| found.as_ref().unwrap().as_ref() == Some(&record))
    );
    let again = catalog
        .reserve(&names[0], under_way, MINUTE, Uploader::Ordinary)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.version, Version(701));
    let mut committed = contract::record(9, 701);
    committed.reserved_at = again.reserved_at;
    let anything = Precondition::Anything;
    let replaced = catalog
        .replace(&names[0], &committed, &anything, MINUTE, Uploader::Ordinary)
        .await;
    assert_eq!(replaced.unwrap(), Replaced::Committed);
    assert_eq!(catalog.get(&names[0]).await.unwrap(), Some(committed));
    let removed = catalog.remove(&names[1], &anything, MINUTE).await;
    let removed = removed.unwrap().unwrap().unwrap();
    assert_eq!(removed.record.as_ref(), Some(&record));
    // The totals include the records of the previous release.
    let removed = catalog.remove(&names[0], &anything, MINUTE).await;
    let removed = removed.unwrap().unwrap().unwrap();
    assert_eq!(removed.outstanding.len(), 2);
    // Three avatars wait for their removal: the replaced one and the two deleted ones.
    let expected = Stats {
        retired: 3,
        ..Stats::default()
    };
    assert_eq!(catalog.stats().await.unwrap(), expected);
    // The previous release may have lost writes without detecting it.
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
    // First the layout of the whole entry is changed, then the layout of a record's body.
    for (who, at) in [(&who, 2), (&later, usize::MAX)] {
        let mut entry = catalog.read_entry(who).await.unwrap().unwrap();
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
async fn an_undecodable_upload_does_not_stop_the_sweep() {
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
    // Values of a later release, truncated values, and values of no release. Then names without an id.
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
    catalog
        .reserve(&who, id, Duration::ZERO, Uploader::Ordinary)
        .await
        .unwrap()
        .unwrap();

    let claimed = catalog.claim(MINUTE, 100).await.unwrap();
    let ids: Vec<_> = claimed.iter().map(|one| one.outstanding.avatar).collect();
    assert_eq!(ids, [id]);
    // The others are due again after the lease too, and their values do not change.
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
async fn an_upload_that_the_previous_release_claimed_counts_as_not_committed() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let mut record = contract::record(1, 0);
    let reserved = catalog
        .reserve(&who, record.avatar_id, MINUTE, Uploader::Ordinary)
        .await;
    record.version = reserved.unwrap().unwrap().version;
    // The previous release's claim moves the id and deletes the reservation.
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
    let replaced = catalog
        .replace(&who, &record, &anything, MINUTE, Uploader::Ordinary)
        .await;
    assert_eq!(replaced.unwrap(), Replaced::NotPending);
    assert_eq!(catalog.get(&who).await.unwrap(), None);
}

/// Fields that the next release appends to a record.
const NEXT_FIELDS: &[u8] = b"fields of the next release";

/// Uploads an avatar as a replica of the next release does.
async fn uploaded_by_the_next_release(catalog: &RedisCatalog, who: &SubjectId) -> Record {
    let mut record = contract::record(1, 0);
    record.avatar_id = AvatarId::random().unwrap();
    let reserved = catalog
        .reserve(who, record.avatar_id, MINUTE, Uploader::Ordinary)
        .await;
    Reservation {
        version: record.version,
        reserved_at: record.reserved_at,
    } = reserved.unwrap().unwrap();
    let bytes = [&codec::encode(&record).unwrap(), NEXT_FIELDS].concat();
    let retire_after = milliseconds(MINUTE);
    let mut arguments = vec![who.as_str().as_bytes(), &bytes, retire_after.as_bytes()];
    arguments.push(uploader_argument(Uploader::Ordinary));
    arguments.extend(precondition_arguments(&Precondition::Anything));
    let keys = RedisCatalog::keys(catalog.partitions.of(who.as_str()));
    let replace = &catalog.scripts.replace;
    let ended: String = catalog
        .change(replace, who, &keys, &arguments)
        .await
        .unwrap();
    assert_eq!(ended, "committed");
    record
}

#[tokio::test]
async fn replicas_of_this_release_and_the_next_share_a_catalog() {
    let server = RedisServer::start();
    let (this, next) = (open(&server.url()).await, open(&server.url()).await);
    let who = subject("42");
    let partition = this.partitions.of("42");
    uploaded(&this, &who).await;
    let second = uploaded_by_the_next_release(&next, &who).await;

    // This release reads the record, and Redis keeps the fields that it does not know.
    assert_eq!(this.get(&who).await.unwrap().as_ref(), Some(&second));
    let many = this.get_many(std::slice::from_ref(&who)).await.unwrap();
    assert_eq!(many[0].as_ref().unwrap().as_ref(), Some(&second));
    let entry = this.read_entry(&who).await.unwrap().unwrap();
    assert!(entry.ends_with(NEXT_FIELDS));
    assert_eq!(this.stats().await.unwrap().avatars, 1);
    let events = contract::events(&this).await;
    assert_eq!(events[1].change, Change::Updated(second.clone()));
    let mut range = redis::cmd("XREVRANGE");
    range.arg(partition.key("events")).arg("+").arg("-");
    let stored: Vec<(String, HashMap<String, Vec<u8>>)> = this.link.run(&range).await.unwrap();
    assert!(stored[0].1["event"].ends_with(NEXT_FIELDS));

    // This release replaces the record, and the next release reads the result.
    let third = uploaded(&this, &who).await;
    assert!(third.version > second.version);
    assert_eq!(next.get(&who).await.unwrap(), Some(third));
    let events = contract::events(&next).await;
    let previous = events[2].previous.as_ref().unwrap();
    assert_eq!(previous.avatar_id, second.avatar_id);
    assert_eq!(previous.objects.len(), second.renditions.len());

    // This release removes a record of the next release.
    let fourth = uploaded_by_the_next_release(&next, &who).await;
    let removed = this.remove(&who, &Precondition::Anything, MINUTE).await;
    let removed = removed.unwrap().unwrap().unwrap();
    assert_eq!(removed.record, Some(fourth));
    assert_eq!(removed.outstanding.len(), 4);
    let expected = Stats {
        retired: 4,
        ..Stats::default()
    };
    assert_eq!(next.stats().await.unwrap(), expected);
}
