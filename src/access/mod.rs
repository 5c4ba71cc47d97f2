//! Access: who may do and see what, and the links under which images are seen.
//!
//! All decisions about permissions are made here, and all URLs of images are made here.
//! [`http`](crate::http) asks; it decides nothing by itself. A decision that depends on the
//! configuration is a method of [`Access`]; the others are functions.
//!
//! Every avatar is public: anyone may read it and follow its links, so links carry no signature.

use crate::auth::{Principal, Role};
use crate::avatar::{Account, Audience, ObjectKey, SubjectId};
use crate::catalog::Uploader;
use crate::config::Environment;

/// Why a principal may not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// The token is restricted to reading.
    #[error("the token lacks the scope avatars:write")]
    MissingScope,
    /// The avatar belongs to another user.
    #[error("only the owner, a service or an admin may change an avatar")]
    NotOwner,
    /// The principal is a user.
    #[error("only a service or an admin may do this")]
    NotOperator,
}

/// The rules that depend on the configuration.
#[derive(Clone, Debug)]
pub struct Access {
    environment: Environment,
    objects_url: String,
}

impl Access {
    /// The rules of an environment. `objects_url` is the start of every public object's URL,
    /// without a closing slash.
    pub const fn new(environment: Environment, objects_url: String) -> Self {
        Self {
            environment,
            objects_url,
        }
    }

    /// Whether anyone may see how much the service holds. In production only operators may.
    pub fn shows_figures_to_anyone(&self) -> bool {
        self.environment == Environment::Development
    }

    /// The URL of a public object.
    pub fn link_to(&self, key: &ObjectKey) -> String {
        format!("{}/{key}", self.objects_url)
    }
}

/// Checks that a principal may change the avatar of `subject`: the owner, a service or an admin
/// may, with a token that permits changes.
///
/// # Errors
/// [`Denied::MissingScope`], [`Denied::NotOwner`]
pub(crate) fn may_change(principal: &Principal, subject: &SubjectId) -> Result<(), Denied> {
    if !principal.may_write {
        return Err(Denied::MissingScope);
    }
    let is_owner = principal.subject.as_ref() == Some(subject);
    if is_owner || principal.role > Role::User {
        Ok(())
    } else {
        Err(Denied::NotOwner)
    }
}

/// Checks that a principal is an operator: a service or an admin.
///
/// # Errors
/// [`Denied::NotOperator`]
pub(crate) fn may_operate(principal: &Principal) -> Result<(), Denied> {
    if principal.role > Role::User {
        Ok(())
    } else {
        Err(Denied::NotOperator)
    }
}

/// Checks that a principal may change the policies of users, which are locks and viewers: a service or
/// an admin may, with a token that permits changes.
///
/// # Errors
/// [`Denied::MissingScope`], [`Denied::NotOperator`]
pub(crate) fn may_manage(principal: &Principal) -> Result<(), Denied> {
    may_operate(principal)?;
    if principal.may_write {
        Ok(())
    } else {
        Err(Denied::MissingScope)
    }
}

/// Checks that a principal may read the lock of `subject`: the owner, a service or an admin may.
///
/// # Errors
/// [`Denied::NotOperator`]
pub(crate) fn may_read_lock(principal: &Principal, subject: &SubjectId) -> Result<(), Denied> {
    if principal.subject.as_ref() == Some(subject) {
        return Ok(());
    }
    may_operate(principal)
}

/// Whether a lock of the subject stops uploads of a principal: it stops everybody but admins.
pub(crate) fn uploader(principal: &Principal) -> Uploader {
    match principal.role {
        Role::Admin => Uploader::Admin,
        Role::User | Role::Service => Uploader::Ordinary,
    }
}

/// Whether anyone may read an object.
pub(crate) fn is_public(key: &ObjectKey) -> bool {
    key.audience() == Audience::Public
}

