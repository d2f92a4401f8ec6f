//! Listings that nobody has asked for yet: many by one batch of STAT, else a few at a time on
//! connections that nobody needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::list_command::Listed;
use super::options::ListingMode;
use super::pool::{Lease, Purpose};
use super::server::FtpServer;
use super::session::More;
use super::stat_listing::BATCH_BYTES;
use crate::vfs::attr::DirEntry;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Directories asked for with one batch; then others may have the connection.
const BATCH: usize = 128;

/// Connections for listing ahead at once.
const SIDE_BY_SIDE: usize = 6;

/// Takes a place in what was asked for, and what is there.
pub(super) type Found<'a> = &'a (dyn Fn(usize, Arc<[DirEntry]>) + Sync);

impl FtpServer {
    /// See [`Backend::list_ahead`](crate::vfs::backend::Backend::list_ahead).
    pub(super) fn list_ahead(&self, dirs: &[RemotePath], each: Found<'_>) {
        let done = if dirs.iter().any(|dir| self.lists_by_stat(dir)) {
            self.status_ahead(dirs, each)
        } else {
            self.side_by_side(dirs, each);
            Ok(())
        };
        if let Err(err) = done {
            log::debug!("listing ahead: {err}");
        }
    }

    fn status_ahead(&self, dirs: &[RemotePath], each: Found<'_>) -> Result<()> {
        let mut begin = 0;
        while let Some(batch) = dirs.get(begin..).filter(|rest| !rest.is_empty()) {
            let batch = batch.get(..BATCH).unwrap_or(batch);
            let Some(mut lease) = self.spare_session()? else {
                return Ok(());
            };
            let mut shown: Vec<(usize, Listed)> = Vec::with_capacity(batch.len());
            let mut bytes = 0;
            let mut places = Vec::with_capacity(batch.len());
            let mut asked = Vec::with_capacity(batch.len());
            for (place, dir) in batch.iter().enumerate() {
                if self.lists_by_stat(dir) {
                    places.push(begin + place);
                    asked.push(dir.clone());
                }
            }
            let result = self.status_of(&mut lease, &asked, &mut |at, size, listed| {
                bytes += size;
                // A hundred may be on their way already: they are heard, and not kept.
                if bytes > BATCH_BYTES {
                    return More::Enough;
                }
                if let Some((place, listed)) = places.get(at).copied().zip(listed) {
                    shown.push((place, listed));
                }
                More::Wanted
            });
            for (place, listed) in shown {
                let Some(dir) = dirs.get(place) else { continue };
                let entries = self.finish(&mut lease, dir, ListingMode::ListAll, listed)?;
                each(place, self.complete(&mut lease, dir, entries)?.into());
            }
            result?;
            begin += batch.len();
        }
        Ok(())
    }

    fn side_by_side(&self, dirs: &[RemotePath], each: Found<'_>) {
        let next = AtomicUsize::new(0);
        let list_some = |mut lease: Lease| {
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(dir) = dirs.get(place) else {
                    return;
                };
                let listed = self
                    .list_on(&mut lease, dir)
                    .and_then(|entries| self.complete(&mut lease, dir, entries));
                match listed {
                    Ok(entries) => each(place, entries.into()),
                    Err(err) => log::debug!("{dir}: listing ahead: {err}"),
                }
                if lease.is_broken() || self.pool.is_contended() {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..SIDE_BY_SIDE.min(dirs.len()) {
                let work = || {
                    if let Ok(Some(lease)) = self.spare_session() {
                        list_some(lease);
                    }
                };
                let started = std::thread::Builder::new()
                    .name("foresight".into())
                    .spawn_scoped(scope, work);
                if started.is_err() {
                    return;
                }
            }
        });
    }

    /// A session that nobody needs now.
    fn spare_session(&self) -> Result<Option<Lease>> {
        use crate::vfs::error::ErrorKind::Busy;
        match self.pool.lease(Purpose::Foresight, false) {
            Ok(lease) => Ok(Some(lease)),
            Err(err) if err.kind() == Busy => Ok(None),
            Err(err) => Err(err),
        }
    }
}
