//! Rate limits that this process counts for itself, with `governor`.

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota as Rate, RateLimiter};

use super::{Action, CountedBy, Decision, Limiter, Verdict, quota_for};
use crate::avatar::Account;
use crate::config::{Limits, Quota};

/// The number of accounts per counter above which each attempt first forgets the accounts whose
/// whole quota is restored. Below it, [`Limiter::forget_idle`] does so from time to time.
const MANY_ACCOUNTS: usize = 100_000;

type Counter<C> =
    RateLimiter<String, DefaultKeyedStateStore<String>, C, StateInformationMiddleware>;

/// Rate limits that this process counts for itself.
pub(crate) struct LocalLimiter<C: Clock = DefaultClock> {
    limits: Limits,
    upload: Counter<C>,
    delete: Counter<C>,
    service_upload: Counter<C>,
    service_delete: Counter<C>,
    clock: C,
}

impl LocalLimiter {
    /// A limiter with these limits. No account has used any of its quota yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self::with_clock(limits, DefaultClock::default())
    }
}

impl<C: Clock + Clone> LocalLimiter<C> {
    fn with_clock(limits: Limits, clock: C) -> Self {
        let counter = |quota: Quota| {
            // `with_period` refuses only a period of zero, and no setting gives one.
            let rate = Rate::with_period(interval(quota))
                .unwrap_or_else(|| Rate::per_second(quota.count))
                .allow_burst(quota.count);
            RateLimiter::dashmap_with_clock(rate, clock.clone())
                .with_middleware::<StateInformationMiddleware>()
        };
        Self {
            upload: counter(limits.upload),
            delete: counter(limits.delete),
            service_upload: counter(limits.service_upload),
            service_delete: counter(limits.service_delete),
            limits,
            clock,
        }
    }

    const fn counter(&self, action: Action, account: &Account) -> &Counter<C> {
        match (action, account) {
            (Action::Upload, Account::User(_)) => &self.upload,
            (Action::Delete, Account::User(_)) => &self.delete,
            (Action::Upload, Account::Service(_)) => &self.service_upload,
            (Action::Delete, Account::Service(_)) => &self.service_delete,
        }
    }
}

#[async_trait]
impl<C> Limiter for LocalLimiter<C>
where
    C: Clock + Clone + Send + Sync + 'static,
    C::Instant: Send + Sync,
{
    async fn check(&self, action: Action, account: &Account) -> Decision {
        let (policy, quota) = quota_for(&self.limits, action, account);
        let counter = self.counter(action, account);
        if counter.len() > MANY_ACCOUNTS {
            counter.retain_recent();
        }
        let verdict = match counter.check_key(&account.name().to_owned()) {
            Ok(state) => Verdict::Allowed {
                remaining: state.remaining_burst_capacity(),
                // The counter does not say when the next attempt is restored. One interval is the
                // upper bound.
                next_in: interval(quota),
            },
            Err(not_until) => Verdict::Denied {
                retry_after: not_until.wait_time_from(self.clock.now()),
            },
        };
        Decision {
            policy,
            quota,
            verdict,
            counted_by: CountedBy::Process,
        }
    }

    fn falls_back(&self) -> bool {
        false
    }

    fn forget_idle(&self) {
        for counter in [
            &self.upload,
            &self.delete,
            &self.service_upload,
            &self.service_delete,
        ] {
            counter.retain_recent();
            counter.shrink_to_fit();
        }
    }
}

/// The time in which one attempt is restored.
fn interval(Quota { count, per }: Quota) -> Duration {
    per / NonZeroU32::get(count)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::avatar::SubjectId;
    use crate::config::WhenRedisIsDown;
    use crate::limits::contract;

    fn limiter() -> (LocalLimiter<FakeRelativeClock>, FakeRelativeClock) {
        let quota = |count| {
            let count = NonZeroU32::new(count).unwrap();
            Quota {
                count,
                per: Duration::from_mins(1),
            }
        };
        let clock = FakeRelativeClock::default();
        let limits = Limits {
            upload: quota(5),
            delete: quota(10),
            service_upload: quota(600),
            service_delete: quota(600),
            when_redis_is_down: WhenRedisIsDown::CountLocally,
        };
        (LocalLimiter::with_clock(limits, clock.clone()), clock)
    }

    fn user() -> Account {
        Account::User(SubjectId::new("42").unwrap())
    }

    contract::contract_tests!(async {
        let limits = contract::limits(WhenRedisIsDown::CountLocally);
        (LocalLimiter::new(limits), ())
    });

    #[tokio::test]
    async fn a_quota_may_be_used_at_once_and_is_restored_evenly() {
        let (limiter, clock) = limiter();
        let who = user();
        let interval = Duration::from_secs(12);
        for used in 1..=5 {
            let verdict = limiter.check(Action::Upload, &who).await.verdict;
            let remaining = 5 - used;
            let next_in = interval;
            assert_eq!(verdict, Verdict::Allowed { remaining, next_in });
        }
        let denied = Verdict::Denied {
            retry_after: interval,
        };
        assert_eq!(limiter.check(Action::Upload, &who).await.verdict, denied);
        clock.advance(interval);
        let verdict = limiter.check(Action::Upload, &who).await.verdict;
        assert!(
            matches!(verdict, Verdict::Allowed { remaining: 0, .. }),
            "{verdict:?}"
        );
    }

    #[tokio::test]
    async fn five_a_minute_let_nine_through_in_fifty_seconds_as_documented() {
        let (limiter, clock) = limiter();
        let mut allowed = 0;
        for _ in 0..=50 {
            while let Verdict::Allowed { .. } = limiter.check(Action::Upload, &user()).await.verdict
            {
                allowed += 1;
            }
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(allowed, 9);
    }

    #[tokio::test]
    async fn an_account_with_its_whole_quota_is_forgotten() {
        let (limiter, clock) = limiter();
        limiter.check(Action::Upload, &user()).await;
        let service = Account::Service("main".into());
        limiter.check(Action::Delete, &service).await;
        limiter.forget_idle();
        assert_eq!(limiter.upload.len() + limiter.service_delete.len(), 2);
        clock.advance(Duration::from_mins(1));
        limiter.forget_idle();
        assert_eq!(limiter.upload.len() + limiter.service_delete.len(), 0);
    }
}
