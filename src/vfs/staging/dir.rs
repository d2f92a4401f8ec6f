//! The directory of staged files, and `lost+found` beside it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind as IoErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::io::Errno;

use super::passing::{Passing, Room};
use super::spare::{SPARE, Spares};
use super::thaw::copy_range;
use crate::vfs::error::{Error, Result};
use crate::vfs::path::RemotePath;

/// Names the file's place on the server, so that what a killed mount left can be told apart. Best
/// effort: not every filesystem has extended attributes.
const PLACE: &str = "user.ferryfs.path";

/// That the server has all of the file: [`ALL`], until it is changed; or, where the kernel reads it
/// by itself and programs change it without us, when it was last changed then.
const STORED: &str = "user.ferryfs.stored";

const ALL: &[u8] = b"all";

/// Staged files up to this length are used again.
const SPARED: u64 = 1 << 20;

/// What is kept of a name in `lost+found`, in bytes: with a number and `.reason` behind it, it must
/// not be longer than names can be.
const KEPT_NAME: usize = 200;

/// Where staged files live: a directory of the mount's own.
#[derive(Debug)]
pub(crate) struct StagingDir {
    dir: PathBuf,
    next: AtomicU64,
    room: Arc<Room>,
    spares: Arc<Spares>,
}

impl StagingDir {
    /// Makes `dir` if need be, for this user alone.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        make_private(dir)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            next: AtomicU64::new(1),
            room: Arc::default(),
            spares: Arc::new(Spares::new(dir.with_file_name(SPARE))),
        })
    }

    /// Files that are used again.
    pub(crate) const fn spares(&self) -> &Arc<Spares> {
        &self.spares
    }

    /// What a mount that was killed had neither brought to the server nor entered in the journal
    /// goes to `lost+found`; the directory is ours alone, so nobody is writing it. Those that
    /// `is_claimed` knows by their name stay.
    pub(crate) fn rescue(&self, is_claimed: impl Fn(&Path) -> bool) -> Result<()> {
        let failed = |err: &io::Error| Error::local(self.dir.display(), err);
        for entry in fs::read_dir(&self.dir).map_err(|err| failed(&err))? {
            let path = entry.map_err(|err| failed(&err))?.path();
            if is_claimed(&path) {
                continue;
            }
            let named = Named::open(&path, self)?;
            let empty = named.file.metadata().map_err(|err| failed(&err))?.len() == 0;
            if empty || named.is_untouched() {
                named.release();
                continue;
            }
            let place = place_of(&named.file);
            let name = place.as_ref().and_then(|place| place.file_name());
            let name = name.map_or_else(|| PathBuf::from("unsent"), PathBuf::from);
            let what = place.map_or_else(|| "a file".to_owned(), |p| format!("/{}", p.display()));
            let why = "ferryfs ended before the program that wrote it had closed it";
            let kept = self.keep(&named, &name, &what, why)?;
            log::warn!(
                "{what}: not on the server: {why}; kept as {}",
                kept.display()
            );
        }
        Ok(())
    }

    /// An empty staged file for what is to be at `place`.
    pub(super) fn new_file(&self, place: &RemotePath) -> Result<Named> {
        loop {
            let path = self.dir.join(format!("staged-{}", self.number()));
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            let spare = self.spares.take(&path);
            match spare.map_or_else(|| options.open(&path), Ok) {
                Ok(file) => {
                    let flags = rustix::fs::XattrFlags::empty();
                    let set = rustix::fs::fsetxattr(&file, PLACE, place.as_bytes(), flags);
                    if set.is_err() {
                        let _ = rustix::fs::fremovexattr(&file, PLACE);
                    }
                    return Ok(Named::new(file, path, self));
                }
                // Left by a mount that was killed.
                Err(err) if err.kind() == IoErrorKind::AlreadyExists => {}
                Err(err) => return Err(Error::local(path.display(), &err)),
            }
        }
    }

    /// A path that no staged file has.
    pub(crate) fn free_path(&self) -> PathBuf {
        loop {
            let path = self.dir.join(format!("staged-{}", self.number()));
            if fs::symlink_metadata(&path).is_err() {
                return path;
            }
        }
    }

    /// Takes over a `file` that the kernel reads by itself, at `path` or without a name, with all of
    /// the content of `place`.
    pub(super) fn adopt(&self, file: File, path: PathBuf, place: &RemotePath) -> Named {
        let flags = rustix::fs::XattrFlags::empty();
        let _ = rustix::fs::fsetxattr(&file, PLACE, place.as_bytes(), flags);
        let mut named = Named::new(file, path, self);
        named.lent = true;
        named.is_stored();
        named
    }

    /// The staged file of that name.
    pub(crate) fn find(&self, name: &str) -> Result<Named> {
        Named::open(&self.dir.join(name), self)
    }

    /// Moves a staged file out of the way of its deletion, to `../lost+found/NAME-<n>`, with
    /// `NAME-<n>.reason` beside it: `what` it was, and `why` it is there.
    pub(crate) fn keep(
        &self,
        named: &Named,
        name: &Path,
        what: &str,
        why: &str,
    ) -> Result<PathBuf> {
        // Whatever happens next: the bytes are not deleted.
        named.hold();
        let dir = self.dir.parent().unwrap_or(&self.dir).join("lost+found");
        make_private(&dir)?;
        loop {
            let name = name.as_os_str().as_bytes();
            let short = name.get(..KEPT_NAME).unwrap_or(name);
            let mut kept = OsStr::from_bytes(short).to_os_string();
            kept.push(format!("-{}", self.number()));
            let kept = dir.join(kept);
            if fs::symlink_metadata(&kept).is_ok() {
                continue;
            }
            let moved = fs::rename(&named.path, &kept);
            let moved = match moved {
                Err(_) if named.lent => copy_to(&named.file, &kept),
                other => other,
            };
            moved.map_err(|err| Error::local(kept.display(), &err))?;
            let mut reason = kept.clone().into_os_string();
            reason.push(".reason");
            let when = humantime::format_rfc3339_seconds(SystemTime::now());
            let text = format!("path: {what}\nwhen: {when}\nwhy:  {why}\n");
            if let Err(err) = fs::write(&reason, text) {
                log::warn!("{}: {err}", reason.display());
            }
            return Ok(kept);
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

pub(super) fn make_private(dir: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(dir);
    made.map_err(|err| Error::local(dir.display(), &err))
}

fn copy_to(file: &File, path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let to = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    copy_range(file, &to, &(0..file.metadata()?.len()))?;
    to.set_len(file.metadata()?.len())
}

fn changed(file: &File) -> Option<String> {
    let found = file.metadata().ok()?;
    Some(format!("{}.{:09}", found.mtime(), found.mtime_nsec()))
}

fn place_of(file: &File) -> Option<PathBuf> {
    let mut place = vec![0; 4096];
    let len = rustix::fs::fgetxattr(file, PLACE, place.as_mut_slice()).ok()?;
    place.truncate(len);
    Some(PathBuf::from(std::ffi::OsString::from_vec(place)))
}

/// A file in the staging directory, which leaves it with this unless held. It has a name all the time so
/// that it survives a crash.
#[derive(Debug)]
pub(crate) struct Named {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    passing: Arc<Passing>,
    /// How many want it to stay.
    held: AtomicU32,
    /// The kernel reads it by itself, perhaps longer than we do, and programs may write to it.
    lent: bool,
    /// It may have the attribute [`STORED`].
    marked: AtomicBool,
    spares: Arc<Spares>,
}

impl Named {
    fn new(file: File, path: PathBuf, dir: &StagingDir) -> Self {
        let file = Arc::new(file);
        let passing = Passing::new(&file, path.clone(), &dir.room);
        Self {
            file,
            path,
            passing: Arc::new(passing),
            held: AtomicU32::new(0),
            lent: false,
            marked: AtomicBool::new(false),
            spares: Arc::clone(&dir.spares),
        }
    }

    /// Empties the file to be used again, if it is worth it and nobody else has it.
    fn empty(&self) -> bool {
        // One is that of `passing`.
        let ours = Arc::strong_count(&self.passing) == 1 && Arc::strong_count(&self.file) == 2;
        let small = |file: &File| file.metadata().is_ok_and(|found| found.len() <= SPARED);
        ours && small(&self.file) && self.unmark() && self.file.set_len(0).is_ok()
    }

    fn leave(&self) -> io::Result<()> {
        if self.lent {
            return match fs::remove_file(&self.path) {
                Err(err) if err.kind() == IoErrorKind::NotFound => Ok(()),
                other => other,
            };
        }
        if !self.empty() {
            return fs::remove_file(&self.path);
        }
        if let Some(spare) = self.spares.put(&self.path)? {
            self.spares.keep(spare);
        }
        Ok(())
    }

    /// One that is there already; held.
    fn open(path: &Path, dir: &StagingDir) -> Result<Self> {
        let opened = File::options().read(true).write(true).open(path);
        let file = opened.map_err(|err| Error::local(path.display(), &err))?;
        let named = Self::new(file, path.to_path_buf(), dir);
        named.marked.store(true, Ordering::Relaxed);
        named.hold();
        Ok(named)
    }

    /// It stays when this goes.
    pub(crate) fn hold(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back one [`hold`](Self::hold): without any it goes with this.
    pub(crate) fn release(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// Its name in the directory.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        String::from_utf8_lossy(name.as_bytes()).into_owned()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What of it is not in the file yet.
    pub(crate) const fn passing(&self) -> &Arc<Passing> {
        &self.passing
    }

    /// Whether the kernel reads it by itself.
    pub(crate) const fn is_lent(&self) -> bool {
        self.lent
    }

    /// The server has what is in it: a mount that is killed from now on leaves nothing that is worth
    /// keeping, unless it is changed.
    pub(crate) fn is_stored(&self) {
        let flags = rustix::fs::XattrFlags::empty();
        let when = match self.lent {
            true => changed(&self.file).map(String::into_bytes),
            false => Some(ALL.to_vec()),
        };
        if let Some(when) = when {
            self.marked.store(true, Ordering::Relaxed);
            let _ = rustix::fs::fsetxattr(&self.file, STORED, &when, flags);
        }
    }

    /// It is about to be changed. Whether no file shows that the server has it.
    pub(super) fn unmark(&self) -> bool {
        if self.lent || !self.marked.swap(false, Ordering::Relaxed) {
            return true;
        }
        match rustix::fs::fremovexattr(&self.file, STORED) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => true,
            Err(_) => {
                self.marked.store(true, Ordering::Relaxed);
                false
            }
        }
    }

    /// Whether it was not changed since that was said.
    fn is_untouched(&self) -> bool {
        let mut when = [0; 64];
        let len = rustix::fs::fgetxattr(&self.file, STORED, when.as_mut_slice());
        let Some(stored) = len.ok().and_then(|len| when.get(..len)) else {
            return false;
        };
        stored == ALL || changed(&self.file).is_some_and(|now| now.as_bytes() == stored)
    }

    /// The file itself.
    pub(crate) const fn file(&self) -> &Arc<File> {
        &self.file
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if self.held.load(Ordering::Relaxed) == 0
            && let Err(err) = self.leave()
        {
            log::warn!("{}: {err}", self.path.display());
        }
    }
}
