//! Policies as bytes.
//!
//! A policy is a *head* and the *viewers*. The scripts of Redis read the head; the viewers are opaque
//! to them, and are read only when they are needed.
//!
//! | part | field | bytes |
//! | --- | --- | --- |
//! | head | layout | 1 |
//! | | sequence | varint |
//! | | lock | varint: 0 for no lock, 1 for a lock without an end, else the end in Unix milliseconds |
//! | | reason, and the time of the lock in Unix milliseconds | varint length and text; varint |
//! | viewers | user ids | varint count; each a varint length and text |
//!
//! A reader ignores bytes after the last field that it knows, so a later release can append fields.

use std::collections::BTreeSet;

use super::DecodeError;
use crate::avatar::{Lock, Policy, SubjectId, Timestamp};

/// The layout of new policies.
pub(in crate::catalog) const POLICY_LAYOUT: u8 = 1;
const NO_LOCK: u64 = 0;
const LOCK_WITHOUT_END: u64 = 1;

/// A policy as bytes.
pub(in crate::catalog) struct EncodedPolicy {
    pub(in crate::catalog) head: Vec<u8>,
    /// Empty if there are no viewers.
    pub(in crate::catalog) viewers: Vec<u8>,
}

/// The head of a policy.
pub(in crate::catalog) struct PolicyHead {
    pub(in crate::catalog) sequence: u64,
    /// The lock, even if it has ended.
    pub(in crate::catalog) lock: Option<Lock>,
}

pub(in crate::catalog) fn encode_policy(policy: &Policy) -> Result<EncodedPolicy, postcard::Error> {
    let (end, reason, locked_at) = match &policy.lock {
        None => (NO_LOCK, "", 0),
        Some(lock) => {
            // An end in the first two milliseconds of 1970 would be read as one of the marks.
            let end = lock.until.map(|until| until.unix_ms().max(2));
            let locked_at = lock.locked_at.unix_ms();
            (end.unwrap_or(LOCK_WITHOUT_END), &*lock.reason, locked_at)
        }
    };
    let fields = (policy.sequence, end, reason, locked_at);
    let head = postcard::to_extend(&fields, vec![POLICY_LAYOUT])?;
    let viewers = if policy.viewers.is_empty() {
        Vec::new()
    } else {
        postcard::to_allocvec(&policy.viewers)?
    };
    Ok(EncodedPolicy { head, viewers })
}

pub(in crate::catalog) fn decode_policy_head(bytes: &[u8]) -> Result<PolicyHead, DecodeError> {
    let rest = match bytes.split_first() {
        Some((&POLICY_LAYOUT, rest)) => rest,
        other => return Err(DecodeError::UnknownLayout(other.map(|(first, _)| *first))),
    };
    let ((sequence, end, reason, locked_at), _): ((u64, u64, String, u64), _) =
        postcard::take_from_bytes(rest)?;
    let until = match end {
        NO_LOCK | LOCK_WITHOUT_END => None,
        end => Some(Timestamp::from_unix_ms(end)),
    };
    let lock = (end != NO_LOCK).then(|| Lock {
        reason,
        until,
        locked_at: Timestamp::from_unix_ms(locked_at),
    });
    Ok(PolicyHead { sequence, lock })
}

/// Decodes a policy. An empty `head` means that there is none.
pub(in crate::catalog) fn decode_policy(
    head: &[u8],
    viewers: &[u8],
) -> Result<Policy, DecodeError> {
    if head.is_empty() {
        return Ok(Policy::default());
    }
    let PolicyHead { sequence, lock } = decode_policy_head(head)?;
    let viewers: BTreeSet<SubjectId> = match viewers {
        [] => BTreeSet::new(),
        viewers => postcard::take_from_bytes(viewers)?.0,
    };
    Ok(Policy {
        sequence,
        lock,
        viewers,
    })
}

/// Whether encoded viewers contain `viewer`.
pub(in crate::catalog) fn viewers_contain(
    viewers: &[u8],
    viewer: &SubjectId,
) -> Result<bool, DecodeError> {
    let (names, _): (Vec<&str>, _) = match viewers {
        [] => return Ok(false),
        viewers => postcard::take_from_bytes(viewers)?,
    };
    Ok(names.contains(&viewer.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies() -> Vec<Policy> {
        let lock = |until| Lock {
            reason: "Grund: Werbung".to_owned(),
            until,
            locked_at: Timestamp::from_unix_ms(1_800_000_000_000),
        };
        let end = Timestamp::from_unix_ms(1_900_000_000_000);
        let viewers = ["43", "auth0|5f7c"].map(|id| SubjectId::new(id).unwrap());
        let policy = |sequence, lock, viewers| Policy {
            sequence,
            lock,
            viewers,
        };
        vec![
            policy(1, None, BTreeSet::new()),
            policy(300, Some(lock(None)), BTreeSet::new()),
            policy(u64::MAX, Some(lock(Some(end))), viewers.into()),
        ]
    }

    #[test]
    fn a_policy_round_trips_and_later_fields_are_skipped() {
        for policy in policies() {
            let EncodedPolicy { mut head, viewers } = encode_policy(&policy).unwrap();
            assert_eq!(decode_policy(&head, &viewers).unwrap(), policy);
            for id in ["43", "auth0|5f7c", "5f7c", "3"] {
                let id = SubjectId::new(id).unwrap();
                let expected = policy.viewers.contains(&id);
                assert_eq!(viewers_contain(&viewers, &id).unwrap(), expected, "{id}");
            }
            head.extend(b"fields of the next release");
            assert_eq!(decode_policy(&head, &viewers).unwrap(), policy);
            let of_head = decode_policy_head(&head).unwrap();
            assert_eq!(
                (of_head.sequence, of_head.lock),
                (policy.sequence, policy.lock)
            );
        }
    }

    #[test]
    fn the_bytes_of_a_policy_do_not_change() {
        let encoded = encode_policy(&policies()[2]).unwrap();
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        assert_eq!(
            hex(&encoded.head),
            "01ffffffffffffffffff0180f0cc86a6370e4772756e643a2057657262756e6780a0f1c2b134"
        );
        assert_eq!(hex(&encoded.viewers), "020234330a61757468307c35663763");
    }

    #[test]
    fn a_policy_of_an_unknown_layout_is_refused_and_no_bytes_are_no_policy() {
        assert_eq!(decode_policy(b"", b"").unwrap(), Policy::default());
        assert!(matches!(
            decode_policy(&[2, 1, 0, 0, 0], b""),
            Err(DecodeError::UnknownLayout(Some(2)))
        ));
        assert!(decode_policy(&[1, 0x80], b"").is_err());
    }
}
