//! Messages from the server into the store: the next ones come in while the last ones are synced.

use std::collections::HashMap;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::plan::Message;
use super::session::{Report, moved_to, same_again};
use crate::mail::failure::{Class, Failure, Result, words};
use crate::mail::header::Digest;
use crate::mail::ledger::{Record, State};
use crate::mail::pop3::Maildrop;
use crate::mail::step::{Step, Watch};
use crate::mail::store::{Letter, Store};

/// A batch is synced when it has so many messages,
const BATCH: usize = 256;
/// or so many octets,
const BATCH_OCTETS: u64 = 16 << 20;
/// or when its first message has waited so long to be seen.
const BATCH_AGE: Duration = Duration::from_secs(2);

pub(super) struct Receiver<'a> {
    pub(super) store: &'a Store,
    pub(super) largest: u64,
    pub(super) window: usize,
    /// Messages that may be on the server under another identity, by SHA-256.
    pub(super) by_content: HashMap<Digest, Record>,
    pub(super) trouble: &'a mut HashMap<Box<[u8]>, u32>,
    pub(super) watch: &'a Watch<'a>,
    /// The listing: what has no identity gets it when it is received.
    pub(super) messages: &'a mut [Message],
}

impl Receiver<'_> {
    /// Receives `wanted` in this order. What was received when an error comes is committed all the
    /// same.
    pub(super) fn receive(
        &mut self,
        maildrop: &mut Maildrop,
        wanted: &[Message],
        report: &mut Report,
    ) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let (store, watch) = (self.store, self.watch);
        let (batches, waiting) = mpsc::sync_channel::<Vec<Letter>>(1);
        thread::scope(|scope| {
            let committer = thread::Builder::new()
                .name("mail-commit".into())
                .spawn_scoped(scope, move || {
                    let mut committed = 0;
                    for batch in waiting {
                        committed += store.commit(batch, watch)?.len();
                    }
                    Ok(committed)
                })
                .map_err(|err| Failure::local("thread", &err))?;
            let received = self.take_in(maildrop, wanted, &batches, report);
            drop(batches);
            let committed = committer
                .join()
                .unwrap_or_else(|_| Err(Failure::new(Class::Local, "storing mail failed")));
            report.fetched = committed?;
            crate::traffic::TRAFFIC.fetched.add(report.fetched as u64);
            received
        })
    }

    fn take_in(
        &mut self,
        maildrop: &mut Maildrop,
        wanted: &[Message],
        batches: &SyncSender<Vec<Letter>>,
        report: &mut Report,
    ) -> Result<()> {
        let numbers: Vec<_> = wanted.iter().map(|m| m.number).collect();
        let mut batch = Batch::default();
        let mut current = None;
        let outcome = (|| {
            let mut retrieval = maildrop.retrieve(&numbers, self.window);
            for message in wanted {
                current = message.uidl.as_deref();
                let Some(answer) = retrieval.next()? else {
                    break;
                };
                if !answer.reply.ok {
                    report.refused += 1;
                    report
                        .reason
                        .get_or_insert_with(|| words(&answer.reply.text));
                    continue;
                }
                let mut draft = self.store.draft()?;
                retrieval.text(&mut draft, self.largest)?;
                let letter = self
                    .store
                    .finish(draft, message.uidl.as_deref(), message.octets)?;
                (self.watch)(Step::Received(letter.size()))?;
                if let Some(uidl) = &message.uidl {
                    self.trouble.remove(uidl);
                }
                if !self.is_known(message, &letter, report)? {
                    batch.add(letter);
                }
                if batch.is_due() && !batch.send(batches) {
                    // The committer failed, and says why.
                    return Ok(());
                }
            }
            current = None;
            // Takes note of an answer too many.
            retrieval.next().map(|_| ())
        })();
        if let (Err(err), Some(uidl)) = (&outcome, current)
            && matches!(err.class(), Class::Transient | Class::Protocol)
        {
            *self.trouble.entry(uidl.into()).or_default() += 1;
        }
        batch.send(batches);
        outcome
    }

    /// Whether the store has this very message: a renumbered one, or one without identity.
    fn is_known(
        &mut self,
        message: &Message,
        letter: &Letter,
        report: &mut Report,
    ) -> Result<bool> {
        let Some(uidl) = letter.uidl() else {
            return Ok(false);
        };
        if message.uidl.is_none() {
            if let Some(listed) = self
                .messages
                .iter_mut()
                .find(|m| m.number == message.number)
            {
                listed.uidl = Some(uidl.into());
            }
            let record = self.store.with_ledger(|ledger| ledger.get(uidl).cloned());
            let known = record.is_some();
            if let Some(record) = record.filter(|r| r.state == State::Deleted) {
                self.store.revise(&[same_again(record, message)])?;
            }
            return Ok(known);
        }
        let Some(record) = self.by_content.remove(letter.sha256()) else {
            return Ok(false);
        };
        report.renumbered += 1;
        if *record.uidl == *uidl {
            self.store.revise(&[same_again(record, message)])?;
        } else {
            self.store
                .revise(&moved_to(&record, uidl, message.octets))?;
        }
        Ok(true)
    }
}

#[derive(Default)]
struct Batch {
    letters: Vec<Letter>,
    octets: u64,
    since: Option<Instant>,
}

impl Batch {
    fn add(&mut self, letter: Letter) {
        self.since.get_or_insert_with(Instant::now);
        self.octets += letter.size();
        self.letters.push(letter);
    }

    fn is_due(&self) -> bool {
        self.letters.len() >= BATCH
            || self.octets >= BATCH_OCTETS
            || self.since.is_some_and(|since| since.elapsed() >= BATCH_AGE)
    }

    /// Hands it over; `false` if nobody takes it.
    fn send(&mut self, to: &SyncSender<Vec<Letter>>) -> bool {
        let batch = std::mem::take(self);
        batch.letters.is_empty() || to.send(batch.letters).is_ok()
    }
}
