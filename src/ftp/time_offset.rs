//! The zone that LIST times are in: measured once for a server, on a file that it also tells the
//! true time of.

use std::time::SystemTime;

use super::server::FtpServer;
use super::session::Session;
use super::stat::time_of;
use super::times::{shifted, shows_minutes, zone_between};
use crate::vfs::attr::{Attr, DirEntry, FileKind};
use crate::vfs::error::Result;
use crate::vfs::path::RemotePath;

/// Listings in which a suitable file is looked for, and files asked about in one of them.
const TRIES_MAX: u8 = 8;
const FILES_ASKED: usize = 3;

/// Files asked about at once, lest the replies to a huge directory be held in memory, or come too late
/// where each takes a round trip.
const BATCH: usize = 128;

impl FtpServer {
    /// Measures the offset, if it is not known yet, on the line that STAT told of a file and on what
    /// MDTM said; corrects `attr`. `false` if this file cannot tell while others may.
    pub(super) fn measure_offset_on(&self, attr: &mut Attr, exact: Option<SystemTime>) -> bool {
        if self.options().time_offset.is_some() || !self.is_offset_open() || attr.mtime_exact {
            return true;
        }
        let Some((listed, exact)) = attr.mtime.zip(exact) else {
            return true;
        };
        let Some(offset) = zone_between(listed, exact, SystemTime::now()) else {
            self.ways.with(|ways| ways.offset_tries += 1);
            return false;
        };
        self.learn_offset(offset);
        attr.mtime = Some(shifted(listed, -offset));
        true
    }

    fn is_offset_open(&self) -> bool {
        self.ways.with(|ways| {
            ways.time_offset.is_none() && ways.mdtm != Some(false) && ways.offset_tries < TRIES_MAX
        })
    }

    fn learn_offset(&self, offset: i64) {
        self.ways.with(|ways| ways.time_offset = Some(offset));
        if offset != 0 {
            log::info!("LIST times are {offset} s ahead of UTC");
        }
    }

    /// Measures the offset if it is not known yet, and corrects `entries`, which were read as if
    /// it were 0. One round trip, once for a server.
    pub(super) fn measure_offset(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        entries: &mut [DirEntry],
    ) -> Result<()> {
        if self.options().time_offset.is_some() || !self.is_offset_open() {
            return Ok(());
        }
        let now = SystemTime::now();
        let mut files: Vec<_> = entries
            .iter()
            .filter(|entry| entry.attr.kind == FileKind::File && !entry.attr.mtime_exact)
            .filter_map(|entry| Some((entry.attr.mtime?, &entry.name)))
            .filter(|(listed, _)| shows_minutes(*listed, now))
            .collect();
        files.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        files.truncate(FILES_ASKED);
        if files.is_empty() {
            return Ok(());
        }
        self.ways.with(|ways| ways.offset_tries += 1);
        let questions = files
            .iter()
            .map(|(_, name)| self.line("MDTM", &dir.join(name)))
            .collect::<Result<Vec<_>>>()?;
        let replies = s.batch(&questions)?;
        if replies
            .iter()
            .any(|reply| matches!(reply.code(), 500 | 502 | 504))
        {
            self.ways.with(|ways| ways.mdtm = Some(false));
            return Ok(());
        }
        let measured: Vec<_> = files
            .iter()
            .zip(&replies)
            .filter_map(|((listed, _), reply)| zone_between(*listed, time_of(reply)?, now))
            .collect();
        // Files that are being written disagree; an offset that only one of several shows is none.
        let Some(offset) = measured.first().copied() else {
            return Ok(());
        };
        if measured.iter().any(|other| *other != offset) {
            return Ok(());
        }
        self.learn_offset(offset);
        if offset != 0 {
            for entry in entries.iter_mut().filter(|entry| !entry.attr.mtime_exact) {
                entry.attr.mtime = entry.attr.mtime.map(|listed| shifted(listed, -offset));
            }
        }
        Ok(())
    }

    /// Replaces the minutes and days of LIST by what MDTM says, where the user paid for it.
    pub(super) fn ask_times(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        entries: &mut [DirEntry],
    ) -> Result<()> {
        let coarse =
            |entry: &&mut DirEntry| entry.attr.kind == FileKind::File && !entry.attr.mtime_exact;
        let mut files: Vec<_> = entries.iter_mut().filter(coarse).collect();
        for files in files.chunks_mut(BATCH) {
            let questions = files
                .iter()
                .map(|entry| self.line("MDTM", &dir.join(&entry.name)))
                .collect::<Result<Vec<_>>>()?;
            for (entry, reply) in files.iter_mut().zip(s.batch(&questions)?) {
                if let Some(exact) = time_of(&reply) {
                    entry.attr.mtime = Some(exact);
                    entry.attr.mtime_exact = true;
                }
            }
        }
        Ok(())
    }

    /// Asks for the times of those `entries` whose remembered ones may be of an earlier version: what
    /// was written within the last minutes.
    pub(super) fn confirm_times(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        entries: &[DirEntry],
        now: SystemTime,
    ) -> Result<()> {
        let open: Vec<_> = self.times.with(|times| {
            let coarse = entries.iter().filter(|entry| !entry.attr.mtime_exact);
            let named = coarse.map(|entry| (dir.join(&entry.name), &entry.attr));
            named
                .filter(|(path, attr)| times.is_open(path, attr, now))
                .map(|(path, attr)| (path, attr.size))
                .collect()
        });
        for files in open.chunks(BATCH) {
            let questions = files
                .iter()
                .map(|(path, _)| self.line("MDTM", path))
                .collect::<Result<Vec<_>>>()?;
            let replies = s.batch(&questions)?;
            self.times.with(|times| {
                for ((path, size), reply) in files.iter().zip(&replies) {
                    match time_of(reply) {
                        Some(exact) => times.told(path, *size, exact),
                        None => times.forget(path),
                    }
                }
            });
        }
        Ok(())
    }
}
