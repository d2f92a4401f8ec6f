//! One sequential reader's way through a file: a download kept open, and a window of what it read.
//!
//! The reader who needs the next bytes moves the stream on itself, under the `line`. Once it reads
//! in sequence a thread does that ahead of it (`pump.rs`), so that network, decryption and reader
//! work side by side.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::line::Line;
use super::lock;
use super::version::Version;
use super::window::{Budget, Window};
use crate::vfs::chunk::Chunk;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// A request this far ahead of a stream is read through to: the kernel's readahead asks out of
/// order from several threads, and on most links reading 2 MiB is cheaper than the four round trips
/// of another RETR.
pub(crate) const AHEAD: u64 = 2 << 20;

/// The least that a jump fetches.
pub(crate) const JUMP: u64 = 256 << 10;

/// What one window holds at most.
pub(super) const WINDOW: usize = 5 << 20;

/// What stays behind the reader, whose requests come out of order.
const BEHIND: u64 = 1 << 20;

/// The most and the least that is fetched ahead of a sequential reader.
const MOST_AHEAD: u64 = 3 << 20;
const LEAST_AHEAD: u64 = 256 << 10;

/// Files up to this size are fetched whole, and their connection given back at once.
pub(super) const SMALL: u64 = 1 << 20;

/// A first read this near to the beginning starts there: several threads bring the kernel's
/// readahead, the first request not always first.
const NEAR: u64 = 512 << 10;

/// Bytes read in sequence that make a reader a sequential one.
const SEQUENCE: u64 = 256 << 10;

/// Chunks begin small, for the first byte's sake, and grow with their stream.
const LEAST_CHUNK: u64 = 64 << 10;
pub(super) const MOST_CHUNK: u64 = 1 << 20;

/// Outcome of [`Stream::read`].
#[derive(Debug, Clone)]
pub(crate) enum Served {
    /// At least one byte.
    Bytes(Chunk),
    /// Nothing: the file ends here.
    End,
    /// Nothing: the stream is elsewhere by now.
    Passed,
}

/// Where the stream is and how far it is to go.
pub(super) struct Flow {
    pub(super) window: Window,
    /// The pump fetches up to here.
    pub(super) wanted: u64,
    /// A thread moves the stream on.
    pub(super) pumped: bool,
    /// How far it was read, and how much of that in sequence.
    pub(super) read: u64,
    sequence: u64,
    pub(super) closed: bool,
}

impl Flow {
    /// What may be dropped to make room.
    pub(super) const fn unread(&self) -> u64 {
        self.read.saturating_sub(BEHIND)
    }
}

/// See the module. Its position is where its window ends.
pub(crate) struct Stream {
    flow: Mutex<Flow>,
    /// For readers: the window changed, or the pump ended.
    pub(super) moved: Condvar,
    /// For the pump: more is wanted, or the stream was closed.
    pub(super) asked: Condvar,
    /// The window's span, for choosing among streams without their locks.
    start: AtomicU64,
    end: AtomicU64,
    begin: u64,
    /// Fetch at least up to here before the first answer.
    goal: u64,
    /// Held across the network: one at a time moves the stream on.
    line: Mutex<Line>,
    connected: AtomicBool,
    /// It is getting one.
    connects: AtomicBool,
    /// `pumped`, for those without the lock.
    moves: AtomicBool,
    /// Milliseconds on the clock of the mount.
    used: AtomicU64,
}

impl Stream {
    /// One for who reads at `offset` of a file of `size` bytes, the `first` of it or not.
    pub(super) fn begin(
        offset: u64,
        size: Option<u64>,
        first: bool,
        budget: Arc<Budget>,
        now: u64,
    ) -> Self {
        let small = size.is_some_and(|size| size <= SMALL);
        // Aligned, so that requests a little out of order find what they want.
        let begin = if small || (first && offset <= NEAR) {
            0
        } else {
            offset & !((64 << 10) - 1)
        };
        let goal = match size {
            Some(size) if small => size,
            Some(size) if begin > 0 => size.min(begin + JUMP),
            _ => 0,
        };
        let window = Window::new(begin, WINDOW, budget);
        Self {
            flow: Mutex::new(Flow {
                window,
                wanted: 0,
                pumped: false,
                read: begin,
                sequence: 0,
                closed: false,
            }),
            moved: Condvar::new(),
            asked: Condvar::new(),
            start: AtomicU64::new(begin),
            end: AtomicU64::new(begin),
            begin,
            goal,
            line: Mutex::default(),
            connected: AtomicBool::new(false),
            connects: AtomicBool::new(false),
            moves: AtomicBool::new(false),
            used: AtomicU64::new(now),
        }
    }

