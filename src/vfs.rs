//! The filesystem: what each operation means, in inodes and handles, without FUSE and without a
//! network.
//!
//! [`Vfs`] turns inode numbers into paths, shares one [`OpenFile`](backend::OpenFile) among all
//! handles of an inode, and shows what is being written here before the server has it. Everything
//! else it asks its [`Backend`]. What ends in `_cached` answers from memory or not at all, and
//! never waits.

mod around;
pub mod attr;
pub mod backend;
pub mod blocks;
pub mod cache;
pub mod checksum;
pub mod chunk;
pub mod content;
mod directories;
pub mod error;
mod files;
mod handles;
mod inodes;
mod journal;
mod kept;
mod lending;
mod mapped;
mod moving;
mod names;
mod open_files;
pub mod path;
pub mod patient;
pub(crate) mod sealed;
mod seen;
mod setattr;
mod sharing;
mod staging;
mod writeback;

pub(crate) use staging::{SPARE, clear_spares};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use self::attr::{Attr, FileKind, Space};
use self::backend::{Backend, Listener};
use self::directories::OpenDirectory;
use self::error::{Error, ErrorKind, Result};
use self::files::FileHandle;
use self::handles::Handles;
use self::inodes::{Inodes, Place};
use self::kept::Kept;
use self::mapped::Mapped;
use self::moving::Moving;
use self::open_files::{Fate, OpenFiles};
use self::path::{Name, RemotePath};
use self::writeback::Writeback;
use crate::sync::Locked;

pub use self::around::Around;
pub use self::directories::{DirItem, DirItemPlus};
pub use self::files::{Dirty, Opened};
pub use self::inodes::{Ino, ROOT};
pub use self::journal::Saved;
pub use self::kept::Keep;
pub use self::lending::{Lend, Loan};
pub use self::names::RenameHow;
pub use self::setattr::{Change, NewTime};
pub use self::writeback::{Policy, Progress};

/// Size of the blocks that [`Stat::blocks`] counts.
const BLOCK: u64 = 512;

/// How the server's tree is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Owner of everything: a server's users mean nothing here.
    pub uid: u32,
    /// Group of everything.
    pub gid: u32,
    /// Permission bits taken away from everything.
    pub umask: Option<u32>,
    /// Permission bits of files of which the server tells none.
    pub file_mode: u32,
    /// Permission bits of directories of which the server tells none.
    pub dir_mode: u32,
    /// Every change is refused before the server hears of it.
    pub read_only: bool,
    /// The longest that the kernel may rely on an answer.
    pub validity: Duration,
}

/// Attributes as `stat(2)` wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Inode number.
    pub ino: Ino,
    /// File, directory or link.
    pub kind: FileKind,
    /// Bytes; 0 where the server does not tell.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Last modification, UTC; the epoch where the server does not tell.
    pub mtime: SystemTime,
    /// Permission bits, `0o7777`.
    pub perm: u16,
    /// 0 for what was removed while open, else the names known here, which is 1 but for what
    /// link(2) made; 1 for directories too: a count below 2 tells `find` that it says nothing about
    /// subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A name that exists. One lookup of it was counted, which the kernel gives back by `forget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its attributes.
    pub stat: Stat,
    /// Always 0, since inode numbers are never used again.
    pub generation: u64,
    /// How long name and attributes may be relied on.
    pub valid: Duration,
}

/// How much is known and open, for tests and `ferryfs status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Inodes, the root included.
    pub inodes: usize,
    /// File handles.
    pub file_handles: usize,
    /// Directory handles.
    pub directory_handles: usize,
    /// Files that are open, however many handles each has.
    pub open_files: usize,
}

