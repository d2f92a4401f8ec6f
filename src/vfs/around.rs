//! Files that are read around the kernel's pages.
//!
//! Of a content that comes faster than a network brings it, the kernel's pages are what takes the
//! time: each is looked for, filled, and copied to the reader. A large read around them
//! (`FOPEN_DIRECT_IO`) costs half as much as one through them; a small one costs much more, since
//! each asks us. An open is of one kind or the other, and nobody knows then what reads will come:
//! that guess is the caller's.
//!
//! So it is for whom the pages are of no use: a file larger than those that are read again and again,
//! not all here, which has no pages yet, and which nobody else has open who might share them. Mapped,
//! and sent by `sendfile(2)`, it goes through the pages all the same.

use std::sync::atomic::Ordering;

use super::backend::{OpenHow, Origin};
use super::files::has_pages;
use super::lending::only_reads;
use super::sharing::Shared;
use super::{Ino, Vfs};

/// Smaller files are left in the kernel's pages: they are soon read, and may be again.
const LEAST: u64 = 64 << 20;

/// Guesses whether the reads of who opens a file are worth it, which comes from there. `None` of
/// those who do not: no.
pub type Around<'a> = Option<&'a dyn Fn(Origin) -> bool>;

impl Vfs {
    /// Whether what was just opened as `shared` is read around the kernel's pages. Those there are
    /// of no version then.
    pub(super) fn goes_around(
        &self,
        ino: Ino,
        how: OpenHow,
        shared: &Shared,
        around: Around<'_>,
    ) -> bool {
        let known = shared
            .known
            .as_ref()
            .filter(|attr| attr.size >= Some(LEAST));
        let may = self.direct_io.load(Ordering::Relaxed)
            && only_reads(how)
            && known.is_some_and(|attr| !self.inodes.with(|inodes| has_pages(inodes, ino, attr)))
            && shared.loan.is_none()
            && self.open_files.is_alone(ino);
        let goes = may && around.is_some_and(|guess| guess(shared.file.origin()));
        if goes {
            self.inodes.with(|inodes| inodes.set_version(ino, None));
        }
        goes
    }
}
