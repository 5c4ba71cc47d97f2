//! The S3 server of the unit tests, with what surrounds it inside the program.

pub(crate) use cameo::config::{PublicAccess, S3Credentials, S3Settings};

#[allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // its other parts serve other tests
#[path = "../../../src/storage/s3/testing.rs"]
pub(crate) mod server;
