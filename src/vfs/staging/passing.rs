//! Big contents on their way to the disk, around the page cache.
//!
//! Behind its writer an upload sends what was just written, and the staged copy is needed only if
//! it must be sent again. Through the page cache each megabyte of that copy would take pages that
//! were never used before, which costs more than the copying. So a piece stays in a buffer that is
//! used again and again until it was sent and is on the disk, where a thread writes it directly.
//! Where no buffer is free, the writer waits for one if that is quicker than the page cache; where
//! disk or network do not keep up, it goes through the page cache, which has more room.
//!
//! Until [`settle`](Passing::settle) the file lacks what is on its way: whoever touches it there
//! settles first.

mod pace;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::pace::{Pace, REST};
use crate::vfs::chunk::{Chunk, Pool};
use crate::vfs::error::{Error, Result};

/// Offsets and lengths that every disk takes.
const ALIGNMENT: u64 = 4096;

/// The least worth the trouble, in bytes.
const LEAST: usize = 64 << 10;

/// Bytes given to the disk at once.
const AT_ONCE: usize = 2 << 20;

/// Bytes of one file on their way at most.
const OF_ONE: usize = 6 << 20;

/// Bytes of all files of a mount on their way at most.
const OF_ALL: usize = 12 << 20;

/// How long the thread without work stays.
const IDLE: Duration = Duration::from_secs(1);

/// What a piece that finds no place since the disk is slow adds to the lag, of which each that finds
/// one takes 1 away.
const LAG: u32 = 4;

/// The page cache has more patience with a disk that lags so much: the next so many bytes go there.
const MOST_LAG: u32 = 64;

/// How long a writer waits for a place, and what must be sent meanwhile, in bytes, for it to go on
/// waiting: so many times at most.
const MOMENT: Duration = Duration::from_millis(10);
const PROGRESS: u64 = 4 << 20;
const MOMENTS: u32 = 8;

/// What is on its way of all files of a mount, and whether a writer waits for a place.
#[derive(Debug, Default)]
pub(super) struct Room {
    bytes: AtomicUsize,
    awaited: AtomicBool,
}

impl Room {
    fn take(&self, len: usize) -> bool {
        let taken = |used: usize| used.checked_add(len).filter(|sum| *sum <= OF_ALL);
        let (order, load) = (Ordering::Relaxed, Ordering::Relaxed);
        self.bytes.fetch_update(order, load, taken).is_ok()
    }
}

/// A place in the room.
#[derive(Debug)]
struct Taken(Arc<Room>, usize);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Piece {
    offset: u64,
    bytes: Chunk,
    on_disk: bool,
    _taken: Taken,
}

impl Piece {
    const fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

#[derive(Debug, Default)]
struct Pieces {
    /// In the order of their offsets, without overlap.
    all: VecDeque<Piece>,
    /// Up to where they were sent.
    sent: u64,
    /// Nobody sends them any more.
    unwatched: bool,
    /// There is a thread.
    served: bool,
    /// The file opened for it.
    direct: Option<Arc<File>>,
    /// The disk or its filesystem cannot.
    closed: bool,
    /// Up to where it is left alone, since it did not keep up.
    rests: u64,
    pace: Pace,
    /// See [`LAG`].
    lag: u32,
    /// Waiting for a place was in vain, and there was none since.
    in_vain: bool,
    failed: Option<Error>,
}

impl Pieces {
    fn bytes(&self) -> usize {
        self.all.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Whether there is a place for the next `len` bytes, at `offset`.
    fn has_place(&mut self, offset: u64, len: usize) -> bool {
        if self.closed || offset < self.rests {
            return false;
        }
        if self.bytes() + len <= OF_ONE {
            self.lag = self.lag.saturating_sub(1);
            self.in_vain = false;
            return true;
        }
        if self.wait_for_disk() {
            self.lag += LAG;
            if self.lag > MOST_LAG {
                (self.lag, self.rests) = (0, offset + REST);
            }
        }
        false
    }

    /// Whether it is the disk that most of what is on its way waits for.
    fn wait_for_disk(&self) -> bool {
        let waiting = self.all.iter().filter(|piece| !piece.on_disk);
        let waiting: usize = waiting.map(|piece| piece.bytes.len()).sum();
        waiting > OF_ONE / 2
    }

    /// The disk took `time` for `bytes`.
    fn judge(&mut self, bytes: u64, time: Duration) {
        let waits = self.wait_for_disk();
        if let Some(rest) = self.pace.judge(bytes, time, waits) {
            let end = self.all.back().map_or(0, Piece::end);
            self.rests = end.saturating_add(rest);
        }
    }

    /// Whether the next `len` bytes, at `offset`, have no place, but may soon have one.
    fn is_full(&self, offset: u64, len: usize) -> bool {
        let taken = !self.closed && offset >= self.rests && self.failed.is_none();
        taken && !self.in_vain && self.bytes() + len > OF_ONE
    }

    fn next(&self, from: u64, to: u64) -> Next {
        let Some(piece) = self.all.iter().find(|piece| piece.end() > from) else {
            return Next::File(to);
        };
        if piece.offset > from {
            return Next::File(to.min(piece.offset));
        }
        let skipped = usize::try_from(from - piece.offset).unwrap_or(usize::MAX);
        let most = usize::try_from(to - from).unwrap_or(usize::MAX);
        Next::Memory(piece.bytes.part(skipped, most))
    }

    fn drop_done(&mut self) {
        let (sent, unwatched) = (self.sent, self.unwatched);
        self.all
            .retain(|piece| !piece.on_disk || !unwatched && piece.end() > sent);
    }
}

/// Where the next bytes to send are.
pub(crate) enum Next {
    /// Here.
    Memory(Chunk),
    /// In the file, up to this offset.
    File(u64),
}

/// What of one staged file is on its way.
#[derive(Debug)]
pub(crate) struct Passing {
    file: Arc<File>,
    path: PathBuf,
    room: Arc<Room>,
    pieces: Mutex<Pieces>,
    changed: Condvar,
    /// For a writer that waits for a place.
    freed: Condvar,
}

impl Passing {
    pub(super) fn new(file: &Arc<File>, path: PathBuf, room: &Arc<Room>) -> Self {
        Self {
            file: Arc::clone(file),
            path,
            room: Arc::clone(room),
            pieces: Mutex::default(),
            changed: Condvar::new(),
            freed: Condvar::new(),
        }
    }

