//! How fast contents come from the server.

use std::time::Instant;

/// It is measured over so many bytes.
const MEASURED: u64 = 16 << 20;

/// Of all that comes, kept or not.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    since: Option<Instant>,
    rate: u64,
}

impl Pace {
    /// So many bytes came.
    pub(super) fn comes(&mut self, bytes: usize, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes as u64;
        if self.bytes >= MEASURED {
            let took = now.saturating_duration_since(since).as_micros();
            let took = u64::try_from(took).unwrap_or(u64::MAX).max(1);
            self.rate = self.bytes.saturating_mul(1_000_000) / took;
            (self.bytes, self.since) = (0, Some(now));
        }
    }

    /// Bytes a second of late; 0 if too little came so far.
    pub(super) const fn rate(&self) -> u64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_that_of_the_last_few_megabytes() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut come = |count, time| {
            for _ in 0..count {
                pace.comes(1 << 20, now);
                now += time;
            }
            pace.rate()
        };
        assert_eq!(come(15, Duration::from_millis(1)), 0);
        let fast = come(30, Duration::from_millis(1));
        assert!((1_000_000_000..1_200_000_000).contains(&fast), "{fast}");
        let slow = come(40, Duration::from_millis(4));
        assert!((250_000_000..300_000_000).contains(&slow), "{slow}");
        // Nothing came for a while.
        come(1, Duration::from_secs(1));
        assert!(come(16, Duration::ZERO) < 20_000_000);
    }
}
