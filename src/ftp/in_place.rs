//! Contents that are stored under their own names at once: one after the other for each name.
//!
//! An upload that is given up goes on for a moment: until its sender sees that, and what it left is
//! removed. Where it has a temporary name that is nobody's business. Where it has not, it would
//! write into the next content of that name, and then remove it.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