/// The account that a change of the avatar of `subject` counts against: the user's for a user, and
/// its own for a service or an admin.
pub(crate) fn account(principal: &Principal, subject: &SubjectId) -> Account {
    match principal.role {
        Role::User => Account::User(subject.clone()),
        Role::Service | Role::Admin => Account::Service(principal.name.as_str().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avatar::{AvatarId, Format, VariantName};

    fn access(environment: Environment) -> Access {
        Access::new(environment, "https://cdn.example.com".to_owned())
    }

    fn subject(id: &str) -> SubjectId {
        SubjectId::new(id).unwrap()
    }

    fn principal(name: &str, role: Role) -> Principal {
        Principal {
            name: name.to_owned(),
            subject: SubjectId::new(name).ok(),
            role,
            may_write: true,
            may_read: true,
            may_read_statistics: false,
            email: None,
        }
    }

    #[test]
    fn the_owner_a_service_and_an_admin_may_change_an_avatar() {
        for (name, role, expected) in [
            ("42", Role::User, Ok(())),
            ("43", Role::User, Err(Denied::NotOwner)),
            ("42", Role::Service, Ok(())),
            ("main", Role::Service, Ok(())),
            ("root", Role::Admin, Ok(())),
            // A subject that is no user id owns nothing.
            ("svc|main app", Role::User, Err(Denied::NotOwner)),
            ("svc|main app", Role::Service, Ok(())),
        ] {
            let principal = principal(name, role);
            let decision = may_change(&principal, &subject("42"));
            assert_eq!(decision, expected, "{principal:?}");
        }
    }

    #[test]
    fn a_token_without_the_scope_changes_nothing() {
        for (name, role) in [
            ("42", Role::User),
            ("43", Role::User),
            ("main", Role::Service),
            ("root", Role::Admin),
        ] {
            let principal = Principal {
                may_write: false,
                ..principal(name, role)
            };
            let decision = may_change(&principal, &subject("42"));
            assert_eq!(decision, Err(Denied::MissingScope), "{principal:?}");
        }
    }

    #[test]
    fn services_and_admins_are_operators() {
        let decision = |role| may_operate(&principal("42", role));
        assert_eq!(decision(Role::User), Err(Denied::NotOperator));
        assert_eq!(decision(Role::Service), Ok(()));
        assert_eq!(decision(Role::Admin), Ok(()));
    }

    #[test]
    fn services_and_admins_manage_policies_and_the_owner_may_read_the_lock() {
        for (name, role, manages, reads) in [
            ("42", Role::User, Err(Denied::NotOperator), Ok(())),
            (
                "43",
                Role::User,
                Err(Denied::NotOperator),
                Err(Denied::NotOperator),
            ),
            ("main", Role::Service, Ok(()), Ok(())),
            ("root", Role::Admin, Ok(()), Ok(())),
        ] {
            let mut principal = principal(name, role);
            assert_eq!(may_manage(&principal), manages, "{name}");
            assert_eq!(may_read_lock(&principal, &subject("42")), reads, "{name}");
            principal.may_write = false;
            let refused = manages.and(Err(Denied::MissingScope));
            assert_eq!(may_manage(&principal), refused, "{name}");
            assert_eq!(may_read_lock(&principal, &subject("42")), reads, "{name}");
        }
    }

    #[test]
    fn a_lock_does_not_stop_admins() {
        for (role, expected) in [
            (Role::User, Uploader::Ordinary),
            (Role::Service, Uploader::Ordinary),
            (Role::Admin, Uploader::Admin),
        ] {
            assert_eq!(uploader(&principal("42", role)), expected);
        }
    }

    #[test]
    fn figures_are_for_operators_in_production() {
        assert!(!access(Environment::Production).shows_figures_to_anyone());
        assert!(access(Environment::Development).shows_figures_to_anyone());
    }

    #[test]
    fn only_renditions_are_public_and_a_link_is_their_key_under_the_base_url() {
        let access = access(Environment::Production);
        let avatar = AvatarId::from_bytes([7; 16]);
        let rendition = ObjectKey::Rendition {
            avatar,
            variant: VariantName::new("medium").unwrap(),
            format: Format::Webp,
            animated: false,
        };
        assert!(is_public(&rendition));
        let link = access.link_to(&rendition);
        let path = format!("public/avatars/{avatar}/medium.webp");
        assert_eq!(link, format!("https://cdn.example.com/{path}"));
        let format = Format::Webp;
        for private in [
            ObjectKey::Manifest { avatar },
            ObjectKey::Master { avatar, format },
        ] {
            assert!(!is_public(&private), "{private}");
        }
    }

    #[test]
    fn a_user_counts_against_the_user_and_a_service_against_itself() {
        let charged = |name, role| account(&principal(name, role), &subject("42"));
        assert_eq!(charged("42", Role::User), Account::User(subject("42")));
        for role in [Role::Service, Role::Admin] {
            assert_eq!(charged("main", role), Account::Service("main".into()));
        }
    }
}
