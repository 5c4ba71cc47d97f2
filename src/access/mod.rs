//! Access: who may do and see what, and the links under which images are seen.
//!
//! All decisions about permissions are made here, and all URLs of images are made here.
//! [`http`](crate::http) asks; it decides nothing by itself. A decision that depends on the
//! configuration is a method of [`Access`]; the others are functions.
//!
//! The setting `delivery.access` decides who may see an avatar. The file `links` makes the links.

mod links;

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Principal, Role};
use crate::avatar::{
    Account, Audience, ObjectKey, Original, Record, Rendition, SubjectId, Timestamp,
};
use crate::catalog::Uploader;
use crate::config::{Environment, SecretString, Visibility};
use crate::storage::{Store, StoreError};
pub(crate) use links::{FILES_ROOT, LinkState};
use links::{LinkKind, LinkMaker, LinkSigner};

/// Why a principal may not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// The token does not permit changes.
    #[error("the token lacks the scope avatars:write")]
    MissingScope,
    /// The token does not permit reading.
    #[error("the token lacks the scope avatars:read")]
    MissingReadScope,
    /// The avatar belongs to another user.
    #[error("only the owner, a service or an admin may change an avatar")]
    NotOwner,
    /// The principal is a user.
    #[error("only a service or an admin may do this")]
    NotOperator,
    /// The principal is a user without a role for statistics.
    #[error("only a service, an admin or a role in auth.stats_roles may read statistics")]
    NotStatistics,
}

/// The rules that depend on the configuration.
#[derive(Clone)]
pub struct Access {
    environment: Environment,
    visibility: Visibility,
    links: LinkMaker,
    bucket: Option<PresigningBucket>,
}

/// A bucket that signs links.
#[derive(Clone)]
struct PresigningBucket {
    store: Arc<dyn Store>,
    ttl: Duration,
}

/// Whether a caller may see an avatar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// The caller may see it.
    Granted,
    /// The caller may see it only as one of its viewers, under this user id. A caller without a user id
    /// is no viewer.
    AsViewer(Option<SubjectId>),
}

/// The links to the renditions of a record, and to its original if users may see it.
pub(crate) struct Links<'a> {
    record: &'a Record,
    urls: Vec<String>,
    original: Option<String>,
}

impl Links<'_> {
    /// The link to a rendition of the record.
    pub(crate) fn of(&self, rendition: &Rendition) -> &str {
        let place = self
            .record
            .renditions
            .iter()
            .position(|one| one == rendition);
        place
            .and_then(|place| self.urls.get(place))
            .map_or("", String::as_str)
    }

    /// The link to the original; `None` if there is none that users may see.
    pub(crate) fn original(&self) -> Option<(&Original, &str)> {
        self.record.public_original().zip(self.original.as_deref())
    }
}

impl Access {
    /// The rules where anyone may see every avatar. `objects_url` is the start of every public object's
    /// URL, and `public_url` the URL of this program, both without a closing slash.
    pub(crate) const fn public(
        environment: Environment,
        objects_url: String,
        public_url: String,
    ) -> Self {
        Self {
            environment,
            visibility: Visibility::Public,
            links: LinkMaker {
                objects_url,
                public_url,
                kind: LinkKind::Open,
            },
            bucket: None,
        }
    }

    /// The same rules where not everybody may see every avatar. Links work for the duration `ttl`. They
    /// are signed with `secret`; those of the `previous` secrets work too.
    #[must_use]
    pub(crate) fn restricted(
        mut self,
        visibility: Visibility,
        ttl: Duration,
        secret: &SecretString,
        previous: &[SecretString],
    ) -> Self {
        self.visibility = visibility;
        self.links.kind = LinkKind::Signed(Box::new(LinkSigner::new(secret, previous)), ttl);
        self
    }

    /// The same rules, with links that the bucket signs for the duration `ttl`.
    #[must_use]
    pub(crate) fn with_links_of(mut self, store: Arc<dyn Store>, ttl: Duration) -> Self {
        self.bucket = Some(PresigningBucket { store, ttl });
        self
    }

    /// Whether anyone may see every avatar.
    pub(crate) fn is_public(&self) -> bool {
        self.visibility == Visibility::Public
    }

    /// Where new renditions lie.
    pub(crate) fn audience(visibility: Visibility) -> Audience {
        match visibility {
            Visibility::Public => Audience::Public,
            Visibility::SignedIn | Visibility::Private => Audience::Private,
        }
    }

    /// Whether a caller may see the avatar of `subject`. Where avatars are public, there need not be a
    /// `principal`; elsewhere a caller without one may see nothing.
    pub(crate) fn sight(&self, principal: Option<&Principal>, subject: &SubjectId) -> Sight {
        match (self.visibility, principal) {
            (Visibility::Public, _) => Sight::Granted,
            // A token that is restricted to other scopes shows nothing.
            (_, Some(principal)) if !principal.may_read => Sight::AsViewer(None),
            (Visibility::SignedIn, Some(_)) => Sight::Granted,
            (Visibility::Private, Some(principal)) => {
                let is_owner = principal.subject.as_ref() == Some(subject);
                if is_owner || principal.role > Role::User {
                    Sight::Granted
                } else {
                    Sight::AsViewer(principal.subject.clone())
                }
            }
            (Visibility::SignedIn | Visibility::Private, None) => Sight::AsViewer(None),
        }
    }

