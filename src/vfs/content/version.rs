//! One version of a file on the server, and how it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Contents;
use super::stream::{JUMP, Served, Stream};
use super::window::Window;
use crate::sync::Locked;
use crate::vfs::attr::{Attr, SetAttr};
use crate::vfs::backend::{Download, Transfers};
use crate::vfs::blocks::Cached;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// Files up to this size are fetched whole, and their connection given back at once.
const SMALL: u64 = 1 << 20;

/// Streams of one file that may hold a connection.
const CONNECTED: usize = 3;

/// Streams of one file that are remembered for their windows.
const REMEMBERED: usize = 32;

/// How long a validation is good for opening another stream.
const VALID: Duration = Duration::from_secs(5);

/// A first read this near to the beginning starts there: several threads bring the kernel's
/// readahead, the first request not always first.
const NEAR: u64 = 512 << 10;

/// A version of a file. Its bytes never change; where the server turns out to have another
/// version, reads fail with [`ErrorKind::Stale`] from then on.
pub(crate) struct Version {
    contents: Arc<Contents>,
    transfers: Arc<dyn Transfers>,
    /// What the cache has of it.
    cached: Option<Arc<Cached>>,
    attr: Locked<Attr>,
    streams: Locked<Vec<Arc<Stream>>>,
    validated: Locked<Instant>,
    stale: AtomicBool,
    /// Where the data ended, of a file whose size the server does not tell.
    end: Locked<Option<u64>>,
}

impl Version {
    pub(crate) fn new(
        contents: &Arc<Contents>,
        transfers: &Arc<dyn Transfers>,
        at: &RemotePath,
        attr: Attr,
    ) -> Self {
        Self {
            cached: contents.blocks.version(at, &attr),
            contents: Arc::clone(contents),
            transfers: Arc::clone(transfers),
            attr: Locked::new(attr),
            streams: Locked::default(),
            validated: Locked::new(Instant::now()),
            stale: AtomicBool::new(false),
            end: Locked::default(),
        }
    }

    pub(crate) fn attr(&self) -> Attr {
        self.attr.with(|attr| attr.clone())
    }

    /// The size the server told.
    pub(crate) fn size(&self) -> Option<u64> {
        self.attr.with(|attr| attr.size)
    }

    /// The server set times or mode at our wish: still the same version.
    pub(crate) fn adjust(&self, change: &SetAttr) {
        self.attr.with(|attr| {
            attr.mtime = change.mtime.or(attr.mtime);
            attr.mode = change.mode.or(attr.mode);
        });
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    /// Somebody just saw that the server has this version.
    pub(crate) fn validated(&self) {
        self.validated.with(|when| *when = Instant::now());
    }

    /// Asks the server whether it still has this version.
    ///
    /// # Errors
    /// `Stale` if not; what the server said if it could not be asked.
    pub(crate) fn validate(&self, at: &RemotePath) -> Result<()> {
        let changed = match self.transfers.stat_now(at) {
            Ok(now) => self.attr.with(|attr| attr.differs_from(&now)),
            Err(err) if err.kind() == ErrorKind::NotFound => true,
            Err(err) => return Err(err),
        };
        if changed {
            self.stale.store(true, Ordering::Relaxed);
            return Err(stale(at));
        }
        self.validated();
        Ok(())
    }

    /// Fills `buf` from `offset`; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// `Stale`, or what the server said, the one allowed retry included.
    pub(crate) fn read(&self, at: &RemotePath, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let left = self.known_end().map(|end| end.saturating_sub(offset));
        let most = left.and_then(|left| usize::try_from(left).ok());
        let wanted = most.map_or(buf.len(), |most| most.min(buf.len()));
        let mut done = 0;
        let mut passed = 0;
        while let Some(rest) = buf.get_mut(done..wanted).filter(|rest| !rest.is_empty()) {
            if self.is_stale() {
                return Err(stale(at));
            }
            let offset = offset + done as u64;
            let kept = self.cached.as_ref().map_or(0, |c| c.read(offset, rest));
            if kept > 0 {
                done += kept;
                continue;
            }
            let stream = self.stream_for(offset, passed);
            match stream.read(self, at, offset, rest)? {
                Served::Bytes(count) => (done, passed) = (done + count, 0),
                Served::End => break,
                Served::Passed => passed += 1,
            }
        }
        Ok(done)
    }

    /// Gives back the connections of all streams that nobody is reading. It does not wait for the
    /// others: they may be waiting for the caller's connection.
    pub(crate) fn hang_up(&self) {
        for stream in self.streams.with(|streams| streams.clone()) {
            stream.hang_up_if_idle();
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.contents.now()
    }

    pub(crate) fn others_wait(&self) -> bool {
        self.contents.turns.others_wait()
    }

    pub(crate) fn relieve(&self, bytes: usize, from_readers: bool) {
        self.contents.relieve(bytes, from_readers);
    }

    /// The server says that the data ends here.
    pub(crate) fn ends_at(&self, end: u64) {
        self.end.with(|known| *known = Some(end));
    }

    /// Begins another download of this version, waiting for a connection.
    pub(crate) fn retrieve(&self, at: &RemotePath, offset: u64) -> Result<Box<dyn Download>> {
        let age = self.validated.with(|when| when.elapsed());
        if age > VALID {
            self.validate(at)?;
        }
        let mut connected = self.streams.with(|streams| streams.clone());
        connected.retain(|stream| stream.is_connected());
        connected.sort_by_key(|stream| stream.used());
        let surplus = (connected.len() + 1).saturating_sub(CONNECTED);
        // The caller holds the line of its own stream, which has no connection: those who wait for
        // each other's lines here can form no circle.
        for stream in connected.iter().take(surplus) {
            stream.hang_up_soon();
        }
        self.contents
            .connection(|wait| self.transfers.retrieve(at, offset, wait))
    }

    fn known_end(&self) -> Option<u64> {
        self.size().or_else(|| self.end.with(|end| *end))
    }

    /// The stream nearest before `offset`, or a new one. Who was passed by too often gets one that
    /// nobody else knows.
    fn stream_for(&self, offset: u64, passed: u32) -> Arc<Stream> {
        let (size, now) = (self.size(), self.now());
        let (stream, new) = self.streams.with(|streams| {
            let near = streams
                .iter()
                .filter_map(|s| Some((s.distance(offset)?, s)));
            let nearest = near.min_by_key(|(distance, _)| *distance);
            if let Some((_, stream)) = nearest.filter(|_| passed < 4) {
                return (Arc::clone(stream), false);
            }
            let stream = Arc::new(self.new_stream(offset, size, streams.is_empty(), now));
            if passed < 4 {
                make_place(streams);
                streams.push(Arc::clone(&stream));
            }
            (stream, true)
        });
        if new {
            self.contents.register(&stream);
        }
        stream
    }

    fn new_stream(&self, offset: u64, size: Option<u64>, first: bool, now: u64) -> Stream {
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
        Stream::new(
            Window::new(begin, Arc::clone(&self.contents.budget)),
            goal,
            now,
        )
    }
}

/// Makes place for one more stream: the least recently used that has no connection is forgotten.
fn make_place(streams: &mut Vec<Arc<Stream>>) {
    streams.sort_by_key(|stream| stream.used());
    let idle = streams.iter().position(|stream| !stream.is_connected());
    if let Some(idle) = idle.filter(|_| streams.len() >= REMEMBERED) {
        streams.remove(idle);
    }
}

fn stale(at: &RemotePath) -> Error {
    Error::new(ErrorKind::Stale, format!("{at}: changed on the server"))
}
