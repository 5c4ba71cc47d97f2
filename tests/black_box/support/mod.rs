//! Support for the tests: the service, its servers, HTTP clients and pictures.

mod backend;
mod client;
mod comparison;
mod conformance;
mod program;
mod routes;
mod service;
mod snapshot;
mod waiting;

pub(crate) use backend::Backend;
pub(crate) use cameo_testing::photos;
pub(crate) use client::{Answer, Client, form, form_named, send, try_send};
pub(crate) use comparison::{caused_by, comparable};
pub(crate) use conformance::resolve;
pub(crate) use program::{Program, run_program, url_when_ready};
pub(crate) use routes::{Route, routes_of};
pub(crate) use service::TestService;
pub(crate) use snapshot::shape;
pub(crate) use waiting::until_seen;
