//! Changing a file that is in the journal: the copy that takes long is made with nothing locked
//! that readers or the event threads need.

use super::file::Content;
use super::lock;
use crate::caller;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

impl Content {
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
