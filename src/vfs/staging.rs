//! The local copy of a file that is being written.
//!
//! # When does a write become visible?
//!
//! **To every handle of this mount: at once.** All handles of an inode share one
//! [`Content`](super::content::Content), and that has one [`Staged`]. `write_at` puts the bytes into
//! a local file and remembers the range; a read takes local ranges from there, asks the server for
//! the ranges of the old content that were neither written nor cut off, and fills the rest with
//! zeros. The size and the modification time that `attr` tells are those of the staged file and win
//! over any listing.
//!
//! **To everybody else: when `commit` returned, and then as a whole.** An upload may run while the
//! file is still written, but what it sends lies under a temporary name until `publish` gives it
//! its own. The exception is an append, which by its nature grows the file in place: others may see
//! part of the tail before `commit` returned, never a change below it.
//!
//! **A commit publishes what was written before it began.** Writers go on meanwhile; every change
//! counts up the [generation](Snapshot::generation), and a commit that finds another generation
//! than it began with leaves the file dirty. What was appended during a commit is not in it; of
//! what was overwritten during a commit, a part may be, as with `fsync` on any filesystem.
//!
//! **A failed commit changes nothing.** The content stays staged and dirty, and a later commit
//! tries again. If the last handle goes before one succeeded, the staged file is moved to
//! `lost+found` beside the staging directory, never deleted.
//!
//! # What is where
//!
//! A byte below `len` is *local* if its offset is in `local`, otherwise it is below `base_len` and
//! is the server's. There is no third case: growing the file makes a local range of zeros, which
//! costs no disk since the file is sparse. Cutting the file cuts `base_len` too, so old content
//! never reappears when it grows again.
//!
//! `unchanged` is the length of the prefix that is still what the server has. It is what tells an
//! append (all of the old content unchanged, and more behind it) from a change, and it is another
//! thing than being local: after a commit everything is local and unchanged.
//!
//! # What the journal has
//!
//! A record of the journal names the staged file and the ranges that count. From then on what it
//! names is [frozen](Frozen): more may be written behind it, but the first change below its end
//! goes to a copy, so that whenever ferryfs is killed, the file is what it was when it was recorded.

mod dir;
mod passing;
mod shared;
mod spare;
mod thaw;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::attr::SetAttr;
use super::chunk::Pool;
use super::content::extents::Extents;
use super::error::{Error, ErrorKind, Result};
use super::path::RemotePath;
pub(crate) use dir::{Named, StagingDir};
pub(crate) use passing::{Next as NextBytes, Passing};
pub(crate) use shared::Seen;
pub(crate) use spare::{SPARE, Spare, Spares, clear as clear_spares};
pub(crate) use thaw::Thaw;

/// Where the bytes at an offset are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// Here, up to this offset.
    Local(u64),
    /// On the server, up to this offset.
    Remote(u64),
    /// Behind the end of the file.
    End,
}

/// What a commit publishes.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Counts changes; a commit cleans the file only if there was none meanwhile.
    pub(crate) generation: u64,
    /// Size in bytes.
    pub(crate) len: u64,
    /// Length of the prefix that is what the server has.
    pub(crate) unchanged: u64,
    /// What to set with the content.
    pub(crate) attr: SetAttr,
    /// The staged bytes.
    pub(crate) source: Source,
}

/// Staged bytes, to be sent: in the file, or on their way there.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) file: Arc<File>,
    pub(crate) passing: Arc<Passing>,
}

/// What a record of the journal says of a staged file.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    /// The staged file.
    pub(crate) named: Arc<Named>,
    /// Changes counted so far.
    pub(crate) generation: u64,
    /// See [`Staged`].
    pub(crate) len: u64,
    pub(crate) base_len: u64,
    pub(crate) unchanged: u64,
    /// The ranges that are local.
    pub(crate) local: Vec<(u64, u64)>,
    /// What to set with the content.
    pub(crate) attr: SetAttr,
    /// Size and time of an earlier content of ours that the server may have instead of the base.
    pub(crate) sent: Option<(u64, SystemTime)>,
}

/// From this length on a staged file is better off on disk: smaller ones are mostly gone before the
/// kernel writes them there.
pub(crate) const BIG: u64 = 32 << 20;

/// Ranges that are worth recording; a file in more pieces is brought to the server at once.
const MOST_RANGES: usize = 10_000;

/// The staged state of one open file.
#[derive(Debug)]
pub(crate) struct Staged {
    dir: Arc<StagingDir>,
    named: Arc<Named>,
    /// For what is kept of it.
    place: RemotePath,
    /// The end of what the journal has of the present file.
    frozen: Option<u64>,
    /// A copy of the present file is being made, and nothing is changed until it is there.
    thawing: bool,
    local: Extents,
    len: u64,
    base_len: u64,
    unchanged: u64,
    /// As `unchanged`, but since the last snapshot: what a commit under way does not have.
    unchanged_since: u64,
    generation: u64,
    committed: u64,
    attr: SetAttr,
    /// What was last seen of a file that programs may write to.
    seen: Option<Seen>,
}

