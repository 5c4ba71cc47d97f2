//! The bearer of a valid token.

use crate::avatar::SubjectId;

/// The bearer of a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's subject. If the token comes from a further issuer, it begins with the prefix of
    /// that issuer.
    pub name: String,
    /// The token's subject as a user id; `None` if it is not a valid one. A service needs no user
    /// id.
    pub subject: Option<SubjectId>,
    /// The role that the token grants.
    pub role: Role,
    /// Whether the token's scopes permit changes.
    pub may_write: bool,
    /// Whether the token's scopes permit reading what is not public.
    pub may_read: bool,
    /// Whether a role of the token permits reading statistics. It permits nothing else.
    pub may_read_statistics: bool,
    /// The user's e-mail address in lower case, without surrounding spaces. It is present only if
    /// the issuer has verified it, or if the configuration trusts it.
    pub email: Option<String>,
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

impl Role {
    /// The name in audit records: `user`, `service`, `admin`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }
}
