//! Who gets the next connection when there are too few.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::lock;
use crate::caller;
use crate::traffic::TRAFFIC;
use crate::vfs::error::{Error, ErrorKind, Result};

/// How long anybody queues for a connection while nothing moves on those that others have.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many of the first in line ask at the same time. The server has a line of its own; here it is
/// about the time that opening a transfer takes, in which others could be served.
const ABREAST: usize = 8;

/// Tickets in the order of arrival, and the next number.
#[derive(Debug, Default)]
struct Line {
    tickets: VecDeque<u64>,
    next: u64,
}

impl Line {
    fn join(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.tickets.push_back(number);
        number
    }
}

/// A queue for transfer connections. The pool hands out what is free; here those who found nothing
/// free wait in line, so that readers who hang up in favour of others do not overtake them.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// A leaf.
    line: Mutex<Line>,
    moved: Condvar,
    waiting: AtomicUsize,
}

impl Turns {
    /// Whether somebody is in line: those who hold a connection as a favour give it up.
    pub(crate) fn others_wait(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How many are in line.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Asks without waiting, frees an idle connection with `reclaim` and asks again.
    ///
    /// # Errors
    /// `Busy` if nothing is free or others wait; else what `ask` said.
    pub(crate) fn try_now<T>(
        &self,
        reclaim: impl Fn() -> bool,
        mut ask: impl FnMut(bool) -> Result<T>,
    ) -> Result<T> {
        if self.others_wait() {
            return Err(Error::new(ErrorKind::Busy, "others wait for a connection"));
        }
        match ask(false) {
            Err(err) if err.kind() == ErrorKind::Busy && reclaim() => ask(false),
            other => other,
        }
    }

    /// The same, but waits in line for a connection, as long as contents go over those that others
    /// have and somebody wants the outcome.
    ///
    /// # Errors
    /// `Busy` after half a minute without that; else what `ask` said.
    pub(crate) fn wait<T>(
        &self,
        reclaim: impl Fn() -> bool,
        ask: impl FnMut(bool) -> Result<T>,
    ) -> Result<T> {
        self.wait_among(&AtomicUsize::new(0), reclaim, ask)
    }

    /// The same for one of a group, which is counted in `group` for as long as it is in line.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub(crate) fn wait_among<T>(
        &self,
        group: &AtomicUsize,
        reclaim: impl Fn() -> bool,
        mut ask: impl FnMut(bool) -> Result<T>,
    ) -> Result<T> {
        match self.try_now(&reclaim, &mut ask) {
            Err(err) if err.kind() == ErrorKind::Busy => {}
            other => return other,
        }
        let mut patience = Patience::new(PATIENCE);
        // For longer than its ticket, so that it is never taken for one of another group.
        let _member = Member::of(group);
        let ticket = self.join();
        while let Err(err) = ticket.wait_until_near(patience.until) {
            if !patience.lasts() {
                return Err(err);
            }
        }
        loop {
            reclaim();
            let asked = Instant::now();
            match ask(true) {
                Err(err) if err.kind() == ErrorKind::Busy && patience.lasts() => {
                    // A pool that says Busy at once must not make this a busy loop.
                    let early = Duration::from_millis(50).saturating_sub(asked.elapsed());
                    std::thread::sleep(early);
                }
                other => return other,
            }
        }
    }

    fn join(&self) -> Ticket<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let number = lock(&self.line).join();
        Ticket {
            turns: self,
            number,
        }
    }
}

/// One of a group, counted until this is dropped.
struct Member<'a>(&'a AtomicUsize);

impl<'a> Member<'a> {
    fn of(group: &'a AtomicUsize) -> Self {
        group.fetch_add(1, Ordering::Relaxed);
        Self(group)
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long to wait.
struct Patience {
    each: Duration,
    until: Instant,
    /// Bytes that had gone over data connections when it was last renewed.
    moved: u64,
}

impl Patience {
    fn new(each: Duration) -> Self {
        Self {
            each,
            until: Instant::now() + each,
            moved: moved(),
        }
    }

    /// Whether to wait on. It is renewed if something moved since.
    fn lasts(&mut self) -> bool {
        if caller::has_gone() {
            return false;
        }
        let now = Instant::now();
        if now < self.until {
            return true;
        }
        let before = std::mem::replace(&mut self.moved, moved());
        self.until = now + self.each;
        self.moved > before
    }
}

fn moved() -> u64 {
    TRAFFIC.sent.get() + TRAFFIC.received.get()
}

/// A place in the line, given up when dropped.
struct Ticket<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Ticket<'_> {
    fn wait_until_near(&self, deadline: Instant) -> Result<()> {
        let time = deadline.saturating_duration_since(Instant::now());
        let behind = |line: &mut Line| {
            let mut near = line.tickets.iter().take(ABREAST);
            !near.any(|ticket| *ticket == self.number)
        };
        let waited = self
            .turns
            .moved
            .wait_timeout_while(lock(&self.turns.line), time, behind);
        let waited = waited.unwrap_or_else(PoisonError::into_inner).1;
        if waited.timed_out() {
            return Err(Error::new(ErrorKind::Busy, "no connection became free"));
        }
        Ok(())
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let left = |number: &u64| *number != self.number;
        lock(&self.turns.line).tickets.retain(left);
        self.turns.waiting.fetch_sub(1, Ordering::Relaxed);
        self.turns.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_lasts_while_contents_move_and_somebody_waits() {
        let mut none = Patience::new(Duration::ZERO);
        TRAFFIC.sent.add(1);
        assert!(none.lasts(), "something was sent");
        let mut some = Patience::new(Duration::from_secs(60));
        assert!(some.lasts());
        TRAFFIC.received.add(1);
        caller::on_behalf(|| true, || assert!(!none.lasts() && !some.lasts()));
    }
}
