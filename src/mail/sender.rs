//! Sends what is in the queue, on threads of its own, and sees to it that the user hears of it.
//!
//! Whatever the trouble with the account (password, certificate, no route to the relay), nothing
//! is given back and no attempt is counted: the account pauses and says why.

mod batch;
mod news;
mod options;
mod outcome;
mod status;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

pub use news::Receipts;
pub use options::{MxRoute, Relay, Route, SendOptions};
pub use status::{SendActivity, SendStatus, Word};

use super::connect::Cutter;
use super::failure::{Failure, Result};
use super::queue::{Id, Queue, State};
use crate::sync::Locked;
use status::Shared;
use worker::Worker;

/// The sending threads of one account.
#[derive(Debug)]
pub struct Sender {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    ended: Locked<Receiver<()>>,
}

impl Sender {
    /// Starts them; what is due is sent at once.
    ///
    /// # Errors
    /// `Account` for options TLS cannot use, `Local`.
    pub fn start(
        queue: Arc<Queue>,
        options: SendOptions,
        receipts: Arc<dyn Receipts>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(options.connections));
        let options = Arc::new(options);
        let (end, ended) = mpsc::channel();
        for number in 0..options.connections.max(1) {
            let worker = Worker::new(
                number,
                Arc::clone(&queue),
                Arc::clone(&options),
                Arc::clone(&receipts),
                Arc::clone(&shared),
            )?;
            let end = end.clone();
            thread::Builder::new()
                .name("mail-send".into())
                .spawn(move || {
                    worker.run();
                    drop(end);
                })
                .map_err(|err| Failure::local("thread", &err))?;
        }
        Ok(Self {
            queue,
            shared,
            ended: Locked::new(ended),
        })
    }

    /// What it is doing and how it went.
    #[must_use]
    pub fn status(&self) -> SendStatus {
        self.shared.status(&self.queue)
    }

    /// Looks at the queue now, and ends a pause after trouble.
    pub fn trigger(&self) {
        self.shared.clear_trouble();
        self.queue.wake();
    }

    /// Stops sending, or goes on.
    pub fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
        self.queue.wake();
    }

    /// Waits until a server has spoken about every recipient of a message, or it is clear that
    /// none will soon; at most `limit`. The message stays queued whatever comes back.
    #[must_use]
    pub fn word(&self, id: &Id, limit: Duration) -> Word {
        let deadline = Instant::now() + limit;
        let asked = self.shared.troubles();
        loop {
            let seen = self.queue.changes();
            let Some(entry) = self.queue.get(id) else {
                return Word::Unknown;
            };
            // What is being worked on is not durable yet.
            if !self.queue.is_taken(id) {
                let untried = |state: State, text: &str| state == State::Queued && text.is_empty();
                if !entry.recipients.iter().any(|r| untried(r.state, &r.text)) {
                    return Word::of(&entry);
                }
                if let Some(failure) = self.shared.trouble_since(asked) {
                    return Word::Trouble(failure);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Word::Pending;
            }
            self.queue.wait_for_change(seen, left);
        }
    }

    /// Ends it. A message whose end is with the server gets `grace` for the answer, so that it is
    /// not left in doubt; everything else is cut off and stays queued.
    pub fn stop(self, grace: Duration) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.queue.wake();
        let ended = |within| self.ended.with(|ended| ended.recv_timeout(within));
        if ended(grace) == Err(RecvTimeoutError::Timeout) {
            self.shared.cut();
            // Connecting cannot be cut short; the threads end by themselves.
            let _ = ended(Duration::from_secs(5));
        }
    }
}

/// What ends a worker's connection from outside, while there is one.
#[derive(Debug, Default)]
struct Line(Locked<Option<Cutter>>);

/// Flags that both sides see.
#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Flag {
    fn store(&self, value: bool, order: Ordering) {
        self.0.store(value, order);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
