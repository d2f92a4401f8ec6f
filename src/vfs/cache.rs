//! A backend that remembers: listings, the attributes in them, and what is not there.
//!
//! Three rules keep it true. What is asked of the server is kept only if none of this mount's own
//! changes overtook the answer. A change that succeeded is entered in place, so that writing a
//! tree does not list it again after every file; one that may or may not have happened makes its
//! name doubtful. And nothing is relied on for longer than the time to live, a listing for as long
//! again as it took to come.

mod ahead;
mod changes;
mod copying;
mod listing;
mod listings;
mod open;
mod order;
mod walk;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use self::ahead::Ahead;
use self::changes::Generation;
use self::listings::{Ask, Listings, refuses_listing};
use self::open::CachedFile;
use super::attr::{Attr, DirEntry, FileKind, SetAttr, Space, whole_seconds};
use super::backend::{Backend, OpenFile, OpenHow, Replaces};
use super::error::{Error, ErrorKind, Result};
use super::journal::Saved;
use super::path::RemotePath;
use crate::caller;
use crate::sync::Locked;

/// Entries kept where nobody says otherwise; about 300 bytes each.
pub const DEFAULT_ENTRIES: usize = 100_000;

/// Puts a cache of listings and attributes before a [`Backend`].
pub struct Cached {
    inner: Arc<dyn Backend>,
    memory: Memory,
    ttl: Duration,
    ahead: Option<Arc<Ahead>>,
}

/// The memory, shared with the open files. A leaf: never held while the server is asked.
#[derive(Debug, Clone)]
struct Memory(Arc<Locked<Listings>>);

impl Cached {
    /// Relies on what `inner` said for `ttl` (zero: not at all), and remembers at most `entries`
    /// names, of the directories used last.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, ttl: Duration, entries: usize) -> Self {
        let listings = Locked::new(Listings::new(ttl, entries));
        Self {
            inner,
            memory: Memory(Arc::new(listings)),
            ttl,
            ahead: None,
        }
    }

    /// Fetches ahead what a program that walks the tree will list next, where the backend can.
    #[must_use]
    pub fn with_foresight(mut self) -> Self {
        let ahead = || Ahead::new(Arc::clone(&self.inner), self.memory.clone(), self.ttl);
        self.ahead = (!self.ttl.is_zero()).then(ahead);
        self
    }

    /// The listing of `dir`, from memory or from the server.
    fn list_for(&self, dir: &RemotePath) -> Result<Arc<[DirEntry]>> {
        let asked = Instant::now();
        let known = |listings: &mut Listings| match listings.known_list(dir, asked) {
            Some((entries, _)) => Ok(entries),
            None => Err(listings.board(dir)),
        };
        let mut flight = match self.memory.0.with(known) {
            Ok(entries) => return Ok(entries),
            Err(flight) => flight,
        };
        if let Some(arrival) = &flight.arrival {
            arrival.wait();
            if let Some(answer) = flight.listing.get() {
                return answer.clone();
            }
            flight = self.memory.0.with(|listings| {
                listings.abandon(dir, &flight);
                listings.board(dir)
            });
        }
        loop {
            // The first asks the server, the others wait here for what it brings.
            let (asked, mut led) = (Instant::now(), false);
            let ask = || {
                led = true;
                self.inner.list(dir)
            };
            let answer = flight.listing.get_or_init(ask).clone();
            self.memory
                .0
                .with(|listings| listings.landed(dir, &flight, asked, Instant::now()));
            let left = |err: &Error| err.kind() == ErrorKind::Interrupted;
            if led || !answer.as_ref().is_err_and(left) || !caller::waits() {
                return answer;
            }
            // The first was told to stop, and he only.
            flight = self.memory.0.with(|listings| listings.board(dir));
        }
    }

    /// Asks for one name alone, and remembers the answer.
    fn stat_alone(&self, path: &RemotePath) -> Result<Attr> {
        let asked = Instant::now();
        let since = self.memory.generation();
        let answer = self.inner.stat(path);
        self.memory.0.with(|listings| {
            if !listings.changes.overtook(since, path) {
                listings.answered(path, &answer, asked);
            }
        });
        answer
    }
}

