//! Sessions and the pool against servers of a few lines, each with one fault of a real one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod at_once;
mod commands;
mod login;
mod pool;
pub(crate) mod server;
mod tls;
mod transfers;
mod trust;
