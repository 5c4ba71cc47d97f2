//! Servers, faults and pictures for the tests and benchmarks of Cameo. Nothing here becomes part of
//! the service.
//!
//! | module | content |
//! | --- | --- |
//! | [`redis`] | starts a `redis-server`, one with Sentinel, or a Cluster |
//! | [`s3`] | starts an S3 server that can fail on request, or uses a real one |
//! | [`identity`] | starts an identity provider that publishes keys, and fails on request |
//! | [`moderation`] | starts a moderation service that fails on request |
//! | [`tokens`] | signs tokens with keys that another implementation made |
//! | [`photos`] | makes pictures to upload, and checks returned images with an independent decoder |
//!
//! This crate does not depend on the service, so the service's unit tests can use it as well as its
//! black-box tests, chaos tests and benchmarks. The functions panic when something is wrong, because
//! a panic fails a test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a panic fails the test that calls"
)]

pub mod identity;
pub mod moderation;
pub mod photos;
pub mod redis;
pub mod s3;
pub mod tokens;

use std::path::{Path, PathBuf};

/// The root folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The bytes of a file in `tests/fixtures`. The `README.md` there describes each.
#[track_caller]
pub fn fixture(name: &str) -> Vec<u8> {
    let path = repository().join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
