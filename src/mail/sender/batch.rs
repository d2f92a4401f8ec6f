//! Messages that go to one destination together.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::outcome::{Meaning, meaning, refusal};
use super::worker::Worker;
use crate::mail::envelope::Envelope;
use crate::mail::failure::{Class, Failure};
use crate::mail::queue::{Entry, Id, Job, Told, now};
use crate::mail::smtp::{Extensions, Measure, Session, Transaction, Unfit};
use crate::vfs::error::Result;

/// A message that may be sent to this server as it is.
struct Parcel {
    entry: Entry,
    transaction: Transaction,
    body: Box<dyn Read>,
}

/// What is said for a message and what it is, or why it cannot be said.
type Packed = std::result::Result<(Transaction, Box<dyn Read>), Unfit>;

/// How sending a batch ended.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The connection is of no use any more.
    pub(super) broken: bool,
    /// The account pauses, for this reason.
    pub(super) trouble: Option<Failure>,
}

impl Worker {
    /// Sends `jobs` over `session`. What is not told of at the end stays as it was.
    ///
    /// # Errors
    /// `Local`: the queue cannot be written; the session must be dropped.
    pub(super) fn send_batch(&self, session: &mut Session, jobs: Vec<Job>) -> Result<Sent> {
        if self.shared.no_chunks.is_set() {
            session.forgo_chunks();
        }
        let mut parcels = Vec::with_capacity(jobs.len());
        for job in jobs {
            parcels.extend(self.pack(session.extensions(), job)?);
        }
        if parcels.is_empty() {
            return Ok(Sent::default());
        }
        let armed: Vec<(Id, Vec<usize>)> = parcels
            .iter()
            .map(|p| (p.entry.id.clone(), p.transaction.recipients().collect()))
            .collect();
        self.queue.arm(&armed)?;
        let mut sent = Sent::default();
        let mut rest = parcels.iter_mut().peekable();
        while let Some(parcel) = rest.next() {
            if sent.broken || sent.trouble.is_some() || self.is_ending(session) {
                sent.broken = true;
                let recipients = parcel.transaction.recipients().collect();
                self.queue.disarm(&parcel.entry.id, recipients)?;
                continue;
            }
            let room = session.carried() + 1 < self.options.per_connection && !self.is_stopping();
            let next = rest.peek().filter(|_| room).map(|next| &next.transaction);
            self.send_one(session, parcel, next, &mut sent)?;
        }
        Ok(sent)
    }

    fn is_ending(&self, session: &Session) -> bool {
        self.is_stopping()
            || !session.is_usable()
            || session.carried() >= self.options.per_connection
    }

    fn send_one(
        &self,
        session: &mut Session,
        parcel: &mut Parcel,
        next: Option<&Transaction>,
        sent: &mut Sent,
    ) -> Result<()> {
        let id = &parcel.entry.id;
        let recipients: Vec<_> = parcel.transaction.recipients().collect();
        let reused = session.carried() > 0;
        let outcome = session.carry(
            &parcel.transaction,
            &mut *parcel.body,
            &mut || {
                self.queue
                    .dot(id, recipients.clone())
                    .map_err(Failure::from)
            },
            next,
        );
        let Meaning {
            counted,
            told,
            untouched,
            account,
        } = meaning(
            &self.queue,
            &parcel.entry,
            &outcome,
            reused,
            self.to_relay(),
        );
        self.shared.note(&told);
        if !told.is_empty() {
            self.queue.tell(id, counted, told, outcome.transcript)?;
        }
        if !untouched.is_empty() {
            self.queue.disarm(id, untouched)?;
        }
        if let Some(words) = account {
            let host = session.peer().to_owned();
            sent.trouble = Some(Failure::new(Class::Account, format!("{host}: {words}")));
        }
        if outcome.chunk_refused {
            self.shared.no_chunks.store(true, Ordering::Relaxed);
        }
        if outcome.hold_refused {
            log::info!("mail {id}: the server does not hold it; it waits for its time here");
            self.shared.no_holds.store(true, Ordering::Relaxed);
        }
        if let Some(failure) = outcome.failure {
            log::info!("mail {id}: {failure}");
            sent.broken = true;
        }
        Ok(())
    }

    /// Makes `job` ready for a server that offers this, or tells that it cannot be.
    fn pack(&self, offered: &Extensions, job: Job) -> Result<Option<Parcel>> {
        let Job {
            id,
            envelope,
            recipients,
            entry,
        } = job;
        let packed: Packed = match Transaction::new(offered, &envelope, &recipients, id.as_str()) {
            Ok(transaction) => Ok((transaction, Box::new(self.queue.open_message(&id)?))),
            Err(Unfit::NeedsSevenBit) => {
                self.pack_as_ascii(offered, &entry, &envelope, &recipients)?
            }
            Err(unfit) => Err(unfit),
        };
        let (transaction, body) = match packed {
            Ok(packed) => packed,
            Err(unfit) => {
                let told: Vec<Told> = refusal(unfit, &recipients);
                self.shared.note(&told);
                self.queue.tell(&id, true, told, Vec::new())?;
                return Ok(None);
            }
        };
        // What is due goes now, if only because the user says so; the rest waits for its time,
        // there if this server holds it so long, else here.
        let transaction = match left_until(&entry, &recipients) {
            None => transaction,
            Some(left)
                if offered.max_hold.is_some_and(|most| left <= most)
                    && !self.shared.no_holds.is_set() =>
            {
                transaction.held_for(left)
            }
            Some(_) => return Ok(None),
        };
        Ok(Some(Parcel {
            entry,
            transaction,
            body,
        }))
    }

    fn pack_as_ascii(
        &self,
        offered: &Extensions,
        entry: &Entry,
        envelope: &Arc<Envelope>,
        recipients: &[usize],
    ) -> Result<Packed> {
        let mut message = self.queue.open_message(&entry.id)?;
        let Some(ascii) = self.receipts.seven_bit(entry, &mut message)? else {
            return Ok(Err(Unfit::NeedsSevenBit));
        };
        let mut measure = Measure::default();
        measure.add(&ascii);
        let mut envelope = (**envelope).clone();
        envelope.needs = measure.finish();
        let transaction = Transaction::new(offered, &envelope, recipients, entry.id.as_str());
        Ok(transaction.map(|t| (t, Box::new(Cursor::new(ascii)) as Box<dyn Read>)))
    }
}

/// Seconds until all of `recipients` are due, if they are not.
fn left_until(entry: &Entry, recipients: &[usize]) -> Option<u64> {
    let now = now();
    let ready = entry.due_recipients(now);
    let due = recipients
        .iter()
        .filter(|index| !ready.contains(index))
        .filter_map(|index| entry.recipients.get(*index)?.due);
    due.max()?.checked_sub(now).filter(|left| *left > 0)
}
