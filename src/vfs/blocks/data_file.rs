//! The data file of a version, as its readers and its writer have it.
//!
//! What readers read goes into the page cache of the mount. A second copy in that of the data file
//! would take time and memory for nothing. So what is read in sequence is read around it
//! (`O_DIRECT`), unless it is there, as it is when it was written a moment ago; and what they have
//! read is written around it.

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

/// For writing.
#[derive(Debug)]
pub(super) struct Writing {
    file: File,
    /// The same file, without the page cache.
    disk: Option<File>,
}

/// Below this a copy is cheaper than waiting for the disk.
const BULK: usize = 256 << 10;

impl Writing {
    /// `disk` is the same file, opened for direct writes.
    pub(super) const fn new(file: File, disk: Option<File>) -> Self {
        Self { file, disk }
    }

    /// Puts `bytes` at `offset`; `around` the page cache where that can be and pays.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn write(&self, offset: u64, bytes: &[u8], around: bool) -> io::Result<()> {
        let done = match &self.disk {
            Some(disk) if around && bytes.len() >= BULK => direct(disk, offset, bytes),
            _ => 0,
        };
        let rest = bytes.get(done..).unwrap_or_default();
        self.file.write_all_at(rest, offset + done as u64)
    }
}

/// Writes whole units; none where that cannot be. How many bytes.
fn direct(disk: &File, offset: u64, bytes: &[u8]) -> usize {
    let unit = usize::try_from(UNIT).unwrap_or(usize::MAX);
    if !offset.is_multiple_of(UNIT) || !bytes.as_ptr().addr().is_multiple_of(unit) {
        return 0;
    }
    let whole = bytes.get(..bytes.len() - bytes.len() % unit);
    let mut done = 0;
    while let Some(rest) = whole
        .and_then(|all| all.get(done..))
        .filter(|rest| !rest.is_empty())
    {
        match disk.write_at(rest, offset + done as u64) {
            // A short one ends where the next may not begin.
            Ok(count) if count > 0 && count.is_multiple_of(unit) => done += count,
            // The page cache's way shows what is wrong.
            _ => break,
        }
    }
    done
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::sync::Arc;

    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    use super::*;
    use crate::vfs::chunk::Pool;

    #[test]
    fn what_is_written_around_the_page_cache_is_all_there() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("data");
        let open = |direct: bool, write: bool| {
            let flags = if direct {
                OFlags::DIRECT
            } else {
                OFlags::empty()
            };
            OpenOptions::new()
                .create(write)
                .truncate(false)
                .read(true)
                .write(write)
                .custom_flags(flags.bits().cast_signed())
                .open(&path)
        };
        // The end of a file is no whole unit; and a handle that takes nothing is no trouble.
        for (len, direct, write) in [
            (BULK, true, true),
            (BULK + 5, true, true),
            (BULK + 5, true, false),
            (BULK - 1, true, true),
            (3 * BULK, false, true),
        ] {
            let mut buffer = Arc::new(Pool::default()).take(len);
            let fill = buffer.as_mut_slice().iter_mut().enumerate();
            fill.for_each(|(at, byte)| *byte = (at % 251) as u8);
            let bytes = buffer.filled(len);
            let _ = fs::remove_file(&path);
            let file = open(false, true).unwrap();
            let writing = Writing::new(file, open(direct, write).ok());
            writing.write(UNIT, bytes.as_slice(), true).unwrap();
            let got = fs::read(&path).unwrap();
            assert!(got.get(4096..) == Some(bytes.as_slice()), "{len} bytes");
        }
    }
}
