//! One open inode.

use std::fs::File;
use std::sync::{Arc, Mutex};

use super::commit::Wanted;
use super::gathered::Gathered;
use super::leftover::is_passing;
use super::live::Live;
use super::state::{Missing, Piece, State};
use super::version::Version;
use super::{Contents, lock};
use crate::caller;
use crate::sync::Locked;
use crate::vfs::attr::{Attr, FileKind, SetAttr};
use crate::vfs::backend::{OpenFile, OpenHow, Origin, Replaces, Transfers};
use crate::vfs::chunk::Chunk;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::journal::{Entry, Saved};
use crate::vfs::path::RemotePath;
use crate::vfs::staging::{Staged, whole_seconds};

/// An open file, see [the module](super).
pub struct Content {
    pub(super) contents: Arc<Contents>,
    pub(super) transfers: Arc<dyn Transfers>,
    pub(super) state: Locked<State>,
    /// One commit at a time; held across the network.
    pub(super) committing: Mutex<()>,
    /// One copy of what the journal has at a time.
    pub(super) thawing: Mutex<()>,
    /// For the name of what must be kept, no more: the file may be renamed.
    opened_as: RemotePath,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({:?})", self.opened_as)
    }
}

impl Content {
    pub(super) fn open(
        contents: &Arc<Contents>,
        transfers: Arc<dyn Transfers>,
        path: &RemotePath,
        known: Option<Attr>,
        how: OpenHow,
    ) -> Result<Self> {
        let base = match (known, how.create) {
            (Some(known), _) => Some(known),
            (None, Some(_)) => None,
            (None, None) => Some(transfers.stat_now(path)?),
        };
        let new = base.is_none();
        let staged = match new {
            true => Some(Staged::create(&contents.staging, path, how.create)?),
            false => None,
        };
        let base = base.map(|attr| Arc::new(Version::new(contents, &transfers, path, attr)));
        let content = Self {
            contents: Arc::clone(contents),
            transfers,
            state: Locked::new(State {
                base,
                staged,
                readable: how.read,
                writable: how.write,
                in_sequence: Some(0),
                ..State::new(path.clone())
            }),
            committing: Mutex::default(),
            thawing: Mutex::default(),
            opened_as: path.clone(),
        };
        let prepared = content.prepare(path, how, new);
        if prepared.is_err() {
            // Nobody has written yet, so there is nothing to keep.
            content.state.with(|state| state.staged = None);
        }
        prepared.map(|()| content)
    }

    /// What an earlier mount had acknowledged.
    pub(super) fn restore(
        contents: &Arc<Contents>,
        transfers: Arc<dyn Transfers>,
        saved: Saved,
    ) -> Result<Self> {
        let Saved {
            entry,
            frozen,
            base,
            replaces,
        } = saved;
        let place = entry.at.clone();
        let base = base.map(|attr| Version::unseen(contents, &transfers, &place, attr));
        Ok(Self {
            contents: Arc::clone(contents),
            transfers,
            state: Locked::new(State {
                sent: frozen.sent,
                base: base.map(Arc::new),
                staged: Some(Staged::restore(&contents.staging, &place, frozen)?),
                entry: Some(entry),
                replaces,
                unsure: true,
                readable: true,
                writable: true,
                ..State::new(place.clone())
            }),
            committing: Mutex::default(),
            thawing: Mutex::default(),
            opened_as: place,
        })
    }

    /// What an open for writing asks of the server at once.
    fn prepare(&self, at: &RemotePath, how: OpenHow, new: bool) -> Result<()> {
        if new || how.truncate {
            let live = match self.contents.keeping.writeback {
                true => None,
                false => self.begin_upload(at)?,
            };
            // Others who have it open would go on with what nobody was told to have cut.
            if !new && caller::has_gone() {
                live.into_iter().for_each(|live| live.give_up());
                let detail = format!("{at}: nobody waits for this open any more");
                return Err(Error::new(ErrorKind::Interrupted, detail));
            }
            // In one step: what the old upload has sent is no part of what is written from now on.
            let swap = |state: &mut State| {
                if !new {
                    state.in_sequence = Some(0);
                    let cut = state.staged(&self.contents).and_then(|s| s.set_len(0));
                    if let Err(err) = cut {
                        return (live, Err(err));
                    }
                    state.hole = None;
                }
                (std::mem::replace(&mut state.live, live), Ok(()))
            };
            let (unused, swapped) = self.state.with(swap);
            if let Some(unused) = unused {
                unused.give_up();
            }
            return swapped;
        }
        let sizeless = |state: &mut State| {
            let base = state.base.as_ref().filter(|_| state.staged.is_none());
            base.is_some_and(|base| base.size().is_none())
        };
        // A write would not know where the old content ends, and it must not ask.
        if how.write && self.state.with(sizeless) {
            self.localize(at)?;
        }
        Ok(())
    }

