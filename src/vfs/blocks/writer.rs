//! The one thread that writes to the cache.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::store::Store;
use crate::vfs::chunk::Chunk;

/// How often what was not used for too long is looked for.
const EXPIRY: Duration = Duration::from_secs(600);

/// After so long without work, contents that are on disk leave memory.
const IDLE: Duration = Duration::from_secs(10);

/// Nobody is kept waiting by the cache: it runs when nothing else wants the CPU.
const NICE: i32 = 19;

/// What is to be written.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    most: usize,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<(Arc<Entry>, u64, Chunk)>,
    /// Bytes that wait or are being written.
    bytes: usize,
    closed: bool,
    running: bool,
}

impl Queue {
    /// Starts the thread, if there is a disk to write to.
    pub(super) fn start(store: &Arc<Store>) -> Arc<Self> {
        let queue = Arc::new(Self {
            jobs: Mutex::default(),
            changed: Condvar::new(),
            most: store.limits.memory.max(1),
        });
        if store.disk().is_some() {
            let (queue, store) = (Arc::clone(&queue), Arc::clone(store));
            queue.lock().running = true;
            let thread = Arc::clone(&queue);
            let started = thread::Builder::new()
                .name("cache-writer".into())
                .spawn(move || thread.run(&store));
            if let Err(err) = started {
                log::warn!("no thread to fill the cache: {err}");
                queue.lock().running = false;
            }
        }
        queue
    }

    /// Takes `chunk` if there is room for it; waits for that as long as `patience`.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    pub(super) fn offer(
        &self,
        to: &Arc<Entry>,
        offset: u64,
        chunk: Chunk,
        patience: Option<Duration>,
    ) -> bool {
        let full = |jobs: &mut Jobs| {
            jobs.running && !jobs.closed && jobs.bytes > 0 && jobs.bytes + chunk.len() > self.most
        };
        let jobs = self.lock();
        let mut jobs = match patience {
            None => jobs,
            Some(time) => {
                let waited = self.changed.wait_timeout_while(jobs, time, full);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if full(&mut jobs) || !jobs.running || jobs.closed {
            return false;
        }
        to.comes(offset, chunk.clone());
        jobs.bytes += chunk.len();
        jobs.waiting.push_back((Arc::clone(to), offset, chunk));
        drop(jobs);
        self.changed.notify_all();
        true
    }

    /// Waits until nothing waits.
    pub(super) fn settle(&self) {
        let busy = |jobs: &mut Jobs| jobs.running && jobs.bytes > 0;
        drop(self.changed.wait_while(self.lock(), busy));
    }

    /// What waits is written, then the thread ends.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        let runs = |jobs: &mut Jobs| jobs.running;
        drop(self.changed.wait_while(self.lock(), runs));
    }

    fn run(&self, store: &Store) {
        let _ = rustix::process::nice(NICE);
        let mut expired = Instant::now();
        let mut last = None;
        loop {
            if expired.elapsed() >= EXPIRY {
                store.expire();
                expired = Instant::now();
            }
            match self.next(if store.has_memory() { IDLE } else { EXPIRY }) {
                Next::Write(to, offset, chunk) => {
                    let len = chunk.len();
                    // Most come one after the other.
                    if last.as_ref().is_none_or(|(id, _)| *id != to.id) && !to.is_gone() {
                        last = store.open_data(to.id, true).map(|file| (to.id, file));
                    }
                    if let Some((_, file)) = last.as_ref().filter(|(id, _)| *id == to.id) {
                        store.write(&to, file, offset, &chunk);
                    }
                    to.came(offset);
                    drop(chunk);
                    self.lock().bytes -= len;
                    self.changed.notify_all();
                }
                Next::Nothing => {
                    last = None;
                    store.leave_memory();
                }
                Next::End => break,
            }
        }
        self.lock().running = false;
        self.changed.notify_all();
    }

    fn next(&self, patience: Duration) -> Next {
        let idle = |jobs: &mut Jobs| jobs.waiting.is_empty() && !jobs.closed;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, idle);
        let mut jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        match jobs.waiting.pop_front() {
            Some((to, offset, chunk)) => Next::Write(to, offset, chunk),
            None if jobs.closed => Next::End,
            None => Next::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Next {
    Write(Arc<Entry>, u64, Chunk),
    Nothing,
    End,
}
