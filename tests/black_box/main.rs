//! The service from the outside: the real thing on a port of its own, spoken to over HTTP by
//! clients with roles. Every answer is compared with the OpenAPI document on its way.

mod support;

mod access;
mod bad_input;
mod crash;
mod documents;
mod lifecycle;
mod limits;
mod operations;
mod reading;
mod uploads;
