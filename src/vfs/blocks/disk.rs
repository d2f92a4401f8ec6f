//! The directory of the cache: data files, the log, the lock, and how full the disk is.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;

use super::BLOCK;
use super::data_file::Writing;
use super::entry::Entry;
use super::index::{Index, Record, runs};
use crate::sync::Locked;
use crate::vfs::chunk::Chunk;

pub(super) const LOCK: &str = "lock";

/// Bytes that are written before the disk's free space is looked at again.
pub(super) const LOOK_AGAIN: u64 = 16 << 20;

/// What is kept of the disk for others: a twentieth, at most this.
const KEPT_FREE: u64 = 1 << 30;

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) dir: PathBuf,
    /// A leaf, held while a few bytes are written to the log.
    pub(super) index: Locked<Option<Index>>,
    /// How long the log may get before it is written anew, in bytes.
    pub(super) longest_log: AtomicU64,
    /// Bytes that may be written before the free space is looked at.
    pub(super) allowance: AtomicU64,
    /// Locked until `close`.
    pub(super) lock: File,
}

impl Disk {
    /// Makes `dir` and locks it.
    pub(super) fn claim(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another mount is using this cache"));
            }
            Err(TryLockError::Error(err)) => return Err(err),
        }
        Ok(Self {
            dir: dir.to_owned(),
            index: Locked::default(),
            longest_log: AtomicU64::new(0),
            allowance: AtomicU64::new(0),
            lock,
        })
    }

    /// The data file of a version, made if the writer asks for it.
    pub(super) fn open_data(&self, id: u64, writer: bool) -> io::Result<File> {
        OpenOptions::new()
            .create(writer)
            .truncate(false)
            .read(true)
            .write(writer)
            .mode(0o600)
            .open(self.data(id))
    }

    /// The data file of a version, to be read or written around the page cache.
    pub(super) fn open_direct(&self, id: u64, writer: bool) -> io::Result<File> {
        OpenOptions::new()
            .read(!writer)
            .write(writer)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(self.data(id))
    }

    /// Without a single block nothing is left behind.
    pub(super) fn remove(&self) {
        for path in Index::files(&self.dir) {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_file(self.dir.join(LOCK));
        let _ = fs::remove_dir(&self.dir);
    }

    pub(super) fn data(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id:012x}"))
    }

    pub(super) fn write(
        &self,
        entry: &Entry,
        file: &Writing,
        first: u64,
        part: &Chunk,
        around: bool,
    ) -> io::Result<()> {
        let step = usize::try_from(BLOCK).unwrap_or(usize::MAX);
        file.write(first * BLOCK, part.as_slice(), around)?;
        let blocks = part.as_slice().chunks(step);
        let sums: Vec<u32> = blocks.map(crc32fast::hash).collect();
        let mut records: Vec<Record> = runs(entry.id, first, &sums).collect();
        if entry.log_first() {
            records.insert(0, described(entry));
        }
        self.log(&records);
        entry.note(first, &sums, true);
        Ok(())
    }

    /// Without its record a block is lost at the end of this mount, no more.
    pub(super) fn log(&self, records: &[Record]) {
        self.index.with(|index| {
            if let Some(index) = index
                && let Err(err) = index.add(records)
            {
                log::debug!("the index of the cache: {err}");
            }
        });
    }

    /// Whether others have enough of the disk when `more` bytes are taken.
    pub(super) fn has_space(&self, more: u64) -> bool {
        let taken = |left: u64| left.checked_sub(more);
        let (order, load) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.allowance.fetch_update(order, load, taken).is_ok() {
            return true;
        }
        let Ok(fs) = rustix::fs::statvfs(&self.dir) else {
            return false;
        };
        let unit = fs.f_frsize.max(1);
        let kept = (fs.f_blocks.saturating_mul(unit) / 20).min(KEPT_FREE);
        let free = fs.f_bavail.saturating_mul(unit).saturating_sub(kept);
        self.allowance
            .store(free.saturating_sub(more).min(LOOK_AGAIN), order);
        free >= more
    }
}

pub(super) fn described(entry: &Entry) -> Record {
    Record::Version {
        id: entry.id,
        key: entry.key,
        print: entry.print,
        seen: entry.seen,
        used: entry.used.load(Ordering::Relaxed),
        above: entry.above.clone(),
    }
}
