//! Files: open, create, read, write, and what close and fsync promise.

use std::ffi::OsStr;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use super::attr::{Attr, FileKind};
use super::backend::{OpenFile, OpenHow};
use super::error::{Error, ErrorKind, Result};
use super::inodes::{Place, Version};
use super::open_files::{Fate, Gates};
use super::path::{Name, RemotePath};
use super::{Entry, Ino, Vfs};

/// What `open` tells the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub fh: u64,
    /// The kernel's pages are of this version of the file.
    pub keep_cache: bool,
    /// The size is not known: only a read can find the end.
    pub direct_io: bool,
}

/// A file with content that the server has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirty {
    /// Where it is.
    pub path: RemotePath,
    /// Its size here.
    pub bytes: u64,
}

/// One open file description.
pub(super) struct FileHandle {
    ino: Ino,
    read: bool,
    write: bool,
    file: Arc<dyn OpenFile>,
}

/// A file that was opened, and the server's attributes of it where it was not being written here.
struct Shared {
    file: Arc<dyn OpenFile>,
    known: Option<Attr>,
}

impl Vfs {
    /// Opens `ino`.
    ///
    /// # Errors
    /// `NotFound` or `Stale` if it is not there any more; what the backend says.
    pub fn open(&self, ino: Ino, how: OpenHow) -> Result<Opened> {
        if how.write || how.truncate {
            self.writable()?;
        }
        match self.inodes.with(|inodes| inodes.kind(ino)) {
            Some(FileKind::Directory) => return Err(ErrorKind::IsADirectory.into()),
            Some(FileKind::Symlink) => return Err(ErrorKind::Loop.into()),
            Some(FileKind::File) | None => {}
        }
        let how = OpenHow {
            create: None,
            ..how
        };
        let shared = self.enter(ino, how)?;
        let keep_cache = self.pages_are_good(ino, shared.known.as_ref(), how);
        let unknown_size = shared.known.is_some_and(|attr| attr.size.is_none());
        Ok(Opened {
            fh: self.handle(ino, how, shared.file),
            keep_cache,
            direct_io: unknown_size && !how.truncate,
        })
    }

