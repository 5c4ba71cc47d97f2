//! The service from the outside: the real thing on a port of its own, spoken to over HTTP by
//! clients with roles. Every answer is compared with the OpenAPI document on its way.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on has failed

mod support;

mod access;
mod bad_input;
mod crash;
mod deployment;
mod documents;
mod fleet;
mod full_disk;
mod hostile;
mod lifecycle;
mod limits;
mod maintenance;
mod metrics;
mod operations;
mod reading;
mod uploads;
