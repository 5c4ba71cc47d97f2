//! The contract suite: every adapter passes every case of it. Its quotas are restored so slowly
//! that time does not matter to a test.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Action, Decision, Limiter, Verdict};
use crate::avatar::{Account, SubjectId};
use crate::config::{Limits, Quota, WhenRedisIsDown};

/// The limits that the suite expects an adapter to have.
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

/// Declares one test for each case of the suite. `$open` is a future of a limiter that has counted
/// nothing yet, and of what must live as long as it.
macro_rules! contract_tests {
    ($open:expr) => {
        crate::limits::contract::contract_tests! { $open;
            a_whole_quota_can_be_used_at_once,
            each_quota_counts_for_itself,
            a_service_has_one_quota_for_all_its_users,
        }
    };
    ($open:expr; $($case:ident,)*) => {$(
        #[tokio::test]
        async fn $case() {
            let (limiter, _guard) = $open.await;
            crate::limits::contract::$case(&limiter).await;
        }
    )*};
}
pub(super) use contract_tests;

fn user(name: &str) -> Account {
    Account::User(SubjectId::new(name).unwrap())
}

fn service(name: &str) -> Account {
    Account::Service(name.into())
}

pub(super) async fn a_whole_quota_can_be_used_at_once(limiter: &dyn Limiter) {
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

/// Attempts an action until it is denied. Returns how many attempts were allowed, and the last
/// decision.
async fn use_up(limiter: &dyn Limiter, action: Action, account: &Account) -> (u32, Decision) {
    for used in 0..100 {
        let decision = limiter.check(action, account).await;
        if matches!(decision.verdict, Verdict::Denied { .. }) {
            return (used, decision);
        }
    }
    panic!("{account:?} is never denied");
}

pub(super) async fn each_quota_counts_for_itself(limiter: &dyn Limiter) {
    // A user and a service with the same name have different accounts.
    for (action, account, count, policy) in [
        (Action::Upload, user("same"), 3, "upload"),
        (Action::Delete, user("same"), 4, "delete"),
        (Action::Upload, service("same"), 5, "service_upload"),
        (Action::Delete, service("same"), 6, "service_delete"),
        (Action::Upload, user("other"), 3, "upload"),
        (Action::Upload, service("other"), 5, "service_upload"),
    ] {
        let (used, decision) = use_up(limiter, action, &account).await;
        assert_eq!((used, decision.policy), (count, policy), "{account:?}");
        assert_eq!(decision.quota.count.get(), count, "{account:?}");
    }
}

pub(super) async fn a_service_has_one_quota_for_all_its_users(limiter: &dyn Limiter) {
    // The subject of a service need not be a user id.
    let odd = service("svc/main app {1}");
    assert_eq!(use_up(limiter, Action::Delete, &odd).await.0, 6);
    assert_eq!(use_up(limiter, Action::Delete, &odd).await.0, 0);
}
