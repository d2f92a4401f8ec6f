//! Files on disk: attributes, listings, and an open one.

use std::fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outbox::Outbox;
use super::tree::in_outbox;
use crate::mail::draft::Draft;
use crate::vfs::attr::{Attr, DirEntry, FileKind, SetAttr};
use crate::vfs::backend::{OpenFile, OpenHow};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::{Name, RemotePath};

/// The error of a call about `path`, in filesystem words where there are any.
pub(super) fn failed(path: &Path, err: &io::Error) -> Error {
    let kind = match err.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::Exists,
        io::ErrorKind::NotADirectory => ErrorKind::NotADirectory,
        io::ErrorKind::IsADirectory => ErrorKind::IsADirectory,
        io::ErrorKind::DirectoryNotEmpty => ErrorKind::NotEmpty,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull => ErrorKind::NoSpace,
        _ => return Error::local(path.display(), err),
    };
    Error::new(kind, format!("{}: {err}", path.display()))
}

/// Attributes of the file or directory at `path`.
pub(super) fn stat(path: &Path) -> Result<Attr> {
    let about = fs::symlink_metadata(path).map_err(|err| failed(path, &err))?;
    Ok(attr_of(&about))
}

fn attr_of(about: &Metadata) -> Attr {
    let kind = if about.is_dir() {
        FileKind::Directory
    } else {
        FileKind::File
    };
    let mut attr = Attr::new(kind);
    attr.size = (kind == FileKind::File).then_some(about.len());
    attr.mtime = about.modified().ok();
    attr.mtime_exact = true;
    attr.mode = Some(about.mode() & 0o7777);
    attr.unique = Some(Box::new(about.ino().to_be_bytes()));
    attr
}

/// What the directory at `path` has.
pub(super) fn list(path: &Path) -> Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(|err| failed(path, &err))? {
        let entry = entry.map_err(|err| failed(path, &err))?;
        // It may be gone already, and links are not ours.
        let Ok(about) = entry.metadata() else {
            continue;
        };
        if !about.is_file() && !about.is_dir() {
            continue;
        }
        if let Ok(name) = Name::new(entry.file_name().as_bytes()) {
            entries.push(DirEntry {
                name,
                attr: attr_of(&about),
            });
        }
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Sets what `change` names of the file or directory at `path`.
pub(super) fn set_attr(path: &Path, change: &SetAttr) -> Result<()> {
    let file = File::open(path).map_err(|err| failed(path, &err))?;
    change_file(&file, change).map_err(|err| failed(path, &err))
}

fn change_file(file: &File, change: &SetAttr) -> io::Result<()> {
    if let Some(mtime) = change.mtime {
        file.set_times(FileTimes::new().set_modified(mtime))?;
    }
    // We must be able to read what others may not.
    if let Some(mode) = change.mode {
        file.set_permissions(Permissions::from_mode(mode | 0o600))?;
    }
    Ok(())
}

/// What is known of a file's content beyond its bytes; shared with a rename of it.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Somebody wrote, and the file was not judged since.
    pub(super) unjudged: AtomicBool,
    /// Somebody wrote, and it is not on disk.
    unsynced: AtomicBool,
}

/// An open file.
pub(super) struct LocalFile {
    file: File,
    written: Arc<Written>,
    /// It is a message once it is closed.
    sends: AtomicBool,
    /// It has no name any more: what becomes of messages under that name is not its affair.
    detached: AtomicBool,
    inode: u64,
    outbox: Arc<Outbox>,
    /// A write that failed: what the file has is not what was meant, until it is emptied.
    lacking: Mutex<Option<Error>>,
    /// What the writes so far make of a file in the outbox.
    draft: Mutex<Option<Draft>>,
}

