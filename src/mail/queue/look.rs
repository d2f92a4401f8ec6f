//! Looking at the queue, and waiting for something to happen in it.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::files::of_text;
use super::{Entry, Id, Queue, State};
use crate::vfs::error::{Error, Result};

impl Queue {
    /// All that is queued, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        self.book
            .with(|book| book.entries.values().cloned().collect())
    }

    /// A message that is queued, or was until lately.
    #[must_use]
    pub fn get(&self, id: &Id) -> Option<Entry> {
        self.book.with(|book| {
            let gone = || book.gone.iter().rfind(|entry| entry.id == *id);
            book.entries.get(id).or_else(gone).cloned()
        })
    }

    /// Whether a message waits for its very first attempt, which is no more than the moment away
    /// that users have for second thoughts.
    #[must_use]
    pub fn lingers(&self, id: &Id) -> bool {
        let now = super::now();
        self.with_entry(id, |entry| {
            let untried = entry.recipients.iter().all(|r| r.state == State::Queued);
            let held = entry.envelope.send_at.is_some() || entry.hold;
            !entry.taken
                && untried
                && entry.attempts == 0
                && (held || entry.due().is_some_and(|due| due >= now))
                && entry.due() > Some(entry.queued_at)
        })
        .unwrap_or(false)
    }

    /// Whether somebody works on a message, so that what is said of it is not durable yet.
    #[must_use]
    pub fn is_taken(&self, id: &Id) -> bool {
        self.with_entry(id, |entry| entry.taken).unwrap_or(false)
    }

    /// Whether a message is still queued, done or not.
    #[must_use]
    pub fn is_queued(&self, id: &Id) -> bool {
        self.with_entry(id, |_| ()).is_some()
    }

    /// Messages that are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.book.with(|book| book.entries.len())
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the next message is due, of those nobody works on.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.book.with(|book| {
            let free = book.entries.values().filter(|entry| !entry.taken);
            free.filter_map(Entry::due).min()
        })
    }

    /// The message itself, from its beginning, as it was given.
    ///
    /// # Errors
    /// `Local`.
    pub fn open_message(&self, id: &Id) -> Result<Box<dyn Read>> {
        let Some(text) = self.book.with(|book| book.texts.get(id).map(Arc::clone)) else {
            return Ok(Box::new(self.files.read(id)?.1));
        };
        let (_, message) = of_text(&text).map_err(|err| Error::local(id, &err))?;
        Ok(Box::new(Cursor::new(message.as_bytes().to_vec())))
    }

    /// Waits until `done` is true of a message, or nobody will work on it any more, or `limit` has
    /// passed; how it stands then. A message nobody knows gives `None` at once.
    pub fn wait(&self, id: &Id, limit: Duration, done: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = self.changes.count();
            let entry = self.get(id)?;
            // What is being worked on is not durable yet.
            let finished = !entry.taken && (done(&entry) || entry.is_settled());
            if finished || !self.changes.wait(seen, deadline) {
                return Some(entry);
            }
        }
    }

    /// Times something changed; for [`wait_for_change`](Self::wait_for_change).
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.count()
    }

    /// Waits for a change since `seen`, or for `limit`.
    pub fn wait_for_change(&self, seen: u64, limit: Duration) {
        self.changes.wait(seen, Instant::now() + limit);
    }

    /// Wakes those who wait.
    pub fn wake(&self) {
        self.changes.ring();
    }
}
