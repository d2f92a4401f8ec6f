//! What is known of an open file, behind its leaf lock: changes touch local disk, never the
//! network.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use super::Contents;
use super::live::{Live, Next};
use super::version::Version;
use crate::vfs::attr::{Attr, FileKind, SetAttr};
use crate::vfs::backend::{Replaces, Seen};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::journal::{Entry, Leaving};
use crate::vfs::path::RemotePath;
use crate::vfs::staging::{BIG, Passing, Run, Source, Staged, Thaw};

pub(super) struct State {
    /// For what is kept of the file.
    pub(super) place: RemotePath,
    /// What the journal has of it.
    pub(super) entry: Option<Entry>,
    /// The mount that recorded it was killed, perhaps after the server had it.
    pub(super) unsure: bool,
    /// A content was to get its name, and no answer came: perhaps it has it.
    pub(super) named_perhaps: bool,
    /// Size and time of what was last sent, which the server may have instead of the base.
    pub(super) sent: Option<(u64, SystemTime)>,
    /// What it is to take the place of, where that is not the base.
    pub(super) replaces: Option<Replaces>,
    /// The server's version; `None` if no commit has brought one there.
    pub(super) base: Option<Arc<Version>>,
    pub(super) staged: Option<Staged>,
    pub(super) live: Option<Arc<Live>>,
    /// How often a commit gave the server something.
    pub(super) stored: u64,
    /// An append failed in the middle, maybe: the server's file may have some of the tail, and be
    /// so long at most.
    pub(super) torn: Option<u64>,
    /// The name is gone; nothing is ever uploaded again.
    pub(super) detached: bool,
    /// Some handle may read.
    pub(super) readable: bool,
    /// Some handle may write.
    pub(super) writable: bool,
    /// The server has another version, which this one is not to become.
    pub(super) outdated: bool,
    /// Something that was to be written at this offset is not here, since the local disk had no
    /// room: without it the content is nobody's, and not for the server.
    pub(super) hole: Option<(u64, Error)>,
    /// How far the writes since the last commit went on from the start of the file, if that is
    /// what they all did.
    pub(super) in_sequence: Option<u64>,
}

/// A content written in sequence is worth an upload behind its writer from this length on.
const LATE: u64 = 1 << 20;

/// A disk takes less than that in a moment, in bytes.
const MUCH: u64 = 1 << 20;

/// What a change means for the upload under way, to be done with the state unlocked.
pub(super) struct Follow {
    pub(super) live: Arc<Live>,
    pub(super) next: Next,
    pub(super) source: Source,
}

/// Where the next bytes of a read come from.
pub(super) enum Piece {
    /// So many are here.
    Local(usize),
    /// So many, at most, from the server.
    Remote(Arc<Version>, usize),
    End,
}

/// A range that is only on the server.
pub(super) struct Missing {
    pub(super) base: Arc<Version>,
    pub(super) range: Range<u64>,
    /// Nobody told where the file ends: the range is everything behind what is known.
    pub(super) sizeless: bool,
}

impl State {
    pub(super) const fn new(place: RemotePath) -> Self {
        Self {
            place,
            entry: None,
            unsure: false,
            named_perhaps: false,
            sent: None,
            replaces: None,
            base: None,
            staged: None,
            live: None,
            stored: 0,
            torn: None,
            detached: false,
            readable: false,
            writable: false,
            outdated: false,
            hole: None,
            in_sequence: None,
        }
    }

    /// What the next commit may take the place of.
    pub(super) fn replaces(&self) -> Replaces {
        let of_base = || match &self.base {
            // After a broken append nobody knows what is there.
            Some(_) if self.torn.is_some() => Replaces::Anything,
            Some(base) => Replaces::Version(Seen::of(&base.attr())),
            None => Replaces::Nothing,
        };
        self.replaces.unwrap_or_else(of_base)
    }

