//! Fetches ahead what a walk will list next.
//!
//! One thread, or several where the server is asked for few directories at a time, started when there
//! is something to fetch and gone when there is not. What they fetch is a flight like any other
//! listing, so a change of ours that overtakes it wins, and who wants it meanwhile waits for it; but
//! not for long.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Memory;
use super::copying::Copying;
use super::listings::Flight;
use super::order::{Order, directories};
use super::walk::{Step, Walk};
use crate::sync::Locked;
use crate::vfs::attr::DirEntry;
use crate::vfs::backend::{Backend, Together};
use crate::vfs::path::{Name, RemotePath};

/// The longest that a reader waits for what is being fetched ahead before asking for it himself.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Ahead {
    inner: Arc<dyn Backend>,
    memory: Memory,
    ttl: Duration,
    state: Locked<State>,
}

#[derive(Default)]
struct State {
    walk: Walk,
    order: Order,
    copying: Copying,
    /// Threads that are there.
    running: usize,
}

/// The end of a flight that was begun ahead.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    over: Mutex<bool>,
    told: Condvar,
}

impl Arrival {
    fn tell(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }

    /// Waits for it, within reason.
    pub(super) fn wait(&self) {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.told.wait_timeout_while(over, PATIENCE, |over| !*over));
    }
}

impl Ahead {
    pub(super) fn new(inner: Arc<dyn Backend>, memory: Memory, ttl: Duration) -> Arc<Self> {
        Arc::new(Self {
            inner,
            memory,
            ttl,
            state: Locked::default(),
        })
    }

    /// A program opened the file at `path` to read it.
    pub(super) fn opened(&self, path: &RemotePath) {
        let now = Instant::now();
        let Some((dir, name)) = path.split() else {
            return;
        };
        let listing = self.memory.0.with(|listings| listings.listing(&dir, now));
        let Some(listing) = listing else { return };
        let files = self
            .state
            .with(|state| state.copying.opened(&dir, &name, &listing, now));
        self.inner.fetch_ahead(&files);
    }

    /// A program opens `dir` to read it. What is beside it may be wanted next, and does not wait for
    /// this listing to come.
    pub(super) fn entered(self: &Arc<Self>, dir: &RemotePath) -> Step {
        let now = Instant::now();
        let step = self.state.with(|state| state.walk.entered(dir, now));
        if matches!(step, Step::First | Step::Down)
            && let Some((parent, name)) = dir.split()
        {
            let beside = self.memory.0.with(|listings| {
                let (entries, _) = listings.known_list(&parent, now)?;
                Some(entries)
            });
            if let Some(beside) = beside {
                let changed = self.state.with(|state| {
                    let before = state.order;
                    state.order = before.seen(&name, &beside);
                    before != state.order
                });
                if step == Step::First || changed {
                    self.expect(&parent, &beside, now);
                }
            }
        }
        if step == Step::First && self.shape().early {
            self.start(now);
        }
        step
    }

    /// What a program opened, and this step was, has come: `dir` has these entries.
    pub(super) fn listed(self: &Arc<Self>, dir: &RemotePath, entries: &[DirEntry], step: Step) {
        let now = Instant::now();
        let copied = self.state.with(|state| state.copying.is_going_on(now));
        if copied && let Some(listing) = self.memory.0.with(|listings| listings.listing(dir, now)) {
            let files = self
                .state
                .with(|state| state.copying.entered(dir, &listing, now));
            self.inner.fetch_ahead(&files);
        }
        self.state.with(|state| state.walk.listed(dir, now));
        if step == Step::None {
            return;
        }
        self.expect(dir, entries, now);
        self.start(now);
    }

