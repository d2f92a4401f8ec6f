//! What a fast reader left out of the cache is fetched once more, behind the last close.
//!
//! A server that is faster than the disk would have its reader wait for the cache, or the cache do
//! half of the reader's work. So the cache gets of such a file what the disk takes by itself, and
//! the rest when nobody reads it any more: then all of it is here, and the kernel can have it.
//!
//! It is a favour, and the least important one: one thread at the lowest priority, one connection
//! that nobody else needs at the moment, and that only as long as nothing else moves: neither over
//! data connections nor out of the cache. Who opens the file ends it, as does everything that makes
//! another version of it; its last close begins it again. No more is fetched than was read, here or
//! in an earlier mount: of a file that is half here from then, the rest is, too, and what there is
//! is looked through first.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::others::Others;
use super::version::Version;
use super::{Contents, lock};
use crate::vfs::attr::Attr;
use crate::vfs::backend::{Download, Need, Transfers};
use crate::vfs::blocks::{BLOCK, Cached};
use crate::vfs::chunk::{Chunk, Pool};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// Smaller files are no trouble for the cache, whose queue and whose disk take them.
const LEAST: u64 = 64 << 20;

/// What part of the cache a file may take.
const PART: u64 = 2;

/// Files that wait at most, those left last.
const QUEUE: usize = 16;

/// How often it is looked whether it is quiet.
const LOOK: Duration = Duration::from_millis(50);

/// How often it is tried in vain.
const TRIES: u32 = 100;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(2);

/// How long a validation is good.
const VALID: Duration = Duration::from_secs(5);

/// How long the disk is waited for.
const DISK: Duration = Duration::from_secs(10);

/// So much must be here already for a download to be begun anew behind it.
const WORTH_A_JUMP: u64 = 8 << 20;

/// What was put so far back is on the disk by now, or was not taken.
const TAKEN: u64 = 32 << 20;

const STEP: usize = 1 << 20;
const NICE: i32 = 19;

/// See the module.
#[derive(Default)]
pub(super) struct Fill {
    /// A leaf.
    state: Mutex<State>,
    changed: Condvar,
    bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Gaps>,
    /// What is being filled. The thread has no more than a weak hold on what the cache has of it, so
    /// that whoever takes it out of here ends that.
    now: Option<(RemotePath, Arc<Cached>)>,
    running: bool,
    closed: bool,
}

/// A file that is not all here.
struct Gaps {
    at: RemotePath,
    attr: Attr,
    /// Where they are.
    span: Range<u64>,
    transfers: Arc<dyn Transfers>,
    cached: Arc<Cached>,
}

/// Keeps `chunk`, whole blocks of `version` from `offset` on, which a reader got. If that comes fast it
/// may be left out for now.
pub(super) fn keep(version: &Version, cached: &Cached, offset: u64, chunk: Chunk) {
    if may_come_again(version) {
        cached.put_light(offset, chunk);
    } else {
        cached.put(offset, chunk);
    }
}

fn may_come_again(version: &Version) -> bool {
    let fits = LEAST..=version.cache_limit() / PART;
    version.size().is_some_and(|size| fits.contains(&size))
        && version.fetches_ahead()
        && !version.is_checked()
}

impl Contents {
    /// Nobody reads `version` any more, which is at `at`: what was left out of it is fetched when it
    /// is quiet.
    pub(super) fn fill_gaps(
        self: &Arc<Self>,
        version: &Version,
        at: &RemotePath,
        transfers: &Arc<dyn Transfers>,
    ) {
        let whole = !may_come_again(version) || version.is_stale();
        let Some(cached) = version.cached().filter(|_| !whole) else {
            return;
        };
        let Some(span) = cached.left_out().or_else(|| cached.left_unproven()) else {
            return;
        };
        let gaps = Gaps {
            at: at.clone(),
            attr: version.attr(),
            span,
            transfers: Arc::clone(transfers),
            cached: Arc::clone(cached),
        };
        let start = {
            let mut state = lock(&self.fill.state);
            if state.closed {
                return;
            }
            state.queue.retain(|other| other.at != gaps.at);
            if state.queue.len() == QUEUE {
                state.queue.pop_front();
            }
            state.queue.push_back(gaps);
            !std::mem::replace(&mut state.running, true)
        };
        self.fill.changed.notify_all();
        if start {
            let (fill, contents) = (Arc::clone(&self.fill), Arc::downgrade(self));
            let started = std::thread::Builder::new()
                .name("cache-fill".into())
                .spawn(move || fill.run(&contents));
            if let Err(err) = started {
                log::debug!("no thread to fill the cache: {err}");
                let mut state = lock(&self.fill.state);
                state.running = false;
                state.queue.clear();
            }
        }
    }

