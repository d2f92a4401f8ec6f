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

    /// Tries all messages now that were tried in vain; not those on hold or in doubt, and none before
    /// a time of its own.
    ///
    /// # Errors
    /// `Local`.
    pub fn retry_all(&self) -> Result<()> {
        let now = super::now();
        let waiting = |e: &&Entry| {
            let in_time = e.envelope.send_at.is_none_or(|at| at <= now);
            e.state() == State::Deferred && e.due().is_some() && in_time
        };
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

    /// Cancels several messages, or, where one of them is being sent, none. Those that left had
    /// come to their end.
    ///
    /// # Errors
    /// `Busy`, `Local`.
    pub fn cancel_all(&self, ids: &[Id]) -> Result<()> {
        let taken = self.book.with(|book| {
            let queued = ids.iter().filter(|id| book.entries.contains_key(id));
            let queued: Vec<Id> = queued.cloned().collect();
            let busy = |id: &&Id| book.entries.get(id).is_some_and(|entry| entry.taken);
            if let Some(id) = queued.iter().find(busy) {
                return Err(being_sent(id));
            }
            for id in &queued {
                if let Some(entry) = book.entries.get_mut(id) {
                    entry.taken = true;
                }
            }
            Ok(queued)
        })?;
        if taken.is_empty() {
            return Ok(());
        }
        let events = taken.iter().map(|id| (id, Event::Cancelled)).collect();
        self.make_so(events, &taken)
    }

    fn wish(&self, id: &Id, event: Event) -> Result<()> {
        let free = self.with_entry(id, |entry| !std::mem::replace(&mut entry.taken, true));
        match free {
            None => return Err(Error::new(ErrorKind::NotFound, format!("{id}: not queued"))),
            Some(false) => return Err(being_sent(id)),
            Some(true) => {}
        }
        self.make_so(vec![(id, event)], std::slice::from_ref(id))
    }

    /// Durably what the user wants of those that are taken; they are given back.
    fn make_so(&self, events: Vec<(&Id, Event)>, taken: &[Id]) -> Result<()> {
        let done = self
            .append(events)
            .and_then(|position| self.journal.sync(position));
        self.release(taken);
        done
    }
}

fn being_sent(id: &Id) -> Error {
    Error::new(ErrorKind::Busy, format!("{id}: is being sent"))
}
