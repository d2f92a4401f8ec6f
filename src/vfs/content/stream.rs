//! One sequential reader's way through a file: a download kept open, and a window of what it read.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::lock;
use super::version::Version;
use super::window::Window;
use crate::sync::Locked;
use crate::vfs::backend::Download;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// A request this far ahead of a stream is read through to: the kernel's readahead asks out of
/// order from several threads, and on most links reading 2 MiB is cheaper than the four round trips
/// of another RETR.
pub(crate) const AHEAD: u64 = 2 << 20;

/// The least that a jump fetches.
pub(crate) const JUMP: u64 = 256 << 10;

/// What one window holds: it begins small and grows with its stream.
const LEAST_WINDOW: usize = 256 << 10;
const WINDOW: usize = 4 << 20;

/// What a reader may take from a connection while others wait for one.
const SHARE: u64 = 8 << 20;
const SHARE_TIME: Duration = Duration::from_millis(500);

const SCRATCH: usize = 64 << 10;

/// Outcome of [`Stream::read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing: the file ends here.
    End,
    /// Nothing: the stream is elsewhere by now.
    Passed,
}

#[derive(Default)]
struct Line {
    download: Option<Box<dyn Download>>,
    /// Bytes since it got its connection.
    served: u64,
    since: Option<Instant>,
}

/// See the module. Its position is where its window ends.
pub(crate) struct Stream {
    window: Locked<Window>,
    /// The window's span, for choosing among streams without their locks.
    start: AtomicU64,
    end: AtomicU64,
    /// Fetch at least up to here before the first answer.
    goal: u64,
    /// Held across the network: one reader at a time moves the stream on.
    line: Mutex<Line>,
    connected: AtomicBool,
    /// Milliseconds on the clock of the mount.
    used: AtomicU64,
}