    /// The mount is at its end: nothing is fetched any more that a reader left out.
    pub fn fill_nothing(&self) {
        self.fill.close();
    }
}

impl Fill {
    /// Somebody opens `at`.
    pub(super) fn leave(&self, at: &RemotePath) {
        let mut state = lock(&self.state);
        if !state.running {
            return;
        }
        state.queue.retain(|gaps| gaps.at != *at);
        let left = state.now.take_if(|(now, _)| now == at);
        drop(state);
        drop(left);
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let left = (std::mem::take(&mut state.queue), state.now.take());
        drop(state);
        drop(left);
        self.changed.notify_all();
    }

    /// Files that are being filled, or wait for it.
    pub(super) fn files(&self) -> usize {
        let state = lock(&self.state);
        state.queue.len() + usize::from(state.now.is_some())
    }

    /// Bytes that came so.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn run(&self, contents: &Weak<Contents>) {
        let _ = rustix::process::nice(NICE);
        while let Some(mut filling) = self.next(contents) {
            if let Err(err) = filling.work() {
                log::debug!("{}: filling the cache: {err}", filling.at);
            }
            let done = lock(&self.state).now.take();
            drop(done);
        }
    }

    /// The next file; `None` if there was nothing to do for a while.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    fn next<'a>(&'a self, contents: &'a Weak<Contents>) -> Option<Filling<'a>> {
        let nothing = |state: &mut State| state.queue.is_empty() && !state.closed;
        let waited = self
            .changed
            .wait_timeout_while(lock(&self.state), IDLE, nothing);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let Some(gaps) = state.queue.pop_back() else {
            state.running = false;
            return None;
        };
        let cached = Arc::downgrade(&gaps.cached);
        state.now = Some((gaps.at.clone(), gaps.cached));
        Some(Filling {
            fill: self,
            contents,
            cached,
            at: gaps.at,
            attr: gaps.attr,
            span: gaps.span,
            transfers: gaps.transfers,
            validated: None,
            others: Others::default(),
            pool: Arc::default(),
        })
    }

    /// Waits a moment, for the end perhaps.
    fn pause(&self) {
        drop(self.changed.wait_timeout(lock(&self.state), LOOK));
    }
}

/// One file.
struct Filling<'a> {
    fill: &'a Fill,
    contents: &'a Weak<Contents>,
    cached: Weak<Cached>,
    at: RemotePath,
    attr: Attr,
    span: Range<u64>,
    transfers: Arc<dyn Transfers>,
    validated: Option<Instant>,
    others: Others,
    pool: Arc<Pool>,
}

