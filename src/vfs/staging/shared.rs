//! A staged file that the kernel reads by itself, for those who opened it before it was changed.
//!
//! It was the data file of the cache, and has all of the content. What is written goes into this file
//! and no other, so that they see it at once. Who has it open for reading and writing can map it into
//! memory and write to it unseen, even after the last descriptor was closed: that shows in the file's
//! modification time alone, and once a page was written to only after the kernel has cleaned it. So
//! whoever looks has it cleaned first.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use super::{Named, Staged, StagingDir};
use crate::vfs::attr::SetAttr;
use crate::vfs::content::extents::Extents;
use crate::vfs::error::{Error, Result};
use crate::vfs::path::RemotePath;

/// A modification time so old tells any later write from what was before, however coarse the
/// kernel's clock is.
const GRAIN: Duration = Duration::from_millis(25);

/// Looks at a file that is being written to.
const LOOKS: u32 = 3;

/// How a file looked that may be written to unseen: its modification time; `None` while that could
/// hide another write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen(Option<SystemTime>);

impl Seen {
    /// Looks at `file`. `mapped`: it may be mapped already. Takes as long as the disk takes.
    pub(crate) fn of(file: &File, mapped: bool) -> Self {
        for look in 0..LOOKS {
            if look > 0 {
                thread::sleep(GRAIN);
            }
            let before = SystemTime::now();
            if mapped && file.sync_data().is_err() {
                break;
            }
            let changed = file.metadata().and_then(|found| found.modified());
            if let Ok(changed) = changed
                && changed + GRAIN < before
            {
                return Self(Some(changed));
            }
        }
        Self(None)
    }
}

impl Staged {
    /// All of a content: the `file` that the kernel reads by itself, at `path` or without a name.
    ///
    /// # Errors
    /// Those of the local disk.
    pub(crate) fn shared(
        dir: &Arc<StagingDir>,
        place: &RemotePath,
        (file, path): (File, PathBuf),
    ) -> Result<Self> {
        let len = file.metadata().map(|found| found.len());
        let len = len.map_err(|err| Error::local(path.display(), &err))?;
        let mut local = Extents::default();
        if len > 0 {
            local.insert(0..len);
        }
        Ok(Self {
            dir: Arc::clone(dir),
            named: Arc::new(dir.adopt(file, path, place)),
            place: place.clone(),
            frozen: None,
            thawing: false,
            local,
            len,
            base_len: len,
            unchanged: len,
            unchanged_since: u64::MAX,
            generation: 0,
            committed: 0,
            attr: SetAttr::default(),
            seen: None,
        })
    }

    /// Whether the kernel reads this very file.
    pub(crate) fn is_shared(&self) -> bool {
        self.named.is_lent()
    }

    /// Whether programs may have mapped it to write to it.
    pub(crate) const fn is_watched(&self) -> bool {
        self.seen.is_some()
    }

    /// Notes how it looks. Whether it was, or may have been, written to since the last time; the
    /// first time begins it.
    pub(crate) fn note(&mut self, seen: Seen) -> bool {
        let before = self.seen.replace(seen);
        before.is_some_and(|before| before != seen || seen.0.is_none())
    }

    /// All of it may be another content now.
    pub(crate) fn changed_unseen(&mut self) {
        self.changed_from(0);
    }
}

impl Named {
    /// Another descriptor of the file.
    pub(crate) fn again(&self) -> Option<File> {
        self.file().try_clone().ok()
    }
}
