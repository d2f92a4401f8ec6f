//! One session: what is new comes in and is made safe, what may go is deleted.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::SystemTime;

use super::options::{FetchOptions, ServerDelete};
use super::plan::{self, Comparison, Message};
use super::receive::Receiver;
use crate::mail::connect::{Connector, Cutter};
use crate::mail::failure::{Class, Failure, Result};
use crate::mail::header::{self, Digest};
use crate::mail::ledger::{Record, State};
use crate::mail::pop3::{Credentials, Maildrop};
use crate::mail::step::{Step, Watch};
use crate::mail::store::{Store, unix};

/// What one session needs to know of earlier ones.
#[derive(Debug, Default)]
pub struct Memory {
    /// Messages that broke sessions, and how many: they come last, so that they keep nothing else
    /// from coming.
    pub(super) trouble: HashMap<Box<[u8]>, u32>,
    /// The user agreed to a mass deletion, once.
    pub(super) may_delete_many: bool,
}

impl Memory {
    /// Lets the next session delete however many messages are wanted.
    pub const fn confirm_deletions(&mut self) {
        self.may_delete_many = true;
    }
}

/// What a session did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Messages on the server, before deletions.
    pub on_server: usize,
    /// Messages that came in.
    pub fetched: usize,
    /// Messages that were here already under another identity.
    pub renumbered: usize,
    /// Messages deleted on the server.
    pub deleted: usize,
    /// So many deletions were due that somebody has to confirm them.
    pub held: Option<usize>,
    /// Messages left on the server for their size.
    pub too_large: usize,
    /// Messages the server did not hand out, and its first reason.
    pub refused: usize,
    /// See `refused`.
    pub reason: Option<String>,
    /// The server lists only some messages at a time (Gmail), and there may be more.
    pub more: bool,
    /// The server's least time between two logins.
    pub login_delay: Option<std::time::Duration>,
}

/// Runs one session. `cutter` gets what ends it from another thread.
///
/// # Errors
/// See [`Class`]. What was recorded before stays safe and is not fetched again; nothing is deleted
/// on the server unless the session came to its regular end.
pub fn synchronise(
    store: &Store,
    options: &FetchOptions,
    connector: &Connector,
    memory: &mut Memory,
    cutter: &dyn Fn(Cutter),
    watch: &Watch<'_>,
) -> Result<Report> {
    let maildrop = open(options, connector, cutter)?;
    watch(Step::LoggedIn(maildrop.capabilities()))?;
    let mut report = Report {
        login_delay: maildrop.capabilities().login_delay,
        ..Report::default()
    };
    let session = Session {
        store,
        options,
        memory,
        watch,
    };
    session.run(maildrop, &mut report)?;
    Ok(report)
}

fn open(
    options: &FetchOptions,
    connector: &Connector,
    cutter: &dyn Fn(Cutter),
) -> Result<Maildrop> {
    let attempt = |fresh| {
        let secret = (options.secret)(fresh).map_err(|why| Failure::new(Class::Account, why))?;
        let who = Credentials {
            user: &options.user,
            secret: &secret,
            is_token: options.is_token,
            auth: options.auth,
        };
        Maildrop::open(connector, &who, cutter)
    };
    match attempt(false) {
        // Tokens live for an hour or so.
        Err(refused) if options.is_token && refused.class() == Class::Account => attempt(true),
        outcome => outcome,
    }
}

struct Session<'a> {
    store: &'a Store,
    options: &'a FetchOptions,
    memory: &'a mut Memory,
    watch: &'a Watch<'a>,
}

