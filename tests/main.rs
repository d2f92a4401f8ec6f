//! All integration tests; the modules are listed here so that support code is compiled once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::significant_drop_tightening,
    missing_debug_implementations,
    unreachable_pub
)]

mod cli;
mod content;
mod cuts;
mod ftp_backend;
mod ftp_session;
mod hostile;
mod interop;
mod killed;
mod kills;
mod mail_fetch;
mod mail_lab;
mod mail_mime;
mod mail_mount;
mod mail_pop3;
mod mail_queue;
mod mail_real;
mod mail_smtp;
mod model;
mod mounted;
mod scripted_server;
mod semantics;
mod soak;
mod support;
mod vfs;
mod writeback;
