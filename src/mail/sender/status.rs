//! What the threads that send tell of themselves.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Flag, Line};
use crate::mail::connect::Cutter;
use crate::mail::failure::Failure;
use crate::mail::queue::{Entry, Queue, State, Told};
use crate::sync::Locked;

/// What is happening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SendActivity {
    /// Waiting for mail, or for its time.
    #[default]
    Idle,
    /// Told to wait for the user.
    Paused,
    /// Waiting after trouble with the account.
    Troubled,
    /// Connecting and logging in.
    Connecting,
    /// Sending so many messages.
    Sending(usize),
}

/// What `status` shows.
#[derive(Debug, Clone, Default)]
pub struct SendStatus {
    /// What is happening.
    pub activity: SendActivity,
    /// Messages in the queue.
    pub queued: usize,
    /// Of these, tried in vain and to be tried again.
    pub deferred: usize,
    /// Of these, perhaps sent.
    pub in_doubt: usize,
    /// Of these, waiting for the user.
    pub held: usize,
    /// Messages accepted since the start.
    pub accepted: u64,
    /// Recipients refused since the start.
    pub refused: u64,
    /// When a message was accepted last.
    pub last_accepted: Option<SystemTime>,
    /// When and why the account paused, if it does.
    pub trouble: Option<(SystemTime, Failure)>,
    /// When something is due next.
    pub next: Option<SystemTime>,
}

/// What became of a message that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Every recipient was accepted.
    Accepted,
    /// Some were refused for good; the first refusal.
    Refused(String),
    /// None was refused, some are to be tried again; the first reply.
    Deferred(String),
    /// The server has it, and its answer was lost.
    InDoubt(String),
    /// The account cannot send now; the message stays queued.
    Trouble(Failure),
    /// It was cancelled.
    Cancelled,
    /// Not known yet.
    Pending,
    /// There is no such message.
    Unknown,
}

impl Word {
    pub(super) fn of(entry: &Entry) -> Self {
        let first = |state: State| {
            let found = entry.recipients.iter().find(|r| r.state == state);
            found.map(|r| r.text.clone())
        };
        if let Some(text) = first(State::Failed) {
            return Self::Refused(text);
        }
        if let Some(text) = first(State::InDoubt) {
            return Self::InDoubt(text);
        }
        if let Some(text) = first(State::Deferred).or_else(|| first(State::Queued)) {
            return Self::Deferred(text);
        }
        match first(State::Accepted) {
            Some(_) => Self::Accepted,
            None => Self::Cancelled,
        }
    }
}

/// What workers and the rest of the program share. Every lock is a leaf.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) stopping: Flag,
    pub(super) paused: Flag,
    /// A server offers BDAT and does not know it: nobody is sent one any more.
    pub(super) no_chunks: Flag,
    /// A server offers to hold messages and refuses one: everything waits for its time here.
    pub(super) no_holds: Flag,
    trouble: Locked<Trouble>,
    told: Locked<SendStatus>,
    /// One for each worker.
    lines: Vec<Line>,
    activities: Locked<Vec<SendActivity>>,
}

#[derive(Debug, Default)]
struct Trouble {
    what: Option<(SystemTime, Failure)>,
    until: Option<Instant>,
    /// One after the other, without success between.
    in_row: u32,
    /// Since the start.
    count: u64,
}

impl Shared {
    pub(super) fn new(workers: usize) -> Self {
        let workers = workers.max(1);
        Self {
            stopping: Flag::default(),
            paused: Flag::default(),
            no_chunks: Flag::default(),
            no_holds: Flag::default(),
            trouble: Locked::default(),
            told: Locked::default(),
            lines: (0..workers).map(|_| Line::default()).collect(),
            activities: Locked::new(vec![SendActivity::Idle; workers]),
        }
    }

    pub(super) fn does(&self, worker: usize, activity: SendActivity) {
        self.activities.with(|all| {
            if let Some(own) = all.get_mut(worker) {
                *own = activity;
            }
        });
    }

    pub(super) fn connected(&self, worker: usize, cutter: Option<Cutter>) {
        if let Some(line) = self.lines.get(worker) {
            line.0.with(|own| *own = cutter);
        }
    }

    pub(super) fn cut(&self) {
        for line in &self.lines {
            line.0.with(|cutter| {
                if let Some(cutter) = cutter {
                    cutter.cut();
                }
            });
        }
    }

    /// Pauses all workers; each trouble in a row doubles `first`, up to `longest`.
    pub(super) fn troubled(&self, failure: Failure, first: Duration, longest: Duration) {
        self.trouble.with(|trouble| {
            let pause = first.saturating_mul(1 << trouble.in_row.min(10));
            let pause = pause
                .min(longest.max(first))
                .max(failure.wait().unwrap_or_default());
            trouble.until = Some(Instant::now() + pause);
            trouble.in_row += 1;
            trouble.count += 1;
            trouble.what = Some((SystemTime::now(), failure));
        });
    }

    /// Things work.
    pub(super) fn well(&self) {
        self.trouble.with(|trouble| {
            trouble.what = None;
            trouble.until = None;
            trouble.in_row = 0;
        });
    }

    /// The user wants it tried again now.
    pub(super) fn clear_trouble(&self) {
        self.trouble.with(|trouble| trouble.until = None);
    }

    /// How long to wait still.
    pub(super) fn pause_left(&self) -> Option<Duration> {
        let until = self.trouble.with(|trouble| trouble.until)?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    pub(super) fn troubles(&self) -> u64 {
        self.trouble.with(|trouble| trouble.count)
    }

    /// The trouble the account is in: a pause that lasts, or one that began after `asked`.
    pub(super) fn trouble_since(&self, asked: u64) -> Option<Failure> {
        let lasting = self.pause_left().is_some();
        self.trouble.with(|trouble| {
            let new = trouble.count > asked;
            let what = trouble.what.as_ref().filter(|_| new || lasting);
            what.map(|(_, failure)| failure.clone())
        })
    }

    /// Counts news for the status.
    pub(super) fn note(&self, news: &[Told]) {
        let refused = news.iter().filter(|n| n.state == State::Failed).count();
        let accepted = news.iter().any(|n| n.state == State::Accepted);
        self.told.with(|told| {
            told.accepted += u64::from(accepted);
            told.refused += refused as u64;
            if accepted {
                told.last_accepted = Some(SystemTime::now());
            }
        });
    }

    pub(super) fn status(&self, queue: &Queue) -> SendStatus {
        let mut status = self.told.with(|told| told.clone());
        status.trouble = self.trouble.with(|trouble| trouble.what.clone());
        let activities = self.activities.with(|all| all.clone());
        let busy = |a: &&SendActivity| !matches!(a, SendActivity::Idle);
        status.activity = activities.iter().find(busy).copied().unwrap_or_default();
        if self.paused.is_set() {
            status.activity = SendActivity::Paused;
        } else if status.activity == SendActivity::Idle && self.pause_left().is_some() {
            status.activity = SendActivity::Troubled;
        }
        for entry in queue.list() {
            status.queued += 1;
            status.deferred += usize::from(entry.state() == State::Deferred);
            status.in_doubt += usize::from(entry.state() == State::InDoubt);
            status.held += usize::from(!entry.is_settled() && entry.due().is_none());
        }
        let due = queue
            .next_due()
            .map(|due| UNIX_EPOCH + Duration::from_secs(due));
        let resumed = self.pause_left().map(|left| SystemTime::now() + left);
        status.next = due.map(|due| resumed.map_or(due, |resumed| resumed.max(due)));
        status
    }
}
