//! The content of open files, for servers whose files come and go whole.
//!
//! [`Contents`] is what the open files of a mount share: connections, memory, the staging
//! directory. A [`Content`] is one open inode, shared by all its handles. It has
//!
//! * a *base*: the version of the file on the server (`version.rs`), none for a new file, which
//!   reads itself through streams (`stream.rs`), downloads that are kept open with a window of
//!   recent data;
//! * a staged overlay once it was written: `staging.rs` says when a write becomes visible;
//! * a live upload (`live.rs`) while a new content is written in sequence.
//!
//! **Locks**, in the order in which they are taken: the commit mutex of a content; the line of a
//! stream or of a live upload; the turn to copy what the journal has; the state of a content; leaves.
//! The first two are held across the network, the others across local disk only. A write takes the
//! turn, the state and leaves, so it never waits for the network.
//!
//! **Connections.** A stream keeps its connection as a favour. Who finds none free makes the least
//! recently used idle one hang up and waits in line (`turns.rs`); readers who see somebody in line
//! give theirs up after a share. Nobody waits for a connection while holding another.

mod behind;
mod change;
mod check;
mod commit;
mod detach;
mod drop_behind;
pub(super) mod extents;
mod fetch;
mod file;
mod fill;
mod gathered;
mod judge;
mod leftover;
mod line;
mod live;
mod missing;
mod others;
mod overlap;
mod plan;
mod pump;
mod range_fetch;
mod rental;
mod shared;
mod spot;
mod state;
mod stream;
mod turns;
mod version;
mod window;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::attr::Attr;
use super::backend::{OpenFile, OpenHow, Transfers};
use super::blocks::Blocks;
use super::chunk::Pool;
use super::error::{Error, Result};
use super::journal::{Journal, Saved};
use super::path::RemotePath;
use super::staging::StagingDir;
use crate::sync::Locked;
use fetch::Fetch;
pub use file::Content;
use fill::Fill;
use live::Live;
use pump::Pumps;
use stream::Stream;
use turns::Turns;
use window::Budget;

/// A connection unused for so long may be taken from its stream by who needs one.
const IDLE: u64 = 100;

/// An upload whose writer pauses for so long may lose its connection to who needs one: what it
/// sent is sent again.
const PAUSED: u64 = 5_000;

/// Streams unused for so long hang up.
const FORGOTTEN: u64 = 10_000;

/// Uploads unused for so long are given up, before servers time their data connection out.
const FORGOTTEN_UPLOAD: u64 = 20_000;

/// How long one connection for a sequential reader is enough, after more did not help.
const ONE_CONNECTION: u64 = 600_000;

/// The same after one filled the link, perhaps with others: twice as long each time.
const FULL_LINK: u64 = 10_000;

/// What the open files of a mount hold, for `ferryfs status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Open inodes.
    pub open_files: usize,
    /// Downloads that hold a connection.
    pub streams: usize,
    /// Uploads behind a writer that hold a connection.
    pub uploads: usize,
    /// Bytes of memory in read windows.
    pub buffered: u64,
    /// Files with content that no commit has brought to the server.
    pub dirty_files: usize,
    /// Bytes of these that are staged here.
    pub dirty_bytes: u64,
    /// Files that are being fetched whole because their readers jump about in them.
    pub whole_files: usize,
    /// Bytes of these that came so.
    pub whole_bytes: u64,
    /// Files that were read faster than the disk took them, and of which the rest is being fetched,
    /// or waits for that.
    pub filled_files: usize,
    /// Bytes that came so since the mount began.
    pub filled_bytes: u64,
}

/// What becomes of content that is acknowledged before the server has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Whose files these are: what was recorded for another account is not uploaded to this one.
    pub account: String,
    /// Content is acknowledged when it is here, and uploaded behind.
    pub writeback: bool,
    /// What is acknowledged survives a power cut, not only the end of this process.
    pub sync: bool,
    /// Leave what an earlier mount recorded where it is.
    pub read_only: bool,
}