    /// Enters the content in the journal, as that of `at`.
    pub(super) fn acknowledge(&mut self, contents: &Contents, at: &RemotePath) -> Result<()> {
        if !self.is_dirty() {
            return Ok(());
        }
        self.is_whole()?;
        let base = self.base.as_ref().map(|base| base.attr());
        let replaces = match self.torn.is_some() {
            true => Some(Replaces::Anything),
            false => self.replaces,
        };
        // Of a file that grew by a broken append, only the size on the server tells how far.
        if self.torn.is_some()
            && self
                .staged
                .as_ref()
                .is_some_and(|s| s.first_missing().is_some())
        {
            return Err(ErrorKind::Unsupported.into());
        }
        let Some(staged) = &mut self.staged else {
            return Ok(());
        };
        let recorded = |entry: &Entry| entry.generation == staged.generation() && entry.at == *at;
        if self.entry.as_ref().is_some_and(recorded) {
            return Ok(());
        }
        let mut frozen = staged.freeze()?;
        frozen.sent = self.sent;
        let entry = contents
            .journal
            .record(at, &frozen, base.as_ref(), replaces)?;
        let old = self.entry.replace(entry);
        if let (Some(old), Some(entry)) = (old, &self.entry) {
            old.superseded(entry);
        }
        Ok(())
    }

    /// Whether all that was written is in the journal, and nothing of the file on the server.
    pub(super) fn is_only_here(&self) -> bool {
        let all = self.recorded().is_some();
        all && !self.is_on_server() && !self.detached && self.is_dirty()
    }

    /// The record of the journal that has all that was written.
    pub(super) fn recorded(&self) -> Option<&Entry> {
        let (entry, staged) = self.entry.as_ref().zip(self.staged.as_ref())?;
        (entry.generation == staged.generation()).then_some(entry)
    }

    /// Whether the journal has less than was written, and nobody was told that the rest survives.
    pub(super) fn awaits_writer(&self) -> bool {
        self.has_record() && self.recorded().is_none()
    }

    /// Whether something acknowledged is not on the server.
    pub(super) fn has_record(&self) -> bool {
        self.entry.is_some() && self.is_dirty()
    }

    /// Whether the server has a file of this name, as far as anybody knows.
    pub(super) fn is_on_server(&self) -> bool {
        let replaced = !matches!(self.replaces, None | Some(Replaces::Nothing));
        self.base.is_some() || self.unsure || self.named_perhaps || replaced
    }

    /// The server has what was written up to `generation`, which makes the base what it is now.
    pub(super) fn is_stored(&mut self, contents: &Contents, generation: u64) -> Option<Leaving> {
        self.replaces = None;
        self.unsure = false;
        self.named_perhaps = false;
        self.sent = None;
        self.stored += 1;
        if let Some(entry) = self.entry.take_if(|entry| entry.generation <= generation) {
            if let Some(staged) = &mut self.staged
                && entry.is_of(staged.named())
            {
                staged.unfreeze();
            }
            return Some(entry.leave());
        }
        // What was acknowledged meanwhile replaces what was stored just now.
        if let (Some(entry), Some(base), Some(staged)) = (&mut self.entry, &self.base, &self.staged)
            && let Err(err) = contents
                .journal
                .rebase(entry, &base.attr(), staged.unchanged())
        {
            log::warn!(
                "{}: its record in the journal is out of date: {err}",
                entry.at
            );
        }
        None
    }

    /// Whether all is here that programs wrote.
    ///
    /// # Errors
    /// That of the write which failed.
    pub(super) fn is_whole(&self) -> Result<()> {
        match &self.hole {
            Some((_, err)) if self.is_dirty() => Err(err.clone()),
            _ => Ok(()),
        }
    }

    /// A write at `offset` failed. A program that asks for what no file can be has lost nothing.
    pub(super) fn missed(&mut self, offset: u64, err: Error) {
        let first = self.hole.as_ref().is_none_or(|(at, _)| offset < *at);
        if first && err.kind() != ErrorKind::TooLarge {
            self.hole = Some((offset, err));
        }
    }

    /// Drops what is not whole and in no journal: it would fill the disk for good, and whoever wrote
    /// it was told.
    pub(super) fn drop_fragment(&mut self) {
        if let (Err(err), None) = (self.is_whole(), &self.entry) {
            log::warn!("{}: what was written is dropped: {err}", self.place);
            self.staged = None;
        }
    }

