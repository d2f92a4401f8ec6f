//! The pool: sessions on loan, at most as many as the server allows.
//!
//! Sessions are opened when they are needed, outside the lock, and closed when they have been idle
//! for a minute, by whoever comes next: there is no thread. Of a limit of *n*, transfers get *n* - 1
//! at most, so that `ls` never waits for a download. A refusal for want of room ("421 Too many
//! connections") makes the limit what is open at that moment; a minute later it may grow by one.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::host::Host;
use super::options::FtpOptions;
use super::session::Session;
use crate::net::Deadline;
use crate::sync::Locked;
use crate::vfs::error::{Error, ErrorKind, Result};

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
}

/// All sessions with one host.
#[derive(Debug)]
pub struct Pool {
    host: Arc<Host>,
    state: Locked<State>,
}

/// A session on loan. Dropping it gives the session back, or throws it away if it is broken or a
/// transfer was neither ended nor closed.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    purpose: Purpose,
    session: Session,
    /// It was idle before, so the server may have closed it without our knowing.
    reused: bool,
}

/// The pool in numbers, for `ferryfs status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Sessions that are open, or being opened.
    pub open: usize,
    /// Of these, how many nobody uses.
    pub idle: usize,
    /// Of these, how many carry transfers.
    pub transfers: usize,
    /// Requests that wait for a session.
    pub waiting: usize,
    /// Most sessions there may be now.
    pub limit: usize,
    /// The last failure to open a session since one was opened.
    pub last_error: Option<String>,
}

impl Pool {
    /// No connection is made yet.
    #[must_use]
    pub fn new(options: FtpOptions) -> Arc<Self> {
        let limit = options.connections.max(1);
        Arc::new(Self {
            host: Arc::new(Host::new(options)),
            state: Locked::new(State {
                limit,
                ..State::default()
            }),
        })
    }

    /// The host and what is known of it.
    #[must_use]
    pub const fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Borrows a session: an idle one, a new one, or with `wait` one that another gives back
    /// within the time limit. First come, first served, metadata before transfers.
    ///
    /// # Errors
    /// `Busy` if none is free (at once without `wait`), or what [`Session::open`] says. Never ask
    /// for a second lease while holding one.
    pub fn lease(self: &Arc<Self>, purpose: Purpose, wait: bool) -> Result<Lease> {
        let deadline = Deadline::after(self.host.options().timeout);
        loop {
            if let Grant::Idle(mut session) = self.admit(purpose, wait, deadline)?
                && session.is_alive()
            {
                session.start_count();
                return Ok(self.lend(purpose, session, true));
            }
            let failure = match Session::connect(&self.host) {
                Ok(session) => {
                    self.state.with(|state| state.last_error = None);
                    return Ok(self.lend(purpose, session, false));
                }
                Err(failure) => failure,
            };
            let others = self.state.with(|state| {
                state.leave(purpose);
                state.last_error = Some(failure.error.clone());
                let others = state.open() > 0;
                if failure.crowded {
                    state.lower_limit();
                }
                state.serve();
                others
            });
            if !failure.crowded || !others {
                return Err(failure.error);
            }
            log::info!("{}: fewer connections from now on", failure.error);
        }
    }

    /// Runs `work` on a borrowed session, and once more on a new one if the first had been idle
    /// and turned out dead before it answered anything. Since the server may have got that first
    /// command, `work` must begin with something that may be done twice.
    ///
    /// # Errors
    /// Those of [`lease`](Self::lease) and of `work`.
    pub fn with_session<T>(
        self: &Arc<Self>,
        purpose: Purpose,
        mut work: impl FnMut(&mut Session) -> Result<T>,
    ) -> Result<T> {
        let mut lease = self.lease(purpose, true)?;
        let result = work(&mut lease);
        if result.is_ok() || !lease.died_of_age() {
            return result;
        }
        drop(lease);
        // The others are as old, and most likely as dead.
        drop(self.state.with(|state| std::mem::take(&mut state.idle)));
        work(&mut *self.lease(purpose, true)?)
    }

    /// Whether somebody waits for a session for `purpose`: a holder that could do without should
    /// give back.
    #[must_use]
    pub fn contended(&self, purpose: Purpose) -> bool {
        self.state
            .with(|state| state.queue.iter().any(|waiter| waiter.purpose == purpose))
    }

    /// The state of things.
    #[must_use]
    pub fn report(&self) -> Report {
        self.state.with(|state| Report {
            open: state.open(),
            idle: state.idle.len(),
            transfers: state.transfers,
            waiting: state.queue.len(),
            limit: state.limit,
            last_error: state.last_error.as_ref().map(Error::to_string),
        })
    }

    /// Says QUIT on idle sessions, sends those who wait away and opens no new ones. Sessions on
    /// loan are closed when they come back.
    pub fn close(&self) {
        let idle = self.state.with(|state| {
            state.closed = true;
            // Their channels close with this.
            state.queue.clear();
            std::mem::take(&mut state.idle)
        });
        for idle in idle {
            idle.session.quit();
        }
    }

    fn lend(self: &Arc<Self>, purpose: Purpose, session: Session, reused: bool) -> Lease {
        Lease {
            pool: Arc::clone(self),
            purpose,
            session,
            reused,
        }
    }

