//! How a token's claims become a [`Principal`].

use serde_json::{Map, Value};

use super::{Principal, Role};
use crate::avatar::SubjectId;
use crate::config::ClaimRules;

/// The longest subject that is accepted (`OpenID` Connect Core, section 2). Rate limits use the
/// subject as a key.
const MAX_SUBJECT_BYTES: usize = 255;
/// The longest e-mail address that is accepted (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL_BYTES: usize = 254;

/// The principal that these claims describe; `None` if they have no acceptable subject.
///
/// Only the role claims grant a role. A scope says what a user allowed a client to do; it never
/// makes an admin or a service.
pub(super) fn principal(
    claims: &Map<String, Value>,
    rules: &ClaimRules,
    subject_prefix: &str,
) -> Option<Principal> {
    let subject = at_path(claims, &rules.subject).and_then(Value::as_str);
    let subject = subject.filter(|one| !one.is_empty() && one.len() <= MAX_SUBJECT_BYTES)?;
    let name = format!("{subject_prefix}{subject}");
    let granted: Vec<&str> = rules
        .roles
        .iter()
        .filter_map(|path| at_path(claims, path))
        .flat_map(|claim| strings(claim).unwrap_or_default())
        .collect();
    let has_one_of = |names: &[String]| {
        granted
            .iter()
            .any(|role| names.iter().any(|name| name == role))
    };
    let role = if has_one_of(&rules.admin_roles) {
        Role::Admin
    } else if has_one_of(&rules.service_roles) {
        Role::Service
    } else {
        Role::User
    };
    let scopes = Scopes::of(claims);
    Some(Principal {
        subject: SubjectId::new(name.as_str()).ok(),
        role,
        may_write: scopes.permit("avatars:write"),
        may_read: scopes.permit("avatars:read"),
        may_read_statistics: has_one_of(&rules.stats_roles),
        email: email(claims, rules),
        name,
    })
}

/// The e-mail address, if it is verified or trusted.
fn email(claims: &Map<String, Value>, rules: &ClaimRules) -> Option<String> {
    let address = at_path(claims, rules.email.as_ref()?)?.as_str()?.trim();
    let is_verified = claims.get("email_verified") == Some(&Value::Bool(true));
    let is_address = address.contains('@') && address.len() <= MAX_EMAIL_BYTES;
    (is_address && (is_verified || rules.email_trusted)).then(|| address.to_lowercase())
}

/// The claim at a path. A claim whose name is the whole path comes first, because some names contain
/// dots, such as `https://example.com/roles`. Otherwise each dot may lead into an object.
fn at_path<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| {
        path.match_indices('.').find_map(|(dot, _)| {
            let inner = claims.get(&path[..dot])?.as_object()?;
            at_path(inner, &path[dot + 1..])
        })
    })
}

/// The texts of a claim that is one text or a list of texts; `None` if it is something else.
fn strings(claim: &Value) -> Option<Vec<&str>> {
    match claim {
        Value::String(one) => Some(vec![one]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        Value::Null => Some(Vec::new()),
        _ => None,
    }
}

/// The scopes that a token names.
struct Scopes<'a> {
    names: Vec<&'a str>,
    /// Whether each claim is absent, null, a text or a list of texts.
    is_readable: bool,
}

impl<'a> Scopes<'a> {
    /// Reads the scopes. Single spaces separate them, and nothing else (RFC 6749, section 3.3). The
    /// texts of a list are split too, because some identity providers put several scopes into one
    /// text.
    fn of(claims: &'a Map<String, Value>) -> Self {
        let found = ["scope", "scp"].map(|name| claims.get(name).map_or(Some(Vec::new()), strings));
        let is_readable = found.iter().all(Option::is_some);
        let texts = found.into_iter().flatten().flatten();
        Self {
            names: texts.flat_map(|text| text.split(' ')).collect(),
            is_readable,
        }
    }

