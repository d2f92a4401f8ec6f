//! Commits of several threads at the price of one: who comes while another one commits waits, and
//! is taken along by the next.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::files::Staged;
use crate::vfs::error::Result;

/// More messages are not committed together: who waits for one should not wait for thousands.
const MOST: usize = 100;

/// What one thread wants committed, all or none.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) staged: Vec<Staged>,
    pub(super) linger: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Commits {
    line: Mutex<Line>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    waiting: Vec<(u64, Order)>,
    /// Somebody commits.
    busy: bool,
    /// Outcomes nobody has fetched.
    done: Vec<(u64, Result<()>)>,
    next: u64,
}

impl Commits {
    /// Has `order` committed by `work`, here or in another thread.
    // The lock goes with the line from one turn of the loop to the next.
    #[allow(clippy::significant_drop_tightening)]
    pub(super) fn commit(
        &self,
        order: Order,
        work: impl Fn(Vec<Order>) -> Result<()>,
    ) -> Result<()> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = line.next;
        line.next += 1;
        line.waiting.push((ticket, order));
        loop {
            if let Some(at) = line.done.iter().position(|(done, _)| *done == ticket) {
                return line.done.swap_remove(at).1;
            }
            if line.busy {
                line = self
                    .moved
                    .wait(line)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            line.busy = true;
            let many = line.waiting.len().min(MOST);
            let taken: Vec<_> = line.waiting.drain(..many).collect();
            drop(line);
            let (tickets, orders): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
            let outcome = work(orders);
            line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            line.busy = false;
            let outcomes = tickets.into_iter().map(|ticket| (ticket, outcome.clone()));
            line.done.extend(outcomes);
            self.moved.notify_all();
        }
    }
}
