//! What becomes of content that could not be brought to the server when nobody has it open any
//! more.

use std::path::PathBuf;

use super::file::Content;
use super::live::is_trouble;
use crate::vfs::error::{Error, ErrorKind};
use crate::vfs::journal::Entry;
use crate::vfs::path::RemotePath;
use crate::vfs::staging::Staged;

impl Content {
    /// The last handle goes and the content could not be brought to the server.
    fn keep(&self, staged: Staged, at: &RemotePath, why: &str) {
        let name = at.split().map(|(_, name)| PathBuf::from(name.as_os_str()));
        let missing = match staged.remote_bytes() {
            0 => String::new(),
            bytes => format!(", without {bytes} bytes of the old version"),
        };
        let staged_at = staged.named().path().to_path_buf();
        let why = format!("{why}{missing}");
        let kept = staged.keep(&name.unwrap_or_default(), &at.to_string(), &why);
        let (place, trouble) = match kept {
            Ok(place) => (place, String::new()),
            Err(err) => (staged_at, format!(" ({err})")),
        };
        let place = place.display();
        log::warn!("{at}: not on the server: {why}; kept as {place}{trouble}");
    }

    /// What becomes of content that is not on the server and that nobody has open any more: what
    /// the journal has waits for the next mount, unless `refused` says that this is in vain.
    pub(super) fn put_away(
        &self,
        staged: Staged,
        entry: Option<Entry>,
        at: &RemotePath,
        why: &str,
        refused: bool,
    ) {
        let Some(entry) = entry else {
            return self.keep(staged, at, why);
        };
        let ours = entry.is_of(staged.named());
        if refused {
            self.keep(staged, at, why);
            return if ours { entry.forget() } else { entry.remove() };
        }
        if ours {
            log::info!("{at}: not on the server: {why}; the next mount goes on with it");
        } else {
            // What came after it was never acknowledged.
            self.keep(staged, at, why);
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let (live, staged, entry, place) = self.state.with(|state| {
            let dirty = state.is_dirty();
            let staged = state.staged.take_if(|_| dirty);
            (
                state.live.take(),
                staged,
                state.entry.take(),
                state.place.clone(),
            )
        });
        if let Some(live) = live {
            live.give_up();
        }
        if let Some(staged) = staged {
            self.put_away(staged, entry, &place, "it was never closed", false);
        }
    }
}

/// Whether another time, or another mount, may do better.
pub(super) fn is_passing(err: &Error) -> bool {
    use ErrorKind::{Corrupt, NoSpace, QuotaExceeded};
    is_trouble(err) || matches!(err.kind(), Corrupt | NoSpace | QuotaExceeded)
}
