//! What is done with a journal when a process begins: the crash matrix.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Entry, Flight, Id, State, Told};
use super::files::of_text;
use super::journal::Found;
use super::record::{Event, Record};
use super::texts::Texts;
use super::{Queue, now};
use crate::mail::schedule::InDoubtPolicy;
use crate::vfs::error::{Error, ErrorKind, Result};

/// What a crash left behind that its user should hear of.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Whole messages that were never queued: nobody was told that they were. They are not sent;
    /// [`Queue::discard_unqueued`] removes one.
    pub unqueued: Vec<Id>,
    /// Messages that may have been sent.
    pub in_doubt: Vec<Id>,
    /// Messages whose file is not there any more, or cannot be read.
    pub lost: Vec<Id>,
    /// Unreadable records in the middle of the journal. Then nothing is sent without the user's
    /// word: what is missing may have said that it was.
    pub damaged: usize,
}

impl Queue {
    /// Fills the book from `found`, and settles attempts that a crash cut off.
    pub(super) fn recover(&self, found: Found) -> Result<Recovered> {
        let mut recovered = Recovered {
            damaged: found.damaged,
            ..Recovered::default()
        };
        let damaged = found.damaged > 0;
        let mut files: BTreeSet<Id> = self.files.ids()?.into_iter().collect();
        let mut entries: BTreeMap<Id, Entry> = BTreeMap::new();
        let mut texts = Texts::default();
        let mut gone = BTreeSet::new();
        let mut same_boot = false;
        for record in found.records {
            if let Event::Opened { boot } = &record.event {
                same_boot = *boot == self.boot;
            }
            let Some(id) = record.id.clone() else {
                continue;
            };
            match &record.event {
                Event::Queued {
                    due,
                    text: Some(text),
                } => {
                    let text: Arc<str> = Arc::from(&**text);
                    let read = of_text(&text).map_err(|err| Error::local(&id, &err));
                    match read.map(|(envelope, _)| Arc::new(envelope)) {
                        Ok(envelope) => {
                            let entry = Entry::new(id.clone(), envelope, record.at, *due);
                            entries.insert(id.clone(), entry);
                            texts.insert(id, text);
                        }
                        Err(err) => {
                            log::error!("{err}: not sent");
                            recovered.lost.push(id);
                        }
                    }
                }
                Event::Queued { due, text: None } => {
                    gone.remove(&id);
                    match self.files.read(&id) {
                        Ok((envelope, _)) => {
                            let entry = Entry::new(id.clone(), Arc::new(envelope), record.at, *due);
                            entries.insert(id, entry);
                        }
                        // It left; its `Gone` comes further down, unless a crash came first.
                        Err(err) if is_missing(&err) => drop(gone.insert(id)),
                        Err(err) => {
                            log::error!("{err}: left as it is, and not sent");
                            files.remove(&id);
                            recovered.lost.push(id);
                        }
                    }
                }
                Event::Whole(entry) => drop(entries.insert(id, (**entry).clone())),
                Event::Gone => {
                    entries.remove(&id);
                    texts.remove(&id);
                    gone.insert(id);
                }
                event => {
                    if let Some(entry) = entries.get_mut(&id) {
                        entry.apply(record.at, event);
                    }
                }
            }
        }
        self.clear_away(&mut entries, &texts, &gone, &mut files, &mut recovered)?;
        for id in files {
            if damaged {
                entries.extend(self.adopt(&id).map(|entry| (id, entry)));
            } else {
                recovered.unqueued.push(id);
            }
        }
        let records = self.settle(&entries, same_boot, &mut recovered);
        self.book.with(|book| {
            book.entries = entries;
            book.texts = texts;
        });
        self.journal.append(&records, || {
            self.book
                .with(|book| records.iter().for_each(|r| book.apply(r)));
        })?;
        // One state, one journal: what was torn or damaged is not read a second time.
        self.compact()?;
        Ok(recovered)
    }