    /// Notes the directories among `entries` that are not known.
    fn expect(&self, dir: &RemotePath, entries: &[DirEntry], now: Instant) {
        let mut names: Vec<&Name> = directories(entries).collect();
        if names.is_empty() {
            return;
        }
        self.state.with(|state| state.order).sort(&mut names);
        let mut below: Vec<RemotePath> = names.iter().map(|name| dir.join(name)).collect();
        self.memory.0.with(|listings| {
            below.retain(|dir| !listings.is_listed(dir, now));
        });
        self.state.with(|state| state.walk.expect(below));
    }

    fn shape(&self) -> Together {
        let waiting = self.state.with(|state| state.walk.waiting());
        self.inner.lists_together(waiting)
    }

    fn start(self: &Arc<Self>, now: Instant) {
        let Together { calls, dirs, .. } = self.shape();
        loop {
            let first = self.state.with(|state| {
                if state.running >= calls {
                    return Vec::new();
                }
                let share = state.walk.share(calls, dirs);
                let first = state.walk.next((calls, share), self.ttl, now);
                state.running += usize::from(!first.is_empty());
                first
            });
            if first.is_empty() {
                return;
            }
            let ahead = Arc::clone(self);
            let (dirs, unfetched) = (first.clone(), first);
            let started = std::thread::Builder::new()
                .name("foresight".into())
                .spawn(move || ahead.run(dirs));
            if started.is_err() {
                self.state.with(|state| {
                    state.running -= 1;
                    unfetched.iter().for_each(|dir| state.walk.missed(dir));
                });
                return;
            }
        }
    }

    fn run(self: &Arc<Self>, mut dirs: Vec<RemotePath>) {
        while !dirs.is_empty() {
            let asked = self.fetch(&dirs);
            let together = self.shape();
            dirs = self.state.with(|state| {
                let next = match asked {
                    true => {
                        let Together { calls, dirs, .. } = together;
                        let share = state.walk.share(calls, dirs);
                        state.walk.next((calls, share), self.ttl, Instant::now())
                    }
                    // The next step of the walk tries again.
                    false => Vec::new(),
                };
                state.running -= usize::from(next.is_empty());
                next
            });
            if !dirs.is_empty() {
                self.start(Instant::now());
            }
        }
    }

    /// Whether there was anything to ask with.
    fn fetch(&self, dirs: &[RemotePath]) -> bool {
        let asked = Instant::now();
        let mut flights: Vec<(RemotePath, Arc<Flight>)> = Vec::with_capacity(dirs.len());
        self.memory.0.with(|listings| {
            for dir in dirs {
                if let Some(flight) = listings.board_ahead(dir, asked) {
                    flights.push((dir.clone(), flight));
                }
            }
        });
        let wanted: Vec<RemotePath> = flights.iter().map(|(dir, _)| dir.clone()).collect();
        let asked_for = self.inner.list_ahead(&wanted, &|place, entries| {
            let Some((dir, flight)) = flights.get(place) else {
                return;
            };
            let _ = flight.listing.set(Ok(Arc::clone(&entries)));
            self.memory
                .0
                .with(|listings| listings.landed(dir, flight, asked, Instant::now()));
            self.state
                .with(|state| state.walk.fetched(dir, entries.len(), Instant::now()));
            flight.arrival.as_ref().into_iter().for_each(|a| a.tell());
        });
        let mut below = Vec::new();
        for (dir, flight) in &flights {
            if let Some(Ok(entries)) = flight.listing.get() {
                below.push((dir, Arc::clone(entries)));
                continue;
            }
            self.memory.0.with(|listings| listings.abandon(dir, flight));
            flight.arrival.as_ref().into_iter().for_each(|a| a.tell());
        }
        self.state.with(|state| {
            let got = |dir: &RemotePath| below.iter().any(|(at, _)| *at == dir);
            if !asked_for {
                state.walk.put_back(dirs);
            }
            for dir in dirs.iter().filter(|dir| asked_for && !got(dir)) {
                state.walk.missed(dir);
            }
        });
        // The first in a queue comes last.
        for (dir, entries) in below.into_iter().rev() {
            self.expect(dir, &entries, Instant::now());
        }
        asked_for
    }
}
