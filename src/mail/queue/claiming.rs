//! Taking messages out to work on them, so that nobody else does meanwhile.

use std::sync::Arc;

use super::{Entry, Id, Job, Queue};

impl Queue {
    /// Takes up to `most` messages that are due at `now`, those due longest first.
    #[must_use]
    pub fn claim(&self, now: u64, most: usize) -> Vec<Job> {
        self.claim_some(now, most, |_| true)
    }

    /// Takes up to `most` messages that wait for a time of their own before `until`, untried: a
    /// server may hold them instead.
    #[must_use]
    pub fn claim_for_later(&self, until: u64, most: usize) -> Vec<Job> {
        self.claim_some(until, most, |entry| {
            entry.envelope.send_at.is_some() && entry.attempts == 0
        })
    }

    fn claim_some(&self, now: u64, most: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<Job> {
        self.book.with(|book| {
            let free = book.entries.values().filter(|e| !e.taken && wanted(e));
            let mut due: Vec<_> = free
                .filter_map(|e| Some((e.due_since(now)?, e.id.clone())))
                .collect();
            due.sort_unstable();
            due.truncate(most);
            let taken = due.into_iter().filter_map(|(_, id)| {
                let entry = book.entries.get_mut(&id)?;
                entry.taken = true;
                Some(Job {
                    id,
                    envelope: Arc::clone(&entry.envelope),
                    recipients: entry.due_recipients(now),
                    entry: entry.clone(),
                })
            });
            taken.collect()
        })
    }

    /// Until the answer is dropped nothing is told of these messages, and none leaves: who waits for
    /// the verdict may want to take them back.
    pub fn await_verdict(&self, ids: &[Id]) -> Awaited<'_> {
        self.book
            .with(|book| book.awaited.extend(ids.iter().cloned()));
        Awaited {
            queue: self,
            ids: ids.to_vec(),
        }
    }

    /// Messages of which the sender of the mail is to be told something: accepted ones without a
    /// copy in `.Sent`, failures and delays without a report, all that is settled. They are taken.
    /// Only those for which `wanted` is true.
    #[must_use]
    pub fn claim_news(&self, now: u64, wanted: impl Fn(&Id) -> bool) -> Vec<Entry> {
        let late = now.saturating_sub(self.schedule.delay_report.as_secs());
        self.book.with(|book| {
            let news = book.entries.values_mut().filter(|entry| {
                !entry.taken
                    && !book.awaited.contains(&entry.id)
                    && (entry.is_settled()
                        || entry.owes_copy()
                        || !entry.unreported().is_empty()
                        || entry.owes_delay_report(late))
                    && wanted(&entry.id)
            });
            let taken = news.map(|entry| {
                entry.taken = true;
                entry.clone()
            });
            taken.collect()
        })
    }
}

/// See [`Queue::await_verdict`].
#[derive(Debug)]
pub struct Awaited<'a> {
    queue: &'a Queue,
    ids: Vec<Id>,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.queue.book.with(|book| {
            for id in &self.ids {
                book.awaited.remove(id);
            }
        });
        self.queue.wake();
    }
}
