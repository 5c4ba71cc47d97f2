//! What the tests stand on.

mod client;
mod conformance;
pub(crate) mod photos;
mod service;
mod snapshot;

pub(crate) use client::{Answer, Client, form, form_named, send};
pub(crate) use service::{TestService, objects_in};
pub(crate) use snapshot::shape;
