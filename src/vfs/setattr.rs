//! Changes of attributes: truncate, chmod, utimens, chown.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::attr::{FileKind, SetAttr, whole_seconds};
use super::error::{Error, ErrorKind, Result};
use super::inodes::Place;
use super::open_files::Fate;
use super::{Ino, Stat, Vfs};

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewTime {
    /// That of the call.
    Now,
    /// This one, UTC.
    At(SystemTime),
}

/// What `setattr` is asked for. Access times are no part of it: no server has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// New modification time.
    pub mtime: Option<NewTime>,
    /// The handle through which it is asked (`ftruncate`).
    pub fh: Option<u64>,
}

impl Vfs {
    /// Makes `change`, and returns what the attributes are then.
    ///
    /// # Errors
    /// `NotPermitted` for another owner or group; `Unsupported` where the server cannot.
    pub fn setattr(&self, ino: Ino, change: &Change) -> Result<(Stat, Duration)> {
        self.writable()?;
        let view = &self.view;
        let other = |asked: Option<u32>, shown: u32| asked.is_some_and(|id| id != shown);
        if other(change.uid, view.uid) || other(change.gid, view.gid) {
            let detail = "a server's files belong to whoever mounted it";
            return Err(Error::new(ErrorKind::NotPermitted, detail));
        }
        if let Some(size) = change.size {
            self.set_size(ino, size, change.fh)?;
        }
        let mtime = match change.mtime {
            // A new size brings its own time.
            Some(NewTime::Now) if change.size.is_some() => None,
            Some(NewTime::Now) => Some(SystemTime::now()),
            Some(NewTime::At(time)) => Some(time),
            None => None,
        };
        let set = SetAttr {
            mtime: mtime.map(whole_seconds),
            mode: change.mode.map(|mode| mode & 0o7777),
        };
        if set != SetAttr::default() {
            self.set_times_or_mode(ino, &set)?;
        }
        self.getattr(ino)
    }

    fn set_size(&self, ino: Ino, size: u64, fh: Option<u64>) -> Result<()> {
        match self.inodes.with(|inodes| inodes.kind(ino)) {
            Some(FileKind::Directory) => return Err(ErrorKind::IsADirectory.into()),
            Some(FileKind::Symlink) => return Err(ErrorKind::Invalid.into()),
            Some(FileKind::File) | None => {}
        }
        let Some(fh) = fh else {
            return self.truncate(ino, size);
        };
        let (ino, file) = self.written_by(fh)?;
        file.set_len(&self.io_path(ino)?, size)
    }

    fn set_times_or_mode(&self, ino: Ino, set: &SetAttr) -> Result<()> {
        let Place::At(path) = self.place(ino)? else {
            return Ok(());
        };
        if self.inodes.with(|inodes| inodes.kind(ino)) == Some(FileKind::Symlink) {
            // MFMT and SITE CHMOD follow links: the change would be made to the target. A link has
            // no bits of its own, and that its time is not kept need not fail `cp -a`.
            return match set.mode {
                Some(_) => Err(ErrorKind::Unsupported.into()),
                None => Ok(()),
            };
        }
        let Some(file) = self.join(ino) else {
            return self.backend.set_attr(&path, set);
        };
        let result = match self.open_files.gates(ino) {
            Some(gates) => {
                let _named = gates.naming.read().unwrap_or_else(PoisonError::into_inner);
                match (self.place(ino)?, self.open_files.get(ino)) {
                    (Place::At(at), Some((_, Fate::Named))) => {
                        let changed = file.set_attr(&at, set);
                        self.refreeze(ino, &*file);
                        changed
                    }
                    _ => Ok(()),
                }
            }
            None => Ok(()),
        };
        let closed = self.leave(ino);
        result.and(closed)
    }
}
