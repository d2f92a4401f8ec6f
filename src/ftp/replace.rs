//! Giving a file another name, over whatever has that name, without ever losing either.

use std::cell::Cell;

use super::pool::Lease;
use super::probes::{self, Seen};
use super::refusal::{classify, refusal};
use super::reply::Reply;
use super::server::{FtpServer, exactly};
use super::session::Session;
use super::stat::size_of;
use super::temporary;
use super::ways::NewName;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// One rename, from which a lost connection can be recovered at every step.
#[derive(Debug)]
pub(super) struct Replacement<'a> {
    pub(super) from: &'a RemotePath,
    pub(super) to: &'a RemotePath,
    /// Bytes of the file at `from`, which `to` must have when it is done; `None`: not known.
    pub(super) size: Option<u64>,
    /// Where the old file at `to` waits while it is replaced.
    aside: RemotePath,
    /// Whether it waits there now.
    aside_taken: Cell<bool>,
}

impl<'a> Replacement<'a> {
    /// # Errors
    /// `IsADirectory` where `to` is the root.
    pub(super) fn new(
        server: &FtpServer,
        from: &'a RemotePath,
        to: &'a RemotePath,
        size: Option<u64>,
    ) -> Result<Self> {
        let aside = match server.ways.with(|ways| ways.new_name) {
            Some(NewName::Tilde) => temporary::tilde(to)?,
            _ => temporary::dotted(to, "old")?,
        };
        Ok(Self {
            from,
            to,
            size,
            aside,
            aside_taken: Cell::new(false),
        })
    }

    /// Whether both names are one to a server that takes no notice of case.
    pub(super) fn changes_case_only(&self) -> bool {
        let [from, to] = [self.from, self.to].map(|path| path.to_string().to_lowercase());
        from == to
    }
}

impl FtpServer {
    /// Carries a rename out. If its connection is lost in mid-way, another one asks how far it had
    /// come, since RNTO must not be sent twice.
    ///
    /// # Errors
    /// Whatever fails, both files are there under their names; where even putting the old one back
    /// failed, the error names the place where it is.
    pub(super) fn replace(&self, lease: &mut Option<Lease>, job: &Replacement<'_>) -> Result<()> {
        self.in_flight.with(|names| names.insert(job.aside.clone()));
        let done = self.recovering(lease, |s, resumed| self.replace_steps(s, job, resumed));
        let Err(err) = done else {
            return Ok(());
        };
        // What is still aside is somebody's file: everyone shall see it.
        self.in_flight.with(|names| names.remove(&job.aside));
        if !job.aside_taken.get() {
            return Err(err);
        }
        log::error!("{}: the old version is kept as {}", job.to, job.aside);
        let displaced = (job.aside.clone(), job.to.clone());
        self.displaced.with(|all| all.push(displaced));
        Err(err.context(format_args!("old version kept as {}", job.aside)))
    }

    fn replace_steps(&self, s: &mut Session, job: &Replacement<'_>, resumed: bool) -> Result<()> {
        if resumed {
            job.aside_taken.set(self.look(s, &job.aside)? == Seen::File);
            if self.look(s, job.from)? == Seen::Missing {
                return self.confirm(s, job);
            }
        }
        if !job.aside_taken.get() {
            let mut refused = None;
            if self.ways.with(|ways| ways.rename_over) != Some(false) {
                let [from, to] = self.rename_once(s, job.from, job.to)?;
                if to.is_ok() {
                    self.drop_aside(s, job);
                    return Ok(());
                }
                if !from.wants_more() && !from.is_ok() {
                    return Err(self.explain(s, probes::TOUCH, ("RNFR", job.from), &from));
                }
                refused = Some(to);
            }
            match (self.look(s, job.to)?, refused) {
                (Seen::Directory, _) => {
                    if !(job.changes_case_only() && self.rename_by_way_of_aside(s, job)?) {
                        self.replace_directory(s, job)?;
                    }
                    self.drop_aside(s, job);
                    return Ok(());
                }
                (Seen::File, refused) => self.move_aside(s, job, refused)?,
                (_, Some(reply)) => {
                    return Err(self.explain(s, probes::PLACE, ("RNTO", job.to), &reply));
                }
                (_, None) => {}
            }
        }
        let [from, to] = self.rename_once(s, job.from, job.to)?;
        if to.is_ok() {
            if job.aside_taken.get() {
                self.ways.with(|ways| ways.rename_over = Some(false));
            }
            self.drop_aside(s, job);
            return Ok(());
        }
        let err = if from.wants_more() {
            self.explain(s, probes::PLACE, ("RNTO", job.to), &to)
        } else {
            self.explain(s, probes::TOUCH, ("RNFR", job.from), &from)
        };
        self.roll_back(s, job)?;
        // To a server that takes no notice of case the file itself went aside, and came back under
        // the name that it should have.
        let itself = !from.wants_more() && !job.aside_taken.get() && job.changes_case_only();
        if itself && self.look(s, job.from)? == Seen::File {
            self.drop_aside(s, job);
            return Ok(());
        }
        Err(err)
    }

    /// After a rename of which the answer was lost: whether the content has its name.
    ///
    /// # Errors
    /// `Disconnected` if it is nowhere.
    pub(super) fn resume_naming(&self, s: &mut Session, job: &Replacement<'_>) -> Result<bool> {
        if self.look(s, job.from)? != Seen::Missing {
            return Ok(false);
        }
        self.confirm(s, job).map(|()| true)
    }

