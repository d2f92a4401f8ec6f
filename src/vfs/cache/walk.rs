//! Recognises that a tree is being walked (`find`, `ls -lR`, `rsync`, `tar`), and what of it will be
//! listed next. Plain data; the time is an argument.
//!
//! A walker lists a directory and at once one that is in it. Somebody who types does so too, but
//! takes longer; and what is only looked up (`stat` of a deep path) is never counted. A recognised
//! walk is trusted with few directories first, and with more whenever one that was fetched ahead is
//! wanted; what nobody wanted in time halves the trust.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::vfs::path::RemotePath;

/// A program lists what it found sooner than that; a person does not.
const AT_ONCE: Duration = Duration::from_millis(250);

/// A program that reads the files on its way takes longer, but goes on and on.
const SLOWLY: Duration = Duration::from_secs(30);

/// After so long without a step the walk is over.
const OVER: Duration = Duration::from_secs(30);

/// Directories listed last that are remembered.
const RECENT: usize = 256;

/// Slow steps that make a walk.
const CERTAIN: u32 = 4;

/// Directories that may be ahead of the walker, at first and at most.
const FIRST: usize = 16;
const LEAST: usize = 4;
const MOST: usize = 1_024;

/// Directories that are worth a batch of their own.
const NEAR: usize = 8;

/// Entries that may be ahead of the walker, in all directories together.
const ENTRIES: usize = 30_000;

/// Directories that wait to be fetched ahead.
const QUEUE: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct Walk {
    recent: VecDeque<(RemotePath, Instant)>,
    /// Steps in a row that went down the tree, or on in it.
    steps: u32,
    last_step: Option<Instant>,
    /// What will be wanted, the first first.
    queue: VecDeque<RemotePath>,
    /// Fetched and not wanted yet: when, and how many entries; none while it is under way.
    ahead: HashMap<RemotePath, (Instant, Option<usize>)>,
    entries: usize,
    trust: usize,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            steps: 0,
            last_step: None,
            queue: VecDeque::new(),
            ahead: HashMap::new(),
            entries: 0,
            trust: FIRST,
        }
    }
}

impl Walk {
    /// A program opens `dir` to read it. Whether this is a step of a walk: then `dir` and, if it
    /// was only now recognised, the directory above are worth looking into, see
    /// [`expect`](Self::expect).
    pub(super) fn entered(&mut self, dir: &RemotePath, now: Instant) -> Step {
        let foreseen = self.used(dir);
        let last = self.recent.back().map(|(last, _)| last);
        if last == Some(dir) {
            return Step::None;
        }
        let parent = dir.parent();
        let goes_down = parent.is_some() && last == parent.as_ref();
        let age = parent.as_ref().and_then(|parent| {
            let (_, when) = self.recent.iter().rev().find(|(at, _)| at == parent)?;
            Some(now.saturating_duration_since(*when))
        });
        // The place that the walker comes from counts as listed again: so the next sibling is a
        // step as well, however long this one takes.
        let above = parent.filter(|_| age.is_some());
        self.recent
            .retain(|(at, _)| at != dir && Some(at) != above.as_ref());
        self.recent.extend(above.map(|parent| (parent, now)));
        self.recent.push_back((dir.clone(), now));
        while self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.queue.retain(|waiting| waiting != dir);
        let was_walking = self.is_walking(now);
        self.steps = match age {
            _ if foreseen => self.steps.saturating_add(CERTAIN),
            Some(age) if age <= AT_ONCE => self.steps.saturating_add(CERTAIN),
            Some(age) if age <= SLOWLY => self.steps.saturating_add(1),
            // Somebody else.
            _ if was_walking => return Step::None,
            _ => 0,
        };
        if self.steps < CERTAIN {
            return Step::None;
        }
        self.last_step = Some(now);
        if was_walking {
            if goes_down { Step::Down } else { Step::On }
        } else {
            self.trust = self.trust.min(FIRST);
            Step::First
        }
    }

    /// What is in `dir` was told to who opened it, who can go on from there.
    pub(super) fn listed(&mut self, dir: &RemotePath, now: Instant) {
        let known = self.recent.iter_mut().rev().find(|(at, _)| at == dir);
        if let Some((_, when)) = known {
            *when = now;
        }
    }

    /// How many wait to be fetched.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether a walk is going on.
    pub(super) fn is_walking(&self, now: Instant) -> bool {
        let fresh = |last: Instant| now.saturating_duration_since(last) < OVER;
        self.steps >= CERTAIN && self.last_step.is_some_and(fresh)
    }

    /// `dirs` will be wanted, before all that is expected so far; in their order.
    pub(super) fn expect(&mut self, dirs: Vec<RemotePath>) {
        for dir in dirs.into_iter().rev() {
            let is_new = !self.ahead.contains_key(&dir)
                && !self.recent.iter().any(|(recent, _)| *recent == dir);
            if is_new {
                self.queue.push_front(dir);
            }
        }
        self.queue.truncate(QUEUE);
    }

