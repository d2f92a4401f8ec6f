//! Sockets with a time limit from birth, and what their errors mean.

use std::io;

use crate::vfs::error::{Error, ErrorKind};

/// The one place where a socket's error becomes an [`Error`]: `TimedOut` or `Disconnected`.
/// `what` names the peer or what was being done.
#[must_use]
pub fn failure(what: impl std::fmt::Display, err: &io::Error) -> Error {
    // A socket's time-out is EAGAIN on Linux; as such it must never reach a program.
    match err.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Error::new(ErrorKind::TimedOut, format!("{what}: no answer in time"))
        }
        _ => Error::new(ErrorKind::Disconnected, format!("{what}: {err}")),
    }
}
