//! The pool: sessions on loan, at most as many as the server allows.
//!
//! Sessions are opened when they are needed, outside the lock, and closed when they have been
//! [idle](super::idle) for a minute. Of a limit of *n*, transfers get *n* - 1
//! at most, so that `ls` never waits for a download. A refusal for want of room ("421 Too many
//! connections") makes the limit what is open at that moment; a minute later it may grow by one.
//! For a moment there may be more ([`extra`](super::extra)).

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;

pub use super::admission::Purpose;
use super::admission::{Admission, Grant, State};
use super::host::Host;
use super::options::FtpOptions;
use super::session::Session;
use crate::net::Deadline;
use crate::sync::Locked;
use crate::vfs::error::{Error, ErrorKind, Result};

/// All sessions with one host.
#[derive(Debug)]
pub struct Pool {
    host: Arc<Host>,
    pub(super) state: Locked<State>,
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
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
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
        let extra = options.extra_connections;
        Arc::new(Self {
            host: Arc::new(Host::new(options)),
            state: Locked::new(State::new(limit, extra)),
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
        self.host.try_again();
        loop {
            if let Grant::Idle(mut session) = self.admit(purpose, wait, deadline)?
                && session.is_alive()
            {
                session.start_count();
                self.foresee();
                return Ok(self.lend(purpose, *session, true));
            }
            let failure = match Session::connect(&self.host, purpose != Purpose::Metadata) {
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
        self.forget_idle();
        work(&mut *self.lease(purpose, true)?)
    }

    /// Drops the sessions that nobody uses.
    pub(super) fn forget_idle(&self) {
        drop(self.state.with(|state| std::mem::take(&mut state.idle)));
    }

    /// Whether anybody waits for a session.
    pub(super) fn is_contended(&self) -> bool {
        self.state.with(|state| !state.queue.is_empty())
    }

    /// How many sessions may carry transfers now, those that are extra among them.
    pub(super) fn most_transfers(&self) -> usize {
        self.state
            .with(|state| state.most_transfers() + state.extra.open)
    }

    /// The state of things.
    #[must_use]
    pub fn report(&self) -> Report {
        self.state.with(|state| Report {
            open: state.open(),
            idle: state.idle.len(),
            transfers: state.transfers + state.spots,
            waiting: state.queue.len(),
            limit: state.most(),
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

    /// Whether the mount is at its end.
    pub(super) fn is_closed(&self) -> bool {
        self.state.with(|state| state.closed)
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
        let far = self.host.is_far();
        let (admission, stale) = self.state.with(|state| {
            state.raise_limit(self.host.options().connections);
            state.far = far;
            let stale = state.take_stale(self.host.options().idle);
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

    fn give_back(self: &Arc<Self>, purpose: Purpose, session: Session) {
        let left_over = self.state.with(|state| {
            state.leave(purpose);
            let left_over = state.keep(session);
            state.serve();
            left_over
        });
        if let Some(session) = left_over {
            session.quit();
        }
        self.mind_idle();
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
