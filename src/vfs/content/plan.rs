//! Which parts of a file are still to be fetched behind its readers, and which are being fetched.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::vfs::blocks::BLOCK;

/// What a helper takes at once.
pub(super) const PART: u64 = 8 << 20;

/// A reader this near before a helper waits for it, if the helper is there in no more time than a
/// jump may take; and while it is not known how fast that is.
const NEAR: u64 = 8 << 20;
const NEAR_UNKNOWN: u64 = 2 << 20;
const SOON_MILLIS: u64 = 100;

/// Who reads in sequence waits longer, also for a helper that is about to begin: whatever he would
/// begin himself comes a second time. The kernel asks for some megabytes at once.
const SEQUENCE_NEAR: u64 = 4 << 20;
const SEQUENCE_MILLIS: u64 = 1_000;

/// In which order parts are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// As a reader comes to them.
    #[default]
    InTurn,
    /// The same, and the reader has nobody else to wait for.
    Sequence,
    /// As far from each other as can be, each helper going on to what is next to it.
    Spread,
    /// In turn, by the only one who can: nobody else can begin but at the beginning.
    FromStart,
}

/// In sequence, who has nothing else to do takes half of what another has left, if that would take
/// so long and is so much: connections are not as fast as each other, and the slowest one would be
/// waited for.
const LONG_MILLIS: u64 = 500;
const LEAST_SHARED: u64 = 1 << 20;

/// The same where there is something else to do: the reader is about to wait for a connection that
/// is so much slower than another.
const URGENT_MILLIS: u64 = 1_000;
const SLOWER: u64 = 2;

/// Who goes on by fewer begins anew this far before the reader's own stream, in its time and bytes.
const LEAD_MILLIS: u64 = 250;
const LEAST_LEAD: u64 = 2 << 20;

/// What a helper has still to fetch.
#[derive(Debug)]
struct Running {
    /// Where it began: what it is known by.
    from: u64,
    range: Range<u64>,
    /// Bytes a second, if that is known.
    rate: Option<u64>,
    /// It is to be begun anew, by whoever takes it then.
    recalled: bool,
    /// It has a connection, as far as the plan was told.
    moves: bool,
    /// How far before it readers wait for it, in bytes.
    reach: u64,
}

impl Running {
    /// How long it takes until all of it is here.
    fn millis(&self) -> u64 {
        let left = self.range.end.saturating_sub(self.range.start);
        self.rate.map_or(0, |rate| left / (rate / 1000).max(1))
    }

    /// What is to be left to it of what it has, if another takes the rest of it: it would take
    /// longer than `millis`.
    fn shared_at(&self, millis: u64) -> Option<u64> {
        let left = self.range.end.saturating_sub(self.range.start);
        let half = self.range.start + left / 2;
        let shared = self.moves && self.millis() > millis && left >= 2 * LEAST_SHARED;
        shared.then_some(half - half % BLOCK)
    }
}

/// The reader's own stream, before all parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) position: u64,
    /// Bytes a second, since there are helpers.
    pub(super) rate: u64,
}

impl Own {
    fn part(self, end: u64) -> Option<Running> {
        (self.position < end).then_some(Running {
            from: self.position,
            range: self.position..end,
            rate: Some(self.rate),
            recalled: false,
            moves: true,
            reach: 0,
        })
    }
}

/// See the module. Parts are whole: what is left of one goes back as one.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) order: Order,
    /// Where the first part began: what lies before it the reader's own stream fetches.
    first: u64,
    /// By their start.
    left: BTreeMap<u64, u64>,
    running: Vec<Running>,
    /// Threads at work.
    pub(super) helpers: usize,
    /// So many parts are fetched at once at most, if not as many as there are helpers.
    pub(super) most: Option<usize>,
}

impl Plan {
    pub(super) fn of(what: Range<u64>, part: u64, order: Order) -> Self {
        let mut left = BTreeMap::new();
        let mut start = what.start;
        while start < what.end {
            let end = start.saturating_add(part).min(what.end);
            left.insert(start, end);
            start = end;
        }
        Self {
            order,
            first: what.start,
            left,
            ..Self::default()
        }
    }

    /// Another plan for the same helpers.
    pub(super) fn replace(&mut self, other: Self) {
        let helpers = self.helpers;
        *self = Self { helpers, ..other };
    }

    /// Parts that nobody has begun.
    pub(super) fn parts(&self) -> usize {
        self.left.len()
    }

    /// Whether any has a connection to do it.
    pub(super) fn is_moving(&self) -> bool {
        self.running.iter().any(|part| part.moves)
    }

    /// Whether a helper will soon be at `offset`.
    pub(super) fn is_near(&self, offset: u64) -> bool {
        let near = |part: &Running| match self.order {
            Order::FromStart => part.range.start <= offset,
            Order::Sequence => {
                part.range.contains(&offset) && offset - part.range.start <= part.reach
            }
            Order::InTurn | Order::Spread => {
                part.moves
                    && part.range.contains(&offset)
                    && offset - part.range.start <= part.reach
            }
        };
        self.running.iter().any(near)
    }

    /// Whether nobody but a helper should fetch what is at `offset`.
    pub(super) fn serves(&self, offset: u64) -> bool {
        let serves = |part: &Running| {
            let near = self.order != Order::Sequence
                || offset.saturating_sub(part.range.start) <= part.reach;
            part.moves && part.range.contains(&offset) && near
        };
        self.running.iter().any(serves)
    }

