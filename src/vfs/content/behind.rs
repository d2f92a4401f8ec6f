//! Fetching a file into the cache behind its readers' backs, by several connections at once.
//!
//! Two readers want that: one who jumps about, as soon as his jumps have cost enough (`rental.rs`),
//! and one who reads a large file in sequence over a link on which a single stream is slow. What is
//! fetched goes to the cache, where the readers find it, or wait a moment for it.
//!
//! It is a favour: connections are taken if they are free, and given up when somebody waits for
//! one (`range_fetch.rs`). Ranges for a sequential reader are not begun where one stream fills the
//! link, and fetched by few connections where more turn out not to pay.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::judge::{Judge, rate};
use super::lock;
use super::plan::{self, Own, Plan};
use super::range_fetch;
use super::rental::Rental;
use super::spot::Spots;
use super::version::Version;
use crate::sync::Locked;
use crate::vfs::blocks::BLOCK;
use crate::vfs::path::RemotePath;

/// Connections that fetch one file for a sequential reader at most.
const HELPERS: usize = 5;

/// The same where more are not worth it.
const FEW: usize = 2;

/// The same for who jumps about.
pub(super) const WHOLE_HELPERS: usize = 6;

/// What one of them fetches for a sequential reader, who comes after them, before it takes what is
/// next: what comes in a second, within these bounds. To begin anew costs round trips, and what was
/// on its way.
const LEAST_SEGMENT: u64 = 48 << 20;
const MOST_SEGMENT: u64 = 192 << 20;

/// How long it takes until helpers are at work: so much the reader's own stream fetches, in bytes
/// at least and at most.
const HEAD_START: Duration = Duration::from_millis(500);
const LEAST_OWN: u64 = 8 << 20;
const MOST_OWN: u64 = 64 << 20;

/// What part of the cache a file may take that is fetched for its jumps.
const PART: u64 = 2;

/// So many readers who wait for jumps at once can use more connections than there are, and none
/// should keep one longer than he must.
const CROWD: usize = 4;

/// What a sequential reader must have read, and must have before it, in bytes.
const READ_BEFORE: u64 = 12 << 20;
const LEFT: u64 = 64 << 20;

/// A stream that is faster than this, in bytes a second, needs no help: the disk is hardly faster.
const FAST: u64 = 256 << 20;

const PATIENCE: Duration = Duration::from_secs(5);

/// How long others wait for a connection before one who fetches for jumps gives his up.
const STRANGERS_WAIT: Duration = Duration::from_millis(50);

/// Parts are multiples of this, a megabyte, so that they are blocks.
const PIECE: u64 = 16 * BLOCK;

/// What is fetched of one version.
#[derive(Default)]
pub(super) struct Behind {
    rental: Locked<Rental>,
    /// There is a plan.
    begun: AtomicBool,
    /// It is for those who jump about: what they wait for, so it takes its turn as they do.
    whole: AtomicBool,
    given_up: AtomicBool,
    fetched: AtomicU64,
    /// Something comes, of what was planned.
    comes: AtomicBool,
    /// Where the file is fetched for a sequential reader: whether that pays.
    judge: Locked<Option<Judge>>,
    /// When that began, and where the reader's own stream was.
    own_from: Locked<Option<(Instant, u64)>>,
    spots: Spots,
    /// Reads of a few bytes, and helpers, that are in line for a connection.
    in_line: AtomicUsize,
    /// Since when others wait for a connection, and none was given up for them.
    strangers: Locked<Option<Instant>>,
    /// The name it had when it was last read.
    at: Locked<Option<RemotePath>>,
    /// The rental is taken with it locked, never the other way round.
    plan: Mutex<Plan>,
    moved: Condvar,
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

    /// Reads of a few bytes, and helpers, that are in line for a connection.
    pub(super) const fn in_line(&self) -> &AtomicUsize {
        &self.in_line
    }

    /// Whether one who fetches is to give its connection up for others who are `waiting` or not: one
    /// at a time, and not where one becomes free anyway.
    pub(super) fn strangers_claim(&self, waiting: bool) -> bool {
        self.strangers.with(|since| {
            let now = Instant::now();
            let begun = *since.get_or_insert(now);
            let long = waiting && now.duration_since(begun) >= STRANGERS_WAIT;
            if long || !waiting {
                *since = waiting.then_some(now);
            }
            long
        })
    }

    /// Whether the plan is to have all of the file here.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// Whether there is a plan, for a sequential reader.
    pub(super) fn is_in_sequence(&self) -> bool {
        self.begun.load(Ordering::Relaxed) && !self.is_whole()
    }

