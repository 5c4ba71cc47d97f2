//! Several replicas on one bucket and one Redis.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Backend, TestService, until_seen};

const ON: (&str, &str) = ("CAMEO_LIMITS__ENABLED", "true");
const POLICY: (&str, &str) = ("CAMEO_STORAGE__S3__PUBLIC_ACCESS", "policy");

#[tokio::test]
async fn replicas_see_each_others_uploads_and_deletes() {
    let one = TestService::start_fleet(&[]).await;
    let other = one.replica(&[]).await;
    let uploaded = one.owner("42").upload("42", PORTRAIT).await.ok();
    let seen = other.anonymous().avatar("42").await.ok();
    assert_eq!(seen["avatar_id"], uploaded["avatar_id"]);
    let replaced = other.owner("42").upload("42", PORTRAIT).await.ok();
    assert_eq!(replaced["version"], 2);
    let anyone = one.anonymous();
    until_seen(async || anyone.avatar("42").await.ok()["avatar_id"] == replaced["avatar_id"]).await;
    other.owner("42").delete("42").await.ok();
    until_seen(async || anyone.avatar("42").await.status == 404).await;
    assert_eq!(one.objects().await, [""; 0]);
}

/// Tests that need the right to create buckets.
mod by_creation {
    use super::*;

    #[tokio::test]
    async fn a_deleted_bucket_is_created_again_and_reported_until_every_avatar_has_its_images() {
        let sweep = ("CAMEO_LIFECYCLE__SWEEP_EVERY", "200ms");
        let service = TestService::start_fleet(&[sweep]).await;
        let ready = async || {
            let ready = service.anonymous().get("/health/ready").await;
            (ready.status, ready.json())
        };
        let wait_for = async |status: &str| {
            let begun = Instant::now();
            loop {
                let (_, ready) = ready().await;
                if ready["status"] == status {
                    break ready;
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "{ready}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        service.owner("42").upload("42", PORTRAIT).await.ok();
        wait_for("ready").await;
        service.remove_store().await;
        let degraded = wait_for("degraded").await;
        let reason = degraded["reasons"][0].as_str().unwrap();
        assert!(reason.contains("bucket was lost"), "{degraded}");
        let begun = Instant::now();
        while service.owner("7").upload("7", PORTRAIT).await.status != 200 {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "uploads do not succeed again"
            );
        }
        // The other avatar still lacks its images.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (status, still) = ready().await;
        assert_eq!(
            (status.as_u16(), &still["status"]),
            (200, &"degraded".into()),
            "{still}"
        );
        service.owner("42").upload("42", PORTRAIT).await.ok();
        wait_for("ready").await;
    }
}

#[tokio::test]
async fn replicas_count_limits_together() {
    let settings = [ON, ("CAMEO_LIMITS__UPLOAD", "2/h")];
    let one = TestService::start_fleet(&settings).await;
    let other = one.replica(&settings).await;
    one.owner("42").upload("42", PORTRAIT).await.ok();
    other.owner("42").upload("42", PORTRAIT).await.ok();
    for service in [&one, &other] {
        let refused = service.owner("42").upload("42", PORTRAIT).await;
        assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    }
}

#[tokio::test]
async fn an_unavailable_redis_is_reported_and_used_again_when_it_is_back() {
    let backend = Backend::fleet().await;
    let service = TestService::start_on(backend, &[]).await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let deny = ("CAMEO_LIMITS__WHEN_REDIS_IS_DOWN", "deny");
    let denying = service.replica(&[ON, deny]).await;
    service.backend().stop_redis();
    let ready = service.anonymous().get("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["catalog"], "unavailable");
    let refused = service.owner("42").upload("42", PORTRAIT).await;
    assert_eq!(refused.problem(), (503, "catalog_unavailable".to_owned()));
    let refused = denying.owner("42").upload("42", PORTRAIT).await;
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    assert_eq!(
        refused.json()["detail"],
        "upload requests cannot be counted at the moment, so all of them are refused"
    );
    service.backend().start_redis();
    let again = service.anonymous().avatar("42").await.ok();
    assert_eq!(again["avatar_id"], avatar["avatar_id"]);
}

#[tokio::test]
async fn a_starting_replica_waits_for_a_redis_that_became_unavailable() {
    let one = TestService::start_on(Backend::fleet_with_faults().await, &[]).await;
    let backend = one.backend();
    let (asked, deletes) = (backend.requests(), backend.deletes());
    let mut starting = pin!(one.replica(&[]));
    // The replica has connected to its catalog and waits for its bucket.
    backend.fail();
    tokio::select! {
        _ = &mut starting => panic!("the replica started without a bucket"),
        () = until(|| backend.requests() > asked) => {}
    }
    backend.stop_redis();
    // The replica has its bucket, and deletes both of its probe objects.
    backend.release();
    tokio::select! {
        _ = &mut starting => panic!("the replica started without Redis"),
        () = until(|| backend.deletes() == deletes + 2) => {}
    }
    let waits = tokio::time::timeout(Duration::from_millis(500), &mut starting).await;
    assert!(waits.is_err(), "the replica started without Redis");
    backend.start_redis();
    let other = starting.await;
    other.owner("42").upload("42", PORTRAIT).await.ok();
}

async fn until(happened: impl Fn() -> bool) {
    while !happened() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_damaged_record_is_answered_500_without_retry_after() {
    let service = TestService::start_fleet(&[]).await;
    for user in ["42", "43"] {
        service.owner(user).upload(user, PORTRAIT).await.ok();
    }
    service.backend().damage("42");
    let owner = service.owner("42");
    for refused in [
        owner.avatar("42").await,
        owner.upload("42", PORTRAIT).await,
        owner.delete("42").await,
    ] {
        assert_eq!(refused.problem(), (500, "internal".to_owned()));
        assert_eq!(refused.header("retry-after"), "");
    }
    service.owner("43").upload("43", PORTRAIT).await.ok();
    assert_eq!(owner.get("/health/ready").await.status, 200);
}

/// An upper bound on how far a Redis replica normally lags behind its master.
const LAG: Duration = Duration::from_secs(1);

/// Redis sends writes to its replicas after it has answered. So a failover loses the writes that
/// the old master had not yet sent. It must lose nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_of_redis_loses_only_writes_that_were_not_yet_replicated() {
    let service = TestService::start_on(Backend::sentinel().await, &[]).await;
    let replica = service.backend().add_replica();
    let stop = Arc::new(AtomicBool::new(false));
    let workers = (0..3).map(|worker| {
        let (client, stop) = (service.service(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut answered = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let user = format!("{worker}-{number}");
                let answer = client.upload(&user, photos::png(100, 100)).await;
                if answer.status == 200 {
                    answered.push((user, Instant::now()));
                } else {
                    let problem = answer.problem();
                    assert_eq!(problem, (503, "catalog_unavailable".to_owned()));
                }
            }
            answered
        })
    });
    let workers: Vec<_> = workers.collect();
    let at_least = async |wanted: u64| {
        let in_time = tokio::time::timeout(Duration::from_mins(1), async {
            loop {
                let overview = service.anonymous().get("/health/avatar").await;
                // Each avatar has ten images.
                let images = overview.json()["storage"]["total_files"].as_u64();
                if let Some(images) = images.filter(|images| *images >= wanted * 10) {
                    return images / 10;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        in_time.await.expect("uploads succeed after the failover")
    };
    at_least(9).await;
    // These avatars are older than the lag when the master is killed.
    tokio::time::sleep(LAG).await;
    service.backend().kill_master();
    let died = Instant::now();
    service.backend().wait_for_master(&replica);
    let left = at_least(1).await;
    at_least(left + 9).await;
    stop.store(true, Ordering::Relaxed);
    let mut lost = 0;
    for worker in workers {
        for (user, at) in worker.await.unwrap() {
            let avatar = service.anonymous().avatar(&user).await;
            if avatar.status == 404 && at + LAG > died && at < died + LAG {
                lost += 1;
                continue;
            }
            let url = avatar.ok()["avatar_url"].as_str().unwrap().to_owned();
            assert_eq!(service.anonymous().get(&url).await.status, 200, "{user}");
        }
    }
    // Each of the three workers may have had one upload answered in that moment.
    assert!(lost <= 3, "{lost} were lost");
}

/// Tests that need a server with bucket policies.
mod by_policy {
    use super::*;

    #[tokio::test]
    async fn anyone_can_read_images_from_the_bucket_and_nothing_else() {
        let service = TestService::start_fleet(&[POLICY]).await;
        let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
        let url = avatar["avatar_url"].as_str().unwrap();
        assert!(!url.starts_with(service.url()), "{url}");
        let image = reqwest::get(url).await.unwrap();
        assert_eq!(image.status(), 200);
        assert_eq!(image.headers()["content-type"], "image/webp");
        assert_eq!(
            image.headers()["cache-control"],
            "public, max-age=31536000, immutable"
        );
        let (bucket, rest) = url.split_once("/public/").unwrap();
        let id = rest.split('/').nth(1).unwrap();
        for private in [
            format!("{bucket}/private/avatars/{id}/manifest.json"),
            format!("{bucket}/?list-type=2"),
        ] {
            let answer = reqwest::get(&private).await.unwrap();
            assert_eq!(answer.status(), 403, "{private}");
        }
    }
}

#[tokio::test]
async fn at_maxmemory_uploads_are_refused_deletes_succeed_and_the_service_recovers_by_itself() {
    let service = TestService::start_fleet(&[ON]).await;
    let (owner, other) = (service.owner("42"), service.owner("43"));
    owner.upload("42", PORTRAIT).await.ok();
    other.upload("43", PORTRAIT).await.ok();
    service.backend().ask_redis("CONFIG SET maxmemory 1");
    let refused = owner.upload("42", PORTRAIT).await;
    assert_eq!(refused.problem(), (503, "catalog_unavailable".to_owned()));
    let ready = service.anonymous().get("/health/ready").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["status"], "degraded");
    let reasons = ready.json()["reasons"].clone();
    assert!(
        reasons[0].to_string().contains("maxmemory") && reasons[1].is_null(),
        "{reasons}"
    );
    service.anonymous().avatar("42").await.ok();
    other.delete("43").await.ok();
    service.backend().ask_redis("CONFIG SET maxmemory 0");
    owner.upload("42", PORTRAIT).await.ok();
}

#[tokio::test]
async fn a_running_service_writes_its_number_of_partitions_again_within_seconds_of_a_flushall() {
    let service = TestService::start_fleet(&[]).await;
    service.backend().empty_redis();
    let begun = Instant::now();
    while service.backend().ask_redis("EXISTS cameo:partitions") == "0" {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(service.backend().ask_redis("GET cameo:partitions"), "16");
}