    /// The name is gone from `from`: was it our rename?
    fn confirm(&self, s: &mut Session, job: &Replacement<'_>) -> Result<()> {
        let there = match job.size {
            Some(size) => match size_of(&self.ask(s, "SIZE", job.to)?) {
                Some(found) => found == size,
                None => self.look(s, job.to)? == Seen::File,
            },
            None => matches!(self.look(s, job.to)?, Seen::File | Seen::Directory),
        };
        if there {
            self.drop_aside(s, job);
            return Ok(());
        }
        self.roll_back(s, job)?;
        let (from, to) = (job.from, job.to);
        let detail = format!("{from} and {to}: the content is at neither after a lost connection");
        Err(Error::new(ErrorKind::Disconnected, detail))
    }

    fn drop_aside(&self, s: &mut Session, job: &Replacement<'_>) {
        if job.aside_taken.replace(false) {
            self.discard(s, &job.aside);
        } else {
            self.in_flight.with(|names| names.remove(&job.aside));
        }
    }

    fn roll_back(&self, s: &mut Session, job: &Replacement<'_>) -> Result<()> {
        if job.aside_taken.get() {
            let [_, to] = self.rename_once(s, &job.aside, job.to)?;
            job.aside_taken.set(!to.is_ok());
        }
        Ok(())
    }

    /// Gives the file that is to be replaced another name.
    fn move_aside(
        &self,
        s: &mut Session,
        job: &Replacement<'_>,
        refused: Option<Reply>,
    ) -> Result<()> {
        if let Some(reply) = refused {
            let verdict = classify(&reply);
            if verdict.told && matches!(verdict.kind, ErrorKind::NoSpace | ErrorKind::ReadOnly) {
                return Err(refusal(&format!("RNTO {}", job.to), &reply));
            }
        }
        // An upload is a file; only rename(2) may come with a directory.
        if job.size.is_none() && self.look(s, job.from)? == Seen::Directory {
            let detail = format!("{}: is a file, {} a directory", job.to, job.from);
            return Err(Error::new(ErrorKind::NotADirectory, detail));
        }
        let [_, to] = self.rename_once(s, job.to, &job.aside)?;
        if to.is_ok() {
            job.aside_taken.set(true);
            return Ok(());
        }
        Err(self.explain(s, probes::TOUCH, ("RNTO", job.to), &to))
    }

    /// rename(2) of a directory over an empty one. Few servers do it by themselves.
    fn replace_directory(&self, s: &mut Session, job: &Replacement<'_>) -> Result<()> {
        if self.look(s, job.from)? != Seen::Directory {
            let detail = format!("{}: is a directory, {} a file", job.to, job.from);
            return Err(Error::new(ErrorKind::IsADirectory, detail));
        }
        let removed = self.ask(s, "RMD", job.to)?;
        if !removed.is_ok() {
            return Err(self.explain(s, probes::REMOVE_DIRECTORY, ("RMD", job.to), &removed));
        }
        let [_, to] = self.rename_once(s, job.from, job.to)?;
        if to.is_ok() {
            return Ok(());
        }
        let err = self.explain(s, probes::PLACE, ("RNTO", job.to), &to);
        // An empty directory is put back by making it anew.
        let _ = self.ask(s, "MKD", job.to)?;
        Err(err)
    }

    /// Gives a directory its name in another case, where the server takes the new name for taken.
    /// False, and all as it was, where another directory has it.
    fn rename_by_way_of_aside(&self, s: &mut Session, job: &Replacement<'_>) -> Result<bool> {
        let [_, away] = self.rename_once(s, job.from, &job.aside)?;
        if !away.is_ok() {
            return Ok(false);
        }
        let [_, there] = self.rename_once(s, &job.aside, job.to)?;
        if !there.is_ok() {
            self.rename_once(s, &job.aside, job.from)?;
        }
        Ok(there.is_ok())
    }

    /// RNFR and RNTO, in one round trip where possible: RNTO after a refused RNFR is a 503.
    pub(super) fn rename_once(
        &self,
        s: &mut Session,
        from: &RemotePath,
        to: &RemotePath,
    ) -> Result<[Reply; 2]> {
        exactly(s.batch(&[self.line("RNFR", from)?, self.line("RNTO", to)?])?)
    }

    /// Removes one of our own temporary files; later, if it cannot be done now.
    pub(super) fn discard(&self, s: &mut Session, temporary: &RemotePath) {
        match self.ask(s, "DELE", temporary) {
            Ok(reply) if reply.is_ok() || classify(&reply).kind == ErrorKind::NotFound => {
                self.in_flight.with(|names| names.remove(temporary));
            }
            Err(_) => self.leave(temporary),
            Ok(reply) => log::warn!(
                "{temporary}: a temporary file could not be removed: {}",
                reply.text()
            ),
        }
    }

    /// A file of ours cannot be removed now. It stays hidden from listings, and the next upload
    /// tries again; not if it has a name that may be another's by then.
    pub(super) fn leave(&self, name: &RemotePath) {
        if self.in_flight.with(|names| names.contains(name)) {
            self.litter.with(|litter| litter.push(name.clone()));
        }
    }

    /// Removes what earlier uploads left when their connection died, and puts back what they had
    /// moved aside.
    pub(super) fn sweep(&self, s: &mut Session) {
        for (aside, to) in self.displaced.with(std::mem::take) {
            let put_back = match self.look(s, &to) {
                Ok(Seen::Missing) => self.rename_once(s, &aside, &to).map(|[_, to]| to.is_ok()),
                Ok(_) => Ok(false),
                Err(err) => Err(err),
            };
            match put_back {
                Ok(true) => log::info!("{to}: the old version is back in its place"),
                Ok(false) => {}
                Err(_) => self.displaced.with(|all| all.push((aside, to))),
            }
        }
        for temporary in self.litter.with(std::mem::take) {
            self.discard(s, &temporary);
        }
    }
}
