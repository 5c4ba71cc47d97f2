//! Locks and viewers: their objects, their restoration, and concurrent changes.

use super::*;
use crate::avatar::{Lock, Policy, PolicyDocument, SubjectHash};

fn policy(sequence: u64, reason: &str) -> Policy {
    Policy {
        sequence,
        lock: Some(Lock {
            reason: reason.to_owned(),
            until: None,
            locked_at: contract::NOW,
        }),
        viewers: [SubjectId::new("43").unwrap()].into(),
    }
}

fn policy_key(subject: &SubjectId) -> ObjectKey {
    let owner = SubjectHash::of(subject);
    ObjectKey::Policy { owner }
}

async fn store_policy(parts: &Parts, subject: &SubjectId, policy: &Policy) {
    let document = PolicyDocument {
        subject: subject.clone(),
        policy: policy.clone(),
    };
    let body = Bytes::from(document.to_json().unwrap());
    parts.store.put(&policy_key(subject), body).await.unwrap();
}

async fn stored_policy(parts: &Parts, subject: &SubjectId) -> Policy {
    let object = parts.store.get(&policy_key(subject)).await.unwrap();
    let bytes = object.unwrap().into_bytes().await.unwrap();
    PolicyDocument::from_json(&bytes).unwrap().policy
}

#[tokio::test]
async fn a_rebuild_restores_policies_and_a_collection_keeps_them() {
    let parts = Parts::new();
    let service = parts.service();
    parts.catalog.initialize(InitialState::Lost).await.unwrap();
    let subjects = ["lost", "same", "late", "rival"].map(|id| SubjectId::new(id).unwrap());
    let [lost, same, late, rival] = &subjects;
    store_policy(&parts, lost, &policy(4, "spam")).await;
    for (who, in_store, in_catalog) in [
        (same, policy(2, "a"), policy(2, "a")),
        (late, policy(2, "a"), policy(3, "b")),
        (rival, policy(2, "a"), policy(2, "b")),
    ] {
        store_policy(&parts, who, &in_store).await;
        parts
            .catalog
            .restore_policy(who, &in_catalog)
            .await
            .unwrap();
    }
    let damaged = policy_key(&SubjectId::new("damaged").unwrap());
    parts
        .store
        .put(&damaged, Bytes::from_static(b"{"))
        .await
        .unwrap();
    let moved = policy_key(&SubjectId::new("moved").unwrap());
    let body = parts.store.get(&policy_key(same)).await.unwrap().unwrap();
    let body = body.into_bytes().await.unwrap();
    parts.store.put(&moved, body).await.unwrap();

    let done = rebuilt(&service).await;
    assert_eq!((done.policies, done.unreadable), (1, 2));
    for (who, expected) in [
        (lost, policy(4, "spam")),
        (same, policy(2, "a")),
        (late, policy(3, "b")),
        (rival, policy(2, "b")),
    ] {
        assert_eq!(
            parts.catalog.policy(who).await.unwrap().0,
            expected,
            "{who}"
        );
        // The object of an earlier or an unacknowledged policy is repaired.
        assert_eq!(stored_policy(&parts, who).await, expected, "{who}");
    }
    assert_eq!(rebuilt(&service).await.policies, 0);
    let before = parts.store.policies(None).await.unwrap();
    assert_eq!(before.len(), 6);
    let found = collected(&service).await;
    assert_eq!((found.uploads, found.garbage.count), (0, 0));
    assert_eq!(parts.store.policies(None).await.unwrap(), before);
}

#[tokio::test]
async fn a_change_continues_the_later_policy_of_catalog_and_store() {
    let parts = Parts::new();
    let service = parts.service();
    let (lost, late) = (subject(), SubjectId::new("late").unwrap());
    // The catalog has lost its last writes.
    store_policy(&parts, &lost, &policy(9, "spam")).await;
    // The object was overwritten by a writer that the catalog refused.
    store_policy(&parts, &late, &policy(3, "rival")).await;
    parts
        .catalog
        .restore_policy(&late, &policy(3, "spam"))
        .await
        .unwrap();
    let viewer = SubjectId::new("44").unwrap();
    for (who, sequence) in [(&lost, 10), (&late, 4)] {
        service.add_viewer(who, &viewer).await.unwrap();
        let mut expected = policy(sequence, "spam");
        expected.viewers.insert(viewer.clone());
        assert_eq!(parts.catalog.policy(who).await.unwrap().0, expected);
        assert_eq!(stored_policy(&parts, who).await, expected);
        // A repetition writes nothing.
        service.add_viewer(who, &viewer).await.unwrap();
        assert_eq!(stored_policy(&parts, who).await.sequence, sequence);
    }
    service.unlock(&lost).await.unwrap();
    let unlocked = parts.catalog.policy(&lost).await.unwrap().0;
    assert_eq!((unlocked.lock, unlocked.viewers.len()), (None, 2));
    // A document of a later release is not overwritten.
    let later = Bytes::from_static(br#"{"layout":2}"#);
    parts.store.put(&policy_key(&lost), later).await.unwrap();
    let refused = service.unlock(&lost).await.unwrap_err();
    assert!(matches!(refused, Error::Internal(_)), "{refused:?}");
}

#[tokio::test]
async fn concurrent_changes_of_one_policy_are_all_kept() {
    let parts = Parts::new();
    let services = [parts.service(), parts.service()];
    let viewer = |number: usize| SubjectId::new(format!("viewer-{number}")).unwrap();
    let who = subject();
    let changes = (0..40).map(|number| {
        let (service, viewer) = (&services[number % 2], viewer(number));
        let who = &who;
        async move { service.add_viewer(who, &viewer).await }
    });
    for changed in futures_util::future::join_all(changes).await {
        changed.unwrap();
    }
    let policy = parts.catalog.policy(&who).await.unwrap().0;
    assert_eq!(policy.viewers, (0..40).map(viewer).collect());
    assert!(policy.sequence >= 40, "{}", policy.sequence);
    assert_eq!(stored_policy(&parts, &who).await, policy);
}

#[tokio::test]
async fn a_subject_has_a_limited_number_of_viewers() {
    let parts = Parts::new();
    let service = parts.service();
    let viewer = |number: usize| SubjectId::new(format!("viewer-{number}")).unwrap();
    let full = Policy {
        sequence: 1,
        lock: None,
        viewers: (0..Policy::MAX_VIEWERS).map(viewer).collect(),
    };
    parts
        .catalog
        .restore_policy(&subject(), &full)
        .await
        .unwrap();
    store_policy(&parts, &subject(), &full).await;
    service.add_viewer(&subject(), &viewer(7)).await.unwrap();
    let refused = service
        .add_viewer(&subject(), &viewer(Policy::MAX_VIEWERS))
        .await;
    assert!(matches!(refused, Err(Error::TooManyViewers)), "{refused:?}");
    assert_eq!(service.viewers(&subject()).await.unwrap(), full.viewers);
    service.remove_viewer(&subject(), &viewer(7)).await.unwrap();
    let last = viewer(Policy::MAX_VIEWERS);
    service.add_viewer(&subject(), &last).await.unwrap();
}
