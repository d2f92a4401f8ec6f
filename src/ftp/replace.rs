//! Giving a file another name, over whatever has that name, without ever losing either.

use std::cell::{Cell, RefCell};
use std::time::SystemTime;

use super::intents::{Intent, Successor};
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
    /// The time that was set for that file.
    pub(super) mtime: Cell<Option<SystemTime>>,
    /// Where the old file at `to` waits while it is replaced.
    aside: RefCell<RemotePath>,
    /// Whether it waits there now.
    old: Cell<Old>,
}

/// Where the old file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Old {
    /// At its name, or there is none.
    Home,
    /// Aside.
    Away,
    /// At the one or the other: a command to move it there was sent, and no answer has come yet.
    Leaving,
    /// The same of one to move it back.
    Returning,
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
        Ok(Self {
            from,
            to,
            size,
            mtime: Cell::new(None),
            aside: RefCell::new(name_aside(server, to)?),
            old: Cell::new(Old::Home),
        })
    }

    /// Where the old file waits while it is replaced.
    pub(super) fn aside(&self) -> RemotePath {
        self.aside.borrow().clone()
    }

    /// From now on it waits under another name: something may come late to the one it had.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn wait_elsewhere(&self, server: &FtpServer) -> Result<()> {
        self.aside.replace(name_aside(server, self.to)?);
        Ok(())
    }

    /// Whether the new name is within the old one to a server that takes no notice of case, where
    /// `mv Dir DIR` finds a directory to move it into.
    pub(super) fn may_be_into_itself(&self) -> bool {
        let [from, to] = [self.from, self.to].map(|path| path.to_string().to_lowercase());
        to.strip_prefix(&from)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether both names are one to a server that takes no notice of case.
    pub(super) fn changes_case_only(&self) -> bool {
        let [from, to] = [self.from, self.to].map(|path| path.to_string().to_lowercase());
        from == to
    }
}

