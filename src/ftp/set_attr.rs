//! Setting times and modes, with whichever command the server has.

use std::time::{Duration, SystemTime};

use super::listing::format_time;
use super::options::ChmodPolicy;
use super::probes::{self, Seen};
use super::refusal::{classify, refusal};
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use super::stat::{size_of, time_of};
use super::times::{apart, whole_seconds};
use super::ways::TimeCommand;
use crate::vfs::attr::SetAttr;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// A time that is as wanted to within this needs no command.
const CLOSE_ENOUGH: Duration = Duration::from_secs(2);

impl FtpServer {
    /// Sets what `change` names.
    ///
    /// # Errors
    /// `Unsupported` where the server cannot; `NotFound`, `PermissionDenied` as it says.
    pub(super) fn set_attr(&self, path: &RemotePath, change: &SetAttr) -> Result<()> {
        self.on_session(|s| {
            if let Some(mode) = change.mode {
                self.chmod(s, path, mode)?;
            }
            if let Some(mtime) = change.mtime {
                self.utimens(s, path, mtime)?;
            }
            Ok(())
        })
    }

    fn utimens(&self, s: &mut Session, path: &RemotePath, mtime: SystemTime) -> Result<()> {
        let refused = match self.set_time(s, path, mtime)? {
            Ok(()) => {
                let size = self.exact_size(s, path)?;
                self.times
                    .with(|times| times.learn(path, size, whole_seconds(mtime)));
                return Ok(());
            }
            Err(refused) => refused,
        };
        let told = refused.as_ref().map(classify);
        let denied = told.is_some_and(|v| v.told && v.kind == ErrorKind::PermissionDenied);
        let seen = self.look(s, path)?;
        if seen == Seen::Directory && !denied {
            // vsftpd and pyftpdlib set times of files only. An archive must unpack all the same,
            // so the time is kept here, for as long as the mount lives.
            self.ways.with(|ways| ways.directory_times = Some(false));
            self.times
                .with(|times| times.pretend(path, whole_seconds(mtime)));
            return Ok(());
        }
        if let Ok(attr) = self.stat_on(s, path)
            && attr
                .mtime
                .is_some_and(|shown| apart(shown, mtime) <= CLOSE_ENOUGH)
        {
            return Ok(());
        }
        let cannot = || {
            let detail = format!("{path}: the server cannot set modification times");
            Error::new(ErrorKind::Unsupported, detail)
        };
        Err(match (refused, seen) {
            (_, Seen::Missing) => Error::new(ErrorKind::NotFound, path.to_string()),
            (Some(reply), _) => match refusal(&format!("set time of {path}"), &reply) {
                err if err.kind() == ErrorKind::Unsupported => cannot(),
                err => self.noted(path, err),
            },
            (None, _) => cannot(),
        })
    }

    /// The size beside which an exact time is remembered; only LIST needs that.
    fn exact_size(&self, s: &mut Session, path: &RemotePath) -> Result<Option<u64>> {
        if self.has_mlst(s) {
            return Ok(None);
        }
        Ok(size_of(&self.ask(s, "SIZE", path)?))
    }

