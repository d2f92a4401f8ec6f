//! Fetching a file into the cache behind its readers' backs, by several connections at once.
//!
//! Two readers want that: one who jumps about (each jump costs four round trips, and soon the whole
//! file costs less), and one who reads a large file in sequence over a link on which a single stream
//! is slow. What is fetched goes to the cache, where the readers find it, or wait a moment for it.
//!
//! It is a favour: connections are taken if they are free, and given up when somebody waits for
//! one. Ranges for a sequential reader are given up where they turn out not to pay.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::lock;
use super::version::Version;
use crate::sync::Locked;
use crate::vfs::blocks::BLOCK;
use crate::vfs::path::RemotePath;

/// Connections that fetch one file at most.
const HELPERS: u64 = 4;

/// Jumps in a file that make it worth to be fetched whole.
const JUMPS: u32 = 4;

/// What part of the cache a file may take that is fetched for its jumps.
const PART: u64 = 4;

/// What a sequential reader must have read, and must have before it, in bytes.
const READ_BEFORE: u64 = 24 << 20;
const LEFT: u64 = 64 << 20;

/// A stream that is faster than this, in bytes a second, needs no help: the disk is hardly faster.
const FAST: u64 = 400 << 20;

/// What ranges must give, in hundredths of what one stream gave, and when that is measured.
const GAIN: u64 = 125;
const WARM_UP: Duration = Duration::from_millis(700);
const TRIAL: Duration = Duration::from_millis(800);

/// How long a helper keeps its connection while others wait, if it fetches what they wait for.
const SHARE: Duration = Duration::from_secs(2);

/// A reader this near behind a helper waits for it.
const NEAR: u64 = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a helper waits for the disk, or for a connection.
const DISK: Duration = Duration::from_secs(10);
const BUSY: Duration = Duration::from_millis(50);
const TRIES: u32 = 100;

const STEP: usize = 512 << 10;

/// What is fetched of one version.
#[derive(Default)]
pub(super) struct Behind {
    jumps: AtomicU32,
    begun: AtomicBool,
    /// For those who jump about: it is what they wait for, so it takes its turn as they do.
    whole: AtomicBool,
    given_up: AtomicBool,
    fetched: AtomicU64,
    /// The name it had when it was last read.
    at: Locked<Option<RemotePath>>,
    plan: Mutex<Plan>,
    moved: Condvar,
}

#[derive(Default)]
struct Plan {
    left: VecDeque<Range<u64>>,
    /// What each helper has still to fetch.
    running: Vec<Range<u64>>,
}

impl Behind {
    pub(super) fn read_as(&self, at: &RemotePath) {
        self.at.with(|known| {
            if known.as_ref() != Some(at) {
                *known = Some(at.clone());
            }
        });
    }

    /// The name it had when it was last read.
    pub(super) fn name(&self) -> Option<RemotePath> {
        self.at.with(|at| at.clone())
    }

    /// A reader jumped. Whether the file should be fetched.
    pub(super) fn jumped(&self) -> bool {
        self.jumps.fetch_add(1, Ordering::Relaxed) + 1 >= JUMPS
            && !self.begun.load(Ordering::Relaxed)
    }

    /// Whether all of the file is being fetched, and is not here yet.
    pub(super) fn is_fetching_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed) && !lock(&self.plan).running.is_empty()
    }

    /// Waits for a helper that is about to have the byte at `offset`. Whether one was.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    pub(super) fn wait_near(&self, offset: u64, is_here: impl Fn() -> bool) -> bool {
        if !self.begun.load(Ordering::Relaxed) {
            return false;
        }
        let near = |plan: &mut Plan| {
            let near = |range: &Range<u64>| range.contains(&offset) && offset - range.start <= NEAR;
            plan.running.iter().any(near) && !is_here()
        };
        let mut plan = lock(&self.plan);
        if !near(&mut plan) {
            return false;
        }
        let waited = self.moved.wait_timeout_while(plan, PATIENCE, near);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        true
    }

    /// What a sequential reader should not fetch itself: where the first planned range begins.
    pub(super) fn is_planned(&self, offset: u64) -> bool {
        if !self.begun.load(Ordering::Relaxed) {
            return false;
        }
        let plan = lock(&self.plan);
        let has = |range: &Range<u64>| range.contains(&offset);
        plan.running.iter().any(has)
    }

    #[allow(clippy::significant_drop_tightening, reason = "one step")]
    fn take_range(&self) -> Option<Range<u64>> {
        let mut plan = lock(&self.plan);
        let range = plan.left.pop_front()?;
        plan.running.push(range.clone());
        Some(range)
    }

    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }
}

