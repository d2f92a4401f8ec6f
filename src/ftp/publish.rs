//! What an uploaded content gets before it is shown: its size verified, its time and mode set.

use std::time::SystemTime;

use super::list_command::Answer;
use super::options::ListingMode;
use super::replace::Replacement;
use super::reply::Reply;
use super::server::FtpServer;
use super::session::Session;
use super::set_attr::done;
use super::stat::size_of;
use super::times::whole_seconds;
use crate::vfs::attr::{Attr, FileKind};
use crate::vfs::backend::Publish;
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// The commands that dress one file, and what they set.
struct Dressing {
    lines: Vec<Vec<u8>>,
    time: Option<SystemTime>,
    mode: bool,
    /// Which command sets times is known, or none is needed.
    learned: bool,
}

impl FtpServer {
    /// One round trip for SIZE, the time and the mode of the file just stored at `name`, and for
    /// the version that is at `at` where the upload minds. Returns the time that was set, and that
    /// version. A server that cannot set time or mode is no error: the content is what matters, and
    /// what the file shows is the truth.
    ///
    /// # Errors
    /// `Protocol` for a wrong size; those of the connection.
    pub(super) fn dress(
        &self,
        s: &mut Session,
        name: &RemotePath,
        at: &RemotePath,
        what: &Publish,
    ) -> Result<(Option<SystemTime>, Option<Attr>)> {
        let dressing = self.dressing(name, what)?;
        let mut lines = dressing.lines.clone();
        if name == at {
            let replies = s.batch_at_end(lines)?;
            let set = self.dressed(s, name, what, &dressing, &replies)?;
            return Ok((set, None));
        }
        if self.minds(what) {
            lines.extend(self.version_lines(s, at)?);
        }
        let mut replies = s.batch(&lines)?;
        let told = replies.split_off(dressing.lines.len().min(replies.len()));
        let set = self.dressed(s, name, what, &dressing, &replies)?;
        Ok((set, self.version_told(&told)))
    }

    /// The commands that dress the file stored at `name`.
    fn dressing(&self, name: &RemotePath, what: &Publish) -> Result<Dressing> {
        let (set_time, chmod) = self.ways.with(|ways| (ways.set_time, ways.chmod));
        let mut lines = vec![self.line("SIZE", name)?];
        let time = what.mtime.zip(set_time.flatten());
        if let Some((mtime, command)) = time {
            lines.push(self.time_line(command, name, mtime)?);
        }
        let mode = what.mode.filter(|_| chmod != Some(false));
        if let Some(mode) = mode {
            lines.push(self.chmod_line(name, mode)?);
        }
        Ok(Dressing {
            lines,
            time: time.map(|(mtime, _)| mtime),
            mode: mode.is_some(),
            learned: what.mtime.is_none() || set_time.is_some(),
        })
    }

    /// What the replies to a [`Dressing`] say.
    fn dressed(
        &self,
        s: &mut Session,
        name: &RemotePath,
        what: &Publish,
        dressing: &Dressing,
        replies: &[Reply],
    ) -> Result<Option<SystemTime>> {
        let mut replies = replies.iter();
        if let Some(reply) = replies.next() {
            self.verify_size(s, name, what.size, reply)?;
        }
        let mut set = None;
        if let Some(mtime) = dressing.time
            && replies.next().is_some_and(done)
        {
            set = Some(mtime);
        }
        if dressing.mode
            && let Some(reply) = replies.next()
        {
            // The file is our own: whatever refuses it refuses every chmod.
            self.ways.with(|ways| ways.chmod = Some(done(reply)));
        }
        if let Some(mtime) = what.mtime
            && !dressing.learned
            && self.set_time(s, name, mtime)?.is_ok()
        {
            set = Some(mtime);
        }
        Ok(set.map(whole_seconds))
    }

    /// [`dress`](Self::dress) and the rename to its name, where there should be no file, all in one
    /// round trip; what is there nevertheless is moved aside before, where the upload minds. The
    /// answer is `None` if nothing came of it and each step must be taken, and told, for itself.
    ///
    /// # Errors
    /// As those of `dress`; a file of the wrong size does not keep the name. `IsADirectory` if there
    /// is one.
    pub(super) fn dress_and_name(
        &self,
        s: &mut Session,
        job: &Replacement<'_>,
        what: &Publish,
    ) -> Result<Option<Option<SystemTime>>> {
        let (name, at) = (job.from, job.to);
        let dressing = self.dressing(name, what)?;
        if !dressing.learned || !s.is_pipelined() {
            return Ok(None);
        }
        let mut lines = dressing.lines.clone();
        let minds = self.minds(what);
        if minds {
            lines.extend(self.lines_past(job)?);
        }
        lines.extend(self.lines_of_rename(name, at)?);
        let mut replies = s.batch_at_end(lines)?;
        let mut last_succeeded = || {
            let renamed = replies.pop().is_some_and(|to| to.is_ok());
            replies.pop();
            renamed
        };
        let named = last_succeeded();
        let in_the_way = minds && last_succeeded();
        if minds && !in_the_way {
            self.reveal(&job.aside());
        }
        if !named {
            if in_the_way {
                self.take_back(s, &job.aside(), at)?;
            }
            return Ok(None);
        }
        let dressed = self.dressed(s, at, what, &dressing, &replies);
        if dressed.is_err() && !s.is_broken() {
            let removed = self.ask(s, "DELE", at)?;
            log::debug!("{at}: incomplete, removed: {}", removed.text());
            if in_the_way {
                self.take_back(s, &job.aside(), at)?;
            }
        } else if in_the_way {
            self.made_way(s, job, what)?;
        }
        dressed.map(Some)
    }

