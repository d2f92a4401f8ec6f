//! Requests that are done where they come in.
//!
//! To hand a request to another thread and to wake that costs as much as a server on this machine
//! takes for it. So one event thread at a time may do what it has read, if that is of names and
//! attributes and the work before was done in no time: the others stay free to answer what memory
//! can answer. Where the server is far away or slow, all goes to the threads that may wait; what
//! brings contents goes there always.
//!
//! The session ends when the last event thread does, and one that works may take its time until it
//! sees that the kernel has gone. So the others tell, by their own end, while one works.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Work that takes longer is for a thread of its own, and to wake that does not matter.
const NO_TIME: Duration = Duration::from_millis(5);

/// Told of the session's end.
pub(crate) type OnEnd = Box<dyn Fn() + Send + Sync>;

/// Whose turn it is, and whether turns are given.
#[derive(Clone)]
pub(super) struct InPlace(Arc<State>);

struct State {
    taken: AtomicBool,
    slow: AtomicBool,
    /// Event threads that will tell of their end.
    threads: AtomicUsize,
    on_end: OnEnd,
}

thread_local! {
    /// Of an event thread.
    static END: RefCell<Option<End>> = const { RefCell::new(None) };
}

/// Dropped when its thread ends.
struct End(Arc<State>);

impl Drop for End {
    fn drop(&mut self) {
        if self.0.taken.load(Ordering::Acquire) {
            (self.0.on_end)();
        }
    }
}

impl InPlace {
    /// `on_end` is called if the session ends while somebody works.
    pub(super) fn new(on_end: OnEnd) -> Self {
        Self(Arc::new(State {
            taken: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            on_end,
        }))
    }

    /// Notes that this is an event thread. Whether there is another one.
    fn is_one_of_many(&self) -> bool {
        let state = &self.0;
        END.with_borrow_mut(|end| {
            if !matches!(end, Some(End(known)) if Arc::ptr_eq(known, state)) {
                state.threads.fetch_add(1, Ordering::Relaxed);
                *end = Some(End(Arc::clone(state)));
            }
        });
        state.threads.load(Ordering::Relaxed) > 1
    }

    /// The right to work on this event thread; `None` if another has it, if the last work was slow, or
    /// if nobody else would tell of the end.
    pub(super) fn turn(&self) -> Option<Turn> {
        let state = &self.0;
        let given = self.is_one_of_many()
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
pub(super) struct Turn(InPlace, Instant);

impl Drop for Turn {
    fn drop(&mut self) {
        let Self(InPlace(state), began) = &self;
        self.0.took(began.elapsed());
        state.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::thread::sleep;

    use super::*;

    /// What another event thread does, and its end.
    fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    #[test]
    fn one_thread_at_a_time_while_the_work_is_quick() {
        let in_place = InPlace::new(Box::new(|| ()));
        assert!(in_place.turn().is_none(), "the only thread");
        elsewhere(|| assert!(in_place.turn().is_some()));
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
    }

    #[test]
    fn the_end_of_another_thread_is_told_while_one_works() {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let in_place = InPlace::new(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(in_place.turn().is_none());
        elsewhere(|| drop(in_place.turn()));
        assert_eq!(told.load(Ordering::Relaxed), 0, "nobody works");
        let turn = in_place.turn();
        assert!(turn.is_some());
        elsewhere(|| assert!(in_place.turn().is_none()));
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }
}