    /// The next part for a helper who has just fetched what lies before `after`, `own` being how far
    /// the reader is who fetches what lies before all parts.
    pub(super) fn take(&mut self, after: Option<u64>, own: Option<Own>) -> Option<Range<u64>> {
        if self.most.is_some_and(|most| self.running.len() >= most) {
            return None;
        }
        let adjacent = after.filter(|after| self.left.contains_key(after));
        let range = match self.order {
            Order::Spread => self.begin(adjacent.or_else(|| self.middle())),
            Order::InTurn | Order::FromStart => self.begin(self.foremost()),
            Order::Sequence => self
                .share(own, true)
                .or_else(|| self.begin(self.foremost()))
                .or_else(|| self.share(own, false)),
        }?;
        self.resume(range.clone());
        Some(range)
    }

    fn foremost(&self) -> Option<u64> {
        self.left.keys().next().copied()
    }

    fn begin(&mut self, start: Option<u64>) -> Option<Range<u64>> {
        let start = start?;
        self.left.remove(&start).map(|end| start..end)
    }

    /// The second half of what the slowest has left or, if it is `urgent`, the foremost.
    fn share(&mut self, own: Option<Own>, urgent: bool) -> Option<Range<u64>> {
        let own = own.and_then(|own| own.part(self.first));
        let fastest = self.running.iter().filter_map(|part| part.rate).max();
        let slow = |part: &&Running| part.rate.map(|rate| rate * SLOWER) < fastest;
        let parts = own.iter().chain(&self.running);
        let (part, millis) = if urgent {
            let foremost = parts.min_by_key(|part| part.range.start);
            (foremost.filter(slow), URGENT_MILLIS)
        } else {
            (parts.max_by_key(|part| part.millis()), LONG_MILLIS)
        };
        let (from, until) = part.map(|part| (part.from, part.shared_at(millis)))?;
        let middle = until?;
        let end = match self.running.iter_mut().find(|part| part.from == from) {
            Some(part) => std::mem::replace(&mut part.range.end, middle),
            None => std::mem::replace(&mut self.first, middle),
        };
        Some(middle..end)
    }

    /// All parts are to be begun anew, and no more than `most` at once: connections that filled a
    /// link together are slow for seconds after others have gone, and a new one is not. The reader's
    /// own stream is one of them.
    pub(super) fn begin_anew(&mut self, most: usize, own: Option<Own>) {
        self.most = Some(most);
        for part in &mut self.running {
            part.recalled = true;
        }
        let Some(own) = own.filter(|own| own.position < self.first) else {
            return;
        };
        let lead = (own.rate / 1000)
            .saturating_mul(LEAD_MILLIS)
            .max(LEAST_LEAD);
        let start = (own.position + lead).next_multiple_of(BLOCK);
        if start + LEAST_SHARED <= self.first {
            self.left.insert(start, self.first);
            self.first = start;
        }
    }

    /// The beginning of the longest gap or, where another helper is about to go on into it, of its
    /// second half.
    fn middle(&self) -> Option<u64> {
        let mut gaps: Vec<(u64, u64, usize)> = Vec::new();
        for (&start, &end) in &self.left {
            match gaps.last_mut() {
                Some((_, to, parts)) if *to == start => (*to, *parts) = (end, *parts + 1),
                _ => gaps.push((start, end, 1)),
            }
        }
        let longest = gaps.iter().min_by_key(|(_, _, parts)| Reverse(*parts));
        let &(first, _, parts) = longest?;
        let taken = self.running.iter().any(|part| part.range.end == first);
        let skip = if taken { parts / 2 } else { 0 };
        self.left.range(first..).nth(skip).map(|(&start, _)| start)
    }

    /// The helper whose part began at `from` is at `next`, and makes `rate` bytes a second, if that
    /// is known. Returns where the part ends: another may have taken some of it.
    pub(super) fn advance(&mut self, from: u64, next: u64, rate: Option<u64>) -> Option<u64> {
        let part = self.running.iter_mut().find(|part| part.from == from)?;
        part.range.start = next;
        part.moves = true;
        part.rate = rate;
        let (unknown, millis, most) = match self.order {
            Order::Sequence => (SEQUENCE_NEAR, SEQUENCE_MILLIS, SEQUENCE_NEAR),
            _ => (NEAR_UNKNOWN, SOON_MILLIS, NEAR),
        };
        let soon = |rate: u64| (rate / 1000).saturating_mul(millis).min(most);
        part.reach = rate.map_or(unknown, soon);
        Some(part.range.end)
    }

    /// Whether the part that began at `from` is to be begun anew.
    pub(super) fn is_recalled(&self, from: u64) -> bool {
        let mut running = self.running.iter();
        running.any(|part| part.from == from && part.recalled)
    }

    /// It waits for a connection, to go on at `next`.
    pub(super) fn wait(&mut self, from: u64, next: u64) {
        if let Some(part) = self.running.iter_mut().find(|part| part.from == from) {
            part.range.start = next;
            part.moves = false;
        }
    }

    /// Nobody fetches the part that began at `from` any more, or for now. Returns where it ends.
    pub(super) fn stop(&mut self, from: u64) -> Option<u64> {
        let at = self.running.iter().position(|part| part.from == from)?;
        Some(self.running.swap_remove(at).range.end)
    }

    /// It is to be fetched again.
    pub(super) fn resume(&mut self, range: Range<u64>) {
        let reach = match self.order {
            Order::Sequence => SEQUENCE_NEAR,
            _ => NEAR_UNKNOWN,
        };
        self.running.push(Running {
            from: range.start,
            range,
            rate: None,
            recalled: false,
            moves: false,
            reach,
        });
    }

    /// The rest of the part that began at `from`, from `next` on, is for another.
    pub(super) fn put_back(&mut self, from: u64, next: u64) {
        if let Some(end) = self.stop(from).filter(|end| next < *end) {
            self.left.insert(next, end);
        }
    }
}

#[cfg(test)]
mod tests;
