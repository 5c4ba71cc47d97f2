//! Authentication: who made a request, as a JSON Web Token (RFC 7519) shows.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`principal`] | the bearer of a valid token |
//! | [`keys`] | where the keys that verify tokens come from |
//! | [`claims`] | how a token's claims become a principal |
//! | [`verify`] | verification of tokens |
//! | [`issue`](mod@issue) | new tokens, for development and for scripts |
//!
//! This module does not decide what a principal may do: [`access`](crate::access) does.

mod claims;
mod issue;
mod keys;
mod principal;
mod verify;

pub use issue::issue;
pub use keys::{EmptySecret, KeySource, SharedSecret};
pub use principal::{Principal, Role};
pub use verify::{TokenError, Verifier};
