//! Attributes of one name, in as few round trips as the server allows.

use std::time::{Duration, SystemTime};

use super::listing::{self, Hints};
use super::options::{LinkPolicy, ListingMode};
use super::probes::{self, Seen};
use super::refusal::refusal;
use super::reply::Reply;
use super::server::FtpServer;
use super::server_path::{is_awkward, last_name};
use super::session::Session;
use crate::vfs::attr::{Attr, FileKind};
use crate::vfs::error::{Error, ErrorKind, Result};
use crate::vfs::path::RemotePath;

/// After so many fruitless doubts MLST is believed to tell links apart.
const DOUBTS_MAX: u8 = 16;

/// How long what was asked before it was needed is good.
const FRESH: Duration = Duration::from_secs(1);

impl FtpServer {
    /// Attributes as the server has them now.
    ///
    /// # Errors
    /// `NotFound` only if the server was asked twice, or shows the directory without the name.
    pub(super) fn stat(&self, path: &RemotePath) -> Result<Attr> {
        self.on_session(|s| self.stat_on(s, path))
    }

    /// As [`stat`](Self::stat), on a session that is at hand.
    pub(super) fn stat_on(&self, s: &mut Session, path: &RemotePath) -> Result<Attr> {
        let mut attr = self.stat_raw(s, path)?;
        if attr.kind == FileKind::Symlink && self.options().links == LinkPolicy::Follow {
            let followed = self.follow(s, std::slice::from_ref(path))?;
            attr = followed.into_iter().next().flatten().ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("{path}: the link leads nowhere"),
                )
            })?;
        }
        self.times
            .with(|times| times.refine(path, &mut attr, SystemTime::now()));
        Ok(attr)
    }

    fn stat_raw(&self, s: &mut Session, path: &RemotePath) -> Result<Attr> {
        if self.has_mlst(s) {
            match self.mlst(s, path)? {
                Some(Ok(attr)) if self.is_doubtful(path, &attr) => {
                    return self.resolve_doubt(s, path, attr);
                }
                Some(Ok(attr)) => return Ok(attr),
                Some(Err(reply)) => return self.stat_refused(s, path, &reply),
                None => {}
            }
        }
        if path.is_root() {
            let reply = self.enter(s, path)?;
            if reply.is_ok() {
                let listed = self.root_attr.with(|attr| attr.clone());
                return Ok(listed.unwrap_or_else(|| Attr::new(FileKind::Directory)));
            }
            return Err(self.explain(s, probes::TOUCH, ("CWD", path), &reply));
        }
        self.stat_without_mlst(s, path)
    }

    /// Whether MLST is worth sending.
    pub(super) fn has_mlst(&self, s: &Session) -> bool {
        let forced_list = !matches!(
            self.options().listing,
            ListingMode::Auto | ListingMode::Mlsd
        );
        let features = s.features();
        let named = !features.answered() || features.has("MLST") || features.has("MLSD");
        !forced_list && self.ways.with(|ways| ways.mlst).unwrap_or(named)
    }

    /// Asks MLST. `None` if the server does not know it (which is remembered), `Some(Err)` with
    /// its refusal.
    pub(super) fn mlst(
        &self,
        s: &mut Session,
        path: &RemotePath,
    ) -> Result<Option<std::result::Result<Attr, Reply>>> {
        let reply = match self.told_at_login(path) {
            Some(reply) => reply,
            None => self.ask(s, "MLST", path)?,
        };
        if matches!(reply.code(), 500 | 502 | 504) {
            self.ways.with(|ways| ways.mlst = Some(false));
            return Ok(None);
        }
        if !reply.is_ok() {
            return Ok(Some(Err(reply)));
        }
        // ProFTPD tells of one path on one line; more lines would be more than was asked for.
        let facts = reply
            .body()
            .first()
            .and_then(|line| listing::parse_facts(line));
        let Some((attr, _)) = facts else {
            return Ok(None);
        };
        self.ways.with(|ways| ways.mlst = Some(true));
        Ok(Some(Ok(attr)))
    }

    /// What was just said of the root.
    fn told_at_login(&self, path: &RemotePath) -> Option<Reply> {
        let told = path
            .is_root()
            .then(|| self.pool.host().facts(|facts| facts.root_told.take()));
        let fresh = told.flatten().filter(|(at, _)| at.elapsed() < FRESH);
        fresh.map(|(_, reply)| reply).filter(Reply::is_ok)
    }

    /// ProFTPD's MLST says of a link what its target is, with the mode of the link itself. Any
    /// file with that mode may be a link until the server has shown how it does it.
    fn is_doubtful(&self, path: &RemotePath, attr: &Attr) -> bool {
        let may_be_link = attr.mode == Some(0o777) && attr.kind != FileKind::Symlink;
        let plain_directory = attr.is_dir() && attr.size.is_none();
        may_be_link
            && !plain_directory
            && !path.is_root()
            && self.ways.with(|ways| ways.mlst_follows != Some(false))
    }

    fn resolve_doubt(&self, s: &mut Session, path: &RemotePath, told: Attr) -> Result<Attr> {
        let listed = self.stat_by_listing(s, path);
        let link = matches!(&listed, Ok(Some(attr)) if attr.kind == FileKind::Symlink);
        self.ways.with(|ways| {
            if link {
                ways.mlst_follows = Some(true);
            } else if ways.mlst_follows.is_none() {
                ways.mlst_doubts += 1;
                if ways.mlst_doubts >= DOUBTS_MAX {
                    ways.mlst_follows = Some(false);
                }
            }
        });
        match listed {
            Ok(Some(attr)) if link => Ok(attr),
            Err(err) if s.is_broken() => Err(err),
            _ => Ok(told),
        }
    }

    /// MLST said no: not there, or hidden, or a dangling link that only LIST shows.
    fn stat_refused(&self, s: &mut Session, path: &RemotePath, reply: &Reply) -> Result<Attr> {
        let what = format!("MLST {path}");
        match self.look_after_mlst(s, path, reply)? {
            Seen::Missing => {
                let refused = refusal(&what, reply);
                Err(Error::new(ErrorKind::NotFound, refused.detail()))
            }
            Seen::Unclear => Err(self.noted(path, refusal(&what, reply))),
            Seen::File | Seen::Directory => self
                .stat_by_listing(s, path)?
                .ok_or_else(|| self.noted(path, refusal(&what, reply))),
        }
    }

    /// SIZE and MDTM are exact, and STAT has the rest, of files. Directories, links and devices are
    /// taken from the listing of their directory.
    fn stat_without_mlst(&self, s: &mut Session, path: &RemotePath) -> Result<Attr> {
        let [size, mdtm] = self.ask_all(s, [("SIZE", path), ("MDTM", path)])?;
        let (told, mtime) = (size_of(&size), time_of(&mdtm));
        let size = told.filter(|_| self.believes_size());
        if let Some(mtime) = mtime {
            self.times.with(|times| times.told(path, size, mtime));
        }
        let listed = match told {
            Some(_) => self.stat_by_stat(s, path)?,
            None => None,
        };
        // Before the zone of LIST is known its times are wrong by hours. This file may be too old
        // to tell; then the others of its directory are asked, as they are by a listing.
        let listed = listed.and_then(|mut attr| {
            let told = self.measure_offset_on(&mut attr, mtime);
            told.then_some(attr)
        });
        let listed = match listed {
            Some(attr) => Some(attr),
            None => self.stat_by_listing(s, path)?,
        };
        let Some(mut attr) = listed else {
            if told.is_some() {
                // The listing hides it (a dot file), yet it is there.
                return Ok(Attr {
                    size,
                    mtime,
                    mtime_exact: mtime.is_some(),
                    ..Attr::new(FileKind::File)
                });
            }
            return self.hidden_or_missing(s, path);
        };
        if attr.kind == FileKind::File {
            attr.size = size.or(attr.size);
            if attr.mtime.is_none() || self.options().exact_times {
                attr.mtime_exact = mtime.is_some() || attr.mtime_exact;
                attr.mtime = mtime.or(attr.mtime);
            }
            // A file whose time would change from the minute to the second when it is opened would
            // be copied again by every rsync. So the time that is shown is LIST's, and the exact
            // one, which tells two versions apart, is a part of the file's identity.
            if mtime.is_some() && attr.unique.is_none() {
                attr.unique = Some(mdtm.first_line().into());
            }
        }
        Ok(attr)
    }

    /// Whether what SIZE says is true, as far as known.
    pub(super) fn believes_size(&self) -> bool {
        self.ways.with(|ways| ways.size != Some(false))
    }

    /// The listing of the directory, which exists, has no such name. Servers without `LIST -a` hide
    /// directories that begin with a dot.
    fn hidden_or_missing(&self, s: &mut Session, path: &RemotePath) -> Result<Attr> {
        let reply = self.enter(s, path)?;
        if reply.is_ok() {
            return Ok(Attr::new(FileKind::Directory));
        }
        let refused = refusal(&format!("CWD {path}"), &reply);
        Err(Error::new(ErrorKind::NotFound, refused.detail()))
    }

    /// One line of LIST without a data connection, for what is known to be a file: of a directory,
    /// STAT would send the whole listing through the control connection.
    pub(super) fn stat_by_stat(&self, s: &mut Session, path: &RemotePath) -> Result<Option<Attr>> {
        let argument = self.spell(path)?;
        if is_awkward(&argument) || self.ways.with(|ways| ways.stat == Some(false)) {
            return Ok(None);
        }
        let reply = self.ask(s, "STAT", path)?;
        let parsed = listing::parse_list(&reply.body().join(&b'\n'), &self.hints());
        let attr = match parsed.entries.as_slice() {
            [entry] if reply.is_ok() && last_name(&argument).as_ref() == Some(&entry.name) => {
                Some(entry.attr.clone())
            }
            _ => None,
        };
        self.ways.with(|ways| ways.stat = Some(attr.is_some()));
        Ok(attr)
    }

    /// What the listing of its directory says of `path`; `None` if it does not name it.
    pub(super) fn stat_by_listing(
        &self,
        s: &mut Session,
        path: &RemotePath,
    ) -> Result<Option<Attr>> {
        let Some((dir, name)) = path.split() else {
            return Ok(Some(Attr::new(FileKind::Directory)));
        };
        let mut entries = self.list_on(s, &dir)?;
        let at = entries.iter().position(|entry| entry.name == name);
        Ok(at.map(|at| entries.swap_remove(at).attr))
    }

    /// What the parser of LIST lines should know.
    pub(super) fn hints(&self) -> Hints {
        let (measured, dialect) = self.ways.with(|ways| (ways.time_offset, ways.dialect));
        Hints {
            now: SystemTime::now(),
            offset_secs: self.options().time_offset.or(measured).unwrap_or(0),
            dialect,
        }
    }
}

/// The number of `213 12345` (RFC 3659 section 4); some say 200, some write more after it.
pub(super) fn size_of(reply: &Reply) -> Option<u64> {
    if !reply.is_ok() {
        return None;
    }
    let text = std::str::from_utf8(reply.first_line()).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The time of `213 YYYYMMDDhhmmss` (RFC 3659 section 3), UTC.
pub(super) fn time_of(reply: &Reply) -> Option<SystemTime> {
    let word = reply.first_line().split(|b| *b == b' ').next()?;
    reply.is_ok().then(|| listing::parse_time(word)).flatten()
}
