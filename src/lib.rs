//! Cameo: a standalone avatar service.
pub mod auth;
pub mod avatar;
pub mod catalog;
pub mod config;
pub mod imaging;
pub mod limits;
pub mod redis;
pub mod service;
pub mod storage;
