//! Files: open, create, read, write, and what close and fsync promise.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use super::around::Around;
use super::attr::{Attr, FileKind};
use super::backend::{OpenFile, OpenHow};
use super::chunk::Chunk;
use super::error::{Error, ErrorKind, Result};
use super::inodes::{Inodes, Place, Version};
use super::lending::{Lend, Loan};
use super::path::{Name, RemotePath};
use super::{Entry, Ino, Vfs};

/// What `open` tells the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub fh: u64,
    /// The kernel's pages are of this version of the file.
    pub keep_cache: bool,
    /// Not through the kernel's pages: the size is not known, so that only a read can find the
    /// end, somebody writes a whole new content, of which the pages would be copies in vain, or it
    /// is read around them.
    pub direct_io: bool,
    /// It is read around them.
    pub around: bool,
}

/// A file with content that the server has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirty {
    /// Where it is.
    pub path: RemotePath,
    /// Its size here.
    pub bytes: u64,
    /// Why the last attempt to bring it there failed.
    pub error: Option<String>,
}

/// One open file description.
pub(super) struct FileHandle {
    ino: Ino,
    read: bool,
    write: bool,
    /// It writes around the kernel's pages.
    direct: bool,
    /// The kernel reads by itself what it is of.
    lent: bool,
    /// Something came by it that no close of it has acknowledged.
    unclosed: AtomicBool,
    file: Arc<dyn OpenFile>,
}

impl Vfs {
    /// Opens `ino`.
    ///
    /// # Errors
    /// `NotFound` or `Stale` if it is not there any more; what the backend says.
    pub fn open(&self, ino: Ino, how: OpenHow) -> Result<Opened> {
        self.open_lending(ino, how, None, None)
            .map(|(opened, _)| opened)
    }

