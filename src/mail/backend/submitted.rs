//! How files of the outbox became messages.

use crate::mail::queue::Id;

/// What was made of one file.
#[derive(Clone, Default)]
pub(super) struct Submitted {
    pub(super) ids: Vec<Id>,
    /// The file came complete from elsewhere: with that it was sent, and nobody has second thoughts
    /// by using its name again.
    pub(super) moved_in: bool,
    /// Somebody is about to take the messages back, so many at once: the file stays.
    pub(super) withdrawals: u32,
}

/// How a file came to be a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It was written, or given its name, in the outbox.
    Written,
    /// It was moved in from elsewhere.
    MovedIn,
    /// It stays where it is whatever becomes of the message.
    Held,
}

impl Submitted {
    pub(super) fn of(ids: &[Id], moved_in: bool) -> Self {
        Self {
            ids: ids.to_vec(),
            moved_in,
            withdrawals: 0,
        }
    }
}