impl Session<'_> {
    fn run(mut self, mut maildrop: Maildrop, report: &mut Report) -> Result<()> {
        let mut messages = plan::identify(maildrop.list()?);
        report.on_server = messages.len();
        self.name_the_nameless(&mut maildrop, &mut messages)?;
        let files = self.store.files()?;
        self.recognise(&messages, &files)?;
        let now = unix(SystemTime::now());
        let mut found = self
            .store
            .with_ledger(|ledger| plan::compare(&messages, ledger, now));
        // A server that hides what was retrieved makes everything vanish as a matter of course.
        found.renumbered &= !maildrop.capabilities().hides_retrieved;
        if messages.iter().any(|m| m.uidl.is_none()) {
            // Which of them are gone is known when all are received.
            (found.renumbered, found.changed) = (false, Vec::new());
        }
        let by_content = self.verify(&mut maildrop, &mut found, report)?;
        let changed = std::mem::take(&mut found.changed);
        self.store.revise(&changed)?;

        let wanted = self.wanted(&found, report);
        let octets = wanted.iter().map(|m| m.octets).sum();
        (self.watch)(Step::Listed {
            messages: messages.len(),
            wanted: wanted.len(),
            octets,
        })?;
        let mut receiver = Receiver {
            store: self.store,
            largest: self.options.largest,
            window: self.options.window,
            by_content,
            trouble: &mut self.memory.trouble,
            watch: self.watch,
            messages: &mut messages,
        };
        receiver.receive(&mut maildrop, &wanted, report)?;
        report.more = report.fetched > 0 && maildrop.capabilities().hides_retrieved;
        // A listing that may be renumbered is no ground to delete anything.
        let doomed = if found.renumbered {
            Vec::new()
        } else {
            self.doomed(&messages, report)?
        };
        self.finish(maildrop, &doomed, report)
    }

    /// Without UIDL, a message's header and size are its identity.
    fn name_the_nameless(&self, maildrop: &mut Maildrop, messages: &mut [Message]) -> Result<()> {
        let nameless: Vec<_> = messages
            .iter()
            .filter(|m| m.uidl.is_none())
            .map(|m| m.number)
            .collect();
        if nameless.is_empty() {
            return Ok(());
        }
        let headers = fingerprints(maildrop, &nameless, self.options.window)?;
        for message in messages.iter_mut().filter(|m| m.uidl.is_none()) {
            message.uidl = headers.get(&message.number).map(|digest| {
                // Reports of one program may have one header, and say different things.
                let size = format!("#{}", message.octets);
                [header::hex('H', digest), size.into_bytes()]
                    .concat()
                    .into()
            });
        }
        let unknown = messages.iter().any(|m| m.uidl.is_none());
        if unknown && self.options.delete != ServerDelete::AfterFetch {
            return Err(Failure::new(
                Class::Permanent,
                format!(
                    "{}: the server has neither UIDL nor TOP, so that known messages cannot be \
                     told from new ones: only -o server_delete=after-fetch works with it",
                    self.options.endpoint.host
                ),
            ));
        }
        Ok(())
    }

    /// Records what is in the store and not in the ledger: the machine stopped in between, or the
    /// ledger was lost.
    fn recognise(&self, messages: &[Message], files: &HashMap<Box<str>, PathBuf>) -> Result<()> {
        let orphans = self.store.orphans(files);
        if orphans.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        for message in messages {
            let Some(uidl) = &message.uidl else { continue };
            if self.store.with_ledger(|ledger| ledger.get(uidl).is_some()) {
                continue;
            }
            if let Some(path) = orphans.get(&*self.store.key(uidl)) {
                records.push(self.store.recognise(uidl, message.octets, path)?);
            }
        }
        self.store.record(&records)
    }

    /// Finds out which messages are known ones under another identity, and which identities have
    /// passed to another message, by their headers. Where the server has no TOP, returns what to
    /// compare their contents with.
    fn verify(
        &self,
        maildrop: &mut Maildrop,
        found: &mut Comparison,
        report: &mut Report,
    ) -> Result<HashMap<Digest, Record>> {
        let mut old: HashMap<Digest, Record> = HashMap::new();
        let mut by_content: HashMap<Digest, Record> = HashMap::new();
        let doubtful = std::mem::take(&mut found.doubtful);
        let mut numbers: Vec<_> = doubtful.iter().map(|m| m.number).collect();
        if found.renumbered {
            numbers.extend(found.unknown.iter().map(|m| m.number));
            for record in &found.vanished {
                old.insert(record.header, record.clone());
                by_content.insert(record.sha256, record.clone());
            }
        }
        if numbers.is_empty() {
            return Ok(by_content);
        }
        let headers = fingerprints(maildrop, &numbers, self.options.window)?;
        for message in doubtful {
            let Some(uidl) = &message.uidl else { continue };
            let Some(record) = self.store.with_ledger(|ledger| ledger.get(uidl).cloned()) else {
                continue;
            };
            match headers.get(&message.number) {
                Some(header) if *header == record.header => {
                    found.changed.push(same_again(record, &message));
                }
                // Another message: it is fetched, and takes the identity over.
                Some(_) => found.unknown.push(message),
                None => {
                    by_content.insert(record.sha256, record);
                    found.unknown.push(message);
                }
            }
        }
        let mut moved = HashSet::new();
        for message in &found.unknown {
            let Some(record) = headers.get(&message.number).and_then(|h| old.remove(h)) else {
                continue;
            };
            let Some(uidl) = &message.uidl else { continue };
            if record.uidl != *uidl {
                found.changed.retain(|changed| changed.uidl != record.uidl);
                found
                    .changed
                    .extend(moved_to(&record, uidl, message.octets));
                by_content.remove(&record.sha256);
                moved.insert(message.number);
            }
        }
        report.renumbered = moved.len();
        found.unknown.retain(|m| !moved.contains(&m.number));
        found.unknown.sort_by_key(|m| std::cmp::Reverse(m.number));
        Ok(by_content)
    }

    /// What to fetch, in which order: newest first, what broke sessions last.
    fn wanted(&mut self, found: &Comparison, report: &mut Report) -> Vec<Message> {
        let mut wanted = found.unknown.clone();
        wanted.retain(|m| m.octets <= self.options.largest);
        report.too_large = found.unknown.len() - wanted.len();
        let trouble = |m: &Message| m.uidl.as_ref().and_then(|u| self.memory.trouble.get(u));
        wanted.sort_by_key(|m| trouble(m).copied().unwrap_or_default());
        wanted
    }

    fn doomed(&mut self, messages: &[Message], report: &mut Report) -> Result<Vec<(u32, Record)>> {
        if self.options.delete == ServerDelete::Never {
            return Ok(Vec::new());
        }
        let files = self.store.files()?;
        let now = unix(SystemTime::now());
        let policy = self.options.delete;
        let (doomed, known) = self.store.with_ledger(|ledger| {
            let has = |name: &str| files.contains_key(name);
            let doomed = plan::deletions(messages, ledger, policy, now, has);
            (doomed, ledger.iter().filter(|r| !r.gone).count())
        });
        if plan::too_many(doomed.len(), known, policy) && !self.memory.may_delete_many {
            report.held = Some(doomed.len());
            return Ok(Vec::new());
        }
        Ok(doomed)
    }

    /// Deletes and ends the session.
    fn finish(
        self,
        mut maildrop: Maildrop,
        doomed: &[(u32, Record)],
        report: &mut Report,
    ) -> Result<()> {
        if doomed.is_empty() {
            // Everything is safe; a server that hangs up on QUIT is no trouble.
            if let Err(err) = maildrop.quit() {
                log::debug!("{err}");
            }
            return (self.watch)(Step::Quit);
        }
        let numbers: Vec<_> = doomed.iter().map(|d| d.0).collect();
        let marked: HashSet<_> = maildrop
            .delete(&numbers, self.options.window)?
            .into_iter()
            .collect();
        (self.watch)(Step::Marked(marked.len()))?;
        maildrop.quit()?;
        (self.watch)(Step::Quit)?;
        let now = unix(SystemTime::now());
        let deleted: Vec<_> = doomed
            .iter()
            .filter(|(number, _)| marked.contains(number))
            .map(|(_, record)| Record {
                state: State::Deleted,
                changed: now,
                ..record.clone()
            })
            .collect();
        report.deleted = deleted.len();
        self.memory.may_delete_many = false;
        self.store.revise(&deleted)?;
        (self.watch)(Step::Forgotten)
    }
}

