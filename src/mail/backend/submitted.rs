//! How files of the outbox became messages.

use crate::mail::queue::{Awaited, Id};
use crate::vfs::path::RemotePath;

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

/// The messages of one file; of a held one, nothing happens before the second part is dropped.
pub(super) type Queued<'a> = (Vec<Id>, Option<Awaited<'a>>);

impl Submitted {
    pub(super) fn of(ids: &[Id], moved_in: bool) -> Self {
        Self {
            ids: ids.to_vec(),
            moved_in,
            withdrawals: 0,
        }
    }
}

/// What an envelope says of the file its message was made of.
pub(super) fn note_of(place: &RemotePath) -> String {
    std::str::from_utf8(place.as_bytes()).map_or_else(
        // No path has a NUL in it.
        |_| {
            let hex = place.as_bytes().iter().map(|b| format!("{b:02x}"));
            format!("\0{}", hex.collect::<String>())
        },
        str::to_owned,
    )
}

/// The other way round; `None` for a message that was made of no file.
pub(super) fn place_of(note: &str) -> Option<RemotePath> {
    let bytes = match note.strip_prefix('\0') {
        None => note.as_bytes().to_vec(),
        Some(hex) => (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok())
            .collect::<Option<_>>()?,
    };
    RemotePath::parse(&bytes)
        .ok()
        .filter(|place| !place.is_root())
}
