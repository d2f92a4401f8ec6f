//! The journal: a file of records, only ever appended to, with one fdatasync for all who wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FallocateFlags;

use super::Step;
use super::record::Record;
use crate::vfs::error::{Error, ErrorKind, Result};

/// Space claimed ahead, so that what must be written after a message went out finds room.
const RESERVE: u64 = 256 * 1024;

/// What was found in a journal.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Records in order.
    pub(super) records: Vec<Record>,
    /// Unreadable lines that have readable ones behind them: not the torn end of a crash.
    pub(super) damaged: usize,
}

/// Who is told of each step; an error stops what is done.
pub(super) type Watch = dyn Fn(Step) -> Result<()> + Send + Sync;

/// Positions are in octets appended since the journal was opened, and never go back.
pub(super) struct Journal {
    path: PathBuf,
    watch: Arc<Watch>,
    /// Held across the write and the taking-over of what was written. Taken behind `synced`.
    end: Mutex<End>,
    /// Held across fdatasync: who waits for it behind the one who does it, finds it done.
    synced: Mutex<u64>,
}

#[derive(Debug)]
struct End {
    file: Arc<File>,
    /// Length of the file.
    length: u64,
    /// Space that is claimed.
    reserved: u64,
    position: u64,
    lines: usize,
    /// A write or fsync failed: what is on disk is not known any more.
    broken: Option<String>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Reads the journal at `path`, or begins one; a torn end is cut off.
    pub(super) fn open(path: PathBuf, watch: Arc<Watch>) -> Result<(Self, Found)> {
        let failed = |err: io::Error| Error::local(path.display(), &err);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(failed(err)),
        };
        let (found, good) = read(&bytes);
        if found.damaged > 0 {
            // There may be messages in it, and the journal is about to be written anew.
            let aside = path.with_extension("damaged");
            let kept = write_aside(&aside, &bytes);
            kept.map_err(|err| Error::local(aside.display(), &err))?;
            log::error!(
                "{}: {} damaged records; kept as {}",
                path.display(),
                found.damaged,
                aside.display()
            );
        }
        let file = append_to(&path).map_err(failed)?;
        if good < bytes.len() as u64 {
            file.set_len(good).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        let end = End {
            file: Arc::new(file),
            length: good,
            reserved: good,
            position: 0,
            lines: found.records.len(),
            broken: None,
        };
        let journal = Self {
            end: Mutex::new(end),
            synced: Mutex::new(0),
            watch,
            path,
        };
        Ok((journal, found))
    }

    fn with_end<R>(&self, work: impl FnOnce(&mut End) -> R) -> R {
        work(&mut self.end.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lines in the file.
    pub(super) fn lines(&self) -> usize {
        self.with_end(|end| end.lines)
    }

    /// Length of the file, in octets.
    pub(super) fn length(&self) -> u64 {
        self.with_end(|end| end.length)
    }

    /// What was appended so far.
    pub(super) fn position(&self) -> u64 {
        self.with_end(|end| end.position)
    }

    /// Claims space for `coming` octets and what is to be written after them.
    pub(super) fn reserve(&self, coming: u64) -> Result<()> {
        self.with_end(|end| {
            end.check()?;
            if end.reserved >= end.length + coming + RESERVE / 2 {
                return Ok(());
            }
            let room = coming + RESERVE;
            let flags = FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&*end.file, flags, end.length, room) {
                Ok(()) => {}
                // Some filesystems cannot; then there is no promise.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
                Err(err) => return Err(Error::local(self.path.display(), &err.into())),
            }
            end.reserved = end.length + room;
            Ok(())
        })
    }

    /// Appends `records`, takes them over by `apply`, and gives the position to be synced. What
    /// cannot be written as a whole is not there.
    pub(super) fn append(&self, records: &[Record], apply: impl FnOnce()) -> Result<u64> {
        let mut text = String::new();
        for record in records {
            text.push_str(&record.line().map_err(|err| {
                Error::new(ErrorKind::Protocol, format!("journal record: {err}"))
            })?);
        }
        (self.watch)(Step::Append)?;
        let position = self.with_end(|end| {
            end.check()?;
            if let Err(err) = (&*end.file).write_all(text.as_bytes()) {
                // Half a record in the middle would look like damage.
                if end.file.set_len(end.length).is_err() {
                    end.broken = Some(err.to_string());
                }
                // The space that was claimed behind it went, too.
                end.reserved = end.length;
                return Err(Error::local(self.path.display(), &err));
            }
            end.length += text.len() as u64;
            end.position += text.len() as u64;
            end.lines += records.len();
            apply();
            Ok(end.position)
        })?;
        (self.watch)(Step::Appended)?;
        Ok(position)
    }

    /// Makes everything up to `position` durable.
    pub(super) fn sync(&self, position: u64) -> Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced >= position {
            return Ok(());
        }
        (self.watch)(Step::Sync)?;
        let (file, end, length) = self.with_end(|end| {
            end.check()?;
            Ok::<_, Error>((Arc::clone(&end.file), end.position, end.length))
        })?;
        if let Err(err) = file.sync_data() {
            // The kernel may have dropped what it could not write (fsync(2)): a second fsync that
            // succeeds would prove nothing.
            self.with_end(|end| end.broken = Some(err.to_string()));
            return Err(Error::local(self.path.display(), &err));
        }
        *synced = end;
        drop(synced);
        (self.watch)(Step::Synced(length))
    }