impl Staged {
    /// An overlay without changes on a content of `base_len` bytes.
    pub(crate) fn over(dir: &Arc<StagingDir>, place: &RemotePath, base_len: u64) -> Result<Self> {
        let staged = Self {
            dir: Arc::clone(dir),
            named: Arc::new(dir.new_file(place)?),
            place: place.clone(),
            frozen: None,
            thawing: false,
            local: Extents::default(),
            len: base_len,
            base_len,
            unchanged: base_len,
            unchanged_since: u64::MAX,
            generation: 0,
            committed: 0,
            attr: SetAttr::default(),
            seen: None,
        };
        staged.resize_file(base_len)?;
        Ok(staged)
    }

    /// An empty file that no server has yet.
    pub(crate) fn create(
        dir: &Arc<StagingDir>,
        place: &RemotePath,
        mode: Option<u32>,
    ) -> Result<Self> {
        let mut staged = Self::over(dir, place, 0)?;
        staged.attr.mode = mode;
        staged.changed_from(0);
        Ok(staged)
    }

    /// What another mount recorded.
    pub(crate) fn restore(
        dir: &Arc<StagingDir>,
        place: &RemotePath,
        frozen: Frozen,
    ) -> Result<Self> {
        let mut local = Extents::default();
        frozen.local.iter().for_each(|(s, e)| local.insert(*s..*e));
        let staged = Self {
            dir: Arc::clone(dir),
            named: frozen.named,
            place: place.clone(),
            frozen: Some(frozen.len),
            thawing: false,
            local,
            len: frozen.len,
            base_len: frozen.base_len,
            unchanged: frozen.unchanged,
            unchanged_since: u64::MAX,
            generation: 1,
            committed: 0,
            attr: frozen.attr,
            seen: None,
        };
        // What was written behind the recorded end was never acknowledged.
        staged.resize_file(frozen.len)?;
        Ok(staged)
    }

    /// What is to be recorded; no change touches it from now on.
    ///
    /// # Errors
    /// `Unsupported` for a file in too many pieces, and for one that is shared: the journal's must
    /// not change.
    pub(crate) fn freeze(&mut self) -> Result<Frozen> {
        if self.local.count() > MOST_RANGES || self.is_shared() {
            return Err(ErrorKind::Unsupported.into());
        }
        self.named.passing().settle(u64::MAX)?;
        self.frozen = Some(self.len);
        Ok(Frozen {
            named: Arc::clone(&self.named),
            generation: self.generation,
            len: self.len,
            base_len: self.base_len,
            unchanged: self.unchanged,
            local: self.local.ranges().map(|r| (r.start, r.end)).collect(),
            attr: self.attr,
            sent: None,
        })
    }

    /// The journal does not need the file any more.
    pub(crate) const fn unfreeze(&mut self) {
        self.frozen = None;
    }

    /// Length of the prefix that is what the server has.
    pub(crate) const fn unchanged(&self) -> u64 {
        self.unchanged
    }