    /// A place for one more session in use, with a session where one was idle.
    fn admit(&self, purpose: Purpose, wait: bool, deadline: Deadline) -> Result<Grant> {
        let (admission, stale) = self.state.with(|state| {
            state.raise_limit(self.host.options().connections);
            let stale = state.take_stale();
            (state.admit(purpose, wait), stale)
        });
        for stale in stale {
            stale.session.quit();
        }
        let busy = |what: &str| {
            Error::new(
                ErrorKind::Busy,
                format!("{}: {what}", self.host.options().host),
            )
        };
        let (ticket, granted) = match admission {
            Admission::Granted(grant) => return Ok(grant),
            Admission::Refused => return Err(busy("all connections are in use")),
            Admission::Closed => return Err(closed()),
            Admission::Queued(ticket, granted) => (ticket, granted),
        };
        match granted.recv_timeout(deadline.left().unwrap_or_default()) {
            Ok(grant) => Ok(grant),
            Err(RecvTimeoutError::Disconnected) => Err(closed()),
            Err(RecvTimeoutError::Timeout) => {
                self.state
                    .with(|state| state.queue.retain(|waiter| waiter.ticket != ticket));
                // Granted in the last moment.
                granted
                    .try_recv()
                    .map_err(|_| busy("no connection became free in time"))
            }
        }
    }

    fn give_back(&self, purpose: Purpose, session: Session) {
        let (left_over, stale) = self.state.with(|state| {
            state.leave(purpose);
            let left_over = state.keep(session);
            state.serve();
            (left_over, state.take_stale())
        });
        if let Some(session) = left_over {
            session.quit();
        }
        for stale in stale {
            stale.session.quit();
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Disconnected, "the mount is ending")
}

impl Lease {
    /// Whether the session broke before it answered anything, and had been idle: not the request's
    /// fault, and worth one more try if the request may be repeated.
    #[must_use]
    pub fn died_of_age(&self) -> bool {
        self.reused && self.session.is_broken() && !self.session.has_answered()
    }

    /// What it was borrowed for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let gone = Session::gone(Arc::clone(self.session.host()));
        let session = std::mem::replace(&mut self.session, gone);
        self.pool.give_back(self.purpose, session);
    }
}

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// Who has what. A session is either idle, in here, or accounted for by a lease (also while it is
/// being opened).
#[derive(Debug, Default)]
struct State {
    /// The one used last is at the end, and is taken first: so the others grow old.
    idle: Vec<Idle>,
    metadata: usize,
    transfers: usize,
    limit: usize,
    /// When the limit was last changed, if it is below that of the options.
    limited: Option<Instant>,
    queue: VecDeque<Waiter>,
    tickets: u64,
    closed: bool,
    last_error: Option<Error>,
}

#[derive(Debug)]
struct Idle {
    session: Session,
    since: Instant,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    purpose: Purpose,
    grant: Sender<Grant>,
}

/// Leave to use a session.
#[derive(Debug)]
enum Grant {
    Idle(Session),
    /// To open one.
    New,
}

#[derive(Debug)]
enum Admission {
    Granted(Grant),
    Queued(u64, Receiver<Grant>),
    Refused,
    Closed,
}

impl State {
    fn open(&self) -> usize {
        self.metadata + self.transfers + self.idle.len()
    }

    fn admit(&mut self, purpose: Purpose, wait: bool) -> Admission {
        if self.closed {
            return Admission::Closed;
        }
        let overtakes = self
            .queue
            .iter()
            .any(|w| w.purpose == Purpose::Metadata || w.purpose == purpose);
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
        if purpose == Purpose::Transfer && self.transfers >= self.limit.saturating_sub(1).max(1) {
            return None;
        }
        if self.metadata + self.transfers >= self.limit {
            return None;
        }
        let grant = self
            .idle
            .pop()
            .map_or(Grant::New, |idle| Grant::Idle(idle.session));
        match purpose {
            Purpose::Metadata => self.metadata += 1,
            Purpose::Transfer => self.transfers += 1,
        }
        Some(grant)
    }

    /// Gives what is free to those who wait.
    fn serve(&mut self) {
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

    const fn leave(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Metadata => self.metadata -= 1,
            Purpose::Transfer => self.transfers -= 1,
        }
    }

    /// Keeps a session for the next one, unless it is no good or one too many.
    fn keep(&mut self, session: Session) -> Option<Session> {
        if self.closed || !session.is_reusable() || self.open() >= self.limit {
            return Some(session);
        }
        self.idle.push(Idle {
            session,
            since: Instant::now(),
        });
        None
    }

    fn take_stale(&mut self) -> Vec<Idle> {
        let fresh = self
            .idle
            .partition_point(|idle| idle.since.elapsed() > IDLE_MAX);
        self.idle.drain(..fresh).collect()
    }

    /// The server will not have more than there are.
    fn lower_limit(&mut self) {
        self.limit = self.open().clamp(1, self.limit);
        self.limited = Some(Instant::now());
    }

    fn raise_limit(&mut self, wanted: usize) {
        if self.limit < wanted && self.limited.is_some_and(|at| at.elapsed() > LIMIT_HOLDS) {
            self.limit += 1;
            self.limited = Some(Instant::now());
        }
    }
}
