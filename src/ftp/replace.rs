//! Giving a file another name, over whatever has that name, without ever losing either.

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
        })
    }
}

impl FtpServer {
    /// Carries a rename out, or on: with `resumed`, an earlier session was lost in mid-way, and the
    /// server is asked how far it had come, since RNTO must not be sent twice.
    ///
    /// # Errors
    /// Whatever fails, both files are there under their names; where even putting the old one back
    /// failed, the error names the place where it is.
    pub(super) fn replace(
        &self,
        s: &mut Session,
        job: &Replacement<'_>,
        resumed: bool,
    ) -> Result<()> {
        self.in_flight.with(|names| names.insert(job.aside.clone()));
        let done = self.replace_steps(s, job, resumed);
        // What had to stay aside is somebody's file: everyone shall see it.
        if !s.is_broken() {
            self.in_flight.with(|names| names.remove(&job.aside));
        }
        done
    }

    fn replace_steps(&self, s: &mut Session, job: &Replacement<'_>, resumed: bool) -> Result<()> {
        let mut aside_taken = false;
        if resumed {
            let aside = self.look(s, &job.aside)?;
            aside_taken = aside == Seen::File;
            if self.look(s, job.from)? == Seen::Missing {
                return self.confirm(s, job, aside_taken);
            }
        }
        if !aside_taken {
            let mut refused = None;
            if self.ways.with(|ways| ways.rename_over) != Some(false) {
                let [from, to] = self.rename_once(s, job.from, job.to)?;
                if to.is_ok() {
                    return Ok(());
                }
                if !from.wants_more() && !from.is_ok() {
                    return Err(self.explain(s, probes::TOUCH, ("RNFR", job.from), &from));
                }
                refused = Some(to);
            }
            match (self.look(s, job.to)?, refused) {
                (Seen::Directory, _) => return self.replace_directory(s, job),
                (Seen::File, refused) => {
                    self.move_aside(s, job, refused)?;
                    aside_taken = true;
                }
                (_, Some(reply)) => {
                    return Err(self.explain(s, probes::PLACE, ("RNTO", job.to), &reply));
                }
                (_, None) => {}
            }
        }
        let [from, to] = self.rename_once(s, job.from, job.to)?;
        if !to.is_ok() {
            let refused = if from.wants_more() {
                ("RNTO", job.to, to)
            } else {
                ("RNFR", job.from, from)
            };
            let err = self.explain(s, probes::PLACE, (refused.0, refused.1), &refused.2);
            return Err(if aside_taken {
                self.roll_back(s, job, err)
            } else {
                err
            });
        }
        if aside_taken {
            self.ways.with(|ways| ways.rename_over = Some(false));
            self.discard(s, &job.aside);
        }
        Ok(())
    }

    /// The name is gone from `from`: was it our rename?
    fn confirm(&self, s: &mut Session, job: &Replacement<'_>, aside_taken: bool) -> Result<()> {
        let there = match job.size {
            Some(size) => match size_of(&self.ask(s, "SIZE", job.to)?) {
                Some(found) => found == size,
                None => self.look(s, job.to)? == Seen::File,
            },
            None => matches!(self.look(s, job.to)?, Seen::File | Seen::Directory),
        };
        if there {
            if aside_taken {
                self.discard(s, &job.aside);
            }
            return Ok(());
        }
        let err = Error::new(
            ErrorKind::Disconnected,
            format!(
                "{} and {}: neither is there after a lost connection",
                job.from, job.to
            ),
        );
        Err(if aside_taken {
            self.roll_back(s, job, err)
        } else {
            err
        })
    }

    fn roll_back(&self, s: &mut Session, job: &Replacement<'_>, err: Error) -> Error {
        match self.rename_once(s, &job.aside, job.to) {
            Ok([_, to]) if to.is_ok() => err,
            _ => {
                log::error!("{}: the old version is kept as {}", job.to, job.aside);
                err.context(format_args!("old version kept as {}", job.aside))
            }
        }
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

    /// RNFR and RNTO, in one round trip where possible: RNTO after a refused RNFR is a 503.
    fn rename_once(
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
            // It stays hidden from listings, and the next upload tries again.
            Err(_) => self.litter.with(|litter| litter.push(temporary.clone())),
            Ok(reply) => log::warn!(
                "{temporary}: a temporary file could not be removed: {}",
                reply.text()
            ),
        }
    }

    /// Removes what earlier uploads left when their connection died.
    pub(super) fn sweep(&self, s: &mut Session) {
        for temporary in self.litter.with(std::mem::take) {
            self.discard(s, &temporary);
        }
    }
}
