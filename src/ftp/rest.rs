//! REST before RETR: whether a server obeys it, which only a trial tells.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::data::DataConnection;
use super::pool::Lease;
use super::reply::Reply;
use super::server::FtpServer;
use super::stat::size_of;
use super::transfer::Begun;
use crate::net;
use crate::sync::Locked;
use crate::vfs::attr::DirEntry;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Files whose listed sizes are remembered for a trial: large ones, in which somebody may jump.
const REMEMBERED: usize = 1_000;
const LARGE: u64 = 1 << 20;

/// So many bytes show that more come than were asked for.
const MORE: usize = 64;

/// Lets one try at a time.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// A leaf.
    under_way: Mutex<bool>,
    ended: Condvar,
    /// What listings told, until it is known.
    sizes: Locked<HashMap<RemotePath, u64>>,
}

/// The one who tries, until this is dropped.
struct Trying<'a>(&'a Trial);

impl Trial {
    fn is_under_way(&self) -> bool {
        *self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

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
        if self.rest_trial.is_under_way() {
            lease.arrange_ahead()?;
        }
        // Many readers come at once: what one finds out is for all.
        let _only = self.rest_trial.begin(self.options().timeout);
        if let Some(known) = known() {
            return Ok(known);
        }
        let listed = self.rest_trial.sizes.with(|sizes| sizes.remove(path));
        if let Some(size) = listed
            && self.obeys_by_listing(lease, path, size, only_with_room)?
        {
            self.learn_rest(size - 1, true);
            return Ok(true);
        }
        let Some(last) = self.last_byte(lease, path)?.filter(|last| *last > 0) else {
            return Ok(false);
        };
        let mut data = match self.begin_trial(lease, path, last, only_with_room)? {
            Begun::Open(data) => data,
            Begun::Refused(reply) if is_unknown(&reply) => {
                self.ways.with(|ways| ways.rest.learn(0, false));
                return Ok(false);
            }
            // Not for REST, most likely: the caller finds out.
            Begun::Refused(_) => return Ok(true),
        };
        let count = count(path, &mut data)?;
        let obeys = count == 1;
        if count == MORE {
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
        self.learn_rest(last, obeys);
        if !obeys {
            self.ways.with(|ways| ways.rest.learn(offset, false));
        }
        Ok(obeys)
    }

    /// Takes note of the sizes that a listing of `dir` tells.
    pub(super) fn keep_sizes(&self, dir: &RemotePath, entries: &[DirEntry]) {
        if self.ways.with(|ways| ways.rest.known(0)).is_some() {
            return;
        }
        let large = entries.iter().filter_map(|entry| {
            let size = entry.attr.size.filter(|size| *size >= LARGE)?;
            Some((dir.join(&entry.name), size))
        });
        self.rest_trial.sizes.with(|sizes| {
            if sizes.len() >= REMEMBERED {
                sizes.clear();
            }
            sizes.extend(large.take(REMEMBERED));
        });
    }

    /// Tries it by the size that a listing told, which saves asking. Whether the server surely obeys:
    /// one byte came, and it still is the last one, which most servers tell with their 150.
    fn obeys_by_listing(
        &self,
        lease: &mut Lease,
        path: &RemotePath,
        size: u64,
        only_with_room: bool,
    ) -> Result<bool> {
        let Begun::Open(mut data) = self.begin_trial(lease, path, size - 1, only_with_room)? else {
            return Ok(false);
        };
        let told = data.total();
        if count(path, &mut data)? != 1 {
            lease.close_early(data);
            return Ok(false);
        }
        lease.end_data_behind(data)?;
        Ok(told == Some(size) || self.last_byte(lease, path)? == Some(size - 1))
    }

    fn begin_trial(
        &self,
        lease: &mut Lease,
        path: &RemotePath,
        last: u64,
        only_with_room: bool,
    ) -> Result<Begun> {
        let line = self.line("RETR", path)?;
        lease.begin_data_where(&line, last, only_with_room)
    }

    fn learn_rest(&self, last: u64, obeys: bool) {
        log::info!("REST before byte {last} works: {obeys}");
        self.ways.with(|ways| ways.rest.learn(last, obeys));
        self.rest_trial.sizes.with(|sizes| *sizes = HashMap::new());
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

/// How many bytes come, [`MORE`] at most.
fn count(path: &RemotePath, data: &mut DataConnection) -> Result<usize> {
    let mut bytes = [0; MORE];
    let mut count = 0;
    while let Some(rest) = bytes.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match data.read(rest) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(err) => return Err(net::failure(format_args!("RETR {path}"), &err)),
        }
    }
    Ok(count)
}

/// Whether it is the command that is refused, and not the file.
pub(super) const fn is_unknown(reply: &Reply) -> bool {
    matches!(reply.code(), 500 | 502 | 503 | 504)
}
