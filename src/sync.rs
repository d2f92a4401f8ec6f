//! The one mutex of the crate, whose guard never escapes.

use std::sync::{Mutex, PoisonError};

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
