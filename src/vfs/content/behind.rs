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

use super::judge::Judge;
use super::lock;
use super::spot::Spots;
use super::version::Version;
use crate::sync::Locked;
use crate::vfs::blocks::BLOCK;
use crate::vfs::path::RemotePath;

/// Connections that fetch one file for a sequential reader at most.
const HELPERS: usize = 5;

/// The same for who jumps about; and how many of these go on where the jumps need connections.
const WHOLE_HELPERS: usize = 4;
const FIRM: usize = 3;

/// What one of them fetches for a sequential reader, who comes after them, before it takes what is
/// next.
const SEGMENT: u64 = 48 << 20;

/// How long it takes until helpers are at work: so much the reader's own stream fetches, in bytes
/// at least and at most.
const HEAD_START: Duration = Duration::from_millis(300);
const LEAST_OWN: u64 = 8 << 20;
const MOST_OWN: u64 = 64 << 20;

/// Jumps in a file that make it worth to be fetched whole.
const JUMPS: u32 = 4;

/// What part of the cache a file may take that is fetched for its jumps.
const PART: u64 = 4;

/// What a sequential reader must have read, and must have before it, in bytes.
const READ_BEFORE: u64 = 12 << 20;
const LEFT: u64 = 64 << 20;

/// A stream that is faster than this, in bytes a second, needs no help: the disk is hardly faster.
const FAST: u64 = 256 << 20;

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
    /// Where the file is fetched for a sequential reader: whether that pays.
    judge: Locked<Option<Judge>>,
    spots: Spots,
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

impl Plan {
    /// Whether a helper will soon be at `offset`.
    fn is_near(&self, offset: u64) -> bool {
        let near = |range: &Range<u64>| range.contains(&offset) && offset - range.start <= NEAR;
        self.running.iter().any(near)
    }
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

    pub(super) const fn spots(&self) -> &Spots {
        &self.spots
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

    /// Waits for a helper that is about to have the byte at `offset`. Whether there was one.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    pub(super) fn wait_near(&self, offset: u64, is_here: impl Fn() -> bool) -> bool {
        if !self.begun.load(Ordering::Relaxed) {
            return false;
        }
        let near = |plan: &mut Plan| plan.is_near(offset) && !is_here();
        let mut plan = lock(&self.plan);
        if !near(&mut plan) {
            return false;
        }
        let waited = self.moved.wait_timeout_while(plan, PATIENCE, near);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        true
    }

    /// Whether [`wait_near`](Self::wait_near) would wait.
    pub(super) fn is_near(&self, offset: u64) -> bool {
        self.begun.load(Ordering::Relaxed) && lock(&self.plan).is_near(offset)
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
        // What is to be compared with a checksum must come in order.
        let parts = if version.is_checked() {
            1
        } else {
            WHOLE_HELPERS
        };
        start(version, 0..size, size / parts as u64 + 1, parts);
    }
}

/// A sequential reader is at `position`, and one stream gave `served` bytes, at `rate` bytes a
/// second: fetches ranges before it, if that may help.
pub(super) fn help(version: &Arc<Version>, position: u64, served: u64, rate: u64) {
    let behind = version.behind();
    if served < READ_BEFORE || behind.begun.load(Ordering::Relaxed) || !version.ranges_may_pay() {
        return;
    }
    let Some(size) = version.size() else { return };
    let left = size.saturating_sub(position);
    if left < LEFT || rate > FAST || left > version.cache_limit() / 2 {
        return;
    }
    // The reader's own stream goes on to where the first range begins.
    let own = rate.saturating_mul(HEAD_START.as_millis() as u64) / 1000;
    let first = position + own.clamp(LEAST_OWN, MOST_OWN).min(left / 3);
    behind.judge.with(|judge| *judge = Some(Judge::new(rate)));
    let part = (size.saturating_sub(first) / HELPERS as u64).clamp(LEAST_OWN, SEGMENT);
    start(version, first..size, part, HELPERS);
}

