//! Limits counted in this process alone, by `governor`.

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota as Rate, RateLimiter};

use super::{Action, CountedBy, Decision, Limiter, Verdict};
use crate::avatar::SubjectId;
use crate::config::{Limits, Quota};

/// More subjects than this are not remembered at once: those who have their whole quota are
/// forgotten as soon as there are so many, and otherwise now and then.
const MANY_SUBJECTS: usize = 100_000;

type Counter<C> =
    RateLimiter<SubjectId, DefaultKeyedStateStore<SubjectId>, C, StateInformationMiddleware>;

/// Limits counted in this process alone.
pub struct LocalLimiter<C: Clock = DefaultClock> {
    upload: (Quota, Counter<C>),
    delete: (Quota, Counter<C>),
    clock: C,
}

impl LocalLimiter {
    /// Counts by these limits, each subject from zero.
    pub fn new(limits: Limits) -> Self {
        Self::with_clock(limits, DefaultClock::default())
    }
}

impl<C: Clock + Clone> LocalLimiter<C> {
    fn with_clock(limits: Limits, clock: C) -> Self {
        let counter = |quota: Quota| {
            // Only a rate of one in no time at all is refused, and no setting gives one.
            let rate = Rate::with_period(interval(quota))
                .unwrap_or_else(|| Rate::per_second(quota.count))
                .allow_burst(quota.count);
            let counter = RateLimiter::dashmap_with_clock(rate, clock.clone());
            (
                quota,
                counter.with_middleware::<StateInformationMiddleware>(),
            )
        };
        Self {
            upload: counter(limits.upload),
            delete: counter(limits.delete),
            clock,
        }
    }
}

#[async_trait]
impl<C> Limiter for LocalLimiter<C>
where
    C: Clock + Clone + Send + Sync + 'static,
    C::Instant: Send + Sync,
{
    async fn check(&self, action: Action, subject: &SubjectId) -> Decision {
        let (quota, counter) = match action {
            Action::Upload => &self.upload,
            Action::Delete => &self.delete,
        };
        if counter.len() > MANY_SUBJECTS {
            counter.retain_recent();
        }
        let verdict = match counter.check_key(subject) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let used = quota.count.get().saturating_sub(remaining);
                Verdict::Allowed {
                    remaining,
                    restored_in: interval(*quota) * used,
                }
            }
            Err(not_until) => Verdict::Denied {
                retry_after: not_until.wait_time_from(self.clock.now()),
            },
        };
        Decision {
            quota: *quota,
            verdict,
            counted_by: CountedBy::Process,
        }
    }

    fn falls_back(&self) -> bool {
        false
    }

    fn forget_idle(&self) {
        for (_, counter) in [&self.upload, &self.delete] {
            counter.retain_recent();
            counter.shrink_to_fit();
        }
    }
}

/// The time in which one attempt comes back.
fn interval(Quota { count, per }: Quota) -> Duration {
    per / NonZeroU32::get(count)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

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
            when_redis_is_down: crate::config::WhenRedisIsDown::CountLocally,
        };
        (LocalLimiter::with_clock(limits, clock.clone()), clock)
    }

    #[tokio::test]
    async fn a_quota_may_be_used_at_once_and_comes_back_evenly() {
        let (limiter, clock) = limiter();
        let who = SubjectId::new("42").unwrap();
        for used in 1..=5 {
            let verdict = limiter.check(Action::Upload, &who).await.verdict;
            let restored_in = Duration::from_secs(12) * used;
            assert_eq!(
                verdict,
                Verdict::Allowed {
                    remaining: 5 - used,
                    restored_in
                }
            );
        }
        let denied = Verdict::Denied {
            retry_after: Duration::from_secs(12),
        };
        assert_eq!(limiter.check(Action::Upload, &who).await.verdict, denied);
        clock.advance(Duration::from_secs(12));
        let verdict = limiter.check(Action::Upload, &who).await.verdict;
        assert!(
            matches!(verdict, Verdict::Allowed { remaining: 0, .. }),
            "{verdict:?}"
        );
    }

    #[tokio::test]
    async fn subjects_and_actions_are_counted_apart() {
        let (limiter, _) = limiter();
        let (one, other) = (SubjectId::new("1").unwrap(), SubjectId::new("2").unwrap());
        for _ in 0..6 {
            limiter.check(Action::Upload, &one).await;
        }
        let allowed = async |action, who| {
            matches!(
                limiter.check(action, who).await.verdict,
                Verdict::Allowed { .. }
            )
        };
        assert!(!allowed(Action::Upload, &one).await);
        assert!(allowed(Action::Upload, &other).await);
        assert!(allowed(Action::Delete, &one).await);
    }

    #[tokio::test]
    async fn whoever_has_the_whole_quota_again_is_forgotten() {
        let (limiter, clock) = limiter();
        limiter
            .check(Action::Upload, &SubjectId::new("42").unwrap())
            .await;
        limiter.forget_idle();
        assert_eq!(limiter.upload.1.len(), 1);
        clock.advance(Duration::from_mins(1));
        limiter.forget_idle();
        assert_eq!(limiter.upload.1.len(), 0);
    }
}
