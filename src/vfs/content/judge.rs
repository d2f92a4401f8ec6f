//! Whether several connections give a sequential reader more than one did.

use std::time::{Duration, Instant};

/// What ranges must give, in hundredths of what one stream gave, and when that is measured.
const GAIN: u64 = 125;
const WARM_UP: Duration = Duration::from_millis(700);
const TRIAL: Duration = Duration::from_millis(800);

/// Compares.
#[derive(Debug)]
pub(super) struct Judge {
    /// Bytes a second of one stream.
    before: u64,
    began: Instant,
    /// When the comparison began, with what had come until then.
    warm: Option<(Instant, u64)>,
    done: bool,
}

impl Judge {
    pub(super) fn new(before: u64) -> Self {
        Self {
            before,
            began: Instant::now(),
            warm: None,
            done: false,
        }
    }

    /// Whether to go on, now that `come` bytes have come, by helpers and by the reader's own stream.
    pub(super) fn allows(&mut self, come: u64) -> bool {
        if self.done || self.began.elapsed() < WARM_UP {
            return true;
        }
        let (since, from) = *self.warm.get_or_insert((Instant::now(), come));
        if since.elapsed() < TRIAL {
            return true;
        }
        self.done = true;
        let together = rate(come.saturating_sub(from), since.elapsed());
        let one = self.before;
        log::debug!("several connections give {together} bytes/s, one gave {one}");
        together >= one / 100 * GAIN
    }
}

/// Bytes a second.
pub(super) fn rate(bytes: u64, time: Duration) -> u64 {
    let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000_000) / time
}