    /// Replaces the file by `records`, which `snapshot` makes while nothing can be appended.
    pub(super) fn rewrite(&self, snapshot: impl FnOnce() -> Vec<Record>) -> Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |err: io::Error| Error::local(self.path.display(), &err);
        let beside = self.path.with_extension("new");
        (self.watch)(Step::Rewrite)?;
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.check()?;
        let records = snapshot();
        let (file, length) = write_beside(&beside, &records).map_err(|err| {
            // Its space may be what is missing.
            let _ = std::fs::remove_file(&beside);
            failed(err)
        })?;
        std::fs::rename(&beside, &self.path).map_err(failed)?;
        end.file = Arc::new(file);
        end.length = length;
        end.reserved = length;
        end.lines = records.len();
        let renamed = self
            .path
            .parent()
            .map_or(Ok(()), |dir| File::open(dir)?.sync_all());
        if let Err(err) = renamed {
            end.broken = Some(err.to_string());
            return Err(failed(err));
        }
        *synced = end.position;
        drop(end);
        drop(synced);
        (self.watch)(Step::Rewritten(length))
    }
}

impl End {
    fn check(&self) -> Result<()> {
        match &self.broken {
            Some(why) => Err(Error::new(
                ErrorKind::Local(rustix::io::Errno::IO.raw_os_error()),
                format!("the queue's journal cannot be written any more: {why}"),
            )),
            None => Ok(()),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn write_beside(beside: &Path, records: &[Record]) -> io::Result<(File, u64)> {
    let mut text = String::new();
    for record in records {
        text.push_str(&record.line()?);
    }
    write_aside(beside, text.as_bytes())?;
    let file = append_to(beside)?;
    Ok((file, text.len() as u64))
}

fn write_aside(aside: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(aside) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file = append_to(aside)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The records of a journal, and its length up to the last good one.
fn read(bytes: &[u8]) -> (Found, u64) {
    let mut found = Found::default();
    let (mut at, mut good) = (0, 0_u64);
    let mut bad = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        at += line.len() as u64;
        // Blocks that were never written are zeros, which no record has: what comes behind them was
        // not on disk either when the power failed.
        if memchr::memchr(0, line).is_some() {
            break;
        }
        match line.strip_suffix(b"\n").and_then(Record::parse) {
            Some(record) => {
                found.records.push(record);
                found.damaged += std::mem::take(&mut bad);
                good = at;
            }
            None => bad += 1,
        }
    }
    (found, good)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::entry::Id;
    use super::super::record::Event;
    use super::*;

    fn record(at: u64) -> Record {
        Record {
            at,
            id: Id::parse("a"),
            event: Event::Retry,
        }
    }

    fn open(path: &Path) -> (Journal, Found) {
        Journal::open(path.to_owned(), Arc::new(|_| Ok(()))).unwrap()
    }

    #[test]
    fn a_torn_end_is_cut_off_and_damage_in_the_middle_is_counted() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("journal");
        let (journal, _) = open(&path);
        let records: Vec<_> = (0..3).map(record).collect();
        let position = journal.append(&records, || {}).unwrap();
        journal.sync(position).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let line = whole.len() / 3;
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (journal, found) = open(&path);
            assert_eq!((found.records.len(), found.damaged), (cut / line, 0));
            let position = journal.append(&[record(9)], || {}).unwrap();
            journal.sync(position).unwrap();
            drop(journal);
            let (_, found) = open(&path);
            assert_eq!(found.records.last(), Some(&record(9)));
            assert_eq!(found.damaged, 0);
        }
        let mut rotten = whole.clone();
        rotten[line + 12] ^= 1;
        std::fs::write(&path, &rotten).unwrap();
        let (_, found) = open(&path);
        assert_eq!((found.records.len(), found.damaged), (2, 1));
        // Blocks that were never written are zeros.
        let mut zeros = whole.clone();
        zeros.extend([0; 4096]);
        std::fs::write(&path, &zeros).unwrap();
        let (_, found) = open(&path);
        assert_eq!((found.records.len(), found.damaged), (3, 0));
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        // Later blocks may be there before earlier ones.
        let mut hole = whole.clone();
        hole[line + 5..line + 9].fill(0);
        std::fs::write(&path, &hole).unwrap();
        let (_, found) = open(&path);
        assert_eq!((found.records.len(), found.damaged), (1, 0));
        assert_eq!(std::fs::read(&path).unwrap(), whole[..line]);
    }

    #[test]
    fn what_is_rewritten_can_be_appended_to() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("journal");
        let (journal, _) = open(&path);
        for at in 0..10 {
            journal.append(&[record(at)], || {}).unwrap();
        }
        journal.reserve(0).unwrap();
        journal.rewrite(|| vec![record(9)]).unwrap();
        assert_eq!(journal.lines(), 1);
        let position = journal.append(&[record(10)], || {}).unwrap();
        journal.sync(position).unwrap();
        drop(journal);
        let (_, found) = open(&path);
        assert_eq!(found.records, [record(9), record(10)]);
    }

    #[test]
    fn one_sync_serves_all_who_wait() {
        let temp = tempfile::tempdir().unwrap();
        let syncs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&syncs);
        let watch = Arc::new(move |step| {
            if matches!(step, Step::Sync) {
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Ok(())
        });
        let (journal, _) = Journal::open(temp.path().join("j"), watch).unwrap();
        std::thread::scope(|scope| {
            for at in 0..16 {
                let journal = &journal;
                scope.spawn(move || {
                    let position = journal.append(&[record(at)], || {}).unwrap();
                    journal.sync(position).unwrap();
                });
            }
        });
        assert!(syncs.load(std::sync::atomic::Ordering::Relaxed) < 10);
    }
}
