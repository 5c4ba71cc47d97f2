//! Cameo: a standalone avatar service.
pub mod avatar;
pub mod catalog;
pub mod config;
pub mod imaging;
pub mod storage;
