//! Files that are used again.
//!
//! Each file that is stored takes a staged file, and with writeback a record in the journal: both
//! gone in a moment. A new inode for each costs more than the rest of it, and on ext4 without a
//! journal, which gives out none that went in the last half minute, many times more. So some files
//! that are done with stay, in a directory beside those, and get another name when one is needed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::dir::make_private;
use crate::sync::Locked;

/// The directory, beside that of the staged files.
pub(crate) const SPARE: &str = "spare";

/// Files that are kept.
const MOST: usize = 64;

/// The spare files of a mount. They go with this.
#[derive(Debug)]
pub(crate) struct Spares {
    dir: PathBuf,
    next: AtomicU64,
    kept: Locked<Vec<PathBuf>>,
}

/// A file that has left its place, and may be used again.
#[derive(Debug)]
pub(crate) struct Spare(PathBuf);

impl Spares {
    /// Those in `dir`, where a mount that was killed may have left some.
    pub(super) fn new(dir: PathBuf) -> Self {
        clear(&dir);
        Self {
            dir,
            next: AtomicU64::new(1),
            kept: Locked::default(),
        }
    }

    /// An empty file, for reading and writing, that was a spare one and is `path` now. `None`: there
    /// is none, or something else is there.
    pub(crate) fn take(&self, path: &Path) -> Option<File> {
        let spare = self.kept.with(Vec::pop)?;
        let opened = File::options()
            .read(true)
            .write(true)
            .truncate(true)
            .open(&spare);
        let named = opened.and_then(|file| {
            renameat_with(CWD, &spare, CWD, path, RenameFlags::NOREPLACE)?;
            Ok(file)
        });
        if named.is_err() {
            let _ = fs::remove_file(&spare);
        }
        named.ok()
    }

    /// Takes the file at `path` away from there. `None`: it was removed.
    ///
    /// # Errors
    /// Neither could be done.
    pub(crate) fn put(&self, path: &Path) -> io::Result<Option<Spare>> {
        if self.kept.with(|kept| kept.len() < MOST) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let spare = self.dir.join(number.to_string());
            let mut moved = fs::rename(path, &spare);
            if moved.is_err() && number == 1 && make_private(&self.dir).is_ok() {
                moved = fs::rename(path, &spare);
            }
            if moved.is_ok() {
                return Ok(Some(Spare(spare)));
            }
        }
        fs::remove_file(path).map(|()| None)
    }

    /// `spare` may be used again.
    pub(crate) fn keep(&self, spare: Spare) {
        self.kept.with(|kept| kept.push(spare.0));
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        clear(&self.dir);
    }
}

/// Removes the spare files in `dir`, and it.
pub(crate) fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
    let _ = fs::remove_dir(dir);
}
