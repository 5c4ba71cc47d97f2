//! What every adapter must do. Quotas come back so slowly here that no test waits for them.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Action, Caller, Decision, Limiter, Verdict};
use crate::avatar::SubjectId;
use crate::config::{Limits, Quota, WhenRedisIsDown};

/// The limits that the suite expects an adapter to count by.
pub(super) fn limits(when_redis_is_down: WhenRedisIsDown) -> Limits {
    let quota = |count| Quota {
        count: NonZeroU32::new(count).unwrap(),
        per: Duration::from_hours(1),
    };
    Limits {
        upload: quota(3),
        delete: quota(4),
        service_upload: quota(5),
        service_delete: quota(6),
        when_redis_is_down,
    }
}

/// Holds an adapter, which has counted nothing yet, to all of it.
pub(super) async fn check(limiter: &dyn Limiter) {
    a_quota_is_there_at_once_and_then_used_up(limiter).await;
    each_quota_counts_for_itself(limiter).await;
    a_service_has_one_quota_for_all_its_users(limiter).await;
}

fn user(name: &str) -> Caller {
    Caller::User(SubjectId::new(name).unwrap())
}

fn service(name: &str) -> Caller {
    Caller::Service(name.to_owned())
}

async fn a_quota_is_there_at_once_and_then_used_up(limiter: &dyn Limiter) {
    let interval = Duration::from_mins(20);
    for left in (0..3).rev() {
        let decision = limiter.check(Action::Upload, &user("at-once")).await;
        let Verdict::Allowed { remaining, next_in } = decision.verdict else {
            panic!("{decision:?} with {left} to come")
        };
        assert_eq!(remaining, left);
        assert!(next_in > interval / 2 && next_in <= interval, "{next_in:?}");
    }
    for _ in 0..3 {
        let decision = limiter.check(Action::Upload, &user("at-once")).await;
        let Verdict::Denied { retry_after } = decision.verdict else {
            panic!("{decision:?}")
        };
        assert!(retry_after > interval / 2 && retry_after <= interval);
    }
}

/// Attempts until one is denied: how many were not, and what the last answer said.
async fn use_up(limiter: &dyn Limiter, action: Action, caller: &Caller) -> (u32, Decision) {
    for used in 0..100 {
        let decision = limiter.check(action, caller).await;
        if matches!(decision.verdict, Verdict::Denied { .. }) {
            return (used, decision);
        }
    }
    panic!("{caller:?} is never denied");
}

async fn each_quota_counts_for_itself(limiter: &dyn Limiter) {
    // One name, and still a user and a service.
    for (action, caller, count, policy) in [
        (Action::Upload, user("same"), 3, "upload"),
        (Action::Delete, user("same"), 4, "delete"),
        (Action::Upload, service("same"), 5, "service_upload"),
        (Action::Delete, service("same"), 6, "service_delete"),
        (Action::Upload, user("other"), 3, "upload"),
        (Action::Upload, service("other"), 5, "service_upload"),
    ] {
        let (used, decision) = use_up(limiter, action, &caller).await;
        assert_eq!((used, decision.policy), (count, policy), "{caller:?}");
        assert_eq!(decision.quota.count.get(), count, "{caller:?}");
    }
}

async fn a_service_has_one_quota_for_all_its_users(limiter: &dyn Limiter) {
    // A subject of a service need not be a user id.
    let odd = service("svc/main app {1}");
    assert_eq!(use_up(limiter, Action::Delete, &odd).await.0, 6);
    assert_eq!(use_up(limiter, Action::Delete, &odd).await.0, 0);
}
