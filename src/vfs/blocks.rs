//! The block cache: blocks of file content on local disk, for all readers of a mount and for the
//! next mount.
//!
//! A [`Cached`] is one version of one file, told from others by path, size, modification time and
//! the server's identity of it (`print.rs`). Its blocks lie at their own offsets in a sparse data
//! file; a log (`index.rs`) tells which are there, with a checksum of each. What an earlier mount
//! wrote is compared with its checksum when it is first read, so nothing need be synced: after
//! `kill -9`, a power cut or a bad disk a block is what was written, or it is not there.
//!
//! **Nobody waits for the disk.** What was read from the server is handed to one thread
//! (`writer.rs`) that runs when nothing else wants the CPU. Where it does not keep up, blocks are
//! left out: a server that is faster than the disk need not be cached. Only who fetches for the
//! cache waits ([`Cached::put_wait`]). Of what comes as fast as from a disk, and can be fetched once
//! more, the disk gets what it takes by itself, and of what comes faster than that nothing
//! ([`Cached::put_light`]): a copy in the page cache would take half of the reader's time.
//!
//! **Small files** come whole ([`Cached::put_whole`]) and stay in memory for a while, so that they
//! can be read before the disk has them, and without a disk.
//!
//! **Bounds.** The limit is never exceeded, and the disk keeps some room for others; what was not
//! used for longest goes first. A version whose time stamp could hide a change, because it is
//! coarse and recent, is in memory for seconds only and never on disk.

mod ahead;
mod data_file;
mod disk;
mod entry;
mod index;
mod pace;
mod print;
mod store;
mod takeover;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::attr::Attr;
use super::chunk::Chunk;
use super::error::words;
use super::path::RemotePath;
use ahead::Ahead;
use data_file::DataFile;
use entry::Entry;
use store::Store;
use writer::{Patience, Queue};

/// Bytes in a block. What is put begins at a multiple of it, and ends at one or at the file's end.
pub const BLOCK: u64 = 64 << 10;

/// How much the cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk, the index included.
    pub bytes: u64,
    /// What was not used for so long is removed; `None`: only when room is needed.
    pub age: Option<Duration>,
    /// Bytes of memory for whole small files, and as much again on its way to the disk.
    pub memory: usize,
    /// What comes faster than this, in bytes a second, comes from the server as fast as from a disk,
    /// and may be left out if it can be fetched once more.
    pub fast: u64,
}

/// What the cache holds and was good for, for `ferryfs status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// Where it is; `None` if it is off.
    pub dir: Option<PathBuf>,
    /// Versions of files.
    pub files: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// The most they may be.
    pub limit: u64,
    /// Reads that were answered from it.
    pub hits: u64,
    /// Bytes of these.
    pub hit_bytes: u64,
    /// Why it is not used although it should be.
    pub trouble: Option<String>,
}

/// The cache of one mount.
#[derive(Debug)]
pub struct Blocks {
    store: Arc<Store>,
    queue: Arc<Queue>,
    hits: AtomicU64,
    hit_bytes: AtomicU64,
    readers_ahead: Arc<AtomicUsize>,
}

impl Blocks {
    /// A cache without a disk: small files in `memory` bytes.
    #[must_use]
    pub fn in_memory(memory: usize) -> Arc<Self> {
        let limits = Limits {
            bytes: 0,
            age: None,
            memory,
            fast: u64::MAX,
        };
        Self::with(Store::off(limits, None))
    }

    /// The cache in `dir`, which is made if need be. Where it cannot be used, because of the disk
    /// or because another mount has it, it is as [`in_memory`](Self::in_memory), and the report
    /// says why.
    #[must_use]
    pub fn open(dir: &Path, limits: Limits) -> Arc<Self> {
        if limits.bytes == 0 {
            return Self::with(Store::off(limits, None));
        }
        let store = Store::open(dir, limits).unwrap_or_else(|err| {
            let line = format!(
                "{}: {}; reading without a cache on disk",
                dir.display(),
                words(&err)
            );
            log::warn!("{line}");
            Store::off(limits, Some(line))
        });
        Self::with(store)
    }

    fn with(store: Store) -> Arc<Self> {
        let store = Arc::new(store);
        let queue = Queue::start(&store);
        Arc::new(Self {
            store,
            queue,
            hits: AtomicU64::new(0),
            hit_bytes: AtomicU64::new(0),
            readers_ahead: Arc::default(),
        })
    }

