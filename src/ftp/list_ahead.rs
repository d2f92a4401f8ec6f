//! Listings that nobody has asked for yet: many by one batch of STAT, or by two of STAT and MLST,
//! else a few at a time on connections that nobody needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::list_command::Listed;
use super::options::ListingMode;
use super::pool::{Lease, Purpose};
use super::server::FtpServer;
use super::session::More;
use super::stat_listing::BATCH_BYTES;
use crate::vfs::attr::DirEntry;
use crate::vfs::backend::Together;
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Directories asked for with one batch; then others may have the connection.
const BATCH: usize = 128;

/// Names in a batch of MLST: one or two round trips, as some 300 are not sent before they are
/// answered.
const NAMES: usize = 400;

/// Connections for listing ahead at once: on one that is near, or known to be few.
const SIDE_BY_SIDE: usize = 7;

/// Calls for each connection that is worth its login, which takes as long as one of them.
const EACH: usize = 2;

/// Takes a place in what was asked for, and what is there.
pub(super) type Found<'a> = &'a (dyn Fn(usize, Arc<[DirEntry]>) + Sync);

impl FtpServer {
    /// See [`Backend::list_ahead`](crate::vfs::backend::Backend::list_ahead).
    pub(super) fn list_ahead(&self, dirs: &[RemotePath], each: Found<'_>) -> bool {
        let done = if dirs.iter().any(|dir| self.lists_by_stat(dir)) {
            self.status_ahead(dirs, each)
        } else {
            let mut left: Vec<usize> = (0..dirs.len()).collect();
            let named = self.named_ahead(dirs, each, &mut left);
            let spared = self.side_by_side(dirs, &left, each);
            named.map(|()| spared || left.len() < dirs.len())
        };
        done.unwrap_or_else(|err| {
            log::debug!("listing ahead: {err}");
            true
        })
    }

    /// See [`Backend::lists_together`](crate::vfs::backend::Backend::lists_together).
    pub(super) fn lists_together(&self, waiting: usize) -> Together {
        // Nearby it would take the session that somebody is about to ask for.
        let early = self.pool.host().is_far();
        if self.lists_by_stat(&RemotePath::root()) {
            return Together {
                calls: 1,
                dirs: usize::MAX,
                early,
            };
        }
        let dirs = match self.lists_by_names() {
            Some(true) => self.share(),
            _ => 1,
        };
        let useful = match early {
            true => waiting / (dirs * EACH),
            false => 0,
        };
        Together {
            calls: self.pool.expect_listings(useful).max(SIDE_BY_SIDE),
            dirs,
            early,
        }
    }

    /// Directories that one batch of MLST is for.
    fn share(&self) -> usize {
        let usual = self.ways.with(|ways| ways.names_usual);
        (NAMES / usual.max(1)).clamp(1, BATCH)
    }

    fn status_ahead(&self, dirs: &[RemotePath], each: Found<'_>) -> Result<bool> {
        let mut begin = 0;
        while let Some(batch) = dirs.get(begin..).filter(|rest| !rest.is_empty()) {
            let batch = batch.get(..BATCH).unwrap_or(batch);
            let Some(mut lease) = self.spare_session()? else {
                return Ok(begin > 0);
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
        Ok(true)
    }

    /// Lists by names what can be, and takes it out of `left`.
    fn named_ahead(
        &self,
        dirs: &[RemotePath],
        each: Found<'_>,
        left: &mut Vec<usize>,
    ) -> Result<()> {
        if self.lists_by_names().is_none()
            && !self
                .ways
                .with(|ways| std::mem::replace(&mut ways.named_trying, true))
        {
            let tried = self.try_names_ahead(dirs, each, left);
            self.ways.with(|ways| ways.named_trying = false);
            tried?;
        }
        let mut at = 0;
        while at < left.len() && self.lists_by_names() == Some(true) {
            let Some(mut lease) = self.spare_session()? else {
                return Ok(());
            };
            let places: Vec<usize> = left.iter().skip(at).take(self.share()).copied().collect();
            let batch: Vec<RemotePath> = places
                .iter()
                .filter_map(|place| dirs.get(*place).cloned())
                .collect();
            let most = self.ways.with(|ways| ways.names_most);
            let began = Instant::now();
            let named = self.list_by_names(&mut lease, &batch, most)?;
            self.weigh_names(&named, began.elapsed());
            // What is left out is passed over.
            at += batch.len() - named.listed.len();
            for (at, entries) in named.listed {
                let Some((dir, place)) = batch.get(at).zip(places.get(at)) else {
                    continue;
                };
                each(*place, self.complete(&mut lease, dir, entries)?.into());
                left.retain(|other| other != place);
            }
        }
        Ok(())
    }

    /// Compares listing by names with MLSD, of a directory that was just listed or of the first.
    fn try_names_ahead(
        &self,
        dirs: &[RemotePath],
        each: Found<'_>,
        left: &mut Vec<usize>,
    ) -> Result<()> {
        if let Some(mut lease) = self.spare_session()?
            && !self.try_on_sample(&mut lease)
            && let Some(dir) = dirs.first()
        {
            let entries = self.try_named_listing(&mut lease, dir)?;
            each(0, self.complete(&mut lease, dir, entries)?.into());
            left.retain(|place| *place != 0);
        }
        Ok(())
    }

    /// Whether there was a connection for any.
    fn side_by_side(&self, dirs: &[RemotePath], places: &[usize], each: Found<'_>) -> bool {
        self.ways
            .with(|ways| ways.names_pause = ways.names_pause.saturating_sub(places.len()));
        let next = AtomicUsize::new(0);
        let list_some = |mut lease: Lease| {
            self.try_together(&mut lease);
            loop {
                let next = next.fetch_add(1, Ordering::Relaxed);
                let Some((place, dir)) = places
                    .get(next)
                    .and_then(|place| Some((*place, dirs.get(*place)?)))
                else {
                    return;
                };
                let began = Instant::now();
                let listed = lease.in_a_row(|s| self.list_on(s, dir));
                self.time_mlsd(began.elapsed());
                let listed = listed.and_then(|entries| self.complete(&mut lease, dir, entries));
                match listed {
                    Ok(entries) => each(place, entries.into()),
                    Err(err) => log::debug!("{dir}: listing ahead: {err}"),
                }
                if lease.is_broken() || self.pool.is_contended() {
                    return;
                }
            }
        };
        let spared = AtomicBool::new(places.is_empty());
        let work = || match self.spare_session() {
            Ok(Some(lease)) => {
                spared.store(true, Ordering::Relaxed);
                list_some(lease);
            }
            Ok(None) => {}
            Err(err) => {
                spared.store(true, Ordering::Relaxed);
                log::debug!("listing ahead: {err}");
            }
        };
        if places.len() == 1 {
            work();
            return spared.into_inner();
        }
        std::thread::scope(|scope| {
            for _ in 0..SIDE_BY_SIDE.min(places.len()) {
                let started = std::thread::Builder::new()
                    .name("foresight".into())
                    .spawn_scoped(scope, work);
                if started.is_err() {
                    return;
                }
            }
        });
        spared.into_inner()
    }

    /// A session that nobody needs now.
    fn spare_session(&self) -> Result<Option<Lease>> {
        use crate::vfs::error::ErrorKind::Busy;
        match self.pool.lease(Purpose::Scan, false) {
            Ok(lease) => Ok(Some(lease)),
            Err(err) if err.kind() == Busy => Ok(None),
            Err(err) => Err(err),
        }
    }
}
