//! Whom a request counts against.

use std::sync::Arc;

use super::SubjectId;

/// The account that a request counts against: its rate limits, and its share of memory.
///
/// A user and a service with the same name have different accounts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// A user who changes the user's own avatar.
    User(SubjectId),
    /// A service or an admin, by the subject of its token, for changes of any user's avatar. This
    /// subject need not be a valid user id.
    Service(Arc<str>),
}

impl Account {
    /// The user id, or the subject of the service's token.
    pub fn name(&self) -> &str {
        match self {
            Self::User(subject) => subject.as_str(),
            Self::Service(name) => name,
        }
    }

    /// The kind of account in error texts: `user`, `service`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Service(_) => "service",
        }
    }
}