    /// How many of those that wait are for one of so many threads, each of which can take `most`.
    pub(super) fn share(&self, threads: usize, most: usize) -> usize {
        match threads {
            0 | 1 => most,
            _ => most.min(self.queue.len().div_ceil(threads).max(NEAR)),
        }
    }

    /// What to fetch now by one of so many calls, `most` at most: nothing while enough is ahead. Each
    /// must end in
    /// [`fetched`](Self::fetched), [`missed`](Self::missed) or [`put_back`](Self::put_back).
    pub(super) fn next(
        &mut self,
        (calls, most): (usize, usize),
        ttl: Duration,
        now: Instant,
    ) -> Vec<RemotePath> {
        self.let_go(ttl, now);
        if !self.is_walking(now) {
            self.queue.clear();
            return Vec::new();
        }
        // Each call has something to do, unless much was fetched in vain.
        let trust = match self.trust >= FIRST {
            true => self.trust.max(calls),
            false => self.trust,
        };
        let room = trust.saturating_sub(self.ahead.len());
        let here = self.recent.back().map(|(dir, _)| dir);
        let imminent = || {
            let next = self.queue.front().and_then(RemotePath::parent);
            next.is_some() && next.as_ref() == here
        };
        // What is far ahead must not keep what comes next from being fetched; and not one by one: a
        // batch costs a round trip however many there are in it.
        let near = NEAR.min(most);
        let room = if imminent() { room.max(near) } else { room };
        if room < near.min(trust.div_ceil(2)) || self.entries >= ENTRIES {
            return Vec::new();
        }
        let mut dirs = Vec::new();
        while dirs.len() < room.min(most)
            && let Some(dir) = self.queue.pop_front()
        {
            if self.ahead.insert(dir.clone(), (now, None)).is_none() {
                dirs.push(dir);
            }
        }
        dirs
    }

    /// `dir`, which has so many entries, was fetched.
    pub(super) fn fetched(&mut self, dir: &RemotePath, entries: usize, now: Instant) {
        if let Some(ahead) = self.ahead.get_mut(dir) {
            *ahead = (now, Some(entries));
            self.entries += entries;
        }
    }

    /// `dir` was not fetched after all.
    pub(super) fn missed(&mut self, dir: &RemotePath) {
        self.forget(dir);
    }

    /// `dirs` could not be asked for now; they are the next ones again.
    pub(super) fn put_back(&mut self, dirs: &[RemotePath]) {
        for dir in dirs.iter().rev() {
            self.forget(dir);
            self.queue.push_front(dir.clone());
        }
        self.queue.truncate(QUEUE);
    }

    /// How many are ahead, and how many may be.
    #[cfg(test)]
    pub(super) fn extent(&self) -> (usize, usize) {
        (self.ahead.len(), self.trust)
    }

    fn used(&mut self, dir: &RemotePath) -> bool {
        let foreseen = self.forget(dir);
        if foreseen {
            self.trust = (self.trust * 2).min(MOST);
        }
        foreseen
    }

    fn forget(&mut self, dir: &RemotePath) -> bool {
        let Some((_, entries)) = self.ahead.remove(dir) else {
            return false;
        };
        self.entries -= entries.unwrap_or_default();
        true
    }

    /// What nobody wanted for `ttl` is of no more use.
    fn let_go(&mut self, ttl: Duration, now: Instant) {
        let old = |(when, entries): &(Instant, Option<usize>)| {
            entries.is_some() && now.saturating_duration_since(*when) >= ttl
        };
        let gone: Vec<_> = self.ahead.extract_if(|_, ahead| old(ahead)).collect();
        for (_, (_, entries)) in &gone {
            self.entries -= entries.unwrap_or_default();
        }
        if !gone.is_empty() {
            self.trust = (self.trust / 2).max(LEAST);
        }
    }
}