    /// Begins to store, so that a refusal is told by `open`. With no connection free the content
    /// is uploaded by the commit, and so is one that will not be refused.
    fn begin_upload(&self, at: &RemotePath) -> Result<Option<Arc<Live>>> {
        if self.transfers.surely_stores(at) {
            return Ok(None);
        }
        let replaces = self.state.with(|state| state.replaces());
        let store = |wait| self.transfers.store(at, replaces, wait);
        match self.contents.connection_now(store) {
            Ok(upload) => {
                let live = Arc::new(Live::new(upload, self.contents.now()));
                self.contents.register_upload(&live);
                Ok(Some(live))
            }
            Err(err) if err.kind() == ErrorKind::Busy => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Bytes that no commit has brought to the server; `None` if there are none.
    pub(super) fn dirty_bytes(&self) -> Option<u64> {
        self.state.with(|state| {
            let dirty = state.is_dirty();
            let staged = state.staged.as_ref().filter(|_| dirty);
            staged.map(Staged::local_bytes)
        })
    }

    /// Bytes that came of it, if it is being fetched whole for those who jump about.
    pub(super) fn whole_bytes(&self) -> Option<u64> {
        let base = self.state.with(|state| state.base.clone())?;
        base.behind().whole_bytes()
    }

    /// Fetches everything that is only on the server, so that it is not needed any more.
    pub(super) fn localize(&self, at: &RemotePath) -> Result<()> {
        let next = || self.state.with(|state| state.missing(&self.contents));
        while let Some(missing) = next()? {
            let Missing { base, range, .. } = &missing;
            let most = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let most = most.min(1 << 20);
            let Some(chunk) = base.read(at, range.start, most)? else {
                return if missing.sizeless {
                    Ok(())
                } else {
                    Err(short(at))
                };
            };
            self.state
                .with(|state| state.fetched(&self.contents, &missing, chunk.as_slice()))?;
        }
        Ok(())
    }

    /// Keeps what was read of the old content of a file that is being written.
    fn remember(&self, version: &Arc<Version>, offset: u64, data: &[u8]) {
        let filled = self.state.with(|state| {
            let ours = state.is_base(version) && state.is_dirty();
            let staged = state.staged.as_mut().filter(|_| ours);
            staged.map_or(Ok(()), |staged| staged.fill(offset, data))
        });
        // With a full disk here, the next read asks the server again.
        if let Err(err) = filled {
            log::debug!("{}: {err}", self.opened_as);
        }
    }

    /// Another handle opens a file that may have another version by now: if the server agrees, that
    /// one is read from here on. What is dirty here stays ours.
    fn revalidate(&self, at: &RemotePath, known: &Attr) -> Result<()> {
        let Some(base) = self.state.with(|state| state.clean_base()) else {
            return Ok(());
        };
        base.is_looked_for(at);
        let same = |attr: &Attr| !base.is_stale() && !base.attr().differs_from(attr);
        if same(known) {
            base.validated();
            return Ok(());
        }
        // What the caller knows may be older than a commit of ours.
        let now = self.transfers.stat_now(at)?;
        if same(&now) {
            base.validated();
            return Ok(());
        }
        // What was only appended to is the same file to those who follow it.
        let grew = now.size > base.size();
        let version = Arc::new(Version::new(&self.contents, &self.transfers, at, now));
        let outdated = self.state.with(|state| {
            if !state.is_base(&base) || state.is_dirty() {
                return false;
            }
            if state.shared().is_some() || !grew && !state.writable {
                state.outdated = true;
                return true;
            }
            state.base = Some(version);
            state.staged = None;
            state.torn = None;
            false
        });
        match outdated {
            true => Err(another(at)),
            false => Ok(()),
        }
    }
}

impl OpenFile for Content {
    fn attr(&self) -> Attr {
        self.state.with(|state| state.attr())
    }

    fn reopen(&self, at: &RemotePath, known: Option<&Attr>, how: OpenHow) -> Result<()> {
        if self.state.with(|state| state.detached) {
            return Err(ErrorKind::Stale.into());
        }
        if self.is_outdated() {
            return Err(another(at));
        }
        if let Some(known) = known {
            self.revalidate(at, known)?;
        }
        self.state.with(|state| {
            state.readable |= how.read;
            state.writable |= how.write;
        });
        self.prepare(at, how, false)
    }

    fn is_outdated(&self) -> bool {
        self.state.with(|state| state.outdated)
    }

    fn discard(&self) {
        let _turn = lock(&self.committing);
        let dropped = self.state.with(|state| {
            let kept = state.entry.is_some();
            (!kept).then(|| (state.live.take(), state.staged.take()))
        });
        if let Some((Some(live), _)) = dropped {
            live.give_up();
        }
    }

    fn read_at(&self, at: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let chunk = self.read_chunk(at, offset, buf.len())?;
        Ok(chunk.copy_to(buf))
    }

    fn read_chunk(&self, at: &RemotePath, offset: u64, len: usize) -> Result<Chunk> {
        let mut gathered = Gathered::new(&self.contents.pool, len);
        let mut mended = false;
        while gathered.done < len {
            let offset = offset.saturating_add(gathered.done as u64);
            let piece = |state: &mut State| state.piece(offset, len - gathered.done);
            let (version, most) = match self.state.with(piece)? {
                Piece::End => break,
                Piece::Local(most) => {
                    let buf = gathered.space(most);
                    let count = self.state.with(|state| state.local(offset, buf))?;
                    gathered.done += count;
                    continue;
                }
                Piece::Remote(version, most) => (version, most),
            };
            match version.read(at, offset, most) {
                Ok(None) if version.size().is_none() => break,
                Ok(None) => return Err(short(at)),
                Ok(Some(chunk)) => {
                    self.remember(&version, offset, chunk.as_slice());
                    gathered.add(chunk);
                }
                // A commit gave the file another version meanwhile.
                Err(_) if !self.state.with(|state| state.is_base(&version)) => {}
                Err(err) if !mended && err.kind() == ErrorKind::Stale => {
                    mended = true;
                    if !self.mend(at)? {
                        return Err(err);
                    }
                }
                Err(err) => return Err(err),
            }
        }
        Ok(gathered.end())
    }

    fn peek(&self, offset: u64, len: usize) -> Option<Chunk> {
        let clean = |state: &mut State| {
            let ours = state.detached || state.shared().is_some();
            state.clean_base().filter(|_| !ours)
        };
        self.state.with(clean)?.peek(offset, len)
    }

    fn whole(&self) -> Option<File> {
        let shared = |state: &mut State| state.shared().map(|staged| staged.named().again());
        if let Some(shared) = self.state.with(shared) {
            return shared;
        }
        let untouched = |state: &mut State| {
            let base = state.clean_base()?;
            (state.staged.is_none() && !state.detached).then_some(base)
        };
        self.state.with(untouched)?.whole()
    }

    fn origin(&self) -> Origin {
        let remote = |state: &mut State| {
            let base = state.clean_base()?;
            (state.staged.is_none() && !state.detached).then_some(base)
        };
        let here = |base: &Version| base.cached().is_some_and(|cached| cached.is_complete());
        match self.state.with(remote).filter(|base| !here(base)) {
            None => Origin::Local,
            Some(_) if self.transfers.is_on_this_machine() => Origin::SameMachine,
            Some(_) => Origin::Network,
        }
    }

    fn share_whole(&self, may_be_mapped: bool) -> Result<()> {
        if !self.shares_whole() {
            self.begin_sharing()?;
        }
        if may_be_mapped {
            self.begin_watching();
        }
        Ok(())
    }

    fn shares_whole(&self) -> bool {
        self.state.with(|state| state.shared().is_some())
    }

    fn may_be_mapped(&self) -> bool {
        let watched = |state: &mut State| state.shared().is_some_and(|staged| staged.is_watched());
        self.state.with(watched)
    }

    fn look(&self) {
        self.look_at_shared();
    }

    fn write_at(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<()> {
        self.change_when_thawed(at, offset, || self.write_now(at, offset, data))
    }

    fn write_now(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<bool> {
        self.write_once(at, offset, data)
    }

    fn set_len(&self, at: &RemotePath, len: u64) -> Result<()> {
        if self.state.with(|state| state.attr().size) == Some(len) {
            return Ok(());
        }
        self.state
            .with(|state| state.in_sequence = (len == 0).then_some(0));
        self.change_when_thawed(at, len, || {
            self.change(
                |staged| staged.is_stiff(len, len),
                |staged, _| staged.set_len(len),
                |live| live.resized(len),
            )
        })?;
        self.state.with(|state| state.fill_hole(len..u64::MAX));
        Ok(())
    }

    fn set_attr(&self, at: &RemotePath, change: &SetAttr) -> Result<()> {
        let mtime = change.mtime.map(whole_seconds);
        let change = SetAttr { mtime, ..*change };
        let defer = || {
            self.state
                .with(|state| state.defer_attr(&self.contents, &change))
        };
        if defer()?.is_none() {
            return Ok(());
        }
        // Not while a commit gives the file another version.
        let _turn = lock(&self.committing);
        if let Some(base) = defer()? {
            self.transfers.set_attr(at, &change)?;
            base.adjust(&change);
        }
        Ok(())
    }

    fn commit(&self, at: &RemotePath) -> Result<()> {
        let _turn = lock(&self.committing);
        self.look();
        self.commit_now(at, Wanted::All)
    }

    fn commit_acknowledged(&self, at: &RemotePath) -> Result<()> {
        let _turn = lock(&self.committing);
        self.look();
        self.commit_now(at, Wanted::Acknowledged)
    }

    fn has_record(&self) -> bool {
        self.state.with(|state| state.has_record())
    }

    fn awaits_writer(&self) -> bool {
        self.state.with(|state| state.awaits_writer())
    }

    fn stored(&self) -> Option<(u64, Attr)> {
        self.state.with(|state| {
            let base = state.base.as_ref().map(|base| base.attr());
            let attr = base.unwrap_or_else(|| Attr::new(FileKind::File));
            Some((state.stored, attr))
        })
    }

    fn is_dirty(&self) -> bool {
        self.state.with(|state| state.is_dirty())
    }

    fn bring(&self, at: &RemotePath) {
        self.bring_now(at);
    }

    fn detach(&self, at: &RemotePath) -> Result<bool> {
        self.detach_now(at)
    }

    fn close(&self, at: Option<&RemotePath>) -> Result<()> {
        let _turn = lock(&self.committing);
        let committed = at.map_or(Ok(()), |at| {
            self.look();
            self.commit_now(at, Wanted::All)
        });
        // Dirty without a name, and not detached.
        let (base, staged, live, entry, nameless) = self.state.with(|state| {
            state.drop_fragment();
            let nameless = (at.is_none() && state.is_dirty()).then(|| state.place.clone());
            let staged = state.staged.take();
            (
                state.base.clone(),
                staged,
                state.live.take(),
                state.entry.take(),
                nameless,
            )
        });
        if let Some(live) = live {
            live.give_up();
        }
        if let Some(base) = base {
            base.hang_up();
            if let Some(at) = at.filter(|_| staged.is_none()) {
                self.contents.fill_gaps(&base, at, &self.transfers);
            }
        }
        match (&committed, staged, at.or(nameless.as_ref())) {
            (Err(err), Some(staged), Some(at)) => {
                self.put_away(staged, entry, at, &err.to_string(), !is_passing(err));
            }
            (Ok(()), Some(staged), Some(at)) if nameless.is_some() => {
                self.put_away(staged, entry, at, "its directory is gone", true);
            }
            // The name is gone, or all is stored.
            _ => entry.into_iter().for_each(Entry::remove),
        }
        committed
    }

    fn removed(&self) {
        let entry = self.state.with(|state| state.entry.take());
        entry.into_iter().for_each(Entry::remove);
    }

    fn reattach(&self) -> bool {
        self.state.with(|state| {
            let changed = state.staged.as_ref().is_some_and(Staged::is_dirty);
            // Who may write still to come must not do so in vain.
            let stays = changed || state.writable;
            state.detached &= !stays;
            stays
        })
    }

    fn acknowledge(&self, at: &RemotePath) -> Result<()> {
        if !self.contents.keeping.writeback {
            return Err(ErrorKind::Unsupported.into());
        }
        // With nothing locked: then little is left to be done.
        if let Some(source) = self.state.with(|state| state.unrecorded()) {
            source.passing.settle(u64::MAX)?;
            if self.contents.keeping.sync {
                let synced = source.file.sync_data();
                synced.map_err(|err| Error::local(at, &err))?;
            }
        }
        self.state
            .with(|state| state.acknowledge(&self.contents, at))
    }

    fn is_acknowledged(&self) -> bool {
        self.state.with(|state| state.is_only_here())
    }

    fn moved(&self, to: &RemotePath, replaces: Replaces) -> Result<bool> {
        self.state.with(|state| {
            if !state.is_only_here() {
                return Ok(false);
            }
            let before = state.replaces.replace(replaces);
            let recorded = state.acknowledge(&self.contents, to);
            if recorded.is_err() {
                state.replaces = before;
            } else {
                state.place = to.clone();
            }
            recorded.map(|()| true)
        })
    }
}

fn another(at: &RemotePath) -> Error {
    let detail = format!("{at}: another version than the one that is open");
    Error::new(ErrorKind::Stale, detail)
}

fn short(at: &RemotePath) -> Error {
    Error::new(ErrorKind::Stale, format!("{at}: shorter than it was"))
}