    /// Whether the scopes permit what `wanted` permits.
    fn permit(&self, wanted: &str) -> bool {
        // Identity providers put scopes of their own (`openid`) into every token. So a token is
        // restricted to its scopes only if it names at least one of this service.
        let is_restricted = self.names.iter().any(|scope| scope.starts_with("avatars:"));
        // A claim that cannot be read may hold such a restriction.
        self.is_readable && (!is_restricted || self.names.contains(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::testing::settings;

    fn rules() -> ClaimRules {
        settings().claims
    }

    fn read_by(rules: &ClaimRules, claims: &Value) -> Option<Principal> {
        principal(claims.as_object().unwrap(), rules, "")
    }

    fn principal_of(claims: &Value) -> Principal {
        read_by(&rules(), claims).unwrap()
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
            (json!({"sub": "a", "roles": ["admin", 7]}), Role::User),
            (json!({"sub": "a", "roles": {"admin": true}}), Role::User),
            (json!({"sub": "a", "scope": "openid service"}), Role::User),
            (json!({"sub": "a", "scope": "admin"}), Role::User),
            (json!({"sub": "a", "scp": ["admin"]}), Role::User),
            (json!({"sub": "a", "role": 7, "roles": null}), Role::User),
            (json!({"sub": "a", "role": "administrator"}), Role::User),
        ] {
            assert_eq!(principal_of(&claims).role, role, "{claims}");
        }
    }

    #[test]
    fn roles_have_the_configured_names_and_places() {
        let mut rules = rules();
        rules.roles = [
            "realm_access.roles",
            "resource_access.my.app.roles",
            "https://example.com/roles",
        ]
        .map(str::to_owned)
        .into();
        rules.admin_roles = vec!["Avatar Admin".to_owned(), "root".to_owned()];
        rules.service_roles = Vec::new();
        rules.stats_roles = vec!["auditor".to_owned()];
        for (claims, role, may_read_statistics) in [
            (
                json!({"sub": "a", "realm_access": {"roles": ["user", "root"]}}),
                Role::Admin,
                false,
            ),
            (
                json!({"sub": "a", "https://example.com/roles": ["Avatar Admin", "auditor"]}),
                Role::Admin,
                true,
            ),
            // The name of an object may contain a dot too.
            (
                json!({"sub": "a", "resource_access": {"my.app": {"roles": "root"}}}),
                Role::Admin,
                false,
            ),
            (
                json!({"sub": "a", "realm_access": {"roles": ["auditor"]}}),
                Role::User,
                true,
            ),
            // The default names and places do not count any more.
            (
                json!({"sub": "a", "roles": ["root"], "role": "admin"}),
                Role::User,
                false,
            ),
            (
                json!({"sub": "a", "realm_access": {"roles": ["admin", "service"]}}),
                Role::User,
                false,
            ),
            (
                json!({"sub": "a", "realm_access": ["root"]}),
                Role::User,
                false,
            ),
            (
                json!({"sub": "a", "realm_access": {"other": {"roles": "root"}}}),
                Role::User,
                false,
            ),
        ] {
            let principal = read_by(&rules, &claims).unwrap();
            let found = (principal.role, principal.may_read_statistics);
            assert_eq!(found, (role, may_read_statistics), "{claims}");
        }
    }

    #[test]
    fn the_claim_whose_name_is_the_whole_path_comes_first() {
        let claims = json!({"a.b": "literal", "a": {"b": "nested"}});
        let claims = claims.as_object().unwrap();
        assert_eq!(at_path(claims, "a.b"), Some(&json!("literal")));
        let claims = json!({"a": {"b.c": 1, "b": {"c": 2, "d": 3}}});
        let claims = claims.as_object().unwrap();
        assert_eq!(at_path(claims, "a.b.c"), Some(&json!(1)));
        assert_eq!(at_path(claims, "a.b.d"), Some(&json!(3)));
        for absent in ["b", "a.c", "a.b.e", "a.b.c.d", "a..b", ".a", "a.", ""] {
            assert_eq!(at_path(claims, absent), None, "{absent}");
        }
    }

    #[test]
    fn the_subject_is_read_from_its_claim_and_gets_the_prefix() {
        let mut rules = rules();
        rules.subject = "user.id".to_owned();
        let claims = json!({"sub": "a", "user": {"id": "42"}});
        let claims = claims.as_object().unwrap();
        let found = principal(claims, &rules, "partner|").unwrap();
        assert_eq!(found.name, "partner|42");
        assert_eq!(found.subject.unwrap().as_str(), "partner|42");
        assert_eq!(read_by(&rules, &json!({"sub": "a"})), None);
    }

    #[test]
    fn a_subject_that_is_missing_empty_too_long_or_no_text_is_refused() {
        for claims in [
            json!({}),
            json!({"sub": ""}),
            json!({"sub": 42}),
            json!({"sub": null}),
            json!({"sub": ["a"]}),
            json!({"sub": "a".repeat(256)}),
        ] {
            assert_eq!(read_by(&rules(), &claims), None, "{claims}");
        }
        assert!(read_by(&rules(), &json!({"sub": "a".repeat(255)})).is_some());
    }

    #[test]
    fn an_address_is_read_only_if_it_is_verified_or_trusted() {
        let mut rules = rules();
        let claims = |verified: Value| json!({"sub": "a", "email": " Ann@Example.COM ", "email_verified": verified});
        let email = |rules: &ClaimRules, verified| read_by(rules, &claims(verified)).unwrap().email;
        // Without a configured claim no address is read.
        assert_eq!(email(&rules, json!(true)), None);
        rules.email = Some("email".to_owned());
        let address = Some("ann@example.com".to_owned());
        assert_eq!(email(&rules, json!(true)), address);
        for unverified in [json!(false), json!("true"), json!(1), json!(null)] {
            assert_eq!(email(&rules, unverified.clone()), None, "{unverified}");
        }
        rules.email_trusted = true;
        assert_eq!(email(&rules, json!(false)), address);
        let other = |value: Value| {
            read_by(&rules, &json!({"sub": "a", "email": value}))
                .unwrap()
                .email
        };
        for wrong in [
            json!("ann"),
            json!(""),
            json!(["a@b"]),
            json!(format!("{}@b", "a".repeat(253))),
        ] {
            assert_eq!(other(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn only_scopes_of_this_service_restrict_a_token() {
        let rights = |scope: &str| {
            let principal = principal_of(&json!({"sub": "a", "scope": scope}));
            (principal.may_read, principal.may_write)
        };
        assert_eq!(rights("openid profile"), (true, true));
        assert_eq!(rights("avatars:read avatars:write"), (true, true));
        assert_eq!(rights("openid avatars:read"), (true, false));
        assert_eq!(rights("openid avatars:write"), (false, true));
        assert_eq!(rights("avatars:other"), (false, false));
        // Only single spaces separate scopes.
        assert_eq!(rights("avatars:read\u{a0}avatars:write"), (false, false));
        assert_eq!(rights("avatars:read\tavatars:write"), (false, false));
    }

    #[test]
    fn scp_holds_scopes_too_as_a_string_or_a_list() {
        let may_write = |scp: Value| principal_of(&json!({"sub": "a", "scp": scp})).may_write;
        assert!(!may_write(json!("avatars:read")));
        assert!(!may_write(json!(["avatars:read"])));
        assert!(may_write(json!(["avatars:read", "avatars:write"])));
        assert!(may_write(json!("openid")));
        // A role is no scope.
        let claims = json!({"sub": "a", "scope": "avatars:read", "role": "avatars:write"});
        assert!(!principal_of(&claims).may_write);
    }

    #[test]
    fn a_token_with_unreadable_scopes_may_not_write() {
        let may_write = |claim: &str, value: &Value| {
            let claims = json!({"sub": "a", claim: value});
            principal_of(&claims).may_write
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
        assert!(!principal_of(&claims).may_write);
    }

    #[test]
    fn a_subject_that_is_no_user_id_keeps_its_name_and_role() {
        let principal = principal_of(&json!({"sub": "svc|main app", "role": "service"}));
        assert_eq!(principal.subject, None);
        assert_eq!(principal.name, "svc|main app");
        assert_eq!(principal.role, Role::Service);
    }
}