    /// The link to an image.
    ///
    /// # Errors
    /// If the bucket's credentials cannot sign it.
    pub(crate) async fn link_to(&self, key: &ObjectKey) -> Result<String, StoreError> {
        if let Some(PresigningBucket { store, ttl }) = &self.bucket
            && let Some(url) = store.presign(key, *ttl).await?
        {
            return Ok(url);
        }
        Ok(self.links.link_to(key, Timestamp::now()))
    }

    /// The links to all images of a record.
    ///
    /// # Errors
    /// If the bucket's credentials cannot sign them.
    pub(crate) async fn links_of<'a>(&self, record: &'a Record) -> Result<Links<'a>, StoreError> {
        let mut urls = Vec::with_capacity(record.renditions.len());
        for rendition in &record.renditions {
            let key = ObjectKey::of_rendition(record, rendition);
            urls.push(self.link_to(&key).await?);
        }
        let original = match record.public_original() {
            Some(original) => {
                let key = ObjectKey::of_original(record.avatar_id, record.audience, original);
                Some(self.link_to(&key).await?)
            }
            None => None,
        };
        Ok(Links {
            record,
            urls,
            original,
        })
    }

    /// Checks whether a request for an object under [`FILES_ROOT`] may read it. `parameters` are the end
    /// and the signature of the link.
    pub(crate) fn check_link(
        &self,
        key: &ObjectKey,
        parameters: Option<(&str, &str)>,
    ) -> LinkState {
        if !is_rendition(key) {
            return LinkState::Forged;
        }
        self.links.check(key, parameters, Timestamp::now())
    }

    /// Whether anyone may see how much the service holds. In production only operators may.
    pub fn shows_figures_to_anyone(&self) -> bool {
        self.environment == Environment::Development
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

/// Checks that a principal may read what only operators see: a service or an admin may, with a token
/// that permits reading.
///
/// # Errors
/// [`Denied::NotOperator`], [`Denied::MissingReadScope`]
pub(crate) fn may_inspect(principal: &Principal) -> Result<(), Denied> {
    is_operator(principal)?;
    has_read_scope(principal)
}

/// Checks that a principal may read statistics: an operator may, and the bearer of a role in
/// `auth.stats_roles`, with a token that permits reading.
///
/// # Errors
/// [`Denied::NotStatistics`], [`Denied::MissingReadScope`]
pub(crate) fn may_read_statistics(principal: &Principal) -> Result<(), Denied> {
    if principal.role == Role::User && !principal.may_read_statistics {
        return Err(Denied::NotStatistics);
    }
    has_read_scope(principal)
}

/// Checks that a principal may change the policies of users, which are locks and viewers: a service or
/// an admin may, with a token that permits changes.
///
/// # Errors
/// [`Denied::MissingScope`], [`Denied::NotOperator`]
pub(crate) fn may_manage(principal: &Principal) -> Result<(), Denied> {
    is_operator(principal)?;
    if principal.may_write {
        Ok(())
    } else {
        Err(Denied::MissingScope)
    }
}

/// Checks that a principal may read the lock of `subject`: the owner, a service or an admin may, with
/// a token that permits reading.
///
/// # Errors
/// [`Denied::NotOperator`], [`Denied::MissingReadScope`]
pub(crate) fn may_read_lock(principal: &Principal, subject: &SubjectId) -> Result<(), Denied> {
    if principal.subject.as_ref() != Some(subject) {
        is_operator(principal)?;
    }
    has_read_scope(principal)
}

/// Checks that a principal is a service or an admin.
fn is_operator(principal: &Principal) -> Result<(), Denied> {
    if principal.role > Role::User {
        Ok(())
    } else {
        Err(Denied::NotOperator)
    }
}

/// Checks that the token of a principal permits reading.
fn has_read_scope(principal: &Principal) -> Result<(), Denied> {
    if principal.may_read {
        Ok(())
    } else {
        Err(Denied::MissingReadScope)
    }
}

/// Whether a lock of the subject stops uploads of a principal: it stops everybody but admins.
pub(crate) fn uploader(principal: &Principal) -> Uploader {
    match principal.role {
        Role::Admin => Uploader::Admin,
        Role::User | Role::Service => Uploader::Ordinary,
    }
}

/// Whether an object lies under `public/`.
fn lies_in_public(key: &ObjectKey) -> bool {
    key.audience() == Audience::Public
}

/// Whether an object is an image that is ever delivered. Manifests, private originals and policies
/// never are.
fn is_rendition(key: &ObjectKey) -> bool {
    matches!(key, ObjectKey::Rendition { .. })
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
    use crate::avatar::{AvatarId, Format, SubjectHash, VariantName};

    fn access(environment: Environment) -> Access {
        let objects_url = "https://cdn.example.com".to_owned();
        let public_url = "https://avatars.example.com".to_owned();
        Access::public(environment, objects_url, public_url)
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
    fn services_and_admins_may_inspect_with_a_token_that_permits_reading() {
        let decision = |role, may_read| {
            let principal = principal("42", role);
            may_inspect(&Principal {
                may_read,
                ..principal
            })
        };
        for may_read in [true, false] {
            assert_eq!(decision(Role::User, may_read), Err(Denied::NotOperator));
        }
        for role in [Role::Service, Role::Admin] {
            assert_eq!(decision(role, true), Ok(()));
            assert_eq!(decision(role, false), Err(Denied::MissingReadScope));
        }
    }

    #[test]
    fn operators_and_roles_for_statistics_read_statistics() {
        for (role, has_role, expected) in [
            (Role::User, false, Err(Denied::NotStatistics)),
            (Role::User, true, Ok(())),
            (Role::Service, false, Ok(())),
            (Role::Admin, false, Ok(())),
        ] {
            let mut principal = Principal {
                may_read_statistics: has_role,
                ..principal("42", role)
            };
            assert_eq!(may_read_statistics(&principal), expected, "{principal:?}");
            // The role permits nothing else.
            assert_eq!(may_inspect(&principal).is_ok(), role > Role::User);
            principal.may_read = false;
            let refused = expected.and(Err(Denied::MissingReadScope));
            assert_eq!(may_read_statistics(&principal), refused, "{principal:?}");
        }
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
            principal.may_read = false;
            let refused = reads.and(Err(Denied::MissingReadScope));
            assert_eq!(may_read_lock(&principal, &subject("42")), refused, "{name}");
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
    fn only_renditions_are_delivered() {
        let public = access(Environment::Production);
        let secret = SecretString::from("the secret");
        let ttl = Duration::from_mins(15);
        let private = access(Environment::Production);
        let private = private.restricted(Visibility::Private, ttl, &secret, &[]);
        let avatar = AvatarId::from_bytes([7; 16]);
        let format = Format::Webp;
        let owner = SubjectHash::of(&subject("42"));
        for hidden in [
            ObjectKey::Manifest { avatar },
            ObjectKey::PrivateOriginal { avatar, format },
            ObjectKey::Policy { owner },
        ] {
            assert_eq!(public.check_link(&hidden, None), LinkState::Forged);
            let link = private.links.link_to(&hidden, Timestamp::now());
            let (_, query) = link.split_once("?expires=").unwrap();
            let parameters = query.split_once("&signature=").unwrap();
            let state = private.check_link(&hidden, Some(parameters));
            assert_eq!(state, LinkState::Forged, "{hidden}");
        }
        for audience in [Audience::Public, Audience::Private] {
            let rendition = ObjectKey::Rendition {
                audience,
                avatar,
                variant: VariantName::new("medium").unwrap(),
                format,
                animated: false,
            };
            let state = public.check_link(&rendition, None);
            assert!(matches!(state, LinkState::Valid(_)), "{rendition}");
            assert_eq!(private.check_link(&rendition, None), LinkState::Forged);
        }
    }

    #[test]
    fn who_may_see_an_avatar_depends_on_the_setting() {
        let secret = SecretString::from("the secret");
        let with = |visibility| {
            let access = access(Environment::Production);
            access.restricted(visibility, Duration::from_mins(15), &secret, &[])
        };
        let owner = subject("42");
        let public = access(Environment::Production);
        assert_eq!(public.sight(None, &owner), Sight::Granted);
        let viewer = |id: &str| Sight::AsViewer(Some(subject(id)));
        for (name, role, signed_in, private) in [
            ("42", Role::User, Sight::Granted, Sight::Granted),
            ("43", Role::User, Sight::Granted, viewer("43")),
            (
                "no user id",
                Role::User,
                Sight::Granted,
                Sight::AsViewer(None),
            ),
            ("main app", Role::Service, Sight::Granted, Sight::Granted),
            ("root", Role::Admin, Sight::Granted, Sight::Granted),
        ] {
            let principal = Some(principal(name, role));
            let sight = with(Visibility::SignedIn).sight(principal.as_ref(), &owner);
            assert_eq!(sight, signed_in, "{name}");
            let sight = with(Visibility::Private).sight(principal.as_ref(), &owner);
            assert_eq!(sight, private, "{name}");
            let restricted = principal.map(|principal| Principal {
                may_read: false,
                ..principal
            });
            for visibility in [Visibility::SignedIn, Visibility::Private] {
                let sight = with(visibility).sight(restricted.as_ref(), &owner);
                assert_eq!(sight, Sight::AsViewer(None), "{name}");
            }
        }
        for visibility in [Visibility::SignedIn, Visibility::Private] {
            let nobody = with(visibility).sight(None, &owner);
            assert_eq!(nobody, Sight::AsViewer(None));
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
