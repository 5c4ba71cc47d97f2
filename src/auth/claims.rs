//! How a token's claims become a [`Principal`].

use serde::{Deserialize, Deserializer};

use super::{Principal, Role};
use crate::avatar::SubjectId;

/// The claims that this service reads, besides those that verification checks.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) sub: String,
    #[serde(default, deserialize_with = "roles")]
    role: Vec<String>,
    #[serde(default, deserialize_with = "roles")]
    roles: Vec<String>,
    #[serde(default, deserialize_with = "scopes")]
    scope: Scopes,
    #[serde(default, deserialize_with = "scopes")]
    scp: Scopes,
}

impl Claims {
    /// The principal that these claims describe.
    ///
    /// Only the role claims grant a role. A scope says what a user allowed a client to do; it never
    /// makes an admin or a service.
    pub(super) fn principal(self) -> Principal {
        let has_role = |role: &str| self.role.iter().chain(&self.roles).any(|one| one == role);
        let role = if has_role("admin") {
            Role::Admin
        } else if has_role("service") {
            Role::Service
        } else {
            Role::User
        };
        let claims = [&self.scope, &self.scp];
        let scopes = || claims.iter().flat_map(|claim| &claim.names);
        // Identity providers put scopes of their own (`openid`) into every token. So a token is
        // restricted to its scopes only if it names at least one of this service.
        let restricted = scopes().any(|scope| scope.starts_with("avatars:"));
        // A claim that cannot be read may hold such a restriction.
        let is_readable = claims.iter().all(|claim| claim.is_readable);
        let may_write =
            is_readable && (!restricted || scopes().any(|scope| scope == "avatars:write"));
        Principal {
            subject: SubjectId::new(self.sub.as_str()).ok(),
            role,
            may_write,
            name: self.sub,
        }
    }
}

/// The scopes that a claim names.
struct Scopes {
    names: Vec<String>,
    /// Whether the claim is absent, null, a string or a list of strings.
    is_readable: bool,
}

impl Default for Scopes {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            is_readable: true,
        }
    }
}

/// A claim that is a string or a list of strings. A claim of another type grants nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Strings {
    List(Vec<String>),
    One(String),
    Null(()),
    Other(serde::de::IgnoredAny),
}

/// Reads roles. A string is one role; spaces do not separate roles.
fn roles<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match Strings::deserialize(deserializer)? {
        Strings::List(list) => list,
        Strings::One(role) => vec![role],
        Strings::Null(()) | Strings::Other(_) => Vec::new(),
    })
}

/// Reads scopes. Single spaces separate them, and nothing else (RFC 6749, section 3.3). The strings
/// of a list are split too, because some identity providers put several scopes into one string.
fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scopes, D::Error> {
    let strings = match Strings::deserialize(deserializer)? {
        Strings::List(list) => list,
        Strings::One(string) => vec![string],
        Strings::Null(()) => Vec::new(),
        Strings::Other(_) => {
            return Ok(Scopes {
                names: Vec::new(),
                is_readable: false,
            });
        }
    };
    let names = strings.iter().flat_map(|string| string.split(' '));
    Ok(Scopes {
        names: names.map(str::to_owned).collect(),
        is_readable: true,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn principal(claims: &Value) -> Principal {
        Claims::deserialize(claims).unwrap().principal()
    }

    #[test]
    fn a_role_is_a_whole_string_and_no_scope_grants_one() {
        for (claims, role) in [
            (json!({"sub": "a"}), Role::User),
            (json!({"sub": "a", "role": "admin"}), Role::Admin),
            (json!({"sub": "a", "roles": "service"}), Role::Service),
            (
                json!({"sub": "a", "roles": ["x", "service"]}),
                Role::Service,
            ),
            (json!({"sub": "a", "role": "Site admin"}), Role::User),
            (json!({"sub": "a", "role": "site\u{a0}admin"}), Role::User),
            (json!({"sub": "a", "role": "admin service"}), Role::User),
            (json!({"sub": "a", "role": " admin"}), Role::User),
            (json!({"sub": "a", "role": "Admin"}), Role::User),
            (json!({"sub": "a", "roles": ["Site admin"]}), Role::User),
            (json!({"sub": "a", "roles": [["admin"]]}), Role::User),
            (json!({"sub": "a", "scope": "openid service"}), Role::User),
            (json!({"sub": "a", "scope": "admin"}), Role::User),
            (json!({"sub": "a", "scp": ["admin"]}), Role::User),
            (json!({"sub": "a", "role": 7, "roles": null}), Role::User),
            (json!({"sub": "a", "role": "administrator"}), Role::User),
        ] {
            assert_eq!(principal(&claims).role, role, "{claims}");
        }
    }

    #[test]
    fn only_scopes_of_this_service_restrict_a_token() {
        let may_write = |scope: &str| principal(&json!({"sub": "a", "scope": scope})).may_write;
        assert!(may_write("openid profile"));
        assert!(may_write("avatars:read avatars:write"));
        assert!(!may_write("openid avatars:read"));
        // Only single spaces separate scopes.
        assert!(!may_write("avatars:read\u{a0}avatars:write"));
        assert!(!may_write("avatars:read\tavatars:write"));
    }

    #[test]
    fn scp_holds_scopes_too_as_a_string_or_a_list() {
        let may_write = |scp: Value| principal(&json!({"sub": "a", "scp": scp})).may_write;
        assert!(!may_write(json!("avatars:read")));
        assert!(!may_write(json!(["avatars:read"])));
        assert!(may_write(json!(["avatars:read", "avatars:write"])));
        assert!(may_write(json!("openid")));
        // A role is no scope.
        let claims = json!({"sub": "a", "scope": "avatars:read", "role": "avatars:write"});
        assert!(!principal(&claims).may_write);
    }

    #[test]
    fn a_token_with_unreadable_scopes_may_not_write() {
        let may_write = |claim: &str, value: &Value| {
            let claims = json!({"sub": "a", claim: value});
            principal(&claims).may_write
        };
        for claim in ["scope", "scp"] {
            for restricted in [
                json!(["avatars:read", 7]),
                json!(["openid avatars:read"]),
                json!(["openid", "profile avatars:read"]),
                json!({"a": "avatars:read"}),
                json!([["avatars:read"]]),
                json!(7),
                json!(false),
            ] {
                assert!(!may_write(claim, &restricted), "{claim}: {restricted}");
            }
            for free in [
                json!(null),
                json!(""),
                json!([]),
                json!(["openid profile"]),
                json!(["openid avatars:read avatars:write"]),
            ] {
                assert!(may_write(claim, &free), "{claim}: {free}");
            }
        }
        // A second claim that permits writing changes nothing.
        let claims = json!({"sub": "a", "scope": "avatars:write", "scp": {"a": "avatars:read"}});
        assert!(!principal(&claims).may_write);
    }

    #[test]
    fn a_subject_that_is_no_user_id_keeps_its_name_and_role() {
        let principal = principal(&json!({"sub": "svc|main app", "role": "service"}));
        assert_eq!(principal.subject, None);
        assert_eq!(principal.name, "svc|main app");
        assert_eq!(principal.role, Role::Service);
    }
}
