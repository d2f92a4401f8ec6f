//! Changing what is staged, and what follows from that for the upload behind the writer.
//!
//! Of a file that is in the journal a copy is changed. One that takes long is made with nothing
//! locked that readers or the event threads need.

use std::sync::Arc;

use super::file::Content;
use super::live::{Live, Next};
use super::lock;
use super::state::{Follow, State};
use crate::caller;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;
use crate::vfs::staging::{Source, Staged};

impl Content {
    /// Whether it was changed: not if `stiff` says that this takes long.
    pub(super) fn change(
        &self,
        stiff: impl FnOnce(&Staged) -> bool,
        change: impl FnOnce(&mut Staged, bool) -> Result<()>,
        tell: impl FnOnce(&Live) -> Next,
    ) -> Result<bool> {
        let changed = |state: &mut State| state.change(&self.contents, stiff, change, tell);
        let Some(changed) = self.state.with(changed)? else {
            return Ok(false);
        };
        if let Some(Follow { live, next, source }) = changed {
            match next {
                Next::GiveUp => self.contents.retire(live),
                Next::Go | Next::StartPump => start_pump(live, source),
            }
        }
        Ok(true)
    }

    /// Begins an upload behind the writer, on a thread of its own: a write does not wait for it.
    fn begin_late(&self, at: &RemotePath, settled: u64, source: Source) {
        let (contents, transfers) = (Arc::clone(&self.contents), Arc::clone(&self.transfers));
        let at = at.clone();
        let replaces = self.state.with(|state| state.replaces());
        let begin = move || contents.connection_now(|wait| transfers.store(&at, replaces, wait));
        let live = Live::late(Box::new(begin), settled, self.contents.now());
        let live = Arc::new(live);
        let begun = self.state.with(|state| {
            let free = state.live.is_none() && !state.detached;
            free.then(|| state.live = Some(Arc::clone(&live)))
        });
        if begun.is_some() {
            self.contents.register_upload(&live);
            start_pump(live, source);
        }
    }

    /// See [`write_now`](crate::vfs::backend::OpenFile::write_now).
    pub(super) fn write_once(&self, at: &RemotePath, offset: u64, data: &[u8]) -> Result<bool> {
        if data.is_empty() {
            return Ok(true);
        }
        if let Some(passing) = self.state.with(|state| state.passing(offset)) {
            passing.wait_for_place(offset, data.len());
        }
        let (len, now) = (data.len() as u64, self.contents.now());
        let mut here = Ok(());
        let written = self.change(
            |staged| staged.is_stiff(offset, u64::MAX),
            |staged, followed| {
                here = match followed {
                    true => staged.write_passing(offset, data, &self.contents.pool),
                    false => staged.write(offset, data),
                };
                here.clone()
            },
            |live| live.wrote(offset, len, now),
        );
        if let Err(err) = here {
            self.state.with(|state| state.missed(offset, err));
        }
        if !written? {
            return Ok(false);
        }
        let wrote = |state: &mut State| {
            state.fill_hole(offset..offset + len);
            state.wrote(offset, len)
        };
        if let Some((settled, source)) = self.state.with(wrote) {
            self.begin_late(at, settled, source);
        }
        Ok(true)
    }

    /// Does `change`, from `offset` on, once the file can be changed in a moment; it says whether
    /// it was.
    pub(super) fn change_when_thawed(
        &self,
        at: &RemotePath,
        offset: u64,
        mut change: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        while !change()? {
            self.thaw(offset)?;
            // What was answered must not be done late: something else may have been written since.
            if caller::has_gone() {
                let detail = format!("{at}: nobody waits for this write any more");
                return Err(Error::new(ErrorKind::Interrupted, detail));
            }
        }
        Ok(())
    }

    /// One after the other; who comes second finds it done.
    fn thaw(&self, offset: u64) -> Result<()> {
        let _turn = lock(&self.thawing);
        let begun = self.state.with(|state| match &mut state.staged {
            Some(staged) => staged.begin_thaw(offset),
            None => Ok(None),
        })?;
        let Some(mut thaw) = begun else {
            return Ok(());
        };
        loop {
            let left = self.state.with(|state| {
                let staged = state.staged.as_ref();
                staged.map_or_else(Vec::new, |staged| staged.left_of(&thaw))
            });
            if left.is_empty() {
                break;
            }
            if let Err(err) = thaw.copy(&left) {
                self.state.with(|state| {
                    if let Some(staged) = &mut state.staged {
                        staged.give_up_thaw(&thaw);
                    }
                });
                return Err(err);
            }
        }
        let live = self.state.with(|state| state.thawed(thaw))?;
        // It sends the file that the journal has.
        if let Some(live) = live {
            self.contents.retire(live);
        }
        Ok(())
    }
}

fn start_pump(live: Arc<Live>, source: Source) {
    let pump = std::thread::Builder::new().name("content-pump".into());
    if let Err(err) = pump.spawn(move || live.pump(&source)) {
        log::debug!("no thread to upload behind the writer: {err}");
    }
}
