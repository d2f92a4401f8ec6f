//! Making and removing: commands that must not be sent twice. What became of one whose
//! answer was lost is asked on another connection.

use std::time::Duration;

use super::probes::{self, Probes, Seen};
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use super::set_attr::done;
use crate::net::Deadline;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// How long `rmdir` waits for uploads in the directory that are being given up.
const TIDY_LIMIT: Duration = Duration::from_secs(2);
const TIDY_PAUSE: Duration = Duration::from_millis(50);

/// What mkdir gives on nearly all servers; another mode is asked for by SITE CHMOD.
const USUAL_MODE: u32 = 0o755;

impl FtpServer {
    /// Creates a directory.
    pub(super) fn mkdir(&self, path: &RemotePath, mode: Option<u32>) -> Result<()> {
        let made = |seen| seen == Seen::Directory;
        self.change(("MKD", path), probes::MAKE_DIRECTORY, made, |s| {
            // Privacy is worth a round trip; a server that will not is no reason to fail.
            if let Some(mode) = mode.filter(|mode| mode & 0o7777 != USUAL_MODE)
                && self.ways.with(|ways| ways.chmod) != Some(false)
            {
                let reply = s.command(&self.chmod_line(path, mode)?)?;
                self.ways.with(|ways| ways.chmod = Some(done(&reply)));
            }
            Ok(())
        })
    }

    /// Removes a file or a link.
    pub(super) fn unlink(&self, path: &RemotePath) -> Result<()> {
        let gone = |seen| seen == Seen::Missing;
        let _ = self.in_place.settle(path, self.options().timeout);
        self.change(("DELE", path), probes::REMOVE, gone, |_| Ok(()))?;
        self.forget(path);
        Ok(())
    }

    /// Removes an empty directory.
    pub(super) fn rmdir(&self, path: &RemotePath) -> Result<()> {
        let gone = |seen| seen == Seen::Missing;
        let remove = || self.change(("RMD", path), probes::REMOVE_DIRECTORY, gone, |_| Ok(()));
        match remove() {
            Err(err) if err.kind() == ErrorKind::NotEmpty && self.tidied(path)? => remove()?,
            removed => removed?,
        }
        self.forget(path);
        Ok(())
    }

    /// Whether there were temporary files of ours in `dir`, which no listing shows: what an upload
    /// left there when its connection died is removed now, and one that is being given up waited
    /// for.
    fn tidied(&self, dir: &RemotePath) -> Result<bool> {
        self.lift_bars(dir);
        let ours = || {
            self.in_flight
                .with(|names| names.iter().any(|name| name.is_within(dir)))
        };
        let found = ours();
        let deadline = Deadline::after(TIDY_LIMIT);
        while ours() && deadline.left().is_ok() {
            self.on_session(|s| {
                self.sweep(s);
                Ok(())
            })?;
            if ours() {
                std::thread::sleep(TIDY_PAUSE);
            }
        }
        Ok(found)
    }

    /// Runs `act`, and after a lost connection `happened`, which tells whether it took effect,
    /// before another try.
    pub(super) fn settled<T>(
        &self,
        act: impl Fn(&mut Session) -> Result<T>,
        happened: impl Fn(&mut Session) -> Result<Option<T>>,
    ) -> Result<T> {
        self.recovering(&mut None, |s, lost| {
            if lost.is_some()
                && let Some(done) = happened(s)?
            {
                return Ok(done);
            }
            act(s)
        })
    }

    /// Sends one command that makes or removes `path`, and believes what is there afterwards
    /// rather than an odd reply.
    fn change(
        &self,
        (verb, path): (&str, &RemotePath),
        probes: Probes,
        is_done: impl Fn(Seen) -> bool,
        then: impl Fn(&mut Session) -> Result<()>,
    ) -> Result<()> {
        let act = |s: &mut Session| {
            if verb == "MKD" {
                self.check_name(s, path)?;
            }
            let reply = self.ask(s, verb, path)?;
            let plain = matches!(reply.code(), 250 | 257);
            if plain || done(&reply) && is_done(self.look(s, path)?) {
                return then(s);
            }
            Err(self.refused(s, probes, (verb, path), &reply))
        };
        self.settled(act, |s| match is_done(self.look(s, path)?) {
            true => then(s).map(Some),
            false => Ok(None),
        })
    }

    fn refused(
        &self,
        s: &mut Session,
        probes: Probes,
        what: (&str, &RemotePath),
        reply: &Reply,
    ) -> Error {
        if !reply.is_ok() {
            return self.explain(s, probes, what, reply);
        }
        let (verb, path) = what;
        let detail = format!("{verb} {path}: {}, but nothing happened", reply.text());
        self.noted(path, Error::new(ErrorKind::Protocol, detail))
    }

    pub(super) fn forget(&self, path: &RemotePath) {
        self.times.with(|times| times.forget(path));
        self.links.with(|links| links.forget(path));
        self.no_doubt(path);
    }
}
