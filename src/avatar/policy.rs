//! Policies: who may upload for a subject, and who else may see its avatar.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{SubjectId, Timestamp};

/// A subject's policy: its lock and its viewers. It belongs to the subject, not to an avatar, so it
/// survives replacement and delete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The number of the change that made this policy. It is 0 if the subject never had a policy. Of
    /// two policies of a subject, the one with the higher sequence is the later one.
    pub sequence: u64,
    /// The lock, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// The users who may see the avatar where avatars are private.
    #[serde(default)]
    pub viewers: BTreeSet<SubjectId>,
}

/// A lock stops uploads for a subject. Only admins may still upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The reason, for the user. It may be empty.
    pub reason: String,
    /// The time at which the lock ends; `None` if it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The time at which the lock was set, by the catalog's clock.
    pub locked_at: Timestamp,
}

impl Lock {
    /// The length limit of a reason in characters.
    pub const MAX_REASON_CHARS: usize = 500;

    /// Whether the lock stops uploads at `now`.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Policy {
    /// The largest number of viewers of a subject.
    pub const MAX_VIEWERS: usize = 10_000;

    /// The same policy without a lock that has ended by `now`.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.lock = self.lock.filter(|lock| lock.is_in_force(now));
        self
    }

    /// Whether two policies permit the same. Their sequences may differ.
    pub fn permits_the_same(&self, other: &Self) -> bool {
        (&self.lock, &self.viewers) == (&other.lock, &other.viewers)
    }
}

/// The object that keeps a subject's policy, so that a rebuild can restore it.
///
/// It is JSON with a `layout` number. A reader skips fields that it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDocument {
    /// The subject.
    pub subject: SubjectId,
    /// Its policy.
    #[serde(flatten)]
    pub policy: Policy,
}

/// The layout of new policy documents.
const LAYOUT: u32 = 1;

/// The bytes are not a policy document that this program can read.
#[derive(Debug, thiserror::Error)]
pub enum PolicyDocumentError {
    /// The bytes are damaged, or are not a policy document.
    #[error("a policy document is damaged")]
    Damaged(#[from] serde_json::Error),
    /// A later release wrote it.
    #[error("a policy document has the unknown layout {0}")]
    UnknownLayout(u32),
}

impl PolicyDocument {
    /// Encodes the document.
    ///
    /// # Errors
    /// This does not fail in practice: every policy can be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Numbered<'a> {
            layout: u32,
            #[serde(flatten)]
            document: &'a PolicyDocument,
        }
        serde_json::to_vec(&Numbered {
            layout: LAYOUT,
            document: self,
        })
    }

    /// Decodes a document.
    ///
    /// # Errors
    /// [`PolicyDocumentError`]
    pub fn from_json(bytes: &[u8]) -> Result<Self, PolicyDocumentError> {
        #[derive(Deserialize)]
        struct Number {
            layout: u32,
        }
        let Number { layout } = serde_json::from_slice(bytes)?;
        if layout > LAYOUT {
            return Err(PolicyDocumentError::UnknownLayout(layout));
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(id: &str) -> SubjectId {
        SubjectId::new(id).unwrap()
    }

    fn document() -> PolicyDocument {
        PolicyDocument {
            subject: subject("42"),
            policy: Policy {
                sequence: 7,
                lock: Some(Lock {
                    reason: "spam".to_owned(),
                    until: Some(Timestamp::from_unix_ms(2_000)),
                    locked_at: Timestamp::from_unix_ms(1_000),
                }),
                viewers: [subject("43"), subject("a|b")].into(),
            },
        }
    }

    #[test]
    fn a_lock_with_an_end_is_in_force_until_then_and_another_one_always() {
        let mut lock = document().policy.lock.unwrap();
        assert!(lock.is_in_force(Timestamp::from_unix_ms(1_999)));
        assert!(!lock.is_in_force(Timestamp::from_unix_ms(2_000)));
        lock.until = None;
        assert!(lock.is_in_force(Timestamp::from_unix_ms(u64::MAX)));
    }

    #[test]
    fn a_document_round_trips_and_unknown_fields_are_skipped() {
        let bytes = document().to_json().unwrap();
        assert_eq!(PolicyDocument::from_json(&bytes).unwrap(), document());
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with(r#"{"layout":1,"#), "{text}");
        let later = text.replace('{', r#"{"mood":"good","#);
        assert!(later.matches("mood").count() > 1, "{later}");
        let read = PolicyDocument::from_json(later.as_bytes()).unwrap();
        assert_eq!(read, document());
    }

    #[test]
    fn a_document_of_an_unknown_layout_is_an_error_of_its_own() {
        let later = br#"{"layout":2,"subject":"42"}"#;
        let error = PolicyDocument::from_json(later).unwrap_err();
        assert!(matches!(error, PolicyDocumentError::UnknownLayout(2)));
        let error = PolicyDocument::from_json(b"{").unwrap_err();
        assert!(matches!(error, PolicyDocumentError::Damaged(_)));
    }
}
