//! How handles share the one open file of an inode: who opens it, who closes it, and under which
//! name it is stored meanwhile.

use std::sync::{Arc, PoisonError};

use super::attr::Attr;
use super::backend::{OpenFile, OpenHow};
use super::error::{Error, ErrorKind, Result};
use super::inodes::Place;
use super::lending::{Lend, Loan};
use super::open_files::{Fate, Gates};
use super::path::RemotePath;
use super::{Ino, Vfs};
use crate::caller;

/// A file that was opened, and the server's attributes of it where it was not being written here.
pub(super) struct Shared {
    pub(super) file: Arc<dyn OpenFile>,
    pub(super) known: Option<Attr>,
    /// What the kernel has it by, if it reads it by itself.
    pub(super) loan: Option<Loan>,
}

impl Vfs {
    /// Opens `ino`, or shares it with those who have it open, until [`leave`](Self::leave).
    pub(super) fn enter(&self, ino: Ino, how: OpenHow, lend: Lend<'_>) -> Result<Shared> {
        let gates = self.hold(ino);
        let opened = loop {
            let at = self.inodes.with(|inodes| inodes.last_entry(ino));
            let opening = gates.opening.lock().unwrap_or_else(PoisonError::into_inner);
            match at.filter(|at| self.moving.has(at) && !caller::has_gone()) {
                None => break self.at_its_place(ino, |_| self.open_shared(ino, how, lend)),
                Some(at) => {
                    drop(opening);
                    self.moving.settle(&at);
                }
            }
        };
        if opened.is_err() {
            self.leave_quietly(ino);
        }
        opened
    }

    /// The caller has `opening`.
    fn open_shared(&self, ino: Ino, how: OpenHow, lend: Lend<'_>) -> Result<Shared> {
        let at = self.path(ino)?;
        let open = self.open_files.get(ino).map(|(file, _)| file);
        let being_written = open
            .as_ref()
            .is_some_and(|file| file.is_dirty() || self.has_lent_writer(ino, &**file));
        let known = if being_written || how.create.is_some() {
            None
        } else {
            let (attr, _) = self.attr(&at)?;
            self.check_kind(ino, &attr)?;
            Some(attr)
        };
        self.admit(ino, (how, known.as_ref()), open.as_deref(), lend)?;
        let file = match open {
            Some(file) => {
                let how = OpenHow {
                    create: None,
                    ..how
                };
                let reopened = file.reopen(&at, known.as_ref(), how);
                if reopened.is_err() && file.is_outdated() {
                    self.leave_to_its_readers(ino, &at);
                }
                reopened?;
                file
            }
            None => {
                let file = self.backend.open(&at, known.as_ref(), how)?;
                self.open_files.opened(ino, &file);
                file
            }
        };
        let loan = self.borrow(ino, (how, known.as_ref()), &*file, lend);
        Ok(Shared { file, known, loan })
    }

    /// The server has another version of the open file `ino`: whoever looks `at` up again finds
    /// another inode, so that the kernel keeps the pages of the two apart.
    fn leave_to_its_readers(&self, ino: Ino, at: &RemotePath) {
        let Some((_, name)) = at.split() else { return };
        self.inodes.with(|inodes| {
            let parent = inodes.parent(ino);
            if inodes.find(parent, &name) == Some(ino) {
                inodes.orphan(parent, &name, None);
            }
        });
    }

    /// Keeps the locks of `ino`, open or not, until [`leave`](Self::leave).
    pub(super) fn hold(&self, ino: Ino) -> Arc<Gates> {
        self.inodes.with(|inodes| inodes.pin(ino));
        self.open_files.enter(ino)
    }

    /// Shares `ino` if someone has it open, until [`leave`](Self::leave).
    pub(super) fn join(&self, ino: Ino) -> Option<Arc<dyn OpenFile>> {
        self.open_files.gates(ino)?;
        let gates = self.hold(ino);
        let open = {
            // It may be that someone is just opening it, or closing.
            let _opening = gates.opening.lock().unwrap_or_else(PoisonError::into_inner);
            self.open_files.get(ino)
        };
        if open.is_none() {
            self.leave_quietly(ino);
        }
        open.map(|(file, _)| file)
    }

    /// Takes back one [`enter`](Self::enter), [`join`](Self::join) or [`hold`](Self::hold); the
    /// last one closes.
    pub(super) fn leave(&self, ino: Ino) -> Result<()> {
        let Some(gates) = self.open_files.gates(ino) else {
            return Ok(());
        };
        let result = {
            let _opening = gates.opening.lock().unwrap_or_else(PoisonError::into_inner);
            let last = self.open_files.last(ino);
            let result = match &last {
                Some(file) => self.close(ino, &gates, &**file),
                None => Ok(()),
            };
            self.open_files.leave(ino, last.is_some());
            result
        };
        self.inodes.with(|inodes| inodes.unpin(ino));
        result
    }

