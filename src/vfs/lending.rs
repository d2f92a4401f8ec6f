//! Files that the kernel reads by itself (FUSE passthrough, Linux 6.9).
//!
//! A file all of which is on the local disk can be lent to the kernel: it then reads that file, with
//! nobody asking us, until the last of those who opened it has closed it. As long as that lasts the
//! kernel takes no other way of opening it, and the inode is *frozen*: it is this one version,
//! whatever becomes of the file. When there is another version, the name gets another inode, as if
//! the file had been replaced by rename(2); the old one stays with its readers. Who opens the old
//! one is told `Stale`: the kernel looks the name up again.
//!
//! **Who writes here** changes that very file, which leaves the cache for it
//! ([`share_whole`](OpenFile::share_whole)): so the readers see what is written at once. From then on
//! it is a file like any other that is being written, except that whoever opens it has it lent, too.
//! Reads and writes of a writer come to us as ever; what he writes by a mapping does not
//! (`mapped.rs`). Where the file cannot be changed, the name gets another inode here as well.
//!
//! A file is lent if nobody has it open yet. All of this is decided with the inode's `opening` held.

use std::any::Any;
use std::fs::File;
use std::sync::{Arc, PoisonError};

use super::attr::Attr;
use super::backend::{OpenFile, OpenHow};
use super::error::{Error, ErrorKind, Result};
use super::inodes::Version;
use super::{Ino, Vfs};

/// What the kernel keeps a lent file by.
pub type Loan = Arc<dyn Any + Send + Sync>;

/// Lends a file to the kernel, which may not take it. `None` for who must read himself.
pub type Lend<'a> = Option<&'a dyn Fn(&File) -> Option<Loan>>;

/// Smaller files are not worth it: their pages come with the first read.
const LEAST: u64 = 1 << 20;

impl Vfs {
    /// Whether `ino`, as the server has it, may be opened in the way `how`; `open` if it is open.
    ///
    /// # Errors
    /// `Stale` if it is lent, and this is for another inode.
    pub(super) fn admit(
        &self,
        ino: Ino,
        (how, known): (OpenHow, Option<&Attr>),
        open: Option<&dyn OpenFile>,
        lend: Lend<'_>,
    ) -> Result<()> {
        let Some(file) = open.filter(|file| self.open_files.is_lent(ino) || file.shares_whole())
        else {
            return Ok(());
        };
        if lend.is_none() {
            // A `create` that found it there. The kernel looks again, and opens it.
            let detail = format!("inode {ino} is lent");
            return Err(Error::new(ErrorKind::Stale, detail));
        }
        let same = |version: &Version| known.is_some_and(|attr| version.describes(attr));
        let other = |version: &Version| !same(version);
        let old = self
            .inodes
            .with(|inodes| inodes.frozen(ino).is_some_and(other));
        if !old && (only_reads(how) || self.share_with_writer(ino, how, file)) {
            return Ok(());
        }
        self.inodes.with(|inodes| inodes.part(ino));
        let detail = format!("inode {ino} is an old version, which is still being read");
        Err(Error::new(ErrorKind::Stale, detail))
    }

    /// Whether those who read it see what is written to it from now on.
    fn share_with_writer(&self, ino: Ino, how: OpenHow, file: &dyn OpenFile) -> bool {
        let shared = file.share_whole(how.read && how.write);
        if let Err(err) = &shared {
            log::debug!("inode {ino}: its readers keep the old version: {err}");
            return false;
        }
        self.inodes.with(|inodes| inodes.freeze(ino, None));
        true
    }

    /// Whether somebody who has it lent may write to it: then it is what is here.
    pub(super) fn has_lent_writer(&self, ino: Ino, file: &dyn OpenFile) -> bool {
        file.shares_whole() && self.open_files.has_writer(ino)
    }

    /// It is another version by our own doing.
    pub(super) fn refreeze(&self, ino: Ino, file: &dyn OpenFile) {
        let version = Version::of(&file.attr());
        self.inodes.with(|inodes| {
            if inodes.frozen(ino).is_some() && version.is_some() {
                inodes.freeze(ino, version);
            }
        });
    }

    /// The loan of `ino` for one handle more: the one there is, or a new one if that can be.
    pub(super) fn borrow(
        &self,
        ino: Ino,
        (how, known): (OpenHow, Option<&Attr>),
        file: &dyn OpenFile,
        lend: Lend<'_>,
    ) -> Option<Loan> {
        let lend = lend?;
        if let Some(loan) = self.open_files.share_loan(ino, how.write) {
            return Some(loan);
        }
        if file.shares_whole() {
            let loan = lend(&file.whole()?)?;
            self.open_files.lend(ino, &loan, how.write);
            return Some(loan);
        }
        let known = known.filter(|_| only_reads(how) && self.open_files.is_alone(ino))?;
        let version = Version::of(known).filter(|_| known.size >= Some(LEAST))?;
        let whole = file.whole()?;
        if !self.view.read_only && !shows_mapped_writes(&whole) {
            return None;
        }
        let loan = lend(&whole)?;
        self.open_files.lend(ino, &loan, false);
        self.inodes.with(|inodes| inodes.freeze(ino, Some(version)));
        Some(loan)
    }

    /// A handle that had the loan of `ino`, and perhaps wrote, is closed.
    pub(super) fn give_back(&self, ino: Ino, writes: bool) {
        let Some(gates) = self.open_files.gates(ino) else {
            return;
        };
        let _opening = gates.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.open_files.end_loan(ino, writes) {
            self.inodes.with(|inodes| inodes.freeze(ino, None));
        }
    }

    /// Attributes of `ino` if it is frozen.
    pub(super) fn frozen_attr(&self, ino: Ino) -> Option<Attr> {
        let frozen = self.inodes.with(|inodes| inodes.frozen(ino).is_some());
        let (file, _) = frozen.then(|| self.open_files.get(ino))??;
        Some(file.attr())
    }
}

/// Whether the filesystem of `file` notes the time of what programs write by mappings. tmpfs, for
/// one, does not.
fn shows_mapped_writes(file: &File) -> bool {
    /// ext4 and its elders, XFS, Btrfs, F2FS, bcachefs.
    const KNOWN: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0xca45_1a4e];
    let kind = rustix::fs::fstatfs(file).map(|fs| fs.f_type);
    kind.is_ok_and(|kind| u64::try_from(kind).is_ok_and(|kind| KNOWN.contains(&kind)))
}

pub(super) const fn only_reads(how: OpenHow) -> bool {
    how.read && !how.write && !how.truncate && how.create.is_none()
}
