//! Contents that are stored under their own names at once: one after the other for each name.
//!
//! An upload that is given up goes on for a moment: until its sender sees that, and what it left is
//! removed. Where it has a temporary name that is nobody's business. Where it has not, it would
//! write into the next content of that name, and then remove it.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pool::{Lease, Purpose};
use super::rename::unknown;
use super::replace::Replacement;
use super::server::FtpServer;
use super::session::Session;
use super::sweep::Pending;
use crate::vfs::backend::Replaces;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// The names that are being stored in place.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    names: Mutex<HashSet<RemotePath>>,
    over: Condvar,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    of: Arc<InPlace>,
    name: RemotePath,
}

impl InPlace {
    /// Claims `name`.
    ///
    /// # Errors
    /// `Busy` if an earlier upload of it is not over.
    pub(super) fn claim(self: &Arc<Self>, name: &RemotePath) -> Result<Claim> {
        if !self.lock().insert(name.clone()) {
            return Err(busy(name));
        }
        Ok(Claim {
            of: Arc::clone(self),
            name: name.clone(),
        })
    }

    /// Waits for an upload of `name` that is being given up, as long as `limit`.
    ///
    /// # Errors
    /// `Busy` if that is not over by then.
    pub(super) fn settle(&self, name: &RemotePath, limit: Duration) -> Result<()> {
        let taken = |names: &mut HashSet<RemotePath>| names.contains(name);
        let waited = self.over.wait_timeout_while(self.lock(), limit, taken);
        let waited = waited.unwrap_or_else(PoisonError::into_inner);
        match waited.1.timed_out() {
            true => Err(busy(name)),
            false => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<RemotePath>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FtpServer {
    /// Whether a file has that name, in one round trip. Where guests may not read what they
    /// stored, SIZE is refused and STAT tells.
    pub(super) fn is_there(&self, s: &mut Session, path: &RemotePath) -> Result<bool> {
        if self.has_mlst(s)
            && let Some(told) = self.mlst(s, path)?
        {
            return Ok(told.is_ok());
        }
        let [size, stat] = self.ask_all(s, [("SIZE", path), ("STAT", path)])?;
        Ok(size.is_ok() || stat.is_ok() && stat.body().iter().any(|line| !line.is_empty()))
    }

    /// Before a content is written in place: what is there is what it `replaces`, or goes. Whether
    /// something is there still, and what waits until something is there again.
    pub(super) fn clear_the_way(
        &self,
        mut lease: Lease,
        path: &RemotePath,
        replaces: Replaces,
    ) -> Result<(Lease, bool, Option<Pending<'_>>)> {
        let what = unknown(replaces);
        let found = match self.minds(&what) {
            true => self.version_now(&mut lease, path)?,
            false => None,
        };
        let Some(found) = found else {
            let there = self.is_there(&mut lease, path)?;
            return Ok((lease, there, None));
        };
        if self.conflict(path, &what, &found).is_none() {
            return Ok((lease, true, None));
        }
        let aside = self.aside_name(path)?;
        let job = Replacement::new(self, path, path, None)?;
        let mut lease = Some(lease);
        let aside = self.make_way(&mut lease, &job, &aside)?;
        let pending = self.pending(&aside);
        let lease = match lease {
            Some(lease) => lease,
            None => self.pool.lease(Purpose::Transfer, true)?,
        };
        Ok((lease, false, Some(pending)))
    }
}

fn busy(name: &RemotePath) -> Error {
    let detail = format!("{name}: an earlier upload of it is not over yet");
    Error::new(ErrorKind::Busy, detail)
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.of.lock().remove(&self.name);
        self.of.over.notify_all();
    }
}
