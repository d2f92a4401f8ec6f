//! What was sent of a big staged file does not stay in memory.
//!
//! A staged file lives in the page cache until the kernel finds time for it. A big upload would push
//! everything else out of memory, and each of its bytes into a page that was never used before,
//! which costs more than the copy. So what is sent goes to the disk while the upload goes on, and
//! its pages are used again. Nothing else changes: the file is whole, on disk instead of in memory.

use std::fs::File;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};

use rustix::fs::{Advice, fadvise};

use crate::vfs::staging::BIG;

/// Behind what was sent: time for the disk, so that the pages are clean when they are dropped.
const DISTANCE: u64 = 8 << 20;

/// The pages of one staged file that is being sent. The disk may be slower than the network, so
/// the work is done on a thread of its own, which ends with this.
pub(super) struct DropBehind {
    file: Arc<File>,
    progress: Option<SyncSender<u64>>,
}

impl DropBehind {
    pub(super) const fn new(file: Arc<File>) -> Self {
        Self {
            file,
            progress: None,
        }
    }

    /// The file was sent up to this offset, out of its pages. Never blocks.
    pub(super) fn sent(&mut self, to: u64) {
        if to <= BIG {
            return;
        }
        let progress = self.progress.get_or_insert_with(|| {
            let (tell, told) = mpsc::sync_channel(1);
            let file = Arc::clone(&self.file);
            let dropping = std::thread::Builder::new().name("content-drop".into());
            // Without the thread the pages stay, which is no harm.
            let _ = dropping.spawn(move || drop_pages(&file, &told));
            tell
        });
        // A disk that lags behind hears of the next piece.
        let _ = progress.try_send(to);
    }
}

fn drop_pages(file: &File, told: &Receiver<u64>) {
    let (mut written, mut dropped) = (0, 0);
    while let Ok(sent) = told.recv() {
        // Begins to write what is dirty, and drops only what is clean.
        unneeded(file, written, sent);
        written = sent;
        let clean = sent.saturating_sub(DISTANCE);
        unneeded(file, dropped, clean);
        dropped = clean.max(dropped);
    }
}

fn unneeded(file: &File, from: u64, to: u64) {
    let Some(len) = NonZeroU64::new(to.saturating_sub(from)) else {
        return;
    };
    if let Err(err) = fadvise(file, from, Some(len), Advice::DontNeed) {
        log::debug!("pages of a staged file: {err}");
    }
}
