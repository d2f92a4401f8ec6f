//! The pool: sessions on loan, at most as many as the server allows.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::host::Host;
use super::options::FtpOptions;
use super::session::Session;
use crate::vfs::error::{ErrorKind, Result};

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
}

/// A session on loan. Dropping it gives the session back, or throws it away if it is broken or a
/// transfer was neither ended nor closed.
#[derive(Debug)]
pub struct Lease {
    session: Session,
}

impl Pool {
    /// No connection is made yet.
    #[must_use]
    pub fn new(options: FtpOptions) -> Arc<Self> {
        Arc::new(Self {
            host: Arc::new(Host::new(options)),
        })
    }

    /// The host and what is known of it.
    #[must_use]
    pub const fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Borrows a session: an idle one, a new one, or with `wait` one that another gives back
    /// within the time limit.
    ///
    /// # Errors
    /// `Busy` if none is free (at once without `wait`), or what [`Session::open`] says. Never ask
    /// for a second lease while holding one.
    pub fn lease(self: &Arc<Self>, purpose: Purpose, wait: bool) -> Result<Lease> {
        let _ = (purpose, wait);
        Err(ErrorKind::Unsupported.into())
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
        work(&mut lease)
    }

    /// Whether somebody waits for a session for `purpose`: a holder that could do without should
    /// give back.
    #[must_use]
    pub fn contended(&self, purpose: Purpose) -> bool {
        let _ = purpose;
        false
    }

    /// Says QUIT on idle sessions and opens no new ones.
    pub fn close(&self) {}
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
