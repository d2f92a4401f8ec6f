//! Whether a disk keeps up with a writer.

use std::time::Duration;

/// A disk that takes less than so many bytes a second holds its writer up, who gets more through the
/// page cache, and waits there for what is written directly.
pub(super) const SLOW: u64 = 700 << 20;

/// Bytes by which it is judged.
pub(super) const JUDGED: u64 = 8 << 20;

/// For how many bytes it is left alone; twice as many each time it is found slow again.
pub(super) const REST: u64 = 64 << 20;

/// What a disk did.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes since it was judged, and how long they took.
    wrote: u64,
    took: Duration,
    /// How often it was found slow, one time after the other.
    slow: u32,
}

impl Pace {
    /// The disk took `time` for `bytes`. For how many bytes it is to be left alone, if it was found
    /// slow and a writer `waits` for it.
    pub(super) fn judge(&mut self, bytes: u64, time: Duration, waits: bool) -> Option<u64> {
        self.wrote += bytes;
        self.took += time;
        if self.wrote < JUDGED {
            return None;
        }
        let (wrote, took) = (self.wrote, self.took);
        (self.wrote, self.took) = (0, Duration::ZERO);
        if u128::from(wrote) * 1_000_000_000 >= u128::from(SLOW) * took.as_nanos() {
            self.slow = 0;
            return None;
        }
        waits.then(|| {
            let rest = REST << self.slow.min(16);
            self.slow += 1;
            rest
        })
    }
}