/// A mounted tree.
pub struct Vfs {
    backend: Arc<dyn Backend>,
    view: View,
    inodes: Locked<Inodes>,
    open_files: OpenFiles,
    handles: Handles<FileHandle>,
    directories: Handles<OpenDirectory>,
    kept: Kept,
    /// Files may go around the kernel's pages.
    direct_io: AtomicBool,
    writeback: OnceLock<Writeback>,
    mapped: OnceLock<Arc<Mapped>>,
    moving: Moving,
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vfs")
            .field("view", &self.view)
            .field("census", &self.census())
            .finish_non_exhaustive()
    }
}

impl Vfs {
    /// Shows `backend` as `view` says.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, view: View) -> Self {
        Self {
            backend,
            view,
            inodes: Locked::new(Inodes::new()),
            open_files: OpenFiles::new(),
            handles: Handles::new(),
            directories: Handles::new(),
            kept: Kept::default(),
            direct_io: AtomicBool::new(false),
            writeback: OnceLock::new(),
            mapped: OnceLock::new(),
            moving: Moving::default(),
        }
    }

    /// Whether the kernel can map files into memory that go around its pages (Linux 6.6, FUSE
    /// 7.39), so that from now on [`Opened::direct_io`] may be said of any file.
    pub fn allow_direct_io(&self, allowed: bool) {
        self.direct_io.store(allowed, Ordering::Relaxed);
    }

    /// How much is known and open.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            inodes: self.inodes.with(|inodes| inodes.len()),
            file_handles: self.handles.len(),
            directory_handles: self.directories.len(),
            open_files: self.open_files.len(),
        }
    }

    /// Looks up `name` in `parent`, and counts it.
    ///
    /// # Errors
    /// `NotFound` if there is no such name; `Invalid` if there cannot be.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Entry> {
        let (name, path) = self.child(parent, name)?;
        let at = (parent, name);
        self.moving.settle(&at);
        let (attr, valid) = self.attr_of_child(parent, &at.1, &path)?;
        self.entry(parent, &at.1, &attr, valid)
    }

    /// As [`lookup`](Self::lookup) from memory; `None`: only the server can tell.
    pub fn lookup_cached(&self, parent: Ino, name: &OsStr) -> Option<Result<Entry>> {
        let (name, path) = match self.child(parent, name) {
            Ok(child) => child,
            Err(err) => return Some(Err(err)),
        };
        let at = (parent, name);
        if self.moving.has(&at) {
            return None;
        }
        let known = self.known_attr_of_child(parent, &at.1, &path)?;
        Some(known.and_then(|(attr, valid)| self.entry(parent, &at.1, &attr, valid)))
    }

    /// The kernel gives back `lookups` of `ino`.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.inodes.with(|inodes| inodes.forget(ino, lookups));
    }

    /// Attributes of `ino`, and how long they may be relied on.
    ///
    /// # Errors
    /// `NotFound` if someone else removed it; `Stale` if something else has its name now.
    pub fn getattr(&self, ino: Ino) -> Result<(Stat, Duration)> {
        let path = match self.attr_here(ino) {
            Ok(answer) => return answer,
            Err(path) => path,
        };
        let answer = self.attr(&path);
        self.stat_of_kind(ino, answer)
    }

    /// As [`getattr`](Self::getattr) from memory; `None`: only the server can tell.
    pub fn getattr_cached(&self, ino: Ino) -> Option<Result<(Stat, Duration)>> {
        match self.attr_here(ino) {
            Ok(answer) => Some(answer),
            Err(path) => {
                let answer = self.known_attr(&path)?;
                Some(self.stat_of_kind(ino, answer))
            }
        }
    }

    /// The inode of `path`, if the kernel may know it.
    #[must_use]
    pub fn known_ino(&self, path: &RemotePath) -> Option<Ino> {
        self.inodes.with(|inodes| {
            path.components()
                .try_fold(ROOT, |dir, name| inodes.find(dir, &Name::new(name).ok()?))
        })
    }

    /// Whom to tell of changes that nobody asked for through this mount.
    pub fn tell(&self, listener: Arc<dyn Listener>) {
        self.backend.tell(listener);
    }

    /// Space on the server, where it tells.
    ///
    /// # Errors
    /// The server's.
    pub fn statfs(&self) -> Result<Option<Space>> {
        self.backend.space()
    }

    /// Names of the extended attributes of `ino`.
    ///
    /// # Errors
    /// The server's.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<String>> {
        let attrs = match self.place(ino)? {
            Place::At(path) => self.backend.xattrs(&path)?,
            Place::Orphan => Vec::new(),
        };
        Ok(attrs.into_iter().map(|(name, _)| name).collect())
    }

    /// Value of one extended attribute of `ino`.
    ///
    /// # Errors
    /// `NoData` if there is none of that name; `Unsupported`, without asking anybody, of names
    /// outside `user.`, which the kernel and `ls` try.
    pub fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        match name.to_str() {
            Some(name) if name.starts_with("user.") => self.backend.xattr(&self.path(ino)?, name),
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Refuses a change of a read-only mount.
    fn writable(&self) -> Result<()> {
        if self.view.read_only {
            return Err(ErrorKind::ReadOnly.into());
        }
        Ok(())
    }

    fn place(&self, ino: Ino) -> Result<Place> {
        let place = self.inodes.with(|inodes| inodes.place(ino));
        place.ok_or_else(|| Error::new(ErrorKind::Stale, format!("inode {ino} is not known")))
    }

    /// The path of `ino`.
    ///
    /// # Errors
    /// `Stale` if it is an orphan: the kernel then looks the name up again.
    fn path(&self, ino: Ino) -> Result<RemotePath> {
        match self.place(ino)? {
            Place::At(path) => Ok(path),
            Place::Orphan => Err(Error::new(
                ErrorKind::Stale,
                format!("inode {ino} has no name any more"),
            )),
        }
    }

    /// Name and path of what may be in `parent`.
    ///
    /// # Errors
    /// `NotFound` in a directory that was removed.
    fn child(&self, parent: Ino, name: &OsStr) -> Result<(Name, RemotePath)> {
        let name = Name::new(name.as_bytes())?;
        match self.place(parent)? {
            Place::At(dir) => {
                let path = dir.join(&name);
                Ok((name, path))
            }
            Place::Orphan => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Attributes the backend has of `path`, and for how long they may be relied on.
    fn attr(&self, path: &RemotePath) -> Result<(Attr, Duration)> {
        if let Some(known) = self.known_attr(path) {
            return known;
        }
        let attr = self.backend.stat(path)?;
        let left = self.backend.known(path).map(|(_, left)| left);
        Ok((attr, left.unwrap_or_default().min(self.view.validity)))
    }

    fn known_attr(&self, path: &RemotePath) -> Option<Result<(Attr, Duration)>> {
        let (attr, left) = self.backend.known(path)?;
        Some(attr.map(|attr| (attr, left.min(self.view.validity))))
    }

    fn attr_of_child(
        &self,
        parent: Ino,
        name: &Name,
        path: &RemotePath,
    ) -> Result<(Attr, Duration)> {
        match self.child_being_written(parent, name) {
            Some(attr) => Ok((attr, self.view.validity)),
            None => self.attr(path),
        }
    }

    fn known_attr_of_child(
        &self,
        parent: Ino,
        name: &Name,
        path: &RemotePath,
    ) -> Option<Result<(Attr, Duration)>> {
        match self.child_being_written(parent, name) {
            Some(attr) => Some(Ok((attr, self.view.validity))),
            None => self.known_attr(path),
        }
    }

    fn child_being_written(&self, parent: Ino, name: &Name) -> Option<Attr> {
        let ino = self.inodes.with(|inodes| inodes.find(parent, name))?;
        self.being_written(ino)
    }

    /// Attributes of `ino` if there is content of it that the server has not: then what the server
    /// says of it, even that it is not there, is out of date.
    fn being_written(&self, ino: Ino) -> Option<Attr> {
        let (file, fate) = self.open_files.get(ino)?;
        (fate == Fate::Named && file.is_dirty()).then(|| file.attr())
    }

    /// Attributes of `ino` if it is open and its name is about to be another file's.
    fn detached_attr(&self, ino: Ino) -> Option<Attr> {
        let (file, fate) = self.open_files.get(ino)?;
        (fate != Fate::Named).then(|| file.attr())
    }

    /// Attributes of `ino` as only this mount knows them, or the path to ask the backend for.
    fn attr_here(&self, ino: Ino) -> std::result::Result<Result<(Stat, Duration)>, RemotePath> {
        let path = match self.place(ino) {
            Ok(Place::At(path)) => path,
            Ok(Place::Orphan) => return Ok(self.stat_of_orphan(ino)),
            Err(err) => return Ok(Err(err)),
        };
        let here = self.being_written(ino);
        let here = here.or_else(|| self.frozen_attr(ino));
        match here.or_else(|| self.detached_attr(ino)) {
            Some(attr) => Ok(Ok((self.stat(ino, &attr), self.view.validity))),
            None => Err(path),
        }
    }

    fn stat_of_orphan(&self, ino: Ino) -> Result<(Stat, Duration)> {
        let attr = match self.open_files.get(ino) {
            Some((file, _)) => file.attr(),
            None => self.inodes.with(|inodes| {
                let kind = inodes.kind(ino).unwrap_or(FileKind::File);
                inodes.last(ino).unwrap_or_else(|| Attr::new(kind))
            }),
        };
        let mut stat = self.stat(ino, &attr);
        stat.nlink = 0;
        Ok((stat, self.view.validity))
    }

    fn stat_of_kind(&self, ino: Ino, answer: Result<(Attr, Duration)>) -> Result<(Stat, Duration)> {
        let (attr, valid) = answer?;
        self.check_kind(ino, &attr)?;
        Ok((self.stat(ino, &attr), valid))
    }

    /// Whether `attr` can be that of `ino`: the kernel never believes that a file has become a
    /// directory.
    fn check_kind(&self, ino: Ino, attr: &Attr) -> Result<()> {
        let kind = self.inodes.with(|inodes| inodes.kind(ino));
        if kind.is_some_and(|kind| kind != attr.kind) {
            let detail = format!("inode {ino} was replaced on the server");
            return Err(Error::new(ErrorKind::Stale, detail));
        }
        Ok(())
    }

    /// Counts a lookup of `name`, which exists.
    fn entry(&self, parent: Ino, name: &Name, attr: &Attr, valid: Duration) -> Result<Entry> {
        let ino = self.inodes.with(|inodes| {
            inodes.renew(parent, name, attr);
            inodes.look_up(parent, name, attr.kind)
        });
        let ino = ino.ok_or_else(|| Error::from(ErrorKind::Stale))?;
        Ok(Entry {
            stat: self.stat(ino, attr),
            generation: 0,
            valid,
        })
    }

    fn stat(&self, ino: Ino, attr: &Attr) -> Stat {
        let size = match (attr.size, &attr.target) {
            (Some(size), _) => size,
            (None, Some(target)) => target.len() as u64,
            (None, None) => 0,
        };
        let mode = attr.mode.unwrap_or(match attr.kind {
            FileKind::File => self.view.file_mode,
            FileKind::Directory => self.view.dir_mode,
            FileKind::Symlink => 0o777,
        });
        let perm = mode & 0o7777 & !self.view.umask.unwrap_or(0);
        Stat {
            ino,
            kind: attr.kind,
            size,
            blocks: size.div_ceil(BLOCK),
            mtime: attr.mtime.unwrap_or(SystemTime::UNIX_EPOCH),
            perm: u16::try_from(perm).unwrap_or_default(),
            nlink: self.inodes.with(|inodes| links(inodes.names(ino))),
            uid: self.view.uid,
            gid: self.view.gid,
        }
    }
}

/// What is not in the table of inodes has the name it was found by.
fn links(names: usize) -> u32 {
    u32::try_from(names).unwrap_or(u32::MAX).max(1)
}