    /// Changes counted so far.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    pub(crate) const fn is_dirty(&self) -> bool {
        self.generation != self.committed
    }

    /// Times and mode that differ from the server's while dirty.
    pub(crate) const fn attr(&self) -> &SetAttr {
        &self.attr
    }

    /// Bytes that are here.
    pub(crate) fn local_bytes(&self) -> u64 {
        self.local.total()
    }

    /// Bytes that are only on the server.
    pub(crate) fn remote_bytes(&self) -> u64 {
        self.len.saturating_sub(self.local.total())
    }

    /// The bytes, for whoever sends them.
    pub(crate) fn source(&self) -> Source {
        Source {
            file: Arc::clone(&self.named.file),
            passing: Arc::clone(self.named.passing()),
        }
    }

    /// Where the byte at `offset` is.
    pub(crate) fn run(&self, offset: u64) -> Run {
        if offset >= self.len {
            return Run::End;
        }
        if let Some(end) = self.local.run_end(offset) {
            return Run::Local(end.min(self.len));
        }
        let gap = self.local.first_gap(offset..self.base_len.min(self.len));
        gap.map_or(Run::End, |gap| Run::Remote(gap.end))
    }

    /// Fills `buf` with local bytes; the caller asked [`run`](Self::run) that they are.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.named
            .passing()
            .settle(offset.saturating_add(buf.len() as u64))?;
        let read = self.named.file.read_exact_at(buf, offset);
        read.map_err(|err| self.failed(&err))
    }

    /// Writes all of `data`, or leaves the size as it was.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let end = end_of(offset, data.len())?;
        self.thaw(offset, u64::MAX)?;
        self.named.passing().settle_for_change(&(offset..end))?;
        if let Err(err) = self.named.file.write_all_at(data, offset) {
            // A part of it may be behind the end, where a later growth promises zeros.
            self.resize_file(self.len)?;
            return Err(self.failed(&err));
        }
        self.wrote(offset, end);
        Ok(())
    }

    /// As [`write`](Self::write), of a content whose upload follows behind: what is appended to a
    /// big one goes there from memory, and to the disk meanwhile.
    pub(crate) fn write_passing(
        &mut self,
        offset: u64,
        data: &[u8],
        pool: &Arc<Pool>,
    ) -> Result<()> {
        let end = end_of(offset, data.len())?;
        let appends = offset == self.len && self.frozen.is_none() && !self.is_shared();
        if appends && offset >= BIG && self.named.passing().take(offset, data, pool)? {
            self.wrote(offset, end);
            return Ok(());
        }
        self.write(offset, data)
    }

    fn wrote(&mut self, offset: u64, end: u64) {
        if offset > self.len {
            self.local.insert(self.len..offset);
        }
        self.local.insert(offset..end);
        self.changed_from(offset.min(self.len));
        self.len = self.len.max(end);
    }

    /// Cuts or grows the file.
    pub(crate) fn set_len(&mut self, len: u64) -> Result<()> {
        end_of(len, 0)?;
        self.thaw(len, len)?;
        self.named.passing().settle_for_change(&(0..u64::MAX))?;
        self.resize_file(len)?;
        if len < self.len {
            self.local.truncate(len);
            self.base_len = self.base_len.min(len);
        } else {
            self.local.insert(self.len..len);
        }
        self.changed_from(len.min(self.len));
        self.len = len;
        Ok(())
    }

    /// Sets times and mode, to be published with the content.
    pub(crate) fn set_attr(&mut self, change: &SetAttr) {
        self.attr.mtime = change.mtime.map(whole_seconds).or(self.attr.mtime);
        self.attr.mode = change.mode.or(self.attr.mode);
        self.generation += 1;
    }

    /// Keeps what the server has at `offset`, except where it was written meanwhile.
    pub(crate) fn fill(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let end = end_of(offset, data.len())?.min(self.base_len);
        while let Some(gap) = self.local.first_gap(offset..end) {
            let from = usize::try_from(gap.start - offset).unwrap_or(usize::MAX);
            let to = usize::try_from(gap.end - offset).unwrap_or(usize::MAX);
            let part = data.get(from..to).unwrap_or_default();
            let written = self.named.file.write_all_at(part, gap.start);
            written.map_err(|err| self.failed(&err))?;
            self.local.insert(gap);
        }
        Ok(())
    }

    /// Adds bytes of the server's content behind what is known of it, where nobody told its size.
    pub(crate) fn extend_base(&mut self, data: &[u8]) -> Result<()> {
        let (start, end) = (self.len, end_of(self.len, data.len())?);
        self.resize_file(end)?;
        (self.len, self.base_len, self.unchanged) = (end, end, end);
        self.fill(start, data)
    }

    /// The first range that is only on the server.
    pub(crate) fn first_missing(&self) -> Option<std::ops::Range<u64>> {
        self.local.first_gap(0..self.base_len.min(self.len))
    }

    /// The state a commit publishes.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        self.unchanged_since = u64::MAX;
        Snapshot {
            generation: self.generation,
            len: self.len,
            unchanged: self.unchanged,
            attr: self.attr,
            source: self.source(),
        }
    }

    /// `snapshot` is what the server has now.
    pub(crate) fn published(&mut self, snapshot: &Snapshot) {
        self.unchanged = snapshot.len.min(self.unchanged_since);
        self.committed = snapshot.generation;
        if !self.is_dirty() {
            self.named.is_stored();
            self.attr = SetAttr::default();
        }
    }

    /// Moves the staged bytes to `lost+found` under a name made from `name`, with the reason.
    pub(crate) fn keep(self, name: &Path, what: &str, why: &str) -> Result<PathBuf> {
        if let Err(err) = self.named.passing().settle(u64::MAX) {
            log::warn!("{}: incomplete: {err}", name.display());
        }
        self.dir.keep(&self.named, name, what, why)
    }

    /// The staged file.
    pub(crate) const fn named(&self) -> &Arc<Named> {
        &self.named
    }

    fn changed_from(&mut self, offset: u64) {
        self.named.unmark();
        self.generation += 1;
        self.unchanged = self.unchanged.min(offset);
        self.unchanged_since = self.unchanged_since.min(offset);
        self.attr.mtime = Some(whole_seconds(SystemTime::now()));
    }

    fn resize_file(&self, len: u64) -> Result<()> {
        let resized = self.named.file.set_len(len);
        resized.map_err(|err| self.failed(&err))
    }

    fn failed(&self, err: &std::io::Error) -> Error {
        Error::local(self.named.path().display(), err)
    }
}

/// The offset behind `len` bytes at `offset`, where any file may have it.
fn end_of(offset: u64, len: usize) -> Result<u64> {
    let end = offset.checked_add(len as u64);
    end.filter(|end| i64::try_from(*end).is_ok())
        .ok_or_else(|| ErrorKind::TooLarge.into())
}

/// What servers can keep (`MFMT`, draft-somers-ftp-mfxx section 3): a second, rounded down.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(err) => {
            let before = err.duration();
            let up = u64::from(before.subsec_nanos() > 0);
            UNIX_EPOCH - Duration::from_secs(before.as_secs() + up)
        }
    }
}

#[cfg(test)]
mod tests;
