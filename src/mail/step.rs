//! The steps of a synchronisation, told as they happen.
//!
//! Who listens learns of progress, can stop everything by an error, and in tests stands between
//! any two steps that survive a crash.

use super::failure::Result;
use super::pop3::Capabilities;
use super::store::Delivered;

/// What was just done.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// Logged in.
    LoggedIn(&'a Capabilities),
    /// The maildrop was listed: so many messages, so many of them to be fetched, with so many
    /// octets.
    Listed {
        /// Messages on the server.
        messages: usize,
        /// Those to be fetched.
        wanted: usize,
        /// Their octets, where the server told.
        octets: u64,
    },
    /// One message was received, with so many octets, and is not safe yet.
    Received(u64),
    /// Contents are on disk, under temporary names.
    Synced,
    /// One message got its name.
    Renamed,
    /// The names are on disk.
    DirectorySynced,
    /// The ledger knows these messages; they are safe.
    Recorded(&'a [Delivered]),
    /// The server was told to delete so many messages, at QUIT.
    Marked(usize),
    /// QUIT was answered: they are deleted.
    Quit,
    /// The ledger knows that they are.
    Forgotten,
}

/// Who listens. An error ends the synchronisation as a broken connection would.
pub type Watch<'a> = dyn Fn(Step<'_>) -> Result<()> + Sync + 'a;
