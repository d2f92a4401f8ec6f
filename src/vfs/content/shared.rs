//! Files that the kernel reads by itself and that are written here: see
//! [`share_whole`](crate::vfs::backend::OpenFile::share_whole).

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::file::Content;
use super::state::State;
use super::version::Version;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::staging::{Seen, Staged};

impl State {
    /// The staged file, if the kernel reads it by itself.
    pub(super) fn shared(&mut self) -> Option<&mut Staged> {
        self.staged.as_mut().filter(|staged| staged.is_shared())
    }
}

impl Version {
    /// The file that has all of it, if it is on disk and known to be good.
    pub(super) fn whole(&self) -> Option<File> {
        let cached = self.cached().filter(|_| !self.is_stale())?;
        cached.whole_file()?.try_clone().ok()
    }

    /// Gives that file away, see [`Cached::give`](crate::vfs::blocks::Cached::give).
    fn give(&self, to: &Path) -> io::Result<File> {
        let cached = self.cached();
        let cached = cached.ok_or_else(|| io::Error::other("it is not in the cache"))?;
        cached.give(to)
    }
}

impl Content {
    /// The data file of the cache becomes the staged file.
    pub(super) fn begin_sharing(&self) -> Result<()> {
        let (base, place) = self.state.with(|state| {
            let base = state.clean_base();
            let untouched = state.staged.is_none() && !state.detached;
            (base.filter(|_| untouched), state.place.clone())
        });
        let base = base.ok_or_else(|| Error::from(ErrorKind::Unsupported))?;
        let path = self.contents.staging.free_path();
        let file = base.give(&path);
        let file = file.map_err(|err| Error::local(path.display(), &err))?;
        let staged = Staged::shared(&self.contents.staging, &place, (file, path))?;
        let whole = base.size() == Some(staged.len());
        let taken = self.state.with(|state| {
            let untouched = state.staged.is_none() && !state.detached && state.is_base(&base);
            let taken = whole && untouched;
            if taken {
                state.staged = Some(staged);
            }
            taken
        });
        taken.then_some(()).ok_or_else(|| {
            let detail = format!("{place}: changed in the meantime");
            Error::new(ErrorKind::Unsupported, detail)
        })
    }

    /// From now on it may be written to by mappings.
    pub(super) fn begin_watching(&self) {
        let file = self.state.with(|state| {
            let staged = state.shared().filter(|staged| !staged.is_watched())?;
            Some(Arc::clone(staged.named().file()))
        });
        if let Some(file) = file {
            self.saw(Seen::of(&file, false));
        }
    }

    pub(super) fn look_at_shared(&self) {
        let file = self.state.with(|state| {
            let staged = state.shared().filter(|staged| staged.is_watched())?;
            Some(Arc::clone(staged.named().file()))
        });
        if let Some(file) = file {
            self.saw(Seen::of(&file, true));
        }
    }

    fn saw(&self, seen: Seen) {
        let live = self.state.with(|state| {
            let staged = state.shared()?;
            if !staged.note(seen) {
                return None;
            }
            staged.changed_unseen();
            state.in_sequence = None;
            // It may have sent what has changed.
            state.live.take()
        });
        if let Some(live) = live {
            self.contents.retire(live);
        }
    }
}
