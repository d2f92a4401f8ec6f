//! The durable queue of outgoing mail, in a directory of its own:
//!
//! ```text
//! lock         held while a process uses the queue
//! journal      what happened, a checksummed line each, only ever appended to; small messages
//! message/ID   a larger message: the envelope in one line, an empty line, the message
//! tmp/         what is being written
//! ```
//!
//! A message is ours from the moment its `Queued` record is durable; [`Queue::commit`] returns
//! then. It leaves when every recipient has a final state that is durable, and the user has what
//! is due to him: a copy in `.Sent`, a report of failures.
//!
//! What a crash means: before `Queued`, nothing was sent and nothing is kept ([`Recovered::unqueued`]).
//! Between `Queued` and `Armed`, and in the same boot of the machine up to `Dot`, nothing was sent
//! and it is sent again. After that without news of the outcome it is in doubt. A final state needs
//! only clearing up.

mod changes;
mod claiming;
mod committing;
mod entry;
mod files;
mod journal;
mod look;
mod record;
mod recovery;
mod texts;
mod view;
mod wishes;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use claiming::Awaited;
pub use entry::{Attempt, Entry, Id, Progress, State, Told};
pub use files::Staged;
pub use view::text;

use super::envelope::Envelope;
use super::schedule::Schedule;
use crate::sync::Locked;
use crate::vfs::error::{Error, ErrorKind, Result};
use changes::Changes;
use committing::{Commits, Order};
use files::Files;
use journal::{Journal, Watch};
use record::{Event, Record};
pub use recovery::Recovered;
use texts::Texts;

/// Messages that left and are still remembered, for those who ask what became of them.
const REMEMBERED: usize = 500;

/// How long a lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Journal lines beyond what is needed before it is written anew,
const SLACK: usize = 8192;
/// and octets.
const SLACK_OCTETS: u64 = 16 << 20;

/// What is about to be done on disk, or was just done. Tests stand between any two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Message files are on disk, under temporary names.
    FilesSynced,
    /// One has its name.
    Renamed,
    /// The names are on disk.
    DirectorySynced,
    /// Records are about to be written.
    Append,
    /// They are written, not durable.
    Appended,
    /// The journal is about to be made durable.
    Sync,
    /// It is, up to this length.
    Synced(u64),
    /// The journal is about to be replaced.
    Rewrite,
    /// It is, by one of this length.
    Rewritten(u64),
    /// The file of a message that left is about to be removed.
    Remove,
    /// It is.
    Removed,
}

/// How a queue is opened.
pub struct QueueOptions {
    /// When messages are tried again.
    pub schedule: Schedule,
    /// Larger messages are refused, in octets.
    pub largest: u64,
    /// Larger messages have a file of their own, in octets.
    pub small: u64,
    /// Of the running machine; `None` is asked from the kernel.
    pub boot: Option<String>,
    /// Told of each step; an error stops what is being done.
    pub watch: Arc<Watch>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            schedule: Schedule::default(),
            largest: 256 << 20,
            small: 64 << 10,
            boot: None,
            watch: Arc::new(|_| Ok(())),
        }
    }
}

impl std::fmt::Debug for QueueOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueOptions")
            .field("schedule", &self.schedule)
            .field("largest", &self.largest)
            .field("small", &self.small)
            .finish_non_exhaustive()
    }
}

/// A message taken out for an attempt; [`Queue::release`] puts it back.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name.
    pub id: Id,
    /// Who it is from and for.
    pub envelope: Arc<Envelope>,
    /// The recipients that are due, as indices in the envelope.
    pub recipients: Vec<usize>,
    /// How it stood.
    pub entry: Entry,
}

/// What is in memory; exactly what the journal says.
#[derive(Debug, Default)]
struct Book {
    entries: BTreeMap<Id, Entry>,
    /// Of these, the small ones.
    texts: Texts,
    /// The last that left.
    gone: VecDeque<Entry>,
    /// Of these the sender of the mail waits for the verdict, and says then what becomes of them.
    awaited: HashSet<Id>,
}

