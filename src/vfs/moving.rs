//! Names that are just being taken from one file and given to another, or to none.
//!
//! The kernel opens what it last found under a name. Told `ESTALE` since something else has the name
//! now, it looks the name up and opens once more, and passes a second `ESTALE` on to the program, to
//! whom the name was there all the time. So whoever asks for a name on its way waits until it has
//! arrived; and whoever was told `ESTALE` finds the name where it is for long enough to come back.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Vfs;
use super::error::{Error, ErrorKind, Result};
use super::inodes::Ino;
use super::path::Name;
use crate::caller;

/// How long a name stays where it is for somebody who was told to look again, from when he was, and
/// again from when he did. He may be a long time on his way where the processors are busy, and may
/// wait for the directory, which the kernel locks for who wants to move the name.
const COMING_BACK: Duration = Duration::from_millis(500);

/// In all, however often he looks: a program that does nothing else must not keep a name in its place.
const COMING_BACK_IN_ALL: Duration = Duration::from_secs(2);

/// How often those who wait look whether anybody wants the outcome.
const LOOKS: Duration = Duration::from_millis(100);

/// A directory and a name in it.
pub(super) type Spot = (Ino, Name);

/// Somebody who was told to look again.
#[derive(Debug)]
struct Expected {
    caller: u32,
    at: Spot,
    until: Instant,
    /// No longer than this.
    last: Instant,
}

#[derive(Debug, Default)]
struct State {
    moving: HashSet<Spot>,
    expected: Vec<Expected>,
}

/// See [the module](self). A leaf, but for those who wait.
#[derive(Debug, Default)]
pub(super) struct Moving {
    state: Mutex<State>,
    changed: Condvar,
    /// How many entries there are, for those who need not wait.
    entries: AtomicUsize,
}

impl Moving {
    /// The name at `at` is on its way until what is returned is dropped. Waits for those who are
    /// expected there.
    pub(super) fn begin(&self, at: Spot) -> OnItsWay<'_> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let here = state.expected.iter().filter(|expected| expected.at == at);
            let last = here.map(|expected| expected.until).max();
            let left = last.map(|until| until.saturating_duration_since(now));
            let wait = match left.filter(|left| !left.is_zero()) {
                None if !state.moving.contains(&at) => break,
                None => LOOKS,
                Some(left) => left,
            };
            state = self.wait(state, wait);
        }
        state.moving.insert(at.clone());
        self.count(&state);
        drop(state);
        OnItsWay { moving: self, at }
    }

    /// Whether the name at `at` is on its way. Never waits for it.
    pub(super) fn has(&self, at: &Spot) -> bool {
        !self.is_empty() && self.lock().moving.contains(at)
    }

    fn is_empty(&self) -> bool {
        self.entries.load(Ordering::Acquire) == 0
    }

    /// Waits until the name at `at` has arrived, or nobody wants to know.
    pub(super) fn settle(&self, at: &Spot) {
        if !self.is_empty() {
            drop(self.settled(at));
        }
    }

    /// `caller`, who asked for what was at `at`, is told to look again. Nothing is to be kept for
    /// whoever was told so before: he will not come again.
    fn expect(&self, caller: u32, at: Spot) {
        let mut state = self.settled(&at);
        let now = Instant::now();
        let (until, last) = (now + COMING_BACK, now + COMING_BACK_IN_ALL);
        let before = state.expected.len();
        state.expected.retain(|expected| expected.caller != caller);
        if state.expected.len() == before {
            state.expected.push(Expected {
                caller,
                at,
                until,
                last,
            });
        }
        self.count(&state);
        drop(state);
        self.changed.notify_all();
    }

    /// `caller` looks the name at `at` up.
    fn looked_up(&self, caller: u32, at: &Spot) {
        let mut state = self.lock();
        let theirs = |expected: &&mut Expected| expected.caller == caller && expected.at == *at;
        if let Some(expected) = state.expected.iter_mut().find(theirs) {
            expected.until = expected.last.min(Instant::now() + COMING_BACK);
        }
    }

    /// `caller` has what he asked for, or will not have it.
    fn came(&self, caller: u32) {
        /// For how long the kernel may be expected to come back at all.
        const GIVEN_UP: Duration = Duration::from_secs(30);
        if self.is_empty() {
            return;
        }
        let mut state = self.lock();
        let now = Instant::now();
        state
            .expected
            .retain(|e| e.caller != caller && now < e.until + GIVEN_UP);
        self.count(&state);
        drop(state);
        self.changed.notify_all();
    }

    fn settled(&self, at: &Spot) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.moving.contains(at) && !caller::has_gone() {
            state = self.wait(state, LOOKS);
        }
        state
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn count(&self, state: &State) {
        let entries = state.moving.len() + state.expected.len();
        self.entries.store(entries, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that is on its way.
pub(super) struct OnItsWay<'a> {
    moving: &'a Moving,
    at: Spot,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        let mut state = self.moving.lock();
        state.moving.remove(&self.at);
        self.moving.count(&state);
        drop(state);
        self.moving.changed.notify_all();
    }
}