impl Stream {
    pub(crate) fn new(window: Window, goal: u64, now: u64) -> Self {
        let span = window.span();
        Self {
            window: Locked::new(window),
            start: AtomicU64::new(span.start),
            end: AtomicU64::new(span.end),
            goal,
            line: Mutex::default(),
            connected: AtomicBool::new(false),
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
        let reach = if self.is_connected() { AHEAD } else { JUMP };
        Some(offset - end).filter(|distance| *distance <= reach)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// When it was last used, on the clock of the mount.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.window.with(|w| w.capacity())
    }

    /// Gives up memory.
    pub(crate) fn shrink(&self, capacity: usize) {
        self.window.with(|w| {
            w.shrink(capacity);
            self.publish_span(w);
        });
    }

    /// Gives the connection back if nobody is reading. Whether it had one.
    pub(crate) fn hang_up_if_idle(&self) -> bool {
        let Ok(mut line) = self.line.try_lock() else {
            return false;
        };
        self.hang_up(&mut line)
    }

    /// Gives the connection back as soon as the read under way ends.
    pub(crate) fn hang_up_soon(&self) {
        self.hang_up(&mut lock(&self.line));
    }

    fn hang_up(&self, line: &mut Line) -> bool {
        let had = line.download.take().is_some();
        self.connected.store(false, Ordering::Relaxed);
        had
    }

    /// Reads from `offset`, a part of what was asked perhaps.
    pub(crate) fn read(
        &self,
        version: &Version,
        at: &RemotePath,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<Served> {
        self.used.store(version.now(), Ordering::Relaxed);
        let hit = self.window.with(|w| w.copy(offset, buf));
        if hit > 0 {
            return Ok(Served::Bytes(hit));
        }
        let served = self.read_in_turn(&mut lock(&self.line), version, at, offset, buf);
        self.used.store(version.now(), Ordering::Relaxed);
        served
    }

    fn read_in_turn(
        &self,
        line: &mut Line,
        version: &Version,
        at: &RemotePath,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<Served> {
        // Another reader may have moved the stream while this one waited for it.
        let hit = self.window.with(|w| w.copy(offset, buf));
        if hit > 0 {
            return Ok(Served::Bytes(hit));
        }
        let end = self.end.load(Ordering::Relaxed);
        if offset < end || offset - end > AHEAD {
            return Ok(Served::Passed);
        }
        let mut way = Way {
            version,
            at,
            resumed: false,
        };
        self.read_on(line, &mut way, offset, buf)
    }

    fn read_on(
        &self,
        line: &mut Line,
        way: &mut Way<'_>,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<Served> {
        let mut scratch = Vec::new();
        loop {
            let distance = offset - self.end.load(Ordering::Relaxed);
            if distance == 0 {
                break;
            }
            if self.skip(line, way, &mut scratch, distance)? == 0 {
                return Ok(Served::End);
            }
        }
        let served = self.advance(line, way, buf)?;
        if served == 0 {
            return Ok(Served::End);
        }
        // What the reader needs is there; a failure of the rest is told to who needs that.
        while let Some(left) = self.left_to_goal() {
            if !matches!(self.skip(line, way, &mut scratch, left), Ok(1..)) {
                break;
            }
        }
        Ok(Served::Bytes(served))
    }

    /// How much more the first answer fetches, if the window can hold it.
    fn left_to_goal(&self) -> Option<u64> {
        let left = self.goal.checked_sub(self.end.load(Ordering::Relaxed))?;
        let fits = self.capacity() as u64 >= self.goal - self.start.load(Ordering::Relaxed);
        (left > 0 && fits).then_some(left)
    }

    fn skip(
        &self,
        line: &mut Line,
        way: &mut Way<'_>,
        scratch: &mut Vec<u8>,
        most: u64,
    ) -> Result<usize> {
        scratch.resize(SCRATCH, 0);
        let most = usize::try_from(most).unwrap_or(SCRATCH).min(SCRATCH);
        self.advance(line, way, scratch.get_mut(..most).unwrap_or_default())
    }

    /// Reads the next bytes of the stream into `buf` and the window; 0 at the verified end.
    fn advance(&self, line: &mut Line, way: &mut Way<'_>, buf: &mut [u8]) -> Result<usize> {
        let pos = self.end.load(Ordering::Relaxed);
        let count = loop {
            match self.attempt(line, way, pos, buf) {
                Ok(count) => break count,
                Err(err) => {
                    self.hang_up(line);
                    if way.resumed || !may_resume(&err) {
                        return Err(err.context(way.at));
                    }
                    log::debug!("{}: resuming at {pos}: {err}", way.at);
                    way.resumed = true;
                    way.version.validate(way.at)?;
                }
            }
        };
        line.served += count as u64;
        self.make_room(way.version, count);
        self.window.with(|w| {
            w.push(buf.get(..count).unwrap_or_default());
            self.publish_span(w);
        });
        Ok(count)
    }

    fn attempt(&self, line: &mut Line, way: &Way<'_>, pos: u64, buf: &mut [u8]) -> Result<usize> {
        let version = way.version;
        if line.had_its_share() && version.others_wait() {
            self.hang_up(line);
        }
        let mut download = match line.download.take() {
            Some(download) => download,
            None => {
                let download = version.retrieve(way.at, pos)?;
                self.connected.store(true, Ordering::Relaxed);
                line.served = 0;
                line.since = Some(Instant::now());
                download
            }
        };
        let count = download.read(buf)?;
        let reached = pos + count as u64;
        match version.size() {
            // Only the server's word makes this the end.
            None if count == 0 => {
                self.connected.store(false, Ordering::Relaxed);
                download.finish()?;
                version.ends_at(pos);
            }
            Some(size) if count == 0 => {
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
            }
            _ => line.download = Some(download),
        }
        Ok(count)
    }

    /// Grows the window for `count` more bytes, within its share of the budget.
    fn make_room(&self, version: &Version, count: usize) {
        let (capacity, span) = self.window.with(|w| (w.capacity(), w.span()));
        let held = usize::try_from(span.end - span.start).unwrap_or(usize::MAX);
        if held.saturating_add(count) <= capacity || capacity >= WINDOW {
            return;
        }
        let goal = usize::try_from(self.goal.saturating_sub(span.start)).unwrap_or(WINDOW);
        let wanted = (capacity * 4).max(goal).clamp(LEAST_WINDOW, WINDOW);
        let grow = |to| self.window.with(|w| w.grow(to));
        if grow(wanted) {
            return;
        }
        // Others who are reading now make room for a newcomer, not for more comfort.
        version.relieve(wanted - capacity, capacity == 0);
        if !grow(wanted) && capacity == 0 {
            grow(SCRATCH);
        }
    }

    fn publish_span(&self, window: &Window) {
        let span = window.span();
        self.start.store(span.start, Ordering::Relaxed);
        self.end.store(span.end, Ordering::Relaxed);
    }
}

impl Line {
    fn had_its_share(&self) -> bool {
        let long = |since: Instant| since.elapsed() >= SHARE_TIME;
        self.download.is_some() && (self.served >= SHARE || self.since.is_some_and(long))
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
fn may_resume(err: &Error) -> bool {
    use ErrorKind::{Disconnected, NotFound, Protocol, TimedOut};
    matches!(err.kind(), Disconnected | TimedOut | Protocol | NotFound)
}
