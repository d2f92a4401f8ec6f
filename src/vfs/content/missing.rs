//! Whether a version was looked for on the server and not found there, and under which name.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::sync::Locked;
use crate::vfs::path::RemotePath;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Missing {
    is: AtomicBool,
    name: Locked<Option<RemotePath>>,
}

impl Missing {
    pub(super) fn is(&self) -> bool {
        self.is.load(Ordering::Relaxed)
    }

    /// There is another one at `at`, or nothing.
    pub(super) fn at(&self, at: &RemotePath) {
        self.name.with(|name| *name = Some(at.clone()));
        self.is.store(true, Ordering::Relaxed);
    }

    /// It is at `at`: what was found out under a name it had before says nothing of it. Whether
    /// there was such a thing.
    pub(super) fn renamed(&self, at: &RemotePath) -> bool {
        let renamed = self.is() && self.name.with(|name| name.as_ref() != Some(at));
        if renamed {
            self.is.store(false, Ordering::Relaxed);
        }
        renamed
    }
}
