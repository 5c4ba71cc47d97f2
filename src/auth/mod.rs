//! Authentication: who made a request, as a JSON Web Token (RFC 7519) shows.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`principal`] | the bearer of a valid token |
//! | [`keys`] | keys that verify tokens, and the port of their sources |
//! | `fixed`, `pem` | keys of the configuration, and of files |
//! | `remote`, `jwks`, `fetch` | keys that an identity provider publishes |
//! | `json` | JSON objects in which no name appears twice |
//! | [`claims`] | how a token's claims become a principal |
//! | [`verify`] | verification of tokens |
//! | [`issue`](mod@issue) | new tokens, for development and for scripts |
//!
//! This module does not decide what a principal may do: [`access`](crate::access) does.

mod claims;
mod fetch;
mod fixed;
mod issue;
mod json;
mod jwks;
mod keys;
mod pem;
mod principal;
mod remote;
#[cfg(test)]
pub(crate) mod testing;
mod verify;

pub use fetch::FetchError;
pub use fixed::{FixedKeys, InvalidKeys};
pub use issue::issue;
pub use jwks::InvalidAnswer;
pub use keys::{Candidates, InvalidKey, Key, KeySource};
pub use principal::{Principal, Role};
pub use remote::{FetchedSet, IssuerKeys, KeySetError, RemoteKeys};
pub use verify::{TokenError, Verifier};
