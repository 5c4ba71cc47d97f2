use super::*;

const MIB: u64 = 1 << 20;

fn budget() -> Budget {
    Budget::new(64 * MIB, 1, Duration::from_secs(10))
}

fn user(name: &str) -> Account {
    Account::User(SubjectId::new(name).unwrap())
}

fn service(name: &str) -> Account {
    Account::Service(name.into())
}

async fn decode(budget: &Budget, bytes: u64) -> Result<Reservation, Error> {
    let mut wait = budget.wait_deadline();
    budget.decode(&user("42"), bytes, &mut wait).await
}

/// A complete body of so many bytes, which arrived at once.
async fn body(budget: &Budget, account: &Account, bytes: u64) -> Result<Reservation, Error> {
    let mut wait = budget.wait_deadline();
    let mut body = budget.body(account, bytes, &mut wait).await?;
    body.hold(bytes, &mut wait).await?;
    body.complete(bytes, &mut wait).await
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_finds_no_memory_in_time_is_refused() {
    let budget = budget();
    let held = decode(&budget, 30 * MIB).await.unwrap();
    let refused = decode(&budget, 3 * MIB).await;
    assert!(matches!(refused, Err(Error::Overloaded { .. })));
    drop(held);
    decode(&budget, 32 * MIB).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn released_memory_goes_to_the_upload_that_waits() {
    let budget = Arc::new(budget());
    let held = decode(&budget, 30 * MIB).await.unwrap();
    let waiting = tokio::spawn({
        let budget = Arc::clone(&budget);
        async move { decode(&budget, 30 * MIB).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(!waiting.is_finished());
    let load = budget.load();
    assert_eq!((load.waiting, load.workers_busy, load.workers), (1, 0, 1));
    // A small reservation that comes later does not take the memory that the large one waits for.
    let later = decode(&budget, MIB);
    let later = tokio::time::timeout(Duration::from_millis(500), later).await;
    assert!(later.is_err(), "it overtook the large one");
    drop(held);
    waiting.await.unwrap().unwrap();
    assert_eq!(budget.load().waiting, 0);
    assert_eq!(budget.load().pictures.reserved_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn the_waits_of_an_upload_are_summed() {
    let budget = Arc::new(budget());
    let mut wait = budget.wait_deadline();
    let other = user("other");
    let (worker, memory) = (
        budget.worker(&other, &mut wait).await,
        decode(&budget, 32 * MIB).await,
    );
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(6)).await;
        drop(worker);
        tokio::time::sleep(Duration::from_secs(6)).await;
        drop(memory);
    });
    let begun = Instant::now();
    let _worker = budget.worker(&user("42"), &mut wait).await.unwrap();
    let refused = budget.decode(&user("42"), MIB, &mut wait).await;
    assert!(matches!(refused, Err(Error::Overloaded { .. })));
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_gave_up_leaves_the_queue() {
    let budget = budget();
    let account = user("42");
    let mut wait = budget.wait_deadline();
    let worker = budget.worker(&account, &mut wait).await.unwrap();
    let mut second = budget.wait_deadline();
    let second = budget.worker(&account, &mut second);
    drop(tokio::time::timeout(Duration::from_secs(1), second).await);
    drop(worker);
    budget.worker(&account, &mut wait).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flood_waits_unread_and_is_admitted_one_by_one() {
    let budget = budget();
    let account = service("main");
    let mut slots = Vec::new();
    while let Ok(slot) = budget
        .admission_slot(&account, &mut budget.wait_deadline())
        .await
    {
        slots.push(slot);
    }
    assert_eq!(slots.len(), SLOTS_PER_WORKER);
    slots.pop();
    budget
        .admission_slot(&account, &mut budget.wait_deadline())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn bodies_do_not_use_the_memory_for_decoding() {
    let budget = budget();
    let mut bodies = Vec::new();
    while let Ok(one) = body(&budget, &user("42"), 5 * MIB).await {
        bodies.push(one);
    }
    assert_eq!(bodies.len(), 6);
    decode(&budget, 32 * MIB).await.unwrap();
}

#[tokio::test]
async fn a_picture_that_never_fits_is_refused_at_once() {
    let refused = decode(&budget(), 33 * MIB).await;
    let text = refused.err().unwrap().to_string();
    assert_eq!(
        text,
        "decoding the picture takes 33 MiB of memory; at most 32 MiB"
    );
}

#[tokio::test(start_paused = true)]
async fn a_user_has_at_most_two_concurrent_uploads_and_a_service_more() {
    let budget = budget();
    let slot = async |account: &Account| {
        let mut wait = budget.wait_deadline();
        budget.user_slot(account, &mut wait).await
    };
    let (one, two) = (user("1"), user("2"));
    let first = slot(&one).await.unwrap();
    let second = slot(&one).await.unwrap();
    let begun = Instant::now();
    assert!(matches!(slot(&one).await, Err(Error::Overloaded { .. })));
    assert_eq!(begun.elapsed().as_secs(), 10);
    let _other = slot(&two).await.unwrap();
    drop(first);
    let third = slot(&one).await.unwrap();
    drop((second, third));
    assert_eq!(budget.users.0.lock().unwrap().len(), 1, "only the other's");
    for _ in 0..9 {
        assert!(slot(&service("main")).await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn memory_for_a_body_is_reserved_as_it_arrives() {
    let budget = budget();
    let mut wait = budget.wait_deadline();
    let mut body = budget.body(&user("42"), 5 * MIB, &mut wait).await.unwrap();
    let reserved = || budget.load().uploads.reserved_bytes;
    assert_eq!(reserved(), 64 << 10);
    body.hold(100 << 10, &mut wait).await.unwrap();
    assert_eq!(reserved(), 128 << 10);
    body.hold(5 * MIB, &mut wait).await.unwrap();
    assert_eq!(reserved(), 5 * MIB);
    // Memory that was reserved ahead is released.
    let whole = body.complete(3 * MIB, &mut wait).await.unwrap();
    assert_eq!(reserved(), 3 * MIB);
    drop(whole);
    assert_eq!(reserved(), 0);
}

/// A body that sends `bytes` and then nothing. Returns how it ended.
async fn stalled_body(budget: &Budget, account: Account, bytes: u64) -> &'static str {
    let mut wait = budget.wait_deadline();
    let mut body = budget.body(&account, 5 * MIB, &mut wait).await.unwrap();
    body.hold(bytes, &mut wait).await.unwrap();
    body.set_slow_after(Instant::now() + Duration::from_secs(5));
    tokio::select! {
        () = body.revoked() => "ended",
        () = tokio::time::sleep(Duration::from_mins(1)) => "finished",
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_ended_if_others_wait_for_memory() {
    let budget = Arc::new(budget());
    let slow: Vec<_> = (0..6)
        .map(|number| {
            let budget = Arc::clone(&budget);
            let account = user(&format!("slow-{number}"));
            tokio::spawn(async move { stalled_body(&budget, account, 5 * MIB).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(budget.load().uploads.reserved_bytes, 30 * MIB);
    let begun = Instant::now();
    let whole = body(&budget, &user("42"), 5 * MIB).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(whole);
    let mut ended = 0;
    for one in slow {
        ended += usize::from(one.await.unwrap() == "ended");
    }
    assert_eq!(ended, 1, "ending one was enough");
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_continues_while_no_other_upload_waits() {
    let budget = budget();
    assert_eq!(stalled_body(&budget, user("42"), 5 * MIB).await, "finished");
}

#[tokio::test(start_paused = true)]
async fn a_service_gets_no_more_than_half_while_others_wait() {
    let budget = Arc::new(budget());
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(body(&budget, &service("main"), 5 * MIB).await.unwrap());
    }
    // Ten more uploads of the service wait, and after them one upload of a user.
    let order = Arc::new(Mutex::new(Vec::new()));
    let queue = |name: &'static str, account: Account| {
        let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
        tokio::spawn(async move {
            let whole = body(&budget, &account, 5 * MIB).await;
            order.lock().unwrap().push(name);
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(whole);
        })
    };
    let mut tasks: Vec<_> = (0..10).map(|_| queue("service", service("main"))).collect();
    tokio::task::yield_now().await;
    tasks.push(queue("user", user("42")));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(order.lock().unwrap().is_empty());
    // The uploads of the service end one by one. The upload of the user continues first.
    for whole in held {
        drop(whole);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().unwrap();
    assert_eq!(order[0], "user", "{order:?}");
    assert_eq!(order.len(), 11);
}

/// Bodies of random sizes, speeds and accounts share a pool that is too small for all of them at once.
/// Each one ends, and none waits for ever.
#[tokio::test(start_paused = true)]
async fn bodies_that_hold_a_part_and_wait_for_the_rest_all_finish() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        // The deadline is so long that only a body that waits for ever is refused.
        let capacity = random.u64(2..=8) * MIB;
        let budget = Arc::new(Budget::new(2 * capacity, 1, Duration::from_secs(1_000_000)));
        let tasks: Vec<_> = (0..random.usize(2..40))
            .map(|_| {
                let account = match random.u8(0..4) {
                    0 => service("main"),
                    number => user(&number.to_string()),
                };
                let most = random.u64(1..=capacity);
                let bytes = random.u64(1..=most);
                let steps = random.u64(1..12);
                let pause = Duration::from_millis(random.u64(0..50));
                let begin = Duration::from_millis(random.u64(0..100));
                let gives_up = random.u8(0..8) == 0;
                let budget = Arc::clone(&budget);
                tokio::spawn(async move {
                    tokio::time::sleep(begin).await;
                    let mut wait = budget.wait_deadline();
                    let mut body = budget.body(&account, most, &mut wait).await.unwrap();
                    for step in 1..=steps {
                        let hold = body.hold(bytes * step / steps, &mut wait);
                        if gives_up && step * 2 > steps {
                            drop(timeout(pause, hold).await);
                            return;
                        }
                        hold.await.unwrap();
                        tokio::time::sleep(pause).await;
                    }
                    let whole = body.complete(bytes, &mut wait).await.unwrap();
                    assert!(budget.load().uploads.reserved_bytes <= capacity);
                    tokio::time::sleep(pause).await;
                    drop(whole);
                })
            })
            .collect();
        for task in tasks {
            let ended = timeout(Duration::from_hours(1), task).await;
            assert!(ended.is_ok(), "seed {seed}: a body waits for ever");
            ended.unwrap().unwrap();
        }
        assert_eq!(budget.load().uploads.reserved_bytes, 0, "seed {seed}");
        assert_eq!(budget.load().waiting, 0, "seed {seed}");
    }
}