    /// Takes a copy of `data`, which belongs at `offset`, behind all that came before. `false`: it
    /// must go into the file at once.
    ///
    /// # Errors
    /// What came before could not be written.
    pub(super) fn take(
        self: &Arc<Self>,
        offset: u64,
        data: &[u8],
        pool: &Arc<Pool>,
    ) -> Result<bool> {
        let aligned = |number: u64| number.is_multiple_of(ALIGNMENT);
        if data.len() < LEAST || !aligned(offset) || !aligned(data.len() as u64) {
            return Ok(false);
        }
        {
            let mut pieces = self.lock();
            if let Some(err) = &pieces.failed {
                return Err(err.clone());
            }
            let before = pieces.rests;
            let place = pieces.has_place(offset, data.len());
            let rests = pieces.rests;
            drop(pieces);
            tell_of_rest(before, rests);
            if !place {
                return Ok(false);
            }
        }
        if !self.room.take(data.len()) {
            return Ok(false);
        }
        let taken = Taken(Arc::clone(&self.room), data.len());
        let mut buffer = pool.take(data.len());
        buffer.as_mut_slice().copy_from_slice(data);
        let piece = Piece {
            offset,
            bytes: buffer.filled(data.len()),
            on_disk: false,
            _taken: taken,
        };
        let mut pieces = self.lock();
        if pieces.direct.is_none() {
            pieces.direct = self.open_direct().map(Arc::new);
        }
        let served = match pieces.direct.is_some() {
            true => pieces.served || self.serve(),
            false => false,
        };
        pieces.served = served;
        pieces.closed |= !served;
        pieces.unwatched = false;
        if served {
            pieces.all.push_back(piece);
            drop(pieces);
            self.changed.notify_all();
        }
        Ok(served)
    }

    /// Waits until there is a place for `len` bytes at `offset`, while network and disk are quick to make
    /// one: in the page cache they would take more time from both. At most one writer of a mount
    /// waits at once, since nobody else is served by its thread meanwhile.
    pub(crate) fn wait_for_place(&self, offset: u64, len: usize) {
        let mut pieces = self.lock();
        if !pieces.is_full(offset, len) || self.room.awaited.swap(true, Ordering::Relaxed) {
            return;
        }
        for _ in 0..MOMENTS {
            let before = pieces.sent;
            let full = |pieces: &mut Pieces| pieces.is_full(offset, len);
            let waited = self.freed.wait_timeout_while(pieces, MOMENT, full);
            pieces = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !pieces.is_full(offset, len) {
                break;
            }
            pieces.in_vain = pieces.sent.saturating_sub(before) < PROGRESS;
        }
        drop(pieces);
        self.room.awaited.store(false, Ordering::Relaxed);
    }

    /// Where the bytes from `from` on are, at most up to `to`.
    pub(crate) fn next(&self, from: u64, to: u64) -> Next {
        self.lock().next(from, to)
    }

    /// All below this offset was sent.
    pub(crate) fn sent(&self, to: u64) {
        let mut pieces = self.lock();
        pieces.sent = to;
        pieces.drop_done();
        drop(pieces);
        self.freed.notify_all();
    }