fn name_aside(server: &FtpServer, to: &RemotePath) -> Result<RemotePath> {
    match server.ways.with(|ways| ways.new_name) {
        Some(NewName::Dotted) => temporary::dotted(to, "old"),
        // Before the first upload nobody knows: what ends in a tilde is refused by few.
        _ => temporary::tilde(to),
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
        let _ = self.in_place.settle(job.to, self.options().timeout);
        self.in_flight.with(|names| names.insert(job.aside()));
        let done = self.recovering(lease, |s, lost| self.replace_steps(s, job, lost));
        if job.old.get() == Old::Home {
            self.put_to_rest(job);
        }
        let aside = job.aside();
        self.over_with(&aside);
        done.map_err(|err| match job.old.get() {
            Old::Away => {
                log::error!("{}: the old version is kept as {aside}", job.to);
                err.context(format_args!("old version kept as {aside}"))
            }
            Old::Leaving | Old::Returning => {
                err.context(format_args!("the old version may be {aside} now"))
            }
            Old::Home => err,
        })
    }

    /// Nothing is at `job.aside`, unless its removal waits for better times.
    fn put_to_rest(&self, job: &Replacement<'_>) {
        let removing = self.intents.of(&job.aside()) == Some(Intent::Remove);
        if !removing {
            self.reveal(&job.aside());
        }
    }

    fn replace_steps(
        &self,
        s: &mut Session,
        job: &Replacement<'_>,
        lost: Option<ErrorKind>,
    ) -> Result<()> {
        if let Some(lost) = lost {
            if self.is_still_at_home(s, job, lost)? {
                job.old.set(Old::Home);
            } else {
                match self.look(s, &job.aside())? {
                    Seen::Directory => return self.name_directory(s, job),
                    Seen::File => job.old.set(Old::Away),
                    Seen::Missing => job.old.set(Old::Home),
                    Seen::Unclear => {}
                }
            }
            if self.look(s, job.from)? == Seen::Missing {
                return self.confirm(s, job);
            }
        }
        if job.old.get() != Old::Away {
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
            if job.old.get() == Old::Away {
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
        let itself = !from.wants_more() && job.old.get() == Old::Home && job.changes_case_only();
        if itself && self.look(s, job.from)? == Seen::File {
            self.drop_aside(s, job);
            return Ok(());
        }
        Err(err)
    }

    /// After a lost connection: whether the old file, which may have been on its way aside, has its
    /// name. Then nothing that comes late moves what will have it.
    fn is_still_at_home(
        &self,
        s: &mut Session,
        job: &Replacement<'_>,
        lost: ErrorKind,
    ) -> Result<bool> {
        if job.old.get() != Old::Leaving {
            return Ok(false);
        }
        let aside = job.aside();
        let Some(home) = self.intents.of(&aside).and_then(Intent::into_home) else {
            return Ok(false);
        };
        let barred = self.bar(s, (&home, &aside), lost)?;
        if barred {
            job.wait_elsewhere(self)?;
            self.in_flight.with(|names| names.insert(job.aside()));
        }
        Ok(barred)
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

    /// The new file has its name for certain.
    fn drop_aside(&self, s: &mut Session, job: &Replacement<'_>) {
        if job.old.replace(Old::Home) != Old::Home {
            self.conceal(&job.aside());
            self.discard(s, &job.aside());
        }
    }

    fn roll_back(&self, s: &mut Session, job: &Replacement<'_>) -> Result<()> {
        if job.old.get() == Old::Away {
            job.old.set(Old::Returning);
            let [_, to] = self.rename_once(s, &job.aside(), job.to)?;
            job.old.set(if to.is_ok() { Old::Home } else { Old::Away });
        }
        Ok(())
    }

    /// Moves to the aside what has `home`; the intent is on the disk before.
    fn put_aside(
        &self,
        s: &mut Session,
        job: &Replacement<'_>,
        home: &RemotePath,
        by: Option<Successor>,
    ) -> Result<Reply> {
        let intent = Intent::Replace {
            home: home.clone(),
            by,
        };
        self.intents
            .begin(&job.aside(), intent, true)
            .map_err(|err| err.context(format_args!("{home} cannot be moved aside safely")))?;
        job.old.set(Old::Leaving);
        let [_, to] = self.rename_once(s, home, &job.aside())?;
        job.old.set(if to.is_ok() { Old::Away } else { Old::Home });
        Ok(to)
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
        let by = self.successor(s, job)?;
        let to = self.put_aside(s, job, job.to, by)?;
        if to.is_ok() {
            return Ok(());
        }
        Err(self.explain(s, probes::TOUCH, ("RNTO", job.to), &to))
    }

    /// What shows the file that is to be at `job.to`.
    ///
    /// # Errors
    /// `NotADirectory` if it is no file: an upload is one, but rename(2) may come with a directory.
    fn successor(&self, s: &mut Session, job: &Replacement<'_>) -> Result<Option<Successor>> {
        let from = job.from.clone();
        if let Some(size) = job.size {
            return Ok(Some(Successor {
                from,
                temporary: true,
                size,
                mtime: job.mtime.get(),
            }));
        }
        let found = self.version_now(s, job.from)?;
        let directory = match &found {
            Some(found) => found.is_dir(),
            None => self.look(s, job.from)? == Seen::Directory,
        };
        if directory {
            let detail = format!("{}: is a file, {} a directory", job.to, job.from);
            return Err(Error::new(ErrorKind::NotADirectory, detail));
        }
        Ok(found.and_then(|found| {
            Some(Successor {
                from,
                temporary: false,
                size: found.size?,
                mtime: found.mtime.filter(|_| found.mtime_exact),
            })
        }))
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
        let away = self.put_aside(s, job, job.from, None)?;
        if !away.is_ok() {
            return Ok(false);
        }
        match self.name_directory(s, job) {
            Err(err) if job.old.get() != Old::Home => Err(err),
            named => Ok(named.is_ok()),
        }
    }

    /// Gives the directory that waits aside its new name, or the old one back.
    fn name_directory(&self, s: &mut Session, job: &Replacement<'_>) -> Result<()> {
        job.old.set(Old::Returning);
        let [_, there] = self.rename_once(s, &job.aside(), job.to)?;
        if there.is_ok() {
            job.old.set(Old::Home);
            return Ok(());
        }
        let err = self.explain(s, probes::PLACE, ("RNTO", job.to), &there);
        let [_, back] = self.rename_once(s, &job.aside(), job.from)?;
        job.old
            .set(if back.is_ok() { Old::Home } else { Old::Away });
        Err(err)
    }

    /// RNFR and RNTO, in one round trip where possible: RNTO after a refused RNFR is a 503.
    pub(super) fn rename_once(
        &self,
        s: &mut Session,
        from: &RemotePath,
        to: &RemotePath,
    ) -> Result<[Reply; 2]> {
        exactly(s.batch(&self.lines_of_rename(from, to)?)?)
    }

    pub(super) fn lines_of_rename(
        &self,
        from: &RemotePath,
        to: &RemotePath,
    ) -> Result<Vec<Vec<u8>>> {
        Ok(vec![self.line("RNFR", from)?, self.line("RNTO", to)?])
    }
}
