//! Which parts of a file are still to be fetched behind its readers, and which are being fetched.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

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

/// What a helper has still to fetch.
#[derive(Debug)]
struct Running {
    range: Range<u64>,
    /// It has a connection, as far as the plan was told.
    moves: bool,
    /// How far before it readers wait for it, in bytes.
    reach: u64,
}

/// See the module. Parts are whole: what is left of one goes back as one.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) order: Order,
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

    /// The next part for a helper who has just fetched what lies before `after`.
    pub(super) fn take(&mut self, after: Option<u64>) -> Option<Range<u64>> {
        if self.most.is_some_and(|most| self.running.len() >= most) {
            return None;
        }
        let adjacent = after.filter(|after| self.left.contains_key(after));
        let start = match self.order {
            Order::Spread => adjacent.or_else(|| self.middle()),
            Order::InTurn | Order::Sequence | Order::FromStart => self.left.keys().next().copied(),
        }?;
        let range = start..self.left.remove(&start)?;
        self.resume(range.clone());
        Some(range)
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

    /// The helper whose part ends at `end` is at `next`, and makes `rate` bytes a second, if that is
    /// known.
    pub(super) fn advance(&mut self, next: u64, end: u64, rate: Option<u64>) {
        if let Some(part) = self.running.iter_mut().find(|part| part.range.end == end) {
            part.range.start = next;
            part.moves = true;
            let (unknown, millis, most) = match self.order {
                Order::Sequence => (SEQUENCE_NEAR, SEQUENCE_MILLIS, SEQUENCE_NEAR),
                _ => (NEAR_UNKNOWN, SOON_MILLIS, NEAR),
            };
            let soon = |rate: u64| (rate / 1000).saturating_mul(millis).min(most);
            part.reach = rate.map_or(unknown, soon);
        }
    }

    /// Whether the part that ends at `end` is one too many: those that are needed first go on.
    pub(super) fn is_surplus(&self, end: u64) -> bool {
        let before = self.running.iter().filter(|part| part.range.end < end);
        self.most.is_some_and(|most| before.count() >= most)
    }

    /// It waits for a connection, to go on at `next`.
    pub(super) fn wait(&mut self, next: u64, end: u64) {
        if let Some(part) = self.running.iter_mut().find(|part| part.range.end == end) {
            part.range.start = next;
            part.moves = false;
        }
    }

    /// Nobody fetches the part that ends at `end` any more, or for now.
    pub(super) fn stop(&mut self, end: u64) {
        self.running.retain(|part| part.range.end != end);
    }

    /// It is to be fetched again.
    pub(super) fn resume(&mut self, range: Range<u64>) {
        let reach = match self.order {
            Order::Sequence => SEQUENCE_NEAR,
            _ => NEAR_UNKNOWN,
        };
        self.running.push(Running {
            range,
            moves: false,
            reach,
        });
    }

    /// The rest of a part is for another.
    pub(super) fn put_back(&mut self, range: Range<u64>) {
        self.stop(range.end);
        if !range.is_empty() {
            self.left.insert(range.start, range.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_spread_and_then_go_on() {
        let mut plan = Plan::of(0..80, 10, Order::Spread);
        assert_eq!(plan.take(None), Some(0..10));
        assert_eq!(plan.take(None), Some(40..50));
        assert_eq!(plan.take(None), Some(20..30));
        // Each goes on, up to where the next one began, and then where most is left.
        plan.stop(10);
        assert_eq!(plan.take(Some(10)), Some(10..20));
        plan.stop(20);
        assert_eq!(plan.take(Some(20)), Some(60..70));
        assert!(!plan.is_near(65) && !plan.is_moving());
        plan.advance(60, 70, None);
        assert!(plan.is_near(65) && !plan.is_near(75) && plan.serves(69));
        plan.wait(60, 70);
        assert!(!plan.is_near(65));
        // What was given up is taken again, from where it was left.
        plan.advance(44, 50, None);
        plan.put_back(44..50);
        plan.stop(30);
        assert_eq!(plan.take(Some(30)), Some(30..40));
        plan.stop(40);
        assert_eq!(plan.take(Some(40)), Some(44..50));
        assert_eq!(plan.take(None), Some(50..60));
        assert_eq!(plan.take(None), Some(70..80));
        assert_eq!(plan.take(None), None);
    }

    #[test]
    fn in_turn() {
        let mut plan = Plan::of(5..25, 10, Order::InTurn);
        assert_eq!(plan.take(None), Some(5..15));
        plan.put_back(9..15);
        assert!(plan.running.is_empty());
        assert_eq!(plan.take(Some(15)), Some(9..15));
        assert_eq!(plan.take(None), Some(15..25));
        assert_eq!(plan.parts(), 0);
    }

    #[test]
    fn readers_wait_for_who_is_there_soon() {
        let mut plan = Plan::of(0..64 << 20, 32 << 20, Order::InTurn);
        let _ = plan.take(None);
        plan.advance(0, 32 << 20, Some(12 << 20));
        assert!(plan.is_near(1 << 20) && !plan.is_near(2 << 20));
        plan.advance(0, 32 << 20, Some(1 << 30));
        assert!(plan.is_near(7 << 20) && !plan.is_near(9 << 20));
    }

    #[test]
    fn who_reads_in_sequence_waits_for_who_is_about_to_begin() {
        let mut plan = Plan::of(0..64 << 20, 32 << 20, Order::Sequence);
        let _ = plan.take(None);
        assert!(plan.is_near(3 << 20) && !plan.is_near(5 << 20));
        // As long as it does not move his own stream goes on.
        assert!(!plan.serves(3 << 20));
        plan.advance(0, 32 << 20, Some(2 << 20));
        assert!(plan.serves(1 << 20) && !plan.serves(3 << 20));
        plan.wait(8 << 20, 32 << 20);
        assert!(!plan.is_near(1 << 20) && plan.is_near(9 << 20) && !plan.serves(9 << 20));
    }

    #[test]
    fn where_few_go_on_it_is_with_what_is_needed_first() {
        let mut plan = Plan::of(0..40, 10, Order::Sequence);
        for _ in 0..3 {
            let _ = plan.take(None);
        }
        assert!(!plan.is_surplus(30));
        plan.most = Some(2);
        assert!(!plan.is_surplus(10) && !plan.is_surplus(20) && plan.is_surplus(30));
        plan.put_back(25..30);
        assert_eq!(plan.take(None), None);
        plan.stop(10);
        assert_eq!(plan.take(Some(10)), Some(25..30));
    }

    #[test]
    fn one_who_cannot_jump_is_near_to_all_that_comes() {
        let mut plan = Plan::of(0..1 << 40, 1 << 30, Order::FromStart);
        let _ = plan.take(None);
        plan.advance(100, 1 << 30, None);
        assert!(plan.is_near(1 << 39) && !plan.is_near(99));
    }
}