impl Memory {
    fn generation(&self) -> Generation {
        self.0.with(|listings| listings.changes.generation())
    }

    fn doubt(&self, path: &RemotePath) {
        self.0.with(|listings| {
            listings.doubt(path, Instant::now());
            listings.changes.note(path);
        });
    }

    /// An error that shows that what is believed of `path` is wrong.
    fn refuted(&self, path: &RemotePath, err: &Error) {
        if matches!(
            err.kind(),
            ErrorKind::NotFound
                | ErrorKind::Stale
                | ErrorKind::Exists
                | ErrorKind::IsADirectory
                | ErrorKind::NotADirectory
        ) {
            self.doubt(path);
        }
    }

    /// Makes a change of `paths`, and remembers what became of it: `outcome` if it succeeded and
    /// no other change of the same names was under way, else that nobody knows.
    fn change<T>(
        &self,
        paths: &[&RemotePath],
        change: impl FnOnce() -> Result<T>,
        outcome: impl FnOnce(&mut Listings, Instant, &T),
    ) -> Result<T> {
        self.change_if(paths, change, |_| true, outcome)
    }

    /// As [`change`](Self::change), where only the result tells whether anything was `changed`.
    fn change_if<T>(
        &self,
        paths: &[&RemotePath],
        change: impl FnOnce() -> Result<T>,
        changed: impl FnOnce(&T) -> bool,
        outcome: impl FnOnce(&mut Listings, Instant, &T),
    ) -> Result<T> {
        let since = self.generation();
        let result = change();
        let as_before = match &result {
            Ok(value) => !changed(value),
            Err(err) => changed_nothing(err.kind()),
        };
        if as_before {
            return result;
        }
        let now = Instant::now();
        self.0.with(|listings| {
            let alone = !paths
                .iter()
                .any(|path| listings.changes.overtook(since, path));
            match &result {
                Ok(value) if alone => outcome(listings, now, value),
                _ => paths.iter().for_each(|path| listings.doubt(path, now)),
            }
            paths.iter().for_each(|path| listings.changes.note(path));
        });
        result
    }
}

/// Whether an operation that fails so surely left everything as it was, and what is known of it
/// was no cause of the failure.
fn changed_nothing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied
            | ErrorKind::NotPermitted
            | ErrorKind::ReadOnly
            | ErrorKind::NoSpace
            | ErrorKind::QuotaExceeded
            | ErrorKind::Invalid
            | ErrorKind::NameTooLong
            | ErrorKind::Unsupported
            | ErrorKind::Busy
    )
}

impl Backend for Cached {
    fn stat(&self, path: &RemotePath) -> Result<Attr> {
        let ask = self
            .memory
            .0
            .with(|listings| listings.ask(path, Instant::now()));
        let dir = match ask {
            Ask::Known(answer) => return answer,
            Ask::Stat => return self.stat_alone(path),
            Ask::Either => path
                .split()
                .filter(|(dir, _)| self.inner.lists_at_once(dir)),
            Ask::List => path.split(),
        };
        let Some((dir, name)) = dir else {
            return self.stat_alone(path);
        };
        match self.list_for(&dir) {
            Ok(entries) => {
                let listed = || entries.iter().find(|entry| entry.name == name);
                self.known(path).map_or_else(
                    || match listed() {
                        Some(entry) => Ok(entry.attr.clone()),
                        None => Err(ErrorKind::NotFound.into()),
                    },
                    |(answer, _)| answer,
                )
            }
            Err(err) if refuses_listing(err.kind()) => self.stat_alone(path),
            Err(err) => Err(err),
        }
    }

