//! All integration tests; the modules are listed here so that support code is compiled once.

mod cli;
mod content;
mod ftp_session;
mod model;
mod scripted_server;
mod support;
mod vfs;