    /// Nothing that is missing lies in `filled` any more.
    pub(super) fn fill_hole(&mut self, filled: Range<u64>) {
        self.hole.take_if(|(at, _)| filled.contains(at));
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.detached && self.staged.as_ref().is_some_and(Staged::is_dirty)
    }

    pub(super) fn is_base(&self, version: &Arc<Version>) -> bool {
        let same = |base| Arc::ptr_eq(base, version);
        self.base.as_ref().is_some_and(same)
    }

    /// The base, if nothing was changed here.
    pub(super) fn clean_base(&self) -> Option<Arc<Version>> {
        self.base.clone().filter(|_| !self.is_dirty())
    }

    /// The overlay, made on the first change. A base whose size nobody told counts as empty: it is
    /// cut to nothing, or fetched first.
    pub(super) fn staged(&mut self, contents: &Contents) -> Result<&mut Staged> {
        if self.staged.is_none() {
            let size = self.base.as_ref().and_then(|base| base.size());
            let size = size.unwrap_or(0);
            self.staged = Some(Staged::over(&contents.staging, &self.place, size)?);
        }
        let staged = self.staged.as_mut();
        staged.ok_or_else(|| ErrorKind::BadHandle.into())
    }

    /// The writer's view.
    pub(super) fn attr(&self) -> Attr {
        let base = self.base.as_ref().map(|base| base.attr());
        let mut attr = base.unwrap_or_else(|| Attr::new(FileKind::File));
        if let Some(staged) = &self.staged {
            let ours = staged.attr();
            attr.size = Some(staged.len());
            attr.mtime_exact |= ours.mtime.is_some();
            attr.mtime = ours.mtime.or(attr.mtime);
            attr.mode = ours.mode.or(attr.mode);
        }
        attr
    }

    /// Changes the content with `change`, which is told whether an upload follows, then asks the upload under way with `tell` what that
    /// means for it. Not if `stiff` says that this takes long: then it is `None`.
    pub(super) fn change(
        &mut self,
        contents: &Contents,
        stiff: impl FnOnce(&Staged) -> bool,
        change: impl FnOnce(&mut Staged, bool) -> Result<()>,
        tell: impl FnOnce(&Live) -> Next,
    ) -> Result<Option<Option<Follow>>> {
        if let Some(refusal) = self.live.as_ref().and_then(|live| live.refusal()) {
            return Err(refusal);
        }
        let followed = self.live.is_some();
        let staged = self.staged(contents)?;
        if stiff(staged) {
            return Ok(None);
        }
        let before = Arc::clone(staged.named());
        change(staged, followed)?;
        let same = Arc::ptr_eq(&before, staged.named());
        let source = staged.source();
        let Some(live) = self.live.clone() else {
            return Ok(Some(None));
        };
        let next = match same {
            true => tell(&live),
            // It sends the file that the journal has.
            false => Next::GiveUp,
        };
        match next {
            Next::Go => return Ok(Some(None)),
            // The refusal of an upload that ended is still to be told.
            Next::GiveUp if live.refusal().is_some() => return Ok(Some(None)),
            Next::GiveUp => self.live = None,
            Next::StartPump => {}
        }
        Ok(Some(Some(Follow { live, next, source })))
    }

    /// The copy of what the journal has is made. The upload that goes on with the old file, if any,
    /// is to be given up.
    pub(super) fn thawed(&mut self, thaw: Thaw) -> Result<Option<Arc<Live>>> {
        let Some(staged) = &mut self.staged else {
            return Ok(None);
        };
        if !staged.end_thaw(thaw)? {
            return Ok(None);
        }
        Ok(self.live.take_if(|live| live.refusal().is_none()))
    }

    /// What is to be on the disk before it is acknowledged, if that may take a while.
    pub(super) fn unrecorded(&self) -> Option<Source> {
        let long = |staged: &&Staged| self.is_dirty() && staged.local_bytes() > MUCH;
        let staged = self.staged.as_ref().filter(long)?;
        self.recorded().is_none().then(|| staged.source())
    }