    /// Sets a time. `Err` is the refusal, `None` where no command is left to try.
    pub(super) fn set_time(
        &self,
        s: &mut Session,
        path: &RemotePath,
        mtime: SystemTime,
    ) -> Result<std::result::Result<(), Option<Reply>>> {
        if let Some(known) = self.ways.with(|ways| ways.set_time) {
            let Some(command) = known else {
                return Ok(Err(None));
            };
            let reply = s.command(&self.time_line(command, path, mtime)?)?;
            return Ok(if done(&reply) {
                Ok(())
            } else {
                Err(Some(reply))
            });
        }
        let mut refused: Option<Reply> = None;
        let mut all_unknown = true;
        for command in TimeCommand::ALL {
            let reply = s.command(&self.time_line(command, path, mtime)?)?;
            if !done(&reply) {
                let unknown = classify(&reply).kind == ErrorKind::Unsupported;
                // What is said to the first command that is known explains more; one that is not
                // may take the time for a part of the name, and not find it.
                if refused.is_none() || all_unknown && !unknown {
                    refused = Some(reply);
                }
                all_unknown &= unknown;
                continue;
            }
            // Some say 2xx and do nothing, or something else.
            match self.shows_time(s, path, mtime)? {
                Some(false) => all_unknown = false,
                shown => {
                    if shown.is_some() {
                        self.ways.with(|ways| ways.set_time = Some(Some(command)));
                    }
                    return Ok(Ok(()));
                }
            }
        }
        if all_unknown {
            self.ways.with(|ways| ways.set_time = Some(None));
        }
        Ok(Err(refused))
    }

    /// The command line that sets a time.
    pub(super) fn time_line(
        &self,
        command: TimeCommand,
        path: &RemotePath,
        mtime: SystemTime,
    ) -> Result<Vec<u8>> {
        let stamp = format_time(whole_seconds(mtime));
        let at = self.spell(path)?;
        Ok(match command {
            TimeCommand::Mfmt => [format!("MFMT {stamp} ").as_bytes(), &at].concat(),
            TimeCommand::SiteUtimeFive => {
                let times = format!(" {stamp} {stamp} {stamp} UTC");
                [b"SITE UTIME ".as_slice(), &at, times.as_bytes()].concat()
            }
            TimeCommand::SiteUtimeTwo => [format!("SITE UTIME {stamp} ").as_bytes(), &at].concat(),
            TimeCommand::MdtmSet => [format!("MDTM {stamp} ").as_bytes(), &at].concat(),
        })
    }

    /// Whether the server now shows `mtime`; `None` if it will not tell.
    pub(super) fn shows_time(
        &self,
        s: &mut Session,
        path: &RemotePath,
        mtime: SystemTime,
    ) -> Result<Option<bool>> {
        let mut shown = None;
        if self.has_mlst(s)
            && let Some(Ok(attr)) = self.mlst(s, path)?
        {
            shown = attr.mtime;
        }
        if shown.is_none() {
            shown = time_of(&self.ask(s, "MDTM", path)?);
        }
        Ok(shown.map(|shown| apart(shown, mtime) < Duration::from_secs(2)))
    }

    fn chmod(&self, s: &mut Session, path: &RemotePath, mode: u32) -> Result<()> {
        let lenient = self.options().chmod == ChmodPolicy::Ignore;
        if self.ways.with(|ways| ways.chmod) != Some(false) {
            let reply = s.command(&self.chmod_line(path, mode)?)?;
            if done(&reply) {
                self.ways.with(|ways| ways.chmod = Some(true));
                return Ok(());
            }
            if classify(&reply).kind != ErrorKind::Unsupported {
                let err = self.explain(s, probes::TOUCH, ("SITE CHMOD", path), &reply);
                // vsftpd refuses anonymous users every SITE command with these words.
                let no_right = err.kind() == ErrorKind::PermissionDenied;
                return if no_right && lenient {
                    Ok(())
                } else {
                    Err(err)
                };
            }
            self.ways.with(|ways| ways.chmod = Some(false));
        }
        if lenient {
            return Ok(());
        }
        let detail = format!("{path}: the server cannot change modes");
        Err(Error::new(ErrorKind::Unsupported, detail))
    }

    /// The command line that sets a mode.
    pub(super) fn chmod_line(&self, path: &RemotePath, mode: u32) -> Result<Vec<u8>> {
        let verb = format!("SITE CHMOD {:03o} ", mode & 0o7777);
        Ok([verb.as_bytes(), &self.spell(path)?].concat())
    }
}

/// Success; 202 is none.
pub(super) fn done(reply: &Reply) -> bool {
    reply.is_ok() && reply.code() != 202
}