/// Fetches all of a file whose readers jump about, if it is not too large.
pub(super) fn fetch_whole(version: &Arc<Version>) {
    let size = version.size().unwrap_or(u64::MAX);
    if size <= version.cache_limit() / PART {
        version.behind().whole.store(true, Ordering::Relaxed);
        let parts = if version.is_checked() { 1 } else { HELPERS };
        start(version, 0..size, parts, None);
    }
}

/// A sequential reader is at `position`, and one stream gave `served` bytes in `time`: fetches
/// ranges before it, if that may help.
pub(super) fn help(version: &Arc<Version>, position: u64, served: u64, time: Duration) {
    let behind = version.behind();
    if served < READ_BEFORE || behind.begun.load(Ordering::Relaxed) || !version.ranges_may_pay() {
        return;
    }
    let Some(size) = version.size() else { return };
    let rate = rate(served, time);
    let left = size.saturating_sub(position);
    if left < LEFT || rate > FAST || left > version.cache_limit() / 2 {
        return;
    }
    // The reader's own stream goes on to where the first range begins.
    let own = left / (HELPERS + 1);
    let trial = Trial {
        before: rate,
        position,
    };
    start(version, position + own..size, HELPERS, Some(trial));
}

/// What is to be compared with the helpers' rate.
#[derive(Clone, Copy)]
struct Trial {
    before: u64,
    position: u64,
}

/// Compares what several connections give with what one gave.
struct Judge {
    trial: Trial,
    began: Instant,
    /// When the comparison began, with what was fetched and where the reader was.
    warm: Option<(Instant, u64, u64)>,
    done: bool,
}

impl Judge {
    fn new(trial: Trial) -> Self {
        Self {
            trial,
            began: Instant::now(),
            warm: None,
            done: false,
        }
    }

    /// Whether to go on, with so many bytes `fetched`.
    fn allows(&mut self, version: &Version, fetched: u64) -> bool {
        if self.done || self.began.elapsed() < WARM_UP {
            return true;
        }
        let position = version.furthest().max(self.trial.position);
        let (since, before, from) = *self.warm.get_or_insert((Instant::now(), fetched, position));
        if since.elapsed() < TRIAL {
            return true;
        }
        self.done = true;
        let bytes = (fetched - before) + position.saturating_sub(from);
        let (one, together) = (self.trial.before, rate(bytes, since.elapsed()));
        log::debug!("several connections give {together} bytes/s, one gave {one}");
        together >= one / 100 * GAIN
    }
}

fn rate(bytes: u64, time: Duration) -> u64 {
    let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / time
}

fn start(version: &Arc<Version>, what: Range<u64>, parts: u64, trial: Option<Trial>) {
    let behind = version.behind();
    if !version.caches() || behind.begun.swap(true, Ordering::Relaxed) {
        return;
    }
    let begin = what.start - what.start % BLOCK;
    let part = ((what.end - begin) / parts)
        .next_multiple_of(16 * BLOCK)
        .max(16 * BLOCK);
    let begins = (0..parts).map(|nth| begin + nth * part);
    let ranges = begins.filter(|begin| *begin < what.end);
    lock(&behind.plan).left = ranges
        .map(|begin| begin..(begin + part).min(what.end))
        .collect();
    let helpers = lock(&behind.plan).left.len();
    log::debug!("fetching {what:?} by {helpers} connections");
    for nth in 0..helpers {
        let helped = Arc::downgrade(version);
        let trial = trial.filter(|_| nth == 0);
        let started = thread::Builder::new()
            .name("content-fetch".into())
            .spawn(move || {
                while let Some(range) = next(&helped) {
                    fetch(&helped, range, trial);
                }
            });
        if let Err(err) = started {
            log::debug!("no thread to fetch: {err}");
        }
    }
}