/// Header fingerprints by number; none for what the server refuses.
fn fingerprints(
    maildrop: &mut Maildrop,
    numbers: &[u32],
    window: usize,
) -> Result<HashMap<u32, Digest>> {
    let mut found = HashMap::new();
    let capabilities = maildrop.capabilities();
    if capabilities.known && !capabilities.top {
        return Ok(found);
    }
    maildrop.headers(numbers, window, |number, text| {
        if let Ok(text) = text {
            found.insert(number, header::fingerprint(header::header_of(text)));
        }
    })?;
    Ok(found)
}

/// The message of `record` is listed with another size, or although it was deleted.
pub(super) fn same_again(record: Record, message: &Message) -> Record {
    let state = match record.state {
        State::Deleted => State::DeleteWanted,
        state => state,
    };
    Record {
        octets: message.octets,
        gone: false,
        state,
        ..record
    }
}

/// The message of `record` has another identity now: the new record first, so that a crash between
/// the two loses nothing.
pub(super) fn moved_to(record: &Record, uidl: &[u8], octets: u64) -> [Record; 2] {
    [
        Record {
            uidl: uidl.into(),
            octets,
            gone: false,
            ..record.clone()
        },
        Record {
            state: State::Forgotten,
            ..record.clone()
        },
    ]
}