    /// The version of `path` that `attr` describes, with what is here of it. Ask before its data is
    /// fetched: what changes from now on must show. `None` where the server does not say enough to
    /// tell versions apart.
    #[must_use]
    pub fn version(self: &Arc<Self>, path: &RemotePath, attr: &Attr) -> Option<Arc<Cached>> {
        let entry = self.store.version(path, attr)?;
        Some(Arc::new(Cached {
            blocks: Arc::clone(self),
            entry,
            file: OnceLock::new(),
            ahead: Arc::default(),
        }))
    }

    /// Whether all of this version is here.
    #[must_use]
    pub fn is_complete(&self, path: &RemotePath, attr: &Attr) -> bool {
        let entry = self.store.find(path, attr);
        entry.is_some_and(|entry| entry.is_complete())
    }

    /// `path` is or will be another file than it was: what is here of it is not used any more.
    pub fn forget(&self, path: &RemotePath) {
        self.store.forget(path);
    }

    /// The same for everything in the directory `dir`, which has another name now, or another has its.
    pub fn forget_below(&self, dir: &RemotePath) {
        self.store.forget_below(dir);
    }

    /// Whether there is a disk for blocks.
    #[must_use]
    pub fn has_disk(&self) -> bool {
        self.store.disk().is_some()
    }

    /// The most bytes on disk.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.store.limits.bytes
    }

    /// What it holds.
    #[must_use]
    pub fn report(&self) -> CacheReport {
        CacheReport {
            hits: self.hits.load(Ordering::Relaxed),
            hit_bytes: self.hit_bytes.load(Ordering::Relaxed),
            ..self.store.report()
        }
    }

    /// Bytes of reads that were answered from it.
    #[must_use]
    pub fn hit_bytes(&self) -> u64 {
        self.hit_bytes.load(Ordering::Relaxed)
    }

    /// Waits until all that was put is written, or was given up. For tests and the end.
    pub fn settle(&self) {
        self.queue.settle();
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.queue.close();
        self.store.close();
    }
}

/// One version of a file in the cache.
#[derive(Debug)]
pub struct Cached {
    blocks: Arc<Blocks>,
    entry: Arc<Entry>,
    /// Opened when it is first needed; stays readable when the version is evicted.
    file: OnceLock<Option<Arc<DataFile>>>,
    ahead: Arc<Ahead>,
}

impl Cached {
    /// Bytes from `offset` on that are in memory, without waiting for anything.
    #[must_use]
    pub fn peek(&self, offset: u64, len: usize) -> Option<Chunk> {
        let memory = self.entry.memory(offset).map(|chunk| chunk.part(0, len));
        let found = memory.or_else(|| self.ahead.take(offset, len, false))?;
        self.count(found.len());
        Some(found)
    }

    /// Bytes from `offset` on that are about to be in memory, as they are read in sequence.
    #[must_use]
    pub fn await_ahead(&self, offset: u64, len: usize) -> Option<Chunk> {
        let found = self.ahead.take(offset, len, true)?;
        self.count(found.len());
        Some(found)
    }

