//! The S3 server of the unit tests, with the types that it needs from the program.

pub(crate) use cameo::config::{PublicAccess, S3Credentials, S3Settings};

#[allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // other tests use the rest
#[path = "../../../src/storage/s3/testing.rs"]
pub(crate) mod server;
