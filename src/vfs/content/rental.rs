//! When a file in which readers jump about is fetched whole.
//!
//! Nobody knows how many jumps are still to come: renting or buying skis, without knowing how long
//! the winter is. So it is bought in instalments: a file is fetched behind its readers for as long
//! as they have waited for jumps in it, and not longer. Three lookups fetch next to nothing of a
//! large file, thousands of reads soon have all of it here, and what both cost together is at most
//! twice what the better of the two would have cost, and a few jumps, whatever comes.

use std::time::{Duration, Instant};

/// Fetching begins with that many jumps, and goes on after a rest when all but one of so many have
/// been waited for.
const INSTALMENT: u32 = 3;

/// When it is known how fast the file comes.
const PROVEN: Duration = Duration::from_secs(1);

/// Below so many bytes a second more than one connection only takes from the jumps what there is.
const SLOW: u64 = 4 << 20;

/// What would take longer is not fetched.
const TOO_LONG: u64 = 3600;

/// The account of one file: time that its readers waited, and time for which it was fetched.
#[derive(Debug, Default)]
pub(super) struct Rental {
    jumps: u32,
    /// Jumps that readers wait for now, and when that was last added to `waited`.
    under_way: u32,
    counted: Option<Instant>,
    waited: Duration,
    fetched_for: Duration,
    /// Since when it is being fetched.
    since: Option<Instant>,
    bytes: u64,
}

impl Rental {
    /// A reader waits for a jump.
    pub(super) fn jump_begins(&mut self, now: Instant) {
        self.count(now);
        self.jumps = self.jumps.saturating_add(1);
        self.under_way += 1;
    }

    /// How many readers wait for jumps.
    pub(super) const fn under_way(&self) -> usize {
        self.under_way as usize
    }

    /// One of them is over.
    pub(super) fn jump_ends(&mut self, now: Instant) {
        self.count(now);
        self.under_way = self.under_way.saturating_sub(1);
    }

    fn count(&mut self, now: Instant) {
        self.waited = self.waited(now);
        self.counted = Some(now);
    }

    fn waited(&self, now: Instant) -> Duration {
        let since = self.counted.map(|at| now.saturating_duration_since(at));
        self.waited + since.unwrap_or_default() * self.under_way
    }

    /// How long a jump takes.
    fn jump(&self, now: Instant) -> Duration {
        let jumps = self.waited(now).checked_div(self.jumps);
        jumps.unwrap_or_default()
    }

    /// Whether enough is saved up to begin, or to go on after a rest.
    pub(super) fn may_begin(&self, now: Instant) -> bool {
        let saved = self.waited(now).saturating_sub(self.spent(now));
        let others = INSTALMENT - 1;
        self.jumps >= INSTALMENT && saved >= self.jump(now) * others
    }

    /// Whether anything is left.
    pub(super) fn may_go_on(&self, now: Instant) -> bool {
        self.waited(now) > self.spent(now)
    }

    /// It is being fetched from now on, or not any more.
    pub(super) fn fetches(&mut self, on: bool, now: Instant) {
        self.fetched_for = self.spent(now);
        self.since = on.then_some(now);
    }

    /// So many bytes came.
    pub(super) const fn came(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Bytes a second, once that is known.
    fn rate(&self, now: Instant) -> Option<u64> {
        let spent = self.spent(now);
        (spent >= PROVEN).then(|| super::judge::rate(self.bytes, spent))
    }

    /// Whether one connection is enough.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        self.rate(now).is_some_and(|rate| rate < SLOW)
    }

    /// Whether the rest of a file of `size` bytes would take too long.
    pub(super) fn is_hopeless(&self, size: u64, now: Instant) -> bool {
        let left = size.saturating_sub(self.bytes);
        self.rate(now)
            .is_some_and(|rate| left / rate.max(1) > TOO_LONG)
    }

    fn spent(&self, now: Instant) -> Duration {
        let under_way = self.since.map(|since| now.saturating_duration_since(since));
        self.fetched_for + under_way.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn few_jumps_fetch_nothing_and_more_as_much_as_they_waited() {
        let (mut rental, mut t) = (Rental::default(), Instant::now());
        let jump = |rental: &mut Rental, t: &mut Instant| {
            rental.jump_begins(*t);
            *t += 60 * MS;
            rental.jump_ends(*t);
        };
        jump(&mut rental, &mut t);
        jump(&mut rental, &mut t);
        assert!(!rental.may_begin(t) && rental.jump(t) == 60 * MS);
        jump(&mut rental, &mut t);
        assert!(rental.may_begin(t));
        rental.fetches(true, t);
        assert!(rental.may_go_on(t + 179 * MS) && !rental.may_go_on(t + 180 * MS));
        t += 180 * MS;
        rental.fetches(false, t);
        // A rest costs nothing, and ends when another instalment is saved up.
        t += 3_600_000 * MS;
        jump(&mut rental, &mut t);
        assert!(!rental.may_begin(t) && rental.may_go_on(t));
        jump(&mut rental, &mut t);
        jump(&mut rental, &mut t);
        assert!(rental.may_begin(t));
    }

    #[test]
    fn many_who_wait_at_once_need_not_wait_to_the_end() {
        let (mut rental, t) = (Rental::default(), Instant::now());
        (0..2).for_each(|_| rental.jump_begins(t));
        assert!(!rental.may_begin(t));
        (0..6).for_each(|_| rental.jump_begins(t));
        assert!(rental.may_begin(t));
        rental.fetches(true, t);
        assert!(rental.may_go_on(t + MS));
        (0..8).for_each(|_| rental.jump_ends(t + 10 * MS));
        assert!(rental.may_go_on(t + 79 * MS) && !rental.may_go_on(t + 80 * MS));
    }

    #[test]
    fn a_slow_link_gets_one_connection_and_a_hopeless_one_none() {
        let (mut rental, t) = (Rental::default(), Instant::now());
        rental.fetches(true, t);
        rental.came(1 << 20);
        assert!(!rental.is_slow(t + 999 * MS) && !rental.is_hopeless(u64::MAX, t + 999 * MS));
        assert!(rental.is_slow(t + 1000 * MS) && !rental.is_hopeless(1 << 30, t + 1000 * MS));
        assert!(rental.is_hopeless(1 << 40, t + 1000 * MS));
        rental.came(64 << 20);
        assert!(!rental.is_slow(t + 1000 * MS));
    }

    /// Against the better of "never" and "at once", for any number of jumps.
    #[test]
    fn it_costs_at_most_twice_the_best_decision() {
        let whole = 2_000 * MS;
        let jump = 40 * MS;
        for jumps in 0..200 {
            let (mut rental, mut now) = (Rental::default(), Instant::now());
            let (mut waited, mut fetched, mut fetching) = (Duration::ZERO, Duration::ZERO, false);
            for _ in 0..jumps {
                if fetched >= whole {
                    break;
                }
                // The fetch goes on while the reader waits.
                rental.jump_begins(now);
                now += jump;
                waited += jump;
                if fetching {
                    fetched += jump;
                }
                rental.jump_ends(now);
                let on = match fetching {
                    true => rental.may_go_on(now),
                    false => rental.may_begin(now),
                };
                if on != fetching {
                    fetching = on;
                    rental.fetches(on, now);
                }
            }
            let best = (jump * jumps).min(whole);
            assert!(
                waited + fetched <= 2 * best + jump * INSTALMENT,
                "{jumps} jumps: {waited:?} {fetched:?}"
            );
        }
    }
}
