//! What users want of a queued message: now, not now, not at all.

use super::record::Event;
use super::{Entry, Id, Queue, State};
use crate::vfs::error::{Error, ErrorKind, Result};

impl Queue {
    /// Tries a message now, whatever the schedule says; in doubt or on hold too.
    ///
    /// # Errors
    /// `NotFound`, `Busy` while it is being sent, `Local`.
    pub fn retry(&self, id: &Id) -> Result<()> {
        self.wish(id, Event::Retry)
    }

    /// Tries all messages now that wait for their time; not those on hold or in doubt.
    ///
    /// # Errors
    /// `Local`.
    pub fn retry_all(&self) -> Result<()> {
        let waiting = |e: &&Entry| e.state() == State::Deferred && e.due().is_some();
        for entry in self.list().iter().filter(waiting) {
            match self.retry(&entry.id) {
                // It is being sent, or was.
                Err(err) if matches!(err.kind(), ErrorKind::Busy | ErrorKind::NotFound) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Keeps a message back, or no longer.
    ///
    /// # Errors
    /// As [`retry`](Self::retry).
    pub fn hold(&self, id: &Id, hold: bool) -> Result<()> {
        self.wish(id, Event::Hold(hold))
    }

    /// Does not send a message to anybody it was not sent to yet.
    ///
    /// # Errors
    /// As [`retry`](Self::retry).
    pub fn cancel(&self, id: &Id) -> Result<()> {
        self.wish(id, Event::Cancelled)
    }

    fn wish(&self, id: &Id, event: Event) -> Result<()> {
        let free = self.with_entry(id, |entry| !std::mem::replace(&mut entry.taken, true));
        match free {
            None => return Err(Error::new(ErrorKind::NotFound, format!("{id}: not queued"))),
            Some(false) => {
                return Err(Error::new(ErrorKind::Busy, format!("{id}: is being sent")));
            }
            Some(true) => {}
        }
        let done = self
            .append(vec![(id, event)])
            .and_then(|position| self.journal.sync(position));
        self.release(std::slice::from_ref(id));
        done
    }
}
