//! A bell: whoever waits for the queue to change is woken.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Times it rang.
    count: Mutex<u64>,
    bell: Condvar,
}

impl Changes {
    /// To be given to [`wait`](Self::wait); taken before looking, so that nothing is missed.
    pub(super) fn count(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.bell.notify_all();
    }

    /// Waits until it rang since `seen`, or until `deadline`; whether it rang.
    pub(super) fn wait(&self, seen: u64, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let count = || self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .bell
            .wait_timeout_while(count(), left, |count| *count == seen);
        let (count, result) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(count);
        !result.timed_out()
    }
}
