//! One version of a file on the server, and how it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Contents;
use super::behind::{self, Behind};
use super::check::Check;
use super::fill;
use super::missing::Missing;
use super::pump;
use super::spot;
use super::stream::{SMALL, Served, Stream};
use crate::sync::Locked;
use crate::vfs::attr::{Attr, SetAttr};
use crate::vfs::backend::{Download, Need, Transfers};
use crate::vfs::blocks::{BLOCK, Cached};
use crate::vfs::chunk::{Buffer, Chunk};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// Streams of one file that may hold a connection.
const CONNECTED: usize = 6;

/// The same while all of the file is being fetched, which soon serves everybody.
const CONNECTED_MEANWHILE: usize = 2;

/// Streams of one file that are remembered for their windows.
const REMEMBERED: usize = 32;

/// How long a validation is good for opening another stream.
const VALID: Duration = Duration::from_secs(5);

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
    missing: Missing,
    /// Bytes were asked for that [`confirm`](Self::confirm) has not vouched for.
    unconfirmed: AtomicBool,
    behind: Behind,
    check: Check,
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
            missing: Missing::default(),
            unconfirmed: AtomicBool::new(false),
            behind: Behind::default(),
            check: Check::new(transfers.checks_by()),
            end: Locked::default(),
        }
    }

    /// One that an earlier mount saw: the server is asked before anything is read of it.
    pub(crate) fn unseen(
        contents: &Arc<Contents>,
        transfers: &Arc<dyn Transfers>,
        at: &RemotePath,
        attr: Attr,
    ) -> Self {
        let version = Self::new(contents, transfers, at, attr);
        version.must_be_validated();
        version
    }

    fn must_be_validated(&self) {
        let long_ago = Instant::now().checked_sub(2 * VALID);
        self.validated
            .with(|when| *when = long_ago.unwrap_or(*when));
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
        self.missing.is()
    }

    /// It is to be read at `at`.
    pub(crate) fn is_looked_for(&self, at: &RemotePath) {
        if self.check.failure().is_none() && self.missing.renamed(at) {
            self.must_be_validated();
        }
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
            self.missing.at(at);
            return Err(stale(at));
        }
        self.validated();
        Ok(())
    }

    /// Bytes from `offset` on, at most `len`; fewer where they are not in one piece, none only at the
    /// end of the file.
    ///
    /// # Errors
    /// `Stale`, or what the server said, the one allowed retry included.
    pub(crate) fn read(
        self: &Arc<Self>,
        at: &RemotePath,
        offset: u64,
        len: usize,
    ) -> Result<Option<Chunk>> {
        let read = self.read_unconfirmed(at, offset, len)?;
        if let Some(chunk) = &read {
            self.confirm(at, offset, chunk.len())?;
        }
        Ok(read)
    }

    fn read_unconfirmed(
        self: &Arc<Self>,
        at: &RemotePath,
        offset: u64,
        len: usize,
    ) -> Result<Option<Chunk>> {
        let len = self.until_end(offset, len);
        self.behind.read_as(at);
        self.is_looked_for(at);
        let mut passed = 0;
        // Others who are to bring it are waited for once.
        let mut patient = true;
        let mut asked = self.size().is_none_or(|size| size > SMALL);
        if len == 0 {
            return Ok(None);
        }
        loop {
            if self.is_stale() {
                return Err(self.check.failure().unwrap_or_else(|| stale(at)));
            }
            if let Some(chunk) = self.kept(offset, len, passed == 0) {
                return Ok(Some(chunk));
            }
            if !self.is_on_its_way(offset)
                && self.behind.wait_near(offset, || self.has_kept(offset))
            {
                if self.has_kept(offset) || self.behind.is_only_way(offset) {
                    continue;
                }
                patient = false;
            }
            if passed == 0 && spot::is_due(self, offset) {
                match spot::read(self, at, offset, len)? {
                    Some(chunk) => return Ok(Some(chunk)),
                    // It came meanwhile.
                    None if self.has_kept(offset) => {
                        passed += 1;
                        continue;
                    }
                    None => {}
                }
            }
            // Perhaps it is on its way already.
            if !asked && self.cached.is_some() {
                asked = true;
                if self.contents.await_fetch(at) {
                    continue;
                }
            }
            let (stream, jumps) = self.stream_for(offset, passed);
            // What cannot be read of the disk after all is read by the stream.
            let patient = patient && passed == 0;
            let jump = jumps.then(|| behind::jump(self));
            let read = stream.read(self, at, offset, len, patient)?;
            drop(jump);
            if jumps && self.behind.is_fetching_whole() {
                stream.leave();
            }
            match read {
                Served::Bytes(chunk) => return Ok(Some(chunk)),
                Served::End => return Ok(None),
                Served::Passed => passed += 1,
            }
        }
    }

    /// All `len` bytes from `offset` on, or those up to the end of the file, if they are in memory
    /// in one piece. Never waits for anything.
    pub(crate) fn peek(&self, offset: u64, len: usize) -> Option<Chunk> {
        let len = self.until_end(offset, len);
        if len == 0 || self.is_stale() || self.wants_confirmation(offset, len) {
            return None;
        }
        let kept = self.cached.as_ref().and_then(|c| c.peek(offset, len));
        let found = kept.or_else(|| {
            let has = |stream: &&Arc<Stream>| stream.distance(offset) == Some(0);
            let stream = self.streams.with(|all| all.iter().find(has).cloned())?;
            stream.peek(self, offset, len)
        });
        found.filter(|chunk| chunk.len() == len)
    }

    /// What the cache has of it.
    pub(super) const fn cached(&self) -> Option<&Arc<Cached>> {
        self.cached.as_ref()
    }

    /// A download that is under way shows the bytes of another version, if somebody writes to the
    /// file in place. So who reads its last bytes makes sure that the file still is what it was.
    fn confirm(&self, at: &RemotePath, offset: u64, len: usize) -> Result<()> {
        if self.wants_confirmation(offset, len) {
            self.unconfirmed.store(false, Ordering::Relaxed);
            let confirmed = self.validate(at);
            if confirmed.is_err() {
                self.unconfirmed.store(true, Ordering::Relaxed);
            }
            return confirmed;
        }
        Ok(())
    }

    fn wants_confirmation(&self, offset: u64, len: usize) -> bool {
        let to_end = self.size().is_some_and(|size| offset + len as u64 >= size);
        to_end
            && self.unconfirmed.load(Ordering::Relaxed)
            && self.validated.with(|when| when.elapsed()) > VALID
    }

    fn until_end(&self, offset: u64, len: usize) -> usize {
        let left = self.known_end().map(|end| end.saturating_sub(offset));
        let left = left.and_then(|left| usize::try_from(left).ok());
        left.map_or(len, |left| left.min(len))
    }

    /// What the cache has from `offset` on. With `streams_first`, what a stream has in memory, or
    /// passes on its way, is not looked for on disk.
    fn kept(&self, offset: u64, len: usize, streams_first: bool) -> Option<Chunk> {
        let cached = self.cached.as_ref()?;
        if let Some(chunk) = cached.peek(offset, len) {
            return Some(chunk);
        }
        let here = |stream: &Arc<Stream>| match stream.distance(offset) {
            Some(0) => true,
            Some(_) => stream.goes_on(),
            None => false,
        };
        if !cached.has(offset) || streams_first && self.streams.with(|all| all.iter().any(here)) {
            return None;
        }
        if let Some(chunk) = cached.await_ahead(offset, len) {
            return Some(chunk);
        }
        let mut buffer = self.buffer(len);
        let count = cached.read(offset, buffer.as_mut_slice());
        (count > 0).then(|| buffer.filled(count))
    }

    /// Keeps what was read of this version at `offset`, as far as that are whole blocks.
    pub(super) fn keep(&self, offset: u64, chunk: &Chunk) {
        let (Some(cached), Some(size)) = (&self.cached, self.size()) else {
            return;
        };
        if offset == 0 && chunk.len() as u64 == size {
            cached.put_whole_now(chunk);
            return;
        }
        let end = offset + chunk.len() as u64;
        let first = offset.next_multiple_of(BLOCK);
        let last = if end == size { end } else { end - end % BLOCK };
        if first < last && cached.keeps() {
            let from = usize::try_from(first - offset).unwrap_or(usize::MAX);
            let len = usize::try_from(last - first).unwrap_or(0);
            fill::keep(self, cached, first, chunk.part(from, len));
        }
    }

    /// `bytes` came from the server, which lie at `offset`.
    pub(super) fn passed(&self, offset: u64, bytes: &[u8]) {
        self.check.add(offset, bytes);
    }

    /// All has come: is it what the server has?
    ///
    /// # Errors
    /// `Corrupt` if not: then nothing of it is kept, and this version is not read any more.
    pub(super) fn compare(&self) -> Result<()> {
        if let Some(err) = self.check.failure() {
            return Err(err);
        }
        let sum = self.size().and_then(|size| self.check.of_all(size));
        let at = self.behind.name();
        let (Some(sum), Some(at)) = (sum, at) else {
            return Ok(());
        };
        let Err(err) = self.transfers.compare(&at, &sum) else {
            self.check.pass();
            return Ok(());
        };
        if err.kind() == ErrorKind::Corrupt {
            // Perhaps it became another file meanwhile.
            if let Err(changed) = self.validate(&at)
                && changed.kind() == ErrorKind::Stale
            {
                return Err(changed);
            }
            self.check.fail(&err);
            self.missing.at(&at);
            self.contents.blocks.forget(&at);
        }
        Err(err)
    }

    /// Whether what is read is compared, for which it has to come in order.
    pub(super) fn is_checked(&self) -> bool {
        self.check.is_on()
    }

    pub(super) const fn behind(&self) -> &Behind {
        &self.behind
    }

    /// Whether the cache has the byte at `offset`.
    pub(super) fn has_kept(&self, offset: u64) -> bool {
        self.cached
            .as_ref()
            .is_some_and(|cached| cached.has(offset))
    }

    /// Whether a reader finds the byte at `offset` in the cache, now or soon.
    pub(super) fn is_served_elsewhere(&self, offset: u64) -> bool {
        self.has_kept(offset) || self.behind.is_near(offset)
    }

    /// Whether the cache has the `len` bytes from `offset` on, or all up to the end.
    pub(super) fn has_run(&self, offset: u64, len: u64) -> bool {
        let left = self.until_end(offset, usize::try_from(len).unwrap_or(usize::MAX));
        let cached = self.cached.as_ref();
        cached.is_some_and(|cached| left > 0 && cached.run(offset, len) >= left as u64)
    }

    /// Whether what is read of this version may be kept on disk.
    pub(super) fn caches(&self) -> bool {
        self.cached.as_ref().is_some_and(|cached| cached.keeps())
    }

    pub(super) fn cache_limit(&self) -> u64 {
        self.contents.blocks.limit()
    }

    /// Keeps what was fetched behind the readers, waiting for the disk. Whether it is kept.
    pub(super) fn keep_behind(&self, offset: u64, chunk: Chunk, patience: Duration) -> bool {
        let cached = self.cached.as_ref();
        cached.is_some_and(|cached| cached.put_wait(offset, chunk, patience))
    }

    /// Whether several connections were not found to be as slow as one.
    pub(super) fn ranges_may_pay(&self) -> bool {
        self.contents.ranges_may_pay() && !self.is_checked()
    }

    pub(super) fn ranges_do_not_pay(&self) {
        self.contents.ranges_do_not_pay();
    }

    pub(super) fn ranges_have_no_room(&self) {
        self.contents.ranges_have_no_room();
    }

    /// Whether a file may be fetched before anybody asks for it.
    pub(super) fn fetches_ahead(&self) -> bool {
        self.contents.fetches_ahead()
    }

    /// What the server can do.
    pub(super) fn transfers(&self) -> &dyn Transfers {
        &*self.transfers
    }

    /// How many of the `most` bytes from `offset` on the cache has in one piece.
    pub(super) fn run_from(&self, offset: u64, most: u64) -> u64 {
        let cached = self.cached.as_ref();
        cached.map_or(0, |cached| cached.run(offset, most))
    }

    /// The streams of it that there are.
    pub(super) fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.with(|streams| streams.clone())
    }

    /// Begins another download if a connection is free or, `in_turn`, when it is, and makes sure
    /// that `at` still is this version: the caller may know an old name.
    pub(super) fn retrieve_behind(
        &self,
        at: &RemotePath,
        offset: u64,
        in_turn: bool,
    ) -> Result<Option<Box<dyn Download>>> {
        self.unconfirmed.store(true, Ordering::Relaxed);
        let begin = |need| self.transfers.retrieve(at, offset, need);
        let contents = &self.contents;
        let begun = if in_turn {
            contents.connection_among(self.behind.in_line(), |wait| begin(Need::Stream { wait }))
        } else {
            let with_room = !self.behind.has_begun_ranges();
            contents.connection_now(|_| begin(Need::Beside { with_room }))
        };
        let download = match begun {
            Ok(download) => download,
            Err(err) if err.kind() == ErrorKind::Busy => return Ok(None),
            Err(err) => return Err(err),
        };
        self.revalidate(at)?;
        Ok(Some(download))
    }

    /// Begins a download for a few bytes, waiting for a connection; `None` if they came meanwhile.
    pub(super) fn retrieve_spot(
        &self,
        at: &RemotePath,
        offset: u64,
    ) -> Result<Option<Box<dyn Download>>> {
        self.revalidate(at)?;
        let group = self.behind.in_line();
        self.contents.connection_among(group, |wait| {
            if self.has_kept(offset) {
                return Ok(None);
            }
            let need = Need::Spot { wait };
            self.transfers.retrieve(at, offset, need).map(Some)
        })
    }

    /// Asks the server unless somebody just did.
    fn revalidate(&self, at: &RemotePath) -> Result<()> {
        let age = self.validated.with(|when| when.elapsed());
        if age > VALID {
            self.validate(at)?;
        }
        Ok(())
    }

    /// Has a thread read ahead for `stream`.
    pub(super) fn pump(self: &Arc<Self>, stream: &Arc<Stream>) {
        pump::start(&self.contents.pumps, self, stream);
    }

    /// Space for `len` bytes.
    pub(super) fn buffer(&self, len: usize) -> Buffer {
        self.contents.pool.take(len)
    }

    /// Gives back the connections of all streams that nobody is reading. It does not wait for the
    /// others: they may be waiting for the caller's connection.
    pub(crate) fn hang_up(&self) {
        for stream in self.streams() {
            stream.pause();
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.contents.now()
    }

    pub(crate) fn others_wait(&self) -> bool {
        self.contents.turns.others_wait()
    }

    /// The same, those left out who want a few bytes of this version, or fetch all of it.
    pub(super) fn strangers_wait(&self) -> bool {
        self.contents.turns.waiting() > self.behind.in_line().load(Ordering::Relaxed)
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
        self.revalidate(at)?;
        let mut connected = self.streams();
        connected.retain(|stream| stream.is_connected());
        connected.sort_by_key(|stream| stream.used());
        let most = if self.behind.is_fetching_whole() {
            CONNECTED_MEANWHILE
        } else {
            CONNECTED
        };
        let surplus = (connected.len() + 1).saturating_sub(most);
        // The caller holds the line of its own stream, which has no connection: those who wait for
        // each other's lines here can form no circle.
        for stream in connected.iter().take(surplus) {
            stream.hang_up_soon();
        }
        self.unconfirmed.store(true, Ordering::Relaxed);
        self.contents
            .connection(|wait| self.transfers.retrieve(at, offset, Need::Stream { wait }))
    }

    fn known_end(&self) -> Option<u64> {
        self.size().or_else(|| self.end.with(|end| *end))
    }

    /// The stream nearest before `offset`, or a new one, and whether that is a jump. Who was passed
    /// by too often gets one that nobody else knows.
    fn stream_for(&self, offset: u64, passed: u32) -> (Arc<Stream>, bool) {
        let (size, now) = (self.size(), self.now());
        let budget = Arc::clone(&self.contents.budget);
        let mut jumped = false;
        let (stream, new) = self.streams.with(|streams| {
            let near = streams
                .iter()
                .filter_map(|s| Some((s.distance(offset)?, s)));
            let nearest = near.min_by_key(|(distance, _)| *distance);
            if let Some((_, stream)) = nearest.filter(|_| passed < 4) {
                return (Arc::clone(stream), false);
            }
            let stream = Arc::new(Stream::begin(offset, size, streams.is_empty(), budget, now));
            if passed < 4 {
                jumped = !streams.is_empty();
                make_place(streams);
                streams.push(Arc::clone(&stream));
            }
            (stream, true)
        });
        if new {
            self.contents.register(&stream);
        }
        (stream, jumped)
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        self.behind.give_up();
        for stream in self.streams.with(std::mem::take) {
            stream.close();
        }
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
