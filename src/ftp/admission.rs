//! Who may have a session: the books of the [pool](super::pool), which are kept behind its lock.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use super::session::Session;
use crate::vfs::error::Error;

/// How long a session is kept idle. Servers hang up after one to five minutes.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long a limit that the server taught us holds.
const LIMIT_HOLDS: Duration = Duration::from_secs(60);

/// What a session is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A command or a listing: soon given back. One connection is always kept for these.
    Metadata,
    /// A file's content: may be kept for long.
    Transfer,
    /// The same, beside one that is under way: it leaves others the session that they need at once.
    Help,
    /// What nobody has asked for yet: only while one more is free, and given back soon.
    Foresight,
}

/// Who has what. A session is either idle, in here, or accounted for by a lease (also while it is
/// being opened).
#[derive(Debug, Default)]
pub(super) struct State {
    /// The one used last is at the end, and is taken first: so the others grow old.
    pub(super) idle: Vec<Idle>,
    metadata: usize,
    pub(super) transfers: usize,
    foresight: usize,
    pub(super) limit: usize,
    /// When the limit was last changed, if it is below that of the options.
    limited: Option<Instant>,
    pub(super) queue: VecDeque<Waiter>,
    tickets: u64,
    pub(super) closed: bool,
    pub(super) last_error: Option<Error>,
}

#[derive(Debug)]
pub(super) struct Idle {
    pub(super) session: Session,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) purpose: Purpose,
    grant: Sender<Grant>,
}

/// Leave to use a session.
#[derive(Debug)]
pub(super) enum Grant {
    Idle(Box<Session>),
    /// To open one.
    New,
}

#[derive(Debug)]
pub(super) enum Admission {
    Granted(Grant),
    Queued(u64, Receiver<Grant>),
    Refused,
    Closed,
}

impl State {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    pub(super) fn open(&self) -> usize {
        self.used() + self.idle.len()
    }

    const fn used(&self) -> usize {
        self.metadata + self.transfers + self.foresight
    }

    /// One is kept for metadata, if there is more than one.
    pub(super) fn most_transfers(&self) -> usize {
        self.limit.saturating_sub(1).max(1)
    }

    pub(super) fn admit(&mut self, purpose: Purpose, wait: bool) -> Admission {
        if self.closed {
            return Admission::Closed;
        }
        let overtakes = self.queue.iter().any(|w| {
            let favour = matches!(purpose, Purpose::Foresight | Purpose::Help);
            favour || w.purpose == Purpose::Metadata || w.purpose == purpose
        });
        if !overtakes && let Some(grant) = self.grant(purpose) {
            return Admission::Granted(grant);
        }
        if !wait {
            return Admission::Refused;
        }
        let (grant, granted) = mpsc::channel();
        self.tickets += 1;
        self.queue.push_back(Waiter {
            ticket: self.tickets,
            purpose,
            grant,
        });
        Admission::Queued(self.tickets, granted)
    }

    fn grant(&mut self, purpose: Purpose) -> Option<Grant> {
        let transfers = matches!(purpose, Purpose::Transfer | Purpose::Help);
        if transfers && self.transfers >= self.most_transfers() {
            return None;
        }
        let spared = usize::from(purpose == Purpose::Foresight);
        if self.used() + spared >= self.limit {
            return None;
        }
        // A data connection that was asked for long ago is made by now.
        let ready = self.idle.iter().enumerate();
        let ready = ready.filter(|_| transfers);
        let ready = ready.filter_map(|(at, idle)| Some((idle.session.ahead_since()?, at)));
        let idle = match ready.min() {
            _ if purpose == Purpose::Help && self.is_last_idle() => None,
            Some((_, at)) => Some(self.idle.remove(at)),
            None => self.idle.pop(),
        };
        let grant = idle.map_or(Grant::New, |idle| Grant::Idle(Box::new(idle.session)));
        match purpose {
            Purpose::Metadata => self.metadata += 1,
            Purpose::Transfer | Purpose::Help => self.transfers += 1,
            Purpose::Foresight => self.foresight += 1,
        }
        Some(grant)
    }

    /// Whether metadata could be asked for at once by one session only, and another can be opened.
    fn is_last_idle(&self) -> bool {
        self.idle.len() == 1 && self.metadata == 0 && self.open() < self.limit
    }

    /// Gives what is free to those who wait.
    pub(super) fn serve(&mut self) {
        for purpose in [Purpose::Metadata, Purpose::Transfer] {
            while let Some(at) = self.queue.iter().position(|w| w.purpose == purpose) {
                let Some(grant) = self.grant(purpose) else {
                    break;
                };
                // Who gives up leaves the queue first, so there is somebody to receive it.
                if let Some(waiter) = self.queue.remove(at) {
                    let _ = waiter.grant.send(grant);
                }
            }
        }
    }

    pub(super) const fn leave(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Metadata => self.metadata -= 1,
            Purpose::Transfer | Purpose::Help => self.transfers -= 1,
            Purpose::Foresight => self.foresight -= 1,
        }
    }

    /// Keeps a session for the next one, unless it is no good or one too many.
    pub(super) fn keep(&mut self, session: Session) -> Option<Session> {
        if self.closed || !session.is_reusable() || self.open() >= self.limit {
            return Some(session);
        }
        self.idle.push(Idle {
            session,
            since: Instant::now(),
        });
        None
    }

    pub(super) fn take_stale(&mut self) -> Vec<Idle> {
        let fresh = self
            .idle
            .partition_point(|idle| idle.since.elapsed() > IDLE_MAX);
        self.idle.drain(..fresh).collect()
    }

    /// The server will not have more than there are.
    pub(super) fn lower_limit(&mut self) {
        self.limit = self.open().clamp(1, self.limit);
        self.limited = Some(Instant::now());
    }

    pub(super) fn raise_limit(&mut self, wanted: usize) {
        if self.limit < wanted && self.limited.is_some_and(|at| at.elapsed() > LIMIT_HOLDS) {
            self.limit += 1;
            self.limited = Some(Instant::now());
        }
    }
}