    pub(super) fn leave_quietly(&self, ino: Ino) {
        if let Err(err) = self.leave(ino) {
            // Whoever asked was told of the failure before; what could not be stored is reported by
            // the content itself.
            log::info!("closing inode {ino}: {err}");
        }
    }

    fn close(&self, ino: Ino, gates: &Gates, file: &dyn OpenFile) -> Result<()> {
        let _named = gates.naming.read().unwrap_or_else(PoisonError::into_inner);
        let fate = self.open_files.get(ino).map(|(_, fate)| fate);
        let at = match self.place(ino)? {
            Place::At(at) if fate == Some(Fate::Named) => Some(at),
            _ => None,
        };
        let dirty = file.is_dirty();
        let result = file.close(at.as_ref());
        if dirty {
            self.note_version(ino, file, &result);
        }
        result
    }

    /// Truncates a file that the caller has no handle of.
    pub(super) fn truncate(&self, ino: Ino, size: u64) -> Result<()> {
        let how = OpenHow {
            write: true,
            truncate: size == 0,
            ..OpenHow::default()
        };
        // No handle: nothing for the kernel to read by.
        let Shared { file, loan, .. } = self.enter(ino, how, Some(&|_| None))?;
        if loan.is_some() {
            self.give_back(ino, how.write);
        }
        let set_len = || match size {
            0 => Ok(()),
            _ => file.set_len(&self.io_path(ino)?, size),
        };
        let result = set_len().and_then(|()| self.store(ino, &*file));
        let closed = self.leave(ino);
        result.and(closed)
    }

    pub(super) fn commit(&self, ino: Ino, file: &dyn OpenFile) -> Result<()> {
        let Some(gates) = self.open_files.gates(ino) else {
            return Ok(());
        };
        let _named = gates.naming.read().unwrap_or_else(PoisonError::into_inner);
        self.commit_named(ino, file)
    }

    /// As [`commit`](Self::commit), of what is acknowledged.
    pub(super) fn commit_acknowledged(&self, ino: Ino, file: &dyn OpenFile) -> Result<()> {
        let Some(gates) = self.open_files.gates(ino) else {
            return Ok(());
        };
        let _named = gates.naming.read().unwrap_or_else(PoisonError::into_inner);
        self.commit_by(ino, file, |at| file.commit_acknowledged(at))
    }

    /// The caller has `naming`.
    pub(super) fn commit_named(&self, ino: Ino, file: &dyn OpenFile) -> Result<()> {
        self.commit_by(ino, file, |at| file.commit(at))
    }

    fn commit_by(
        &self,
        ino: Ino,
        file: &dyn OpenFile,
        commit: impl FnOnce(&RemotePath) -> Result<()>,
    ) -> Result<()> {
        let stale = |why: &str| Err(Error::new(ErrorKind::Stale, format!("inode {ino}: {why}")));
        let fate = self.open_files.get(ino).map(|(_, fate)| fate);
        let at = match (fate, self.place(ino)?) {
            (Some(Fate::Detached), _) => return Ok(()),
            (Some(Fate::Lost), _) => return stale("replaced or removed before it was stored"),
            (_, Place::At(at)) => at,
            (_, Place::Orphan) if file.is_dirty() => return stale("its directory is gone"),
            (_, Place::Orphan) => return Ok(()),
        };
        let dirty = file.is_dirty();
        let result = commit(&at);
        if dirty && !(result.is_ok() && file.awaits_writer()) {
            self.note_version(ino, file, &result);
            self.hasten(ino, &result);
        }
        result
    }

    /// What was stored need not wait in line.
    pub(super) fn hasten(&self, ino: Ino, stored: &Result<()>) {
        if let (Some(writeback), Ok(())) = (self.writeback.get(), stored) {
            writeback.hasten(ino);
        }
    }

    /// Where the server is told of the open file `ino`; the root, which is no file, if it has no
    /// name and nothing is to be told.
    pub(super) fn io_path(&self, ino: Ino) -> Result<RemotePath> {
        match self.open_files.get(ino) {
            Some((_, Fate::Detached | Fate::Lost)) => Ok(RemotePath::root()),
            _ => self.path(ino),
        }
    }

    /// Runs `act` with the path of `ino`; once more if the file was renamed meanwhile.
    pub(super) fn at_its_place<T>(
        &self,
        ino: Ino,
        mut act: impl FnMut(&RemotePath) -> Result<T>,
    ) -> Result<T> {
        let at = self.io_path(ino)?;
        match act(&at) {
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::Stale) => {
                let now = self.io_path(ino)?;
                if now == at { Err(err) } else { act(&now) }
            }
            result => result,
        }
    }
}
