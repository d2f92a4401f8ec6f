//! What is known of each message on the server: a file of records, only ever appended to.
//!
//! A record is one line with a checksum; the last one for an identity counts. A line that is torn
//! or rotten is left out, and then the file is written anew before anything is appended. What is
//! in memory is exactly what [`Ledger::append`] has made durable.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

mod record;

pub use record::{Record, State};

/// First line of the file.
const HEADER: &str = "ferryfs ledger 1\n";

/// Space claimed ahead, in octets: on a full disk messages can be removed all the same, and that is
/// what makes room.
const RESERVE: u64 = 64 * 1024;

/// Dead lines that are not worth a compaction.
const SLACK: usize = 1000;

/// The ledger of one account.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    records: HashMap<Box<[u8]>, Record>,
    /// File names of messages, to identities.
    names: HashMap<Box<str>, Box<[u8]>>,
    /// Lines in the file.
    lines: usize,
    /// Its length, and the space it has.
    length: u64,
    reserved: u64,
    /// The file may not be what memory says: it is written anew before the next append.
    suspect: bool,
    /// What the user did to messages whose records are about to be written, by their names.
    early: Vec<(Box<str>, Done)>,
}

/// What the user did to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is removed: `Kept` or `DeleteWanted`.
    Removed(State, u64),
    /// It has this name.
    Renamed(Box<str>),
}

/// More is not remembered of messages that never get a record.
const MOST_EARLY: usize = 10_000;

impl Done {
    fn apply(&self, record: &mut Record) {
        match self {
            Self::Removed(state, at) if record.state == State::Fetched => {
                (record.state, record.changed) = (*state, *at);
            }
            Self::Removed(..) => {}
            Self::Renamed(name) => record.name.clone_from(name),
        }
    }
}

