//! All integration tests; the modules are listed here so that support code is compiled once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::significant_drop_tightening,
    dead_code,
    unreachable_pub,
    missing_debug_implementations
)]

mod content;
mod ftp_backend;
mod ftp_session;
mod support;
