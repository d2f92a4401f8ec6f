//! Threads for what may wait for the network.
//!
//! fuser's event threads must stay free to answer what memory can answer, so everything else is
//! handed to one of three bounded sets of threads: metadata, file contents, and writes that copy a
//! file first. They are apart so that any number of stalled reads leaves `ls` alone. A thread is
//! started when none is idle and ends after some idle seconds.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce() + Send>;

/// A bounded set of threads that take jobs in order.
#[derive(Clone)]
pub(super) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    limit: usize,
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Workers {
    /// At most `limit` threads, called `name`.
    pub(super) fn new(name: &'static str, limit: usize) -> Self {
        let shared = Shared {
            name,
            limit,
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Queues `job`; a thread is started if none is idle and the limit allows.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let shared = &self.shared;
        let start = {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.jobs.push_back(Box::new(job));
            let start = queue.jobs.len() > queue.idle && queue.threads < shared.limit;
            queue.threads += usize::from(start);
            start
        };
        shared.work.notify_one();
        if !start {
            return;
        }
        let worker = Arc::clone(shared);
        let started = thread::Builder::new()
            .name(shared.name.into())
            .spawn(move || worker.run());
        if let Err(err) = started {
            log::warn!("cannot start a {} thread: {err}", shared.name);
            let run_here = {
                let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.threads -= 1;
                // With no thread at all the job would wait for ever.
                if queue.threads == 0 {
                    queue.jobs.pop_front()
                } else {
                    None
                }
            };
            if let Some(job) = run_here {
                job();
            }
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some(job) = self.next() {
            run(job);
        }
    }

    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue.idle += 1;
            let waited = self
                .work
                .wait_timeout(queue, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            queue = waited.0;
            queue.idle -= 1;
            if waited.1.timed_out() && queue.jobs.is_empty() {
                queue.threads -= 1;
                return None;
            }
        }
    }
}

/// Does `job`. A bug in one request must not end the mount: the reply answers EIO when dropped.
pub(super) fn run(job: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
        log::error!("a request panicked; this is a bug in ferryfs, please report it");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_run_side_by_side_up_to_the_limit() {
        let workers = Workers::new("test", 2);
        let (started, starts) = mpsc::channel();
        let gates: Vec<_> = (0..3)
            .map(|n| {
                let started = started.clone();
                let (open, gate) = mpsc::channel::<()>();
                workers.submit(move || {
                    started.send(n).unwrap();
                    gate.recv().unwrap();
                });
                open
            })
            .collect();
        let second = Duration::from_secs(5);
        let mut first_two = [
            starts.recv_timeout(second).unwrap(),
            starts.recv_timeout(second).unwrap(),
        ];
        first_two.sort_unstable();
        assert_eq!(first_two, [0, 1]);
        assert!(
            starts.recv_timeout(Duration::from_millis(50)).is_err(),
            "a third thread ran"
        );
        gates[0].send(()).unwrap();
        assert_eq!(starts.recv_timeout(second).unwrap(), 2);
        gates[1].send(()).unwrap();
        gates[2].send(()).unwrap();
    }

    #[test]
    fn a_panicking_job_costs_no_thread() {
        let workers = Workers::new("test", 1);
        let (done, finished) = mpsc::channel();
        workers.submit(|| panic!("on purpose"));
        workers.submit(move || done.send(()).unwrap());
        finished.recv_timeout(Duration::from_secs(5)).unwrap();
    }
}