/// What [`Walk::entered`] makes of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// No walk, as far as one can tell.
    None,
    /// The one that shows that it is a walk.
    First,
    /// One more, into the directory that was listed last.
    Down,
    /// One more.
    On,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text.as_bytes()).unwrap()
    }

    fn paths(range: std::ops::Range<usize>) -> Vec<RemotePath> {
        range.map(|n| path(&format!("d{n:04}"))).collect()
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn who_lists_a_directory_and_at_once_one_in_it_walks() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        assert_eq!(walk.entered(&path(""), now), Step::None);
        assert_eq!(walk.entered(&path("a"), after(now, 30)), Step::First);
        assert_eq!(walk.entered(&path("a/b"), after(now, 60)), Step::Down);
        assert_eq!(walk.entered(&path("a/c"), after(now, 90)), Step::On);
        assert!(!walk.is_walking(after(now, 60_000)));
    }

    #[test]
    fn who_types_does_not_and_who_copies_does() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        assert_eq!(walk.entered(&path(""), now), Step::None);
        assert_eq!(walk.entered(&path("a"), after(now, 900)), Step::None);
        // Reading a again is no step.
        assert_eq!(walk.entered(&path("a"), after(now, 950)), Step::None);
        assert_eq!(walk.entered(&path("x/y"), after(now, 1_000)), Step::None);
        let mut copier = Walk::default();
        copier.entered(&path(""), now);
        for (n, name) in ["a", "b", "c"].iter().enumerate() {
            let when = after(now, 9_000 * (n as u64 + 1));
            assert_eq!(copier.entered(&path(name), when), Step::None);
        }
        assert_eq!(copier.entered(&path("d"), after(now, 36_000)), Step::First);
    }

    #[test]
    fn who_had_to_wait_for_a_listing_goes_on_from_when_it_came() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        walk.entered(&path("a"), now);
        walk.listed(&path("a"), after(now, 900));
        assert_eq!(walk.entered(&path("a/b"), after(now, 930)), Step::First);
        walk.expect(paths(0..9));
        assert_eq!(walk.waiting(), 9);
    }

    #[test]
    fn others_who_list_something_meanwhile_are_not_followed() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        walk.entered(&path("a"), now);
        assert_eq!(walk.entered(&path("a/b"), now), Step::First);
        assert_eq!(walk.entered(&path("x/y"), now), Step::None);
        assert_eq!(walk.entered(&path("a/c"), now), Step::On);
    }

    #[test]
    fn trust_grows_with_every_hit_and_shrinks_with_waste() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        walk.entered(&path(""), now);
        walk.expect(paths(0..1_000));
        assert!(walk.next((1, MOST), TTL, now).is_empty(), "not a walk yet");
        walk.expect(paths(0..1_000));
        walk.entered(&path("d0000"), now);
        let first = walk.next((1, MOST), TTL, now);
        assert_eq!(first, paths(1..17));
        first.iter().for_each(|dir| walk.fetched(dir, 5, now));
        assert!(walk.next((1, MOST), TTL, now).is_empty(), "enough");
        walk.entered(&path("d0001"), now);
        walk.entered(&path("d0002"), now);
        assert_eq!(walk.extent(), (14, 64));
        assert_eq!(walk.next((1, MOST), TTL, now).len(), 50);
        let late = after(now, 6_000);
        walk.next((1, MOST), TTL, late);
        assert_eq!(walk.extent().1, 32);
    }

    #[test]
    fn what_is_far_ahead_does_not_keep_the_next_from_being_fetched() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        walk.entered(&path(""), now);
        walk.expect(paths(0..17));
        walk.entered(&path("d0000"), now);
        for dir in walk.next((1, MOST), TTL, now) {
            walk.fetched(&dir, 1, now);
        }
        assert!(walk.next((1, MOST), TTL, now).is_empty());
        walk.expect(vec![path("d0000/a")]);
        assert_eq!(walk.next((1, MOST), TTL, now), [path("d0000/a")]);
    }

    #[test]
    fn some_take_one_at_a_time_and_may_have_to_put_it_back() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        walk.entered(&path(""), now);
        walk.expect(paths(0..3));
        walk.entered(&path("d0000"), now);
        let first = walk.next((1, 1), TTL, now);
        assert_eq!(first, paths(1..2));
        assert_eq!(walk.next((1, 1), TTL, now), paths(2..3));
        walk.put_back(&first);
        assert_eq!(walk.extent().0, 1);
        assert_eq!(walk.next((1, 1), TTL, now), first);
        assert!(walk.next((1, 1), TTL, now).is_empty());
    }

    #[test]
    fn what_is_in_a_directory_comes_before_what_is_beside_it() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        walk.entered(&path(""), now);
        walk.expect(vec![path("a"), path("b")]);
        walk.entered(&path("a"), now);
        walk.expect(vec![path("a/x"), path("a/y")]);
        assert_eq!(
            walk.next((1, MOST), TTL, now),
            [path("a/x"), path("a/y"), path("b")]
        );
    }

    #[test]
    fn no_call_is_without_a_directory_unless_trust_was_lost() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        walk.entered(&path(""), now);
        walk.expect(paths(0..200));
        walk.entered(&path("d0000"), now);
        let first = walk.next((40, MOST), TTL, now);
        assert_eq!(first.len(), 40);
        first.iter().for_each(|dir| walk.fetched(dir, 5, now));
        let late = after(now, 6_000);
        assert_eq!(walk.next((40, MOST), TTL, late).len(), FIRST / 2);
    }

    #[test]
    fn entries_are_bounded() {
        let (mut walk, now) = (Walk::default(), Instant::now());
        walk.entered(&path(""), now);
        walk.expect(paths(0..100));
        walk.entered(&path("d0000"), now);
        for dir in walk.next((1, MOST), TTL, now) {
            walk.fetched(&dir, ENTRIES / 10, now);
        }
        for dir in paths(1..6) {
            walk.entered(&dir, now);
        }
        assert!(walk.next((1, MOST), TTL, now).is_empty());
        for dir in paths(6..17) {
            walk.entered(&dir, now);
        }
        assert!(!walk.next((1, MOST), TTL, now).is_empty());
    }
}