    /// What the journal is to be told of attempts that were cut off.
    fn settle(
        &self,
        entries: &BTreeMap<Id, Entry>,
        same_boot: bool,
        recovered: &mut Recovered,
    ) -> Vec<Record> {
        let damaged = recovered.damaged > 0;
        let mut records = vec![Record {
            at: now(),
            id: None,
            event: Event::Opened {
                boot: self.boot.clone(),
            },
        }];
        for entry in entries.values() {
            let cut_off = entry.indices(|r| {
                let sent = match r.flight {
                    Flight::Grounded => false,
                    Flight::Armed => !same_boot,
                    Flight::Dot => true,
                };
                !r.state.is_final() && (sent || damaged)
            });
            if !cut_off.is_empty() {
                recovered.in_doubt.push(entry.id.clone());
                records.push(self.doubt(entry, &cut_off, damaged));
            }
            let safe = entry.indices(|r| r.flight == Flight::Armed && same_boot && !damaged);
            if !safe.is_empty() {
                records.push(super::record(now(), &entry.id, Event::Disarmed(safe)));
            }
        }
        records
    }

    /// Files of messages that left, and entries of messages whose file is not there.
    fn clear_away(
        &self,
        entries: &mut BTreeMap<Id, Entry>,
        texts: &Texts,
        gone: &BTreeSet<Id>,
        files: &mut BTreeSet<Id>,
        recovered: &mut Recovered,
    ) -> Result<()> {
        for id in gone {
            if files.remove(id) {
                self.files.remove(id)?;
            }
        }
        entries.retain(|id, entry| {
            let there = files.remove(id) || texts.get(id).is_some();
            if !there && !entry.is_settled() {
                log::error!(
                    "{}: the message is gone from the queue",
                    self.files.path(id).display()
                );
                recovered.lost.push(id.clone());
            }
            // The copy in .Sent is made from the file, so what is settled and has none is done.
            there
        });
        Ok(())
    }

    /// A message whose record may be among the damaged.
    fn adopt(&self, id: &Id) -> Option<Entry> {
        let (envelope, _) = self.files.read(id).ok()?;
        Some(Entry::new(id.clone(), Arc::new(envelope), now(), now()))
    }

    fn doubt(&self, entry: &Entry, recipients: &[usize], damaged: bool) -> Record {
        let why = if damaged {
            "the journal is damaged; it may have been sent"
        } else {
            "ferryfs ended while the server had the message"
        };
        let told = recipients.iter().filter_map(|index| {
            let before = entry.recipients.get(*index)?;
            let due = self.due_in_doubt(before.doubted || damaged);
            let due = due.map(|due| due.max(entry.envelope.send_at.unwrap_or(0)));
            Some(Told {
                recipient: *index,
                state: State::InDoubt,
                due,
                text: why.to_owned(),
            })
        });
        let event = Event::Told {
            counted: true,
            told: told.collect(),
            said: vec![format!("! {why}")],
        };
        super::record(now(), &entry.id, event)
    }

    /// When a message in doubt is tried again, if it is.
    #[must_use]
    pub fn due_in_doubt(&self, doubted_before: bool) -> Option<u64> {
        match self.schedule.in_doubt {
            InDoubtPolicy::RetryOnce(wait) if !doubted_before => Some(now() + wait.as_secs()),
            InDoubtPolicy::RetryOnce(_) | InDoubtPolicy::Hold => None,
        }
    }

    /// Removes a message that was never queued.
    ///
    /// # Errors
    /// `Local`.
    pub fn discard_unqueued(&self, id: &Id) -> Result<()> {
        if self.book.with(|book| book.entries.contains_key(id)) {
            return Ok(());
        }
        self.files.remove(id)
    }
}

fn is_missing(err: &Error) -> bool {
    err.kind() == ErrorKind::Local(rustix::io::Errno::NOENT.raw_os_error())
}

/// Changes when the machine starts, and only then. Unknown, every start is a new one.
pub(super) fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map_or_else(
        |_| format!("unknown {}", super::since_1970().as_nanos()),
        |text| text.trim().to_owned(),
    )
}
