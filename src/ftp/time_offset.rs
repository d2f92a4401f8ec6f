//! The zone that LIST times are in: measured once for a server, on a file that it also tells the
//! true time of.

use std::time::SystemTime;

use super::list_command::Listed;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use super::stat::time_of;
use super::times::{shifted, shows_minutes, zone_between};
use crate::vfs::attr::{Attr, DirEntry, FileKind};
use crate::vfs::error::Result;
use crate::vfs::path::{Name, RemotePath};

/// Listings in which a suitable file is looked for, and files asked about in one of them.
const TRIES_MAX: u8 = 8;
const FILES_ASKED: usize = 3;

/// Files asked about at once, lest the replies to a huge directory be held in memory, or come too late
/// where each takes a round trip.
const BATCH: usize = 128;

/// Times that LIST told of files, and the lines that ask for the true ones.
pub(super) type Questions = Vec<(SystemTime, Vec<u8>)>;

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

    /// Measures the offset if it is not known yet, and corrects what is `listed`, which was read as
    /// if it were 0. One round trip, once for a server.
    pub(super) fn measure_offset(
        &self,
        s: &mut Session,
        dir: &RemotePath,
        listed: &mut Listed,
    ) -> Result<()> {
        let questions = self.offset_questions(dir, listed)?;
        if questions.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = questions.iter().map(|(_, line)| line.clone()).collect();
        let replies = s.batch(&lines)?;
        self.judge_offset(&questions, &replies, listed);
        Ok(())
    }

    /// Times that LIST told of files in `dir`, and how to ask for the true ones; nothing where there
    /// is nothing to find out, or it was asked for already.
    pub(super) fn offset_questions(
        &self,
        dir: &RemotePath,
        listed: &mut Listed,
    ) -> Result<Questions> {
        if self.options().time_offset.is_some() || listed.timed || !self.is_offset_open() {
            return Ok(Vec::new());
        }
        let now = SystemTime::now();
        let entries = &listed.entries;
        let mut files: Vec<_> = entries
            .iter()
            .filter(|entry| entry.attr.kind == FileKind::File && !entry.attr.mtime_exact)
            .filter_map(|entry| Some((entry.attr.mtime?, &entry.name)))
            .filter(|(listed, _)| shows_minutes(*listed, now))
            .collect();
        files.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        files.truncate(FILES_ASKED);
        let question = |(listed, name): &(SystemTime, &Name)| {
            let line = self.line("MDTM", &dir.join(name))?;
            Ok((*listed, line))
        };
        let questions = files.iter().map(question).collect::<Result<Vec<_>>>()?;
        listed.timed = !questions.is_empty();
        if listed.timed {
            self.ways.with(|ways| ways.offset_tries += 1);
        }
        Ok(questions)
    }

    /// Learns the offset from the replies to [`offset_questions`](Self::offset_questions), and
    /// corrects what is `listed`.
    pub(super) fn judge_offset(
        &self,
        questions: &[(SystemTime, Vec<u8>)],
        replies: &[Reply],
        listed: &mut Listed,
    ) {
        if replies
            .iter()
            .any(|reply| matches!(reply.code(), 500 | 502 | 504))
        {
            self.ways.with(|ways| ways.mdtm = Some(false));
            return;
        }
        let now = SystemTime::now();
        let measured: Vec<_> = questions
            .iter()
            .zip(replies)
            .filter_map(|((listed, _), reply)| zone_between(*listed, time_of(reply)?, now))
            .collect();
        // Files that are being written disagree; an offset that only one of several shows is none.
        let Some(offset) = measured.first().copied() else {
            return;
        };
        if measured.iter().any(|other| *other != offset) {
            return;
        }
        self.learn_offset(offset);
        let own = listed.own.as_mut().into_iter();
        let all = listed.entries.iter_mut().map(|entry| &mut entry.attr);
        for attr in all.chain(own).filter(|attr| !attr.mtime_exact) {
            attr.mtime = attr.mtime.map(|listed| shifted(listed, -offset));
        }
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
