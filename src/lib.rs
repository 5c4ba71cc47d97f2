//! Cameo: a standalone avatar service.
//!
//! A client uploads a profile picture. Cameo checks it, makes a small image in every configured size
//! and format, stores the images in a bucket or a folder, records them in Redis or an embedded
//! database, and answers with public URLs.
//!
//! # The map
//!
//! The image code is in two crates of its own: [`cameo_imaging`] turns the bytes of a picture and a
//! recipe into encoded images, and `cameo-webp-decode` is its WebP decoder. Both are pure
//! computation. This crate is the service around them. Read its modules in this order:
//!
//! | module | task |
//! | --- | --- |
//! | [`avatar`] | the vocabulary: user ids, avatar ids, object keys, records, events |
//! | [`defaults`] | draws the images of users without an avatar |
//! | [`config`] | loads and checks the settings |
//! | [`telemetry`] | log lines, metrics, health |
//! | `private_files` | creates files and folders that only their owner can read |
//! | `data_folder` | creates and probes the data folder, and keeps the generated secret in it |
//! | `command_socket` | the socket in the data folder, through which a service executes commands |
//! | `audit` | records who changed what: in the log, and in a file |
//! | `waiting` | waits at startup for a bucket or Redis that does not answer yet |
//! | `outgoing` | sends requests to other services |
//! | [`redis`] | the connection that the Redis adapters share |
//! | [`jail`] | processes each picture in a separate process that has no rights |
//! | [`storage`] | the port of the object store, and its adapters: S3, folder |
//! | [`catalog`] | the port of the records, removals and events, and its adapters: Redis, embedded |
//! | [`limits`] | the port of the rate limits, and its adapters: Redis, local |
//! | `moderation` | the port of the check of pictures before they are published, and its adapter |
//! | [`auth`] | verifies tokens: who makes a request |
//! | [`access`] | decides who may do and see what, and makes links to images |
//! | [`service`] | the functions of the program: upload, read, remove, sweep, maintain |
//! | [`http`] | the route table, the checks of a request, the shape of answers |
//! | [`app`] | the composition root: the only file that chooses adapters |
//! | [`server`] | listeners, connections, background tasks, and their end in order |
//! | [`cli`] | the commands and their options |
//!
//! A module imports only from modules above it in this table:
//! `main → cli → server → app → http → service → jail, ports`. The service and the jail also import
//! [`cameo_imaging`]. An adapter imports its port. [`app`] imports the adapters. Every module may
//! import [`avatar`], [`config`] and [`telemetry`]. The test in `directions.rs` checks this.
//!
//! # One upload, step by step
//!
//! 1. [`http`] checks the request before it reads the body: who sends it, whether they may change
//!    this avatar, whether a foreign page forged it, and whether it is within the rate limit.
//! 2. [`service`] admits the upload: it reserves memory, or lets the client wait with its body unread.
//!    `http` then reads the body; more memory is reserved as bytes arrive.
//! 3. The service *makes the objects*. It probes the headers, waits for a worker and for memory to
//!    decode, and hands the picture to the [`jail`]. When the first rendition is encoded, the service
//!    reserves the avatar's id and version in the [`catalog`]. It writes each rendition to the
//!    [`storage`] as soon as it is encoded. With `moderation.url`, the largest pictures are sent there
//!    meanwhile. The manifest is written after the last rendition, if moderation allows the pictures.
//! 4. The service *commits them for the user*: one atomic step of the catalog makes the new record
//!    current, retires the previous avatar, and appends the event.
//! 5. The sweep later removes the objects of the retired avatar.
//!
//! # Invariants
//!
//! - An upload that was answered 200 stays readable, whatever fails next. An upload that was not
//!   leaves the user's avatar unchanged, and the sweep removes its objects.
//! - An object never changes. Every upload has an id of its own that is never used again.
//! - A user id is never part of an object key or of the public URL of an object.
//! - No rendition contains metadata of the upload.
//! - Memory is reserved before it is used. Every queue, wait and cache is bounded.
//! - An answer says what the client can correct; a log line says what failed.
//! - A failure is logged once, where it is handled, with all its causes.
//!
//! # Deliberately absent
//!
//! - Mutable global state.
//! - Background work without an end: [`server`] owns the tasks and the connections, and stops them. A
//!   task that a request starts ends by itself within seconds.
//! - Temporary files outside the folder of the store.
//! - C code that parses an upload. Decoders are Rust. Some of them use `unsafe`; [`cameo_imaging`]
//!   names those. They run in the [`jail`].

mod access;
pub mod app;
mod audit;
pub mod auth;
pub mod avatar;
pub mod catalog;
pub mod cli;
mod command_socket;
pub mod config;
mod data_folder;
pub mod defaults;
#[cfg(test)]
mod directions;
pub mod http;
pub mod jail;
mod limits;
mod moderation;
mod outgoing;
mod private_files;
mod redis;
pub mod server;
mod service;
mod storage;
mod telemetry;
mod waiting;