    fn list(&self, dir: &RemotePath) -> Result<Arc<[DirEntry]>> {
        let Some(ahead) = &self.ahead else {
            return self.list_for(dir);
        };
        let step = ahead.entered(dir);
        let listed = self.list_for(dir);
        if let Ok(entries) = &listed {
            ahead.listed(dir, entries, step);
        }
        listed
    }

    fn known(&self, path: &RemotePath) -> Option<(Result<Attr>, Duration)> {
        self.memory
            .0
            .with(|listings| listings.known(path, Instant::now()))
    }

    fn known_list(&self, dir: &RemotePath) -> Option<(Arc<[DirEntry]>, Duration)> {
        let known = self
            .memory
            .0
            .with(|listings| listings.known_list(dir, Instant::now()));
        if let (Some((entries, _)), Some(ahead)) = (&known, &self.ahead) {
            let step = ahead.entered(dir);
            ahead.listed(dir, entries, step);
        }
        known
    }

    fn relies_on_listings(&self) -> bool {
        !self.ttl.is_zero()
    }

    fn open(
        &self,
        path: &RemotePath,
        known: Option<&Attr>,
        how: OpenHow,
    ) -> Result<Arc<dyn OpenFile>> {
        let opened = self.inner.open(path, known, how);
        match opened {
            Ok(file) => {
                if let Some(ahead) = self.ahead.as_ref().filter(|_| how.only_reads()) {
                    ahead.opened(path);
                }
                Ok(Arc::new(CachedFile::new(file, self.memory.clone())))
            }
            Err(err) => {
                self.memory.refuted(path, &err);
                Err(err)
            }
        }
    }

    fn restore(&self, saved: Saved) -> Result<Arc<dyn OpenFile>> {
        let file = self.inner.restore(saved)?;
        Ok(Arc::new(CachedFile::new(file, self.memory.clone())))
    }

    fn mkdir(&self, path: &RemotePath, mode: Option<u32>) -> Result<()> {
        self.memory.change(
            &[path],
            || self.inner.mkdir(path, mode),
            |listings, now, ()| {
                let mut attr = Attr::new(FileKind::Directory);
                attr.mtime = Some(whole_seconds(SystemTime::now()));
                attr.mode = mode;
                listings.put_dir(path, attr, now);
            },
        )
    }

    fn unlink(&self, path: &RemotePath) -> Result<()> {
        self.memory.change(
            &[path],
            || self.inner.unlink(path),
            |listings, now, ()| listings.remove(path, now),
        )
    }

    fn rmdir(&self, path: &RemotePath) -> Result<()> {
        self.memory.change(
            &[path],
            || self.inner.rmdir(path),
            |listings, now, ()| listings.remove(path, now),
        )
    }

    fn rename(&self, from: &RemotePath, to: &RemotePath, replaces: Replaces) -> Result<()> {
        self.memory.change(
            &[from, to],
            || self.inner.rename(from, to, replaces),
            |listings, now, ()| listings.rename(from, to, now),
        )
    }

    fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        self.memory.change(
            &[path],
            || self.inner.set_attr(path, change),
            |listings, now, ()| listings.set_attr(path, change, now),
        )
    }

    fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        self.inner.read_link(path)
    }

    fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        self.memory.change(
            &[path],
            || self.inner.symlink(target, path),
            |listings, now, ()| {
                let mut attr = Attr::new(FileKind::Symlink);
                attr.size = Some(target.len() as u64);
                attr.mtime = Some(whole_seconds(SystemTime::now()));
                attr.target = Some(target.into());
                listings.put(path, attr, now);
            },
        )
    }

    fn space(&self) -> Result<Option<Space>> {
        self.inner.space()
    }

    fn xattrs(&self, path: &RemotePath) -> Result<Vec<(String, Vec<u8>)>> {
        self.inner.xattrs(path)
    }

    fn xattr(&self, path: &RemotePath, name: &str) -> Result<Vec<u8>> {
        self.inner.xattr(path, name)
    }
}

impl std::fmt::Debug for Cached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cached").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
