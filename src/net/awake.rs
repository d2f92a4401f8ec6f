//! Waiting awake for a peer that answers in no more time than it takes to fall asleep and be woken:
//! one on this machine, mostly.

use std::thread;
use std::time::{Duration, Instant};

/// Where an answer came in this time, the next one is waited for awake as long.
const AWAKE: Duration = Duration::from_micros(200);

/// How a peer answers.
#[derive(Debug, Default)]
pub struct Awake {
    near: bool,
}

impl Awake {
    /// Waits a moment until `has_come`, if that is worth it, and then by `read`.
    ///
    /// # Errors
    /// Of `read`.
    pub fn read<S, T, E>(
        &mut self,
        source: &mut S,
        has_come: impl Fn(&mut S) -> bool,
        read: impl FnOnce(&mut S) -> Result<T, E>,
    ) -> Result<T, E> {
        let began = Instant::now();
        if self.near {
            stay_awake(AWAKE, || has_come(source));
        }
        let got = read(source);
        self.near = began.elapsed() < AWAKE;
        got
    }
}

/// Gives way to whoever wants to run until `has_come`, or for as long as `most`. Whether it came.
pub(super) fn stay_awake(most: Duration, mut has_come: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !has_come() {
        if began.elapsed() >= most {
            return false;
        }
        thread::yield_now();
    }
    true
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn only_what_comes_at_once_is_waited_for_awake() {
        let mut awake = Awake::default();
        let looks = Cell::new(0_u32);
        let mut looks_at = |took: Duration| {
            looks.set(0);
            let look = |(): &mut ()| {
                looks.set(looks.get() + 1);
                false
            };
            let _: Result<(), ()> = awake.read(&mut (), look, |()| {
                thread::sleep(took);
                Ok(())
            });
            looks.get() > 0
        };
        assert!(!looks_at(Duration::ZERO), "nothing is known yet");
        // Unless the machine is busy, at the first.
        assert!((0..1000).any(|_| looks_at(Duration::ZERO)));
        looks_at(10 * AWAKE);
        assert!(!looks_at(10 * AWAKE), "the last came late");
    }
}