    /// Whether many wait for jumps, with one who is about to.
    pub(super) fn is_crowded(&self) -> bool {
        self.rental.with(|rental| rental.under_way() + 1 >= CROWD)
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Whether helpers are at work already, or are to be in any case: then it is no question any more
    /// whether the link has room for them.
    pub(super) fn has_begun_ranges(&self) -> bool {
        self.is_whole() || self.comes.load(Ordering::Relaxed)
    }

    /// A helper has begun to fetch.
    pub(super) fn comes(&self) {
        self.comes.store(true, Ordering::Relaxed);
    }

    /// A helper found no room on the link: there is no plan any more.
    pub(super) fn put_off(&self) {
        self.change(|plan| plan.replace(Plan::default()));
        self.begun.store(false, Ordering::Relaxed);
    }

    /// Whether all of the file is being fetched, and is not here yet.
    pub(super) fn is_fetching_whole(&self) -> bool {
        self.is_whole() && self.plan().helpers > 0
    }

    /// Bytes that came, while all of the file is being fetched.
    pub(super) fn whole_bytes(&self) -> Option<u64> {
        self.is_fetching_whole()
            .then(|| self.fetched.load(Ordering::Relaxed))
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
        let mut plan = self.plan();
        if !near(&mut plan) {
            return false;
        }
        let waited = self.moved.wait_timeout_while(plan, PATIENCE, near);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        true
    }

    /// Whether [`wait_near`](Self::wait_near) would wait.
    pub(super) fn is_near(&self, offset: u64) -> bool {
        self.begun.load(Ordering::Relaxed) && self.plan().is_near(offset)
    }

    /// Whether nobody could get to `offset` sooner than the one helper there is.
    pub(super) fn is_only_way(&self, offset: u64) -> bool {
        let only = |plan: &Plan| plan.order == plan::Order::FromStart && plan.is_near(offset);
        self.begun.load(Ordering::Relaxed) && only(&self.plan())
    }

    /// What a sequential reader should not fetch himself: a helper is at it, or nearly.
    pub(super) fn is_served(&self, offset: u64) -> bool {
        self.begun.load(Ordering::Relaxed) && self.plan().serves(offset)
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.plan)
    }

    /// Changes the plan. Those who wait for it hear of that, and the account is kept.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        let mut plan = self.plan();
        let before = plan.is_moving();
        let changed = change(&mut plan);
        let runs = plan.is_moving();
        if self.is_whole() && before != runs {
            self.rental
                .with(|rental| rental.fetches(runs, Instant::now()));
        }
        drop(plan);
        self.moved.notify_all();
        changed
    }

    /// Whether fetching is to go on; `spare`: by one more connection than there must be.
    pub(super) fn goes_on(&self, size: u64, spare: bool) -> bool {
        if self.is_given_up() {
            return false;
        }
        if !self.is_whole() {
            return true;
        }
        let (now, order) = (Instant::now(), self.plan().order);
        let (saved, slow, hopeless) = self.rental.with(|rental| {
            let saved = rental.may_go_on(now);
            (saved, rental.is_slow(now), rental.is_hopeless(size, now))
        });
        if hopeless {
            log::debug!("a file comes too slowly to be fetched whole");
            self.give_up();
        }
        // To begin again costs all that came.
        let saved = saved || order == plan::Order::FromStart;
        saved && !hopeless && !(spare && slow)
    }

    /// Bytes came, `furthest` being how far the reader's own streams are. Whether to go on.
    pub(super) fn came(&self, bytes: u64, furthest: u64) -> bool {
        if self.is_whole() {
            self.rental.with(|rental| rental.came(bytes));
        }
        let fetched = self.fetched.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let allowed = |judge: &mut Option<Judge>| {
            let judge = judge.as_mut();
            judge.is_none_or(|judge| judge.allows(fetched + furthest))
        };
        self.judge.with(allowed)
    }

    /// How fast the reader's own stream is since there are helpers, now that it is at `position`.
    pub(super) fn own(&self, position: u64) -> Option<Own> {
        let (since, from) = self.own_from.with(|from| *from)?;
        let rate = rate(position.saturating_sub(from), since.elapsed());
        Some(Own { position, rate })
    }

    /// Several connections give no more than one: two go on, so that one moves while the other
    /// begins anew behind what is here. The reader's own stream is at `position`.
    pub(super) fn go_on_by_few(&self, position: u64) {
        let own = self.own(position);
        self.change(|plan| plan.begin_anew(FEW, own));
    }

    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }
}

/// A jump that a reader waits for, until this is dropped.
pub(super) struct Jump<'a>(&'a Arc<Version>);

/// When the jumps have cost enough, all of the file is fetched, if it leaves room in the cache. That
/// begins behind a jump, whose connection it would take otherwise.
impl Drop for Jump<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let (enough, slow) = self.0.behind().rental.with(|rental| {
            rental.jump_ends(now);
            (rental.may_begin(now), rental.is_slow(now))
        });
        if enough {
            fetch_whole(self.0, slow);
        }
    }
}

/// A reader jumps.
pub(super) fn jump(version: &Arc<Version>) -> Jump<'_> {
    let rental = &version.behind().rental;
    let readers = rental.with(|rental| {
        rental.jump_begins(Instant::now());
        rental.under_way()
    });
    if readers >= CROWD {
        let others = may_fetch_whole(version).map_or(0, |_| WHOLE_HELPERS);
        version.transfers().expect_spots(readers, others);
    }
    Jump(version)
}

