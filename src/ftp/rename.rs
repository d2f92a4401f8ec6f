//! Renames that mind what they replace: those of rename(2), and the last step of an upload.

use std::time::SystemTime;

use super::conflict::{Sign, sign};
use super::options::Conflict;
use super::pool::Lease;
use super::probes::Seen;
use super::replace::Replacement;
use super::server::FtpServer;
use super::session::Session;
use crate::vfs::attr::Attr;
use crate::vfs::backend::{Publish, Replaces};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// A content that was not uploaded here: nothing is known of it.
pub(super) const fn unknown(replaces: Replaces) -> Publish {
    Publish {
        size: 0,
        mtime: None,
        mode: None,
        new: false,
        replaces,
    }
}

impl FtpServer {
    /// Renames, replacing a file or an empty directory; see
    /// [`Backend::rename`](crate::vfs::backend::Backend::rename).
    pub(super) fn rename(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        replaces: Replaces,
    ) -> Result<()> {
        if from == to {
            return Ok(());
        }
        if to.is_within(from) {
            let detail = format!("{from}: cannot be moved into itself");
            return Err(Error::new(ErrorKind::Invalid, detail));
        }
        for name in [from, to] {
            let _ = self.in_place.settle(name, self.options().timeout);
        }
        let job = Replacement::new(self, from, to, None)?;
        let mut lease = None;
        self.recovering(&mut lease, |s, _| {
            self.sweep(s);
            self.check_name(s, to)
        })?;
        let what = unknown(replaces);
        let renamed = if self.minds(&what) && !job.changes_case_only() {
            self.rename_minding(&mut lease, &job, &what)
        } else {
            self.replace(&mut lease, &job)
        };
        renamed.map_err(|err| match job.may_be_into_itself() {
            true => Error::new(ErrorKind::Invalid, err.detail()),
            false => err,
        })?;
        self.forget(to);
        self.times.with(|times| times.renamed(from, to));
        self.links.with(|links| links.forget(from));
        self.leftovers_moved(from, to);
        Ok(())
    }

    /// One round trip to a name that should be new, two over a version that should be known.
    fn rename_minding(
        &self,
        lease: &mut Option<Lease>,
        job: &Replacement<'_>,
        what: &Publish,
    ) -> Result<()> {
        let beside = self.aside_name(job.to)?;
        let _pending = (self.pending(&job.aside()), self.pending(&beside));
        // What is in the way shall stay there: then it must be asked for first. So it must where a
        // name for it might be refused: what comes behind that would replace it.
        let asks = self.options().conflict == Conflict::Fail
            || what.replaces != Replaces::Nothing
            || !self.surely_takes_temporary(job.to);
        let done = self.recovering(lease, |s, lost| match lost {
            _ if asks || !s.is_pipelined() => Ok(false),
            Some(lost) => self.resume_past(s, job, what, lost),
            None => self.name_past(s, job, what),
        })?;
        if done {
            return Ok(());
        }
        let found = self.recovering(lease, |s, _| self.version_now(s, job.to))?;
        let found = found.as_ref().map(|found| (found, &beside));
        self.replace_minding(lease, job, what, None, found)
            .map_err(|err| match err.kind() {
                // The kernel would look again what the name is now, and rename once more.
                ErrorKind::Stale => {
                    log::warn!("{}: not renamed: {err}", job.from);
                    Error::new(ErrorKind::Exists, err.detail())
                }
                _ => err,
            })
    }

    /// Moves what is at `job.to`, where nothing should be, aside, and then `job.from` there, in one
    /// round trip. `false` if nothing came of it.
    fn name_past(&self, s: &mut Session, job: &Replacement<'_>, what: &Publish) -> Result<bool> {
        let lines = [
            self.lines_past(job)?,
            self.lines_of_rename(job.from, job.to)?,
        ]
        .concat();
        let replies = s.batch(&lines)?;
        let went = |at: usize| replies.get(at).is_some_and(|reply| reply.is_ok());
        let (in_the_way, named) = (went(1), went(3));
        match (named, in_the_way) {
            (true, true) => self.made_way(s, job, what)?,
            (false, true) => self.take_back(s, &job.aside(), job.to)?,
            (_, false) => self.reveal(&job.aside()),
        }
        Ok(named)
    }

    /// What shows that what was `found` at `at` is a version of somebody else's.
    pub(super) fn conflict(&self, at: &RemotePath, what: &Publish, found: &Attr) -> Option<Sign> {
        let times_tell = self.ways.with(|ways| ways.keeps_times) != Some(false);
        let sign = sign(what, found, SystemTime::now())?;
        let shown = sign == Sign::Plain || times_tell;
        (shown && !self.was_ours(at, found)).then_some(sign)
    }

    /// Takes the file's place, where a version was `found` that can be moved aside.
    pub(super) fn replace_minding(
        &self,
        lease: &mut Option<Lease>,
        job: &Replacement<'_>,
        what: &Publish,
        mtime: Option<SystemTime>,
        found: Option<(&Attr, &RemotePath)>,
    ) -> Result<()> {
        job.mtime.set(mtime);
        let conflict =
            found.and_then(|(found, aside)| Some((self.conflict(job.to, what, found)?, aside)));
        let Some((sign, aside)) = conflict else {
            return self.replace(lease, job);
        };
        // Perhaps it was renamed before, and the answer lost.
        if job.size.is_none() {
            self.recovering(lease, |s, _| match self.look(s, job.from)? {
                Seen::Missing => {
                    let detail = format!("{}: is not there any more", job.from);
                    Err(Error::new(ErrorKind::NotFound, detail))
                }
                _ => Ok(()),
            })?;
        }
        let aside = &self.make_way(lease, job, aside)?;
        let _pending = self.pending(aside);
        let replaced = self.replace(lease, job);
        if replaced.is_err() {
            let back = self.recovering(lease, |s, _| self.take_back(s, aside, job.to));
            back.unwrap_or_else(|err| log::error!("{err}"));
        }
        replaced?;
        self.intents.end(aside, true);
        match (sign, mtime) {
            (Sign::Time, Some(mtime)) => {
                self.recovering(lease, |s, _| self.check_times(s, job.to, mtime))
            }
            _ => Ok(()),
        }
    }
}
