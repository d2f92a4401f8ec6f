//! Requests that are done where they come in.
//!
//! To hand a request to another thread and to wake that costs as much as a server on this machine
//! takes for it. So one event thread at a time may do what it has read, where the work before was
//! done in no time: the others stay free to answer what memory can answer. Where the server is far
//! away or slow, all goes to the threads that may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Work that takes longer is for a thread of its own, and to wake that does not matter.
const NO_TIME: Duration = Duration::from_millis(5);

/// Whose turn it is, and whether turns are given.
#[derive(Debug, Clone)]
pub(super) struct InPlace(Arc<State>);

#[derive(Debug)]
struct State {
    allowed: bool,
    taken: AtomicBool,
    slow: AtomicBool,
}

impl InPlace {
    pub(super) fn new(allowed: bool) -> Self {
        Self(Arc::new(State {
            allowed,
            taken: AtomicBool::new(false),
            slow: AtomicBool::new(false),
        }))
    }

    /// The right to work on this thread; `None` if another has it, or the last work was slow.
    pub(super) fn turn(&self) -> Option<Turn> {
        let state = &self.0;
        let given = state.allowed
            && !state.slow.load(Ordering::Relaxed)
            && !state.taken.swap(true, Ordering::Acquire);
        given.then(|| Turn(self.clone(), Instant::now()))
    }

    /// Work was done in `time`, here or elsewhere.
    pub(super) fn took(&self, time: Duration) {
        self.0.slow.store(time > NO_TIME, Ordering::Relaxed);
    }
}

/// Ends when dropped.
#[derive(Debug)]
pub(super) struct Turn(InPlace, Instant);

impl Drop for Turn {
    fn drop(&mut self) {
        let Self(InPlace(state), began) = &self;
        self.0.took(began.elapsed());
        state.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn one_thread_at_a_time_while_the_work_is_quick() {
        let in_place = InPlace::new(true);
        let turn = in_place.turn();
        assert!(turn.is_some() && in_place.turn().is_none());
        drop(turn);
        let turn = in_place.turn();
        assert!(turn.is_some());
        sleep(2 * NO_TIME);
        drop(turn);
        assert!(in_place.turn().is_none(), "the last work was slow");
        in_place.took(2 * NO_TIME);
        assert!(in_place.turn().is_none());
        in_place.took(NO_TIME / 2);
        assert!(in_place.turn().is_some());
        assert!(InPlace::new(false).turn().is_none());
    }
}