impl Filling<'_> {
    /// Fetches what is missing, as far as that can be.
    fn work(&mut self) -> Result<()> {
        if self.is_unproven() {
            self.prove();
            if self
                .cached
                .upgrade()
                .is_some_and(|c| c.whole_file().is_some())
            {
                return Ok(());
            }
        }
        let (mut next, mut tries) = (self.span.start, 0);
        while next < self.span.end && tries < TRIES && self.wait_for_rest() {
            let before = next;
            match self.fetch(&mut next) {
                Err(err) if err.kind() != ErrorKind::Busy => return Err(err),
                Ok(()) | Err(_) => {}
            }
            tries = if next > before { 0 } else { tries + 1 };
        }
        Ok(())
    }

    /// Whether it became quiet, and is still wanted.
    fn wait_for_rest(&mut self) -> bool {
        self.others.begin_rest();
        while self.is_wanted() {
            self.others_move();
            if self.others.rest() {
                return true;
            }
            self.fill.pause();
        }
        false
    }

    fn is_unproven(&self) -> bool {
        let cached = self.cached.upgrade();
        cached.is_some_and(|cached| cached.left_unproven().is_some())
    }

    /// Looks through what an earlier mount left here.
    fn prove(&mut self) {
        let mut buffer = self.pool.take(STEP);
        let mut next = self.span.start;
        while next < self.span.end && self.wait_for_rest() {
            while next < self.span.end && !self.others_move() {
                let Some(cached) = self.cached.upgrade().filter(|cached| cached.keeps()) else {
                    return;
                };
                let left = usize::try_from(self.span.end - next).unwrap_or(STEP);
                let space = buffer.as_mut_slice().get_mut(..left.min(STEP));
                let proven = cached.prove(next, space.unwrap_or_default()) as u64;
                // What is not here is passed over.
                next += proven.max(BLOCK);
            }
        }
    }

    fn is_wanted(&self) -> bool {
        self.cached.upgrade().is_some_and(|cached| cached.keeps())
    }

    fn others_move(&mut self) -> bool {
        let Some(contents) = self.contents.upgrade() else {
            return true;
        };
        let bytes = self.transfers.moved() + contents.blocks.hit_bytes();
        self.others.move_on(bytes) || contents.is_crowded()
    }

    /// Fetches from `next` on by one download, to the end or until there is a reason to stop.
    fn fetch(&mut self, next: &mut u64) -> Result<()> {
        self.skip(next, 0);
        if *next >= self.span.end {
            return Ok(());
        }
        self.validate()?;
        let mut download = self.begin(*next)?;
        let begun = *next;
        while *next < self.span.end && !self.others_move() {
            if self.skip(next, WORTH_A_JUMP) {
                return Ok(());
            }
            let Some(cached) = self.cached.upgrade().filter(|cached| cached.keeps()) else {
                return Ok(());
            };
            if *next >= begun + TAKEN && !cached.has(*next - TAKEN) {
                return Err(Error::new(ErrorKind::NoSpace, "the disk does not take it"));
            }
            drop(cached);
            self.step(&mut *download, next)?;
        }
        self.validate()?;
        if Some(*next) == self.attr.size && matches!(download.read(&mut [0]), Ok(0)) {
            let _ = download.conclude();
        }
        Ok(())
    }

    /// Goes behind what is here from `next` on, if that is more than `least`. Whether it was.
    fn skip(&self, next: &mut u64, least: u64) -> bool {
        let cached = self.cached.upgrade();
        let here = cached.map_or(0, |cached| cached.run(*next, self.span.end - *next));
        let pays = here > least;
        if pays {
            *next += here;
        }
        pays
    }

    fn begin(&self, offset: u64) -> Result<Box<dyn Download>> {
        let need = Need::Beside { with_room: false };
        self.transfers.retrieve(&self.at, offset, need)
    }

    /// Reads on, a little way.
    fn step(&mut self, download: &mut dyn Download, next: &mut u64) -> Result<()> {
        let left = usize::try_from(self.span.end - *next).unwrap_or(STEP);
        let mut buffer = self.pool.take(left.min(STEP));
        let space = buffer.as_mut_slice();
        let mut count = 0;
        while let Some(rest) = space.get_mut(count..).filter(|rest| !rest.is_empty()) {
            let came = match download.read(rest)? {
                0 => return Err(Error::new(ErrorKind::Protocol, "ends too early")),
                came => came,
            };
            count += came;
            self.others.own(came as u64);
        }
        self.fill.bytes.fetch_add(count as u64, Ordering::Relaxed);
        let Some(cached) = self.cached.upgrade() else {
            return Ok(());
        };
        if !cached.put_wait(*next, buffer.filled(count), DISK) {
            return Err(Error::new(ErrorKind::NoSpace, "the disk is too slow"));
        }
        *next += count as u64;
        Ok(())
    }

    /// Makes sure that the server still has this version, unless it just did.
    fn validate(&mut self) -> Result<()> {
        if self.validated.is_some_and(|when| when.elapsed() < VALID) {
            return Ok(());
        }
        let changed = match self.transfers.stat_now(&self.at) {
            Ok(now) => self.attr.differs_from(&now),
            Err(err) if err.kind() == ErrorKind::NotFound => true,
            Err(err) => return Err(err),
        };
        if changed {
            // Who has it open may see what came of another version.
            if let Some(contents) = self.contents.upgrade().filter(|_| self.is_wanted()) {
                contents.blocks.forget(&self.at);
            }
            return Err(Error::new(ErrorKind::Stale, "changed on the server"));
        }
        self.validated = Some(Instant::now());
        Ok(())
    }
}
