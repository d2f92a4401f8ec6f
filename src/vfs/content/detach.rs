//! A file that loses its name: what its handles need of it comes here first.

use super::file::Content;
use super::lock;
use crate::vfs::error::{ErrorKind, Result};
use crate::vfs::path::RemotePath;

impl Content {
    /// See [`bring`](crate::vfs::backend::OpenFile::bring).
    pub(super) fn bring_now(&self, at: &RemotePath) {
        let _turn = lock(&self.committing);
        if self.state.with(|state| state.readable && !state.detached)
            && let Err(err) = self.localize(at)
        {
            log::debug!("{at}: its content, before it goes: {err}");
        }
    }

    /// See [`detach`](crate::vfs::backend::OpenFile::detach).
    pub(super) fn detach_now(&self, at: &RemotePath) -> Result<bool> {
        let _turn = lock(&self.committing);
        let (base, readable, live, on_server) = self.state.with(|state| {
            let on_server = state.is_on_server();
            (
                state.base.clone(),
                state.readable,
                state.live.take(),
                on_server,
            )
        });
        if let Some(live) = live {
            live.give_up();
        }
        let mut exists = on_server;
        // A handle that only writes never asks for the old content.
        if readable {
            match self.localize(at) {
                // Another's version has this name, or nothing has: ours cannot be had any more.
                Err(err) if err.kind() == ErrorKind::Stale => {}
                Err(err) if err.kind() == ErrorKind::NotFound => exists = false,
                other => other?,
            }
        }
        if let Some(base) = base {
            base.hang_up();
        }
        self.state.with(|state| state.detached = true);
        Ok(exists)
    }
}