/// Everything the open files of one mount share.
pub struct Contents {
    staging: Arc<StagingDir>,
    blocks: Arc<Blocks>,
    pool: Arc<Pool>,
    pumps: Arc<Pumps>,
    /// Files may be fetched whole for those who jump about in them.
    ahead: AtomicBool,
    /// Until when several connections for one reader are not tried again, on our clock.
    one_connection: AtomicU64,
    /// For how long it is when the link is found full again.
    no_room: AtomicU64,
    journal: Journal,
    keeping: Keeping,
    saved: Locked<Vec<Saved>>,
    budget: Arc<Budget>,
    turns: Turns,
    fetch: Fetch,
    fill: Arc<Fill>,
    open: Locked<Open>,
    epoch: Instant,
    sweeper: OnceLock<Thread>,
}

/// What must be found again to be swept, reclaimed or reported.
#[derive(Default)]
struct Open {
    files: Vec<Weak<Content>>,
    streams: Vec<Weak<Stream>>,
    uploads: Vec<Weak<Live>>,
    /// Given up by a writer, who must not wait for the end.
    retired: Vec<Arc<Live>>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.report())
    }
}

impl Contents {
    /// `staging_dir` is made if need be; `buffer_budget` is the most memory, in bytes, that all
    /// read windows may take together.
    ///
    /// # Errors
    /// The staging directory cannot be made, or no thread be started.
    pub fn new(staging_dir: &Path, buffer_budget: usize) -> Result<Arc<Self>> {
        let blocks = Blocks::in_memory(buffer_budget / 4);
        Self::with_cache(staging_dir, buffer_budget, blocks, Keeping::default())
    }

    /// The same, with a cache for what is read, and a journal beside `staging_dir`, in which an
    /// earlier mount may have left something: see [`take_saved`](Self::take_saved).
    ///
    /// # Errors
    /// As [`new`](Self::new); the journal cannot be read.
    pub fn with_cache(
        staging_dir: &Path,
        buffer_budget: usize,
        blocks: Arc<Blocks>,
        keeping: Keeping,
    ) -> Result<Arc<Self>> {
        let staging = Arc::new(StagingDir::new(staging_dir)?);
        let records = staging_dir.with_file_name("journal");
        let journal = Journal::new(records, &keeping.account, keeping.sync, staging.spares());
        let saved = match keeping.read_only {
            true => Vec::new(),
            false => journal.recover(&staging)?,
        };
        let contents = Arc::new(Self {
            staging,
            blocks,
            pool: Arc::default(),
            pumps: Arc::default(),
            ahead: AtomicBool::new(true),
            one_connection: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            journal,
            keeping,
            saved: Locked::new(saved),
            budget: Arc::new(Budget::new(buffer_budget)),
            turns: Turns::default(),
            fetch: Fetch::default(),
            fill: Arc::default(),
            open: Locked::default(),
            epoch: Instant::now(),
            sweeper: OnceLock::new(),
        });
        let weak = Arc::downgrade(&contents);
        let started = std::thread::Builder::new()
            .name("content-sweep".into())
            .spawn(move || sweep_until_gone(&weak))
            .map_err(|err| Error::local("sweep thread", &err))?;
        contents.sweeper.get_or_init(|| started.thread().clone());
        Ok(contents)
    }

    /// Opens `path`. `known` is the server's version, just validated by the caller; it may be
    /// `None` with `how.create`, otherwise the server is asked.
    ///
    /// # Errors
    /// With `how.create` or `how.truncate`, the server's refusal to store.
    pub fn open(
        self: &Arc<Self>,
        transfers: Arc<dyn Transfers>,
        path: &RemotePath,
        known: Option<Attr>,
        how: OpenHow,
    ) -> Result<Arc<dyn OpenFile>> {
        self.fill.leave(path);
        let content = Arc::new(Content::open(self, transfers, path, known, how)?);
        self.open.with(|open| {
            add(&mut open.files, Arc::downgrade(&content));
        });
        Ok(content)
    }

    /// What is kept of the files that were read.
    #[must_use]
    pub const fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// What an earlier mount acknowledged and had not brought to the server, in order; once.
    pub fn take_saved(&self) -> Vec<Saved> {
        self.saved.with(std::mem::take)
    }