impl Vfs {
    /// Thread `caller` looks up `name` in `parent`. Never waits.
    pub fn looks_up(&self, caller: u32, parent: Ino, name: &OsStr) {
        if !self.moving.is_empty()
            && let Ok(name) = Name::new(name.as_bytes())
        {
            self.moving.looked_up(caller, &(parent, name));
        }
    }

    /// What thread `caller` looked up is answered with `found`: if there is no such name, it will
    /// ask no more.
    pub fn finds<T>(&self, caller: u32, found: &Result<T>) {
        if found.is_err() {
            self.moving.came(caller);
        }
    }

    /// What thread `caller` asked of `ino` by its name is about to be answered, with `err` if it
    /// failed: told `Stale`, the kernel looks the name up and asks once more.
    pub fn answers(&self, caller: u32, ino: Ino, err: Option<&Error>) {
        let at = is_stale(err).then(|| self.inodes.with(|inodes| inodes.last_entry(ino)));
        self.answers_at(caller, at.flatten());
    }

    /// The same, for what was asked of `name` in `parent`.
    pub fn answers_in(&self, caller: u32, (parent, name): (Ino, &OsStr), err: Option<&Error>) {
        let at = is_stale(err).then(|| Some((parent, Name::new(name.as_bytes()).ok()?)));
        self.answers_at(caller, at.flatten());
    }

    fn answers_at(&self, caller: u32, stale: Option<Spot>) {
        match stale {
            Some(at) => self.moving.expect(caller, at),
            None => self.moving.came(caller),
        }
    }
}

fn is_stale(err: Option<&Error>) -> bool {
    err.is_some_and(|err| err.kind() == ErrorKind::Stale)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn spot() -> Spot {
        (1, Name::new(b"name").unwrap())
    }

    /// How long `begin` takes.
    fn wait_to_move(moving: &Moving) -> Duration {
        let before = Instant::now();
        drop(moving.begin(spot()));
        before.elapsed()
    }

    #[test]
    fn who_asks_for_a_name_on_its_way_waits_until_it_has_arrived() {
        let moving = Moving::default();
        let on_its_way = moving.begin(spot());
        assert!(moving.has(&spot()) && !moving.has(&(2, spot().1)));
        moving.settle(&(2, spot().1));
        thread::scope(|scope| {
            let (arrived, is_there) = mpsc::channel();
            let moving = &moving;
            scope.spawn(move || {
                moving.settle(&spot());
                arrived.send(()).unwrap();
            });
            assert!(is_there.recv_timeout(Duration::from_millis(50)).is_err());
            drop(on_its_way);
            is_there.recv_timeout(Duration::from_secs(10)).unwrap();
        });
        assert!(!moving.has(&spot()));
    }

    #[test]
    fn a_name_stays_for_who_was_told_to_look_again_once_and_not_for_ever() {
        let moving = Moving::default();
        assert!(wait_to_move(&moving) < COMING_BACK / 2);
        moving.expect(7, spot());
        assert!(wait_to_move(&moving) > COMING_BACK / 2);
        // Looking again, he has as long again.
        moving.looked_up(8, &spot());
        assert!(wait_to_move(&moving) < COMING_BACK / 2);
        moving.looked_up(7, &spot());
        assert!(wait_to_move(&moving) > COMING_BACK / 2);
        // A second refusal is for the program, and so is success.
        moving.expect(7, spot());
        assert!(wait_to_move(&moving) < COMING_BACK / 2);
        moving.expect(7, spot());
        moving.came(7);
        assert!(wait_to_move(&moving) < COMING_BACK / 2);
        assert!(moving.is_empty());
    }

    #[test]
    fn who_only_looks_keeps_no_name_in_its_place() {
        let moving = Moving::default();
        moving.expect(7, spot());
        thread::scope(|scope| {
            let moves = scope.spawn(|| wait_to_move(&moving));
            let began = Instant::now();
            while !moves.is_finished() && began.elapsed() < COMING_BACK_IN_ALL * 5 {
                moving.looked_up(7, &spot());
                thread::sleep(Duration::from_millis(20));
            }
            moving.came(7);
            assert!(moves.join().unwrap() < COMING_BACK_IN_ALL * 5);
        });
    }

    #[test]
    fn a_name_moves_as_soon_as_who_was_expected_has_come() {
        let moving = Moving::default();
        moving.expect(7, spot());
        thread::scope(|scope| {
            let moves = scope.spawn(|| wait_to_move(&moving));
            thread::sleep(Duration::from_millis(50));
            moving.came(7);
            assert!(moves.join().unwrap() < COMING_BACK * 4 / 5);
        });
    }
}