/// The queue of one account.
#[derive(Debug)]
pub struct Queue {
    schedule: Schedule,
    largest: u64,
    small: u64,
    boot: String,
    files: Files,
    journal: Journal,
    book: Locked<Book>,
    changes: Changes,
    commits: Commits,
    watch: WatchBox,
    _lock: File,
}

struct WatchBox(Arc<Watch>);

impl std::fmt::Debug for WatchBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Queue {
    /// Opens the queue in `dir`, made if need be, and puts right what a crash left.
    ///
    /// # Errors
    /// `Busy` if another process has it; `Local`.
    pub fn open(dir: &Path, options: QueueOptions) -> Result<(Self, Recovered)> {
        let failed = |err: std::io::Error| Error::local(dir.display(), &err);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = lock(dir)?;
        let files = Files::open(dir)?;
        let watch = options.watch;
        let (journal, found) = Journal::open(dir.join("journal"), Arc::clone(&watch))?;
        let queue = Self {
            schedule: options.schedule,
            largest: options.largest,
            small: options.small,
            boot: options.boot.unwrap_or_else(recovery::boot_id),
            files,
            journal,
            book: Locked::default(),
            changes: Changes::default(),
            commits: Commits::default(),
            watch: WatchBox(watch),
            _lock: lock,
        };
        let recovered = queue.recover(found)?;
        Ok((queue, recovered))
    }