impl Ledger {
    /// Reads the ledger at `path`, or begins one.
    ///
    /// # Errors
    /// The system's; `InvalidData` for a file that is not a ledger of this version.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let mut ledger = Self {
            path: path.to_owned(),
            file,
            records: HashMap::new(),
            names: HashMap::new(),
            lines: 0,
            length: 0,
            reserved: 0,
            suspect: false,
            early: Vec::new(),
        };
        ledger.load()?;
        if ledger.suspect
            && let Err(err) = ledger.rewrite()
        {
            // The disk is full, perhaps: what is known can be served all the same.
            log::warn!("{}: {err}", path.display());
        }
        // There may be none to have; nothing needs it yet.
        let _ = ledger.claim(0);
        Ok(ledger)
    }

    fn load(&mut self) -> io::Result<()> {
        self.length = self.file.metadata()?.len();
        self.reserved = self.length;
        let mut lines = BufReader::new(self.file.try_clone()?);
        let mut line = Vec::new();
        lines.read_until(b'\n', &mut line)?;
        if line != HEADER.as_bytes() {
            // Torn while it was begun, perhaps; anything else is not ours to overwrite.
            if !HEADER.as_bytes().starts_with(&line) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "not a ledger of this version of ferryfs",
                ));
            }
            self.suspect = true;
            return Ok(());
        }
        let mut bad = 0_usize;
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            self.lines += 1;
            match line.strip_suffix(b"\n").and_then(Record::parse) {
                Some(record) => self.take(record),
                None => bad += 1,
            }
        }
        if bad > 0 {
            log::warn!(
                "{}: {bad} damaged records left out; their messages are looked for in the store",
                self.path.display()
            );
            self.suspect = true;
        }
        Ok(())
    }

    fn take(&mut self, record: Record) {
        // A name may have passed to another identity when the server renumbered.
        if let Some(old) = self.records.remove(&record.uidl)
            && self.names.get(&old.name) == Some(&old.uidl)
        {
            self.names.remove(&old.name);
        }
        if record.state == State::Forgotten {
            return;
        }
        self.names.insert(record.name.clone(), record.uidl.clone());
        self.records.insert(record.uidl.clone(), record);
    }

    /// The record of a message on the server.
    #[must_use]
    pub fn get(&self, uidl: &[u8]) -> Option<&Record> {
        self.records.get(uidl)
    }

    /// The record of a message in the store, by its base name (without flags).
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Record> {
        self.records.get(self.names.get(name)?)
    }

    /// All records, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Makes `records` durable, in one write, and takes them over.
    ///
    /// # Errors
    /// The system's; then nothing is taken over.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let coming: usize = records.iter().map(|record| record.line().len()).sum();
        self.claim(coming as u64)?;
        self.write(records)
    }

    /// Claims space for `coming` octets and what is to be written after them.
    fn claim(&mut self, coming: u64) -> io::Result<()> {
        if self.reserved >= self.length + coming + RESERVE / 2 {
            return Ok(());
        }
        let room = coming + RESERVE;
        let flags = FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, self.length, room) {
            Ok(()) => self.reserved = self.length + room,
            // Some filesystems cannot; then there is no promise.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }

    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        if self.suspect {
            self.rewrite()?;
        } else if self.lines > 2 * self.records.len() + SLACK {
            // It is longer than it need be, if that fails before the old one is replaced.
            self.rewrite().or_else(|err| match self.suspect {
                true => Err(err),
                false => Ok(()),
            })?;
        }
        let text: String = records.iter().map(Record::line).collect();
        if let Err(err) = (&self.file).write_all(text.as_bytes()) {
            // What was claimed behind it goes, too.
            self.suspect = self.file.set_len(self.length).is_err();
            self.reserved = self.length;
            return Err(err);
        }
        if let Err(err) = self.file.sync_data() {
            self.suspect = true;
            return Err(err);
        }
        self.length += text.len() as u64;
        self.lines += records.len();
        for record in records {
            self.take(record.clone());
        }
        Ok(())
    }

    /// Makes records durable that were made of what the ledger said a while ago: what the user did
    /// meanwhile stays done.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn revise(&mut self, records: &[Record]) -> io::Result<()> {
        let forgotten = |of: &&Record| of.state == State::Forgotten;
        let revised: Vec<Record> = records
            .iter()
            .map(|record| {
                // One that takes another identity is known by the one it gives up.
                let mut others = records.iter().filter(forgotten);
                let before = others.find(|other| other.name == record.name);
                let now = self.get(before.map_or(&record.uidl, |before| &before.uidl));
                let mut record = record.clone();
                if let Some(now) = now {
                    record.name.clone_from(&now.name);
                    if record.state == State::Fetched {
                        (record.state, record.changed) = (now.state, now.changed);
                    }
                }
                record
            })
            .collect();
        self.append(&revised)
    }

    /// Messages are about to be seen that get their records by [`welcome`](Self::welcome).
    pub fn announce(&mut self) {
        self.early.clear();
    }

    /// Takes over records of messages that came in; what the user did to them already is done.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn welcome(&mut self, mut records: Vec<Record>) -> io::Result<()> {
        for (name, done) in &self.early {
            for record in records.iter_mut().filter(|record| record.name == *name) {
                done.apply(record);
            }
        }
        self.append(&records)
    }

    /// Makes durable what the user did to the message of this name; of one that has no record, it is
    /// remembered until it gets one, which may be in this very moment.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn note(&mut self, name: &str, done: Done) -> io::Result<()> {
        let Some(record) = self.named(name) else {
            if self.early.len() < MOST_EARLY {
                self.early.push((name.into(), done));
            }
            return Ok(());
        };
        let mut changed = record.clone();
        done.apply(&mut changed);
        if changed == *record {
            return Ok(());
        }
        // From the reserve, if there is nothing else.
        let _ = self.claim(0);
        self.write(&[changed])
    }

    /// Writes what is known to a new file that replaces the old one.
    fn rewrite(&mut self) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let replaced = self.replace(&beside);
        if replaced.is_err() {
            // Its space may be what is missing.
            let _ = fs::remove_file(&beside);
        }
        replaced
    }

    fn replace(&mut self, beside: &Path) -> io::Result<()> {
        let mut text = String::from(HEADER);
        text.extend(self.records.values().map(Record::line));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(beside, &self.path)?;
        // What is written to the old one from here on is lost.
        self.suspect = true;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        self.file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(&self.path)?;
        self.lines = self.records.len();
        (self.length, self.reserved) = (text.len() as u64, text.len() as u64);
        self.suspect = false;
        let _ = self.claim(0);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
