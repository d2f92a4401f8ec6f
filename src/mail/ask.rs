//! What programs beside the mount ask of a mailbox: the words of `ferryfs sendmail` and `ferryfs mail
//! wait`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::envelope::{BringBack, Notify};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Queue this message, durably; the answer is the list of its names in the queue.
    Submit(Pickup),
    /// How these messages fare, or all that are queued if none is named.
    Fate(Vec<String>),
    /// Try all that wait, now.
    Retry,
    /// Who is behind these names and addresses.
    Expand(Vec<String>),
}

/// A message with an envelope of its own, as sendmail(8) is given one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pickup {
    /// A file with the message; it is not needed any more when there is an answer.
    pub message: PathBuf,
    /// Addresses, aliases and users of this machine.
    pub to: Vec<String>,
    /// Those of the header get it too.
    pub header_too: bool,
    /// Where failures go, and `From` where the header has none; empty is the empty path, `None` the
    /// account.
    pub sender: Option<String>,
    /// The name in `From` where the header has none.
    pub name: Option<String>,
    /// When a report is wanted.
    pub notify: Option<Notify>,
    /// What it brings back.
    pub bring_back: Option<BringBack>,
    /// What the sender calls this envelope.
    pub envelope_id: Option<String>,
}
