//! Cameo: a standalone avatar service.
pub mod avatar;
pub mod imaging;
