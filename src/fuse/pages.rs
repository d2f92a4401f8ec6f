//! The kernel's pages of a file, filled by us.

use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier};

use crate::vfs::Vfs;

/// A file of up to this length goes into the kernel's pages when it was written around them: who
/// reads it next, reads it there.
const SHARED: usize = 1 << 20;

/// The way to the kernel's pages, once there is a session.
#[derive(Clone, Default)]
pub(super) struct Pages(Arc<OnceLock<Notifier>>);

impl Pages {
    /// The session has begun.
    pub(super) fn reach_by(&self, notifier: Notifier) {
        self.0.get_or_init(|| notifier);
    }

    /// Stores what was written through `fh` there, if it is worth it.
    pub(super) fn share(&self, vfs: &Vfs, fh: u64) {
        let Some(notifier) = self.0.get() else { return };
        vfs.share_written(fh, SHARED, |ino, data| {
            if let Err(err) = notifier.store(INodeNo(ino), 0, data) {
                log::debug!("pages of inode {ino}: {err}");
            }
        });
    }
}
