//! The one thread that writes to the cache.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::BLOCK;
use super::entry::Entry;
use super::pace::Pace;
use super::store::Store;
use crate::vfs::chunk::Chunk;

/// How often what was not used for too long is looked for.
const EXPIRY: Duration = Duration::from_secs(600);

/// After so long without work, contents that are on disk leave memory, and the last file is closed.
const IDLE: Duration = Duration::from_secs(10);

/// Nobody is kept waiting by the cache: it runs when nothing else wants the CPU.
const NICE: i32 = 19;

/// While small files come one after the other, they wait to be written: each is an inode, which
/// costs as much as fetching it. Until none came for so long, or so many wait.
const LULL: Duration = Duration::from_millis(100);
const MANY: usize = 4096;

/// So many times as fast as a disk, there is nothing left to do for the disk.
const FASTER: u64 = 3;

/// What is to be written.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    /// For the thread, while it waits for a lull.
    hurry: Condvar,
    most: usize,
    /// Bytes a second.
    fast: u64,
}

#[derive(Debug)]
struct Job {
    to: Arc<Entry>,
    offset: u64,
    chunk: Chunk,
    /// Whoever wanted it has it, in the page cache of the mount.
    read: bool,
    /// It is worth no copy: it goes to the disk itself, which may not keep up.
    light: bool,
}

/// What is done for a chunk for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Nobody waits.
    None,
    /// The same, and if it comes so fast that the server is as good as a disk, little or no work is
    /// done for it: who reads it needs the processor. What is left out is [noted](Entry::left_out).
    Light,
    /// There is room within that time, or never.
    Wait(Duration),
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Bytes that wait or are being written.
    bytes: usize,
    /// When the last small file came, if what waits is nothing else.
    small: Option<Instant>,
    pace: Pace,
    /// Who waits until all is written.
    settling: usize,
    closed: bool,
    running: bool,
}

impl Jobs {
    /// How long to wait for a lull.
    fn pause(&self, most: usize) -> Option<Duration> {
        let urgent = self.closed || self.settling > 0;
        if urgent || self.bytes > most / 4 * 3 || self.waiting.len() > MANY {
            return None;
        }
        let rest = LULL.checked_sub(self.small?.elapsed())?;
        Some(rest.max(Duration::from_millis(1)))
    }
}

impl Queue {
    /// Starts the thread, if there is a disk to write to.
    pub(super) fn start(store: &Arc<Store>) -> Arc<Self> {
        let queue = Arc::new(Self {
            jobs: Mutex::default(),
            changed: Condvar::new(),
            hurry: Condvar::new(),
            most: store.limits.memory.max(1),
            fast: store.limits.fast,
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

    /// Takes `chunk` if there is room for it, or will be within `patience`.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    pub(super) fn offer(
        &self,
        to: &Arc<Entry>,
        offset: u64,
        chunk: Chunk,
        patience: Patience,
    ) -> bool {
        let full = |jobs: &mut Jobs| {
            jobs.running && !jobs.closed && jobs.bytes > 0 && jobs.bytes + chunk.len() > self.most
        };
        let mut jobs = self.lock();
        let waits = match patience {
            Patience::Wait(time) => Some(time),
            Patience::None | Patience::Light => None,
        };
        if let Some(time) = waits {
            let waited = self.changed.wait_timeout_while(jobs, time, full);
            jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        } else {
            jobs.pace.comes(chunk.len(), Instant::now());
        }
        let rate = jobs.pace.rate();
        let light = patience == Patience::Light && rate > self.fast;
        let faster = light && rate / FASTER > self.fast;
        if faster || full(&mut jobs) || !jobs.running || jobs.closed {
            drop(jobs);
            if patience == Patience::Light {
                to.leave_out(offset..offset + chunk.len() as u64, light);
            }
            return false;
        }
        to.comes(offset, chunk.clone());
        let small = chunk.len() as u64 == to.print.size && to.print.size <= BLOCK;
        let only_small = jobs.waiting.is_empty() || jobs.small.is_some();
        jobs.small = (small && only_small).then(Instant::now);
        jobs.bytes += chunk.len();
        jobs.waiting.push_back(Job {
            to: Arc::clone(to),
            offset,
            chunk,
            read: waits.is_none(),
            light,
        });
        let (first, pause) = (jobs.waiting.len() == 1, jobs.pause(self.most));
        drop(jobs);
        if first {
            self.changed.notify_all();
        }
        if pause.is_none() {
            self.hurry.notify_all();
        }
        true
    }

    /// Waits until nothing waits.
    pub(super) fn settle(&self) {
        let busy = |jobs: &mut Jobs| jobs.running && jobs.bytes > 0;
        self.lock().settling += 1;
        self.hurry.notify_all();
        let waited = self.changed.wait_while(self.lock(), busy);
        waited.unwrap_or_else(PoisonError::into_inner).settling -= 1;
    }

    /// What waits is written, then the thread ends.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        self.hurry.notify_all();
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
            // An open file keeps its place on the disk although its version is gone.
            let waits = last.is_some() || store.has_memory();
            match self.next(if waits { IDLE } else { EXPIRY }) {
                Next::Write(job, calm) => {
                    let Job {
                        to,
                        offset,
                        chunk,
                        read,
                        light,
                    } = job;
                    let len = chunk.len();
                    // Most come one after the other.
                    if last.as_ref().is_none_or(|(id, _)| *id != to.id) && !to.is_gone() {
                        last = store.open_write(to.id).map(|file| (to.id, file));
                    }
                    if let Some((_, file)) = last.as_ref().filter(|(id, _)| *id == to.id) {
                        store.write(&to, file, offset, &chunk, read && (calm || light));
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
        while let Some(pause) = jobs.pause(self.most).filter(|_| !jobs.waiting.is_empty()) {
            let waited = self.hurry.wait_timeout(jobs, pause);
            jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match jobs.waiting.pop_front() {
            // The page cache takes more at once than the disk.
            Some(job) => Next::Write(job, jobs.bytes <= self.most / 2),
            None if jobs.closed => Next::End,
            None => Next::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Next {
    /// And whether the disk keeps up.
    Write(Job, bool),
    Nothing,
    End,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn small_files_wait_for_a_lull_but_not_for_ever() {
        let most = 1 << 20;
        let small = |bytes| Jobs {
            bytes,
            small: Some(Instant::now()),
            ..Jobs::default()
        };
        assert!(small(1).pause(most).unwrap() <= LULL);
        assert_eq!(small(most).pause(most), None, "memory is short");
        let (mut awaited, mut ending, mut mixed) = (small(1), small(1), small(1));
        awaited.settling = 1;
        ending.closed = true;
        mixed.small = None;
        assert_eq!(awaited.pause(most), None);
        assert_eq!(ending.pause(most), None);
        assert_eq!(mixed.pause(most), None, "a big file waits, too");
        let mut old = small(1);
        old.small = Instant::now().checked_sub(LULL * 2);
        assert_eq!(old.pause(most), None);
    }
}
