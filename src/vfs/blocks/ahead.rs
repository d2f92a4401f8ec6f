//! Reads the data file of a version on ahead of its sequential reader, into memory, so that the disk
//! works while the kernel copies.
//!
//! Two threads take one piece after the other. They go when the reader is gone, or pauses.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::BLOCK;
use super::data_file::DataFile;
use super::entry::Entry;
use crate::vfs::chunk::{Chunk, Pool};

/// Bytes of a piece: a huge page, since disks take one at a time where memory is in small ones.
const PIECE: u64 = 2 << 20;

/// The most that the kernel asks for at once.
const REQUEST: u64 = 1 << 20;

/// How far the threads are ahead.
const DEPTH: u64 = 2 * PIECE;

/// One waits for the disk while the other prepares or checks.
const THREADS: usize = 2;

/// Readers of a mount for whom this is done at the same time, which bounds the memory.
const READERS: usize = 2;

/// Who read so much in sequence reads on.
const SEQUENCE: u64 = 256 << 10;

/// The kernel's requests come a little out of order.
const NEAR: u64 = PIECE;

/// How long a reader who pauses is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a piece is waited for: who reads the disk himself then waits, too, but for that alone.
const LONGEST: Duration = Duration::from_secs(10);

/// What is read ahead of one version.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// How far the reader is.
    reader: u64,
    /// How much was read in sequence up to there.
    sequence: u64,
    /// Where the next piece begins, and where there is nothing to read any more.
    next: u64,
    end: u64,
    threads: usize,
    closed: bool,
}

#[derive(Debug)]
struct Piece {
    offset: u64,
    len: u64,
    /// `None` while it is on its way.
    chunk: Option<Chunk>,
}

/// The right to read ahead, one of few.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(readers: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |count: usize| (count < READERS).then_some(count + 1);
        let (order, load) = (Ordering::Relaxed, Ordering::Relaxed);
        readers.fetch_update(order, load, more).ok()?;
        Some(Self(Arc::clone(readers)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A thread, however it ends.
struct Reading(Arc<Ahead>, #[expect(dead_code, reason = "held")] Arc<Place>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Ahead {
    /// Bytes from `offset` on, at most `len`, that were read ahead; waits for a piece that is on its
    /// way if it may.
    pub(super) fn take(&self, offset: u64, len: usize, wait: bool) -> Option<Chunk> {
        let mut state = self.lock();
        loop {
            let piece = state.pieces.iter().find(|piece| piece.has(offset))?;
            if let Some(chunk) = &piece.chunk {
                let from = usize::try_from(offset - piece.offset).ok()?;
                let part = chunk.part(from, len);
                state.read_to(offset + part.len() as u64);
                drop(state);
                self.changed.notify_all();
                return Some(part);
            }
            if !wait {
                return None;
            }
            let waited = self.changed.wait_timeout(state, LONGEST);
            let (after, time) = waited.unwrap_or_else(PoisonError::into_inner);
            if time.timed_out() {
                return None;
            }
            state = after;
        }
    }

    /// `len` bytes at `offset` were read of the disk: if that goes on in sequence, what comes next
    /// is read ahead. `readers` counts those of the mount.
    pub(super) fn went_on(
        self: &Arc<Self>,
        offset: u64,
        len: u64,
        readers: &Arc<AtomicUsize>,
        data: (&Arc<Entry>, &Arc<DataFile>),
    ) {
        let mut state = self.lock();
        let near = state.reader.abs_diff(offset) <= NEAR;
        if state.threads > 0 {
            if near {
                state.read_to(offset + len);
                drop(state);
                self.changed.notify_all();
            }
            return;
        }
        state.sequence = if near { state.sequence + len } else { 0 };
        let reached = offset + len;
        state.reader = if near {
            state.reader.max(reached)
        } else {
            reached
        };
        state.next = state.reader - state.reader % BLOCK;
        state.end = data.0.print.size;
        let goes_on = state.sequence >= SEQUENCE && state.next < state.end;
        if !goes_on || !data.0.has(state.next) {
            return;
        }
        let Some(place) = Place::take(readers).map(Arc::new) else {
            return;
        };
        let pool = Arc::new(Pool::default());
        for _ in 0..THREADS {
            let (ahead, pool, place) = (Arc::clone(self), Arc::clone(&pool), Arc::clone(&place));
            let (entry, file) = (Arc::clone(data.0), Arc::clone(data.1));
            let named = thread::Builder::new().name("cache-ahead".into());
            let started = named.spawn(move || {
                let reading = Reading(ahead, place);
                while reading.0.step(&entry, &file, &pool) {}
            });
            match started {
                Ok(_) => state.threads += 1,
                Err(err) => log::debug!("no thread to read the cache ahead: {err}"),
            }
        }
    }

    /// The reader is gone.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn step(&self, entry: &Entry, file: &DataFile, pool: &Arc<Pool>) -> bool {
        let Some((offset, len)) = self.next() else {
            return false;
        };
        let wanted = usize::try_from(len).unwrap_or(0);
        let mut buffer = pool.take(usize::try_from(PIECE).unwrap_or(wanted));
        let space = buffer.as_mut_slice().get_mut(..wanted).unwrap_or_default();
        let count = entry.read_disk(file, offset, space, DataFile::read_around);
        let mut state = self.lock();
        if count < wanted {
            state.end = state.end.min(offset + count as u64);
        }
        let at = state.pieces.iter().position(|piece| piece.offset == offset);
        match at.and_then(|at| state.pieces.get_mut(at)) {
            Some(piece) if count > 0 => {
                piece.len = count as u64;
                piece.chunk = Some(buffer.filled(count));
            }
            Some(_) => state.pieces.retain(|piece| piece.offset != offset),
            // The reader did not want it any more.
            None => {}
        }
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Where the next piece is, when it is time for it; `None` if the reader does not go on.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    fn next(&self) -> Option<(u64, u64)> {
        let mut state = self.lock();
        loop {
            if state.closed || state.reader >= state.end {
                return None;
            }
            if let Some(piece) = state.begin_piece() {
                return Some(piece);
            }
            let before = state.reader;
            let waited = self.changed.wait_timeout(state, PATIENCE);
            let (after, time) = waited.unwrap_or_else(PoisonError::into_inner);
            state = after;
            if time.timed_out() && state.reader == before {
                return None;
            }
        }
    }

    /// A thread ends; the last one gives the memory back.
    fn leave(&self) {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads == 0 {
            state.pieces.clear();
            state.sequence = 0;
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read_to(&mut self, offset: u64) {
        self.reader = self.reader.max(offset);
        // What is behind him is kept for a request that comes late.
        let done = self.reader.saturating_sub(REQUEST);
        self.pieces
            .retain(|piece| piece.offset + piece.len > done || piece.chunk.is_none());
    }

    fn begin_piece(&mut self) -> Option<(u64, u64)> {
        let reader = self.reader - self.reader % BLOCK;
        let offset = self.next.max(reader);
        if offset >= self.end || offset >= reader + DEPTH {
            return None;
        }
        // Pieces end where requests do, so that none has to be put together of two.
        let len = (PIECE - (offset - reader) % REQUEST).min(self.end - offset);
        self.next = offset + len;
        self.pieces.push_back(Piece {
            offset,
            len,
            chunk: None,
        });
        Some((offset, len))
    }
}

impl Piece {
    fn has(&self, offset: u64) -> bool {
        (self.offset..self.offset + self.len).contains(&offset)
    }
}
