//! What this process has done so far, in numbers, and the transfers under way: for `ferryfs status`
//! and the metrics file. One process has one mount, so the numbers are the process's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sync::Locked;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// All the numbers.
#[derive(Debug)]
pub struct Traffic {
    /// Requests of the kernel that were handed to a thread, by name.
    operations: Locked<BTreeMap<&'static str, u64>>,
    /// Requests that failed, by errno.
    errors: Locked<BTreeMap<&'static str, u64>>,
    /// Requests answered from memory.
    pub from_memory: Counter,
    /// Bytes that came over data connections, listings included.
    pub received: Counter,
    /// Bytes that went over data connections.
    pub sent: Counter,
    /// Downloads begun.
    pub downloads: Counter,
    /// Uploads begun.
    pub uploads: Counter,
    /// Listings begun.
    pub listings: Counter,
    /// Control connections that logged in.
    pub connections: Counter,
    /// Control connections that were lost and not left.
    pub lost: Counter,
    /// Messages fetched.
    pub fetched: Counter,
    under_way: Locked<Vec<Weak<Transfer>>>,
}

/// The numbers of this process.
pub static TRAFFIC: Traffic = Traffic {
    operations: Locked::new(BTreeMap::new()),
    errors: Locked::new(BTreeMap::new()),
    from_memory: Counter(AtomicU64::new(0)),
    received: Counter(AtomicU64::new(0)),
    sent: Counter(AtomicU64::new(0)),
    downloads: Counter(AtomicU64::new(0)),
    uploads: Counter(AtomicU64::new(0)),
    listings: Counter(AtomicU64::new(0)),
    connections: Counter(AtomicU64::new(0)),
    lost: Counter(AtomicU64::new(0)),
    fetched: Counter(AtomicU64::new(0)),
    under_way: Locked::new(Vec::new()),
};

impl Traffic {
    /// A request of the kernel.
    pub fn operation(&self, name: &'static str) {
        self.operations
            .with(|known| *known.entry(name).or_default() += 1);
    }

    /// A request that failed.
    pub fn error(&self, errno: &'static str) {
        self.errors
            .with(|known| *known.entry(errno).or_default() += 1);
    }

    /// Requests by name.
    #[must_use]
    pub fn operations(&self) -> BTreeMap<&'static str, u64> {
        self.operations.with(|known| known.clone())
    }

    /// Failures by errno.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<&'static str, u64> {
        self.errors.with(|known| known.clone())
    }

    /// A transfer begins; it is over when the last holder of what is returned lets go.
    #[must_use]
    pub fn begin(&self, direction: Direction, path: String, offset: u64) -> Arc<Transfer> {
        let counter = match direction {
            Direction::Down => &self.downloads,
            Direction::Up => &self.uploads,
        };
        counter.count();
        let transfer = Arc::new(Transfer {
            direction,
            path: Locked::new(path),
            total: AtomicU64::new(0),
            done: AtomicU64::new(offset),
            begun_at: SystemTime::now(),
        });
        self.under_way.with(|all| {
            all.retain(|transfer| transfer.strong_count() > 0);
            all.push(Arc::downgrade(&transfer));
        });
        transfer
    }

    /// The transfers under way, the oldest first.
    #[must_use]
    pub fn under_way(&self) -> Vec<Arc<Transfer>> {
        self.under_way
            .with(|all| all.iter().filter_map(Weak::upgrade).collect())
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To us.
    Down,
    /// To the server.
    Up,
}

/// One content on its way.
#[derive(Debug)]
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    path: Locked<String>,
    /// 0: not known.
    total: AtomicU64,
    done: AtomicU64,
    begun_at: SystemTime,
}

impl Transfer {
    /// So many bytes more have passed.
    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// What people call it, where a command names something temporary.
    pub fn rename(&self, path: String) {
        self.path.with(|known| *known = path);
    }

    /// How many bytes there will be.
    pub fn expect(&self, total: u64) {
        self.total.store(total, Relaxed);
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> String {
        self.path.with(|path| path.clone())
    }

    /// Bytes so far, and in all where that is known.
    #[must_use]
    pub fn progress(&self) -> (u64, Option<u64>) {
        let total = Some(self.total.load(Relaxed)).filter(|total| *total > 0);
        (self.done.load(Relaxed), total)
    }

    /// When it began, in seconds since 1970.
    #[must_use]
    pub fn since(&self) -> u64 {
        let age = self.begun_at.duration_since(UNIX_EPOCH);
        age.unwrap_or(Duration::ZERO).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_under_way_as_long_as_somebody_holds_it() {
        let path = "a transfer of this test";
        let here = || {
            let all = TRAFFIC.under_way();
            all.iter()
                .filter(|transfer| transfer.path() == path)
                .count()
        };
        let transfer = TRAFFIC.begin(Direction::Up, "temporary".into(), 5);
        transfer.rename(path.into());
        transfer.advance(10);
        assert_eq!(transfer.progress(), (15, None));
        transfer.expect(20);
        assert_eq!(transfer.progress(), (15, Some(20)));
        assert_eq!(here(), 1);
        drop(transfer);
        assert_eq!(here(), 0);
    }
}
