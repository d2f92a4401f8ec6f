//! All integration tests; the modules are listed here so that support code is compiled once.
mod ftp_session;