    /// Opens what was saved. The server is not asked: whether it still has the version that this
    /// was made from shows when it is uploaded.
    ///
    /// # Errors
    /// Those of the local disk.
    pub fn restore(
        self: &Arc<Self>,
        transfers: Arc<dyn Transfers>,
        saved: Saved,
    ) -> Result<Arc<dyn OpenFile>> {
        let content = Arc::new(Content::restore(self, transfers, saved)?);
        self.open.with(|open| {
            add(&mut open.files, Arc::downgrade(&content));
        });
        Ok(content)
    }

    /// Whether somebody waits for a connection.
    pub fn is_crowded(&self) -> bool {
        self.turns.others_wait()
    }

    /// What is open now.
    pub fn report(&self) -> Report {
        let (files, streams, uploads) = self.open.with(|open| {
            (
                alive(&open.files),
                alive(&open.streams),
                alive(&open.uploads),
            )
        });
        let dirty: Vec<u64> = files.iter().filter_map(|file| file.dirty_bytes()).collect();
        let whole: Vec<u64> = files.iter().filter_map(|file| file.whole_bytes()).collect();
        Report {
            open_files: files.len(),
            streams: streams.iter().filter(|s| s.is_connected()).count(),
            uploads: uploads.iter().filter(|u| u.is_running()).count(),
            buffered: self.budget.used() as u64,
            dirty_files: dirty.len(),
            dirty_bytes: dirty.iter().sum(),
            whole_files: whole.len(),
            whole_bytes: whole.iter().sum(),
            filled_files: self.fill.files(),
            filled_bytes: self.fill.bytes(),
        }
    }

    /// Takes connections back from streams and uploads that nobody uses at `now`, and says when to
    /// come again; `None` if there is nothing to come for.
    pub fn sweep(&self, now: Instant) -> Option<Duration> {
        let (streams, uploads, retired) = self.open.with(|open| {
            (
                alive(&open.streams),
                alive(&open.uploads),
                std::mem::take(&mut open.retired),
            )
        });
        for upload in retired {
            upload.give_up();
        }
        let now = self.clock(now);
        let mut held = false;
        for stream in streams.iter().filter(|s| s.is_connected()) {
            let forgotten = now.saturating_sub(stream.used()) >= FORGOTTEN;
            held |= !(forgotten && stream.hang_up_if_idle());
        }
        for upload in uploads.iter().filter(|u| u.is_running()) {
            let forgotten = now.saturating_sub(upload.used()) >= FORGOTTEN_UPLOAD;
            if forgotten && upload.idle().is_some() {
                upload.give_up();
            }
            held = true;
        }
        if self.turns.others_wait() {
            self.reclaim_at(now);
            return Some(Duration::from_millis(IDLE / 2));
        }
        if !held {
            self.pool.clear();
        }
        held.then_some(Duration::from_secs(1))
    }

    /// A connection from `ask`, which is told whether it may wait; waits in line if there is none.
    fn connection<T>(&self, ask: impl FnMut(bool) -> Result<T>) -> Result<T> {
        let given = self.turns.wait(|| self.reclaim(), ask);
        self.wake();
        given
    }

    /// The same for one of a group, which is counted in `group` for as long as it is in line.
    fn connection_among<T>(
        &self,
        group: &AtomicUsize,
        ask: impl FnMut(bool) -> Result<T>,
    ) -> Result<T> {
        let given = self.turns.wait_among(group, || self.reclaim(), ask);
        self.wake();
        given
    }

    /// The same without waiting.
    fn connection_now<T>(&self, ask: impl FnMut(bool) -> Result<T>) -> Result<T> {
        self.turns.try_now(|| self.reclaim(), ask)
    }

    /// Makes the least recently used idle transfer give its connection back.
    fn reclaim(&self) -> bool {
        self.wake();
        self.reclaim_at(self.now())
    }

    fn reclaim_at(&self, now: u64) -> bool {
        let (streams, uploads) = self
            .open
            .with(|open| (alive(&open.streams), alive(&open.uploads)));
        let mut idle: Vec<_> = streams
            .iter()
            .filter(|s| s.is_connected() && now.saturating_sub(s.used()) >= IDLE)
            .collect();
        idle.sort_by_key(|stream| stream.used());
        if idle.iter().any(|stream| stream.hang_up_if_idle()) {
            return true;
        }
        let idle = uploads.iter().find(|upload| {
            let paused = now.saturating_sub(upload.used());
            let enough = |sent| paused >= if sent == 0 { IDLE } else { PAUSED };
            upload.idle().is_some_and(enough)
        });
        idle.inspect(|upload| upload.give_up()).is_some()
    }

