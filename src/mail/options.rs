//! What the command line says of a mail mount, already checked.

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
}
