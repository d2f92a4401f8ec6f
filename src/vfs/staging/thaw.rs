//! Changing what the journal has: its file stays as it was recorded, and a copy is changed.
//!
//! A small copy is made at once. One that takes long is made in pieces, between which the staged
//! state belongs to others: they may read, and nothing else is changed until the copy has taken its
//! place.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use super::{Named, Staged};
use crate::vfs::content::extents::Extents;
use crate::vfs::error::{Error, Result};

/// The most bytes that are copied at once.
const MUCH: u64 = 1 << 20;

/// A copy that is being made. It goes with this unless it takes the file's place.
#[derive(Debug)]
pub(crate) struct Thaw {
    from: Arc<Named>,
    fresh: Named,
    copied: Extents,
}

impl Thaw {
    /// Copies `ranges`, which nobody changes meanwhile.
    ///
    /// # Errors
    /// Those of the local disk.
    pub(crate) fn copy(&mut self, ranges: &[Range<u64>]) -> Result<()> {
        let (from, to) = (&*self.from.file, &*self.fresh.file);
        // Where the filesystem can share blocks, all is done in a moment.
        if self.copied.count() == 0 && ioctl_ficlone(to, from).is_ok() {
            ranges.iter().for_each(|r| self.copied.insert(r.clone()));
            return Ok(());
        }
        for range in ranges {
            copy_range(from, to, range)
                .map_err(|err| Error::local(self.fresh.path().display(), &err))?;
            self.copied.insert(range.clone());
        }
        Ok(())
    }
}

impl Staged {
    /// Whether a change from `offset` on needs a copy of what is kept below `wanted`, and that takes
    /// long.
    pub(crate) fn is_stiff(&self, offset: u64, wanted: u64) -> bool {
        self.thawing || self.is_frozen_at(offset) && bytes_below(&self.local, wanted) > MUCH
    }

    /// Begins the copy for a change from `offset` on; `None`: none is needed. Nothing is changed
    /// until it has ended.
    ///
    /// # Errors
    /// Those of the local disk.
    pub(crate) fn begin_thaw(&mut self, offset: u64) -> Result<Option<Thaw>> {
        if !self.is_frozen_at(offset) {
            return Ok(None);
        }
        let thaw = self.new_thaw()?;
        self.thawing = true;
        Ok(Some(thaw))
    }

    /// What is still to be copied; nothing once `thaw` is as good as done.
    pub(crate) fn left_of(&self, thaw: &Thaw) -> Vec<Range<u64>> {
        let left = self.missing_in(thaw, u64::MAX);
        let bytes: u64 = left.iter().map(|range| range.end - range.start).sum();
        let goes_on = self.is_of(thaw) && bytes > MUCH;
        if goes_on { left } else { Vec::new() }
    }

    /// The copy takes the file's place, unless that was replaced, or is not in the journal any more.
    /// Whether it did.
    ///
    /// # Errors
    /// Those of the local disk: the file stays as it was.
    pub(crate) fn end_thaw(&mut self, thaw: Thaw) -> Result<bool> {
        if !self.is_of(&thaw) {
            return Ok(false);
        }
        self.thawing = false;
        if self.frozen.is_none() {
            return Ok(false);
        }
        self.replace_by(thaw, u64::MAX).map(|()| true)
    }

    /// The copy cannot be made.
    pub(crate) fn give_up_thaw(&mut self, thaw: &Thaw) {
        self.thawing &= !self.is_of(thaw);
    }

    /// Before a change from `offset` on: what the journal has is left alone, and what is kept of it
    /// below `wanted` is copied.
    pub(super) fn thaw(&mut self, offset: u64, wanted: u64) -> Result<()> {
        if !self.is_frozen_at(offset) {
            return Ok(());
        }
        let thaw = self.new_thaw()?;
        self.replace_by(thaw, wanted)
    }

    fn is_frozen_at(&self, offset: u64) -> bool {
        self.frozen.is_some_and(|end| offset < end)
    }

    fn is_of(&self, thaw: &Thaw) -> bool {
        Arc::ptr_eq(&self.named, &thaw.from)
    }

    fn new_thaw(&self) -> Result<Thaw> {
        Ok(Thaw {
            from: Arc::clone(&self.named),
            fresh: self.dir.new_file(&self.place)?,
            copied: Extents::default(),
        })
    }

    fn replace_by(&mut self, mut thaw: Thaw, wanted: u64) -> Result<()> {
        thaw.copy(&self.missing_in(&thaw, wanted))?;
        let resized = thaw.fresh.file.set_len(self.len);
        resized.map_err(|err| Error::local(thaw.fresh.path().display(), &err))?;
        self.named = Arc::new(thaw.fresh);
        self.frozen = None;
        self.thawing = false;
        Ok(())
    }

    fn missing_in(&self, thaw: &Thaw, wanted: u64) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        for range in self.local.ranges() {
            let (mut at, end) = (range.start, range.end.min(wanted));
            while at < end
                && let Some(gap) = thaw.copied.first_gap(at..end)
            {
                at = gap.end;
                missing.push(gap);
            }
        }
        missing
    }
}

fn bytes_below(local: &Extents, wanted: u64) -> u64 {
    let below = |range: Range<u64>| range.end.min(wanted).saturating_sub(range.start);
    local.ranges().map(below).sum()
}

/// Copies what is there of `range`; holes stay holes.
pub(super) fn copy_range(from: &File, to: &File, range: &Range<u64>) -> std::io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start.max(at),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => return Ok(()),
            Err(_) => at,
        };
        if start >= range.end {
            return Ok(());
        }
        let hole = seek(from, SeekFrom::Hole(start)).ok();
        let end = hole.filter(|hole| *hole > start).unwrap_or(range.end);
        let end = end.min(range.end);
        copy_data(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

fn copy_data(from: &File, to: &File, mut at: u64, end: u64) -> std::io::Result<()> {
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX);
        let (mut read, mut written) = (at, at);
        let most = most.min(64 << 20);
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), most) {
            Ok(count) if count > 0 => at += count as u64,
            // Not on this filesystem: as everybody can.
            Ok(_) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let most = most.min(usize::try_from(MUCH).unwrap_or(most));
                let mut part = vec![0; most];
                from.read_exact_at(&mut part, at)?;
                to.write_all_at(&part, at)?;
                at += most as u64;
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}