    /// Makes sure that `sent` bytes are at `name`, of which `reply` is the answer to SIZE. Guests may
    /// often not even ask for it, and some servers say anything: then what else shows the file
    /// decides. Where nothing does, a size that was told counts, and one that was not is no failure.
    fn verify_size(
        &self,
        s: &mut Session,
        name: &RemotePath,
        sent: u64,
        reply: &Reply,
    ) -> Result<()> {
        let told = size_of(reply);
        if told == Some(sent) {
            return Ok(());
        }
        let shown = match self.size_shown(s, name) {
            Err(err) if s.is_broken() => return Err(err),
            shown => shown.unwrap_or_default(),
        };
        if shown != Some(sent)
            && let Some(found) = told.or(shown)
        {
            return Err(s.misunderstood(short(name, found, sent, reply)));
        }
        if told.is_some() || matches!(reply.code(), 500 | 502 | 504) {
            let before = self.ways.with(|ways| ways.size.replace(false));
            if before.is_none()
                && let Some(told) = told
            {
                log::warn!(
                    "{name}: SIZE says {told}, all {sent} bytes are there: not believed any more"
                );
            }
        }
        Ok(())
    }

    /// The size that anything but SIZE tells of the file at `path`, also of one that our listings
    /// hide yet.
    fn size_shown(&self, s: &mut Session, path: &RemotePath) -> Result<Option<u64>> {
        if self.has_mlst(s)
            && let Some(Ok(attr)) = self.mlst(s, path)?
        {
            return Ok(attr.size);
        }
        // A guest who may not look at what he stored learns nothing of other files by that.
        let answers = self.ways.with(|ways| ways.stat);
        let told = self.stat_by_stat(s, path)?;
        self.ways
            .with(|ways| ways.stat = answers.or(ways.stat.filter(|answers| *answers)));
        if let Some(attr) = told {
            return Ok(attr.size);
        }
        let Some((dir, name)) = path.split() else {
            return Ok(None);
        };
        // NLST itself goes by SIZE.
        let modes = self.modes(s);
        let mode = modes.first().filter(|mode| **mode != ListingMode::Nlst);
        let Some(mode) = mode.copied() else {
            return Ok(None);
        };
        let Answer::Listed(listed) = self.list_by(s, &dir, mode)? else {
            return Ok(None);
        };
        let found = listed.entries.into_iter().find(|entry| entry.name == name);
        Ok(found.and_then(|entry| entry.attr.size))
    }

    /// The attributes of a file that was just published at `at`, whose time was set to `mtime`.
    pub(super) fn published(
        &self,
        s: &mut Session,
        at: &RemotePath,
        what: &Publish,
        mtime: Option<SystemTime>,
    ) -> Result<Attr> {
        self.links.with(|links| links.forget(at));
        self.no_doubt(at);
        let Some(mtime) = mtime else {
            self.times.with(|times| times.forget(at));
            return match self.stat_on(s, at) {
                Err(err) if s.is_broken() => Err(err),
                // It is there all the same; a guest may not be allowed to look at it.
                told => Ok(told.unwrap_or_else(|_| Attr {
                    size: Some(what.size),
                    ..Attr::new(FileKind::File)
                })),
            };
        };
        self.times
            .with(|times| times.learn(at, Some(what.size), mtime));
        Ok(Attr {
            size: Some(what.size),
            mtime: Some(mtime),
            mtime_exact: true,
            mode: what
                .mode
                .filter(|_| self.ways.with(|ways| ways.chmod) == Some(true)),
            ..Attr::new(FileKind::File)
        })
    }
}

/// The refusal of a size that is not the one that was sent.
fn short(path: &RemotePath, found: u64, sent: u64, reply: &Reply) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!(
            "STOR {path}: the server has {found} of {sent} bytes ({})",
            reply.text()
        ),
    )
}
