//! Cameo: a standalone avatar service.
pub mod avatar;
pub mod catalog;
pub mod imaging;
pub mod redis;
pub mod storage;
