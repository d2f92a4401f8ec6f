//! REST before RETR: whether a server obeys it, which only a trial tells.

use std::io::Read;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::pool::Lease;
use super::reply::Reply;
use super::server::FtpServer;
use super::stat::size_of;
use super::transfer::Begun;
use crate::net;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Lets one try at a time.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// A leaf.
    under_way: Mutex<bool>,
    ended: Condvar,
}

/// The one who tries, until this is dropped.
struct Trying<'a>(&'a Trial);

impl Trial {
    /// Waits for the end of another's trial, `limit` at most. Everybody here has a session already,
    /// so nobody waits for whom he keeps from working.
    #[allow(
        clippy::significant_drop_tightening,
        reason = "a condition variable holds its lock"
    )]
    fn begin(&self, limit: Duration) -> Trying<'_> {
        let under_way = self.under_way.lock();
        let under_way = under_way.unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .ended
            .wait_timeout_while(under_way, limit, |under_way| *under_way);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = true;
        Trying(self)
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        let under_way = self.0.under_way.lock();
        *under_way.unwrap_or_else(PoisonError::into_inner) = false;
        self.0.ended.notify_all();
    }
}

impl FtpServer {
    /// See [`Transfers::resumes`](crate::vfs::backend::Transfers::resumes).
    pub(super) fn resumes(&self, offset: u64) -> bool {
        self.ways.with(|ways| ways.rest.known(offset)) != Some(false)
    }

    /// Whether REST may be sent. A server may say 350, and name REST in FEAT, and send from the
    /// beginning all the same, or forget the upper half of an offset: how much comes is the only
    /// witness. So it is tried on the last byte of a file before anything is believed.
    pub(super) fn rests(
        &self,
        lease: &mut Lease,
        path: &RemotePath,
        offset: u64,
        only_with_room: bool,
    ) -> Result<bool> {
        let known = || self.ways.with(|ways| ways.rest.known(offset));
        if let Some(known) = known() {
            return Ok(known);
        }
        // Many readers come at once: what one finds out is for all.
        let _only = self.rest_trial.begin(self.options().timeout);
        if let Some(known) = known() {
            return Ok(known);
        }
        let Some(last) = self.last_byte(lease, path)?.filter(|last| *last > 0) else {
            return Ok(false);
        };
        let line = self.line("RETR", path)?;
        let mut data = match lease.begin_data_where(&line, last, only_with_room)? {
            Begun::Open(data) => data,
            Begun::Refused(reply) if is_unknown(&reply) => {
                self.ways.with(|ways| ways.rest.learn(0, false));
                return Ok(false);
            }
            // Not for REST, most likely: the caller finds out.
            Begun::Refused(_) => return Ok(true),
        };
        let mut bytes = [0; 64];
        let mut count = 0;
        while let Some(rest) = bytes.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match data.read(rest) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(err) => return Err(net::failure(format_args!("RETR {path}"), &err)),
            }
        }
        let obeys = count == 1;
        if count == bytes.len() {
            lease.close_early(data);
        } else if obeys {
            lease.end_data_behind(data)?;
        } else if !lease.end_data(data)?.is_ok() {
            // It broke off, and shows nothing.
            return Ok(obeys);
        }
        // Somebody may just be writing to the file: then nothing is learned.
        if !obeys && self.last_byte(lease, path)? != Some(last) {
            return Ok(false);
        }
        log::info!("REST before byte {last} works: {obeys}");
        self.ways.with(|ways| {
            ways.rest.learn(last, obeys);
            if !obeys {
                ways.rest.learn(offset, false);
            }
        });
        Ok(obeys)
    }

    /// Where the last byte of a file is, if the server tells its size and it has one.
    fn last_byte(&self, lease: &mut Lease, path: &RemotePath) -> Result<Option<u64>> {
        let size = self.line("SIZE", path)?;
        let told = lease.batch_and_arrange(vec![size])?;
        let size = match told.first().and_then(size_of) {
            Some(size) => Some(size),
            None => match self.stat_by_listing(lease, path) {
                Err(err) if lease.is_broken() => return Err(err),
                found => found.ok().flatten().and_then(|attr| attr.size),
            },
        };
        Ok(size.and_then(|size| size.checked_sub(1)))
    }
}

/// Whether it is the command that is refused, and not the file.
pub(super) const fn is_unknown(reply: &Reply) -> bool {
    matches!(reply.code(), 500 | 502 | 503 | 504)
}
