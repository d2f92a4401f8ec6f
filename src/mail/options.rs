//! What the command line says of a mail mount, already checked.

use super::address::Mailbox;
use super::connect::Endpoint;
use super::fetch::{FetchOptions, SecretSource};

/// One account: where its mail comes from and where it goes.
#[derive(Debug, Clone)]
pub struct MailOptions {
    /// The inbox.
    pub fetch: FetchOptions,
    /// The server that takes mail; `None`: this mount only reads.
    pub submission: Option<Submission>,
    /// `From` of messages that have none; `None` only without `submission`.
    pub from: Option<Mailbox>,
}

/// The server that takes mail.
#[derive(Clone)]
pub struct Submission {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Who logs in; `None`: nobody does.
    pub user: Option<String>,
    /// Password or token.
    pub secret: SecretSource,
    /// `secret` gives OAuth tokens.
    pub is_token: bool,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submission")
            .field("endpoint", &self.endpoint)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