    /// Makes windows that nobody used for a second give `bytes` of memory back; if asked to, those
    /// in use too, the largest first.
    fn relieve(&self, bytes: usize, from_readers: bool) {
        let (now, mut streams) = (self.now(), self.open.with(|open| alive(&open.streams)));
        let mut left = bytes;
        let mut shrink = |stream: &Stream, to: usize| {
            let before = stream.capacity();
            if left > 0 && before > to {
                stream.shrink(to);
                left = left.saturating_sub(before - to);
            }
        };
        streams.sort_by_key(|stream| stream.used());
        let idle = |stream: &&Arc<Stream>| now.saturating_sub(stream.used()) >= 1_000;
        for stream in streams.iter().filter(idle) {
            shrink(stream, 0);
        }
        if from_readers {
            streams.sort_by_key(|stream| std::cmp::Reverse(stream.capacity()));
            for stream in streams.iter().filter(|s| s.capacity() > 2 * bytes) {
                shrink(stream, stream.capacity() / 2);
            }
        }
    }

    /// Nothing is fetched that nobody asked for: of a file in which readers jump about, only what
    /// they read; and of one that comes faster than the disk takes it nothing once more.
    pub fn fetch_nothing_ahead(&self) {
        self.ahead.store(false, Ordering::Relaxed);
    }

    fn fetches_ahead(&self) -> bool {
        self.ahead.load(Ordering::Relaxed)
    }

    fn ranges_may_pay(&self) -> bool {
        self.now() >= self.one_connection.load(Ordering::Relaxed)
    }

    fn ranges_do_not_pay(&self) {
        let until = self.now() + ONE_CONNECTION;
        self.one_connection.store(until, Ordering::Relaxed);
    }

    /// One connection fills the link, as far as can be seen.
    fn ranges_have_no_room(&self) {
        let now = self.now();
        // Several helpers find that at once.
        if now < self.one_connection.load(Ordering::Relaxed) {
            return;
        }
        let pause = self.no_room.load(Ordering::Relaxed).max(FULL_LINK);
        let next = (2 * pause).min(ONE_CONNECTION);
        self.no_room.store(next, Ordering::Relaxed);
        self.one_connection.store(now + pause, Ordering::Relaxed);
    }

    fn register(&self, stream: &Arc<Stream>) {
        let stream = Arc::downgrade(stream);
        self.open.with(|open| add(&mut open.streams, stream));
    }

    fn register_upload(&self, upload: &Arc<Live>) {
        let upload = Arc::downgrade(upload);
        self.open.with(|open| add(&mut open.uploads, upload));
        self.wake();
    }

    /// Has an upload given up by somebody who may wait for the network.
    fn retire(&self, upload: Arc<Live>) {
        self.open.with(|open| open.retired.push(upload));
        self.wake();
    }

    fn wake(&self) {
        if let Some(sweeper) = self.sweeper.get() {
            sweeper.unpark();
        }
    }

    /// Milliseconds since the mount began.
    fn now(&self) -> u64 {
        self.clock(Instant::now())
    }

    fn clock(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        self.fill.close();
        self.wake();
    }
}

fn sweep_until_gone(contents: &Weak<Contents>) {
    while let Some(strong) = contents.upgrade() {
        let next = strong.sweep(Instant::now());
        drop(strong);
        match next {
            Some(time) => std::thread::park_timeout(time),
            None => std::thread::park(),
        }
    }
}

fn alive<T>(all: &[Weak<T>]) -> Vec<Arc<T>> {
    all.iter().filter_map(Weak::upgrade).collect()
}

/// Adds to a list of things that come and go, dropping the dead before it grows.
fn add<T>(all: &mut Vec<Weak<T>>, one: Weak<T>) {
    if all.len() == all.capacity() {
        all.retain(|one| one.strong_count() > 0);
    }
    all.push(one);
}

/// A lock that may be held across its own I/O. What it protects is consistent whenever a call
/// fails, so a panic of an earlier holder does not poison it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
