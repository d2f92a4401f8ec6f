//! A session: one control connection, logged in, in step.

use std::sync::Arc;

use super::data::DataConnection;
use super::features::Features;
use super::host::Host;
use super::reply::Reply;
use crate::vfs::error::{ErrorKind, Result};

/// One logged-in control connection, in TYPE I, in the login directory unless a caller sent CWD.
#[derive(Debug)]
pub struct Session {
    host: Arc<Host>,
    features: Arc<Features>,
    home: Vec<u8>,
}

/// What became of a transfer command.
#[derive(Debug)]
pub enum Begun {
    /// The server said 1xx (or at once 2xx, see [`Session::begin_data`]): bytes may flow.
    Open(DataConnection),
    /// It refused the transfer command or REST; the session is in step.
    Refused(Reply),
}

impl Session {
    /// Resolves, connects, reads the greeting, secures, logs in and sets up.
    ///
    /// # Errors
    /// `Disconnected` or `TimedOut` if the server cannot be reached, `PermissionDenied` for a
    /// refused login or an untrusted certificate.
    pub fn open(host: &Arc<Host>) -> Result<Self> {
        let _ = host;
        Err(ErrorKind::Unsupported.into())
    }

    /// Sends one command (no CRLF at its end; IAC is doubled here) and returns its final reply,
    /// whatever its code; preliminary 1xx replies are skipped.
    ///
    /// # Errors
    /// `Invalid` if `line` has CR, LF or NUL in it, nothing sent. Otherwise the connection is in
    /// trouble (421 included) and the session is broken.
    pub fn command(&mut self, line: &[u8]) -> Result<Reply> {
        let _ = line;
        Err(ErrorKind::Unsupported.into())
    }

    /// Sends many commands and returns as many replies in order: pipelined where the host was
    /// found to allow it, one by one elsewhere. Only for commands that need no data connection and
    /// do not depend on each other's success.
    ///
    /// # Errors
    /// As [`command`](Self::command); some of the commands may have been executed.
    pub fn batch(&mut self, lines: &[Vec<u8>]) -> Result<Vec<Reply>> {
        let _ = lines;
        Err(ErrorKind::Unsupported.into())
    }

    /// Opens a data connection and sends `command` (RETR, STOR, APPE, MLSD, LIST, NLST…), after
    /// `REST offset` if that is not 0.
    ///
    /// A server that answers 2xx without 1xx (an empty listing on some) counts as begun: reading
    /// gives what there is, `end_data` returns that reply.
    ///
    /// # Errors
    /// As [`command`](Self::command); `Protocol` if no data connection can be made, then the
    /// session is still good.
    pub fn begin_data(&mut self, command: &[u8], offset: u64) -> Result<Begun> {
        let _ = (command, offset);
        Err(ErrorKind::Unsupported.into())
    }

    /// Ends a transfer in good order: tells the server that all was sent (uploads) or takes note
    /// that all was read (downloads, read to the end before), and returns the final reply: 2xx or
    /// an error reply.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn end_data(&mut self, data: DataConnection) -> Result<Reply> {
        let _ = data;
        Err(ErrorKind::Unsupported.into())
    }

    /// Gives a transfer up: closes the data connection and reads the one reply that is due,
    /// whatever it says. Bounded by two seconds; a session that is not in step then is broken.
    pub fn close_early(&mut self, data: DataConnection) {
        let _ = data;
    }

    /// What FEAT said.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The login directory (PWD at login) in the server's bytes, `/` if it would not tell.
    #[must_use]
    pub fn home(&self) -> &[u8] {
        &self.home
    }

    /// The host and what is known of it.
    #[must_use]
    pub const fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Whether the control connection is lost or out of step; every call fails from then on.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        true
    }
}