    /// Opens `name`, which is created with the permission bits `mode` if it does not exist.
    ///
    /// # Errors
    /// `Exists` if it does and `exclusive` is wanted.
    pub fn create(
        &self,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        how: OpenHow,
        exclusive: bool,
    ) -> Result<(Entry, Opened)> {
        self.writable()?;
        let (name, path) = self.child(parent, name)?;
        match self.attr_of_child(parent, &name, &path) {
            Ok((attr, valid)) => {
                match attr.kind {
                    _ if exclusive => return Err(ErrorKind::Exists.into()),
                    FileKind::Directory => return Err(ErrorKind::IsADirectory.into()),
                    // The kernel took the name for a new one; told so, it looks again and follows.
                    FileKind::Symlink => return Err(ErrorKind::Stale.into()),
                    FileKind::File => {}
                }
                let entry = self.entry(parent, &name, &attr, valid)?;
                match self.open(entry.stat.ino, how) {
                    Ok(opened) => return Ok((entry, opened)),
                    Err(err) => {
                        self.forget(entry.stat.ino, 1);
                        if err.kind() != ErrorKind::NotFound {
                            return Err(err);
                        }
                    }
                }
            }
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
        self.create_new(parent, &name, mode, how)
    }

    fn create_new(
        &self,
        parent: Ino,
        name: &Name,
        mode: u32,
        how: OpenHow,
    ) -> Result<(Entry, Opened)> {
        let how = OpenHow {
            create: Some(mode & 0o7777),
            truncate: false,
            ..how
        };
        // Someone else removed what is still open under this name: that is another file.
        let gone = self.inodes.with(|inodes| inodes.find(parent, name));
        let gone = gone.filter(|ino| self.open_files.get(*ino).is_some());
        let ino = self.inodes.with(|inodes| {
            if gone.is_some() {
                inodes.orphan(parent, name, None);
            }
            inodes.bind_pinned(parent, name, FileKind::File)
        });
        let ino = ino.ok_or_else(|| Error::from(ErrorKind::Stale))?;
        let created = self.enter(ino, how).and_then(|shared| {
            self.inodes.with(|inodes| inodes.set_version(ino, None));
            let attr = shared.file.attr();
            let opened = Opened {
                fh: self.handle(ino, how, shared.file),
                keep_cache: false,
                direct_io: false,
            };
            let entry = self.entry(parent, name, &attr, self.view.validity)?;
            Ok((entry, opened))
        });
        self.inodes.with(|inodes| inodes.unpin(ino));
        created
    }

    /// Reads from `offset`; fewer bytes than `buf` has only at the end.
    ///
    /// # Errors
    /// `BadHandle` if it was not opened for that; `Stale` if the file changed on the server.
    pub fn read(&self, fh: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let handle = self.handles.get(fh)?;
        if !handle.read {
            return Err(ErrorKind::BadHandle.into());
        }
        self.at_its_place(handle.ino, |at| handle.file.read_at(at, offset, buf))
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `BadHandle` if it was not opened for that; the error of an upload under way.
    pub fn write(&self, fh: u64, offset: u64, data: &[u8]) -> Result<usize> {
        let handle = self.handles.get(fh)?;
        if !handle.write {
            return Err(ErrorKind::BadHandle.into());
        }
        let at = self.io_path(handle.ino)?;
        handle.file.write_at(&at, offset, data)?;
        Ok(data.len())
    }

    /// A descriptor of `fh` is closed: what was written is on the server when this returns `Ok`.
    ///
    /// # Errors
    /// The server's. The content stays here and another `flush` tries again.
    pub fn flush(&self, fh: u64) -> Result<()> {
        let handle = self.handles.get(fh)?;
        // A reader's close is no reason to upload what another has half written.
        if !handle.write {
            return Ok(());
        }
        self.commit(handle.ino, &*handle.file)
    }

    /// Whether `flush` of `fh` has nothing to do. Never blocks.
    pub fn is_clean(&self, fh: u64) -> bool {
        let handle = self.handles.get(fh);
        handle.map_or(true, |handle| !handle.write || !handle.file.is_dirty())
    }

    /// Everything written to the file, by whomever, is on the server when this returns `Ok`.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn fsync(&self, fh: u64) -> Result<()> {
        let handle = self.handles.get(fh)?;
        self.commit(handle.ino, &*handle.file)
    }

    /// The last descriptor of `fh` is closed.
    ///
    /// # Errors
    /// What could not be stored and is lost to the program; nobody listens but the log.
    pub fn release(&self, fh: u64) -> Result<()> {
        let handle = self.handles.remove(fh)?;
        self.leave(handle.ino)
    }

    /// Files with content that the server has not.
    pub fn dirty(&self) -> Vec<Dirty> {
        let open = self.open_files.all();
        let dirty = open.iter().filter_map(|(ino, _)| {
            let attr = self.being_written(*ino)?;
            let path = self.path(*ino).ok()?;
            let bytes = attr.size.unwrap_or_default();
            Some(Dirty { path, bytes })
        });
        let mut dirty: Vec<Dirty> = dirty.collect();
        dirty.sort_by(|a, b| a.path.cmp(&b.path));
        dirty
    }

    /// Brings everything written so far to the server.
    ///
    /// # Errors
    /// What could not be stored, and why.
    pub fn commit_all(&self) -> std::result::Result<(), Vec<(RemotePath, Error)>> {
        let mut failed = Vec::new();
        for (ino, file) in self.open_files.all() {
            let Ok(path) = self.path(ino) else { continue };
            if let Err(err) = self.commit(ino, &*file) {
                failed.push((path, err));
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(failed)
        }
    }

    /// The file and inode of a handle that may write.
    pub(super) fn written_by(&self, fh: u64) -> Result<(Ino, Arc<dyn OpenFile>)> {
        let handle = self.handles.get(fh)?;
        if !handle.write {
            return Err(ErrorKind::BadHandle.into());
        }
        Ok((handle.ino, Arc::clone(&handle.file)))
    }

    fn handle(&self, ino: Ino, how: OpenHow, file: Arc<dyn OpenFile>) -> u64 {
        self.handles.insert(FileHandle {
            ino,
            read: how.read,
            write: how.write,
            file,
        })
    }

    /// Opens `ino`, or shares it with those who have it open, until [`leave`](Self::leave).
    fn enter(&self, ino: Ino, how: OpenHow) -> Result<Shared> {
        let gates = self.hold(ino);
        let opened = {
            let _opening = gates.opening.lock().unwrap_or_else(PoisonError::into_inner);
            self.at_its_place(ino, |_| self.open_shared(ino, how))
        };
        if opened.is_err() {
            self.leave_quietly(ino);
        }
        opened
    }

    /// The caller has `opening`.
    fn open_shared(&self, ino: Ino, how: OpenHow) -> Result<Shared> {
        let at = self.path(ino)?;
        let open = self.open_files.get(ino).map(|(file, _)| file);
        let being_written = open.as_ref().is_some_and(|file| file.is_dirty());
        let known = if being_written || how.create.is_some() {
            None
        } else {
            let (attr, _) = self.attr(&at)?;
            self.check_kind(ino, &attr)?;
            Some(attr)
        };
        let file = match open {
            Some(file) => {
                let how = OpenHow {
                    create: None,
                    ..how
                };
                file.reopen(&at, known.as_ref(), how)?;
                file
            }
            None => {
                let file = self.backend.open(&at, known.as_ref(), how)?;
                self.open_files.opened(ino, &file);
                file
            }
        };
        Ok(Shared { file, known })
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
            log::error!("closing inode {ino}: {err}");
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
        let file = self.enter(ino, how)?.file;
        let set_len = || match size {
            0 => Ok(()),
            _ => file.set_len(&self.io_path(ino)?, size),
        };
        let result = set_len().and_then(|()| self.commit(ino, &*file));
        let closed = self.leave(ino);
        result.and(closed)
    }

    fn commit(&self, ino: Ino, file: &dyn OpenFile) -> Result<()> {
        let Some(gates) = self.open_files.gates(ino) else {
            return Ok(());
        };
        let _named = gates.naming.read().unwrap_or_else(PoisonError::into_inner);
        self.commit_named(ino, file)
    }

    /// The caller has `naming`.
    pub(super) fn commit_named(&self, ino: Ino, file: &dyn OpenFile) -> Result<()> {
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
        let result = file.commit(&at);
        if dirty {
            self.note_version(ino, file, &result);
        }
        result
    }

    /// What the kernel's pages are of, after an attempt to store them.
    fn note_version(&self, ino: Ino, file: &dyn OpenFile, stored: &Result<()>) {
        let attr = file.attr();
        let version = stored.as_ref().ok().and_then(|()| Version::of(&attr));
        self.inodes.with(|inodes| inodes.set_version(ino, version));
    }

    /// Whether the kernel's pages of `ino` are those of the version now opened.
    fn pages_are_good(&self, ino: Ino, known: Option<&Attr>, how: OpenHow) -> bool {
        self.inodes.with(|inodes| {
            let before = inodes.version(ino);
            // What is being written here went through the kernel's pages.
            let Some(attr) = known.filter(|_| !how.truncate) else {
                let keep = before.is_some();
                if how.truncate {
                    inodes.set_version(ino, None);
                }
                return keep;
            };
            let keep = before
                .zip(Version::of(attr))
                .is_some_and(|(before, now)| before.is(&now));
            if !keep {
                inodes.set_version(ino, Version::settled(attr, SystemTime::now()));
            }
            keep
        })
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
    fn at_its_place<T>(
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