    /// How far the stream would have to go to `offset`; 0 if its window has that byte, `None` if it
    /// cannot get there.
    pub(crate) fn distance(&self, offset: u64) -> Option<u64> {
        let end = self.end.load(Ordering::Relaxed);
        if offset < end {
            return (offset >= self.start.load(Ordering::Relaxed)).then_some(0);
        }
        // Without a connection it has no advantage over a jump but its window.
        let goes = self.is_connected() || self.connects.load(Ordering::Relaxed);
        let reach = if goes { AHEAD } else { JUMP };
        Some(offset - end).filter(|distance| *distance <= reach)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether it is moved on ahead of a sequential reader.
    pub(super) fn is_pumped(&self) -> bool {
        self.moves.load(Ordering::Relaxed)
    }

    /// A pump begins or ends; `flow` is this stream's.
    pub(super) fn set_pumped(&self, flow: &mut Flow, pumped: bool) {
        flow.pumped = pumped;
        self.moves.store(pumped, Ordering::Relaxed);
    }

    /// Whether it has a connection and is moved on.
    pub(super) fn goes_on(&self) -> bool {
        self.is_connected() && self.is_pumped()
    }

    /// Whether `other`, which is on its way, has been where this one is: there is no need for both.
    pub(super) fn is_overtaken_by(&self, other: &Self) -> bool {
        let (start, end) = (other.start.load(Ordering::Relaxed), other.position());
        other.goes_on() && (start..end).contains(&self.position())
    }

    pub(super) fn position(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// When it was last used, on the clock of the mount.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn capacity(&self) -> usize {
        lock(&self.flow).window.counted()
    }

    /// Gives up memory, of what was read.
    pub(crate) fn shrink(&self, capacity: usize) {
        let mut flow = lock(&self.flow);
        // Nobody waits for what an idle stream fetched ahead.
        let unread = if capacity == 0 {
            u64::MAX
        } else {
            flow.unread()
        };
        flow.window.shrink(capacity, unread);
        self.publish_span(&flow.window);
    }

    /// Gives the connection back if nobody is reading. Whether it had one.
    pub(crate) fn hang_up_if_idle(&self) -> bool {
        let Ok(mut line) = self.line.try_lock() else {
            return false;
        };
        self.hang_up(&mut line)
    }

    /// Gives the connection back if nobody is reading, nor reads in sequence: who jumps about does
    /// not come back.
    pub(crate) fn leave(&self) {
        if !self.is_pumped() {
            self.hang_up_if_idle();
        }
    }

    /// Gives the connection back as soon as the read under way ends.
    pub(crate) fn hang_up_soon(&self) {
        self.hang_up(&mut lock(&self.line));
    }

    /// Nobody reads it for now: gives the connection back, unless it is just being read.
    pub(crate) fn pause(&self) {
        lock(&self.flow).wanted = 0;
        self.hang_up_if_idle();
    }

    /// Nobody will read it any more: gives the connection back, at once or, if the pump is just
    /// reading, when it sees that.
    pub(crate) fn close(&self) {
        lock(&self.flow).closed = true;
        self.asked.notify_one();
        self.hang_up_if_idle();
    }

    pub(super) fn hang_up(&self, line: &mut Line) -> bool {
        let had = line.download.take().is_some();
        self.connected.store(false, Ordering::Relaxed);
        had
    }

    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.line)
    }

    pub(super) fn flow(&self) -> MutexGuard<'_, Flow> {
        lock(&self.flow)
    }

    /// Bytes from `offset` on that are in the window, without waiting for anything.
    pub(crate) fn peek(&self, version: &Version, offset: u64, len: usize) -> Option<Chunk> {
        let found = lock(&self.flow).window.get(offset, len)?;
        if found.len() == len {
            self.note(version, offset, len);
        }
        Some(found)
    }

    /// Reads from `offset`, a part of what was asked perhaps. A `patient` reader rather looks
    /// where else it is.
    pub(crate) fn read(
        self: &Arc<Self>,
        version: &Arc<Version>,
        at: &RemotePath,
        offset: u64,
        len: usize,
        patient: bool,
    ) -> Result<Served> {
        self.used.store(version.now(), Ordering::Relaxed);
        let served = match self.await_pump(offset, len) {
            Some(served) => served,
            // The pump left that to others.
            None if patient && version.is_served_elsewhere(offset) => Served::Passed,
            None => self.read_in_turn(&mut lock(&self.line), version, at, offset, len)?,
        };
        if let Served::Bytes(chunk) = &served
            && self.note(version, offset, chunk.len())
        {
            version.pump(self);
        }
        Ok(served)
    }

    /// Notes what was read, and how far ahead the pump is to go. Whether there should be one.
    fn note(&self, version: &Version, offset: u64, len: usize) -> bool {
        self.used.store(version.now(), Ordering::Relaxed);
        let len = len as u64;
        let size = version.size().unwrap_or(u64::MAX);
        let mut flow = lock(&self.flow);
        let end = offset + len;
        let near = offset <= flow.read + BEHIND && end + BEHIND >= flow.read;
        flow.sequence = if near { flow.sequence + len } else { len };
        flow.read = flow.read.max(end);
        if flow.sequence < SEQUENCE {
            return false;
        }
        let ahead = flow.sequence.clamp(LEAST_AHEAD, MOST_AHEAD);
        let wanted = end.saturating_add(ahead).min(size);
        if wanted > flow.wanted {
            flow.wanted = wanted;
            if flow.pumped {
                self.asked.notify_one();
            }
        }
        !flow.pumped && !flow.closed && flow.window.span().end < size && self.is_connected()
    }

    /// Waits while the pump is on its way to `offset`; `None` if nobody is.
    fn await_pump(&self, offset: u64, len: usize) -> Option<Served> {
        let mut flow = lock(&self.flow);
        loop {
            if let Some(chunk) = flow.window.get(offset, len) {
                return Some(Served::Bytes(chunk));
            }
            let end = flow.window.span().end;
            if offset < end {
                return Some(Served::Passed);
            }
            if !flow.pumped {
                return None;
            }
            if offset - end > AHEAD + MOST_AHEAD {
                return Some(Served::Passed);
            }
            let wanted = offset + len as u64;
            if wanted > flow.wanted {
                flow.wanted = wanted;
                self.asked.notify_one();
            }
            flow = self
                .moved
                .wait(flow)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read_in_turn(
        &self,
        line: &mut Line,
        version: &Version,
        at: &RemotePath,
        offset: u64,
        len: usize,
    ) -> Result<Served> {
        let mut way = Way {
            version,
            at,
            resumed: false,
        };
        let mut first = None;
        loop {
            // Another reader may have moved the stream while this one waited for it.
            let hit = lock(&self.flow).window.get(offset, len);
            if let Some(chunk) = hit.or(first) {
                self.reach_goal(line, &mut way);
                return Ok(Served::Bytes(chunk));
            }
            let end = self.position();
            if offset < end || offset - end > AHEAD {
                return Ok(Served::Passed);
            }
            let chunk = self.advance(line, &mut way, offset - end + len as u64)?;
            if chunk.is_empty() {
                return Ok(Served::End);
            }
            // Without memory it is not in the window.
            let from = usize::try_from(offset - end).unwrap_or(usize::MAX);
            first = Some(chunk.part(from, len)).filter(|part| !part.is_empty());
        }
    }

    /// What the reader needs is there; a failure of the rest is told to who needs that. Where many
    /// jump about, none goes on where he was.
    fn reach_goal(&self, line: &mut Line, way: &mut Way<'_>) {
        while self.position() < self.goal && !self.is_hurried(way.version) {
            let more = self.goal - self.position();
            let held = lock(&self.flow).window.counted() as u64;
            if held < self.position() - self.begin {
                break;
            }
            if !matches!(self.advance(line, way, more), Ok(chunk) if !chunk.is_empty()) {
                break;
            }
        }
    }

    /// Whether it is one of many jumps, whose connection others need.
    fn is_hurried(&self, version: &Version) -> bool {
        self.goal > 0 && self.begin > 0 && version.behind().is_crowded()
    }

    /// How much is read at once at `pos`: more and more, up to a multiple of it.
    pub(super) fn step(&self, pos: u64, size: Option<u64>) -> usize {
        let small = size.is_some_and(|size| size <= MOST_CHUNK);
        let step = match (pos - self.begin).checked_next_power_of_two() {
            _ if small => MOST_CHUNK,
            Some(step) => (step / 2).clamp(LEAST_CHUNK, MOST_CHUNK),
            None => MOST_CHUNK,
        };
        let end = (pos + 1)
            .next_multiple_of(step)
            .min(size.unwrap_or(u64::MAX));
        usize::try_from(end.saturating_sub(pos)).unwrap_or(0).max(1)
    }

    /// Reads the next bytes of the stream into the window; nothing at the verified end. At least
    /// one byte of `needed` otherwise.
    fn advance(&self, line: &mut Line, way: &mut Way<'_>, needed: u64) -> Result<Chunk> {
        let version = way.version;
        let pos = self.position();
        let step = self.step(pos, version.size());
        let reserved = self.reserve(version, step);
        // What cannot be kept is not worth reading.
        let most = if reserved == 0 || self.is_hurried(version) {
            step.min(usize::try_from(needed).unwrap_or(step)).max(1)
        } else {
            step
        };
        let chunk = loop {
            match self.attempt(line, way, pos, most) {
                Ok(chunk) => break chunk,
                Err(err) => {
                    self.hang_up(line);
                    if way.resumed || !may_resume(&err) {
                        self.unreserve(reserved);
                        return Err(err.context(way.at));
                    }
                    log::debug!("{}: resuming at {pos}: {err}", way.at);
                    way.resumed = true;
                    if let Err(err) = version.validate(way.at) {
                        self.unreserve(reserved);
                        return Err(err);
                    }
                }
            }
        };
        self.arrived(version, pos, &chunk, reserved);
        Ok(chunk)
    }

    /// `chunk` was read at `pos`, the end of the window.
    pub(super) fn arrived(&self, version: &Version, pos: u64, chunk: &Chunk, reserved: usize) {
        version.keep(pos, chunk);
        let mut flow = lock(&self.flow);
        flow.window.push(chunk.clone(), reserved);
        self.publish_span(&flow.window);
        drop(flow);
        self.moved.notify_all();
    }

    /// Memory for `bytes` more; 0 if there is none.
    fn reserve(&self, version: &Version, bytes: usize) -> usize {
        let reserve = || {
            let mut flow = lock(&self.flow);
            let reserved = flow.window.reserve(bytes, u64::MAX);
            self.publish_span(&flow.window);
            drop(flow);
            reserved
        };
        if reserve() {
            return bytes;
        }
        // Others who are reading now make room for a newcomer, not for more comfort.
        let newcomer = lock(&self.flow).window.counted() == 0;
        version.relieve(bytes, newcomer);
        if reserve() { bytes } else { 0 }
    }

    pub(super) fn unreserve(&self, bytes: usize) {
        lock(&self.flow).window.give_back(bytes);
    }

    /// Reads from the download, which is begun if there is none.
    fn attempt(&self, line: &mut Line, way: &Way<'_>, pos: u64, most: usize) -> Result<Chunk> {
        if line.had_its_share() && way.version.others_wait() {
            self.hang_up(line);
        }
        if line.download.is_none() {
            self.connects.store(true, Ordering::Relaxed);
            let begun = way.version.retrieve(way.at, pos);
            self.connects.store(false, Ordering::Relaxed);
            *line = Line::of(begun?);
            self.connected.store(true, Ordering::Relaxed);
        }
        self.read_on(line, way.version, pos, most)
    }

    /// Reads `most` bytes from the open download, fewer where it ends or breaks. The connection is
    /// given back at the end of the file.
    pub(super) fn read_on(
        &self,
        line: &mut Line,
        version: &Version,
        pos: u64,
        most: usize,
    ) -> Result<Chunk> {
        let Some(mut download) = line.download.take() else {
            return Err(Error::new(ErrorKind::Disconnected, "no download"));
        };
        let mut buffer = version.buffer(most);
        let space = buffer.as_mut_slice();
        let mut count = 0;
        let mut ended = false;
        let began = Instant::now();
        while let Some(rest) = space.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match download.read(rest) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(more) => count += more,
                Err(err) if count == 0 => return Err(err),
                // What came is good; who needs more asks for it anew.
                Err(err) => {
                    log::debug!("after {} bytes: {err}", pos + count as u64);
                    version.passed(pos, space.get(..count).unwrap_or_default());
                    self.hang_up(line);
                    line.counts(count as u64, began.elapsed());
                    return Ok(buffer.filled(count));
                }
            }
        }
        version.passed(pos, space.get(..count).unwrap_or_default());
        line.counts(count as u64, began.elapsed());
        let reached = pos + count as u64;
        match version.size() {
            // Only the server's word makes this the end.
            None if count == 0 => {
                self.connected.store(false, Ordering::Relaxed);
                download.finish()?;
                version.ends_at(pos);
            }
            Some(size) if ended && reached < size => {
                let verdict = download.finish();
                let said = verdict.map_or_else(|err| err.to_string(), |()| "complete".into());
                let early = format!("ends after {reached} of {size} bytes: {said}");
                return Err(Error::new(ErrorKind::Protocol, early));
            }
            Some(size) if reached >= size => {
                self.connected.store(false, Ordering::Relaxed);
                if reached > size || download.read(&mut [0])? > 0 {
                    let longer = format!("goes on after its {size} bytes");
                    return Err(Error::new(ErrorKind::Protocol, longer));
                }
                download.conclude()?;
                version.compare()?;
            }
            _ => line.download = Some(download),
        }
        Ok(buffer.filled(count))
    }

    pub(super) fn publish_span(&self, window: &Window) {
        let span = window.span();
        self.start.store(span.start, Ordering::Relaxed);
        self.end.store(span.end, Ordering::Relaxed);
    }
}

/// One read on its way: what it may still do.
struct Way<'a> {
    version: &'a Version,
    at: &'a RemotePath,
    /// Every operation has one retry.
    resumed: bool,
}

/// Whether another connection may give what this one did not.
pub(super) fn may_resume(err: &Error) -> bool {
    use ErrorKind::{Disconnected, NotFound, Protocol, TimedOut};
    matches!(err.kind(), Disconnected | TimedOut | Protocol | NotFound)
}