impl LocalFile {
    /// Opens or creates the file at `real`, which the mount shows at `at`.
    pub(super) fn open(
        real: &Path,
        at: &RemotePath,
        how: OpenHow,
        outbox: &Arc<Outbox>,
    ) -> Result<Arc<dyn OpenFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if let Some(mode) = how.create {
            options.create_new(true).mode(mode | 0o600);
        }
        let file = options.open(real).map_err(|err| failed(real, &err))?;
        let about = file.metadata().map_err(|err| failed(real, &err))?;
        let opened = Self {
            file,
            written: Arc::default(),
            sends: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            inode: about.ino(),
            outbox: Arc::clone(outbox),
            lacking: Mutex::new(None),
            draft: Mutex::new(None),
        };
        outbox.opened(opened.inode, &opened.written);
        if how.create.is_some() {
            opened.written.unjudged.store(true, Ordering::Release);
        }
        opened.reopen(at, None, how)?;
        Ok(Arc::new(opened))
    }

    fn failed(err: &io::Error) -> Error {
        failed(Path::new("mail store"), err)
    }

    fn changed(&self) {
        self.written.unjudged.store(true, Ordering::Release);
        self.written.unsynced.store(true, Ordering::Release);
    }

    /// The part of [`write_at`](OpenFile::write_at) that looks before it is done.
    fn judge(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<()> {
        let Some(place) = self.place(at).filter(Outbox::commits) else {
            self.sends.store(false, Ordering::Release);
            return Ok(());
        };
        self.sends.store(true, Ordering::Release);
        self.outbox.withdraw(&place)?;
        self.must_be_there(&place)?;
        self.outbox
            .has_room(offset.saturating_add(data.len() as u64))?;
        self.with_draft(|draft| {
            let mut resumed = match draft.take() {
                Some(draft) => draft,
                None => self.outbox.resume(&place, &self.file)?,
            };
            let judged = self.outbox.judge(&mut resumed, offset, data);
            *draft = Some(resumed);
            judged
        })
    }

    /// Where it is in the outbox, if it is there under a name.
    fn place(&self, at: &RemotePath) -> Option<RemotePath> {
        in_outbox(at).filter(|_| !self.detached.load(Ordering::Acquire))
    }

    /// A file whose message was sent goes, open or not; what is written to it then would be lost.
    /// Who opens it by its name is told by this error to look again.
    fn must_be_there(&self, place: &RemotePath) -> Result<()> {
        let about = self.file.metadata().map_err(|err| Self::failed(&err))?;
        if about.nlink() == 0 {
            let line = format!("outbox{place}: was sent meanwhile");
            return Err(Error::new(ErrorKind::Stale, line));
        }
        Ok(())
    }

    fn lacking(&self) -> MutexGuard<'_, Option<Error>> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_draft<R>(&self, work: impl FnOnce(&mut Option<Draft>) -> Result<R>) -> Result<R> {
        work(&mut self.draft.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl OpenFile for LocalFile {
    fn attr(&self) -> Attr {
        self.file
            .metadata()
            .map_or_else(|_| Attr::new(FileKind::File), |about| attr_of(&about))
    }

    fn reopen(&self, at: &RemotePath, _: Option<&Attr>, how: OpenHow) -> Result<()> {
        if how.truncate {
            return self.set_len(at, 0);
        }
        // Who opens it for writing has second thoughts, however long he takes to write; if he only
        // touches it, its message is made again when he closes it.
        if let Some(place) = self.place(at).filter(|_| how.write)
            && self.outbox.reconsider(&place)
        {
            self.written.unjudged.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn read_at(&self, _: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(Self::failed(&err)),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<()> {
        let written = self.judge(at, offset, data).and_then(|()| {
            self.changed();
            let written = self.file.write_all_at(data, offset);
            written.map_err(|err| Self::failed(&err))
        });
        written.inspect_err(|err| {
            self.lacking().get_or_insert_with(|| err.clone());
        })
    }

    fn set_len(&self, at: &RemotePath, len: u64) -> Result<()> {
        if let Some(place) = self.place(at) {
            if len == 0 {
                self.outbox.make_way(&place)?;
            } else {
                self.outbox.withdraw(&place)?;
            }
            self.must_be_there(&place)?;
        }
        self.changed();
        self.file.set_len(len).map_err(|err| Self::failed(&err))?;
        if len == 0 {
            *self.lacking() = None;
        }
        self.with_draft(|draft| {
            if let Some(draft) = draft {
                draft.truncate(len);
            }
            Ok(())
        })
    }

    fn set_attr(&self, _: &RemotePath, change: &SetAttr) -> Result<()> {
        change_file(&self.file, change).map_err(|err| Self::failed(&err))
    }

    fn commit(&self, _: &RemotePath) -> Result<()> {
        if self.written.unsynced.swap(false, Ordering::AcqRel) {
            self.file.sync_data().map_err(|err| {
                self.written.unsynced.store(true, Ordering::Release);
                Self::failed(&err)
            })?;
        }
        Ok(())
    }

    /// What is made of a file in the outbox at its last close is durable then, and so there is
    /// nothing to do at the others; fsync(2) is done whatever this says.
    fn is_dirty(&self) -> bool {
        !self.sends.load(Ordering::Acquire) && self.written.unsynced.load(Ordering::Acquire)
    }

    fn detach(&self, at: &RemotePath) -> Result<bool> {
        // What takes the place of a file that was moved in is another message.
        if let Some(place) = in_outbox(at).filter(|place| !self.outbox.was_moved_in(place)) {
            self.outbox.withdraw(&place)?;
        }
        self.detached.store(true, Ordering::Release);
        self.written.unsynced.store(false, Ordering::Release);
        Ok(true)
    }

    fn close(&self, at: Option<&RemotePath>) -> Result<()> {
        self.outbox.closed(self.inode);
        let unjudged = self.written.unjudged.swap(false, Ordering::AcqRel);
        self.written.unsynced.store(false, Ordering::Release);
        let Some(place) = at.and_then(in_outbox).filter(Outbox::commits) else {
            return Ok(());
        };
        if !unjudged {
            return Ok(());
        }
        let refused = |draft: &Draft| draft.refused().cloned();
        let refused = self.with_draft(|draft| Ok(draft.as_ref().and_then(refused)))?;
        let refused = refused.or_else(|| self.lacking().clone());
        self.outbox.written(&place, refused.as_ref())
    }
}
