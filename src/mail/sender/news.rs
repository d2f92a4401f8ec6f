//! Tells the user what became of his mail, from what the queue knows; after a crash once more
//! where it is not certain that he heard it.

use std::io::Read;
use std::time::{Duration, Instant};

use super::worker::Worker;
use crate::mail::dsn::{self, Occasion};
use crate::mail::queue::{Entry, Id, now};
use crate::vfs::error::{Error, Result};

/// News that could not be told (the disk is full, perhaps) are told again after this time.
const AGAIN: Duration = Duration::from_secs(30);

/// Who is told. All calls may come again for the same message after a crash: what is made of them
/// is named by the message's id. An error means "later"; the message stays in the queue until then.
/// None is called with a lock held.
pub trait Receipts: Send + Sync {
    /// A server took the message, for one recipient at least: it belongs into `.Sent`.
    ///
    /// # Errors
    /// Any; it is called again.
    fn accepted(&self, entry: &Entry, message: &mut dyn Read) -> Result<()>;

    /// Several at once, which is cheaper; an outcome for each.
    fn all_accepted(&self, batch: &mut [(&Entry, Box<dyn Read>)]) -> Vec<Result<()>> {
        let each = batch.iter_mut();
        each.map(|(entry, message)| self.accepted(entry, message))
            .collect()
    }

    /// Some time has passed.
    fn tick(&self) {}

    /// These recipients will never get it. `report` is for the inbox (RFC 3464, lines ended by LF),
    /// if the message wants one.
    ///
    /// # Errors
    /// Any; it is called again.
    fn failed(
        &self,
        entry: &Entry,
        recipients: &[usize],
        message: &mut dyn Read,
        report: Option<&[u8]>,
    ) -> Result<()>;

    /// It takes long. `report` is for the inbox.
    ///
    /// # Errors
    /// Any; it is called again.
    fn delayed(&self, entry: &Entry, report: &[u8]) -> Result<()>;

    /// The server takes messages up to so many octets, if it says so.
    fn limit(&self, octets: Option<u64>) {
        let _ = octets;
    }

    /// Nothing more will happen, and the message is about to leave the queue.
    fn settled(&self, entry: &Entry);

    /// The message for a server without 8BITMIME, all of it in ASCII; `None` if that cannot be.
    ///
    /// # Errors
    /// Of reading.
    fn seven_bit(&self, entry: &Entry, message: &mut dyn Read) -> Result<Option<Vec<u8>>> {
        let _ = (entry, message);
        Ok(None)
    }
}

impl Worker {
    /// Tells all there is to tell, and lets go what is settled.
    pub(super) fn tell_news(&mut self) {
        self.untold.retain(|_, again| *again > Instant::now());
        let entries = self
            .queue
            .claim_news(now(), |id| !self.untold.contains_key(id));
        if entries.is_empty() {
            return;
        }
        let mut done = Vec::new();
        let mut told = false;
        let copied = self.keep_copies(&entries);
        for (entry, copied) in entries.iter().zip(copied) {
            match copied.and_then(|()| self.tell_one(entry)) {
                Ok(settled) => {
                    told = true;
                    done.extend(settled.then(|| entry.id.clone()));
                }
                Err(err) => {
                    log::warn!("mail {}: {err}", entry.id);
                    self.untold.insert(entry.id.clone(), Instant::now() + AGAIN);
                }
            }
        }
        // Only what is durable may be taken for told when the file is gone.
        let synced = if told { self.queue.sync() } else { Ok(()) };
        let left = synced.and_then(|()| {
            for entry in entries.iter().filter(|entry| done.contains(&entry.id)) {
                self.receipts.settled(entry);
            }
            self.queue.leave(&done)
        });
        if let Err(err) = left {
            log::error!("mail queue: {err}");
            self.ill(&err);
        }
        let ids: Vec<Id> = entries.iter().map(|entry| entry.id.clone()).collect();
        self.queue.release(&ids);
    }

    /// Has copies kept of those that are accepted and have none.
    fn keep_copies(&self, entries: &[Entry]) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = Vec::with_capacity(entries.len());
        let mut places = Vec::new();
        let mut batch: Vec<(&Entry, Box<dyn Read>)> = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let message = entry
                .owes_copy()
                .then(|| self.queue.open_message(&entry.id))
                .transpose();
            outcomes.push(message.map(|message| {
                places.extend(message.is_some().then_some(at));
                batch.extend(message.map(|message| (entry, message)));
            }));
        }
        let copied = self.receipts.all_accepted(&mut batch);
        for ((at, (entry, _)), copied) in places.iter().zip(&batch).zip(copied) {
            let filed = copied.and_then(|()| self.queue.filed(&entry.id));
            if let Some(outcome) = outcomes.get_mut(*at) {
                *outcome = filed;
            }
        }
        outcomes
    }

    /// Whether the message is settled and all that was due was told.
    fn tell_one(&self, entry: &Entry) -> Result<bool> {
        let id = &entry.id;
        let failed = entry.unreported();
        if !failed.is_empty() {
            let report = self.report(Occasion::Failed, entry, &failed)?;
            let mut message = self.queue.open_message(id)?;
            self.receipts
                .failed(entry, &failed, &mut message, report.as_deref())?;
            self.queue.reported(id, failed)?;
        }
        if entry.is_settled() {
            return Ok(true);
        }
        let schedule = self.queue.schedule();
        if entry.owes_delay_report(now().saturating_sub(schedule.delay_report.as_secs())) {
            let until = entry.queued_at + schedule.give_up.as_secs();
            let late = entry.undelivered();
            if let Some(report) = self.report(Occasion::Delayed { until }, entry, &late)? {
                self.receipts.delayed(entry, &report)?;
            }
            self.queue.delay_reported(id)?;
        }
        Ok(false)
    }

    fn report(
        &self,
        occasion: Occasion,
        entry: &Entry,
        recipients: &[usize],
    ) -> Result<Option<Vec<u8>>> {
        let mut message = self.queue.open_message(&entry.id)?;
        dsn::report(
            occasion,
            entry,
            recipients,
            &self.options.terms.name,
            &mut message,
        )
        .map_err(|err| Error::local(format_args!("mail {}", entry.id), &err))
    }
}
