//! The one mutex of the crate, whose guard never escapes, and a bell for those who wait for what is
//! behind one.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Plain data behind a leaf lock. Work is done in a closure, so the lock cannot be held by
/// accident across a socket, a reply or another lock.
#[derive(Debug, Default)]
pub struct Locked<T>(Mutex<T>);

impl<T> Locked<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Runs `work` on the data. A panic of an earlier holder does not poison it: what is behind a
    /// leaf lock is map work, consistent between any two statements.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Wakes those who wait until something has changed that is behind a lock of its own.
#[derive(Debug, Default)]
pub struct Bell {
    /// How often it rang. A leaf.
    rung: Mutex<u64>,
    heard: Condvar,
}

impl Bell {
    /// Has those who wait look again.
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.heard.notify_all();
    }

    /// Waits until `done`, which is asked at first and whenever it rang, for `limit` at most.
    pub fn wait_until(&self, limit: Duration, done: impl Fn() -> bool) {
        let until = Instant::now() + limit;
        loop {
            let before = *self.rung.lock().unwrap_or_else(PoisonError::into_inner);
            let left = until.saturating_duration_since(Instant::now());
            if done() || left.is_zero() {
                return;
            }
            let waited = self.heard.wait_timeout_while(
                self.rung.lock().unwrap_or_else(PoisonError::into_inner),
                left,
                |rung| *rung == before,
            );
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread;

    use super::*;

    #[test]
    fn who_waits_is_woken_or_gives_up() {
        let (bell, done) = (Bell::default(), AtomicBool::new(false));
        let (asked, limit) = (AtomicBool::new(false), Duration::from_secs(20));
        let began = Instant::now();
        let is_done = || {
            asked.store(true, Relaxed);
            done.load(Relaxed)
        };
        thread::scope(|scope| {
            let waiting = scope.spawn(|| bell.wait_until(limit, is_done));
            while !asked.load(Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            // He waits by now, and for nothing yet.
            thread::sleep(Duration::from_millis(50));
            bell.ring();
            thread::sleep(Duration::from_millis(50));
            done.store(true, Relaxed);
            bell.ring();
            waiting.join().unwrap();
        });
        bell.wait_until(limit, || true);
        assert!(began.elapsed() < limit / 2);
        bell.wait_until(Duration::from_millis(1), || false);
    }
}
