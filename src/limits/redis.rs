//! Rate limits that Redis counts for all replicas together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::RedisResult;
use tracing::{info, warn};

use super::{Action, CountedBy, Decision, Limiter, LocalLimiter, Verdict, quota_for};
use crate::avatar::Account;
use crate::config::{Limits, Partitions, Quota, WhenRedisIsDown};
use crate::redis::{RedisLink, Script};
use crate::telemetry::chain;

/// When a client should try again if no counter can count.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Rate limits that Redis counts for all replicas together, by its own clock.
pub(crate) struct RedisLimiter {
    link: RedisLink,
    partitions: Partitions,
    script: Script,
    limits: Limits,
    local: LocalLimiter,
    /// Whether Redis could not count the last attempt. An outage is logged once, by this flag.
    is_down: AtomicBool,
}

impl RedisLimiter {
    /// A limiter with these limits that uses the catalog's connection.
    pub(crate) fn new(link: RedisLink, partitions: Partitions, limits: Limits) -> Self {
        Self {
            link,
            partitions,
            script: Script::new(&["#!lua flags=allow-oom\n", include_str!("redis.lua")]),
            limits,
            local: LocalLimiter::new(limits),
            is_down: AtomicBool::new(false),
        }
    }

    /// Counts an attempt. `attempt` identifies it, so that a repeat after a lost answer counts
    /// once.
    async fn count(
        &self,
        policy: &'static str,
        quota: Quota,
        account: &Account,
        attempt: u64,
    ) -> RedisResult<Verdict> {
        let name = account.name();
        let key = self
            .partitions
            .of(name)
            .key(&format!("limit:{policy}:{name}"));
        let interval = quota.per / quota.count.get();
        let (interval_us, count) = (interval.as_micros().to_string(), quota.count.to_string());
        let attempt = attempt.to_string();
        let arguments = [interval_us.as_bytes(), count.as_bytes(), attempt.as_bytes()];
        let (allowed, microseconds): (bool, u64) =
            self.link.call(&self.script, &[key], &arguments).await?;
        let time = Duration::from_micros(microseconds);
        if !allowed {
            return Ok(Verdict::Denied { retry_after: time });
        }
        let used = time.as_micros().div_ceil(interval.as_micros().max(1));
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        // `time` is the time until the whole quota is restored. One attempt is restored in each
        // interval, so the first of them is restored before the others.
        let others = interval.saturating_mul(used.saturating_sub(1));
        Ok(Verdict::Allowed {
            remaining: quota.count.get().saturating_sub(used),
            next_in: time.saturating_sub(others),
        })
    }
}

#[async_trait]
impl Limiter for RedisLimiter {
    async fn check(&self, action: Action, account: &Account) -> Decision {
        let (policy, quota) = quota_for(&self.limits, action, account);
        let counted = match getrandom::u64() {
            Ok(attempt) => self.count(policy, quota, account, attempt).await,
            Err(error) => Err(std::io::Error::other(error).into()),
        };
        match counted {
            Ok(verdict) => {
                if self.is_down.swap(false, Ordering::Relaxed) {
                    info!("redis counts the rate limits again");
                }
                Decision {
                    policy,
                    quota,
                    verdict,
                    counted_by: CountedBy::Redis,
                }
            }
            Err(error) => {
                if !self.is_down.swap(true, Ordering::Relaxed) {
                    let when_down = self.limits.when_redis_is_down;
                    warn!(error = %chain(&error), ?when_down, "redis cannot count the rate limits");
                }
                match self.limits.when_redis_is_down {
                    WhenRedisIsDown::CountLocally => self.local.check(action, account).await,
                    WhenRedisIsDown::Deny => Decision {
                        policy,
                        quota,
                        verdict: Verdict::Denied {
                            retry_after: RETRY_AFTER,
                        },
                        counted_by: CountedBy::NoCounter,
                    },
                }
            }
        }
    }

