//! Black-box tests: each starts the real service on a free port and uses it over HTTP, with clients
//! of different roles. Every answer is checked against the OpenAPI document.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic fails the test

mod support;

mod access;
mod audit;
mod bad_input;
mod crash;
mod deployment;
mod documents;
mod fleet;
mod flood;
mod full_disk;
mod hostile;
mod identity;
mod lifecycle;
mod limits;
mod lookup;
mod maintenance;
mod metrics;
mod moderation;
mod operations;
mod originals;
mod permissions;
mod providers;
mod reading;
mod shown;
mod stolen;
mod uploads;
mod verdicts;
mod visibility;
mod visibility_table;
