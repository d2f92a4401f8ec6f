//! What the command line says of a mail mount, already checked.

use std::time::Duration;

use super::address::Mailbox;
use super::fetch::FetchOptions;
use super::sender::Route;

/// One account: where its mail comes from and where it goes.
#[derive(Debug, Clone)]
pub struct MailOptions {
    /// The inbox.
    pub fetch: FetchOptions,
    /// Where mail goes; `None`: this mount only reads.
    pub submission: Option<Route>,
    /// `From` of messages that have none; `None` only without `submission`.
    pub from: Option<Mailbox>,
    /// Time between the last close of a file in the outbox and the first attempt, in which writing
    /// again, renaming or removing the file takes the message back.
    pub linger: Duration,
}