    /// As [`open`](Self::open). A file that the kernel can read by itself is lent to it by `lend`,
    /// once for all that have it open at the same time; another may be read `around` its pages.
    ///
    /// # Errors
    /// As [`open`](Self::open); `Stale` also if the inode is lent and this is for another.
    pub fn open_lending(
        &self,
        ino: Ino,
        how: OpenHow,
        lend: Lend<'_>,
        around: Around<'_>,
    ) -> Result<(Opened, Option<Loan>)> {
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
        self.failure_of_ino(ino)?;
        let shared = self.enter(ino, how, lend)?;
        let around = self.goes_around(ino, how, &shared, around);
        let keep_cache = !around && self.pages_are_good(ino, shared.known.as_ref(), how);
        let unknown_size = shared.known.is_some_and(|attr| attr.size.is_none());
        let lent = shared.loan.is_some();
        let (fh, direct) = self.handle(ino, how, shared.file, lent);
        let opened = Opened {
            fh,
            keep_cache,
            direct_io: around || direct || unknown_size && !how.truncate || lent && how.write,
            around,
        };
        Ok((opened, shared.loan))
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
        self.failure_of(&path)?;
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
        let created = self.enter(ino, how, None).and_then(|shared| {
            self.inodes.with(|inodes| inodes.set_version(ino, None));
            let attr = shared.file.attr();
            let (fh, direct) = self.handle(ino, how, shared.file, false);
            let opened = Opened {
                fh,
                keep_cache: false,
                direct_io: direct,
                around: false,
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

    /// As [`read`](Self::read), at most `len` bytes, without a copy where they are in memory.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_chunk(&self, fh: u64, offset: u64, len: usize) -> Result<Chunk> {
        let handle = self.handles.get(fh)?;
        if !handle.read {
            return Err(ErrorKind::BadHandle.into());
        }
        let read = self.at_its_place(handle.ino, |at| handle.file.read_chunk(at, offset, len));
        if matches!(&read, Err(err) if err.kind() == ErrorKind::Corrupt) {
            // The kernel has pages of it.
            self.inodes
                .with(|inodes| inodes.set_version(handle.ino, None));
        }
        read
    }

    /// As [`read_chunk`](Self::read_chunk) from memory; `None`: only the server or the disk has it.
    pub fn read_cached(&self, fh: u64, offset: u64, len: usize) -> Option<Chunk> {
        let handle = self.handles.get(fh).ok()?;
        if handle.read {
            handle.file.peek(offset, len)
        } else {
            None
        }
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `BadHandle` if it was not opened for that; the error of an upload under way.
    pub fn write(&self, fh: u64, offset: u64, data: &[u8]) -> Result<usize> {
        let write = |file: &dyn OpenFile, at: &RemotePath| {
            let written = file.write_at(at, offset, data);
            written.map(|()| true)
        };
        self.write_by(fh, data, write).map(|_| data.len())
    }

    /// As [`write`](Self::write), for who must not wait long; `None`: that would take long.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_now(&self, fh: u64, offset: u64, data: &[u8]) -> Result<Option<usize>> {
        let write = |file: &dyn OpenFile, at: &RemotePath| file.write_now(at, offset, data);
        let written = self.write_by(fh, data, write)?;
        Ok(written.then_some(data.len()))
    }

    fn write_by(
        &self,
        fh: u64,
        data: &[u8],
        write: impl FnOnce(&dyn OpenFile, &RemotePath) -> Result<bool>,
    ) -> Result<bool> {
        let handle = self.handles.get(fh)?;
        if !handle.write {
            return Err(ErrorKind::BadHandle.into());
        }
        if data.is_empty() {
            return Ok(true);
        }
        let at = self.io_path(handle.ino)?;
        self.failure_of(&at)?;
        handle.unclosed.store(true, Ordering::Relaxed);
        write(&*handle.file, &at)
    }

    /// A descriptor of `fh` is closed: what was written is on the server when this returns `Ok`, or
    /// with writeback in the journal.
    ///
    /// # Errors
    /// The server's. The content stays here and another `flush` tries again.
    pub fn flush(&self, fh: u64) -> Result<()> {
        let handle = self.handles.get(fh)?;
        // A reader's close is no reason to upload what another has half written.
        if !handle.write {
            return Ok(());
        }
        handle.file.look();
        self.failure_of_ino(handle.ino)?;
        let unclosed = handle.unclosed.swap(false, Ordering::Relaxed);
        let stored = self.store(handle.ino, &*handle.file);
        if stored.is_err() {
            handle.unclosed.fetch_or(unclosed, Ordering::Relaxed);
        }
        stored
    }

    /// Whether `flush` of `fh` has nothing to do, and so is done. Never blocks.
    pub fn flush_clean(&self, fh: u64) -> bool {
        let Ok(handle) = self.handles.get(fh) else {
            return true;
        };
        let clean = !handle.write || !handle.file.is_dirty() && !handle.file.may_be_mapped();
        if clean {
            handle.unclosed.store(false, Ordering::Relaxed);
        }
        clean
    }

    /// Whether the file of `fh` is dirty and empty: opened to be written, and nothing came yet.
    /// Never blocks.
    pub fn is_unwritten(&self, fh: u64) -> bool {
        let handle = self.handles.get(fh);
        handle.is_ok_and(|h| h.file.attr().size == Some(0) && h.file.is_dirty())
    }

    /// Where the file of `fh` is. Never blocks.
    pub fn path_of(&self, fh: u64) -> Option<RemotePath> {
        let handle = self.handles.get(fh).ok()?;
        match self.place(handle.ino) {
            Ok(Place::At(path)) => Some(path),
            _ => None,
        }
    }

    /// Everything written to the file, by whomever, is on the server when this returns `Ok`.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn fsync(&self, fh: u64) -> Result<()> {
        let handle = self.handles.get(fh)?;
        self.failure_of_ino(handle.ino)?;
        self.commit(handle.ino, &*handle.file)
    }

    /// The last descriptor of `fh` is closed.
    ///
    /// # Errors
    /// What could not be stored and is lost to the program; nobody listens but the log.
    pub fn release(&self, fh: u64) -> Result<()> {
        let handle = self.handles.remove(fh)?;
        if handle.direct {
            self.open_files.end_direct(handle.ino);
        }
        if handle.lent {
            self.give_back(handle.ino, handle.write);
        }
        if handle.write && handle.file.may_be_mapped() && self.follow_mapping(handle.ino) {
            return Ok(());
        }
        // A mapping was written to after the close, or a shell's redirection stayed empty. The kernel
        // may say so late: whoever opened the file since is to acknowledge for himself.
        let unclosed = handle.unclosed.load(Ordering::Relaxed) || handle.write && handle.lent;
        if unclosed && handle.file.is_dirty() {
            self.acknowledge(handle.ino, &*handle.file);
        }
        self.leave(handle.ino)
    }

    /// Takes an `open` or `create` back of which nobody was told: what it cut or made is forgotten,
    /// unless somebody else has the file open.
    pub fn take_back(&self, fh: u64) {
        let Ok(handle) = self.handles.remove(fh) else {
            return;
        };
        if handle.direct {
            self.open_files.end_direct(handle.ino);
        }
        if handle.lent {
            self.give_back(handle.ino, handle.write);
        }
        if let Some(gates) = self.open_files.gates(handle.ino) {
            let _opening = gates.opening.lock().unwrap_or_else(PoisonError::into_inner);
            if self.open_files.is_alone(handle.ino) {
                handle.file.discard();
            }
        }
        self.leave_quietly(handle.ino);
    }

    /// Hands what was written through `fh`, around the kernel's pages, to `store`, which puts it
    /// there: who reads the file next need not ask the server. Not if it is longer than `most`
    /// bytes, or not stored, or open elsewhere.
    pub fn share_written(&self, fh: u64, most: usize, store: impl FnOnce(Ino, &[u8])) {
        let handle = self.handles.get(fh).ok().filter(|handle| handle.direct);
        let Some(FileHandle { ino, file, .. }) = handle.as_deref() else {
            return;
        };
        let Some(gates) = self.open_files.gates(*ino) else {
            return;
        };
        // Nobody else opens it before the pages are there.
        let _opening = gates.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let len = file.attr().size.and_then(|size| usize::try_from(size).ok());
        let Some(len) = len.filter(|len| (1..=most).contains(len)) else {
            return;
        };
        if file.is_dirty() || !self.open_files.is_alone(*ino) {
            return;
        }
        let mut data = vec![0; len];
        let read = self
            .io_path(*ino)
            .and_then(|at| file.read_at(&at, 0, &mut data));
        if read.is_ok_and(|read| read == len) {
            store(*ino, &data);
        }
    }

    /// Files with content that the server has not.
    pub fn dirty(&self) -> Vec<Dirty> {
        let open = self.open_files.all();
        let dirty = open.iter().filter_map(|(ino, _)| {
            let attr = self.being_written(*ino)?;
            let path = self.path(*ino).ok()?;
            let bytes = attr.size.unwrap_or_default();
            let error = self.delay_of(*ino);
            Some(Dirty { path, bytes, error })
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
        let open = self.open_files.all();
        open.iter().for_each(|(_, file)| file.look());
        let dirty = open.into_iter();
        let dirty = dirty.filter(|(_, file)| file.is_dirty());
        let failed = self.commit_many(dirty.map(|(ino, _)| ino).collect(), |ino| {
            match self.open_files.get(ino) {
                Some((file, _)) => self.commit(ino, &*file),
                None => Ok(()),
            }
        });
        // What has no name any more is not on the server either; the error says so.
        let named = |(ino, err)| (self.path(ino).unwrap_or_else(|_| RemotePath::root()), err);
        let failed: Vec<_> = failed.into_iter().map(named).collect();
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

    /// The number of a new handle, and whether it goes around the kernel's pages.
    fn handle(&self, ino: Ino, how: OpenHow, file: Arc<dyn OpenFile>, lent: bool) -> (u64, bool) {
        let whole = how.write && !how.read && (how.truncate || how.create.is_some());
        let allowed = self.direct_io.load(Ordering::Relaxed);
        let direct = allowed && !lent && self.open_files.go_direct(ino, whole);
        let fh = self.handles.insert(FileHandle {
            ino,
            read: how.read,
            write: how.write,
            direct: direct && whole,
            lent,
            unclosed: AtomicBool::new(how.write && (how.truncate || how.create.is_some())),
            file,
        });
        (fh, direct)
    }

    /// What the kernel's pages are of, after an attempt to store them.
    pub(super) fn note_version(&self, ino: Ino, file: &dyn OpenFile, stored: &Result<()>) {
        let attr = file.attr();
        // What is lent was not written through them.
        let stored = stored.as_ref().ok().filter(|()| !file.shares_whole());
        // A time that the server set itself, and shows to the minute, may be another version's soon.
        let version = stored.and_then(|()| match attr.mtime_exact {
            true => Version::of(&attr),
            false => Version::settled(&attr, SystemTime::now()),
        });
        self.inodes.with(|inodes| inodes.set_version(ino, version));
    }

    /// Whether the kernel's pages of `ino` are those of the version now opened.
    fn pages_are_good(&self, ino: Ino, known: Option<&Attr>, how: OpenHow) -> bool {
        self.inodes.with(|inodes| {
            // What is being written here went through the kernel's pages.
            let Some(attr) = known.filter(|_| !how.truncate) else {
                let keep = inodes.version(ino).is_some();
                if how.truncate {
                    inodes.set_version(ino, None);
                }
                return keep;
            };
            let keep = has_pages(inodes, ino, attr);
            if !keep {
                inodes.set_version(ino, Version::settled(attr, SystemTime::now()));
            }
            keep
        })
    }
}

/// Whether the kernel may have pages of this version of `ino`.
pub(super) fn has_pages(inodes: &Inodes, ino: Ino, attr: &Attr) -> bool {
    let pages = inodes.version(ino).zip(Version::of(attr));
    pages.is_some_and(|(pages, now)| pages.is(&now))
}
