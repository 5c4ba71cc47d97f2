//! Cameo: a standalone avatar service.
//!
//! # The house, in reading order
//!
//! The crate [`cameo_imaging`] turns bytes into renditions; it is pure. This crate is the service
//! round it:
//!
//! | module | what it is |
//! | --- | --- |
//! | [`avatar`] | the vocabulary: ids, keys, records; a leaf |
//! | [`config`] | settings, checked; a leaf |
//! | [`storage`] | port and adapters: where renditions lie |
//! | [`catalog`] | port and adapters: which avatar each user has, and what is still to be removed |
//! | [`limits`] | port and adapters: how often anyone may do what |
//! | `private_files` | files and folders that only their owner may read; a leaf |
//! | [`redis`] | the connection that the adapters of a fleet share |
//! | [`service`] | what the program does: upload, read, remove, sweep, maintain |
//! | [`auth`] | who made a request |
//! | [`access`] | who may do and see what, and links to images |
//! | [`http`] | the route table, what guards it, how answers look |
//! | [`app`] | the composition root: the only place that chooses adapters |
//! | [`server`] | connections, the sweep, an end in order |
//! | [`telemetry`] | lines and metrics for the operator; a leaf |
//! | [`cli`] | the command line |
//!
//! `main → cli → app, server`; `server → http → service`; `service → cameo_imaging, ports`;
//! `adapters → their port`; everything may use [`avatar`] and [`telemetry`]'s [`Metrics`](telemetry::Metrics) and
//! [`Health`](telemetry::Health). Nothing calls upward.
//!
//! # The way of one upload
//!
//! `http` extracts a permit (who asks is known, may do it, is within the rate), reserves room in
//! the memory budget, and only then reads the body. [`service`] probes the headers, waits for a
//! worker and for room to decode, and hands the picture to the [`cameo_imaging::Pool`]. The first rendition that comes
//! back reserves the avatar's id and version in the [`catalog`]; each is written to the
//! [`storage`] as soon as it is encoded; the manifest follows the last. Then one atomic step of
//! the catalog makes the new record current and retires the one before.
//!
//! # What always holds
//!
//! - An upload that was answered 200 is readable, whatever dies next. One that was not leaves
//!   nothing behind after the sweep, and the avatar before it unchanged.
//! - An object never changes: every upload has an id of its own, never reused.
//! - A user id is never part of an object's key or URL.
//! - No byte of an upload's metadata is in any rendition.
//! - Memory is reserved before it is used; every queue, wait and cache has an end.
//! - A client is told what it can mend, an operator what happened; never the other way round.
//!
//! # What is deliberately not here
//!
//! No mutable global state, no background work without an owner, no temporary files outside the
//! store's own folder, and no C code that parses what a stranger sent. Decoders are Rust, but not
//! all of them are safe Rust; [`cameo_imaging`] says which use `unsafe`, and where they run.

pub mod access;
pub mod app;
pub mod auth;
pub mod avatar;
pub mod catalog;
pub mod cli;
pub mod config;
#[cfg(test)]
mod directions;
pub mod http;
pub mod limits;
mod private_files;
pub mod redis;
pub mod server;
pub mod service;
pub mod storage;
pub mod telemetry;
