//! The bearer of a valid token.

use crate::avatar::SubjectId;

/// The bearer of a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's subject.
    pub name: String,
    /// The token's subject as a user id; `None` if it is not a valid one. A service needs no user
    /// id.
    pub subject: Option<SubjectId>,
    /// The role that the token grants.
    pub role: Role,
    /// Whether the token's scopes permit changes.
    pub may_write: bool,
}

/// The role of a principal. A later one in this list includes the rights of the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// An end user, who owns one avatar.
    User,
    /// Another program, which acts for all of its users.
    Service,
    /// An operator of this service.
    Admin,
}
