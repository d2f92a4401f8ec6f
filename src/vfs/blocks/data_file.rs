//! The data file of a version, as readers have it.
//!
//! What they read goes into the page cache of the mount. A second copy in that of the data file
//! would take time and memory for nothing. So what is read in sequence is read around it
//! (`O_DIRECT`), unless it is there, as it is when it was written a moment ago.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

/// What disks want offsets, lengths and addresses to be multiples of, at most.
const UNIT: u64 = 4096;

#[derive(Debug)]
pub(super) struct DataFile {
    file: File,
    around: Option<Around>,
}

/// The same file twice more.
#[derive(Debug)]
struct Around {
    /// Without the page cache.
    disk: File,
    /// To look into the page cache.
    pages: File,
}

impl DataFile {
    /// `disk` is the same file, opened for direct reads, and `pages` opened once more.
    pub(super) fn new(file: File, direct: Option<(File, File)>) -> Self {
        let around = direct.and_then(|(disk, pages)| {
            // A look at one page brings that page and no more.
            fadvise(&pages, 0, None, Advice::Random).ok()?;
            Some(Around { disk, pages })
        });
        Self { file, around }
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buf` with what is at `offset`.
    ///
    /// # Errors
    /// The disk's; `UnexpectedEof` where the file is too short.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// The same, around the page cache as far as that can be.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn read_around(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let Some(around) = &self.around else {
            return self.read(offset, buf);
        };
        let done = around.read(offset, buf);
        let rest = buf.get_mut(done..).unwrap_or_default();
        // Without the kernel's own reading ahead, after which the next piece would be there, too.
        around.pages.read_exact_at(rest, offset + done as u64)
    }
}

impl Around {
    /// Reads whole units from `offset` on; none where the page cache is quicker, or it cannot be.
    fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let unit = usize::try_from(UNIT).unwrap_or(usize::MAX);
        let whole = buf.len() - buf.len() % unit;
        if !offset.is_multiple_of(UNIT) || self.has_page(offset) {
            return 0;
        }
        let whole = buf.get_mut(..whole).unwrap_or_default();
        let read = self.disk.read_at(whole, offset).unwrap_or(0);
        // What the look brought would tell the next one of a piece that is not there.
        let _ = fadvise(&self.pages, offset, NonZeroU64::new(UNIT), Advice::DontNeed);
        read
    }

    fn has_page(&self, offset: u64) -> bool {
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        preadv2(&self.pages, &mut bytes, offset, ReadWriteFlags::NOWAIT).is_ok()
    }
}
