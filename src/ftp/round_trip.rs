//! Round trips to the server, as connections are made, and what they tell of the link.
//!
//! Packets that find the link full wait in the queue before it: then a round trip takes longer than
//! it does while little is on the way. One who is about to open another download beside those under
//! way learns from that whether there is any room for it, and moves no byte to find out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Round trips that are remembered.
const KEPT: usize = 16;

/// How long the shortest is taken for what the way to the server takes: networks change.
const HOLDS: Duration = Duration::from_secs(600);

/// Of how long ago those are that tell what the link is like now; and in round trips, at least.
const NOW: Duration = Duration::from_millis(250);
const TRIPS: u32 = 3;

/// How long an answer is good for those who ask at the same time, of whom all are to hear the same.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// How much longer all of them take where they queue: by a part of the shortest, and by more than
/// what busy machines add.
const PART: u32 = 8;
const NOISE: Duration = Duration::from_millis(2);

/// The latest round trips, and the shortest.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    recent: VecDeque<(Instant, Duration)>,
    /// Of this period, which began then, and of the one before.
    least: Option<(Instant, Duration)>,
    before: Option<Duration>,
    /// When they were last seen to queue.
    queued: Option<Instant>,
}

impl RoundTrips {
    /// One took so long.
    pub(super) fn add(&mut self, took: Duration, now: Instant) {
        self.recent.truncate(KEPT - 1);
        self.recent.push_front((now, took));
        self.least = Some(match self.least {
            Some((since, least)) if now.saturating_duration_since(since) < HOLDS => {
                (since, least.min(took))
            }
            least => {
                self.before = least.map(|(_, least)| least);
                (now, took)
            }
        });
    }

    /// The shortest of late: what the way to the server takes.
    pub(super) fn shortest(&self) -> Option<Duration> {
        let (_, least) = self.least?;
        Some(self.before.map_or(least, |before| before.min(least)))
    }

    /// Whether what goes to the server, or comes from it, waits for what is on the way already.
    pub(super) fn queue_up(&mut self, now: Instant) -> bool {
        let good = |at: Instant| now.saturating_duration_since(at) < GOOD_FOR;
        if self.queued.is_some_and(good) {
            return true;
        }
        let Some(least) = self.shortest() else {
            return false;
        };
        let window = NOW.max(least * TRIPS);
        let recent = self.recent.iter();
        let recent = recent.filter(|(at, _)| now.saturating_duration_since(*at) <= window);
        let Some(shortest) = recent.map(|(_, took)| *took).min() else {
            return false;
        };
        let queued = shortest > least + least / PART + NOISE;
        log::debug!("round trips take {shortest:?} or more, the shortest was {least:?}");
        self.queued = queued.then_some(now);
        queued
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_queue_makes_all_round_trips_longer() {
        let begin = Instant::now();
        let mut trips = RoundTrips::default();
        assert!(!trips.queue_up(begin));
        trips.add(ms(20), begin);
        assert!(!trips.queue_up(begin));
        // Long ago, or all but one: no queue.
        trips.add(ms(35), begin + ms(1_000));
        assert!(trips.queue_up(begin + ms(1_100)));
        assert!(trips.queue_up(begin + ms(1_300)), "that was just found");
        assert!(!trips.queue_up(begin + ms(2_400)));
        trips.add(ms(36), begin + ms(3_000));
        trips.add(ms(21), begin + ms(3_100));
        assert!(!trips.queue_up(begin + ms(3_200)));
        assert!(trips.recent.len() < KEPT);
    }

    #[test]
    fn noise_is_no_queue_and_a_longer_way_is_learned() {
        let begin = Instant::now();
        let mut trips = RoundTrips::default();
        trips.add(Duration::from_micros(200), begin);
        trips.add(ms(1), begin + ms(1_000));
        assert!(!trips.queue_up(begin + ms(1_000)));
        for minute in 1..40 {
            trips.add(ms(30), begin + ms(minute * 60_000));
        }
        assert!(!trips.queue_up(begin + ms(39 * 60_000)));
        assert_eq!(trips.recent.len(), KEPT);
    }
}