    /// Nobody sends what is on its way: it need not stay in memory.
    pub(crate) fn unwatched(&self) {
        let mut pieces = self.lock();
        pieces.unwatched = true;
        pieces.drop_done();
        drop(pieces);
        self.freed.notify_all();
    }

    /// Waits until the file has all that came so far below `end`.
    ///
    /// # Errors
    /// Those of the disk, now and ever after.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    pub(crate) fn settle(&self, end: u64) -> Result<()> {
        let under_way = |pieces: &mut Pieces| {
            let lacks = |piece: &Piece| piece.offset < end && !piece.on_disk;
            pieces.failed.is_none() && pieces.all.iter().any(lacks)
        };
        let waited = self.changed.wait_while(self.lock(), under_way);
        let pieces = waited.unwrap_or_else(PoisonError::into_inner);
        pieces.failed.clone().map_or(Ok(()), Err)
    }

    /// Before the file is changed in `range`: it has everything, and everybody finds it there.
    pub(super) fn settle_for_change(&self, range: &Range<u64>) -> Result<()> {
        let apart = |piece: &Piece| piece.offset >= range.end || piece.end() <= range.start;
        if self.lock().all.iter().all(apart) {
            return Ok(());
        }
        self.settle(u64::MAX)?;
        self.lock().all.clear();
        Ok(())
    }

    fn open_direct(&self) -> Option<File> {
        let opened = File::options()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&self.path);
        opened
            .inspect_err(|err| {
                log::debug!("{}: not around the page cache: {err}", self.path.display())
            })
            .ok()
    }

    fn serve(self: &Arc<Self>) -> bool {
        let passing = Arc::clone(self);
        let thread = std::thread::Builder::new().name("staging-write".into());
        thread.spawn(move || while passing.write_some() {}).is_ok()
    }

    /// Writes the next pieces, one behind the other. Whether to go on.
    fn write_some(&self) -> bool {
        let waiting = |pieces: &mut Pieces| pieces.all.iter().all(|piece| piece.on_disk);
        let waited = self.changed.wait_timeout_while(self.lock(), IDLE, waiting);
        let (mut pieces, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let Some((range, parts)) = run(&pieces.all) else {
            pieces.served = false;
            return false;
        };
        let direct = pieces.direct.clone().filter(|_| !pieces.closed);
        drop(pieces);
        let began = Instant::now();
        let around = direct.is_some_and(|direct| write_directly(&direct, range.start, &parts));
        let took = began.elapsed();
        let written = match around {
            true => Ok(()),
            false => self.write_through(range.start, &parts),
        };
        let mut pieces = self.lock();
        let before = pieces.rests;
        pieces.closed |= !around;
        if let Err(err) = written {
            pieces.failed = Some(Error::local(self.path.display(), &err));
            pieces.served = false;
        } else {
            for piece in &mut pieces.all {
                piece.on_disk |= range.contains(&piece.offset);
            }
            pieces.judge(range.end - range.start, took);
            pieces.drop_done();
        }
        let (served, rests) = (pieces.served, pieces.rests);
        drop(pieces);
        self.changed.notify_all();
        self.freed.notify_all();
        tell_of_rest(before, rests);
        served
    }

    fn write_through(&self, mut offset: u64, parts: &[Chunk]) -> io::Result<()> {
        for part in parts {
            self.file.write_all_at(part.as_slice(), offset)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a disk does not keep up: past the lock, since a log may be a slow file.
fn tell_of_rest(before: u64, now: u64) {
    if now != before {
        log::debug!("the disk is slow: left alone up to byte {now} of a staged file");
    }
}

/// The first pieces that are not on disk, as far as they are one behind the other.
fn run(all: &VecDeque<Piece>) -> Option<(Range<u64>, Vec<Chunk>)> {
    let mut waiting = all.iter().filter(|piece| !piece.on_disk);
    let first = waiting.next()?;
    let (mut range, mut parts) = (first.offset..first.end(), vec![first.bytes.clone()]);
    for piece in waiting {
        let len = range.end - range.start + piece.bytes.len() as u64;
        if piece.offset != range.end || len > AT_ONCE as u64 {
            break;
        }
        range.end = piece.end();
        parts.push(piece.bytes.clone());
    }
    Some((range, parts))
}

/// Whether all was written.
fn write_directly(direct: &File, offset: u64, parts: &[Chunk]) -> bool {
    let len: usize = parts.iter().map(Chunk::len).sum();
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p.as_slice())).collect();
    match rustix::io::pwritev(direct, &slices, offset) {
        Ok(written) if written == len => true,
        told => {
            log::debug!("a staged file around the page cache: {told:?} of {len} bytes");
            false
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