    /// Where what is written at `offset` waits for its upload, if that follows the writer.
    pub(super) fn passing(&self, offset: u64) -> Option<Arc<Passing>> {
        self.live.as_ref()?;
        let staged = self.staged.as_ref()?;
        (offset >= BIG && offset == staged.len()).then(|| Arc::clone(staged.named().passing()))
    }

    /// Notes a write of `len` bytes at `offset`. The answer is the length of a content that was
    /// written in sequence and has no upload behind it yet, and deserves one: the one that `open`
    /// began went with a commit, since shells close the empty file before they write to it.
    pub(super) fn wrote(&mut self, offset: u64, len: u64) -> Option<(u64, Source)> {
        let goes_on = self.in_sequence.filter(|end| *end == offset);
        self.in_sequence = goes_on.map(|end| end + len);
        let end = self.in_sequence?;
        let whole = |staged: &&Staged| staged.len() == end && staged.first_missing().is_none();
        let worth = end >= LATE && self.live.is_none() && !self.detached;
        let staged = self.staged.as_ref().filter(whole).filter(|_| worth)?;
        Some((end, staged.source()))
    }

    /// Stages times and mode where the content is staged; else says of which version to set them.
    pub(super) fn defer_attr(
        &mut self,
        contents: &Contents,
        change: &SetAttr,
    ) -> Result<Option<Arc<Version>>> {
        let base = self.clean_base().filter(|_| !self.detached);
        if base.is_some() {
            return Ok(base);
        }
        let at = self.recorded().map(|entry| entry.at.clone());
        self.staged(contents)?.set_attr(change);
        // What is in the journal stays there whole.
        if let Some(at) = at
            && let Err(err) = self.acknowledge(contents, &at)
        {
            log::debug!("{at}: times and mode are not in the journal: {err}");
        }
        Ok(None)
    }

    /// Says where the next of `len` bytes at `offset` are.
    pub(super) fn piece(&self, offset: u64, len: usize) -> Result<Piece> {
        let until = |end: u64| usize::try_from(end - offset).unwrap_or(usize::MAX).min(len);
        let most = match (&self.staged, &self.base) {
            (Some(staged), _) => match staged.run(offset) {
                Run::End => return Ok(Piece::End),
                Run::Local(end) => return Ok(Piece::Local(until(end))),
                Run::Remote(end) => until(end),
            },
            (None, Some(base)) => match base.size() {
                Some(size) if offset >= size => return Ok(Piece::End),
                Some(size) => until(size),
                None => len,
            },
            (None, None) => return Ok(Piece::End),
        };
        match &self.base {
            Some(base) if !self.detached => Ok(Piece::Remote(Arc::clone(base), most)),
            _ => Err(Error::new(ErrorKind::Stale, "gone from the server")),
        }
    }

    /// Copies bytes that are here; 0 if they are not any more.
    pub(super) fn local(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        match (&self.staged, self.piece(offset, buf.len())?) {
            (Some(staged), Piece::Local(count)) => {
                staged.read(offset, buf.get_mut(..count).unwrap_or_default())?;
                Ok(count)
            }
            _ => Ok(0),
        }
    }

    /// The next range that is only on the server.
    pub(super) fn missing(&mut self, contents: &Contents) -> Result<Option<Missing>> {
        let Some(base) = self.base.clone() else {
            return Ok(None);
        };
        let staged = self.staged(contents)?;
        let (range, sizeless) = match staged.first_missing() {
            Some(range) => (range, false),
            None if base.size().is_none() && !staged.is_dirty() => (staged.len()..u64::MAX, true),
            None => return Ok(None),
        };
        Ok(Some(Missing {
            base,
            range,
            sizeless,
        }))
    }

    /// Keeps what was fetched of a missing range.
    pub(super) fn fetched(
        &mut self,
        contents: &Contents,
        missing: &Missing,
        data: &[u8],
    ) -> Result<()> {
        if !self.is_base(&missing.base) {
            return Ok(());
        }
        let staged = self.staged(contents)?;
        if missing.sizeless {
            return staged.extend_base(data);
        }
        staged.fill(missing.range.start, data)
    }
}