/// Its size, if all of it may be fetched behind jumps.
fn may_fetch_whole(version: &Version) -> Option<u64> {
    let size = version.size()?;
    let fits = size <= version.cache_limit() / PART && version.caches();
    let may = fits && version.fetches_ahead() && !version.behind().is_given_up();
    may.then_some(size)
}

fn fetch_whole(version: &Arc<Version>, slow: bool) {
    let behind = version.behind();
    let Some(size) = may_fetch_whole(version) else {
        return;
    };
    if !behind.begun.swap(true, Ordering::Relaxed) {
        // Nobody could begin in the middle, or what is to be compared with a checksum must come in
        // order.
        let last = size.saturating_sub(1);
        let order = match version.transfers().resumes(last) {
            false => plan::Order::FromStart,
            true if version.is_checked() => plan::Order::InTurn,
            true => plan::Order::Spread,
        };
        behind.plan().replace(Plan::of(0..size, plan::PART, order));
        behind.whole.store(true, Ordering::Relaxed);
        // Those who jump about do not come back to where they were.
        version.leave_streams();
    }
    if !behind.is_whole() {
        return;
    }
    let order = behind.plan().order;
    let most = match order {
        plan::Order::Spread if slow => 1,
        plan::Order::Spread if version.others_wait() => range_fetch::firm(version),
        plan::Order::Spread => range_fetch::most(version),
        plan::Order::InTurn | plan::Order::Sequence | plan::Order::FromStart => 1,
    };
    start(version, most);
}

/// A sequential reader is at `position`, and one stream gave `served` bytes, at `rate` bytes a
/// second: fetches ranges before it, if that may help.
pub(super) fn help(version: &Arc<Version>, position: u64, served: u64, rate: u64) {
    let behind = version.behind();
    // What was to be fetched for jumps gives way to a reader who is known to need it.
    let rests = behind.is_whole() && !behind.is_fetching_whole() && !behind.is_given_up();
    let busy = behind.begun.load(Ordering::Relaxed) && !rests;
    if served < READ_BEFORE || busy || !version.ranges_may_pay() {
        return;
    }
    let Some(size) = version.size() else { return };
    let left = size.saturating_sub(position);
    if left < LEFT || rate > FAST || left > version.cache_limit() / 2 || !version.caches() {
        return;
    }
    // The reader's own stream goes on to where the first range begins.
    let own = rate.saturating_mul(HEAD_START.as_millis() as u64) / 1000;
    let first = position + own.clamp(LEAST_OWN, MOST_OWN).min(left / 3);
    let part = part(size.saturating_sub(first), rate);
    if behind.begun.swap(true, Ordering::Relaxed) && !behind.whole.swap(false, Ordering::Relaxed) {
        return;
    }
    behind.judge.with(|judge| *judge = Some(Judge::new(rate)));
    let from = Some((Instant::now(), position));
    behind.own_from.with(|own| *own = from);
    let parts = Plan::of(aligned(first)..size, part, plan::Order::Sequence);
    behind.comes.store(false, Ordering::Relaxed);
    behind.plan().replace(parts);
    start(version, HELPERS);
}

/// What each helper fetches at once of `bytes`, where one stream gives `rate`: the same for all, since
/// the last one to end is waited for.
fn part(bytes: u64, rate: u64) -> u64 {
    let most = rate.clamp(LEAST_SEGMENT, MOST_SEGMENT);
    let rounds = bytes.div_ceil(most * HELPERS as u64).max(1);
    let part = bytes.div_ceil(HELPERS as u64 * rounds).max(LEAST_OWN);
    part.next_multiple_of(PIECE)
}

/// Starts helpers, so that there are `most` of them, if there is so much to do.
fn start(version: &Arc<Version>, most: usize) {
    let more: Range<usize> = {
        let mut plan = version.behind().plan();
        let most = most.min(plan.helpers + plan.parts());
        let more = plan.helpers..most.max(plan.helpers);
        plan.helpers = more.end;
        more
    };
    if more.is_empty() {
        return;
    }
    log::debug!("fetching by {} more connections", more.len());
    for nth in more {
        if let Err(err) = range_fetch::start(version, nth) {
            log::debug!("no thread to fetch: {err}");
            version.behind().plan().helpers -= 1;
        }
    }
}

const fn aligned(bytes: u64) -> u64 {
    let below = bytes - bytes % PIECE;
    if below == 0 { PIECE } else { below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_have_as_much_to_do_as_each_other() {
        const MB: u64 = 1 << 20;
        for (bytes, rate, expected) in [
            (64, 10, 13),
            (952, 150, 96),
            (952, 300, 191),
            (10_000, 20, 48),
            (3, 20, 8),
        ] {
            assert_eq!(
                part(bytes * MB, rate * MB),
                expected * MB,
                "{bytes} at {rate}"
            );
        }
    }
}