    /// Reads from `offset` what is here in one piece; 0 if nothing.
    #[must_use]
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        if let Some(chunk) = self.entry.memory(offset) {
            let count = chunk.copy_to(buf);
            self.count(count);
            return count;
        }
        // What has just come, and is on its way to the disk, may have no file yet.
        if !self.entry.is_on_disk(offset) {
            return 0;
        }
        let Some(file) = self.file() else {
            return 0;
        };
        let count = self.entry.read_disk(file, offset, buf, DataFile::read);
        let readers = &self.blocks.readers_ahead;
        self.ahead
            .went_on(offset, count as u64, readers, (&self.entry, file));
        self.count(count);
        count
    }

    /// Whether the byte at `offset` is here.
    #[must_use]
    pub fn has(&self, offset: u64) -> bool {
        self.entry.has(offset)
    }

    /// How many of the `most` bytes from `offset` on are here in one piece.
    #[must_use]
    pub fn run(&self, offset: u64, most: u64) -> u64 {
        self.entry.run(offset, most)
    }

    /// Whether all of it is here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.entry.is_complete()
    }

    /// Whether blocks of this version may be kept on disk.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.entry.volatile.is_none() && !self.entry.is_gone() && self.blocks.has_disk()
    }

    /// Keeps `chunk`, whole blocks from `offset` on, unless the disk is behind. Whether it will be
    /// kept.
    pub fn put(&self, offset: u64, chunk: Chunk) -> bool {
        self.offer(offset, chunk, Patience::None)
    }

    /// The same with less work, where it comes so fast that it can as well be fetched again: see
    /// [`left_out`](Self::left_out).
    pub fn put_light(&self, offset: u64, chunk: Chunk) -> bool {
        self.offer(offset, chunk, Patience::Light)
    }

    /// The same, but waits for the disk for a while.
    #[must_use]
    pub fn put_wait(&self, offset: u64, chunk: Chunk, patience: Duration) -> bool {
        self.offer(offset, chunk, Patience::Wait(patience))
    }

    fn offer(&self, offset: u64, chunk: Chunk, patience: Patience) -> bool {
        self.keeps()
            && self
                .blocks
                .queue
                .offer(&self.entry, offset, chunk, patience)
    }

    /// Where that lies, whole blocks, which [`put_light`](Self::put_light) left out and which is not
    /// here yet; `None` also where more is missing there than was read.
    #[must_use]
    pub fn left_out(&self) -> Option<Range<u64>> {
        let (span, bytes) = self.entry.left_out()?;
        let missing = self.entry.missing(&span);
        (self.keeps() && missing > 0 && missing <= bytes).then_some(span)
    }

    /// All of it, if an earlier mount left at least half here that nobody has looked at yet.
    #[must_use]
    pub fn left_unproven(&self) -> Option<Range<u64>> {
        let all = 0..self.entry.print.size;
        let told = self.entry.told();
        let pays = self.keeps() && told > 0 && self.entry.missing(&all) <= told;
        pays.then_some(all)
    }

    /// Looks whether what is on disk from `offset` on, in one piece, at most as much as `buf` has,
    /// is what was written. What is not is not here any more. How much was looked at.
    #[must_use]
    pub fn prove(&self, offset: u64, buf: &mut [u8]) -> usize {
        self.file().map_or(0, |file| {
            self.entry
                .read_disk(file, offset, buf, DataFile::read_around)
        })
    }

    /// Keeps the whole content: in memory at once, and on disk behind. It waits for a while if the
    /// disk is far behind. Whether it is kept; `false` also if `content` has not the right size.
    pub fn put_whole(&self, content: Vec<u8>) -> bool {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.put_all(&Chunk::new(content), Patience::Wait(PATIENCE))
    }

    /// The same without waiting: a disk that is far behind does not get it.
    pub fn put_whole_now(&self, content: &Chunk) -> bool {
        self.put_all(content, Patience::None)
    }

    fn put_all(&self, content: &Chunk, patience: Patience) -> bool {
        if content.len() as u64 != self.entry.print.size || self.entry.is_gone() {
            return false;
        }
        let kept = self.blocks.store.remember(&self.entry, content);
        if !content.is_empty() && self.keeps() {
            let queue = &self.blocks.queue;
            queue.offer(&self.entry, 0, content.clone(), patience);
        }
        kept
    }

    /// The data file, if all of it is there and known to be good.
    #[must_use]
    pub fn whole_file(&self) -> Option<&File> {
        if self.entry.is_good() {
            self.file().map(|file| file.file())
        } else {
            None
        }
    }

    /// Gives the data file of [`whole_file`](Self::whole_file) to who is going to change it, as `to`
    /// where it can have that name, else without any. The cache has nothing of this version any
    /// more.
    ///
    /// # Errors
    /// Those of the disk, and if somebody else reads it here: then the cache still has it.
    pub fn give(&self, to: &Path) -> io::Result<File> {
        let Some(file) = self.whole_file() else {
            return Err(io::Error::other("not all of it is in the cache"));
        };
        // By its name it could not be opened if it has lost that.
        let again = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = File::options().read(true).write(true).open(again)?;
        if Arc::strong_count(&self.entry) > 2 {
            return Err(io::Error::other("somebody else reads it"));
        }
        self.blocks.store.give(&self.entry, to);
        Ok(file)
    }

    fn file(&self) -> Option<&Arc<DataFile>> {
        let open = || self.blocks.store.open_read(&self.entry).map(Arc::new);
        self.file.get_or_init(open).as_ref()
    }

    fn count(&self, bytes: usize) {
        if bytes > 0 {
            self.blocks.hits.fetch_add(1, Ordering::Relaxed);
            let bytes = bytes as u64;
            self.blocks.hit_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        self.ahead.close();
    }
}

/// Versions that are known at most, so that the table stays small.
const FILES: usize = 32_768;

/// How long a version is good whose time stamp could hide a change: as long as a listing is
/// believed.
const VOLATILE: Duration = Duration::from_secs(5);