    /// When messages are tried again.
    #[must_use]
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Copies `message`, with any line ends, behind `envelope`, whose needs are found out here.
    /// Nothing is durable yet, and dropping what is given back removes it.
    ///
    /// # Errors
    /// `Local` (no space and the like), `TooLarge`, `Invalid` without recipients.
    pub fn stage(&self, envelope: Envelope, message: &mut dyn Read) -> Result<Staged> {
        if envelope.recipients.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a message without recipients",
            ));
        }
        let id = Id::new(since_1970());
        let room = self.book.with(|book| book.texts.has_room());
        let small = if room { self.small } else { 0 };
        self.files.stage(id, envelope, message, self.largest, small)
    }

    /// Makes `staged` durable and due, all or none, at the price of one. `linger` from now is the
    /// first attempt, unless the envelope says a later time.
    ///
    /// # Errors
    /// `Local`; then none is queued.
    pub fn commit(&self, staged: Vec<Staged>, linger: Duration) -> Result<Vec<Id>> {
        if staged.is_empty() {
            return Ok(Vec::new());
        }
        let ids = staged.iter().map(|one| one.id.clone()).collect();
        self.commits
            .commit(Order { staged, linger }, |orders| self.commit_all(orders))?;
        Ok(ids)
    }

    /// Commits what several threads have brought meanwhile.
    fn commit_all(&self, orders: Vec<Order>) -> Result<()> {
        let octets = |order: &Order| order.staged.iter().map(Staged::octets).sum::<u64>();
        self.journal.reserve(orders.iter().map(octets).sum())?;
        let now = now();
        let (mut dues, mut staged) = (Vec::new(), Vec::new());
        for order in orders {
            let linger = order.linger;
            let due = now + linger.as_secs() + u64::from(linger.subsec_nanos() > 0);
            dues.extend(
                order
                    .staged
                    .iter()
                    .map(|one| due.max(one.envelope.send_at.unwrap_or(0))),
            );
            staged.extend(order.staged);
        }
        self.files.publish(&mut staged, &*self.watch.0)?;
        let mut records = Vec::with_capacity(staged.len());
        let mut entries = Vec::with_capacity(staged.len());
        for (one, due) in staged.iter().zip(dues) {
            let text = one.text.as_deref().map(Box::from);
            records.push(record(now, &one.id, Event::Queued { due, text }));
            let envelope = Arc::new(one.envelope.clone());
            let mut entry = Entry::new(one.id.clone(), envelope, now, due);
            // Not to be sent before it is durable.
            entry.taken = true;
            entries.push(entry);
        }
        let ids: Vec<_> = staged.iter().map(|one| one.id.clone()).collect();
        let texts = staged
            .iter()
            .filter_map(|one| Some((one.id.clone(), Arc::clone(one.text.as_ref()?))));
        let added = self.journal.append(&records, || {
            self.book.with(|book| {
                book.entries
                    .extend(entries.into_iter().map(|e| (e.id.clone(), e)));
                texts.for_each(|(id, text)| book.texts.insert(id, text));
            });
        });
        if let Err(err) = added.and_then(|position| self.journal.sync(position)) {
            self.retract(&staged, &ids);
            return Err(err);
        }
        self.release(&ids);
        Ok(())
    }

    /// Takes back what could not be made durable: the records may be on disk or not. The files that
    /// make them worth something are removed; of what is in the records themselves it is recorded,
    /// if that can be, that it left.
    fn retract(&self, staged: &[Staged], ids: &[Id]) {
        self.files.retract(staged);
        let gone: Vec<_> = ids
            .iter()
            .map(|id| record(now(), id, Event::Gone))
            .collect();
        if let Err(err) = self.journal.append(&gone, || {}) {
            log::warn!("mail queue: {err}");
        }
        self.book.with(|book| {
            for id in ids {
                book.entries.remove(id);
                book.texts.remove(id);
            }
        });
    }

    /// Stages and commits one message.
    ///
    /// # Errors
    /// As [`stage`](Self::stage) and [`commit`](Self::commit).
    pub fn add(&self, envelope: Envelope, message: &mut dyn Read) -> Result<Id> {
        let staged = self.stage(envelope, message)?;
        let id = staged.id().clone();
        self.commit(vec![staged], Duration::ZERO)?;
        Ok(id)
    }

    /// Gives back what was taken, and wakes those who wait.
    pub fn release(&self, ids: &[Id]) {
        self.book.with(|book| {
            for id in ids {
                if let Some(entry) = book.entries.get_mut(id) {
                    entry.taken = false;
                }
            }
        });
        self.changes.ring();
    }

    /// Durably: these messages are about to be sent to these recipients.
    ///
    /// # Errors
    /// `Local`; then they must not be sent.
    pub fn arm(&self, jobs: &[(Id, Vec<usize>)]) -> Result<()> {
        self.journal.reserve(0)?;
        let events = jobs.iter().map(|(id, who)| (id, Event::Armed(who.clone())));
        let position = self.append(events.collect())?;
        self.journal.sync(position)
    }

    /// The final dot for these recipients goes out next.
    ///
    /// # Errors
    /// `Local`; then it must not.
    pub fn dot(&self, id: &Id, recipients: Vec<usize>) -> Result<()> {
        self.append(vec![(id, Event::Dot(recipients))]).map(drop)
    }

    /// Nothing was sent to these after all.
    ///
    /// # Errors
    /// `Local`.
    pub fn disarm(&self, id: &Id, recipients: Vec<usize>) -> Result<()> {
        self.append(vec![(id, Event::Disarmed(recipients))])
            .map(drop)
    }

    /// What an attempt brought. Not durable before [`sync`](Self::sync).
    ///
    /// # Errors
    /// `Local`.
    pub fn tell(&self, id: &Id, counted: bool, told: Vec<Told>, said: Vec<String>) -> Result<()> {
        // Nobody reads how it went well, and the disk has better things to do.
        let all_well = told.iter().all(|news| news.state == State::Accepted);
        let written = if all_well { Vec::new() } else { said.clone() };
        let event = Event::Told {
            counted,
            told,
            said: written,
        };
        let told = self.append(vec![(id, event.clone())]).map(drop);
        self.with_entry(id, |entry| {
            if told.is_err() {
                // The server has spoken, whether that can be written or not: nobody is sent it
                // again. After a crash it is in doubt.
                entry.apply(now(), &event);
            }
            if all_well {
                entry.remember(now(), &said);
            }
        });
        told
    }

    /// Makes all that was told durable.
    ///
    /// # Errors
    /// `Local`.
    pub fn sync(&self) -> Result<()> {
        self.journal.sync(self.journal.position())
    }

    /// A copy is in `.Sent`.
    ///
    /// # Errors
    /// `Local`.
    pub fn filed(&self, id: &Id) -> Result<()> {
        self.append(vec![(id, Event::Filed)]).map(drop)
    }

    /// The sender has a report of these failures.
    ///
    /// # Errors
    /// `Local`.
    pub fn reported(&self, id: &Id, recipients: Vec<usize>) -> Result<()> {
        self.append(vec![(id, Event::Reported(recipients))])
            .map(drop)
    }

    /// The sender has a report of the delay.
    ///
    /// # Errors
    /// `Local`.
    pub fn delay_reported(&self, id: &Id) -> Result<()> {
        self.append(vec![(id, Event::DelayReported)]).map(drop)
    }

    /// Settled messages leave. The journal must have been synced since they were told.
    ///
    /// # Errors
    /// `Local`; what is left is cleared up later.
    pub fn leave(&self, ids: &[Id]) -> Result<()> {
        let small = |id: &&Id| self.book.with(|book| book.texts.get(id).is_some());
        for id in ids.iter().filter(|id| !small(id)) {
            (self.watch.0)(Step::Remove)?;
            // First the file: a record without a file is cleared up, a file without a record would
            // be taken for a draft.
            self.files.remove(id)?;
            (self.watch.0)(Step::Removed)?;
        }
        let events = ids.iter().map(|id| (id, Event::Gone)).collect();
        self.append(events)?;
        self.changes.ring();
        let (lines, octets) = self
            .book
            .with(|book| (4 * book.entries.len(), 2 * book.texts.octets() as u64));
        if self.journal.lines() > lines + SLACK || self.journal.length() > octets + SLACK_OCTETS {
            self.compact()?;
        }
        Ok(())
    }

    fn with_entry<R>(&self, id: &Id, work: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.book.with(|book| book.entries.get_mut(id).map(work))
    }

    /// Writes and takes over events.
    fn append(&self, events: Vec<(&Id, Event)>) -> Result<u64> {
        let now = now();
        let records: Vec<_> = events
            .into_iter()
            .map(|(id, event)| record(now, id, event))
            .collect();
        self.journal.append(&records, || {
            self.book
                .with(|book| records.iter().for_each(|r| book.apply(r)))
        })
    }

    /// Writes the journal anew, with what is still needed.
    fn compact(&self) -> Result<()> {
        // A file that comes back after a power failure would have no record that it left.
        self.files.sync_dir()?;
        self.journal.rewrite(|| {
            let opened = Record {
                at: now(),
                id: None,
                event: Event::Opened {
                    boot: self.boot.clone(),
                },
            };
            let mut records = vec![opened];
            self.book.with(|book| {
                for entry in book.entries.values() {
                    let id = &entry.id;
                    if let Some(text) = book.texts.get(id) {
                        let (due, text) = (entry.queued_at, Some(Box::from(&**text)));
                        records.push(record(now(), id, Event::Queued { due, text }));
                    }
                    records.push(record(now(), id, Event::Whole(Box::new(entry.clone()))));
                }
            });
            records
        })
    }
}

impl Book {
    fn apply(&mut self, record: &Record) {
        let Some(id) = &record.id else { return };
        match &record.event {
            Event::Gone => {
                self.texts.remove(id);
                if let Some(mut entry) = self.entries.remove(id) {
                    entry.taken = false;
                    if self.gone.len() >= REMEMBERED {
                        self.gone.pop_front();
                    }
                    self.gone.push_back(entry);
                }
            }
            Event::Whole(entry) => drop(self.entries.insert(id.clone(), (**entry).clone())),
            event => {
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.apply(record.at, event);
                }
            }
        }
    }
}

fn record(at: u64, id: &Id, event: Event) -> Record {
    Record {
        at,
        id: Some(id.clone()),
        event,
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    since_1970().as_secs()
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|err| Error::local(path.display(), &err))?;
    // A child process that was forked and did not begin yet holds our locks for a moment.
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("{}: another ferryfs uses this queue", dir.display()),
                ));
            }
            Err(TryLockError::Error(err)) => return Err(Error::local(path.display(), &err)),
        }
    }
}