fn start(version: &Arc<Version>, what: Range<u64>, part: u64, helpers: usize) {
    let behind = version.behind();
    if !version.caches() || behind.begun.swap(true, Ordering::Relaxed) {
        return;
    }
    let begin = what.start - what.start % BLOCK;
    let part = part.next_multiple_of(16 * BLOCK).max(16 * BLOCK);
    let parts = (what.end - begin).div_ceil(part);
    let begins = (0..parts).map(|nth| begin + nth * part);
    lock(&behind.plan).left = begins
        .map(|begin| begin..(begin + part).min(what.end))
        .collect();
    let helpers = usize::try_from(parts).map_or(helpers, |parts| parts.min(helpers));
    log::debug!("fetching {what:?} by {helpers} connections");
    for nth in 0..helpers {
        let helped = Arc::downgrade(version);
        let firm = nth < FIRM;
        let started = thread::Builder::new()
            .name("content-fetch".into())
            .spawn(move || {
                while let Some(range) = next(&helped) {
                    if !fetch(&helped, range, firm) {
                        break;
                    }
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

/// Fetches a range; what fails is left to those who read it. Whether there may be another.
fn fetch(version: &Weak<Version>, range: Range<u64>, firm: bool) -> bool {
    let (end, mut next) = (range.end, range.start);
    let mut tries = 0;
    let mut goes_on = true;
    while next < end && tries < TRIES && goes_on {
        let before = next;
        let done = fetch_some(version, &mut next, end, firm);
        tries = if next > before { 0 } else { tries + 1 };
        match done {
            Done::Some => {}
            Done::Nothing => break,
            Done::Crowded => goes_on = pause(version, next..end, firm),
        }
    }
    if let Some(version) = version.upgrade() {
        let behind = version.behind();
        lock(&behind.plan).running.retain(|r| r.end != end);
        behind.moved.notify_all();
    }
    goes_on
}

/// Others need the connection, or there is none. Nobody waits for the range meanwhile. Whether to
/// go on with it; else it is left to the firm.
fn pause(version: &Weak<Version>, range: Range<u64>, firm: bool) -> bool {
    let change = |work: &dyn Fn(&mut Plan)| {
        let version = version.upgrade();
        version.is_some_and(|version| {
            let behind = version.behind();
            work(&mut lock(&behind.plan));
            behind.moved.notify_all();
            behind.whole.load(Ordering::Relaxed)
        })
    };
    let whole = change(&|plan| plan.running.retain(|r| r.end != range.end));
    if whole && !firm {
        change(&|plan| plan.left.push_front(range.clone()));
        return false;
    }
    thread::sleep(BUSY);
    change(&|plan| plan.running.push(range.clone()));
    true
}

/// How an attempt to fetch ended.
enum Done {
    /// It may go on.
    Some,
    /// For want of a connection.
    Crowded,
    /// It cannot be fetched, or need not.
    Nothing,
}

/// Fetches from `next` on by one download.
fn fetch_some(helped: &Weak<Version>, next: &mut u64, end: u64, firm: bool) -> Done {
    let mut download = {
        let Some(version) = helped.upgrade() else {
            return Done::Nothing;
        };
        // What is here already need not come again.
        while *next < end && version.has_kept(*next) {
            *next = (*next + BLOCK).min(end);
        }
        advanced(&version, *next, end);
        if *next >= end {
            return Done::Some;
        }
        let Some(at) = version.behind().name() else {
            return Done::Nothing;
        };
        let in_turn = firm && version.behind().whole.load(Ordering::Relaxed);
        match version.retrieve_behind(&at, *next, in_turn) {
            Ok(Some(download)) => download,
            Ok(None) => return Done::Crowded,
            Err(err) => {
                log::debug!("{at}: fetching ahead: {err}");
                return Done::Nothing;
            }
        }
    };
    let began = Instant::now();
    while *next < end {
        let Some(version) = helped.upgrade() else {
            return Done::Nothing;
        };
        let behind = version.behind();
        if version.is_stale() || behind.given_up.load(Ordering::Relaxed) {
            return Done::Nothing;
        }
        let in_turn = firm && behind.whole.load(Ordering::Relaxed);
        let gives_way = if in_turn {
            began.elapsed() >= SHARE && version.others_than_spots_wait()
        } else {
            version.others_wait()
        };
        if gives_way {
            return Done::Crowded;
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
                Ok(0) | Err(_) => return Done::Nothing,
                Ok(more) => count += more,
            }
        }
        let Some(version) = helped.upgrade() else {
            return Done::Nothing;
        };
        version.passed(*next, buffer.as_mut_slice());
        if !version.keep_behind(*next, buffer.filled(count), DISK) {
            return Done::Nothing;
        }
        *next += count as u64;
        advanced(&version, *next, end);
        let behind = version.behind();
        let fetched = behind.fetched.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        let come = fetched + version.furthest();
        let allowed = |judge: &mut Option<Judge>| judge.as_mut().is_none_or(|j| j.allows(come));
        if !behind.judge.with(allowed) {
            version.ranges_do_not_pay();
            behind.give_up();
            return Done::Nothing;
        }
    }
    let Some(version) = helped.upgrade() else {
        return Done::Nothing;
    };
    if version.size() == Some(end) && matches!(download.read(&mut [0]), Ok(0)) {
        let _ = download.conclude();
        if let Err(err) = version.compare() {
            log::debug!("what was fetched ahead: {err}");
            return Done::Nothing;
        }
    }
    Done::Some
}

fn advanced(version: &Version, next: u64, end: u64) {
    let behind = version.behind();
    if let Some(range) = lock(&behind.plan).running.iter_mut().find(|r| r.end == end) {
        range.start = next;
    }
    behind.moved.notify_all();
}