fn next(version: &Weak<Version>) -> Option<Range<u64>> {
    let version = version.upgrade()?;
    let behind = version.behind();
    if behind.given_up.load(Ordering::Relaxed) {
        return None;
    }
    behind.take_range()
}

/// Fetches a range; what fails is left to those who read it.
fn fetch(version: &Weak<Version>, range: Range<u64>, trial: Option<Trial>) {
    let (end, mut next) = (range.end, range.start);
    let mut tries = 0;
    while next < end && tries < TRIES {
        let before = next;
        let done = fetch_some(version, &mut next, end, trial);
        tries = if next > before { 0 } else { tries + 1 };
        match done {
            Some(true) => {}
            // Others need the connection, or there is none.
            Some(false) => thread::sleep(BUSY),
            None => break,
        }
    }
    if let Some(version) = version.upgrade() {
        let behind = version.behind();
        lock(&behind.plan).running.retain(|r| r.end != end);
        behind.moved.notify_all();
    }
}

/// Fetches from `next` on by one download. `Some`: it may be tried again, at once or later.
fn fetch_some(
    helped: &Weak<Version>,
    next: &mut u64,
    end: u64,
    trial: Option<Trial>,
) -> Option<bool> {
    let mut download = {
        let version = helped.upgrade()?;
        // What is here already need not come again.
        while *next < end && version.has_kept(*next) {
            *next = (*next + BLOCK).min(end);
        }
        advanced(&version, *next, end);
        if *next >= end {
            return Some(true);
        }
        let at = version.behind().name()?;
        let in_turn = version.behind().whole.load(Ordering::Relaxed);
        match version.retrieve_behind(&at, *next, in_turn) {
            Ok(Some(download)) => download,
            Ok(None) => return Some(false),
            Err(err) => {
                log::debug!("{at}: fetching ahead: {err}");
                return None;
            }
        }
    };
    let began = Instant::now();
    let mut judge = trial.map(Judge::new);
    while *next < end {
        let version = helped.upgrade()?;
        let behind = version.behind();
        if version.is_stale() || behind.given_up.load(Ordering::Relaxed) {
            return None;
        }
        let had_its_share = began.elapsed() >= SHARE;
        if version.others_wait() && (had_its_share || !behind.whole.load(Ordering::Relaxed)) {
            return Some(false);
        }
        let most = usize::try_from(end - *next).unwrap_or(STEP).min(STEP);
        let mut buffer = version.buffer(most);
        // Nobody is kept from closing the file meanwhile.
        drop(version);
        let mut count = 0;
        while let Some(rest) = buffer
            .as_mut_slice()
            .get_mut(count..)
            .filter(|r| !r.is_empty())
        {
            match download.read(rest) {
                Ok(0) | Err(_) => return None,
                Ok(more) => count += more,
            }
        }
        let version = helped.upgrade()?;
        version.passed(*next, buffer.as_mut_slice());
        if !version.keep_behind(*next, buffer.filled(count), DISK) {
            return None;
        }
        *next += count as u64;
        advanced(&version, *next, end);
        let behind = version.behind();
        let fetched = behind.fetched.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        if judge
            .as_mut()
            .is_some_and(|judge| !judge.allows(&version, fetched))
        {
            version.ranges_do_not_pay();
            behind.give_up();
            return None;
        }
    }
    let version = helped.upgrade()?;
    let whole = version.size() == Some(end);
    if whole && matches!(download.read(&mut [0]), Ok(0)) {
        let _ = download.conclude();
        if let Err(err) = version.compare() {
            log::debug!("what was fetched ahead: {err}");
            return None;
        }
    }
    Some(true)
}

fn advanced(version: &Version, next: u64, end: u64) {
    let behind = version.behind();
    if let Some(range) = lock(&behind.plan).running.iter_mut().find(|r| r.end == end) {
        range.start = next;
    }
    behind.moved.notify_all();
}