    fn falls_back(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    fn forget_idle(&self) {
        self.local.forget_idle();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use cameo_testing::redis::{RedisCluster, RedisServer};

    use super::*;
    use crate::avatar::SubjectId;
    use crate::limits::contract;

    fn limits(when_redis_is_down: WhenRedisIsDown) -> Limits {
        let quota = |count, per| Quota {
            count: NonZeroU32::new(count).unwrap(),
            per,
        };
        Limits {
            upload: quota(5, Duration::from_mins(1)),
            delete: quota(2, Duration::from_millis(400)),
            service_upload: quota(600, Duration::from_mins(1)),
            service_delete: quota(600, Duration::from_mins(1)),
            when_redis_is_down,
        }
    }

    async fn limiter(url: &str, when_down: WhenRedisIsDown) -> RedisLimiter {
        let link = RedisLink::connect(&url.parse().unwrap()).await.unwrap();
        RedisLimiter::new(link, Partitions::new(16).unwrap(), limits(when_down))
    }

    fn user(name: &str) -> Account {
        Account::User(SubjectId::new(name).unwrap())
    }

    async fn allowed(limiter: &RedisLimiter, action: Action, who: &str) -> bool {
        let decision = limiter.check(action, &user(who)).await;
        matches!(decision.verdict, Verdict::Allowed { .. })
    }

    contract::contract_tests!(async {
        let server = RedisServer::start();
        let mut limiter = limiter(&server.url(), WhenRedisIsDown::Deny).await;
        limiter.limits = contract::limits(WhenRedisIsDown::Deny);
        (limiter, server)
    });

    #[tokio::test]
    async fn two_replicas_share_one_quota() {
        let server = RedisServer::start();
        let one = limiter(&server.url(), WhenRedisIsDown::Deny).await;
        let other = limiter(&server.url(), WhenRedisIsDown::Deny).await;
        for used in 1..=5_u32 {
            let limiter = if used % 2 == 0 { &one } else { &other };
            let Decision { quota, verdict, .. } = limiter.check(Action::Upload, &user("42")).await;
            assert_eq!(quota, one.limits.upload);
            let Verdict::Allowed { remaining, next_in } = verdict else {
                panic!("{verdict:?} at {used}")
            };
            assert_eq!(remaining, 5 - used);
            assert!(next_in <= Duration::from_secs(12) && next_in.as_secs() >= 5);
        }
        for limiter in [&one, &other] {
            let verdict = limiter.check(Action::Upload, &user("42")).await.verdict;
            let Verdict::Denied { retry_after } = verdict else {
                panic!("{verdict:?}")
            };
            assert!(retry_after <= Duration::from_secs(12) && retry_after.as_secs() > 5);
        }
        assert!(allowed(&one, Action::Upload, "43").await);
        assert!(allowed(&one, Action::Delete, "42").await);
    }

    #[tokio::test]
    async fn a_quota_is_restored_evenly_and_its_key_expires() {
        let server = RedisServer::start();
        let limiter = limiter(&server.url(), WhenRedisIsDown::Deny).await;
        assert!(allowed(&limiter, Action::Delete, "42").await);
        assert!(allowed(&limiter, Action::Delete, "42").await);
        // Redis counts by its own clock, which a test cannot set. The interval is 200 ms.
        while !allowed(&limiter, Action::Delete, "42").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!allowed(&limiter, Action::Delete, "42").await);
        while server.ask::<u64>("DBSIZE") > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn an_attempt_that_is_sent_again_counts_once() {
        let server = RedisServer::start();
        let limiter = limiter(&server.url(), WhenRedisIsDown::Deny).await;
        let quota = limiter.limits.upload;
        let remaining = async |attempt| {
            let who = user("42");
            let verdict = limiter.count("upload", quota, &who, attempt).await;
            match verdict.unwrap() {
                Verdict::Allowed { remaining, .. } => Some(remaining),
                Verdict::Denied { .. } => None,
            }
        };
        for (attempt, left) in [(7, 4), (8, 3), (9, 2), (10, 1), (11, 0)] {
            for _ in 0..3 {
                assert_eq!(remaining(attempt).await, Some(left));
            }
        }
        assert_eq!(remaining(12).await, None);
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_denies_no_longer_than_one_interval() {
        let server = RedisServer::start();
        let limiter = limiter(&server.url(), WhenRedisIsDown::Deny).await;
        let key = limiter.partitions.of("42").key("limit:upload:42");
        server.ask::<()>(&format!("SET {key} 99999999999999999"));
        let verdict = limiter.check(Action::Upload, &user("42")).await.verdict;
        let retry_after = Duration::from_secs(12);
        assert_eq!(verdict, Verdict::Denied { retry_after });
    }

    #[tokio::test]
    async fn without_redis_each_replica_counts_or_everything_is_denied() {
        let mut server = RedisServer::start();
        let counting = limiter(&server.url(), WhenRedisIsDown::CountLocally).await;
        let denying = limiter(&server.url(), WhenRedisIsDown::Deny).await;
        server.kill();
        for _ in 0..5 {
            assert!(allowed(&counting, Action::Upload, "42").await);
            assert!(!allowed(&denying, Action::Upload, "42").await);
        }
        assert!(!allowed(&counting, Action::Upload, "42").await);
        server.restart();
        assert!(allowed(&denying, Action::Upload, "42").await);
    }

    #[tokio::test]
    async fn a_cluster_counts_every_account() {
        let cluster = RedisCluster::start();
        let limiter = limiter(&cluster.url(), WhenRedisIsDown::Deny).await;
        for number in 0..32 {
            assert!(allowed(&limiter, Action::Upload, &number.to_string()).await);
        }
    }
}
