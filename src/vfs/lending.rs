//! Files that the kernel reads by itself (FUSE passthrough, Linux 6.9).
//!
//! A file all of which is on the local disk can be lent to the kernel: it then reads that file, with
//! nobody asking us, until the last of those who opened it has closed it. As long as that lasts the
//! inode is *frozen*: it is this one version, whatever becomes of the file, and the kernel takes no
//! other way of opening it. So when there is another version, or somebody wants to write, the name
//! gets another inode, as if the file had been replaced by rename(2); the old one stays with its
//! readers. Who opens the old one is told `Stale`: the kernel looks the name up again.
//!
//! A file is lent if nobody has it open yet. All of this is decided with the inode's `opening` held.

use std::any::Any;
use std::fs::File;
use std::sync::{Arc, PoisonError};

use super::attr::Attr;
use super::backend::{OpenFile, OpenHow};
use super::error::{Error, ErrorKind, Result};
use super::inodes::Version;
use super::path::Name;
use super::{Ino, Vfs};

/// What the kernel keeps a lent file by.
pub type Loan = Arc<dyn Any + Send + Sync>;

/// Lends a file to the kernel, which may not take it. `None` for who must read himself.
pub type Lend<'a> = Option<&'a dyn Fn(&File) -> Option<Loan>>;

/// Smaller files are not worth it: their pages come with the first read.
const LEAST: u64 = 1 << 20;

impl Vfs {
    /// Whether `ino`, as the server has it, may be opened in the way `how`.
    ///
    /// # Errors
    /// `Stale` if it is lent, and this is for another inode.
    pub(super) fn admit(
        &self,
        ino: Ino,
        (how, known): (OpenHow, Option<&Attr>),
        lend: Lend<'_>,
    ) -> Result<()> {
        let same = |version: &Version| known.is_some_and(|attr| version.describes(attr));
        let frozen = |version: &Version| !(lend.is_some() && only_reads(how) && same(version));
        let refused = self.inodes.with(|inodes| {
            let refused = inodes.frozen(ino).is_some_and(frozen);
            if refused {
                inodes.part(ino);
            }
            refused
        });
        if refused {
            let detail = format!("inode {ino} is an old version, which is still being read");
            return Err(Error::new(ErrorKind::Stale, detail));
        }
        Ok(())
    }

    /// The loan of `ino` for one handle more: the one there is, or a new one if that can be.
    pub(super) fn borrow(
        &self,
        ino: Ino,
        (how, known): (OpenHow, Option<&Attr>),
        file: &dyn OpenFile,
        lend: Lend<'_>,
    ) -> Option<Loan> {
        if let Some(loan) = self.open_files.share_loan(ino) {
            return Some(loan);
        }
        let known = known.filter(|_| only_reads(how) && self.open_files.is_alone(ino))?;
        let version = Version::of(known).filter(|_| known.size >= Some(LEAST))?;
        let loan = lend?(&file.whole()?)?;
        self.open_files.lend(ino, &loan);
        self.inodes.with(|inodes| inodes.freeze(ino, Some(version)));
        Some(loan)
    }

    /// A handle that had the loan of `ino` is closed.
    pub(super) fn give_back(&self, ino: Ino) {
        let Some(gates) = self.open_files.gates(ino) else {
            return;
        };
        let _opening = gates.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.open_files.end_loan(ino) {
            self.inodes.with(|inodes| inodes.freeze(ino, None));
        }
    }

    /// `name` is about to go, or to be another file: a lent one keeps its content without that.
    pub(super) fn leave_to_readers(&self, parent: Ino, name: &Name) {
        self.inodes.with(|inodes| {
            let lent = |ino: &Ino| inodes.frozen(*ino).is_some();
            if let Some(ino) = inodes.find(parent, name).filter(lent) {
                inodes.part(ino);
            }
        });
    }

    /// Attributes of `ino` if it is frozen.
    pub(super) fn frozen_attr(&self, ino: Ino) -> Option<Attr> {
        let frozen = self.inodes.with(|inodes| inodes.frozen(ino).is_some());
        let (file, _) = frozen.then(|| self.open_files.get(ino))??;
        Some(file.attr())
    }
}

const fn only_reads(how: OpenHow) -> bool {
    how.read && !how.write && !how.truncate && how.create.is_none()
}
